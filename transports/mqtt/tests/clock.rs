//! Sessions, wills and expiry intervals of MQTT where somebody sets the machine's clock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::num::NonZeroU32;
use std::path::Path;

use latchbus_bus::{Clock, Options, StoreKind};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Connect, Packet, PublishProperties, SubscriptionOptions};
use support::five::{V5, client, message, offline, one};
use support::{Running, eventually, log};

const HOUR_SECS: u32 = 3_600;
const DAY_MS: u64 = 24 * 3_600_000;
const BUILT: u64 = 1_790_000_000_000;
const NOW: u64 = BUILT + 30 * DAY_MS;
/// Ten seconds after a machine without a battery was switched on.
const UNSET: u64 = 10_000;

async fn start(directory: &Path, clock: &Clock) -> Running {
    let options = Options {
        store: StoreKind::Directory(directory.to_owned()),
        clock: clock.clone(),
        ..Options::default()
    };
    Running::with(options, Config::default()).await
}

fn for_an_hour(id: &str) -> Connect {
    Connect {
        clean_start: false,
        session_expiry_interval_secs: HOUR_SECS,
        ..client(id)
    }
}

async fn publish_for_an_hour(running: &Running, topic: &str) {
    let mut v5 = V5::open(running.address, "publisher").await;
    let mut publish = message(topic, "x", QoS::AtLeastOnce, 1);
    publish.retain = true;
    publish.properties = Some(PublishProperties {
        message_expiry_interval: NonZeroU32::new(HOUR_SECS),
        ..PublishProperties::default()
    });
    v5.send(Packet::Publish(Box::new(publish))).await;
    assert!(matches!(v5.next().await, Some(Packet::PublishAck(_))));
}

/// The expiry interval that a new subscriber is told.
async fn interval(running: &Running, topic: &str) -> u32 {
    let mut v5 = V5::open(running.address, "subscriber").await;
    v5.subscribe(one(topic, SubscriptionOptions::default()))
        .await;
    let kept = v5.message().await;
    kept.properties
        .unwrap()
        .message_expiry_interval
        .unwrap()
        .get()
}

#[tokio::test]
async fn an_expiry_interval_is_never_larger_than_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual_built(NOW, BUILT);
    let running = start(directory.path(), &clock).await;
    publish_for_an_hour(&running, "t").await;
    for (step, left) in [
        (NOW - DAY_MS, HOUR_SECS),
        (UNSET, HOUR_SECS),
        (NOW + 365 * DAY_MS, HOUR_SECS),
    ] {
        clock.step(step);
        assert_eq!(interval(&running, "t").await, left);
    }
    clock.set(clock.unix_ms() + 600_000);
    assert_eq!(interval(&running, "t").await, HOUR_SECS - 600);
    running.stop().await;
    let clock = Clock::manual_built(NOW - DAY_MS, BUILT);
    let running = start(directory.path(), &clock).await;
    assert_eq!(interval(&running, "t").await, HOUR_SECS - 600);
    running.stop().await;
}

#[tokio::test]
async fn a_session_outlives_a_restart_of_a_machine_without_a_battery() {
    log::capture();
    for (id, stopped, started, survives) in [
        ("unset-set", UNSET, NOW, true),
        ("set-unset", NOW, UNSET, true),
        ("unset-unset", UNSET, UNSET, true),
        ("back", NOW, NOW - DAY_MS, true),
        ("soon", NOW, NOW + 1_000, true),
        ("over", NOW, NOW + 2 * 3_600_000, false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let running = start(directory.path(), &Clock::manual_built(stopped, BUILT)).await;
        let connect = Connect {
            last_will: Some(offline(id, Some(HOUR_SECS / 2))),
            ..for_an_hour(id)
        };
        let (v5, _) = V5::connect(running.address, connect).await;
        drop(v5);
        eventually(|| running.server.metrics().sessions_away.get() == 1).await;
        running.stop().await;
        let running = start(directory.path(), &Clock::manual_built(started, BUILT)).await;
        let topic = format!("status/{id}");
        let topic = TopicName::parse(topic.as_str()).unwrap();
        if !survives {
            eventually(|| running.server.metrics().sessions_expired.get() == 1).await;
            assert_eq!(log::lines(&["session expired", id]).len(), 1);
            eventually(|| running.bus.last(topic).is_some()).await;
        } else {
            assert!(
                running.bus.last(topic).is_none(),
                "{id}: its will is not due"
            );
        }
        let (_v5, ack) = V5::connect(running.address, for_an_hour(id)).await;
        assert_eq!(ack.session_present, survives, "{id}");
        running.stop().await;
    }
    assert!(!log::lines(&["the clock is not set"]).is_empty());
}
