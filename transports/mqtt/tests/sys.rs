//! The `$SYS` topics beside those of a real mosquitto: the same bytes to both, the same names, the same numbers.
//!
//! mosquitto is started where it is installed; with `CI=true` its absence fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};

use latchbus_bus::Options as BusOptions;
use latchbus_core::topic::TopicFilter;
use latchbus_mqtt::server::Config;
use support::{DEADLINE, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// What mosquitto 2 publishes by its manual (mosquitto.8, "BROKER STATUS"), below `$SYS/broker/`; `+` stands for 1min, 5min
/// and 15min.
const MANUAL: &[&str] = &[
    "bytes/received",
    "bytes/sent",
    "clients/active",
    "clients/connected",
    "clients/disconnected",
    "clients/expired",
    "clients/inactive",
    "clients/maximum",
    "clients/total",
    "load/bytes/received/+",
    "load/bytes/sent/+",
    "load/connections/+",
    "load/messages/received/+",
    "load/messages/sent/+",
    "load/publish/dropped/+",
    "load/publish/received/+",
    "load/publish/sent/+",
    "load/sockets/+",
    "messages/received",
    "messages/sent",
    "messages/stored",
    "publish/bytes/received",
    "publish/bytes/sent",
    "publish/messages/dropped",
    "publish/messages/received",
    "publish/messages/sent",
    "retained messages/count",
    "shared_subscriptions/count",
    "store/messages/bytes",
    "store/messages/count",
    "subscriptions/count",
    "uptime",
    "version",
];
/// What it publishes and we do not: see `docs/mqtt.md`.
const NOT_OURS: &[&str] = &[
    "heap/current size",
    "heap/maximum size",
    "heap/current",
    "heap/maximum",
];
/// Nothing here takes nearly as long, unless it is broken.
const SETTLED: Duration = Duration::from_secs(20);
/// What is ours alone.
const OURS: &[&str] = &[
    "clients/behind",
    "publish/messages/accepted",
    "publish/messages/conflated",
    "publish/messages/expired",
    "publish/messages/refused",
    "publish/messages/skipped",
];

/// What the script comes to, the reader's CONNECT and SUBSCRIBE included. Bytes: as they are written below.
const EXPECTED: &[(&str, u64)] = &[
    ("messages/received", 17),
    ("publish/bytes/received", 5 * 100 + 5 + 10),
    ("publish/messages/dropped", 0),
    ("clients/connected", 3),
    ("clients/active", 3),
    ("clients/disconnected", 1),
    ("clients/inactive", 1),
    ("clients/total", 4),
    ("clients/maximum", 4),
    ("clients/expired", 0),
    ("subscriptions/count", 3),
];

fn field(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 16_384);
    let (low, high) = (body.len() % 128, body.len() / 128);
    let length = match high {
        0 => vec![low as u8],
        _ => vec![low as u8 | 0x80, high as u8],
    };
    [&[first], &length[..], body].concat()
}

fn publish(flags: u8, topic: &str, id: Option<u8>, payload: &[u8]) -> Vec<u8> {
    let id = id.map_or(Vec::new(), |id| vec![0, id]);
    packet(
        0x30 | flags,
        &[&field(topic.as_bytes()), &id[..], payload].concat(),
    )
}

/// A client of which every byte counts.
struct Peer {
    stream: TcpStream,
    sent: u64,
}

impl Peer {
    async fn connect(address: SocketAddr, id: &str, is_clean: bool) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut peer = Self { stream, sent: 0 };
        let head = [
            0,
            4,
            b'M',
            b'Q',
            b'T',
            b'T',
            4,
            u8::from(is_clean) << 1,
            0,
            0,
        ];
        peer.send(&packet(0x10, &[&head, &field(id.as_bytes())[..]].concat()))
            .await;
        assert_eq!(peer.recv().await.0, 0x20);
        peer
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.sent += bytes.len() as u64;
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn subscribe(&mut self, filter: &str, qos: u8) {
        let body = [&[0, 1], &field(filter.as_bytes())[..], &[qos]].concat();
        self.send(&packet(0x82, &body)).await;
    }

    async fn recv(&mut self) -> (u8, Vec<u8>) {
        let received = async {
            let first = self.stream.read_u8().await.unwrap();
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = self.stream.read_u8().await.unwrap();
                length |= usize::from(byte & 0x7F) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.unwrap();
            (first, body)
        };
        timeout(DEADLINE, received).await.expect("a packet")
    }
}

