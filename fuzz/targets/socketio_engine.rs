//! Engine.IO packets of hostile clients: what is read is written as it came, and a body is its packets.
#![no_main]

use latchbus_socketio::engine::{Packet, SEPARATOR, binary_len};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let one_by_one: Result<Vec<_>, _> = input
        .split(SEPARATOR)
        .map(|packet| Packet::decode(packet, true))
        .collect();
    assert_eq!(Packet::decode_body(input), one_by_one);
    for packet in one_by_one.into_iter().flatten() {
        let mut text = String::new();
        packet.encode(&mut text);
        assert_eq!(Packet::decode(&text, true).as_ref(), Ok(&packet));
        if let Packet::Binary(bytes) = &packet {
            assert_eq!(text.len(), binary_len(bytes.len()));
            // Over WebSocket bytes are a frame of their own.
            assert!(Packet::decode(&text, false).is_err());
        } else {
            assert_eq!(Packet::decode(&text, false), Ok(packet));
        }
    }
});
