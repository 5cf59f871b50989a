//! What one user may hold of what is retained, at the program's doors and over its restart.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and their helpers are a part of them"
)]

mod support;

use std::fs;
use std::path::Path;

use futures_util::SinkExt as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::web_socket::{next_json, web_socket};
use support::{Answer, Request, Server, latchbus, run};
use tokio_tungstenite::tungstenite::Message;

fn put(server: &Server, topic: &str) -> Answer {
    server.send("PUT", &format!("/api/v1/topics/{topic}"), "x")
}

/// It is refused, and told by which setting.
fn is_full(answer: &Answer) {
    assert_eq!(answer.status, 507);
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "full");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("limits.user_retained_topics"), "{message}");
}

/// Ends it, and gives its log.
fn stop(server: Server) -> String {
    server.signal(Signal::TERM);
    let (status, _, log) = server.wait();
    assert!(status.success());
    log
}

fn start(config: &Path, directory: &Path) -> Server {
    let config = ["--config".as_ref(), config.as_os_str()];
    let data = ["--data-dir".as_ref(), directory.as_os_str()];
    Server::on_free_ports([config, data].concat())
}

/// Tries to retain another topic over WebSocket and Socket.IO.
async fn try_others(server: &Server) {
    let mut ws = web_socket(server, "/ws", "latchbus.v1.json").await;
    let publish = json!({"op":"publish","id":1,"topic":"c","payload":1,"retain":true});
    ws.send(Message::text(publish.to_string())).await.unwrap();
    let error = loop {
        let frame = next_json(&mut ws).await;
        if frame["id"] == 1 {
            break frame;
        }
    };
    assert_eq!(
        (&error["op"], &error["code"]),
        (&json!("error"), &json!("full"))
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("limits.user_retained_topics"), "{message}");
}

#[tokio::test]
async fn a_user_that_holds_all_it_may_is_told_so_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (config, data) = (
        directory.path().join("latchbus.toml"),
        directory.path().join("data"),
    );
    fs::write(&config, "[limits]\nuser_retained_topics = 2\n").unwrap();
    let server = start(&config, &data);
    for topic in ["a", "b", "a"] {
        assert_eq!(put(&server, topic).status, 200);
    }
    is_full(&put(&server, "c"));
    try_others(&server).await;
    assert_eq!(server.send("POST", "/api/v1/topics/c", "x").status, 200);
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    assert!(
        metrics.contains("\nlatchbus_publishes_over_quota_total 2\n"),
        "{metrics}"
    );
    let log = stop(server);
    let warns = log.lines().filter(|line| {
        line.contains("WARN") && line.contains("setting=\"limits.user_retained_topics\"")
    });
    assert_eq!(warns.count(), 2, "{log}");

    // An export says whose they are; another server takes it from an administrator, and counts on.
    let file = directory.path().join("backup.jsonl");
    let mut export = latchbus(["export", "--data-dir"]);
    export.arg(&data).arg(&file);
    let (status, _, err) = run(export);
    assert_eq!(status, Some(0), "{err}");
    let exported = fs::read_to_string(&file).unwrap();
    let holders = exported.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line.get("holder").cloned()
    });
    let address = json!({"address":"127.0.0.1"});
    assert_eq!(holders.collect::<Vec<_>>(), [address.clone(), address]);

    let server = start(&config, &data);
    is_full(&put(&server, "c"));
    assert_eq!(server.send("PUT", "/api/v1/topics/a", "").status, 200);
    assert_eq!(put(&server, "c").status, 200);
    is_full(&put(&server, "a"));
    stop(server);

    let other = directory.path().join("other");
    let server = start(&config, &other);
    let import = Request::new("POST", "/api/v1/import").body(exported);
    assert_eq!(import.send(server.http()).status, 200);
    is_full(&put(&server, "c"));
    assert_eq!(put(&server, "a").status, 200);
}
