//! What becomes of a publish that is rejected: nothing is acknowledged that is gone, and the log names it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use latchbus_bus::{ClickLimits, Options, StoreKind};
use latchbus_core::hub::Limits;
use latchbus_core::topic::TopicName;
use latchbus_mqtt::Bounds;
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v3::{Connect, LastWill, Packet};
use rmqtt_codec::v5::{
    ConnectAckReason, DisconnectReasonCode, Packet as V5Packet, PublishAckReason,
};
use support::five::{self, V5};
use support::{DEADLINE, Raw, Running, client, eventually, log};
use tokio::time::timeout;

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const PAYLOAD_BYTES: usize = 1_000;

/// A hub that has room for one value, and a store if asked.
fn small(store: StoreKind) -> Options {
    Options {
        limits: Limits {
            payload_bytes: PAYLOAD_BYTES,
            topic_bytes: 200,
            places: 1,
            ..Limits::default()
        },
        clicks: ClickLimits {
            rooms: 1,
            ..ClickLimits::default()
        },
        rooms: Vec::new(),
        store,
        ..Options::default()
    }
}

fn message(topic: &str, payload: Vec<u8>, retain: bool, qos: QoS, id: u16) -> Publish {
    Publish {
        dup: false,
        retain,
        qos,
        topic: topic.into(),
        packet_id: id.try_into().ok().filter(|_| qos != QoS::AtMostOnce),
        payload: payload.into(),
        properties: None,
    }
}

/// What MQTT 3.1.1 has no answer for: topic, payload, retained, and what the log has to name.
fn unacceptable() -> Vec<(String, Vec<u8>, bool, &'static str)> {
    vec![
        (
            "lab/big".into(),
            vec![b'x'; PAYLOAD_BYTES + 1],
            true,
            "limits.payload_bytes",
        ),
        (
            "lab/event".into(),
            vec![b'x'; PAYLOAD_BYTES + 1],
            false,
            "limits.payload_bytes",
        ),
        (
            format!("lab/{}", "t".repeat(200)),
            b"x".to_vec(),
            true,
            "limits.topic_bytes",
        ),
        (
            "lab/one-more".into(),
            b"x".to_vec(),
            true,
            "limits.kept_values",
        ),
        (
            "clicks/main/k/press".into(),
            b"green".to_vec(),
            false,
            "malformed press",
        ),
        (
            "clicks/main/k/count/1-0000002a".into(),
            b"{".to_vec(),
            true,
            "malformed count",
        ),
        (
            "clicks/main/k/count/0-x".into(),
            b"red".to_vec(),
            false,
            "malformed click topic",
        ),
    ]
}

/// Fills the hub, and says how many publishes were refused for that: its own topics may have filled it before.
async fn fill(running: &Running) -> u64 {
    let topic = TopicName::parse("lab/full".to_owned()).unwrap();
    let filler = latchbus_bus::Publish::state(topic, "x");
    u64::from(running.bus.publish(filler).await.is_err())
}

#[tokio::test]
async fn a_publish_of_3_1_1_that_cannot_be_taken_ends_its_connection_unacknowledged() {
    log::capture();
    let directory = tempfile::tempdir().unwrap();
    for store in [
        StoreKind::Memory,
        StoreKind::Directory(directory.path().into()),
    ] {
        let stored = store != StoreKind::Memory;
        let running = Running::with(small(store), Config::default()).await;
        let refused = fill(&running).await;
        let mut closed = 0;
        for (number, (topic, payload, retain, cause)) in unacceptable().into_iter().enumerate() {
            for qos in QOS {
                let id = format!("device-{number}-{}-{stored}", u8::from(qos));
                let (mut raw, _) = Raw::connect(running.address, client(&id, false)).await;
                // What came before is acknowledged.
                let before = message("lab/before", b"x".to_vec(), false, QoS::AtLeastOnce, 1);
                raw.send(Packet::Publish(Box::new(before))).await;
                let publish = message(&topic, payload.clone(), retain, qos, 2);
                raw.send(Packet::Publish(Box::new(publish))).await;
                let packet_id = 1.try_into().unwrap();
                assert_eq!(raw.next().await, Packet::PublishAck { packet_id });
                assert_eq!(raw.next_or_end().await, None, "{topic} {qos:?}");
                let bytes = format!("bytes={}", payload.len());
                let line = [
                    " WARN ",
                    "mqtt:",
                    &id,
                    "127.0.0.1:",
                    &topic[..7],
                    &bytes,
                    cause,
                ];
                assert_eq!(log::lines(&line).len(), 1, "{line:?}");
                closed += 1;
            }
        }
        let metrics = running.server.metrics();
        eventually(|| metrics.rejected_publish_disconnects.get() == closed).await;
        assert_eq!(
            running.bus.metrics().publishes_refused.get(),
            closed + refused
        );
        running.stop().await;
    }
}