/// What `$SYS/broker/` says once it has what is expected and the load of five minutes.
async fn figures(address: SocketAddr) -> BTreeMap<String, String> {
    let mut all = Peer::connect(address, "a", true).await;
    all.subscribe("t/#", 0).await;
    assert_eq!(all.recv().await.0, 0x90);
    let mut away = Peer::connect(address, "s", false).await;
    away.subscribe("s/#", 1).await;
    assert_eq!(away.recv().await.0, 0x90);
    away.send(&[0xE0, 0]).await;
    assert_eq!(away.stream.read(&mut [0]).await.unwrap(), 0);
    let mut publisher = Peer::connect(address, "b", true).await;
    for _ in 0..5 {
        publisher.send(&publish(0, "t/1", None, &[b'x'; 100])).await;
    }
    publisher.send(&publish(3, "t/r", Some(1), b"hello")).await;
    assert_eq!(publisher.recv().await.0, 0x40);
    publisher
        .send(&publish(4, "t/2", Some(2), &[b'y'; 10]))
        .await;
    assert_eq!(publisher.recv().await.0, 0x50);
    publisher.send(&[0x62, 2, 0, 2]).await;
    assert_eq!(publisher.recv().await.0, 0x70);
    publisher.send(&[0xC0, 0]).await;
    assert_eq!(publisher.recv().await.0, 0xD0);
    for _ in 0..7 {
        assert_eq!(all.recv().await.0 & 0xF0, 0x30);
    }

    let mut reader = Peer::connect(address, "w", true).await;
    reader.subscribe("$SYS/#", 0).await;
    let bytes = all.sent + away.sent + publisher.sent + reader.sent;
    let expected = EXPECTED.iter().copied().chain([("bytes/received", bytes)]);
    let expected: BTreeMap<_, _> = expected.collect();
    let mut said = BTreeMap::new();
    let mut to_reader = 0;
    let settled = async {
        loop {
            let (first, body) = reader.recv().await;
            if first & 0xF0 != 0x30 {
                continue;
            }
            to_reader += 1;
            let (length, rest) = body.split_at(2);
            let (topic, payload) =
                rest.split_at(usize::from(length[0]) << 8 | usize::from(length[1]));
            let topic = String::from_utf8(topic.to_vec()).unwrap();
            let topic = topic.strip_prefix("$SYS/broker/").unwrap().to_owned();
            let payload = String::from_utf8(payload.to_vec()).unwrap();
            if topic == "publish/messages/sent" {
                // Seven of the script, and what had gone to the reader by then.
                let sent: u64 = payload.parse().unwrap();
                assert!(sent <= 7 + to_reader, "{sent} of {to_reader}");
            }
            said.insert(topic, payload);
            let is = |(name, value): (&&str, &u64)| said.get(*name) == Some(&value.to_string());
            if expected.iter().all(is) && said.contains_key("load/publish/received/5min") {
                break;
            }
        }
    };
    if timeout(SETTLED, settled).await.is_err() {
        panic!("expected {expected:#?}, got {said:#?}");
    }
    let sent: u64 = said["publish/messages/sent"].parse().unwrap();
    assert!(sent >= 7);
    said
}

struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

async fn mosquitto(directory: &std::path::Path) -> Option<(Mosquitto, SocketAddr)> {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let file = directory.join("mosquitto.conf");
    let settings = format!(
        "listener {} 127.0.0.1\nallow_anonymous true\nsys_interval 1\n",
        address.port()
    );
    std::fs::write(&file, settings).unwrap();
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(&file).stdin(Stdio::null());
    let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let broker = match started {
        Ok(child) => Mosquitto(child),
        Err(error) => {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "mosquitto: {error}"
            );
            eprintln!("skipped: {error}");
            return None;
        }
    };
    let listening = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, listening).await.expect("it listens");
    Some((broker, address))
}

#[tokio::test]
async fn the_sys_topics_have_the_names_and_numbers_of_mosquitto() {
    let options = BusOptions {
        sys_every: Some(Duration::from_millis(100)),
        ..BusOptions::default()
    };
    let running = Running::with(options, Config::default()).await;
    let said = figures(running.address).await;
    assert_eq!(said["publish/messages/received"], "7");
    let ours = running.bus.kept(TopicFilter::parse("$SYS/#").unwrap());
    let names = ours.iter().map(|entry| entry.topic.as_str());
    let names: BTreeSet<_> = names
        .filter_map(|name| name.strip_prefix("$SYS/broker/"))
        .collect();
    for name in MANUAL.iter().copied().chain(OURS.iter().copied()) {
        for span in ["1min", "5min", "15min"] {
            assert!(names.contains(name.replace('+', span).as_str()), "{name}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    if let Some((_broker, address)) = mosquitto(directory.path()).await {
        let theirs = figures(address).await;
        // Its manual says all; 2.0.11 leaves out those above QoS 0, whose bytes it counts.
        assert!(["5", "7"].contains(&theirs["publish/messages/received"].as_str()));
        let missing = theirs.keys().map(String::as_str);
        let missing: Vec<_> = missing
            .filter(|name| !names.contains(name) && !NOT_OURS.contains(name))
            .collect();
        assert_eq!(missing, [""; 0]);
    }
    running.stop().await;
}

#[tokio::test]
async fn what_has_not_changed_is_not_published_again() {
    let options = BusOptions {
        sys_every: Some(Duration::from_millis(10)),
        ..BusOptions::default()
    };
    let running = Running::with(options, Config::default()).await;
    let mut reader = Peer::connect(running.address, "w", true).await;
    reader.subscribe("$SYS/broker/clients/#", 0).await;
    assert_eq!(reader.recv().await.0, 0x90);
    // The snapshot, and what this very connection has changed.
    let mut said = BTreeMap::new();
    let mut other = None;
    loop {
        let (_, body) = reader.recv().await;
        let (topic, payload) = body[2..].split_at(usize::from(body[1]));
        let topic = String::from_utf8(topic.to_vec()).unwrap();
        let before = said.insert(topic.clone(), payload.to_vec());
        assert_ne!(before.as_deref(), Some(payload), "{topic}");
        if topic.ends_with("/total") && payload == b"1" && other.is_none() {
            other = Some(Peer::connect(running.address, "o", true).await);
        }
        if topic.ends_with("/total") && payload == b"2" {
            break;
        }
    }
    running.stop().await;
}
