//! One order for the messages of a client with several subscriptions: retained for one SUBSCRIBE, live, and after a
//! restart.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use latchbus_bus::{Options, StoreKind};
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::Packet;
use support::{Raw, Running, client, eventually};

const FILTERS: [&str; 4] = ["m/0", "+/1", "m/2/#", "n/#"];
const TOPICS: [&str; 4] = ["m/0", "m/1", "m/2/x", "n/3"];

async fn subscribe_all(raw: &mut Raw) {
    let topic_filters = FILTERS.iter().zip([
        QoS::AtMostOnce,
        QoS::AtLeastOnce,
        QoS::ExactlyOnce,
        QoS::AtLeastOnce,
    ]);
    raw.send(Packet::Subscribe {
        packet_id: 7.try_into().unwrap(),
        topic_filters: topic_filters
            .map(|(filter, qos)| ((*filter).into(), qos))
            .collect(),
    })
    .await;
    assert!(matches!(raw.next().await, Packet::SubscribeAck { .. }));
}

/// Publishes `m0`, `m1`, … over the topics, as no order of the filters would have them.
async fn publish_all(running: &Running, retain: bool, count: usize) {
    for n in 0..count {
        let topic = TOPICS[(n * 3 + n / 4) % TOPICS.len()];
        running.publish(topic, &format!("m{n}"), retain, 2).await;
    }
}

/// What waits for a client of a stored session at QoS 0 and 1, by what the setting says.
#[tokio::test]
async fn messages_at_qos_0_wait_for_a_session_unless_told_otherwise() {
    for queue_qos0 in [true, false] {
        let mut config = Config::default();
        config.bounds.queue_qos0 = queue_qos0;
        let running = Running::with(Options::default(), config).await;
        let (mut raw, _) = Raw::connect(running.address, client("away", false)).await;
        raw.subscribe("m/#", QoS::AtLeastOnce).await;
        drop(raw);
        eventually(|| running.bus.metrics().connections.get() == 0).await;
        running.publish("m/1", "event", false, 0).await;
        running.publish("m/2", "state", true, 0).await;
        running.publish("m/3", "kept", false, 1).await;
        let (mut raw, present) = Raw::connect(running.address, client("away", false)).await;
        assert!(present);
        running.publish("m/4", "live", false, 0).await;
        let wanted: &[&str] = match queue_qos0 {
            true => &["event", "state", "kept", "live"],
            false => &["kept", "live"],
        };
        for wanted in wanted {
            assert_eq!(raw.message().await.payload, *wanted);
        }
        running.stop().await;
    }
}

async fn expect(raw: &mut Raw, count: usize) {
    let mut came = Vec::new();
    while came.len() < count {
        match raw.next().await {
            Packet::Publish(publish) => {
                came.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(packet_id)) => {
                        raw.send(Packet::PublishAck { packet_id }).await;
                    }
                    (QoS::ExactlyOnce, Some(packet_id)) => {
                        raw.send(Packet::PublishReceived { packet_id }).await;
                    }
                    _ => {}
                }
            }
            Packet::PublishRelease { packet_id } => {
                raw.send(Packet::PublishComplete { packet_id }).await;
            }
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<_> = (0..count).map(|n| format!("m{n}")).collect();
    assert_eq!(came, expected);
}

#[tokio::test]
async fn what_was_retained_for_one_subscribe_and_what_is_live() {
    let running = Running::start().await;
    publish_all(&running, true, 4).await;
    let mut raw = Raw::clean(running.address, "c").await;
    subscribe_all(&mut raw).await;
    expect(&mut raw, 4).await;
    publish_all(&running, false, 60).await;
    expect(&mut raw, 60).await;
    running.stop().await;
}

#[tokio::test]
async fn what_has_waited_for_a_session_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..Options::default()
    };
    let running = Running::with(options(), Config::default()).await;
    let (mut raw, _) = Raw::connect(running.address, client("s", false)).await;
    subscribe_all(&mut raw).await;
    drop(raw);
    support::eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    publish_all(&running, false, 40).await;
    running.stop().await;

    let running = Running::with(options(), Config::default()).await;
    let (mut raw, present) = Raw::connect(running.address, client("s", false)).await;
    assert!(present);
    expect(&mut raw, 40).await;
    running.stop().await;
}
