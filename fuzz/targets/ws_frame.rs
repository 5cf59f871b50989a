//! WebSocket frames of hostile clients: however they are cut, the same messages come out, within the bound, and each
//! is read again from the frame that carries it.
//!
//! Input: one byte for the bound on a message, then what comes over the socket.
#![no_main]

use latchbus_ws::frame::{
    FrameError, FrameReader, Incoming, MAX_CONTROL_BYTES, Opcode, write_frame,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((limit, stream)) = input.split_first() else {
        return;
    };
    let limit = usize::from(*limit) * 2;
    let whole = read(limit, stream, usize::MAX);
    assert_eq!(whole, read(limit, stream, 1));
    assert_eq!(whole, read(limit, stream, 7));
    for message in &whole.0 {
        let (opcode, payload, bound) = match message {
            Incoming::Text(text) => (Opcode::Text, text.as_bytes(), limit),
            Incoming::Binary(bytes) => (Opcode::Binary, &bytes[..], limit),
            Incoming::Ping(bytes) => (Opcode::Ping, &bytes[..], MAX_CONTROL_BYTES),
            Incoming::Pong(bytes) => (Opcode::Pong, &bytes[..], MAX_CONTROL_BYTES),
            Incoming::Close(_) => continue,
        };
        assert!(payload.len() <= bound);
        let (front, back) = payload.split_at(payload.len() / 2);
        let mut frame = Vec::new();
        write_frame(&mut frame, opcode, &[front, back]);
        assert_eq!(
            read(limit, &frame, usize::MAX),
            (vec![], Err(FrameError::Protocol("not masked")))
        );
        assert_eq!(
            read(limit, &masked(frame), usize::MAX),
            (vec![message.clone()], Ok(()))
        );
    }
});

fn read(limit: usize, stream: &[u8], piece: usize) -> (Vec<Incoming>, Result<(), FrameError>) {
    let mut reader = FrameReader::new(limit);
    let mut messages = Vec::new();
    for piece in stream.chunks(piece.min(stream.len()).max(1)) {
        reader.feed(piece);
        loop {
            match reader.next_incoming() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    (messages, Ok(()))
}

/// A server's frame as a client sends it, with the mask that changes nothing.
fn masked(mut frame: Vec<u8>) -> Vec<u8> {
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    frame[1] |= 0x80;
    frame.splice(header..header, [0; 4]);
    frame
}
