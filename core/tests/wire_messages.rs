//! Messages go through whole, and no bytes from outside panic.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the tests call may fail as they may"
)]

use latchbus_core::hub::{Cursor, Mode};
use latchbus_core::wire::{
    ClearedTail, ClientFrame, ErrorCode, Limits, MessageTail, ServerFrame, cleared_head,
    decode_client, decode_server, encode, message_head,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Owned parts that the borrowed frames are made of.
#[derive(Clone, Debug)]
struct Parts {
    variant: usize,
    ids: [u64; 2],
    id: Option<u64>,
    text: String,
    payload: Vec<u8>,
    flag: bool,
    max_rate: Option<f32>,
    cursor: Option<Cursor>,
    limits: [u32; 4],
    code: ErrorCode,
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, any::<u64>()]
}

fn parts() -> impl Strategy<Value = Parts> {
    let cursor = (number(), number()).prop_map(|(epoch, rev)| Cursor { epoch, rev });
    (
        (
            any::<usize>(),
            [number(), number()],
            option::of(number()),
            ".{0,40}",
        ),
        (
            vec(any::<u8>(), 0..400),
            any::<bool>(),
            option::of(-1e9..1e9_f32),
            option::of(cursor),
        ),
        (
            any::<[u32; 4]>(),
            prop::sample::select(ErrorCode::ALL.to_vec()),
        ),
    )
        .prop_map(
            |((variant, ids, id, text), (payload, flag, max_rate, cursor), (limits, code))| Parts {
                variant,
                ids,
                id,
                text,
                payload,
                flag,
                max_rate,
                cursor,
                limits,
                code,
            },
        )
}

impl Parts {
    fn client(&self) -> ClientFrame<'_> {
        let [id, _] = self.ids;
        match self.variant % 4 {
            0 => ClientFrame::Subscribe {
                id,
                filter: &self.text,
                mode: if self.flag { Mode::Every } else { Mode::Latest },
                max_rate: self.max_rate,
                since: self.cursor,
            },
            1 => ClientFrame::Unsubscribe { id },
            2 => ClientFrame::Publish {
                id: self.id,
                topic: &self.text,
                payload: &self.payload,
                retain: self.flag,
            },
            _ => ClientFrame::Ping { id },
        }
    }

    fn server(&self) -> ServerFrame<'_> {
        let [id, rev] = self.ids;
        let at = self.id.unwrap_or_default();
        let topic = &self.text;
        let [payload_bytes, topic_bytes, subscriptions, in_flight] = self.limits;
        match self.variant % 9 {
            0 => ServerFrame::Welcome {
                server: &self.text,
                epoch: id,
                limits: Limits {
                    payload_bytes,
                    topic_bytes,
                    subscriptions,
                    in_flight,
                },
            },
            1 => ServerFrame::Message {
                id,
                topic,
                payload: &self.payload,
                rev,
                at,
            },
            2 => ServerFrame::Cleared { id, topic, rev, at },
            3 => ServerFrame::Synced {
                id,
                cursor: self.cursor.unwrap_or(Cursor { epoch: 0, rev: 0 }),
            },
            4 => ServerFrame::Gap { id, missed: rev },
            5 => ServerFrame::Reset { id },
            6 => ServerFrame::Ack { id, rev },
            7 => ServerFrame::Error {
                id: self.id,
                code: self.code,
                message: &self.text,
            },
            _ => ServerFrame::Pong { id },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn messages_round_trip(parts in parts()) {
        let mut buffer = [0; 1024];
        let (client, server) = (parts.client(), parts.server());
        prop_assert_eq!(decode_client(encode(&client, &mut buffer).unwrap()), Ok(client));
        prop_assert_eq!(decode_server(encode(&server, &mut buffer).unwrap()), Ok(server));
    }

    #[test]
    fn head_and_tail_are_the_whole(parts in parts()) {
        let ([id, rev], at) = (parts.ids, parts.id.unwrap_or_default());
        let (topic, payload) = (parts.text.as_str(), parts.payload.as_slice());
        let (mut whole, mut tail) = ([0; 1024], [0; 1024]);

        let message = encode(&ServerFrame::Message { id, topic, payload, rev, at }, &mut whole).unwrap();
        let tail_of_message = MessageTail { topic, payload, rev, at };
        let pieces = [&message_head(id), &*tail_of_message.encode(&mut tail).unwrap()].concat();
        prop_assert_eq!(&pieces, message);

        let cleared = encode(&ServerFrame::Cleared { id, topic, rev, at }, &mut whole).unwrap();
        let tail_of_cleared = ClearedTail { topic, rev, at };
        let pieces = [&cleared_head(id), &*tail_of_cleared.encode(&mut tail).unwrap()].concat();
        prop_assert_eq!(&pieces, cleared);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(
        version in prop_oneof![9 => Just(1), 1 => any::<u8>()],
        variant in prop_oneof![9 => 0..9_u8, 1 => any::<u8>()],
        bytes in vec(any::<u8>(), 0..80),
    ) {
        let message = [vec![version, variant], bytes].concat();
        let mut buffer = [0; 1024];
        if let Ok(frame) = decode_client(&message) {
            prop_assert!(encode(&frame, &mut buffer).unwrap().len() <= message.len());
        }
        if let Ok(frame) = decode_server(&message) {
            let length = encode(&frame, &mut buffer).unwrap().len();
            prop_assert_eq!(decode_server(&buffer[..length]), Ok(frame));
        }
    }
}

#[test]
fn heads_are_right_at_the_ends_of_the_range() {
    for id in [0, 127, 128, u64::from(u32::MAX), u64::MAX] {
        let mut buffer = [0; 16];
        let reset = encode(&ServerFrame::Reset { id }, &mut buffer).unwrap();
        assert_eq!(message_head(id)[2..], reset[2..]);
        assert_eq!(cleared_head(id)[2..], reset[2..]);
    }
}

#[cfg(feature = "alloc")]
proptest! {
    #[test]
    fn allocated_messages_are_the_same(parts in parts()) {
        use latchbus_core::wire::encode_vec;
        let mut buffer = [0; 1024];
        prop_assert_eq!(encode_vec(&parts.client()).unwrap(), encode(&parts.client(), &mut buffer).unwrap());
        prop_assert_eq!(encode_vec(&parts.server()).unwrap(), encode(&parts.server(), &mut buffer).unwrap());
        let ([rev, at], topic, payload) = (parts.ids, parts.text.as_str(), parts.payload.as_slice());
        let message = MessageTail { topic, payload, rev, at };
        prop_assert_eq!(message.encode_vec().unwrap(), message.encode(&mut buffer).unwrap());
        let cleared = ClearedTail { topic, rev, at };
        prop_assert_eq!(cleared.encode_vec().unwrap(), cleared.encode(&mut buffer).unwrap());
    }
}
