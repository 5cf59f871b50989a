//! No-local, by the client's identifier: over sessions and restarts, and for bridges of 3.1.1, which say with a bit of the
//! protocol level what they are. `tests/mqtt/mosquitto_bridge.py` runs a real one.
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
use support::wire::{PINGREQ, connect_head, next, packet, properties, text};
use support::{Running, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A client whose own messages do not come back.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Bridge,
    NoLocal5,
}

struct Peer {
    stream: TcpStream,
    kind: Kind,
}

impl Peer {
    /// Connects; says whether there was a session.
    async fn open(running: &Running, kind: Kind, clean: bool) -> (Self, bool) {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let flags = u8::from(clean) << 1;
        let (level, said) = match kind {
            Kind::Bridge => (0x84, vec![]),
            Kind::NoLocal5 => (5, properties(&[0x11, 0, 0, 1, 0])),
        };
        let body = [&connect_head(level, flags)[..], &said, &text("bridge")].concat();
        stream.write_all(&packet(0x10, &body)).await.unwrap();
        let (first, connack) = next(&mut stream).await.unwrap();
        assert_eq!((first, connack[1]), (0x20, 0));
        (Self { stream, kind }, connack[0] == 1)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Subscribes; gives the messages that come before the SUBACK, which may wait for the disk.
    async fn subscribe(&mut self, filter: &str) -> Vec<(String, bool)> {
        let (said, options) = match self.kind {
            Kind::Bridge => (&[][..], 1),
            // No-local, retain as published.
            Kind::NoLocal5 => (&[0][..], 0x0D),
        };
        let body = [&[0, 9], said, &text(filter), &[options]].concat();
        self.send(&packet(0x82, &body)).await;
        let mut early = Vec::new();
        loop {
            match next(&mut self.stream).await.unwrap() {
                (0x90, _) => return early,
                (first, body) => early.push(self.message(first, &body).await),
            }
        }
    }

    /// Publishes retained, and waits for the PUBACK.
    async fn keep(&mut self, topic: &str, payload: &str) {
        let said = match self.kind {
            Kind::Bridge => &[][..],
            Kind::NoLocal5 => &[0],
        };
        let body = [&text(topic)[..], &[0, 7], said, payload.as_bytes()].concat();
        self.send(&packet(0x33, &body)).await;
        while next(&mut self.stream).await.unwrap().0 != 0x40 {}
    }

    /// Topic and retain flag of a PUBLISH, which is acknowledged.
    async fn message(&mut self, first: u8, body: &[u8]) -> (String, bool) {
        assert_eq!(first & 0xF0, 0x30);
        let length = usize::from(body[1]);
        let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
        if first & 0x06 != 0 {
            let id = &body[2 + length..4 + length];
            self.send(&packet(0x40, id)).await;
        }
        (topic, first & 1 == 1)
    }

    /// The topics of the messages up to that of `last`, each with its retain flag.
    async fn until(&mut self, last: &str) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        loop {
            let (first, body) = next(&mut self.stream).await.unwrap();
            if first & 0xF0 != 0x30 {
                continue;
            }
            let (topic, retain) = self.message(first, &body).await;
            let is_last = topic == last;
            found.push((topic, retain));
            if is_last {
                // It has read the acknowledgements too.
                self.send(&PINGREQ).await;
                while next(&mut self.stream).await.unwrap().0 != 0xD0 {}
                return found;
            }
        }
    }
}

async fn own_messages_stay_away(kind: Kind) {
    let directory = tempfile::tempdir().unwrap();
    let stored = || Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..Options::default()
    };
    let running = Running::with(stored(), Config::default()).await;
    let (mut peer, present) = Peer::open(&running, kind, false).await;
    assert!(!present);
    assert_eq!(peer.subscribe("b/#").await, []);
    peer.keep("b/own", "1").await;
    running.publish("b/kept", "x", true, 1).await;
    running.publish("b/nothing", "", true, 1).await;
    running.publish("b/empty", "", false, 1).await;
    running.publish("b/end", "x", false, 1).await;
    // Retain as published (MQTT-3.3.1-13): a bridge keeps what is kept here, and clears what is not here but may be there.
    let expected = [
        ("b/kept", true),
        ("b/nothing", true),
        ("b/empty", false),
        ("b/end", false),
    ];
    let expected = expected.map(|(topic, retain)| (topic.to_owned(), retain));
    assert_eq!(peer.until("b/end").await, expected);

    // The same session, whose SUBSCRIBE brings the retained messages again; then a new one, of the same client.
    for clean in [false, true] {
        drop(peer);
        let present;
        (peer, present) = Peer::open(&running, kind, clean).await;
        assert_eq!(present, !clean);
        let mut found = peer.subscribe("b/#").await;
        running.publish("b/end", "x", false, 1).await;
        found.extend(peer.until("b/end").await);
        let expected = [("b/kept".to_owned(), true), ("b/end".to_owned(), false)];
        assert_eq!(found, expected, "{clean}");
    }
    // After a restart.
    drop(peer);
    eventually(|| running.bus.metrics().connections.get() == 0).await;
    running.stop().await;
    let running = Running::with(stored(), Config::default()).await;
    for clean in [false, true] {
        let (mut peer, _) = Peer::open(&running, kind, clean).await;
        let mut found = peer.subscribe("b/#").await;
        running.publish("b/end", "x", false, 1).await;
        found.extend(peer.until("b/end").await);
        assert!(found.iter().all(|(topic, _)| topic != "b/own"), "{found:?}");
        // What another has published since is no longer its own.
        if clean {
            running.publish("b/own", "2", true, 1).await;
            running.publish("b/end", "x", false, 1).await;
            let found = peer.until("b/end").await;
            assert_eq!(found[0], ("b/own".to_owned(), true));
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_bridge_of_3_1_1_gets_none_of_its_own() {
    own_messages_stay_away(Kind::Bridge).await;
}

/// MQTT-3.8.3-3: by the identifier of the client, whatever the session.
#[tokio::test]
async fn no_local_goes_by_the_identifier() {
    own_messages_stay_away(Kind::NoLocal5).await;
}

/// The will that a bridge has by default does not keep it out, and is published nowhere; another below `$SYS` is refused.
#[tokio::test]
async fn the_state_of_a_bridge_is_no_reason_to_refuse_it() {
    let running = Running::start().await;
    for (topic, code) in [
        ("$SYS/broker/connection/vm.latchbus/state", 0),
        ("$SYS/broker/uptime", 0x87),
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let will = [&[0][..], &text(topic), &text("0")].concat();
        let body = [
            &connect_head(5, 0x2E)[..],
            &[0],
            &text("vm.latchbus"),
            &will,
        ]
        .concat();
        stream.write_all(&packet(0x10, &body)).await.unwrap();
        let (first, connack) = next(&mut stream).await.unwrap();
        assert_eq!((first, connack[1]), (0x20, code), "{topic}");
        drop(stream);
        eventually(|| running.bus.metrics().connections.get() == 0).await;
        let name = latchbus_core::topic::TopicName::parse(topic).unwrap();
        assert!(
            running
                .bus
                .last(name)
                .is_none_or(|last| &**last.payload.bytes() != b"0")
        );
    }
    running.stop().await;
}
