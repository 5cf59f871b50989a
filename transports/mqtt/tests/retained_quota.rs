//! Who would retain more than it may.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use latchbus_bus::{Options, Quotas};
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::Packet;
use rmqtt_codec::v5::{self, PublishAckReason};
use support::five::{self, V5};
use support::{Raw, Running, eventually, publish};

async fn running() -> Running {
    let options = Options {
        quotas: Quotas {
            user_retained_topics: Some(1),
            user_retained_bytes: Some(8),
            ..Quotas::default()
        },
        ..Options::default()
    };
    Running::with(options, Config::default()).await
}

fn retained(topic: &str, payload: &str, qos: QoS, id: u16) -> v5::Packet {
    let mut message = five::message(topic, payload, qos, id);
    message.retain = true;
    v5::Packet::Publish(Box::new(message))
}

#[tokio::test]
async fn a_client_of_5_is_told_which_setting_and_its_will_is_dropped() {
    let running = running().await;
    let connect = v5::Connect {
        last_will: Some(five::offline("a", None)),
        ..five::client("a")
    };
    let (mut v5, _) = V5::connect(running.address, connect).await;
    v5.send(retained("a", "x", QoS::AtLeastOnce, 1)).await;
    let Some(v5::Packet::PublishAck(ack)) = v5.next().await else {
        panic!("no PUBACK")
    };
    assert_eq!(ack.reason_code, PublishAckReason::Success);
    for (id, qos, topic, payload, setting) in [
        (2, QoS::AtLeastOnce, "b", "x", "limits.user_retained_topics"),
        (
            3,
            QoS::AtLeastOnce,
            "a",
            "123456789",
            "limits.user_retained_bytes",
        ),
        (4, QoS::ExactlyOnce, "b", "x", "limits.user_retained_topics"),
    ] {
        v5.send(retained(topic, payload, qos, id)).await;
        let (reason, words) = match v5.next().await {
            Some(v5::Packet::PublishAck(ack)) => (u8::from(ack.reason_code), ack.reason_string),
            Some(v5::Packet::PublishReceived(ack)) => {
                (u8::from(ack.reason_code), ack.reason_string)
            }
            other => panic!("{other:?}"),
        };
        let words = words.unwrap();
        assert_eq!(reason, 0x97, "{words}");
        assert!(words.contains(setting), "{words}");
    }
    // At QoS 0 there is no answer, and the connection goes on.
    v5.send(retained("b", "x", QoS::AtMostOnce, 0)).await;
    v5.send(retained("a", "", QoS::AtLeastOnce, 5)).await;
    let Some(v5::Packet::PublishAck(ack)) = v5.next().await else {
        panic!("no PUBACK")
    };
    assert_eq!(ack.reason_code, PublishAckReason::Success);
    v5.send(retained("b", "x", QoS::AtLeastOnce, 6)).await;
    assert!(matches!(
        v5.next().await,
        Some(v5::Packet::PublishAck(ack)) if ack.reason_code == PublishAckReason::Success
    ));
    let metrics = running.bus.metrics();
    assert_eq!(metrics.publishes_over_quota.get(), 4);
    drop(v5);
    eventually(|| metrics.publishes_over_quota.get() == 5).await;
    assert!(running.bus.value("status/a").is_none());
}

#[tokio::test]
async fn a_client_of_3_1_1_is_closed_and_nothing_is_acknowledged() {
    let running = running().await;
    let retained = |topic, id| match publish(topic, "x", QoS::AtLeastOnce, id) {
        Packet::Publish(mut publish) => {
            publish.retain = true;
            Packet::Publish(publish)
        }
        other => other,
    };
    let mut raw = Raw::clean(running.address, "a").await;
    raw.send(retained("a", 1)).await;
    assert!(matches!(raw.next().await, Packet::PublishAck { .. }));
    raw.send(retained("b", 2)).await;
    assert_eq!(raw.next_or_end().await, None);
    assert!(running.bus.value("b").is_none());
    // It holds what it held: its address is the same.
    let mut raw = Raw::clean(running.address, "other").await;
    raw.send(retained("a", 1)).await;
    assert!(matches!(raw.next().await, Packet::PublishAck { .. }));
}
