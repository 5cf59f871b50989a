//! Who is connected and which sessions are kept: over HTTP, and with `latchbus ctl`.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and their helpers are a part of them"
)]

mod support;

use core::net::SocketAddr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::web_socket::{next, next_json, web_socket};
use support::{DEADLINE, Request, Server, latchbus, run, until};
use tokio_tungstenite::tungstenite::Message;

/// An MQTT 5 client, byte by byte.
struct Mqtt(TcpStream);

impl Mqtt {
    /// With a session that is kept for an hour.
    fn connect(to: SocketAddr, client_id: &str) -> Self {
        let (this, code) = Self::connect_as(to, client_id, None);
        assert_eq!(code, 0);
        this
    }

    /// The same with the code of the CONNACK.
    fn connect_as(to: SocketAddr, client_id: &str, user: Option<(&str, &str)>) -> (Self, u8) {
        let flags = if user.is_some() { 0xC0 } else { 0 };
        let mut body = b"\0\x04MQTT\x05".to_vec();
        body.extend([flags, 0, 0x3c, 5, 0x11, 0, 0, 0x0e, 0x10]);
        let user = user.map(|(name, password)| [name, password]);
        for text in [client_id].into_iter().chain(user.into_iter().flatten()) {
            body.extend([0, text.len().try_into().unwrap()]);
            body.extend(text.as_bytes());
        }
        let mut this = Self(TcpStream::connect(to).unwrap());
        this.0.set_read_timeout(Some(DEADLINE)).unwrap();
        this.send(0x10, &body);
        let connack = this.packet();
        assert_eq!(connack[0], 0x20, "{connack:?}");
        (this, connack[2])
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let mut packet = vec![kind, body.len().try_into().unwrap()];
        packet.extend(body);
        self.0.write_all(&packet).unwrap();
    }

    /// Its first byte, then its body. Bodies here are short.
    fn packet(&mut self) -> Vec<u8> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut body = vec![0; head[1].into()];
        self.0.read_exact(&mut body).unwrap();
        [&head[..1], &body].concat()
    }

    fn subscribe(&mut self, filter: &str) {
        let mut body = vec![0, 1, 0, 0, filter.len().try_into().unwrap()];
        body.extend(filter.as_bytes());
        body.push(1);
        self.send(0x82, &body);
        assert_eq!(self.packet(), [0x90, 0, 1, 0, 1]);
    }
}

fn list(server: &Server, path: &str, name: &str) -> Vec<Value> {
    let answer = server.get(path);
    assert_eq!(answer.status, 200, "{path}");
    answer.json()[name].as_array().unwrap().clone()
}

fn clients(server: &Server) -> Vec<Value> {
    list(server, "/api/v1/clients", "clients")
}

fn sessions(server: &Server) -> Vec<Value> {
    list(server, "/api/v1/sessions", "sessions")
}

