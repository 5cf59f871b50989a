//! Events as link frames.

use bytes::Bytes;
use latchbus_bus::{Delivery, Encoding, Event};
use latchbus_core::hub::Kind;
use latchbus_core::wire::{self, ClearedTail, ErrorCode, MessageTail, ServerFrame};

/// Appends the frames that tell a device of this event: none, one, or one for each refused part.
pub(crate) fn write_event(out: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Message {
            subscription,
            delivery,
            ..
        } => write_message(out, *subscription, delivery),
        Event::Subscribed { results, .. } => {
            // What was accepted is answered by its `Synced`.
            for (id, result) in results {
                if let Err(refused) = result {
                    write_error(out, Some(*id), refused.code(), refused);
                }
            }
        }
        Event::Unsubscribed { id, existed } => {
            if existed.contains(&false) {
                let reason = &"no such subscription";
                write_error(out, Some(*id), ErrorCode::BadMessage, reason);
            }
        }
        Event::Refused { id, refused } => write_error(out, *id, refused.code(), refused),
        Event::Bad { id, code, message } => write_error(out, *id, *code, message),
        Event::Published { id, rev } => {
            let (id, rev) = (*id, *rev);
            write(out, &ServerFrame::Ack { id, rev });
        }
        Event::Pong { id, .. } => write(out, &ServerFrame::Pong { id: *id }),
        Event::Synced {
            subscription: id,
            cursor,
        } => {
            let (id, cursor) = (*id, *cursor);
            write(out, &ServerFrame::Synced { id, cursor });
        }
        Event::Gap {
            subscription: id,
            missed,
        } => {
            let (id, missed) = (*id, *missed);
            write(out, &ServerFrame::Gap { id, missed });
        }
        Event::Reset { subscription } => write(out, &ServerFrame::Reset { id: *subscription }),
    }
}

/// Appends one frame.
pub(crate) fn write(out: &mut Vec<u8>, frame: &ServerFrame<'_>) {
    match wire::encode_vec(frame) {
        Ok(message) => write_pieces(out, &[&message]),
        Err(error) => tracing::error!(%error, "a frame cannot be encoded"),
    }
}

fn write_error(out: &mut Vec<u8>, id: Option<u64>, code: ErrorCode, reason: &dyn ToString) {
    let message = &reason.to_string();
    write(out, &ServerFrame::Error { id, code, message });
}

fn write_message(out: &mut Vec<u8>, id: u64, delivery: &Delivery) {
    let head = match delivery.kind {
        Kind::Cleared => wire::cleared_head(id),
        Kind::State | Kind::Event => wire::message_head(id),
    };
    let tail = delivery
        .payload
        .encoded(Encoding::Postcard, || tail(delivery));
    write_pieces(out, &[&head, tail]);
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
    // Never the case for a tail; an empty one would be a frame that its reader skips.
    tail.inspect_err(|error| tracing::error!(%error, "a message cannot be encoded"))
        .unwrap_or_default()
        .into()
}

fn write_pieces(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    let message_bytes = pieces.iter().map(|piece| piece.len()).sum();
    let begin = out.len();
    out.resize(begin + wire::max_link_bytes(message_bytes), 0);
    let room = out.get_mut(begin..).unwrap_or_default();
    let written = wire::wrap_link(pieces, room).map_or(0, |frame| frame.len());
    out.truncate(begin + written);
}
