//! Events as whole WebSocket frames, in either form.

use bytes::Bytes;
use latchbus_bus::{Delivery, Encoding, Event, frames};
use latchbus_core::wire::{self, ServerFrame};

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
        Event::Pong { id, counts } if protocol == Protocol::Json => {
            write_frame(out, Opcode::Text, &[&json::pong(*id, *counts)]);
        }
        _ => frames::each_frame(event, |frame| write(out, protocol, frame)),
    }
}

/// Appends the first frame, [`ServerFrame::Welcome`].
pub(crate) fn write_welcome(
    out: &mut Vec<u8>,
    protocol: Protocol,
    frame: &ServerFrame<'_>,
    time: u64,
) {
    match protocol {
        Protocol::Json => write_frame(out, Opcode::Text, &[&json::welcome(frame, time)]),
        Protocol::Postcard => write(out, protocol, frame),
    }
}

/// Appends one frame.
fn write(out: &mut Vec<u8>, protocol: Protocol, frame: &ServerFrame<'_>) {
    match protocol {
        Protocol::Json => write_frame(out, Opcode::Text, &[&json::encode(frame)]),
        Protocol::Postcard => match wire::encode_vec(frame) {
            Ok(message) => write_frame(out, Opcode::Binary, &[&message]),
            Err(error) => tracing::error!(target: "websocket", %error, "a frame cannot be encoded"),
        },
    }
}

fn write_message(out: &mut Vec<u8>, protocol: Protocol, id: u64, delivery: &Delivery) {
    match protocol {
        Protocol::Json => {
            let payload = &delivery.payload;
            let tail = payload.encoded(Encoding::Json, || json_tail(delivery));
            let head = json::MessageHead::new(id);
            write_frame(out, Opcode::Text, &[head.as_bytes(), tail]);
        }
        Protocol::Postcard => {
            let (head, tail) = frames::message(id, delivery);
            write_frame(out, Opcode::Binary, &[&head, tail]);
        }
    }
}

fn json_tail(delivery: &Delivery) -> Bytes {
    let topic = delivery.topic.as_str();
    let payload = delivery.payload.bytes();
    json::message_tail(delivery.kind, topic, payload, delivery.rev, delivery.at).into()
}
