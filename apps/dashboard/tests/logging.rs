//! What the log says of connections.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and this is a part of them"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;
use support::web_socket::{next_json, web_socket};
use support::{DEADLINE, Server, until};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Sends a CONNECT and gives the code of its CONNACK; none when the connection was closed.
fn connect(server: &Server, packet: &[u8]) -> (TcpStream, Option<u8>) {
    let mut stream = TcpStream::connect(server.mqtt()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(packet).unwrap();
    let mut answer = [0; 4];
    let answered = stream.read_exact(&mut answer);
    (stream, answered.ok().map(|()| answer[3]))
}

fn client(id: &str) -> Vec<u8> {
    let length = 12 + id.len() as u8;
    let head = [
        0x10,
        length,
        0,
        4,
        b'M',
        b'Q',
        b'T',
        b'T',
        4,
        2,
        0,
        60,
        0,
        id.len() as u8,
    ];
    [&head[..], id.as_bytes()].concat()
}

fn connections(server: &Server) -> String {
    let metrics = server.get("/metrics");
    let mut lines = metrics.text().lines();
    lines
        .find(|line| line.starts_with("latchbus_connections "))
        .unwrap()
        .to_owned()
}

fn has(log: &str, words: &[&str]) {
    let found = log
        .lines()
        .any(|line| words.iter().all(|word| line.contains(word)));
    assert!(found, "{words:?} in\n{log}");
}

#[tokio::test]
async fn the_log_says_who_comes_and_goes_and_who_is_refused() {
    let server = Server::ephemeral();
    // Leaves with a DISCONNECT.
    let (mut polite, code) = connect(&server, &client("polite"));
    assert_eq!(code, Some(0));
    polite.write_all(b"\xe0\x00").unwrap();
    assert_eq!(polite.read(&mut [0]).unwrap(), 0);
    // The same in MQTT 5, with code 0x04 and a Reason String.
    let (mut weak, _) = connect(
        &server,
        b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04weak",
    );
    weak.write_all(b"\xe0\x0e\x04\x0c\x1f\x00\x09battery\x1b!")
        .unwrap();
    weak.read_to_end(&mut Vec::new()).unwrap();
    // Goes without one; breaks the protocol.
    drop(connect(&server, &client("cut")));
    let (mut broken, _) = connect(&server, &client("broken"));
    broken.write_all(b"\x00\x00").unwrap();
    assert_eq!(broken.read(&mut [0]).unwrap(), 0);
    // Two clients with one name.
    let (mut first, _) = connect(&server, &client("twin"));
    let (_second, code) = connect(&server, &client("twin"));
    assert_eq!(code, Some(0));
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    // An old protocol, and none.
    let (_old, code) = connect(&server, b"\x10\x0f\x00\x04MQTT\x03\x02\x00\x3c\x00\x03old");
    assert_eq!(code, Some(1));
    let (_http, code) = connect(&server, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(code, None);
    let mut socket = web_socket(&server, "/ws", "latchbus.v1.json").await;
    next_json(&mut socket).await;
    socket.close(None::<CloseFrame>).await.unwrap();
    // The twin that stays.
    until("all have left", || connections(&server).ends_with(" 1"));
    server.signal(Signal::TERM);
    let log = server.wait().2;
    for (id, why) in [
        ("polite", "DISCONNECT"),
        ("cut", "without DISCONNECT"),
        ("broken", "malformed"),
        ("twin", "the server stops"),
    ] {
        let name = format!("client=\"{id}\"");
        let connected = [
            " INFO mqtt:",
            "client connected",
            &name,
            "address=127.0.0.1:",
        ];
        has(&log, &connected);
        has(
            &log,
            &[
                "client connected",
                &name,
                "MQTT 3.1.1",
                "keep_alive=60",
                "clean=true",
            ],
        );
        has(&log, &[" INFO mqtt:", "client disconnected", &name, why]);
    }
    let goodbye = [
        "client disconnected: DISCONNECT client=\"weak\"",
        r#"code="0x04" reason="battery\u{1b}!""#,
    ];
    has(&log, &goodbye);
    has(
        &log,
        &[
            " WARN mqtt:",
            "client=\"twin\"",
            "has taken over",
            "by=127.0.0.1:",
        ],
    );
    has(&log, &[" WARN mqtt:", "CONNECT refused", "version"]);
    has(
        &log,
        &[" WARN mqtt:", "not a CONNECT", "address=127.0.0.1:"],
    );
    has(
        &log,
        &[" INFO websocket:", "client connected", "latchbus.v1.json"],
    );
    has(
        &log,
        &[
            " INFO websocket:",
            "client disconnected",
            "closed by the client",
        ],
    );
    has(&log, &[" INFO server:", "stopped"]);
    // Module paths are no names that a user knows.
    assert!(
        !log.contains("latchbus_") && !log.contains("latchbus::"),
        "{log}"
    );
}

#[tokio::test]
async fn a_full_connection_table_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("latchbus.toml");
    std::fs::write(&file, "[limits]\nconnections = 1\n").unwrap();
    let server = Server::on_free_ports(["--ephemeral", "--config", file.to_str().unwrap()]);
    let (_first, code) = connect(&server, &client("first"));
    assert_eq!(code, Some(0));
    let (_second, code) = connect(&server, &client("second"));
    assert_eq!(code, Some(3));
    let http = TcpStream::connect(server.http()).unwrap();
    let mut second = TcpStream::connect(server.http()).unwrap();
    second.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(matches!(second.read(&mut [0]), Ok(0) | Err(_)));
    drop((http, second));
    // The table of HTTP has room again when the first connection has become a WebSocket.
    let mut first = Vec::new();
    until("a WebSocket", || {
        let (stream, status) = upgrade(&server, "/ws", WEB_SOCKET);
        let upgraded = status == "101";
        first.extend(upgraded.then_some(stream));
        upgraded
    });
    until("no room for another", || {
        upgrade(&server, "/ws", WEB_SOCKET).1 == "503"
    });
    server.signal(Signal::TERM);
    let log = server.wait().2;
    for target in ["mqtt", "http", "websocket"] {
        let target = format!(" WARN {target}:");
        has(
            &log,
            &[
                &target,
                "too many connections",
                "address=127.0.0.1:",
                "limit=1",
                "limits.connections",
            ],
        );
    }
}

/// The headers that ask for a WebSocket.
const WEB_SOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Asks for a WebSocket: the status, empty when the connection was closed.
fn upgrade(server: &Server, path: &str, headers: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.http()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let _closed = stream.write_all(request.as_bytes());
    let mut status = [0; 12];
    match stream.read_exact(&mut status) {
        Ok(()) => (stream, String::from_utf8(status[9..].to_vec()).unwrap()),
        Err(_) => (stream, String::new()),
    }
}

#[test]
fn a_refused_handshake_of_a_websocket_is_a_warning() {
    let server = Server::ephemeral();
    let offers = |names: &str| format!("{WEB_SOCKET}Sec-WebSocket-Protocol: {names}\r\n");
    let (key, others) = WEB_SOCKET.split_once("Sec-WebSocket-Key").unwrap();
    assert!(!others.is_empty());
    let cases = [
        (
            "/ws",
            offers("latchbus.v9.json, chat"),
            "400",
            "none of the offered",
        ),
        ("/ws", String::new(), "426", "speaks WebSocket"),
        ("/ws", key.to_owned(), "400", "Sec-WebSocket-Key"),
        (
            "/mqtt",
            offers("mqttv5, latchbus.v1.json"),
            "400",
            "none of the offered",
        ),
        ("/mqtt", WEB_SOCKET.to_owned(), "400", "mqtt is needed"),
        (
            "/socket.io/?EIO=4&transport=websocket",
            key.to_owned(),
            "400",
            "Sec-WebSocket-Key",
        ),
    ];
    for (path, headers, status, _) in &cases {
        assert_eq!(
            upgrade(&server, path, headers).1,
            *status,
            "{path} {headers}"
        );
    }
    // One that tries on and on has a few lines.
    for _ in 0..10 {
        assert_eq!(upgrade(&server, "/mqtt", &offers("again")).1, "400");
    }
    server.signal(Signal::TERM);
    let log = server.wait().2;
    for (path, headers, _, why) in &cases {
        let target = match *path {
            "/ws" => " WARN websocket:",
            path if path.starts_with("/socket.io/") => " WARN socketio:",
            _ => " WARN mqtt:",
        };
        let offered = headers
            .split_once("Protocol: ")
            .map_or("", |(_, names)| names.trim());
        has(
            &log,
            &[
                target,
                "handshake refused",
                "address=127.0.0.1:",
                offered,
                why,
            ],
        );
    }
    let again = log.lines().filter(|line| line.contains("\"again\""));
    assert!((1..5).contains(&again.count()), "{log}");
}

/// Also of those that are gone before they are welcomed.
#[test]
fn each_websocket_that_comes_is_said_to_go() {
    let server = Server::ephemeral();
    let head = format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{WEB_SOCKET}\r\n");
    for _ in 0..50 {
        let mut stream = TcpStream::connect(server.http()).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
    }
    until("all have gone", || connections(&server).ends_with(" 0"));
    server.signal(Signal::TERM);
    let log = server.wait().2;
    let count = |what: &str| {
        let said = |line: &&str| line.contains(" INFO websocket: ") && line.contains(what);
        log.lines().filter(said).count()
    };
    assert_eq!(
        count("client connected"),
        count("client disconnected"),
        "{log}"
    );
}

/// The names of the documentation work as filters.
#[test]
fn a_target_alone_can_be_shown() {
    let server = Server::on_free_ports(["--ephemeral", "--log", "mqtt=info"]);
    let (_client, _) = connect(&server, &client("alone"));
    server.signal(Signal::TERM);
    let log = server.wait().2;
    has(&log, &["client connected"]);
    assert!(log.lines().all(|line| line.contains(" mqtt:")), "{log}");
}

/// What may have been a click and is not counted is accepted, as it may be somebody else's, and said.
#[test]
fn a_misspelt_click_is_said() {
    let server = Server::ephemeral();
    for (topic, status) in [
        ("Clicks/main/k1/press", 200),
        ("click/main/k1/count/1-0badcafe", 200),
        ("clicks/main/k1/presses", 200),
        ("clicks/main/k1/temperature", 200),
        ("Clicks/main/k1/temperature", 200),
        ("/clicks/main/k1/press", 200),
        ("clicks/main/k1/counts", 400),
    ] {
        let put = server.send("PUT", &format!("/api/v1/topics/{topic}"), "red");
        assert_eq!(put.status, status, "{topic}");
    }
    server.signal(Signal::TERM);
    let log = server.wait().2;
    let said: Vec<_> = log
        .lines()
        .filter(|line| line.contains("did you mean"))
        .collect();
    assert_eq!(said.len(), 5, "{log}");
    for (topic, meant) in [
        (
            "Clicks/main/k1/press",
            "counts no click: did you mean `clicks`?",
        ),
        (
            "click/main/k1/count/1-0badcafe",
            "counts no click: did you mean `clicks`?",
        ),
        (
            "clicks/main/k1/presses",
            "counts no click: did you mean `press`?",
        ),
        (
            "/clicks/main/k1/press",
            "counts no click: did you mean `clicks/…`, without a slash",
        ),
        (
            "clicks/main/k1/counts",
            "rejected: malformed click topic: did you mean `count`?",
        ),
    ] {
        has(&log, &[" WARN http:", &format!("topic=\"{topic}\""), meant]);
    }
}

/// The targets are names that docs/settings.md explains, and not modules; `device` is that of the other program.
#[test]
fn each_line_has_a_target_that_users_know() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let settings = std::fs::read_to_string(root.join("docs/settings.md")).unwrap();
    let (_, log) = settings.split_once("## The log").unwrap();
    let table = log.split("\n## ").next().unwrap().lines();
    let mut known: Vec<_> = table
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(
        known.contains(&"mqtt") && known.contains(&"bus"),
        "{known:?}"
    );
    known.push("device");
    let mut folders: Vec<_> = ["core", "transports", "apps"]
        .map(|dir| root.join(dir))
        .into();
    let (mut lines, mut wrong) = (0, Vec::new());
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            let skipped = ["target", "node_modules", "tests", "firmware"];
            if !skipped.iter().any(|name| path.ends_with(name)) {
                folders.extend(
                    std::fs::read_dir(path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for level in ["error!(", "warn!(", "info!(", "debug!(", "trace!("] {
            for (at, _) in text.match_indices(level) {
                let before = text[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    continue;
                }
                lines += 1;
                let rest = text[at + level.len()..].trim_start();
                let target = rest
                    .strip_prefix("target: \"")
                    .and_then(|rest| rest.split('"').next());
                if !target.is_some_and(|target| known.contains(&target)) {
                    let line = text[..at].lines().count();
                    wrong.push(format!("{}:{line} {target:?}", path.display()));
                }
            }
        }
    }
    assert!(lines > 50, "{lines}");
    assert_eq!(
        wrong, [""; 0],
        "lines of the log without a target of docs/settings.md"
    );
}
