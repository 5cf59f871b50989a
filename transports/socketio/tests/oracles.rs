//! Both packet layers beside the codecs of engineioxide and socketioxide.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use engineioxide_core::{Packet as EnginePeer, ProtocolVersion};
use latchbus_socketio::engine;
use latchbus_socketio::packet::{self, Event, Kind};
use proptest::prelude::*;
use socketioxide_core::Value;
use socketioxide_core::packet::PacketData;
use socketioxide_core::parser::{Parse, ParseConfig, ParserState};
use socketioxide_parser_common::CommonParser;

/// What the peer reads, or why not.
fn socket_peer(text: &str) -> Option<socketioxide_core::packet::Packet> {
    let config = ParseConfig {
        max_incoming_binaries: packet::MAX_ATTACHMENTS,
        ..ParseConfig::default()
    };
    let state = ParserState::default();
    let decoded = CommonParser.decode_str(&config, &state, text.to_owned().into());
    // A packet whose attachments are to come is kept.
    let waits = state.partial_bin_packet.lock().unwrap().take();
    decoded.ok().or(waits.map(|waits| waits.packet))
}

fn text(value: &Value) -> &str {
    match value {
        Value::Str(text, _) => text.as_str(),
        Value::Bytes(_) => panic!("bytes where text was sent"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn engine_packets_are_read_as_the_peer_reads_them(
        packet in "[1-6](probe)?|4\\PC{0,12}|b[A-Za-z0-9+/]{0,8}={0,2}|[ -~]{0,4}"
    ) {
        let peer = EnginePeer::parse(ProtocolVersion::V4, packet.clone());
        match engine::Packet::decode(&packet, true) {
            Ok(engine::Packet::Open(_)) => prop_assert!(peer.is_err(), "only servers open"),
            Ok(ours) => match peer {
                Ok(peer) => {
                    let mut encoded = String::new();
                    ours.encode(&mut encoded);
                    // The peer forgets what stands behind a ping, but for the probe.
                    let forgets = matches!(ours, engine::Packet::Ping(text) | engine::Packet::Pong(text) if text != "probe");
                    let expected = if forgets { packet.get(..1).unwrap().to_owned() } else { encoded.clone() };
                    prop_assert_eq!(String::from(peer), expected);
                }
                // Base64 without its padding is read here.
                Err(_) => prop_assert!(packet.starts_with('b') && packet.len() % 4 != 1, "{}", packet),
            },
            Err(engine::PacketError::Trailing) => prop_assert!(peer.is_ok()),
            Err(_) => prop_assert!(peer.is_err(), "{:?}", peer),
        }
    }

    #[test]
    fn what_the_engine_peer_writes_is_read(text in "\\PC{0,30}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let message = String::from(EnginePeer::Message(text.clone().into()));
        prop_assert_eq!(engine::Packet::decode(&message, true), Ok(engine::Packet::Message(&text)));
        let binary = String::from(EnginePeer::Binary(bytes.clone().into()));
        prop_assert_eq!(engine::Packet::decode(&binary, true), Ok(engine::Packet::Binary(bytes)));
    }

    #[test]
    fn socket_packets_are_read_as_the_peer_reads_them(
        kind in "[0-7]", attachments in "|[0-9]{1,2}-|-", namespace in "|/[a-z]{0,4},|/[a-z]{1,3}",
        ack in "|[0-9]{1,4}",
        json in "|\\{\\}|\\[\\]|\\[\"[a-z]{1,4}\"(,[0-9]{1,3}|,\\{\"a\":\\[true\\]\\})?\\]|\\[1\\]|[a-z]{1,2}",
    ) {
        let sent = format!("{kind}{attachments}{namespace}{ack}{json}");
        let Ok(ours) = packet::Packet::decode(&sent) else {
            // It looks at less: JSON is read later there.
            return Ok(());
        };
        let peer = socket_peer(&sent);
        prop_assume!(peer.is_some() || !matches!(ours.kind, Kind::Ack { .. }));
        let peer = peer.unwrap_or_else(|| panic!("{sent} is read here alone"));
        prop_assert_eq!(peer.ns.as_str(), ours.namespace);
        match (&peer.inner, ours.kind) {
            (PacketData::Connect(auth), Kind::Connect(ours)) => {
                prop_assert_eq!(auth.as_ref().map(text), ours);
            }
            (PacketData::Disconnect, Kind::Disconnect) => {}
            (PacketData::Event(value, id), Kind::Event(Event { ack, attachments: 0, json }))
            | (PacketData::BinaryEvent(value, id), Kind::Event(Event { ack, json, .. })) => {
                prop_assert_eq!(text(value), json);
                prop_assert_eq!(id.map(|id| id as u64), ack);
            }
            (PacketData::EventAck(..) | PacketData::BinaryAck(..), Kind::Ack { .. }) => {}
            (peer, ours) => prop_assert!(false, "{:?} here is {:?} there", ours, peer),
        }
    }
}
