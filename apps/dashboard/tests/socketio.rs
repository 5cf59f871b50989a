//! Socket.IO in the program: where it is, its settings, who may use it, and what is counted of it.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and their helpers are a part of them"
)]

mod support;

use std::fs;

use support::{Answer, Request, Server};

const POLLING: &str = "EIO=4&transport=polling";

fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = Request::new("GET", path);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(name, value)
    });
    request.send(server.http())
}

fn text(answer: &Answer) -> &str {
    core::str::from_utf8(&answer.body).unwrap()
}

/// Opens a session of polls and joins `/`: the path of its requests.
fn joined(server: &Server, base: &str) -> String {
    let open = get(server, &format!("{base}/socket.io/?{POLLING}"), &[]);
    assert_eq!(open.status, 200);
    let open: serde_json::Value = serde_json::from_str(&text(&open)[1..]).unwrap();
    let sid = open["sid"].as_str().unwrap();
    let path = format!("{base}/socket.io/?{POLLING}&sid={sid}");
    let posted = Request::new("POST", &path).body("40").send(server.http());
    assert_eq!(text(&posted), "ok");
    path
}

#[test]
fn the_tutorial_below_a_base_path_and_without_a_slash() {
    let server = Server::on_free_ports(["--ephemeral", "--base-path", "/lb"]);
    for base in ["", "/lb"] {
        let path = joined(&server, base);
        let mut packets = String::new();
        while !packets.contains("[\"clickValues\",{\"red\":") {
            packets += text(&get(&server, &path, &[]));
        }
        assert_eq!(
            get(&server, &format!("{base}/socket.io?{POLLING}"), &[]).status,
            200
        );
    }
    let metrics = get(&server, "/metrics", &[]);
    assert!(
        text(&metrics).contains("\nlatchbus_socketio_sessions 4\n"),
        "{}",
        text(&metrics)
    );
    assert!(text(&metrics).contains("\nlatchbus_socketio_upgrades_total 0\n"));
}

#[test]
fn pages_of_other_origins_need_a_setting() {
    let path = format!("/socket.io/?{POLLING}");
    let page = ("Origin", "http://localhost:4200");
    let server = Server::ephemeral();
    let refused = get(&server, &path, &[page]);
    assert_eq!(refused.status, 403);
    // The page may read why, so that its console says it.
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("http://localhost:4200")
    );
    assert_eq!(refused.header("access-control-allow-credentials"), None);
    assert!(text(&refused).contains("\"code\":4"));
    let server = Server::on_free_ports(["--ephemeral", "--allow-origins", "http://localhost:4200"]);
    let allowed = get(&server, &path, &[page]);
    assert_eq!(allowed.status, 200);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        Some("http://localhost:4200")
    );
    assert_eq!(
        allowed.header("access-control-allow-credentials"),
        Some("true")
    );
}

#[test]
fn settings_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latchbus.toml");
    let start = |text: &str| {
        fs::write(&file, text).unwrap();
        Server::on_free_ports(["--ephemeral", "--config", file.to_str().unwrap()])
    };
    let server = start(
        "[socketio]\nping_interval_ms = 300\nping_timeout_ms = 60000\nmax_payload = 5000\nnode = \"n7\"\n\
         [socketio.namespaces.\"/\"]\nrecovery = false\nauth_event = \"auth\"\n\
         in = { message = { echo = \"message-back\" } }\n",
    );
    let open = get(&server, &format!("/socket.io/?{POLLING}"), &[]);
    let open: serde_json::Value = serde_json::from_str(&text(&open)[1..]).unwrap();
    assert_eq!(
        (open["pingInterval"].as_u64(), open["pingTimeout"].as_u64()),
        (Some(300), Some(60_000))
    );
    assert_eq!(open["maxPayload"], 5000);
    assert!(open["sid"].as_str().unwrap().starts_with("n7."));
    let path = joined(&server, "");
    let sent = Request::new("POST", &path).body("42[\"message\",{\"a\":[1]}]");
    assert_eq!(sent.send(server.http()).status, 200);
    let mut packets = String::new();
    while !packets.contains("42[\"message-back\",{\"a\":[1]}]") {
        packets += text(&get(&server, &path, &[]));
    }
    assert!(
        packets.contains("42[\"auth\",{}]") && !packets.contains("\"pid\""),
        "{packets}"
    );

    let server = start("[socketio]\nenabled = false\n");
    assert_eq!(
        get(&server, &format!("/socket.io/?{POLLING}"), &[]).status,
        404
    );
    assert!(!text(&get(&server, "/metrics", &[])).contains("latchbus_socketio"));
}
