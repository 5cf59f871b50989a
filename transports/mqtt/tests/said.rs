//! What a client does not get has a line in the log that names it, the cause and the setting.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use latchbus_bus::{Authorizer, Options, Principal, StoreKind};
use latchbus_core::hub::Limits;
use latchbus_core::topic::TopicFilter;
use latchbus_mqtt::Bounds;
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::{Packet, SubscribeReturnCode};
use support::five::{self, V5};
use support::{Raw, Running, client, eventually, log, publish};
use tokio::io::AsyncWriteExt;

async fn running(options: Options, config: Config) -> Running {
    log::capture();
    Running::with(options, config).await
}

#[tokio::test]
async fn a_refused_subscription() {
    let options = Options {
        limits: Limits {
            topic_bytes: 200,
            ..Limits::default()
        },
        ..Options::default()
    };
    let config = Config {
        bounds: Bounds {
            refused_filters: Arc::new([TopicFilter::parse("secret/#".to_owned()).unwrap()]),
            ..Bounds::default()
        },
        ..Config::default()
    };
    let running = running(options, config).await;
    let refused = [
        ("t".repeat(201), "limits.topic_bytes"),
        ("secret/#".to_owned(), "Bounds::refused_filters"),
        ("secret/a".to_owned(), "Bounds::refused_filters"),
    ];
    for (number, (filter, setting)) in refused.into_iter().enumerate() {
        let id = format!("subscriber-{number}");
        let mut raw = Raw::clean(running.address, &id).await;
        let packet_id = NonZeroU16::MIN;
        raw.send(Packet::Subscribe {
            packet_id,
            topic_filters: vec![(filter[..].into(), QoS::AtLeastOnce)],
        })
        .await;
        let status = vec![SubscribeReturnCode::Failure];
        assert_eq!(raw.next().await, Packet::SubscribeAck { packet_id, status });
        let line = [" WARN ", "mqtt:", &id, "127.0.0.1:", &filter[..6], setting];
        assert_eq!(log::lines(&line).len(), 1, "{line:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_session_that_ends_for_another() {
    let config = Config {
        max_sessions_away: 1,
        ..Config::default()
    };
    let running = running(Options::default(), config).await;
    for id in ["oldest", "newest"] {
        let (mut raw, _) = Raw::connect(running.address, client(id, false)).await;
        raw.subscribe("lab/#", QoS::AtLeastOnce).await;
        raw.send(Packet::Disconnect).await;
        assert_eq!(raw.next_or_end().await, None);
    }
    let line = [" WARN ", "mqtt:", "\"oldest\"", "limits.sessions_away"];
    eventually(|| log::lines(&line).len() == 1).await;
    running.stop().await;
}

/// One client that loses many sessions takes no line from another.
#[tokio::test]
async fn each_of_many_sessions_that_end_for_others() {
    let config = Config {
        max_sessions_away: 1,
        ..Config::default()
    };
    let running = running(Options::default(), config).await;
    let ids: Vec<_> = (0..8).map(|number| format!("many-{number}")).collect();
    for id in &ids {
        let (mut raw, _) = Raw::connect(running.address, client(id, false)).await;
        raw.subscribe("lab/#", QoS::AtLeastOnce).await;
        raw.send(Packet::Disconnect).await;
        assert_eq!(raw.next_or_end().await, None);
    }
    for id in &ids[..7] {
        let line = [" WARN ", "mqtt:", id, "127.0.0.1:", "limits.sessions_away"];
        eventually(|| log::lines(&line).len() == 1).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_malformed_press_is_one_line() {
    let running = running(Options::default(), Config::default()).await;
    let mut raw = Raw::clean(running.address, "presser").await;
    let topic = "clicks/main/said-once/press";
    raw.send(publish(topic, "green", QoS::AtLeastOnce, 1)).await;
    assert_eq!(raw.next_or_end().await, None);
    let line = [
        " WARN ",
        "mqtt:",
        "\"presser\"",
        "127.0.0.1:",
        "malformed press",
        topic,
    ];
    eventually(|| log::lines(&line).len() == 1).await;
    assert_eq!(log::lines(&["said-once"]).len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn events_that_a_session_has_missed() {
    const RING: usize = 64;
    let mut options = Options::default();
    options.limits.recent = RING;
    let running = running(options, Config::default()).await;
    let (mut raw, _) = Raw::connect(running.address, client("late", false)).await;
    raw.subscribe("lab/#", QoS::AtLeastOnce).await;
    drop(raw);
    for number in 0..=RING {
        let payload = number.to_string();
        running.publish("lab/event", &payload, false, 1).await;
    }
    let (mut raw, present) = Raw::connect(running.address, client("late", false)).await;
    assert!(present);
    // What the hub says of itself may have taken room too.
    let first = raw.message().await.payload;
    let missed: usize = core::str::from_utf8(&first).unwrap().parse().unwrap();
    assert!(missed > 0);
    let missed = format!("missed={missed} ");
    let line = [
        " WARN ",
        "mqtt:",
        "\"late\"",
        "127.0.0.1:",
        &missed,
        "limits.recent_messages",
    ];
    eventually(|| log::lines(&line).len() == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn messages_that_are_larger_than_a_client_accepts() {
    let running = running(Options::default(), Config::default()).await;
    let connect = rmqtt_codec::v5::Connect {
        max_packet_size: NonZeroU32::new(40),
        ..five::client("small")
    };
    let (mut small, _) = V5::connect(running.address, connect).await;
    let options = rmqtt_codec::v5::SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        ..Default::default()
    };
    small.subscribe(five::one("lab/#", options)).await;
    running
        .publish("lab/large", &"x".repeat(41), false, 1)
        .await;
    running.publish("lab/small", "x", false, 1).await;
    assert_eq!(&small.message().await.payload[..], b"x");
    drop(small);
    let line = [" WARN ", "mqtt:", "\"small\"", "messages=1"];
    eventually(|| log::lines(&line).len() == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn messages_that_a_client_refuses() {
    let running = running(Options::default(), Config::default()).await;
    let mut picky = V5::open(running.address, "picky").await;
    for (qos, code) in [(QoS::AtLeastOnce, "0x83"), (QoS::ExactlyOnce, "0x97")] {
        let options = rmqtt_codec::v5::SubscriptionOptions {
            qos,
            ..Default::default()
        };
        picky.subscribe(five::one("lab/picky", options)).await;
        running.publish("lab/picky", "x", false, 2).await;
        let id = picky.message().await.packet_id.unwrap().get().to_be_bytes();
        // Of a message that there is not, nothing is said.
        let bytes: &[u8] = match qos {
            QoS::AtLeastOnce => &[0x40, 3, id[0], id[1], 0x83, 0x40, 3, 0xFF, 0xFF, 0x87],
            _ => &[0x50, 3, id[0], id[1], 0x97, 0x50, 3, 0xFF, 0xFF, 0x87],
        };
        picky.stream.write_all(bytes).await.unwrap();
        picky.quiet().await;
        let line = [" WARN ", "mqtt:", "\"picky\"", "127.0.0.1:", code];
        assert_eq!(log::lines(&line).len(), 1, "{line:?}");
    }
    assert_eq!(log::lines(&["message refused by the client"]).len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_will_of_a_bridge_that_is_left_out() {
    let running = running(Options::default(), Config::default()).await;
    let topic = "$SYS/broker/connection/far.bridge/state";
    let connect = rmqtt_codec::v3::Connect {
        last_will: Some(rmqtt_codec::v3::LastWill {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: topic.into(),
            message: "0".into(),
        }),
        ..client("far.bridge", true)
    };
    let (mut raw, _) = Raw::connect(running.address, connect).await;
    raw.quiet().await;
    let line = [" INFO ", "mqtt:", "\"far.bridge\"", topic, "left out"];
    assert_eq!(log::lines(&line).len(), 1);
    running.stop().await;
}

/// A client that was allowed when it left.
struct Shut;

impl Authorizer for Shut {
    fn authorize_connect(&self, principal: &Principal) -> bool {
        principal.client_id != "shut-out"
    }
}

#[tokio::test]
async fn a_session_that_the_rules_do_not_allow_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let stored = |options: Options| Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..options
    };
    let before = running(stored(Options::default()), Config::default()).await;
    let (mut raw, _) = Raw::connect(before.address, client("shut-out", false)).await;
    raw.subscribe("lab/#", QoS::AtLeastOnce).await;
    drop(raw);
    eventually(|| before.server.metrics().sessions_away.get() == 1).await;
    before.stop().await;
    let rules = Options {
        authorizer: Arc::new(Shut),
        ..Options::default()
    };
    let after = running(stored(rules), Config::default()).await;
    let line = [" WARN ", "mqtt:", "\"shut-out\"", "not restored"];
    assert_eq!(log::lines(&line).len(), 1);
    after.stop().await;
}
