//! Large messages: 1 MiB through every door, both ways, and the memory that they may take.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and this is a part of them"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::SinkExt as _;
use latchbus_core::hub::Mode;
use latchbus_core::wire::{self, ClientFrame, ServerFrame};
use serde_json::json;
use support::web_socket::{next, next_json, web_socket};
use support::{DEADLINE, Server, latchbus, until};
use tokio_tungstenite::tungstenite::Message;

const MIB: usize = 1 << 20;

/// Bytes that are no text.
fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| (n as u8).wrapping_mul(31) ^ seed)
        .collect()
}

/// An MQTT packet: its first byte, and what follows the length.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 0x7F;
        packet.push((length & 0x7F) as u8 | u8::from(more) << 7);
        length >>= 7;
        if !more {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn connect(id: &str, version: u8, keep_alive: u8) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([version, 2, 0, keep_alive]);
    if version == 5 {
        body.push(0);
    }
    body.extend(text(id));
    packet(0x10, &body)
}

/// A retained publish at QoS 1.
fn publish(topic: &str, payload: &[u8], version: u8) -> Vec<u8> {
    let mut body = text(topic);
    body.extend([0, 1]);
    if version == 5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(0x33, &body)
}

fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 2];
    body.extend(text(filter));
    body.push(1);
    packet(0x82, &body)
}

/// The first packet in `bytes`: its first byte, its body, and how long it is.
fn first(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (mut length, mut header) = (0, 1);
    for (place, byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * place);
        header += 1;
        if byte & 0x80 == 0 {
            let body = bytes.get(header..header + length)?;
            return Some((bytes[0], body, header + length));
        }
    }
    None
}

struct Mqtt {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Mqtt {
    fn connect(server: &Server, id: &str, version: u8) -> Self {
        Self::with(server, &connect(id, version, 60))
    }

    /// Goes on with its session.
    fn resume(server: &Server, id: &str) -> Self {
        let mut packet = connect(id, 4, 60);
        // No flag: the session is not clean.
        packet[9] = 0;
        Self::with(server, &packet)
    }

    fn with(server: &Server, connect: &[u8]) -> Self {
        let stream = TcpStream::connect(server.mqtt()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut mqtt = Self {
            stream,
            bytes: Vec::new(),
        };
        mqtt.send(connect);
        let (kind, body) = mqtt.next().unwrap();
        assert_eq!((kind, body[1]), (0x20, 0));
        mqtt
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((kind, body, length)) = first(&self.bytes) {
                let found = (kind, body.to_vec());
                self.bytes.drain(..length);
                return Some(found);
            }
            let mut read = vec![0; 256 << 10];
            match self.stream.read(&mut read) {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.bytes.extend_from_slice(&read[..length]),
            }
        }
    }

    /// Subscribes, and waits until that is done.
    fn subscribe(&mut self, filter: &str) {
        self.send(&subscribe(filter));
        assert_eq!(self.next().unwrap().0, 0x90);
    }

