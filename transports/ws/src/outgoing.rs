//! Events as whole WebSocket frames, in either form.

use latchbus_bus::frames::{self, json};
use latchbus_bus::{Delivery, Event, Identity};
use latchbus_core::wire::{self, ServerFrame};

use crate::Protocol;
use crate::frame::{Opcode, write_frame};

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
        Event::SignedIn { id, result: Ok(()) } if protocol == Protocol::Json => {
            write_frame(out, Opcode::Text, &[&json::authenticated(*id)]);
        }
        Event::History {
            id,
            result: Ok(page),
        } if protocol == Protocol::Json => {
            write_frame(out, Opcode::Text, &[&json::history(*id, page)]);
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
    identity: &Identity,
) {
    match protocol {
        Protocol::Json => write_frame(out, Opcode::Text, &[&json::welcome(frame, time, identity)]),
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
            let (head, tail) = (json::MessageHead::new(id), json::message_tail(delivery));
            write_frame(out, Opcode::Text, &[head.as_bytes(), tail]);
        }
        Protocol::Postcard => {
            let (head, tail) = frames::message(id, delivery);
            write_frame(out, Opcode::Binary, &[&head, tail]);
        }
    }
}
