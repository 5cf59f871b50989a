//! What depends on time, in virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::num::NonZeroU16;
use core::time::Duration;

use bytes::BytesMut;
use latchbus_bus::{Bus, Options};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::Bounds;
use latchbus_mqtt::server::{Config, Server};
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::{Connect, LastWill, Packet};
use rmqtt_codec::v5;
use support::{Raw, client, five};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::codec::Encoder;

struct World {
    bus: Bus,
    server: Server,
}

impl World {
    fn new(config: Config) -> Self {
        let bus = Bus::open(Options::default()).unwrap();
        let server = Server::new(bus.clone(), config);
        Self { bus, server }
    }

    fn open(&self) -> (Raw<DuplexStream>, JoinHandle<()>) {
        let (near, far) = duplex(64 << 10);
        let server = self.server.clone();
        let serving = tokio::spawn(async move { server.connection(far, None).await });
        (Raw::over(near), serving)
    }

    fn will(&self) -> Option<bytes::Bytes> {
        let last = self.bus.last(TopicName::parse("will").unwrap());
        last.map(|last| last.payload.bytes().clone())
    }
}

fn seconds(instant: Instant) -> f64 {
    instant.elapsed().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn silence_for_one_and_a_half_intervals_ends_a_connection() {
    let world = World::new(Config::default());
    let (mut raw, serving) = world.open();
    let last_will = Some(LastWill {
        qos: QoS::AtMostOnce,
        retain: true,
        topic: "will".into(),
        message: "gone".into(),
    });
    let connect = Connect {
        keep_alive: 10,
        last_will,
        ..client("silent", true)
    };
    raw.shake_hands(connect).await;
    raw.subscribe("#", QoS::AtMostOnce).await;
    for _ in 0..5 {
        sleep(Duration::from_secs(14)).await;
        raw.send(Packet::PingRequest).await;
    }
    // That the server has messages for it does not count: it must speak itself.
    let heard = Instant::now();
    serving.await.unwrap();
    assert!((15.0..15.1).contains(&seconds(heard)), "{}", seconds(heard));
    assert_eq!(world.will().as_deref(), Some(&b"gone"[..]));
    assert_eq!(world.server.metrics().violations.get(), 1);
}

/// A large packet over a slow line takes longer than the keep-alive: its bytes are what the client says meanwhile.
#[tokio::test(start_paused = true)]
async fn bytes_of_an_unfinished_packet_are_no_silence() {
    let world = World::new(Config::default());
    let (mut raw, serving) = world.open();
    let connect = Connect {
        keep_alive: 10,
        ..client("slow", true)
    };
    raw.shake_hands(connect).await;
    let publish = b"\x32\x0d\x00\x03big\x00\x01abcdef";
    for byte in publish {
        sleep(Duration::from_secs(14)).await;
        raw.stream.write_all(&[*byte]).await.unwrap();
    }
    let Packet::PublishAck { packet_id } = raw.next().await else {
        panic!("no PUBACK");
    };
    assert_eq!(packet_id.get(), 1);

    // One that does not go on is silent like any other.
    raw.stream.write_all(&publish[..9]).await.unwrap();
    let heard = Instant::now();
    serving.await.unwrap();
    assert!((15.0..15.1).contains(&seconds(heard)), "{}", seconds(heard));
}

#[tokio::test(start_paused = true)]
async fn without_keep_alive_silence_is_allowed() {
    let world = World::new(Config::default());
    let (mut raw, serving) = world.open();
    let connect = Connect {
        keep_alive: 0,
        ..client("quiet", true)
    };
    raw.shake_hands(connect).await;
    sleep(Duration::from_secs(3_600)).await;
    assert!(!serving.is_finished());
    raw.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_does_not_come_ends_the_connection() {
    let world = World::new(Config::default());
    let began = Instant::now();
    let (silent, serving) = world.open();
    serving.await.unwrap();
    assert_eq!(seconds(began).round(), 10.0);
    drop(silent);

    let began = Instant::now();
    let (mut slow, serving) = world.open();
    for byte in b"\x10\x1d\x00\x04MQTT\x04\x02\x00\x00\x00\x11abcdef" {
        // Fails once the server has closed.
        let _closed = slow.stream.write_all(&[*byte]).await;
        sleep(Duration::from_secs(1)).await;
    }
    serving.await.unwrap();
    assert!(seconds(began) < 21.0);
}

/// A client that is told why it ends while it still sends can read it: the server reads on, for a while.
#[tokio::test(start_paused = true)]
async fn after_a_goodbye_what_still_comes_is_read() {
    let world = World::new(Config::default());
    for closes in [true, false] {
        let (mut raw, serving) = world.open();
        raw.shake_hands(client("busy", true)).await;
        // QoS 3
        raw.stream
            .write_all(b"\x36\x05\x00\x01a\x00\x01")
            .await
            .unwrap();
        let began = Instant::now();
        // More than the stream holds.
        raw.stream.write_all(&[0; 1 << 20]).await.unwrap();
        assert_eq!(raw.next_or_end().await, None);
        if closes {
            drop(raw);
            serving.await.unwrap();
            assert_eq!(seconds(began), 0.0);
        } else {
            serving.await.unwrap();
            assert_eq!(seconds(began).round(), 1.0);
        }
    }
}

/// A client that never takes what it asks for holds a bounded buffer, and is read no further.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_not_read() {
    let world = World::new(Config::default());
    let (mut raw, serving) = world.open();
    raw.shake_hands(client("deaf", true)).await;
    let mut pings = BytesMut::new();
    for _ in 0..1_000_000 {
        pings.extend_from_slice(&[0xC0, 0]);
    }
    let mut sent = 0;
    let began = Instant::now();
    while let Some(rest) = pings.get(sent..).filter(|rest| !rest.is_empty()) {
        match tokio::time::timeout(Duration::from_secs(1), raw.stream.write(rest)).await {
            Ok(Ok(written)) => sent += written,
            _ => break,
        }
    }
    assert!(sent < 1 << 20, "{sent} bytes were taken");
    // It cannot be heard either, so its keep-alive ends it.
    serving.await.unwrap();
    assert!(seconds(began) < 95.0);
}

fn v5_connect(id: &str, will_delay_secs: u32) -> BytesMut {
    let connect = v5::Connect {
        session_expiry_interval_secs: 60,
        last_will: Some(v5::LastWill {
            qos: QoS::AtMostOnce,
            topic: "will".into(),
            message: "gone".into(),
            ..five::offline(id, Some(will_delay_secs))
        }),
        ..v5::Connect::default().client_id(id.to_owned())
    };
    let mut bytes = BytesMut::new();
    let packet = v5::Packet::Connect(Box::new(connect));
    v5::Codec::default().encode(packet, &mut bytes).unwrap();
    bytes
}

async fn v5_open(world: &World, delay: u32) -> (DuplexStream, JoinHandle<()>, bool) {
    let (raw, serving) = world.open();
    let mut stream = raw.stream;
    stream.write_all(&v5_connect("v5", delay)).await.unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!((head[0], head[3]), (0x20, 0));
    (stream, serving, head[2] == 1)
}

#[tokio::test(start_paused = true)]
async fn a_delayed_will_waits_for_a_return_and_sessions_expire() {
    let world = World::new(Config::default());
    let (stream, serving, _) = v5_open(&world, 5).await;
    drop(stream);
    serving.await.unwrap();
    sleep(Duration::from_secs(3)).await;
    let (stream, serving, present) = v5_open(&world, 5).await;
    assert!(present);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.will(), None, "the client had come back");
    drop(stream);
    serving.await.unwrap();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(world.will(), None);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.will().as_deref(), Some(&b"gone"[..]));
    assert_eq!(world.server.metrics().sessions_away.get(), 1);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.server.metrics().sessions_away.get(), 0);
    let (_stream, _serving, present) = v5_open(&world, 5).await;
    assert!(!present, "expired");
    world.bus.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_client_of_3_1_1_leaves_expires_too() {
    let bounds = Bounds {
        session_expiry: Duration::from_secs(30),
        ..Bounds::default()
    };
    let world = World::new(Config {
        bounds,
        ..Config::default()
    });
    // Between two looks of the server for what has expired.
    sleep(Duration::from_millis(500)).await;
    for (away_ms, kept) in [(29_000, true), (30_300, false), (31_000, false)] {
        let (mut raw, serving) = world.open();
        raw.shake_hands(client("c", false)).await;
        let packet_id = NonZeroU16::MIN;
        let topic_filters = vec![("a".into(), QoS::AtLeastOnce)];
        raw.send(Packet::Subscribe {
            packet_id,
            topic_filters,
        })
        .await;
        assert!(matches!(raw.next().await, Packet::SubscribeAck { .. }));
        drop(raw);
        serving.await.unwrap();
        sleep(Duration::from_millis(away_ms)).await;
        let (mut raw, serving) = world.open();
        assert_eq!(raw.shake_hands(client("c", false)).await, kept);
        raw.send(Packet::Disconnect).await;
        serving.await.unwrap();
    }
}