    /// Takes the next message at QoS 1: its topic and payload.
    fn take(&mut self) -> (String, Vec<u8>) {
        let (_, body) = self.next().unwrap();
        let (topic, payload, ack) = message(&body);
        self.send(&ack);
        (topic, payload)
    }
}

/// Topic and payload of a PUBLISH at QoS 1, and the acknowledgement.
fn message(body: &[u8]) -> (String, Vec<u8>, Vec<u8>) {
    let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
    let id = &body[2 + length..][..2];
    (topic, body[4 + length..].to_vec(), packet(0x40, id))
}

#[tokio::test]
async fn a_mebibyte_goes_through_every_door_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::on_free_ports(["--data-dir".as_ref(), directory.path().as_os_str()]);
    let mut expected = BTreeMap::new();
    let mut new = |door: &str| {
        let payload = bytes(expected.len() as u8, MIB);
        expected.insert(format!("big/{door}"), payload.clone());
        payload
    };
    let put = server.send("PUT", "/api/v1/topics/big/http", new("http"));
    assert_eq!(put.status, 200);
    let over = server.send("PUT", "/api/v1/topics/big/more", vec![0; MIB + 1]);
    assert_eq!(over.status, 413);
    let metrics = server.get("/metrics");
    for name in ["publishes_refused_total", "publishes_too_large_total"] {
        let line = format!("latchbus_{name} 1");
        assert!(metrics.text().lines().any(|found| found == line), "{line}");
    }
    for version in [4, 5] {
        let name = format!("mqtt-{version}");
        let mut mqtt = Mqtt::connect(&server, &name, version);
        mqtt.send(&publish(&format!("big/{name}"), &new(&name), version));
        assert_eq!(mqtt.next().unwrap().0, 0x40);
    }
    let mut tunnel = web_socket(&server, "/mqtt", "mqtt").await;
    let within = publish("big/tunnel", &new("tunnel"), 4);
    for packet in [connect("tunnel", 4, 60), within] {
        tunnel.send(Message::Binary(packet.into())).await.unwrap();
        assert!(matches!(next(&mut tunnel).await, Some(Message::Binary(_))));
    }
    let mut socket = web_socket(&server, "/ws", "latchbus.v1.json").await;
    let welcome = next_json(&mut socket).await;
    assert_eq!(welcome["limits"]["payload_bytes"], MIB);
    let encoded = BASE64_STANDARD.encode(new("ws"));
    let frame =
        json!({"op": "publish", "id": 1, "topic": "big/ws", "base64": encoded, "retain": true});
    socket.send(frame.to_string().into()).await.unwrap();
    assert_eq!(next_json(&mut socket).await["op"], "ack");

    // And out again, also to one that comes when everything is there.
    for (topic, payload) in &expected {
        assert!(server.get(&format!("/api/v1/topics/{topic}")).body == *payload);
    }
    let frame = json!({"op": "subscribe", "id": 1, "filter": "big/#"});
    socket.send(frame.to_string().into()).await.unwrap();
    let mut got = BTreeMap::new();
    while got.len() < expected.len() {
        let frame = next_json(&mut socket).await;
        let payload = BASE64_STANDARD.decode(frame["base64"].as_str().unwrap());
        got.insert(
            frame["topic"].as_str().unwrap().to_owned(),
            payload.unwrap(),
        );
    }
    assert!(got == expected);
    assert_eq!(next_json(&mut socket).await["op"], "synced");
    let mut mqtt = Mqtt::connect(&server, "reader", 4);
    mqtt.send(&subscribe("big/#"));
    assert_eq!(mqtt.next().unwrap().0, 0x90);
    tunnel
        .send(Message::Binary(subscribe("big/#").into()))
        .await
        .unwrap();
    let (mut over_tcp, mut over_ws) = (BTreeMap::new(), BTreeMap::new());
    while over_tcp.len() < expected.len() {
        let (_, body) = mqtt.next().unwrap();
        let (topic, payload, ack) = message(&body);
        over_tcp.insert(topic, payload);
        mqtt.send(&ack);
    }
    assert!(over_tcp == expected);
    let mut bytes = Vec::new();
    while over_ws.len() < expected.len() {
        if let Some((kind, body, length)) = first(&bytes) {
            if kind >> 4 == 3 {
                let (topic, payload, ack) = message(body);
                over_ws.insert(topic, payload);
                tunnel.send(Message::Binary(ack.into())).await.unwrap();
            }
            bytes.drain(..length);
        } else if let Some(Message::Binary(more)) = next(&mut tunnel).await {
            bytes.extend_from_slice(&more);
        }
    }
    assert!(over_ws == expected);
}

