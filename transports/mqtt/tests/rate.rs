//! Who publishes faster than it may.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use core::num::NonZeroU64;

use latchbus_bus::{Options, Quotas};
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::Packet;
use rmqtt_codec::v5::{self, DisconnectReasonCode};
use support::five::{self, V5};
use support::{Raw, Running, eventually, publish};

const A_SECOND: u16 = 50;

async fn running() -> Running {
    let options = Options {
        quotas: Quotas {
            publishes_per_second: NonZeroU64::new(A_SECOND.into()),
            ..Quotas::default()
        },
        ..Options::default()
    };
    Running::with(options, Config::default()).await
}

#[tokio::test]
async fn a_client_of_3_1_1_is_read_more_slowly_and_loses_nothing() {
    let running = running().await;
    let mut raw = Raw::clean(running.address, "a").await;
    let ids = 1..=A_SECOND * 3 / 2;
    for id in ids.clone() {
        raw.send(publish("t", "x", QoS::AtLeastOnce, id)).await;
    }
    for id in ids {
        let answer = raw.next().await;
        assert!(
            matches!(answer, Packet::PublishAck { packet_id } if packet_id.get() == id),
            "{answer:?}"
        );
    }
    let metrics = running.bus.metrics();
    assert!(metrics.publishes_delayed.get() > 0);
    assert_eq!(metrics.publishes_rate_limited.get(), 0);
}

#[tokio::test]
async fn a_client_of_5_is_told_and_its_will_is_published() {
    let running = running().await;
    let connect = v5::Connect {
        last_will: Some(five::offline("a", None)),
        ..five::client("a")
    };
    let (mut v5, _) = V5::connect(running.address, connect).await;
    for id in 1..=A_SECOND * 2 {
        let message = five::message("t", "x", QoS::AtLeastOnce, id);
        v5.send(v5::Packet::Publish(Box::new(message))).await;
    }
    loop {
        match v5.next().await {
            Some(v5::Packet::PublishAck(_)) => {}
            Some(v5::Packet::Disconnect(disconnect)) => {
                assert_eq!(
                    disconnect.reason_code,
                    DisconnectReasonCode::MessageRateTooHigh
                );
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(running.bus.metrics().publishes_rate_limited.get() > 0);
    eventually(|| running.bus.value("status/a").is_some()).await;
}
