//! Messages whose time passes while they are on their way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::time::Duration;
use std::path::Path;

use latchbus_bus::{Clock, Options, Publish, StoreKind};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::Packet;
use support::{Raw, Running, client, eventually};

/// A machine whose clock the test sets, from `clock` on.
async fn start(directory: &Path, clock: &Clock) -> Running {
    let options = Options {
        store: StoreKind::Directory(directory.to_owned()),
        clock: clock.clone(),
        ..Options::default()
    };
    Running::with(options, Config::default()).await
}

impl Running {
    async fn publish_for(&self, secs: Option<u64>, payload: &'static str) {
        let publish = Publish {
            qos: 2,
            expires_in: secs.map(Duration::from_secs),
            ..Publish::event(TopicName::parse("t".to_owned()).unwrap(), payload)
        };
        self.bus.publish(publish).await.unwrap();
    }
}

/// At QoS 2 the client may have it, and then keeps its identifier: it is released, not sent again, and its identifier is
/// free once both sides know.
#[tokio::test]
async fn what_expires_unreceived_at_qos_2_is_released() {
    let clock = Clock::manual(1_000_000);
    let directory = tempfile::tempdir().unwrap();
    for restarts in [false, true] {
        let mut running = start(directory.path(), &clock).await;
        let id = format!("c-{restarts}");
        let (mut raw, _) = Raw::connect(running.address, client(&id, false)).await;
        raw.subscribe("t", QoS::ExactlyOnce).await;
        let mut ids = Vec::new();
        for (payload, secs) in [("brief", Some(5)), ("received", Some(5)), ("lasting", None)] {
            running.publish_for(secs, payload).await;
            let message = raw.message().await;
            assert_eq!(message.payload, payload);
            ids.push(message.packet_id.unwrap());
        }
        raw.send(Packet::PublishReceived { packet_id: ids[1] })
            .await;
        assert_eq!(
            raw.next().await,
            Packet::PublishRelease { packet_id: ids[1] }
        );
        drop(raw);
        let away = || running.server.metrics().sessions_away.get() == 1;
        eventually(away).await;
        if restarts {
            running.stop().await;
            clock.set(clock.unix_ms() + 6_000);
            running = start(directory.path(), &clock).await;
        } else {
            clock.set(clock.unix_ms() + 6_000);
        }
        let (mut raw, present) = Raw::connect(running.address, client(&id, false)).await;
        assert!(present);
        for packet_id in [ids[0], ids[1]] {
            assert_eq!(raw.next().await, Packet::PublishRelease { packet_id });
            raw.send(Packet::PublishComplete { packet_id }).await;
        }
        let again = raw.message().await;
        let expected = (&b"lasting"[..], true, Some(ids[2]));
        assert_eq!((&again.payload[..], again.dup, again.packet_id), expected);
        raw.quiet().await;
        drop(raw);
        eventually(|| running.server.metrics().sessions_away.get() == 1).await;
        // Both are over for good.
        let (mut raw, _) = Raw::connect(running.address, client(&id, false)).await;
        assert_eq!(raw.message().await.payload, "lasting");
        raw.send(Packet::Disconnect).await;
        raw.next_or_end().await;
        let (raw, _) = Raw::connect(running.address, client(&id, true)).await;
        drop(raw);
        running.stop().await;
    }
}

/// A client that keeps nothing over a reconnect, and ends the connection at a PUBREL that it does not expect (rumqttc
/// 0.25.1 does), is told once.
#[tokio::test]
async fn what_has_expired_is_released_over_one_connection() {
    let clock = Clock::manual(1_000_000);
    let options = Options {
        clock: clock.clone(),
        ..Options::default()
    };
    let running = Running::with(options, Config::default()).await;
    let away = || running.server.metrics().sessions_away.get() == 1;
    let (mut raw, _) = Raw::connect(running.address, client("c", false)).await;
    raw.subscribe("t", QoS::ExactlyOnce).await;
    running.publish_for(Some(5), "brief").await;
    let packet_id = raw.message().await.packet_id.unwrap();
    drop(raw);
    eventually(away).await;
    clock.set(1_006_000);
    let (mut raw, _) = Raw::connect(running.address, client("c", false)).await;
    assert_eq!(raw.next().await, Packet::PublishRelease { packet_id });
    drop(raw);
    eventually(away).await;
    let (mut raw, present) = Raw::connect(running.address, client("c", false)).await;
    assert!(present);
    raw.quiet().await;
    running.stop().await;
}

#[tokio::test]
async fn what_expires_unacknowledged_is_not_sent_again() {
    let clock = Clock::manual(1_000_000);
    let options = Options {
        clock: clock.clone(),
        ..Options::default()
    };
    let running = Running::with(options, Config::default()).await;
    let (mut raw, _) = Raw::connect(running.address, client("c", false)).await;
    raw.subscribe("t", QoS::AtLeastOnce).await;
    for (payload, secs) in [("brief", Some(5)), ("lasting", None)] {
        let publish = Publish {
            qos: 1,
            expires_in: secs.map(Duration::from_secs),
            ..Publish::event(TopicName::parse("t".to_owned()).unwrap(), payload)
        };
        running.bus.publish(publish).await.unwrap();
        assert_eq!(raw.message().await.payload, payload);
    }
    drop(raw);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    clock.set(1_006_000);
    let (mut raw, _) = Raw::connect(running.address, client("c", false)).await;
    let again = raw.message().await;
    assert_eq!((&again.payload[..], again.dup), (&b"lasting"[..], true));
    running.stop().await;
}
