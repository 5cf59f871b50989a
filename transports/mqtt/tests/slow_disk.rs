//! A server whose disk takes its time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::time::Duration;

use latchbus_bus::simulation::{self, Commits, Disk, Memory};
use latchbus_bus::{Clock, Options, Publish};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::server::{Config, Server};
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::{Connect, LastWill, Packet};
use support::wire::{connect_head, packet, properties, text};
use support::{Raw, client, publish};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

fn open(server: &Server) -> Raw<DuplexStream> {
    let (near, far) = duplex(1 << 16);
    let server = server.clone();
    tokio::spawn(async move { server.connection(far, None).await });
    Raw::over(near)
}

/// The disk takes what is queued.
async fn write(commits: &mut Commits) {
    while commits.next().await {
        commits.turn().unwrap();
    }
}

/// Waits for something while the disk works.
async fn with_disk<T>(commits: &mut Commits, wanted: impl Future<Output = T>) -> T {
    tokio::select! {
        () = write(commits) => panic!("the bus is open"),
        came = wanted => came,
    }
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
    let present = with_disk(&mut commits, raw.shake_hands(client("q", false))).await;
    assert!(!present);
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
    let writing = tokio::spawn(async move { write(&mut commits).await });
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

/// What a CONNACK promises is on disk: a session without a subscription, a will, and that an earlier session is gone.
/// Nothing else goes out before it.
#[tokio::test(start_paused = true)]
async fn a_connack_waits_for_the_disk() {
    let options = Options {
        clock: Clock::manual(1_000),
        seed: Some(7),
        ..Options::default()
    };
    let memory = Memory::default();
    let (bus, mut commits) = simulation::open(options, Disk::memory(&memory)).unwrap();
    let server = Server::new(bus.clone(), Config::default());
    // Nothing is committed yet: whoever has nothing to remember is accepted all the same.
    let mut raw = open(&server);
    assert!(!raw.shake_hands(client("transient", true)).await);

    let will = LastWill {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "gone".into(),
        message: "x".into(),
    };
    let with_will = Connect {
        last_will: Some(will),
        ..client("with will", true)
    };
    let lasting = client("lasting", false);
    for (connect, present) in [
        (lasting.clone(), false),
        (with_will, false),
        (lasting.clone(), true),
        (client("lasting", true), false),
        (lasting, false),
    ] {
        let mut raw = open(&server);
        raw.send(Packet::Connect(Box::new(connect))).await;
        raw.send(Packet::PingRequest).await;
        // Virtual time: what goes out without the disk has gone out by then.
        let early = timeout(Duration::from_secs(3), raw.stream.read_u8()).await;
        assert!(early.is_err(), "{early:?} before the disk has it");
        let answers = async {
            match raw.next().await {
                Packet::ConnectAck(ack) => {
                    assert_eq!(u8::from(ack.return_code), 0);
                    assert_eq!(ack.session_present, present);
                }
                other => panic!("{other:?} for a CONNACK"),
            }
            assert_eq!(raw.next().await, Packet::PingResponse);
        };
        with_disk(&mut commits, answers).await;
    }
}

/// Whoever breaks the protocol while its CONNACK waits for the disk is told so behind it.
#[tokio::test(start_paused = true)]
async fn a_goodbye_comes_behind_a_connack_that_waits() {
    let options = Options {
        clock: Clock::manual(1_000),
        seed: Some(7),
        ..Options::default()
    };
    let (bus, mut commits) = simulation::open(options, Disk::memory(&Memory::default())).unwrap();
    let server = Server::new(bus.clone(), Config::default());
    let mut raw = open(&server);
    let connect = [
        &connect_head(5, 0)[..],
        // It asks for a session of 100 s, and then sends a packet of a type that there is not.
        &properties(&[0x11, 0, 0, 0, 100]),
        &text("v5"),
    ];
    let bytes = [packet(0x10, &connect.concat()), vec![0x00, 0]].concat();
    raw.stream.write_all(&bytes).await.unwrap();
    let early = timeout(Duration::from_millis(100), raw.stream.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    let mut came = Vec::new();
    let read = with_disk(&mut commits, raw.stream.read_to_end(&mut came)).await;
    read.unwrap();
    assert_eq!((came[0], came[3]), (0x20, 0), "{came:x?}");
    let disconnect = usize::from(came[1]) + 2;
    assert_eq!(
        (came[disconnect], came[disconnect + 2]),
        (0xE0, 0x81),
        "{came:x?}"
    );
}

/// What waited for the disk when its connection ended has not been sent: it is no repetition (MQTT-3.3.1-1).
#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_no_repetition() {
    let options = Options {
        clock: Clock::manual(1_000),
        seed: Some(7),
        ..Options::default()
    };
    let memory = Memory::default();
    let (bus, mut commits) = simulation::open(options.clone(), Disk::memory(&memory)).unwrap();
    let server = Server::new(bus.clone(), Config::default());
    for qos in [1, 2] {
        let mut raw = open(&server);
        with_disk(&mut commits, async {
            raw.shake_hands(client("s", false)).await;
            raw.subscribe("t", QoS::ExactlyOnce).await;
            raw.quiet().await;
        })
        .await;
        let publish = Publish {
            qos,
            ..Publish::event(TopicName::parse("t".to_owned()).unwrap(), "x")
        };
        let publishing = bus.clone();
        let receipt = tokio::spawn(async move { publishing.publish(publish).await });
        assert!(commits.next().await);
        commits.turn().unwrap();
        receipt.await.unwrap().unwrap();
        // The disk has the message, and not that it is under way.
        raw.quiet().await;
        drop(raw);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut raw = open(&server);
        let returns = async {
            assert!(raw.shake_hands(client("s", false)).await);
            let message = raw.message().await;
            assert_eq!((&message.payload[..], message.dup), (&b"x"[..], false));
        };
        with_disk(&mut commits, returns).await;
        // The next one begins anew.
        let mut raw = open(&server);
        with_disk(&mut commits, raw.shake_hands(client("s", true))).await;
        drop(raw);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}
