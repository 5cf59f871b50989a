//! The bytes of every message, written out. A test that fails here says that old and new programs
//! no longer understand each other: the change needs a new version byte.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the tests call may fail as they may"
)]

use latchbus_core::hub::{Cursor, Mode};
use latchbus_core::wire::{
    ClientFrame, ErrorCode, Limits, ServerFrame, WireError, decode_client, decode_server, encode,
    encode_link,
};

fn client(frame: ClientFrame<'_>, golden: &[u8]) {
    let mut buffer = [0; 128];
    assert_eq!(encode(&frame, &mut buffer).unwrap(), golden, "{frame:?}");
    assert_eq!(decode_client(golden), Ok(frame));
    cut_or_longer(golden, |message| decode_client(message).err());
}

fn server(frame: ServerFrame<'_>, golden: &[u8]) {
    let mut buffer = [0; 128];
    assert_eq!(encode(&frame, &mut buffer).unwrap(), golden, "{frame:?}");
    assert_eq!(decode_server(golden), Ok(frame));
    cut_or_longer(golden, |message| decode_server(message).err());
}

/// A message is taken whole or not at all.
fn cut_or_longer(golden: &[u8], error: impl Fn(&[u8]) -> Option<WireError>) {
    for length in 0..golden.len() {
        assert_eq!(
            error(&golden[..length]),
            Some(WireError::Truncated),
            "{length} of {golden:?}"
        );
    }
    assert_eq!(error(&[golden, &[0]].concat()), Some(WireError::Trailing));
    let other_version = [&[2], &golden[1..]].concat();
    assert_eq!(error(&other_version), Some(WireError::UnknownVersion(2)));
}

#[test]
fn subscribe() {
    client(
        ClientFrame::Subscribe {
            id: 1,
            filter: "a/#",
            mode: Mode::Latest,
            max_rate: None,
            since: None,
        },
        &[1, 0, 1, 3, b'a', b'/', b'#', 0, 0, 0],
    );
    client(
        ClientFrame::Subscribe {
            id: 300,
            filter: "+",
            mode: Mode::Every,
            max_rate: Some(20.0),
            since: Some(Cursor {
                epoch: 0x9f3c,
                rev: 1042,
            }),
        },
        &[
            1, 0, 0xac, 2, 1, b'+', 1, // id, filter, mode
            1, 0, 0, 0xa0, 0x41, // an f32, little endian
            1, 0xbc, 0xbe, 2, 0x92, 8, // epoch and revision
        ],
    );
}

#[test]
fn unsubscribe() {
    client(ClientFrame::Unsubscribe { id: 1 }, &[1, 1, 1]);
}

#[test]
fn publish() {
    client(
        ClientFrame::Publish {
            id: None,
            topic: "t",
            payload: &[0, 0xff],
            retain: false,
        },
        &[1, 2, 0, 1, b't', 2, 0, 0xff, 0],
    );
    client(
        ClientFrame::Publish {
            id: Some(u64::MAX),
            topic: "\u{e9}",
            payload: b"",
            retain: true,
        },
        &[
            1, 2, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 0xc3, 0xa9, 0, 1,
        ],
    );
}

#[test]
fn ping_and_pong() {
    client(ClientFrame::Ping { id: 127 }, &[1, 3, 127]);
    server(ServerFrame::Pong { id: 128 }, &[1, 8, 0x80, 1]);
}

#[test]
fn welcome() {
    server(
        ServerFrame::Welcome {
            server: "lb/1",
            epoch: 0x9f3c,
            limits: Limits {
                payload_bytes: 65_536,
                topic_bytes: 1024,
                subscriptions: 64,
                in_flight: 5,
            },
        },
        &[
            1, 0, 4, b'l', b'b', b'/', b'1', 0xbc, 0xbe, 2, // name, epoch
            0x80, 0x80, 4, 0x80, 8, 64, 5, // limits
        ],
    );
}

#[test]
fn deliveries() {
    server(
        ServerFrame::Message {
            id: 7,
            topic: "a/b",
            payload: b"hi",
            rev: 1042,
            at: 1_732_305_000_123,
        },
        &[
            1, 1, 7, 3, b'a', b'/', b'b', 2, b'h', b'i', 0x92, 8, 0xbb, 0xad, 0xb2, 0xab, 0xb5,
            0x32,
        ],
    );
    server(
        ServerFrame::Cleared {
            id: 7,
            topic: "a/b",
            rev: 1043,
            at: 0,
        },
        &[1, 2, 7, 3, b'a', b'/', b'b', 0x93, 8, 0],
    );
}

#[test]
fn places_in_the_order() {
    let cursor = Cursor { epoch: 1, rev: 128 };
    server(
        ServerFrame::Synced { id: 7, cursor },
        &[1, 3, 7, 1, 0x80, 1],
    );
    server(ServerFrame::Gap { id: 7, missed: 17 }, &[1, 4, 7, 17]);
    server(ServerFrame::Reset { id: 7 }, &[1, 5, 7]);
}

#[test]
fn answers() {
    server(ServerFrame::Ack { id: 2, rev: 1043 }, &[1, 6, 2, 0x93, 8]);
    for (number, code) in ErrorCode::ALL.into_iter().enumerate() {
        let number = u8::try_from(number).unwrap();
        server(
            ServerFrame::Error {
                id: Some(2),
                code,
                message: "no",
            },
            &[1, 7, 1, 2, number, 2, b'n', b'o'],
        );
    }
    server(
        ServerFrame::Error {
            id: None,
            code: ErrorCode::BadMessage,
            message: "",
        },
        &[1, 7, 0, 0, 0],
    );
}

#[test]
fn unknown_variants_and_bad_text_are_malformed() {
    assert_eq!(decode_client(&[1, 4, 0]), Err(WireError::Malformed));
    assert_eq!(decode_server(&[1, 9, 0]), Err(WireError::Malformed));
    let unknown = u8::try_from(ErrorCode::ALL.len()).unwrap();
    assert_eq!(
        decode_server(&[1, 7, 0, unknown, 0]),
        Err(WireError::Malformed)
    );
    assert_eq!(
        decode_client(&[1, 2, 0, 1, 0xff, 0, 0]),
        Err(WireError::Malformed)
    );
    assert_eq!(
        decode_client(&[1, 2, 0, 1, b't', 0, 2]),
        Err(WireError::Malformed)
    );
    // A length beyond the message is not believed.
    let long = [1, 2, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, b't'];
    assert_eq!(decode_client(&long), Err(WireError::Truncated));
}

#[test]
fn a_buffer_too_small_is_an_error() {
    let frame = ClientFrame::Ping { id: 300 };
    let mut buffer = [0; 4];
    assert_eq!(encode(&frame, &mut buffer).unwrap(), [1, 3, 0xac, 2]);
    for size in 0..4 {
        assert_eq!(
            encode(&frame, &mut buffer[..size]),
            Err(WireError::BufferFull)
        );
    }
}

#[test]
fn link_frames() {
    let mut buffer = [0; 32];
    let frame = encode_link(&ClientFrame::Ping { id: 0 }, &mut buffer).unwrap();
    // COBS of 01 03 00 and the little-endian CRC-32 of these three bytes, then the delimiter.
    assert_eq!(frame, [3, 1, 3, 5, 0xe6, 0xe0, 0xae, 0xd5, 0]);
}
