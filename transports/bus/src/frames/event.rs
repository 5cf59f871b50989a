//! What a peer is told.

use bytes::Bytes;
use latchbus_core::hub::Kind;
use latchbus_core::wire::{self, ClearedTail, ErrorCode, Head, MessageTail, ServerFrame};

use crate::{Delivery, Encoding, Event};

/// Under this name a delivery keeps the part of its postcard form that all subscribers share.
const TAIL: Encoding = Encoding::new("postcard");

/// Calls `write` with each frame that tells a peer of this event: none, one, or one for each refused part.
/// None for an [`Event::Message`], whose frame is made once for all its subscribers: see [`message`].
pub fn each_frame(event: &Event, mut write: impl FnMut(&ServerFrame<'_>)) {
    let mut error = |id, code, reason: &dyn ToString| {
        let message = &reason.to_string();
        write(&ServerFrame::Error { id, code, message });
    };
    match event {
        Event::Message { .. } => {}
        Event::Subscribed { results, .. } => {
            // What was accepted is answered by its `Synced`.
            for (id, result) in results {
                if let Err(refused) = result {
                    error(Some(*id), refused.code(), refused);
                }
            }
        }
        Event::Unsubscribed { id, existed } => {
            if existed.contains(&false) {
                let reason = &"no such subscription";
                error(Some(*id), ErrorCode::BadMessage, reason);
            }
        }
        Event::SignedIn { id, result } => {
            if let Err(refused) = result {
                error(*id, ErrorCode::Unauthorized, refused);
            }
        }
        Event::Refused { id, refused } => error(*id, refused.code(), refused),
        Event::Bad { id, code, message } => error(*id, *code, message),
        // A page has no postcard form: who asks has one of JSON.
        Event::History { id, result } => {
            if let Err(refused) = result {
                error(Some(*id), refused.code(), refused);
            }
        }
        Event::Published { id, rev } => write(&ServerFrame::Ack { id: *id, rev: *rev }),
        Event::Pong { id, .. } => write(&ServerFrame::Pong { id: *id }),
        Event::Synced {
            subscription: id,
            cursor,
        } => {
            let (id, cursor) = (*id, *cursor);
            write(&ServerFrame::Synced { id, cursor });
        }
        Event::Gap {
            subscription: id,
            missed,
        } => {
            let (id, missed) = (*id, *missed);
            write(&ServerFrame::Gap { id, missed });
        }
        Event::Reset { subscription: id } => write(&ServerFrame::Reset { id: *id }),
    }
}

/// A message in postcard form: the head for one subscription, and the rest, which all subscribers share.
pub fn message(id: u64, delivery: &Delivery) -> (Head, &Bytes) {
    let head = match delivery.kind {
        Kind::Cleared => wire::cleared_head(id),
        Kind::State | Kind::Event => wire::message_head(id),
    };
    let payload = &delivery.payload;
    (head, payload.encoded(TAIL, || tail(delivery)))
}

fn tail(delivery: &Delivery) -> Bytes {
    let topic = delivery.topic.as_str();
    let (rev, at) = (delivery.rev, delivery.at);
    let tail = match delivery.kind {
        Kind::Cleared => ClearedTail { topic, rev, at }.encode_vec(),
        Kind::State | Kind::Event => {
            let payload = delivery.payload.bytes();
            MessageTail {
                topic,
                payload,
                rev,
                at,
            }
            .encode_vec()
        }
    };
    // Never the case for a tail; an empty one would be a frame that its reader refuses or skips.
    tail.inspect_err(|error| tracing::error!(target: "bus", %error, "a message cannot be encoded"))
        .unwrap_or_default()
        .into()
}