/// A client that keeps its message sends it again, and is told again; the session goes on.
#[tokio::test]
async fn what_was_rejected_is_new_when_it_comes_again() {
    let running = Running::with(small(StoreKind::Memory), Config::default()).await;
    fill(&running).await;
    for qos in QOS {
        for _ in 0..2 {
            let (mut raw, _) = Raw::connect(running.address, client("again", false)).await;
            let publish = message("lab/more", b"x".to_vec(), true, qos, 2);
            raw.send(Packet::Publish(Box::new(publish))).await;
            assert_eq!(raw.next_or_end().await, None);
        }
    }
    let (mut raw, present) = Raw::connect(running.address, client("again", false)).await;
    assert!(present);
    let publish = message("lab/event", b"x".to_vec(), false, QoS::ExactlyOnce, 2);
    raw.send(Packet::Publish(Box::new(publish))).await;
    let packet_id = 2.try_into().unwrap();
    assert_eq!(raw.next().await, Packet::PublishReceived { packet_id });
    running.stop().await;
}

/// What the rules forbid is acknowledged and dropped (MQTT 3.1.1 §3.3.5), unless the settings say otherwise.
#[tokio::test]
async fn what_is_denied_is_acknowledged_and_dropped_or_ends_the_connection() {
    log::capture();
    for disconnects in [false, true] {
        let config = Config {
            bounds: Bounds {
                disconnect_on_denied: disconnects,
                ..Bounds::default()
            },
            ..Config::default()
        };
        let running = Running::with(Options::default(), config).await;
        let mut denied = 0;
        for topic in ["$SYS/broker/x", "clicks/main/values", "clicks/main/k/floor"] {
            for qos in QOS {
                let id = format!("denied-{denied}-{disconnects}");
                let (mut raw, _) = Raw::connect(running.address, client(&id, true)).await;
                let publish = message(topic, b"x".to_vec(), true, qos, 2);
                raw.send(Packet::Publish(Box::new(publish))).await;
                let packet_id = 2.try_into().unwrap();
                match (disconnects, qos) {
                    (true, _) => assert_eq!(raw.next_or_end().await, None),
                    (false, QoS::AtMostOnce) => {}
                    (false, QoS::AtLeastOnce) => {
                        assert_eq!(raw.next().await, Packet::PublishAck { packet_id });
                    }
                    (false, QoS::ExactlyOnce) => {
                        assert_eq!(raw.next().await, Packet::PublishReceived { packet_id });
                    }
                }
                if !disconnects {
                    raw.quiet().await;
                }
                denied += 1;
                eventually(|| running.bus.metrics().publishes_not_allowed.get() == denied).await;
                let line = [" WARN ", "mqtt:", &id, topic, "not allowed"];
                assert_eq!(log::lines(&line).len(), 1, "{line:?}");
            }
        }
        running.stop().await;
    }
}

/// MQTT 5 has words for it.
#[tokio::test]
async fn a_client_of_mqtt_5_gets_a_reason_code_and_stays() {
    log::capture();
    let running = Running::with(small(StoreKind::Memory), Config::default()).await;
    let refused = fill(&running).await;
    let mut v5 = V5::open(running.address, "five").await;
    let reasons = [
        PublishAckReason::QuotaExceeded,
        PublishAckReason::QuotaExceeded,
        PublishAckReason::TopicNameInvalid,
        PublishAckReason::QuotaExceeded,
        PublishAckReason::PayloadFormatInvalid,
        PublishAckReason::PayloadFormatInvalid,
        PublishAckReason::PayloadFormatInvalid,
    ];
    for ((topic, payload, retain, _), reason) in unacceptable().into_iter().zip(reasons) {
        for qos in QOS {
            let publish = message(&topic, payload.clone(), retain, qos, 2);
            v5.send(V5Packet::Publish(Box::new(publish))).await;
            match qos {
                QoS::AtMostOnce => v5.quiet().await,
                _ => match v5.next().await {
                    Some(V5Packet::PublishAck(ack) | V5Packet::PublishReceived(ack)) => {
                        assert_eq!(ack.reason_code, reason, "{topic}");
                    }
                    other => panic!("{other:?}"),
                },
            }
        }
    }
    assert_eq!(running.bus.metrics().publishes_refused.get(), 21 + refused);
    assert!(!log::lines(&[" WARN ", "\"five\"", "limits.payload_bytes"]).is_empty());
    running.stop().await;
}

