//! MQTT 5, MQTT-3.1.2-24: no packet of any type is larger than what the client accepts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::time::Duration;

use latchbus_bus::Options;
use latchbus_mqtt::Bounds;
use latchbus_mqtt::server::Config;
use support::wire::{connect_head, next, packet, properties, text};
use support::{Running, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// All that has a size: an assigned identifier, another keep-alive and another session expiry in the CONNACK.
fn talkative() -> Config {
    Config {
        bounds: Bounds {
            keep_alive: Some(Duration::from_secs(10)),
            session_expiry: Duration::from_secs(100),
            ..Bounds::default()
        },
        ..Config::default()
    }
}

fn connect(limit: u32, id: &str, more: &[u8]) -> Vec<u8> {
    let said = [&[0x27][..], &limit.to_be_bytes(), more].concat();
    let body = [&connect_head(5, 2)[..], &properties(&said), &text(id)].concat();
    packet(0x10, &body)
}

fn size(packet: &(u8, Vec<u8>)) -> usize {
    let length = packet.1.len();
    1 + support::wire::varint(length).len() + length
}

/// All packets of a connection, by their types: first that of the CONNACK with its code.
async fn packets(running: &Running, limit: u32, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    // It may be closed meanwhile.
    let _ = stream.write_all(bytes).await;
    let mut packets = Vec::new();
    while let Some(packet) = next(&mut stream).await {
        assert!(size(&packet) <= limit as usize, "{packet:02x?} at {limit}");
        packets.push(packet);
    }
    packets
}

#[tokio::test]
async fn a_connack_that_does_not_fit_is_not_sent() {
    let running = Running::with(Options::default(), talkative()).await;
    // More than it gets.
    let expiry = [0x11, 0, 0, 9, 9];
    let goodbye = packet(0xE0, &[]);
    for (id, more, smallest) in [
        ("a", &[][..], 16 + 3),
        ("a", &expiry, 16 + 3 + 5),
        ("", &expiry, 16 + 3 + 5 + 3 + 25),
    ] {
        for limit in (1..60).chain([100, 1_000, u32::MAX]) {
            let bytes = [connect(limit, id, more), goodbye.clone()].concat();
            let found = packets(&running, limit, &bytes).await;
            match limit {
                0..5 => assert!(found.is_empty(), "{limit}"),
                5.. if limit < smallest => assert_eq!(found, [(0x20, vec![0, 0x95, 0])]),
                _ => {
                    assert_eq!(found.len(), 1, "{limit}");
                    assert_eq!(&found[0].1[..2], [0, 0]);
                }
            }
        }
    }
    running.stop().await;
}

/// A CONNECT that is refused for another reason, and a will with a bad topic behind the limit.
#[tokio::test]
async fn a_refusal_that_does_not_fit_is_not_sent() {
    let running = Running::start().await;
    let method = [&[0x15][..], &text("x")].concat();
    let long = "i".repeat(2_000);
    for limit in 1..20 {
        for (bytes, code) in [
            (connect(limit, "a", &method), 0x8C),
            (connect(limit, "a", &[0x17, 2]), 0x82),
            (connect(limit, "a", &[0x17, 1, 0x17, 1]), 0x82),
            (connect(limit, &long, &[]), 0x85),
            ([&connect(limit, "a", &[])[..]].concat(), 0),
        ] {
            let expected = match (limit, code) {
                (0..5, _) => vec![],
                (_, 0) if limit >= 16 => continue,
                (_, 0) => vec![(0x20, vec![0, 0x95, 0])],
                _ => vec![(0x20, vec![0, code, 0])],
            };
            assert_eq!(
                packets(&running, limit, &bytes).await,
                expected,
                "{code:#04x} at {limit}"
            );
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn an_answer_that_does_not_fit_ends_the_connection_before_it_is_done() {
    let running = Running::start().await;
    let limit = 40;
    let goodbye = packet(0xE0, &[]);
    for count in 1..=60 {
        let filters: Vec<String> = (0..count).map(|number| format!("f/{number}")).collect();
        let named: Vec<u8> = filters.iter().flat_map(text).collect();
        let asked: Vec<u8> = (filters.iter())
            .flat_map(|filter| [text(filter), vec![1]].concat())
            .collect();
        for (first, body, answer) in [(0x82, asked, 0x90), (0xA2, named, 0xB0)] {
            let request = packet(first, &[&[0, 7, 0][..], &body].concat());
            let bytes = [connect(limit, "a", &[]), request, goodbye.clone()].concat();
            let found = packets(&running, limit, &bytes).await;
            let types: Vec<u8> = found.iter().map(|packet| packet.0).collect();
            match 5 + count <= limit as usize {
                true => assert_eq!(types, [0x20, answer], "{count}"),
                false => {
                    assert_eq!(types, [0x20, 0xE0], "{count}");
                    assert_eq!(found[1].1[0], 0x95);
                }
            }
        }
        eventually(|| running.bus.read(|hub| hub.subscriptions()) == 0).await;
    }
    running.stop().await;
}

/// PUBLISH, the acknowledgements of what was refused, UNSUBACK, PINGRESP and DISCONNECT at every limit.
/// The alias of a topic takes three bytes more when it is given, and with a short topic whenever it is used.
#[tokio::test]
async fn what_fits_without_an_alias_is_sent() {
    let running = Running::start().await;
    for limit in 20..60_u32 {
        // The type, the length, the topic, the identifier and no properties are 9 bytes.
        let payload = "x".repeat(limit as usize - 9);
        running.publish("ab", &payload, true, 1).await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let aliases = [0x22, 0, 5];
        let subscribe = packet(0x82, &[&[0, 7, 0][..], &text("ab"), &[1]].concat());
        let bytes = [connect(limit, "a", &aliases), subscribe].concat();
        stream.write_all(&bytes).await.unwrap();
        let published = loop {
            let packet = next(&mut stream).await.unwrap();
            if packet.0 >> 4 == 3 {
                break packet;
            }
        };
        assert_eq!(size(&published), limit as usize);
        assert!(published.1.ends_with(payload.as_bytes()));
    }
    running.stop().await;
}

#[tokio::test]
async fn whatever_is_sent_fits() {
    let running = Running::start().await;
    running.publish("kept/short", "x", true, 2).await;
    running
        .publish("kept/long", &"x".repeat(300), true, 2)
        .await;
    running
        .publish(&format!("kept/{}", "y".repeat(100)), "x", true, 2)
        .await;
    for limit in 16..160 {
        let refused = [&text("clicks/main/values")[..], &[0, 1, 0], b"x"].concat();
        let bytes = [
            connect(limit, "a", &[]),
            packet(0x82, &[&[0, 7, 0][..], &text("kept/#"), &[2]].concat()),
            packet(0x32, &refused),
            packet(0x34, &refused),
            packet(0x62, &[0, 99]),
            packet(0x50, &[0, 99]),
            packet(0xC0, &[]),
            packet(0xA2, &[&[0, 8, 0][..], &text("never")].concat()),
            // A violation, whose words are of some length.
            packet(0x30, &[&text("a")[..], &[2, 0x0B, 1]].concat()),
        ]
        .concat();
        let found = packets(&running, limit, &bytes).await;
        assert_eq!(found.last().unwrap().0, 0xE0, "{limit}");
        for kind in [0x20, 0x90, 0x40, 0x50, 0x70, 0x62, 0xD0, 0xB0] {
            assert!(
                found.iter().any(|packet| packet.0 == kind),
                "{kind:#04x} at {limit}"
            );
        }
    }
    running.stop().await;
}
