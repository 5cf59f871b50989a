//! A server whose disk takes its time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod support;

use core::time::Duration;

use latchbus_bus::simulation::{self, Disk, Finished, Memory};
use latchbus_bus::{Clock, Options};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::server::{Config, Server};
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::Packet;
use support::{Raw, client, publish};
use tokio::io::{DuplexStream, duplex};

fn open(server: &Server) -> Raw<DuplexStream> {
    let (near, far) = duplex(1 << 16);
    let server = server.clone();
    tokio::spawn(async move { server.connection(far, None).await });
    Raw::over(near)
}

/// A client that repeats a press after it has returned, before the disk has taken the first.
#[tokio::test(start_paused = true)]
async fn a_press_that_waits_for_the_disk_is_counted_once() {
    let options = Options {
        clock: Clock::manual(1_000),
        seed: Some(7),
        ..Options::default()
    };
    let (bus, mut commits) = simulation::open(options, Disk::memory(&Memory::default())).unwrap();
    let server = Server::new(bus.clone(), Config::default());
    let mut raw = open(&server);
    assert!(!raw.shake_hands(client("q", false)).await);
    let mut press = publish("clicks/main/k/press", "red", QoS::ExactlyOnce, 5);
    raw.send(press.clone()).await;
    raw.quiet().await;
    drop(raw);
    let mut raw = open(&server);
    let returning = tokio::spawn(async move {
        let present = raw.shake_hands(client("q", false)).await;
        (raw, present)
    });
    // Virtual time: longer than a link that ends waits for answers, shorter than a client that connects does.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let writing = tokio::spawn(async move {
        while commits.next().await {
            commits.commit().unwrap();
            while commits.finish() == Finished::Overtaken {
                commits.commit().unwrap();
            }
        }
    });
    let (mut raw, present) = returning.await.unwrap();
    assert!(present);
    if let Packet::Publish(publish) = &mut press {
        publish.dup = true;
    }
    raw.send(press).await;
    let packet_id = 5.try_into().unwrap();
    assert_eq!(raw.next().await, Packet::PublishReceived { packet_id });
    raw.send(Packet::PublishRelease { packet_id }).await;
    assert_eq!(raw.next().await, Packet::PublishComplete { packet_id });
    let values = bus.last(TopicName::parse("clicks/main/values").unwrap());
    assert_eq!(values.unwrap().payload.bytes(), r#"{"red":1,"blue":0}"#);
    writing.abort();
}