/// MQTT 5 §3.1.3.2.2: where a clean start ends a session, its will, which waits, is published before the new connection is accepted.
#[tokio::test(start_paused = true)]
async fn a_clean_start_ends_the_wait_of_a_will() {
    let world = World::new(Config::default());
    let (stream, serving, _) = v5_open(&world, 50).await;
    drop(stream);
    serving.await.unwrap();
    assert_eq!(world.will(), None);
    let (mut raw, _serving) = world.open();
    raw.shake_hands(client("v5", true)).await;
    assert_eq!(world.will().as_deref(), Some(&b"gone"[..]));
    world.bus.close().await;
}

/// The same where the session ends with the connection.
#[tokio::test(start_paused = true)]
async fn a_delayed_will_does_not_outlive_its_session() {
    let world = World::new(Config::default());
    let (mut stream, serving, _) = v5_open(&world, 50).await;
    // With the will, and a session expiry of 0.
    let disconnect = [0xE0, 7, 0x04, 5, 0x11, 0, 0, 0, 0];
    stream.write_all(&disconnect).await.unwrap();
    serving.await.unwrap();
    assert_eq!(world.will().as_deref(), Some(&b"gone"[..]));
    world.bus.close().await;
}

/// MQTT 5, MQTT-3.2.2-22: the interval that the server names counts, and its end has the code 0x8D.
#[tokio::test(start_paused = true)]
async fn the_keep_alive_of_the_server_counts_and_has_its_code() {
    let bounds = Bounds {
        keep_alive: Some(Duration::from_secs(10)),
        ..Bounds::default()
    };
    let world = World::new(Config {
        bounds,
        ..Config::default()
    });
    let (raw, serving) = world.open();
    let mut stream = raw.stream;
    let connect = b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01k";
    stream.write_all(connect).await.unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(seconds(began).round(), 15.0);
    let (connack, disconnect) = answer.split_at(2 + usize::from(answer[1]));
    assert!(connack.windows(3).any(|named| named == [0x13, 0, 10]));
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x8D));
    serving.await.unwrap();
}
