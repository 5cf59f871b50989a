//! What connected observers see of an orderly stop, and signals that do not stop it.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and this is a part of them"
)]

mod support;

use core::net::SocketAddr;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use futures_util::SinkExt as _;
use rustix::process::Signal;
use support::web_socket::{next, next_json, web_socket};
use support::{DEADLINE, Server, latchbus, until};
use tempfile::tempdir;
use tokio_tungstenite::tungstenite::Message;

/// A packet of MQTT whose content is short.
fn packet(first: u8, content: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = content.len();
    loop {
        let more = if left > 127 { 128 } else { 0 };
        packet.push((left % 128) as u8 | more);
        left /= 128;
        if left == 0 {
            break;
        }
    }
    packet.extend(content);
    packet
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn connect(address: SocketAddr, level: u8, id: &str, will: Option<&str>, clean: bool) -> TcpStream {
    let mut content = Vec::new();
    text(&mut content, "MQTT");
    let flags = u8::from(clean) << 1 | if will.is_some() { 0x2C } else { 0 };
    content.extend([level, flags, 0, 0]);
    if level == 5 {
        content.push(0);
    }
    text(&mut content, id);
    if let Some(topic) = will {
        if level == 5 {
            content.push(0);
        }
        text(&mut content, topic);
        text(&mut content, "offline");
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&packet(0x10, &content)).unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x20);
    let mut rest = vec![0; head[1].into()];
    stream.read_exact(&mut rest).unwrap();
    assert_eq!(rest[1], 0, "accepted");
    stream
}

fn read_packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut first = [0; 1];
    stream.read_exact(&mut first).ok()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).ok()?;
        length |= usize::from(byte[0] & 127) << shift;
        shift += 7;
        if byte[0] < 128 {
            break;
        }
    }
    let mut content = vec![0; length];
    stream.read_exact(&mut content).ok()?;
    Some((first[0], content))
}

/// An observer over MQTT 5: who is said to be offline up to its DISCONNECT with 0x8B.
fn observe(mut stream: TcpStream) -> BTreeSet<String> {
    let mut offline = BTreeSet::new();
    loop {
        let (first, content) = read_packet(&mut stream).expect("goodbye comes before the end");
        match first >> 4 {
            3 => {
                let length = usize::from(content[0]) << 8 | usize::from(content[1]);
                let topic = String::from_utf8(content[2..2 + length].to_vec()).unwrap();
                if first & 6 != 0 {
                    let id = &content[2 + length..4 + length];
                    stream.write_all(&packet(0x40, id)).unwrap();
                }
                if content.ends_with(b"offline") {
                    offline.insert(topic);
                }
            }
            14 => {
                assert_eq!(content[0], 0x8B);
                return offline;
            }
            _ => {}
        }
    }
}

/// The wills of all who are connected reach all who are connected, and then these get their goodbye.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wills_reach_everybody_before_the_goodbye() {
    for (devices, stored) in [(1, false), (1, true), (300, false), (300, true)] {
        let directory = tempdir().unwrap();
        let server = match stored {
            true => Server::on_free_ports(["--data-dir".into(), PathBuf::from(directory.path())]),
            false => Server::ephemeral(),
        };
        let mut socket = web_socket(&server, "/ws", "latchbus.v1.json").await;
        let subscribe = r#"{"op":"subscribe","id":1,"filter":"will/#"}"#;
        socket.send(Message::text(subscribe)).await.unwrap();
        while next_json(&mut socket).await["op"] != "synced" {}
        let mut observer = connect(server.mqtt(), 5, "observer", Some("will/observer"), true);
        let mut content = vec![0, 7, 0];
        text(&mut content, "will/#");
        content.push(1);
        observer.write_all(&packet(0x82, &content)).unwrap();
        while read_packet(&mut observer).unwrap().0 >> 4 != 9 {}
        let mut expected = BTreeSet::from(["will/observer".to_owned()]);
        let clients: Vec<_> = (0..devices)
            .map(|n| {
                let topic = format!("will/{n}");
                let level = if n % 2 == 0 { 4 } else { 5 };
                let client = connect(
                    server.mqtt(),
                    level,
                    &format!("device {n}"),
                    Some(&topic),
                    n % 3 != 0,
                );
                expected.insert(topic);
                client
            })
            .collect();
        let observed = tokio::task::spawn_blocking(move || observe(observer));
        server.signal(Signal::TERM);
        let (mut offline, mut code) = (BTreeSet::new(), None);
        while let Some(message) = next(&mut socket).await {
            match message {
                Message::Text(frame) => {
                    let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
                    if frame["text"] == "offline" {
                        offline.insert(frame["topic"].as_str().unwrap().to_owned());
                    }
                }
                Message::Close(frame) => code = frame.map(|frame| u16::from(frame.code)),
                _ => {}
            }
        }
        assert_eq!(code, Some(1001));
        assert_eq!(offline.len(), expected.len(), "WebSocket, stored: {stored}");
        assert_eq!(
            observed.await.unwrap().len(),
            expected.len(),
            "MQTT, stored: {stored}"
        );
        drop(clients);
        let (status, _, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

/// SIGHUP takes over the log filter of the settings file, a file that cannot be read changes nothing, and SIGUSR1 and
/// SIGUSR2 are ignored: the server goes on, with its connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_signals_end_nothing() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("latchbus.toml");
    std::fs::write(&file, "log = \"warn\"\n").unwrap();
    let mut command = latchbus([
        "--http",
        "127.0.0.1:0",
        "--mqtt",
        "127.0.0.1:0",
        "--ephemeral",
    ]);
    command.arg("--config").arg(&file);
    let server = Server::start(command);
    let mut socket = web_socket(&server, "/ws", "latchbus.v1.json").await;
    assert_eq!(next_json(&mut socket).await["op"], "welcome");
    for (content, signal) in [
        ("log = \"info\"\n", Signal::HUP),
        ("log = \"loud\"\n", Signal::HUP),
        ("log = \"info\"\n", Signal::USR1),
        ("log = \"info\"\n", Signal::USR2),
    ] {
        std::fs::write(&file, content).unwrap();
        server.signal(signal);
        // It is dealt with before this is answered twice, at the latest.
        until("the server lives", || server.get("/healthz").status == 200);
        until("the server lives", || server.get("/healthz").status == 200);
    }
    socket
        .send(Message::text(r#"{"op":"ping","id":1}"#))
        .await
        .unwrap();
    assert_eq!(next_json(&mut socket).await["op"], "pong");
    server.signal(Signal::TERM);
    while next(&mut socket).await.is_some() {}
    let (status, _, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    for line in [
        "server: SIGHUP: the log filter is reloaded",
        "server: SIGHUP: the settings cannot be read; nothing is changed",
        "server: SIGUSR1: ignored",
        "server: SIGUSR2: ignored",
        "stopping: SIGTERM",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}
