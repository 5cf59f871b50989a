//! How connections begin and end: the handshake, its refusals, close codes, pings, silence, slow readers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test that panics has failed

mod common;

use core::time::Duration;
use std::io;

use common::{DEADLINE, Peer, TestServer, within};
use futures_util::{SinkExt, StreamExt};
use latchbus_bus::{Bus, Options, Principal, Publish};
use latchbus_core::topic::TopicName;
use latchbus_ws::server::{Config, Server};
use latchbus_ws::{OriginPolicy, Protocol};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Sends a request by hand and gives the connection, the status and the header block.
async fn request(server: &TestServer, headers: &[&str]) -> (TcpStream, u16, String) {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let headers = headers.join("\r\n");
    let request = format!("GET /ws HTTP/1.1\r\n{headers}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(socket.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (socket, status, head.to_ascii_lowercase())
}

const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const HOST: &str = "Host: 127.0.0.1:3000";

#[tokio::test]
async fn the_handshake() {
    let config = Config {
        origin: OriginPolicy {
            allow_origins: vec!["https://dash.example.com".to_owned()],
            allow_hosts: vec!["bus.example.com".to_owned()],
            ..OriginPolicy::default()
        },
        ..Config::default()
    };
    let server = TestServer::start(Options::default(), config).await;
    let status = async |headers: &[&str]| request(&server, headers).await.1;

    // RFC 6455 §1.3. No subprotocol offered: JSON, and none named.
    let (mut socket, ok, head) = request(&server, &[HOST, UPGRADE]).await;
    assert_eq!(ok, 101);
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="));
    assert!(!head.contains("sec-websocket-protocol"));
    let mut start = [0; 2];
    within(socket.read_exact(&mut start)).await.unwrap();
    assert_eq!(start[0], 0x81, "a text frame");

    let protocol = |names: &str| format!("Sec-WebSocket-Protocol: {names}");
    let (_, ok, head) = request(
        &server,
        &[
            HOST,
            UPGRADE,
            &protocol("mqtt, latchbus.v1.postcard,latchbus.v1.json"),
        ],
    )
    .await;
    assert_eq!(ok, 101);
    assert!(head.contains("sec-websocket-protocol: latchbus.v1.postcard\r\n"));
    assert_eq!(
        status(&[HOST, UPGRADE, &protocol("mqtt, latchbus.v2.json")]).await,
        400
    );

    for (origin, expected) in [
        ("http://127.0.0.1:3000", 101),
        ("https://dash.example.com", 101),
        ("http://127.0.0.1:3001", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let origin = format!("Origin: {origin}");
        assert_eq!(
            status(&[HOST, UPGRADE, &origin]).await,
            expected,
            "{origin}"
        );
    }
    for (host, expected) in [
        ("Host: localhost:3000", 101),
        ("Host: [::1]:3000", 101),
        ("Host: bus.example.com", 101),
        ("Host: evil.example:3000", 403),
    ] {
        assert_eq!(status(&[host, UPGRADE]).await, expected, "{host}");
    }
    assert_eq!(status(&[HOST]).await, 426);
    assert_eq!(status(&[HOST, &UPGRADE.replace("13", "8")]).await, 426);
    assert_eq!(status(&[HOST, &UPGRADE.replace("-Key", "-Kex")]).await, 400);
    server.stop().await;
}

#[tokio::test]
async fn connections_are_bounded_and_counted() {
    let config = Config {
        max_connections: 2,
        ..Config::default()
    };
    let server = TestServer::start(Options::default(), config).await;
    let (first, _) = Peer::connect(&server, Protocol::Json).await;
    let (_second, _) = Peer::connect(&server, Protocol::Json).await;
    assert_eq!(server.bus.metrics().connections.get(), 2);
    assert_eq!(request(&server, &[HOST, UPGRADE]).await.1, 503);
    assert_eq!(server.bus.metrics().connections_refused.get(), 1);

    // A place is free again when its connection has ended.
    drop(first);
    let deadline = Instant::now() + DEADLINE;
    while request(&server, &[HOST, UPGRADE]).await.1 != 101 {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_says_1001() {
    let server = TestServer::default().await;
    let mut peers = vec![];
    for protocol in Protocol::ALL {
        peers.push(Peer::connect(&server, protocol).await.0);
    }
    let closing = peers.into_iter().map(|peer| tokio::spawn(peer.closed()));
    let closing: Vec<_> = closing.collect();
    let bus = server.bus.clone();
    server.stop().await;
    for closed in closing {
        assert_eq!(closed.await.unwrap(), 1001);
    }
    assert_eq!(bus.metrics().connections.get(), 0);
}

#[tokio::test]
async fn a_goodbye_is_returned() {
    let server = TestServer::default().await;
    let (mut peer, _) = Peer::connect(&server, Protocol::Json).await;
    // What was asked before is still answered.
    peer.send(json!({"op": "ping", "id": 4})).await;
    peer.send_raw(Message::Close(None)).await;
    assert_eq!(peer.recv().await["id"], 4);
    assert_eq!(peer.closed().await, 1000);
    server.stop().await;
}

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length => {
            out.push(0xff);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(payload);
    out
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_connection() {
    let config = Config {
        max_message_bytes: Some(1000),
        ..Config::default()
    };
    let server = TestServer::start(Options::default(), config).await;
    let subprotocol = "Sec-WebSocket-Protocol: latchbus.v1.json";
    for (bytes, code) in [
        (b"\x81\x02hi".to_vec(), 1002),
        (frame(0xc1, b"{}"), 1002),
        (frame(0x83, b""), 1002),
        (frame(0x80, b""), 1002),
        (frame(0x81, b"\"\xff\""), 1007),
        (frame(0x88, b"\x03\xe8\xff"), 1007),
        (frame(0x82, &[0; 1001]), 1009),
        (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(), 1009),
        (
            [frame(0x01, &[b' '; 900]), frame(0x80, &[b' '; 900])].concat(),
            1009,
        ),
        // Far more than is read of it: the close frame arrives all the same.
        (frame(0x82, &vec![0; 1 << 20]), 1009),
    ] {
        let (mut socket, status, _) = request(&server, &[HOST, UPGRADE, subprotocol]).await;
        assert_eq!(status, 101);
        let (mut read, mut write) = socket.split();
        let writing = async {
            // The server may hang up before it has taken all.
            let _: io::Result<()> = write.write_all(&bytes).await;
        };
        let mut answer = Vec::new();
        let reading = read.read_to_end(&mut answer);
        let (_, read) = within(async { tokio::join!(writing, reading) }).await;
        read.unwrap();
        let close = [0x88, 2, (code >> 8) as u8, code as u8];
        assert!(answer.ends_with(&close), "{code}: {answer:?}");
    }
    // The largest message that is allowed.
    let (mut peer, _) = Peer::connect(&server, Protocol::Json).await;
    peer.send_raw(Message::text(" ".repeat(980) + r#"{"op":"ping","id":1}"#))
        .await;
    assert_eq!(peer.recv().await["op"], "pong");
    server.stop().await;
}

/// A server behind a pipe of so many bytes in each direction.
fn pipe(protocol: Protocol, bytes: usize) -> (Bus, DuplexStream, JoinHandle<()>) {
    let bus = Bus::open(Options::default()).unwrap();
    let server = Server::new(bus.clone(), Config::default());
    let (near, far) = duplex(bytes);
    let client = bus.client(Principal::process()).unwrap();
    let serving = tokio::spawn(async move { server.serve(far, protocol, client).await });
    (bus, near, serving)
}

/// A peer at the near end.
async fn piped(protocol: Protocol, bytes: usize) -> (Bus, Peer<DuplexStream>, JoinHandle<()>) {
    let (bus, near, serving) = pipe(protocol, bytes);
    let socket = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    let mut peer = Peer { socket, protocol };
    assert_eq!(peer.recv().await["op"], "welcome");
    (bus, peer, serving)
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_is_pinged() {
    let (_bus, mut peer, _serving) = piped(Protocol::Json, 4096).await;
    let begin = Instant::now();
    // The first asks whether the peer answers at all.
    let first = peer.socket.next().await.unwrap().unwrap();
    assert!(matches!(first, Message::Ping(probe) if probe.len() == 4));
    for n in 1..=10 {
        // Reading answers the ping, which keeps the connection.
        let message = peer.socket.next().await.unwrap().unwrap();
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
        let quiet = begin.elapsed().as_secs();
        assert!((20 * n..22 * n).contains(&quiet), "{quiet}");
    }
    peer.socket.send(Message::Ping("x".into())).await.unwrap();
    let pong = peer.socket.next().await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("x".into()));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed() {
    let begin = Instant::now();
    let (bus, mut near, serving) = pipe(Protocol::Json, 4096);
    serving.await.unwrap();
    assert_eq!(bus.metrics().connections.get(), 0);
    let silent = begin.elapsed();
    assert!(silent >= Duration::from_secs(60) && silent < Duration::from_secs(65));
    let mut sent = Vec::new();
    near.read_to_end(&mut sent).await.unwrap();
    // Its last pings, and a close frame of 1008.
    assert!(
        sent.ends_with(b"\x89\x00\x89\x00\x88\x02\x03\xf0"),
        "{sent:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut() {
    let (bus, peer, serving) = piped(Protocol::Json, 256).await;
    let (mut sink, _unread) = peer.socket.split();
    // It is not silent: it asks and asks, and never reads.
    let asking = tokio::spawn(async move {
        let ask = json!({"op": "ping", "id": 1}).to_string();
        while sink.send(Message::text(ask.clone())).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    tokio::time::timeout(Duration::from_secs(200), serving)
        .await
        .expect("it is still served")
        .unwrap();
    assert_eq!(bus.metrics().connections.get(), 0);
    asking.abort();
}

#[tokio::test]
async fn a_slow_reader_costs_one_batch_and_then_gets_the_newest() {
    for protocol in Protocol::ALL {
        let (bus, mut peer, _serving) = piped(protocol, 4096).await;
        peer.subscribe(json!({"op": "subscribe", "id": 1, "filter": "lab/#"}))
            .await;
        let topic = TopicName::parse("lab/temp".to_owned()).unwrap();
        let last = 10_000;
        for n in 1..=last {
            let publish = Publish::state(topic.clone(), n.to_string());
            bus.publish(publish).await.unwrap();
            if n % 100 == 0 {
                // Whoever could send more does so now.
                tokio::task::yield_now().await;
            }
        }
        let mut taken = 0;
        loop {
            let message = peer.recv().await;
            taken += 1;
            if message["payload"] == last {
                break;
            }
        }
        // The pipe, the batch that was on its way, and the newest.
        let shortest_frame = 25;
        assert!(taken <= 4096 / shortest_frame + 64 + 1, "{taken}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_has_stopped_finds_the_newest_close_behind() {
    let server = TestServer::default().await;
    for protocol in Protocol::ALL {
        let (mut peer, _) = Peer::connect(&server, protocol).await;
        peer.subscribe(json!({"op": "subscribe", "id": 1, "filter": "lab/#"}))
            .await;
        let topic = TopicName::parse("lab/temp".to_owned()).unwrap();
        let last = 100_000;
        for n in 0..=last {
            let publish = Publish::state(topic.clone(), n.to_string());
            server.bus.publish(publish).await.unwrap();
            if n % 10 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut taken = 0;
        while peer.recv().await["payload"] != last {
            taken += 1;
        }
        // The window and the batch that was begun, though the sockets would hold megabytes.
        let shortest_frame = 25;
        assert!(taken <= (20 << 10) / shortest_frame, "{taken}");
    }
    server.stop().await;
}