/// A will that can never be published is refused with its CONNECT, where the client still listens.
#[tokio::test]
async fn a_will_that_cannot_be_taken_is_refused_with_its_connect() {
    log::capture();
    let running = Running::with(small(StoreKind::Memory), Config::default()).await;
    let reasons = [
        ConnectAckReason::QuotaExceeded,
        ConnectAckReason::QuotaExceeded,
        ConnectAckReason::TopicNameInvalid,
        ConnectAckReason::Success,
        ConnectAckReason::PayloadFormatInvalid,
        ConnectAckReason::PayloadFormatInvalid,
        ConnectAckReason::PayloadFormatInvalid,
    ];
    for (number, ((topic, payload, retain, cause), reason)) in
        unacceptable().into_iter().zip(reasons).enumerate()
    {
        let id = format!("will-{number}");
        let connect = Connect {
            last_will: Some(LastWill {
                qos: QoS::AtLeastOnce,
                retain,
                topic: topic.clone().into(),
                message: payload.clone().into(),
            }),
            ..client(&id, true)
        };
        let mut raw = Raw::open(running.address).await;
        raw.send(Packet::Connect(Box::new(connect))).await;
        let Packet::ConnectAck(ack) = raw.next().await else {
            panic!("no CONNACK");
        };
        let refused = reason != ConnectAckReason::Success;
        assert_eq!(u8::from(ack.return_code), if refused { 3 } else { 0 });
        let five = format!("five-{number}");
        let mut connect = five::client(&five);
        let mut will = five::offline(&five, None);
        (will.topic, will.message, will.retain) = (topic.into(), payload.into(), retain);
        connect.last_will = Some(will);
        let (v5, ack) = V5::connect(running.address, connect).await;
        assert_eq!(ack.reason_code, reason);
        if refused {
            for id in [&id, &five] {
                assert_eq!(log::lines(&[" WARN ", "mqtt:", id, cause]).len(), 1, "{id}");
            }
        } else {
            // Whether the hub is full is known when it is published.
            fill(&running).await;
            drop((raw, v5));
            let logged = |id: &str| !log::lines(&[" WARN ", "mqtt:", id, cause]).is_empty();
            eventually(|| logged(&id) && logged(&five)).await;
        }
    }
    running.stop().await;
}

/// A packet above the limit of the server ends its connection in both versions, and the log names the setting.
#[tokio::test]
async fn a_packet_that_is_too_large_is_named_in_the_log() {
    log::capture();
    let config = Config {
        bounds: Bounds {
            max_packet_bytes: 2_000,
            ..Bounds::default()
        },
        ..Config::default()
    };
    let running = Running::with(Options::default(), config).await;
    let large = || message("lab/big", vec![b'x'; 3_000], true, QoS::AtLeastOnce, 2);
    let mut raw = Raw::clean(running.address, "large-3").await;
    raw.send(Packet::Publish(Box::new(large()))).await;
    assert_eq!(raw.next_or_end().await, None);
    let mut v5 = V5::open(running.address, "large-5").await;
    v5.send(V5Packet::Publish(Box::new(large()))).await;
    v5.ends(DisconnectReasonCode::PacketTooLarge).await;
    for id in ["large-3", "large-5"] {
        let line = [" WARN ", "mqtt:", id, "limit=2000", "limits.packet_bytes"];
        eventually(|| log::lines(&line).len() == 1).await;
    }
    running.stop().await;
}

/// One client that is refused again and again does not fill the log.
#[tokio::test]
async fn the_lines_of_one_client_are_limited() {
    log::capture();
    let running = Running::start().await;
    let mut raw = Raw::clean(running.address, "again-and-again").await;
    let sending = async {
        for _ in 0..200 {
            let publish = message("$SYS/x", b"x".to_vec(), false, QoS::AtLeastOnce, 2);
            raw.send(Packet::Publish(Box::new(publish))).await;
            let packet_id = 2.try_into().unwrap();
            assert_eq!(raw.next().await, Packet::PublishAck { packet_id });
        }
    };
    timeout(DEADLINE, sending).await.unwrap();
    let lines = log::lines(&["again-and-again", "rejected"]).len();
    assert!((1..20).contains(&lines), "{lines}");
    running.stop().await;
}
