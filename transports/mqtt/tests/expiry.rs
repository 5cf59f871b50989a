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

use latchbus_bus::{Clock, Options, Publish};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use support::{Raw, Running, client, eventually};

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