#[test]
fn a_client_is_listed_disconnected_and_its_session_ended() {
    let server = Server::ephemeral();
    assert_eq!(clients(&server), [] as [Value; 0]);
    let mut board = Mqtt::connect(server.mqtt(), "lab/board");
    board.subscribe("lab/#");
    let send = |path: &str| server.send("POST", path, "x").status;
    assert_eq!(send("/api/v1/topics/lab/a"), 200);
    // It does not acknowledge the message.
    assert_eq!(board.packet()[0] & 0xF0, 0x30);
    let listed = clients(&server);
    let [client] = &listed[..] else {
        panic!("{listed:?}")
    };
    let expected = json!({
        "id": client["id"],
        "since": client["since"],
        "identity": "anonymous",
        "client_id": "lab/board",
        "address": board.0.local_addr().unwrap().to_string(),
        "transport": "mqtt",
        "keep_alive_secs": 60,
        "subscriptions": 1,
        "pending": 0,
        "in_flight": 1,
        "lost": 0,
    });
    assert_eq!(*client, expected);
    let path = format!("/api/v1/clients/{}", client["id"]);
    let subscriptions = list(&server, &format!("{path}/subscriptions"), "subscriptions");
    assert_eq!(subscriptions.len(), 1);
    assert_eq!(subscriptions[0]["filter"], "lab/#");

    assert_eq!(server.send("DELETE", &path, "").status, 200);
    let goodbye = board.packet();
    assert_eq!(goodbye[..2], [0xE0, 0x98], "{goodbye:?}");
    until("it is gone", || clients(&server).is_empty());
    assert_eq!(server.send("DELETE", &path, "").status, 404);
    until("it is away", || sessions(&server).len() == 1);
    assert_eq!(send("/api/v1/topics/lab/b"), 200);
    let away = &sessions(&server)[0];
    assert_eq!(away["client_id"], "lab/board");
    assert_eq!(
        (&away["subscriptions"], &away["pending"], &away["in_flight"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert!(away["expires_in_secs"].as_u64().unwrap() <= 3_600);
    let subscriptions = format!("/api/v1/clients/{}/subscriptions", away["id"]);
    assert_eq!(list(&server, &subscriptions, "subscriptions").len(), 1);
    let session = "/api/v1/sessions/lab%2Fboard";
    assert_eq!(server.send("DELETE", session, "").status, 200);
    assert_eq!(sessions(&server), [] as [Value; 0]);
    assert_eq!(server.send("DELETE", session, "").status, 404);

    // Where the client is connected, that ends first.
    let mut again = Mqtt::connect(server.mqtt(), "lab/board");
    assert_eq!(server.send("DELETE", session, "").status, 200);
    assert_eq!(again.packet()[..2], [0xE0, 0x98]);
    assert_eq!(sessions(&server), [] as [Value; 0]);
}

#[test]
fn lists_come_page_by_page() {
    let server = Server::ephemeral();
    let boards: Vec<_> = ["a", "b", "c"]
        .map(|id| Mqtt::connect(server.mqtt(), id))
        .into();
    let page = server.get("/api/v1/clients?limit=2").json();
    assert_eq!(page["clients"].as_array().unwrap().len(), 2);
    let rest = format!("/api/v1/clients?after={}", page["next"]);
    let rest = server.get(&rest).json();
    assert_eq!(rest["clients"].as_array().unwrap().len(), 1);
    assert_eq!(rest.get("next"), None);
    drop(boards);
    until("they are away", || sessions(&server).len() == 3);
    let page = server.get("/api/v1/sessions?limit=2").json();
    assert_eq!(page["next"], "b");
    let rest = list(&server, "/api/v1/sessions?after=b", "sessions");
    assert_eq!((rest.len(), &rest[0]["client_id"]), (1, &json!("c")));
    for path in [
        "/api/v1/clients?limit=0",
        "/api/v1/clients?limit=1001",
        "/api/v1/clients?after=x",
        "/api/v1/clients?before=1",
        "/api/v1/clients?after=1&after=2",
        "/api/v1/sessions?after=%ff",
    ] {
        assert_eq!(server.get(path).status, 400, "{path}");
    }
    for path in [
        "/api/v1/clients/99",
        "/api/v1/clients/x",
        "/api/v1/sessions/x",
    ] {
        assert_eq!(server.send("DELETE", path, "").status, 404, "{path}");
        let foreign = Request::new("DELETE", path).header("Origin", "http://elsewhere.example");
        assert_eq!(foreign.send(server.http()).status, 403, "{path}");
    }
}

#[test]
fn lists_are_searched_and_say_how_many_there_are() {
    let server = Server::ephemeral();
    let ids = ["lab/A b", "lab/a+B", "Küche", "..", "<b>&\"'", "100%"];
    let boards = ids.map(|id| Mqtt::connect(server.mqtt(), id));
    let port = boards[2].0.local_addr().unwrap().port();
    let found = |list: &str, search: &str| {
        let answer = server.get(&format!("/api/v1/{list}?limit=1&search={search}"));
        assert_eq!(answer.status, 200, "{search}");
        let answer = answer.json();
        let first = answer[list].get(0).map(|entry| entry["client_id"].clone());
        (answer["total"].as_u64().unwrap(), first.unwrap_or_default())
    };
    let searches = [
        ("", 6, None),
        ("lab", 2, None),
        ("LAB%2Fa%20B", 1, Some("lab/A b")),
        ("a+b", 1, Some("lab/a+B")),
        ("k%C3%9CCHE", 1, Some("Küche")),
        ("..", 1, Some("..")),
        ("%3CB%3E%26", 1, Some("<b>&\"'")),
        ("100%25", 1, Some("100%")),
        ("nobody", 0, None),
    ];
    let agree = |list: &str| {
        for (search, total, first) in searches {
            let (of, id) = found(list, search);
            assert_eq!(of, total, "{list} {search}");
            assert!(
                first.is_none_or(|first| id == first),
                "{list} {search} {id}"
            );
        }
    };
    agree("clients");
    assert_eq!(found("clients", &format!(":{port}")), (1, json!("Küche")));
    assert_eq!(found("clients", "MQTT").0, 6);
    // Of the second page as well.
    let page = server.get("/api/v1/clients?limit=1&search=lab").json();
    let next = format!("/api/v1/clients?search=lab&after={}", page["next"]);
    let page = server.get(&next).json();
    assert_eq!(
        (&page["total"], &page["clients"][0]["client_id"]),
        (&json!(2), &json!("lab/a+B"))
    );
    drop(boards);
    until("they are away", || sessions(&server).len() == ids.len());
    agree("sessions");
    for path in [
        &format!("/api/v1/clients?search={}", "x".repeat(257)),
        "/api/v1/clients?search=a&search=b",
        "/api/v1/clients?search=%ff",
        "/api/v1/clients/1/subscriptions?search=a",
    ] {
        assert_eq!(server.get(path).status, 400, "{path}");
    }

    // A browser makes `/api/v1/` of `/api/v1/sessions/..`.
    let end = |query: &str| {
        server
            .send("DELETE", &format!("/api/v1/sessions{query}"), "")
            .status
    };
    for wrong in [
        "",
        "?",
        "?id=..",
        "?client_id=..&client_id=..",
        "?client_id=%ff",
    ] {
        assert_eq!(end(wrong), 400, "{wrong}");
    }
    assert_eq!(end("?client_id=.."), 200);
    assert_eq!(end("?client_id=.."), 404);
    assert_eq!(end("?client_id=lab%2Fa%2BB"), 200);
    assert_eq!(sessions(&server).len(), ids.len() - 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_is_closed_with_1008() {
    let server = Server::ephemeral();
    let mut socket = web_socket(&server, "/ws", "latchbus.v1.json").await;
    next_json(&mut socket).await;
    let listed = clients(&server);
    assert_eq!((listed.len(), &listed[0]["transport"]), (1, &json!("ws")));
    let path = format!("/api/v1/clients/{}", listed[0]["id"]);
    assert_eq!(server.send("DELETE", &path, "").status, 200);
    loop {
        if let Message::Close(frame) = next(&mut socket).await.unwrap() {
            let frame = frame.unwrap();
            assert_eq!(u16::from(frame.code), 1008);
            assert_eq!(frame.reason.as_str(), "ended by an administrator");
            break;
        }
    }
}

fn user(name: &str, file: &Path) {
    let mut command = latchbus(["user", "add", name, "--password-stdin", "--file"]);
    let secret = file.with_file_name(format!("{name}.secret"));
    fs::write(&secret, format!("{name}'s secret\n")).unwrap();
    command.arg(file).stdin(fs::File::open(&secret).unwrap());
    assert_eq!(run(command).0, Some(0));
}

#[test]
fn ctl_lists_and_ends_over_https_with_a_password() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let mut cert = latchbus(["cert"]);
    cert.arg(directory.path()).arg("localhost");
    assert_eq!(run(cert).0, Some(0));
    for name in ["root", "anna"] {
        user(name, &directory.path().join("users"));
    }
    let rules = "everyone = [\"all\"]\n\
                 [roles.all]\npublish = [\"#\"]\nsubscribe = [\"#\", \"$SYS/#\"]\n\
                 [roles.operator]\nadmin = true\n\
                 [users]\nroot = [\"operator\"]\n";
    fs::write(at("rules.toml"), rules).unwrap();
    let mut server = Server::on_free_ports([
        "--ephemeral",
        "--log-format",
        "json",
        "--anonymous",
        "--users",
        &at("users"),
        "--access",
        &at("rules.toml"),
        "--http-tls",
        "127.0.0.1:0",
        "--tls-cert",
        &at("server.pem"),
        "--tls-key",
        &at("server.key"),
    ]);
    let port = server.address("http-tls=").port();
    let url = format!("https://localhost:{port}");
    let ctl = |user: &str, words: &[&str]| {
        let mut command: Command = latchbus(["ctl", "--url", &url, "--ca", &at("ca.pem")]);
        let secret = at(&format!("{user}.secret"));
        command.args(["--user", user, "--password-file", &secret]);
        command.args(words);
        run(command)
    };
    let mut board = Mqtt::connect(server.mqtt(), "board");
    board.subscribe("lab/#");
    let (status, out, err) = ctl("root", &["clients", "--json"]);
    assert_eq!(status, Some(0), "{err}");
    let listed: Value = serde_json::from_str(&out).unwrap();
    let id = listed["clients"][0]["id"].to_string();
    let (status, out, err) = ctl("root", &["clients"]);
    assert_eq!((status, out.lines().count()), (Some(0), 2), "{out}{err}");
    assert!(out.contains("board"), "{out}");
    let (_, out, _) = ctl("root", &["subscriptions", &id]);
    assert!(out.contains("lab/#"), "{out}");
    // Anyone else may not, and without a password nobody.
    for words in [
        &["clients"][..],
        &["sessions"],
        &["disconnect", &id],
        &["end-session", "board"],
    ] {
        let (status, out, err) = ctl("anna", words);
        assert_eq!((status, out.as_str()), (Some(2), ""), "{words:?}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    let mut anonymous = latchbus(["ctl", "clients", "--url", &url]);
    anonymous.args(["--ca", &at("ca.pem")]);
    assert_eq!(run(anonymous).0, Some(2));
    let mut untrusting = latchbus(["ctl", "clients", "--url", &url]);
    untrusting.env("LATCHBUS_PASSWORD", "root's secret");
    untrusting.args(["--user", "root"]);
    assert_eq!(run(untrusting).0, Some(2));

    assert_eq!(ctl("root", &["disconnect", &id]).0, Some(0));
    assert_eq!(board.packet()[..2], [0xE0, 0x98]);
    until("it is away", || {
        ctl("root", &["sessions"]).1.contains("board")
    });
    assert_eq!(ctl("root", &["end-session", "board"]).0, Some(0));
    assert!(!ctl("root", &["sessions"]).1.contains("board"));
    assert_eq!(ctl("root", &["end-session", "board"]).0, Some(2));
    let mut export = latchbus(["export", "--url", &url, "--ca", &at("ca.pem")]);
    export.args(["--user", "root", "--password-file", &at("root.secret")]);
    assert_eq!(run(export).0, Some(0));

    let anna = |password| Mqtt::connect_as(server.mqtt(), "anna-1", Some(("anna", password))).1;
    assert_eq!(anna("anna's secret"), 0);
    assert_eq!(anna("another"), 0x86);
    // One line of the log for each of these, and no password.
    let log = server.kill();
    assert!(!log.contains("secret") && !log.contains("another"), "{log}");
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let audited: Vec<_> = lines.filter(|line| line["target"] == "audit").collect();
    let has = |action: &str, by: &str, client: &str, result: &str| {
        let is = |line: &&Value| {
            line["action"] == action
                && line["by"] == by
                && line["client"].as_str().unwrap_or_default() == client
                && line["result"] == result
                && line["address"].is_string()
        };
        assert_eq!(
            audited.iter().filter(is).count(),
            1,
            "{action} {audited:#?}"
        );
    };
    has("sign-in", "anna", "anna-1", "done");
    has(
        "sign-in",
        "anna",
        "anna-1",
        "bad user name, password or token",
    );
    has("disconnect", "root", "", "done");
    has(
        "disconnect",
        "anna",
        "",
        "only an administrator may do that",
    );
    has("end-session", "root", "", "done");
    has("end-session", "root", "", "there is no such session");
}

#[test]
fn who_publishes_too_fast_is_told_when_to_try_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("latchbus.toml");
    fs::write(
        &config,
        "ephemeral = true\n[limits]\npublishes_per_second = 2\n",
    )
    .unwrap();
    let server = Server::on_free_ports(["--config".as_ref(), config.as_os_str()]);
    let post = || server.send("POST", "/api/v1/topics/a", "x");
    let mut refused = post();
    // However slow this machine is.
    until("one is refused", || {
        refused = post();
        refused.status == 429
    });
    let retry_after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&retry_after), "{retry_after}");
    assert_eq!(refused.json()["error"]["code"], "rate_limited");
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    let counted = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    assert!(counted("latchbus_publishes_rate_limited_total") > 0);
}
