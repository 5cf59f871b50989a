//! Events as link frames.

use latchbus_bus::{Event, frames};
use latchbus_core::wire::{self, ErrorCode, ServerFrame};

/// Appends the frames that tell a device of this event: none, one, or one for each refused part. A message of more than
/// `max_message_bytes` is not sent; the device is told of it, and the result is its length.
pub(crate) fn write_event(
    out: &mut Vec<u8>,
    event: &Event,
    max_message_bytes: usize,
) -> Option<usize> {
    let Event::Message {
        subscription,
        delivery,
        ..
    } = event
    else {
        frames::each_frame(event, |frame| write(out, frame));
        return None;
    };
    let (head, tail) = frames::message(*subscription, delivery);
    let message_bytes = head.len() + tail.len();
    if message_bytes <= max_message_bytes {
        write_pieces(out, &[&head, tail]);
        return None;
    }
    let topic = &delivery.topic;
    let message =
        &format!("{topic} has a value of {message_bytes} bytes, the limit is {max_message_bytes}");
    write(
        out,
        &ServerFrame::Error {
            id: None,
            code: ErrorCode::TooLarge,
            message,
        },
    );
    Some(message_bytes)
}

/// Appends one frame.
pub(crate) fn write(out: &mut Vec<u8>, frame: &ServerFrame<'_>) {
    match wire::encode_vec(frame) {
        Ok(message) => write_pieces(out, &[&message]),
        Err(error) => tracing::error!(target: "serial", %error, "a frame cannot be encoded"),
    }
}

fn write_pieces(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    let message_bytes = pieces.iter().map(|piece| piece.len()).sum();
    let begin = out.len();
    out.resize(begin + wire::max_link_bytes(message_bytes), 0);
    let room = out.get_mut(begin..).unwrap_or_default();
    let written = wire::wrap_link(pieces, room).map_or(0, |frame| frame.len());
    out.truncate(begin + written);
}