#[tokio::test]
async fn a_mebibyte_goes_in_postcard_frames() {
    let server = Server::ephemeral();
    let mut socket = web_socket(&server, "/ws", "latchbus.v1.postcard").await;
    let payload = bytes(7, MIB);
    let frame = wire::encode_vec(&ClientFrame::Publish {
        id: Some(1),
        topic: "big/postcard",
        payload: &payload,
        retain: true,
    });
    socket
        .send(Message::Binary(frame.unwrap().into()))
        .await
        .unwrap();
    let mut came = 0;
    loop {
        let Some(Message::Binary(frame)) = next(&mut socket).await else {
            continue;
        };
        match wire::decode_server(&frame).unwrap() {
            ServerFrame::Ack { .. } => {
                let frame = wire::encode_vec(&ClientFrame::Subscribe {
                    id: 2,
                    filter: "big/#",
                    mode: Mode::Latest,
                    max_rate: None,
                    since: None,
                });
                let frame = Message::Binary(frame.unwrap().into());
                socket.send(frame).await.unwrap();
            }
            ServerFrame::Message { payload: got, .. } => {
                assert!(got == payload);
                came += 1;
            }
            ServerFrame::Synced { .. } => break,
            ServerFrame::Welcome { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(came, 1);
}

/// Large events wait for a session that is away; and whoever was slow or away while more was published than the hub
/// holds gets the newest value.
#[tokio::test]
async fn slow_readers_and_sessions_away_get_large_messages() {
    let server = Server::ephemeral();
    for (id, filter) in [("events", "event/#"), ("values", "big/#")] {
        let mut away = Mqtt::resume(&server, id);
        away.subscribe(filter);
        away.send(b"\xe0\x00");
        assert!(away.next().is_none());
    }
    let mut publisher = Mqtt::connect(&server, "publisher", 4);
    for n in 0..4 {
        let mut event = publish("event/x", &bytes(n, MIB), 4);
        // Not retained.
        event[0] = 0x32;
        publisher.send(&event);
        assert_eq!(publisher.next().unwrap().0, 0x40);
    }
    let mut back = Mqtt::resume(&server, "events");
    for n in 0..4 {
        assert!(back.take() == ("event/x".to_owned(), bytes(n, MIB)), "{n}");
    }

    let mut slow = Mqtt::connect(&server, "slow", 4);
    slow.subscribe("big/#");
    let mut socket = web_socket(&server, "/ws", "latchbus.v1.json").await;
    next_json(&mut socket).await;
    let frame = json!({"op": "subscribe", "id": 1, "filter": "big/#"});
    socket.send(frame.to_string().into()).await.unwrap();
    assert_eq!(next_json(&mut socket).await["op"], "synced");
    // More than the sockets buffer and the ring holds; none of them reads.
    const VALUES: u8 = 24;
    for n in 0..VALUES {
        let put = server.send("PUT", "/api/v1/topics/big/value", bytes(n, MIB));
        assert_eq!(put.status, 200);
    }
    let newest = bytes(VALUES - 1, MIB);
    while slow.take().1 != newest {}
    let mut back = Mqtt::resume(&server, "values");
    while back.take().1 != newest {}
    loop {
        let frame = next_json(&mut socket).await;
        let payload = BASE64_STANDARD.decode(frame["base64"].as_str().unwrap());
        if payload.unwrap() == newest {
            break;
        }
    }
}

fn with_limits(limits: &str) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("latchbus.toml");
    std::fs::write(&file, format!("[limits]\n{limits}")).unwrap();
    let mut command: Command = latchbus(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
    command.args(["--ephemeral", "--config"]).arg(&file);
    (directory, Server::start(command))
}

/// Connections that are in the middle of large messages share a budget: who would go beyond it is told and ends, over
/// each door; the others finish.
#[tokio::test]
async fn what_is_half_received_has_a_budget() {
    const PAYLOAD: usize = 256 << 10;
    let (_directory, server) = with_limits("payload_bytes = 262144\nincoming_bytes = 1048576\n");
    let held = || {
        let metrics = server.get("/metrics");
        let text = metrics.text();
        let line = text
            .lines()
            .find(|line| line.starts_with("latchbus_incoming_bytes "));
        line.unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse::<usize>()
            .unwrap()
    };
    let whole = publish("big/x", &[b'x'; PAYLOAD - 100], 5);
    let half = 250 << 10;
    // What a connection may hold besides is 16 KiB.
    let counted = half - (16 << 10);
    let mut holding: Vec<_> = (0..4)
        .map(|n| {
            let mut mqtt = Mqtt::connect(&server, &format!("holds-{n}"), 5);
            mqtt.send(&whole[..half]);
            mqtt
        })
        .collect();
    until("all is read", || held() == 4 * counted);

    let mut mqtt = Mqtt::connect(&server, "beyond", 5);
    let _cut = mqtt.stream.write_all(&whole[..half]);
    let (kind, body) = mqtt.next().unwrap();
    assert_eq!((kind, body[0]), (0xE0, 0x97));
    assert!(mqtt.next().is_none());
    let mut socket = web_socket(&server, "/ws", "latchbus.v1.json").await;
    next_json(&mut socket).await;
    let text = "x".repeat(200 << 10);
    let frame = json!({"op": "publish", "id": 1, "topic": "big/ws", "text": text});
    let _cut = socket.send(frame.to_string().into()).await;
    loop {
        if let Message::Close(frame) = next(&mut socket).await.unwrap() {
            assert_eq!(u16::from(frame.unwrap().code), 1013);
            break;
        }
    }
    let put = server.send("PUT", "/api/v1/topics/big/http", vec![b'x'; 200 << 10]);
    assert_eq!((put.status, put.code().as_str()), (503, "unavailable"));
    // A small message needs none of it.
    assert_eq!(server.send("PUT", "/api/v1/topics/small", "x").status, 200);

    for mqtt in &mut holding {
        mqtt.send(&whole[half..]);
        assert_eq!(mqtt.next().unwrap().0, 0x40);
    }
    until("all is free", || held() == 0);
    let put = server.send("PUT", "/api/v1/topics/big/http", vec![b'x'; 200 << 10]);
    assert_eq!(put.status, 200);
    server.signal(rustix::process::Signal::TERM);
    let log = server.wait().2;
    let lines = log
        .lines()
        .filter(|line| line.contains("limits.incoming_bytes"));
    let lines: Vec<_> = lines.collect();
    for target in ["WARN mqtt:", "WARN websocket:", "WARN http:"] {
        assert!(
            lines.iter().any(|line| line.contains(target)),
            "{target} in {log}"
        );
    }
}

/// The packet limit is announced, and a setting; a subscriber that has many large messages to get takes little memory.
#[test]
fn the_largest_packet_is_announced() {
    let (_directory, server) = with_limits("packet_bytes = 5000\n");
    for (server, limit) in [
        (&server, 5_000),
        (&Server::ephemeral(), MIB + 1_024 + (16 << 10)),
    ] {
        let mut stream = TcpStream::connect(server.mqtt()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&connect("five", 5, 60)).unwrap();
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).unwrap();
        let property = [&[0x27][..], &(limit as u32).to_be_bytes()].concat();
        let answer = &answer[..length];
        assert!(
            answer.windows(5).any(|five| five == property),
            "{answer:x?}"
        );
    }
}

/// Many large values for many subscribers are sent a few at a time.
#[cfg(target_os = "linux")]
#[test]
fn large_values_are_not_buffered_for_each_subscriber() {
    let server = Server::ephemeral();
    for n in 0..32 {
        let put = server.send("PUT", &format!("/api/v1/topics/big/{n}"), vec![b'x'; MIB]);
        assert_eq!(put.status, 200);
    }
    let before = server.peak_kib();
    // None of them reads.
    let readers: Vec<_> = (0..16)
        .map(|n| {
            let mut mqtt = Mqtt::connect(&server, &format!("reader-{n}"), 4);
            mqtt.send(&subscribe("big/#"));
            assert_eq!(mqtt.next().unwrap().0, 0x90);
            mqtt.next().unwrap();
            mqtt
        })
        .collect();
    let after = server.peak_kib();
    drop(readers);
    assert!(
        after - before < 16 * 8 * 1_024,
        "{before} KiB, then {after} KiB"
    );
}
