//! Events as whole WebSocket frames, in either form.

use bytes::Bytes;
use latchbus_bus::{Delivery, Encoding, Event};
use latchbus_core::hub::Kind;
use latchbus_core::wire::{self, ClearedTail, ErrorCode, MessageTail, ServerFrame};

use crate::frame::{Opcode, write_frame};
use crate::{Protocol, json};

/// Appends the frames that tell a peer of this event: none, one, or one for each refused part.
pub(crate) fn write_event(out: &mut Vec<u8>, protocol: Protocol, event: &Event) {
    match event {
        Event::Message {
            subscription,
            delivery,
            ..
        } => write_message(out, protocol, *subscription, delivery),
        Event::Subscribed { results, .. } => {
            // What was accepted is answered by its `synced`.
            for (id, result) in results {
                if let Err(refused) = result {
                    write_error(out, protocol, Some(*id), refused.code(), refused);
                }
            }
        }
        Event::Unsubscribed { id, existed } => {
            if existed.contains(&false) {
                let reason = &"no such subscription";
                write_error(out, protocol, Some(*id), ErrorCode::BadMessage, reason);
            }
        }
        Event::Refused { id, refused } => {
            write_error(out, protocol, *id, refused.code(), refused);
        }
        Event::Bad { id, code, message } => write_error(out, protocol, *id, *code, message),
        Event::Published { id, rev } => {
            write(out, protocol, &ServerFrame::Ack { id: *id, rev: *rev });
        }
        Event::Pong { id, counts } => match protocol {
            Protocol::Json => write_frame(out, Opcode::Text, &[&json::pong(*id, *counts)]),
            Protocol::Postcard => write(out, protocol, &ServerFrame::Pong { id: *id }),
        },
        Event::Synced {
            subscription: id,
            cursor,
        } => {
            let (id, cursor) = (*id, *cursor);
            write(out, protocol, &ServerFrame::Synced { id, cursor });
        }
        Event::Gap {
            subscription: id,
            missed,
        } => {
            let (id, missed) = (*id, *missed);
            write(out, protocol, &ServerFrame::Gap { id, missed });
        }
        Event::Reset { subscription: id } => {
            write(out, protocol, &ServerFrame::Reset { id: *id });
        }
    }
}

/// Appends one frame.
pub(crate) fn write(out: &mut Vec<u8>, protocol: Protocol, frame: &ServerFrame<'_>) {
    match protocol {
        Protocol::Json => write_frame(out, Opcode::Text, &[&json::encode(frame)]),
        Protocol::Postcard => match wire::encode_vec(frame) {
            Ok(message) => write_frame(out, Opcode::Binary, &[&message]),
            Err(error) => tracing::error!(%error, "a frame cannot be encoded"),
        },
    }
}

fn write_error(
    out: &mut Vec<u8>,
    protocol: Protocol,
    id: Option<u64>,
    code: ErrorCode,
    reason: &dyn ToString,
) {
    let message = &reason.to_string();
    write(out, protocol, &ServerFrame::Error { id, code, message });
}

fn write_message(out: &mut Vec<u8>, protocol: Protocol, id: u64, delivery: &Delivery) {
    match protocol {
        Protocol::Json => {
            let tail = delivery
                .payload
                .encoded(Encoding::Json, || json_tail(delivery));
            write_frame(
                out,
                Opcode::Text,
                &[json::MessageHead::new(id).as_bytes(), tail],
            );
        }
        Protocol::Postcard => {
            let head = match delivery.kind {
                Kind::Cleared => wire::cleared_head(id),
                Kind::State | Kind::Event => wire::message_head(id),
            };
            let tail = delivery
                .payload
                .encoded(Encoding::Postcard, || postcard_tail(delivery));
            write_frame(out, Opcode::Binary, &[&head, tail]);
        }
    }
}

fn json_tail(delivery: &Delivery) -> Bytes {
    let topic = delivery.topic.as_str();
    let payload = delivery.payload.bytes();
    json::message_tail(delivery.kind, topic, payload, delivery.rev, delivery.at).into()
}

fn postcard_tail(delivery: &Delivery) -> Bytes {
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
    // Never the case for a tail; an empty one would be a frame that its reader refuses.
    tail.inspect_err(|error| tracing::error!(%error, "a message cannot be encoded"))
        .unwrap_or_default()
        .into()
}
