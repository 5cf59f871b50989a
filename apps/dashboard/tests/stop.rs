//! How the program ends, and what is there when it starts again.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare tests, and this is a part of them"
)]

mod support;

use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;
use support::web_socket::{close_code, next, next_json, web_socket};
use support::{Server, until};
use tempfile::tempdir;
use tokio::net::TcpStream;

/// Users are promised that it ends within 5 s. A busy machine may be ten times as slow; what hangs takes longer.
const STOP_DEADLINE: Duration = Duration::from_secs(50);

#[tokio::test]
async fn signals_end_it_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::ephemeral();
        let mut socket = web_socket(&server, "/ws", "latchbus.v1.json").await;
        assert_eq!(next_json(&mut socket).await["op"], "welcome");
        let began = Instant::now();
        assert_eq!(close_code(&server, &mut socket, signal).await, 1001);
        while next(&mut socket).await.is_some() {}
        let address = server.http();
        let (status, _, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(began.elapsed() < STOP_DEADLINE, "{log}");
        assert!(TcpStream::connect(address).await.is_err());
    }
}

/// Connections that say nothing and never will, in every state, hold nothing up.
#[tokio::test]
async fn silent_peers_do_not_hold_it_up() {
    use tokio::io::AsyncWriteExt as _;

    let server = Server::ephemeral();
    let _deaf = web_socket(&server, "/ws", "latchbus.v1.json").await;
    let _tunnel = web_socket(&server, "/mqtt", "mqtt").await;
    let _nothing_said = TcpStream::connect(server.http()).await.unwrap();
    let _nothing_said_either = TcpStream::connect(server.mqtt()).await.unwrap();
    let mut half_said = TcpStream::connect(server.http()).await.unwrap();
    half_said
        .write_all(
            b"PUT /api/v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n12",
        )
        .await
        .unwrap();
    let began = Instant::now();
    server.signal(Signal::TERM);
    let (status, _, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(began.elapsed() < STOP_DEADLINE, "{log}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let server = Server::ephemeral();
    // It gets its time to say goodbye, and takes it.
    let _deaf = web_socket(&server, "/ws", "latchbus.v1.json").await;
    server.signal(Signal::TERM);
    while TcpStream::connect(server.http()).await.is_ok() {}
    server.signal(Signal::TERM);
    let (status, _, log) = server.wait();
    assert_eq!(status.code(), Some(128 + 15), "{log}");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = tempdir().unwrap();
    let start = || Server::on_free_ports([Path::new("--data-dir"), directory.path()]);
    let mut tags = Vec::new();
    for round in 1..=3_u64 {
        let mut server = start();
        if round > 1 {
            assert_eq!(
                server.get("/api/v1/topics/lab/temp").text(),
                (round - 1).to_string()
            );
            assert_eq!(server.get("/api/v1/topics/lab/gone").status, 404);
        }
        assert_eq!(
            server
                .send("PUT", "/api/v1/topics/lab/temp", round.to_string())
                .status,
            200
        );
        assert_eq!(
            server.send("PUT", "/api/v1/topics/lab/gone", "1").status,
            200
        );
        assert_eq!(
            server.send("PUT", "/api/v1/topics/lab/gone", "").status,
            200
        );
        for _ in 0..5 {
            assert_eq!(
                server
                    .send("POST", "/api/v1/topics/clicks/main/kiosk-1/press", "red 2")
                    .status,
                200
            );
        }
        let count = "/api/v1/topics/clicks/main/k-2/count/1-0000abcd";
        let counted = format!("{{\"red\":0,\"blue\":{round}}}");
        assert_eq!(server.send("PUT", count, counted).status, 200);
        let etag = server
            .get("/api/v1/topics/lab/temp")
            .header("etag")
            .unwrap()
            .to_owned();
        let (epoch, rev) = etag.trim_matches('"').split_once(':').unwrap();
        tags.push((epoch.to_owned(), rev.parse::<u64>().unwrap()));
        server.kill();
    }
    assert!(tags.iter().all(|(epoch, _)| *epoch == tags[0].0));
    assert!(
        tags.is_sorted_by(|a, b| a.1 < b.1),
        "one order over all lives: {tags:?}"
    );
    let server = start();
    until("the sum is shown", || {
        server.get("/api/v1/topics/clicks/main/values").status == 200
    });
    let values = server.get("/api/v1/topics/clicks/main/values").json();
    assert_eq!(values, json!({"red": 30, "blue": 3}));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0.code(), Some(0));
    let values = start().get("/api/v1/topics/clicks/main/values").json();
    assert_eq!(values, json!({"red": 30, "blue": 3}));
}
