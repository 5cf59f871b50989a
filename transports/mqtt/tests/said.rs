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

use latchbus_bus::Options;
use latchbus_core::hub::Limits;
use latchbus_core::topic::TopicFilter;
use latchbus_mqtt::Bounds;
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::{Packet, SubscribeReturnCode};
use support::five::{self, V5};
use support::{Raw, Running, client, eventually, log};

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
        ("secret/#".to_owned(), "mqtt_refused_filters"),
        ("secret/a".to_owned(), "mqtt_refused_filters"),
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
    assert_eq!(&raw.message().await.payload[..], b"1");
    let line = [
        " WARN ",
        "mqtt:",
        "\"late\"",
        "127.0.0.1:",
        "missed=1",
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
