//! Events as link frames.

use latchbus_bus::{Event, frames};
use latchbus_core::wire::{self, ServerFrame};

/// Appends the frames that tell a device of this event: none, one, or one for each refused part.
pub(crate) fn write_event(out: &mut Vec<u8>, event: &Event) {
    if let Event::Message {
        subscription,
        delivery,
        ..
    } = event
    {
        let (head, tail) = frames::message(*subscription, delivery);
        return write_pieces(out, &[&head, tail]);
    }
    frames::each_frame(event, |frame| write(out, frame));
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
