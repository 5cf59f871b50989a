//! What the log says of who does something: the user, whatever door it came by, and the true cause of what was refused.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and their helpers are a part of them"
)]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use futures_util::SinkExt as _;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::users::{self, ANNA, HASH, OTHER_HASH};
use support::web_socket::{next, next_json, open};
use support::{DEADLINE, Request, Server, until};
use tempfile::TempDir;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// `root:correct horse`.
const ROOT: &str = "Basic cm9vdDpjb3JyZWN0IGhvcnNl";

const RULES: &str = r#"
signed_in = ["member"]
[roles.member]
publish = ["lab/#"]
subscribe = ["lab/#", "clicks/main/values"]
[roles.operator]
admin = true
[users]
root = ["operator"]
"#;

struct Running {
    server: Server,
    folder: TempDir,
}

impl Running {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let everyone = users::lines(&["anna", "bert", "carl", "root"]);
        fs::write(at("users"), everyone).unwrap();
        fs::write(at("rules.toml"), RULES).unwrap();
        let (users, rules) = (at("users"), at("rules.toml"));
        let flags = ["--ephemeral", "--log-format", "json", "--users", &users];
        let flags = [&flags[..], &["--access", &rules], more].concat();
        let server = Server::on_free_ports(flags);
        Self { server, folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends it: the lines of its log.
    fn log(self) -> Vec<Value> {
        self.server.signal(Signal::TERM);
        let log = self.server.wait().2;
        let lines = log.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    async fn socket(
        &self,
        path: &str,
        authorization: &str,
    ) -> WebSocketStream<tokio::net::TcpStream> {
        let headers = [("Authorization", authorization)];
        open(&self.server, path, &headers).await.unwrap()
    }
}

/// Whether a line has these values: null stands for a key that is not there.
fn is(line: &Value, wanted: &Value) -> bool {
    let mut wanted = wanted.as_object().unwrap().iter();
    wanted.all(|(key, value)| match (key.as_str(), value.as_str()) {
        ("address", Some("tcp")) => line[key]
            .as_str()
            .is_some_and(|it| it.starts_with("127.0.0.1:")),
        ("message", Some(text)) => line[key].as_str().is_some_and(|it| it.contains(text)),
        _ => line[key] == *value,
    })
}

fn has(log: &[Value], wanted: &Value) {
    let found = log.iter().any(|line| is(line, wanted));
    assert!(found, "{wanted} in\n{}", shown(log));
}

fn shown(log: &[Value]) -> String {
    log.iter().map(|line| format!("{line}\n")).collect()
}

/// A CONNECT of 3.1.1.
fn connect(
    mut stream: impl std::io::Read + std::io::Write,
    id: &str,
    user: &str,
    password: &str,
) -> u8 {
    let mut body = b"\0\x04MQTT\x04\xc2\0\x3c".to_vec();
    for text in [id, user, password] {
        body.extend([0, text.len().try_into().unwrap()]);
        body.extend(text.as_bytes());
    }
    let head = [0x10, body.len().try_into().unwrap()];
    stream.write_all(&[&head[..], &body].concat()).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    answer[3]
}

fn tcp(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.mqtt()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

#[tokio::test]
async fn refused_publishes_and_subscriptions_name_the_user_at_every_door() {
    let running = Running::start(&[]);
    let mut mqtt = tcp(&running.server);
    assert_eq!(connect(&mut mqtt, "a-1", "anna", "correct horse"), 0);
    mqtt.write_all(b"\x82\x0a\0\x01\0\x05den/x\0").unwrap();
    let mut suback = [0; 5];
    mqtt.read_exact(&mut suback).unwrap();
    assert_eq!(suback[4], 0x80);
    mqtt.write_all(b"\x32\x0b\0\x05den/y\0\x02hi\xe0\0")
        .unwrap();
    let _puback = mqtt.read_to_end(&mut Vec::new());

    let mut socket = running.socket("/ws", ANNA).await;
    next_json(&mut socket).await;
    for (frame, code) in [
        (
            json!({"op": "publish", "id": 1, "topic": "den/y", "text": "hi"}),
            "not_allowed",
        ),
        (
            json!({"op": "subscribe", "id": 2, "filter": "den/x"}),
            "not_allowed",
        ),
    ] {
        socket.send(Message::text(frame.to_string())).await.unwrap();
        assert_eq!(next_json(&mut socket).await["code"], code, "{frame}");
    }
    let mut socket = running
        .socket("/socket.io/?EIO=4&transport=websocket", ANNA)
        .await;
    next(&mut socket).await;
    for packet in [
        "40",
        "421[\"publish\",\"den/y\",\"hi\"]",
        "422[\"subscribe\",\"den/x\"]",
    ] {
        socket.send(Message::text(packet)).await.unwrap();
        let answer = loop {
            match next(&mut socket).await.unwrap() {
                // The values of an output, which come in between.
                Message::Text(values) if values.starts_with("42[") => {}
                Message::Text(answer) => break answer,
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        };
        let is_right = answer.starts_with("40") || answer.contains("not_allowed");
        assert!(is_right, "{packet}: {answer}");
    }
    let put = Request::new("PUT", "/api/v1/topics/den/y").header("Authorization", ANNA);
    assert_eq!(put.body("hi").send(running.server.http()).status, 403);

    let log = running.log();
    for (target, client) in [
        ("mqtt", json!("a-1")),
        ("websocket", Value::Null),
        ("socketio", Value::Null),
        ("http", Value::Null),
    ] {
        has(
            &log,
            &json!({
                "target": target, "level": "WARN", "client": client, "user": "anna", "address": "tcp", "topic": "den/y",
                "bytes": 2, "message": "publish rejected: publishing to `den/y` is not allowed", "setting": null,
            }),
        );
        if target != "http" {
            has(
                &log,
                &json!({
                    "target": target, "level": "WARN", "client": client, "user": "anna", "address": "tcp",
                    "filter": "den/x", "message": "subscription refused", "setting": null, "limit": null,
                }),
            );
            for message in ["client connected", "client disconnected"] {
                has(
                    &log,
                    &json!({"target": target, "user": "anna", "address": "tcp", "message": message}),
                );
            }
        }
    }
}

/// Also where what is asked for cannot be, and for what is looked at alone.
#[test]
fn what_is_refused_to_administer_is_in_the_audit_log() {
    let running = Running::start(&[]);
    let no_admin = "only an administrator may do that";
    let cases = [
        (
            "GET",
            "/api/v1/clients",
            ANNA,
            403,
            "list-clients",
            Value::Null,
            no_admin,
        ),
        (
            "GET",
            "/api/v1/sessions",
            ANNA,
            403,
            "list-sessions",
            Value::Null,
            no_admin,
        ),
        (
            "GET",
            "/api/v1/clients/1/subscriptions",
            ANNA,
            403,
            "list-subscriptions",
            Value::Null,
            no_admin,
        ),
        (
            "GET",
            "/api/v1/clients/x/subscriptions",
            ANNA,
            403,
            "list-subscriptions",
            json!("x"),
            no_admin,
        ),
        (
            "DELETE",
            "/api/v1/clients/x",
            ANNA,
            403,
            "disconnect",
            json!("x"),
            no_admin,
        ),
        (
            "DELETE",
            "/api/v1/clients/x",
            ROOT,
            404,
            "disconnect",
            json!("x"),
            "there is no such client",
        ),
        (
            "POST",
            "/api/v1/undo/x",
            ANNA,
            403,
            "undo",
            json!("x"),
            no_admin,
        ),
        (
            "POST",
            "/api/v1/undo/x",
            ROOT,
            404,
            "undo",
            json!("x"),
            "there is nothing to undo: the id is unknown, or it was undone, or a later operation has replaced it",
        ),
    ];
    for (method, path, who, status, ..) in &cases {
        let request = Request::new(method, path).header("Authorization", who);
        let answer = request.send(running.server.http());
        assert_eq!(answer.status, *status, "{method} {path}");
    }
    let log = running.log();
    for (_, _, who, _, action, on, result) in cases {
        let by = if who == ROOT { "root" } else { "anna" };
        let wanted = json!({
            "target": "audit", "action": action, "on": on, "by": by, "transport": "http", "address": "tcp", "result": result,
        });
        let lines = log.iter().filter(|line| is(line, &wanted)).count();
        assert_eq!(lines, 1, "{wanted} in\n{}", shown(&log));
    }
}

#[tokio::test]
async fn a_unix_socket_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (http, mqtt) = (at("http"), at("mqtt"));
    let mut running = Running::start(&[]);
    running.server = Server::start({
        let mut command = support::latchbus(["--ephemeral", "--log-format", "json"]);
        command.args([
            "--http",
            &format!("unix:{http}"),
            "--mqtt",
            &format!("unix:{mqtt}"),
        ]);
        command.arg("--users").arg(running.at("users"));
        command
    });
    let mut client = UnixStream::connect(&mqtt).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(connect(&mut client, "a-1", "anna", "correct horse"), 0);
    drop(client);
    let wrong = UnixStream::connect(&mqtt).unwrap();
    assert_eq!(connect(wrong, "a-2", "anna", "wrong"), 4);
    let mut curl = UnixStream::connect(&http).unwrap();
    let request = format!(
        "PUT /api/v1/topics/$SYS/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: {ANNA}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    curl.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    curl.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let log = running.log();
    for wanted in [
        json!({"target": "mqtt", "message": "client connected", "client": "a-1", "user": "anna", "address": "unix"}),
        json!({"target": "mqtt", "message": "client disconnected", "client": "a-1", "user": "anna", "address": "unix"}),
        // As it was sent: 3.1.1 has codes of its own.
        json!({"target": "mqtt", "message": "CONNECT refused", "client": "a-2", "address": "unix", "code": "0x04"}),
        json!({"target": "audit", "action": "sign-in", "by": "anna", "transport": "mqtt", "address": "unix", "result": "done"}),
        json!({"target": "audit", "level": "WARN", "by": "anna", "transport": "mqtt", "address": "unix"}),
        json!({"target": "http", "message": "publish rejected", "user": "anna", "address": "unix"}),
    ] {
        has(&log, &wanted);
    }
}

/// What a client over WebSocket is told when it has to go, the log says too, and of MQTT with the same words and level.
#[tokio::test]
async fn the_cause_is_said_when_a_sign_in_ends() {
    let running = Running::start(&[]);
    let basic = |name: &str| {
        use base64::Engine as _;
        let text = format!("{name}:correct horse");
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(text)
        )
    };
    let closed = async |mut socket: WebSocketStream<tokio::net::TcpStream>| loop {
        match next(&mut socket).await {
            Some(Message::Close(frame)) => {
                let frame = frame.unwrap();
                return (u16::from(frame.code), frame.reason.as_str().to_owned());
            }
            Some(_) => {}
            None => panic!("closed without a reason"),
        }
    };
    let mut wrong = running.socket("/ws", "").await;
    next_json(&mut wrong).await;
    let frame = json!({"op": "auth", "user": "anna", "password": "wrong"});
    wrong.send(Message::text(frame.to_string())).await.unwrap();
    let bad = "bad user name, password or token";
    assert_eq!(closed(wrong).await, (3000, bad.to_owned()));
    // Over Socket.IO it is told in the answer, and may be tried again.
    let mut socket = running
        .socket("/socket.io/?EIO=4&transport=websocket", "")
        .await;
    next(&mut socket).await;
    let packet = r#"40{"user":"anna","password":"wrong"}"#;
    socket.send(Message::text(packet)).await.unwrap();
    loop {
        // Pings stand between.
        match next(&mut socket).await.unwrap() {
            Message::Text(text) if text.contains(bad) => break,
            _ => {}
        }
    }
    drop(socket);
    // Somebody else, over a connection that goes on.
    let mut anna = running.socket("/ws", &basic("anna")).await;
    next_json(&mut anna).await;
    let frame = json!({"op": "auth", "id": 1, "user": "root", "password": "correct horse"});
    anna.send(Message::text(frame.to_string())).await.unwrap();
    let answer = next_json(&mut anna).await;
    let other = "the user or the subject of the token is not the one that has signed in before";
    assert_eq!(
        (&answer["code"], &answer["message"]),
        (&json!("unauthorized"), &json!(other))
    );

    let mut bert = running.socket("/ws", &basic("bert")).await;
    next_json(&mut bert).await;
    let mut mqtt = tcp(&running.server);
    assert_eq!(connect(&mut mqtt, "b-1", "bert", "correct horse"), 0);
    // anna is removed, bert has another password.
    let users = format!("bert:{OTHER_HASH}\ncarl:{HASH}\nroot:{HASH}\n");
    fs::write(running.at("users"), users).unwrap();
    let (removed, changed) = (
        "the user was removed",
        "the password of the user was changed",
    );
    assert_eq!(closed(anna).await, (3000, removed.to_owned()));
    assert_eq!(closed(bert).await, (3000, changed.to_owned()));
    let _cut = mqtt.read_to_end(&mut Vec::new());
    let log = running.log();
    for (target, user, why) in [
        ("websocket", Value::Null, bad),
        ("websocket", json!("anna"), removed),
        ("websocket", json!("bert"), changed),
        ("mqtt", json!("bert"), changed),
    ] {
        let message = format!("client disconnected: {why}");
        has(
            &log,
            &json!({"target": target, "level": "INFO", "user": user, "message": message}),
        );
    }
}

const KEYS: &str =
    r#"{"keys":[{"kty":"oct","kid":"a","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}"#;

/// Signed with it, for `bus` by `me`, but for one fault.
const TOKENS: [(&str, &str); 8] = [
    (
        "for another audience",
        "eyJhbGciOiAiSFMyNTYifQ.eyJzdWIiOiAia2lvc2siLCAiaXNzIjogIm1lIiwgImF1ZCI6ICJ4IiwgImV4cCI6IDQxMDI0NDQ4MDB9.545OhYo__WyXPXy9Q19Z5MtT_3T6hEGDr6kLKheVqaE",
    ),
    (
        "of another issuer",
        "eyJhbGciOiAiSFMyNTYifQ.eyJzdWIiOiAia2lvc2siLCAiaXNzIjogIngiLCAiYXVkIjogImJ1cyIsICJleHAiOiA0MTAyNDQ0ODAwfQ.SEZfwKxKvMFjJtb-Kn20sI6UC1wImnAxP9-u3jU6Azw",
    ),
    (
        "not valid yet",
        "eyJhbGciOiAiSFMyNTYifQ.eyJzdWIiOiAia2lvc2siLCAiaXNzIjogIm1lIiwgImF1ZCI6ICJidXMiLCAiZXhwIjogNDEwMjQ0NDgwMCwgIm5iZiI6IDQxMDI0NDQwMDB9._b5uqfJcZKVZnqyN-J5VwtVDJCgJIq7EcsLZI6guLZc",
    ),
    (
        "the claim `exp`",
        "eyJhbGciOiAiSFMyNTYifQ.eyJzdWIiOiAia2lvc2siLCAiaXNzIjogIm1lIiwgImF1ZCI6ICJidXMiLCAiZXhwIjogIjQxMDI0NDQ4MDAifQ.4HfaBRehPUPdGzDPiV7Gcv8ZsAsHbMHGEtCpoBzCDrY",
    ),
    (
        "without the claim `sub`",
        "eyJhbGciOiAiSFMyNTYifQ.eyJpc3MiOiAibWUiLCAiYXVkIjogImJ1cyIsICJleHAiOiA0MTAyNDQ0ODAwfQ.bMZJoXBLopPy69TJQ_Wo9UiWvJ_iXCTSZET6HYvrpHo",
    ),
    (
        "no key with its `kid`",
        "eyJhbGciOiAiSFMyNTYiLCAia2lkIjogInp6In0.eyJzdWIiOiAia2lvc2siLCAiaXNzIjogIm1lIiwgImF1ZCI6ICJidXMiLCAiZXhwIjogNDEwMjQ0NDgwMH0.fMm1QvToMlLF7PbZq0Y5Xdem9eYLaLZeyHktJVapQMk",
    ),
    (
        "signed with \"none\"",
        "eyJhbGciOiAibm9uZSJ9.eyJzdWIiOiAia2lvc2siLCAiaXNzIjogIm1lIiwgImF1ZCI6ICJidXMiLCAiZXhwIjogNDEwMjQ0NDgwMH0.fTEUoOJhWtuHLdlrhxf2yDcVsOuhEHI0-rT29OU5NPc",
    ),
    (
        "not signed by a key",
        "eyJhbGciOiAiSFMyNTYifQ.eyJzdWIiOiAia2lvc2siLCAiaXNzIjogIm1lIiwgImF1ZCI6ICJidXMiLCAiZXhwIjogNDEwMjQ0NDgwMH0.Z_Xa7TxUSkLpvVuz5hciuGQHeNapeUMlUIxPzzDAAAA",
    ),
];

#[test]
fn the_log_alone_says_why_a_token_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("keys"), KEYS).unwrap();
    let keys = at("keys");
    let settings = format!("[tokens]\nkeys = {keys:?}\nissuer = \"me\"\naudience = [\"bus\"]\n");
    fs::write(at("c.toml"), settings).unwrap();
    let running = Running::start(&["--config", at("c.toml").to_str().unwrap()]);
    for (n, (why, token)) in TOKENS.iter().enumerate() {
        let bearer = format!("Bearer {token}");
        // Five lines of a kind, for each door.
        let answer = match n < 4 {
            true => Request::new("GET", "/api/v1/topics?filter=a"),
            false => Request::new("GET", "/ws")
                .header("Upgrade", "websocket")
                .header("Connection", "upgrade")
                .header("Sec-WebSocket-Version", "13")
                .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        };
        let answer = answer
            .header("Authorization", &bearer)
            .send(running.server.http());
        assert_eq!(answer.status, 401, "{why}");
        for word in ["audience", "issuer", "claim", "key", "signed"] {
            assert!(!answer.text().contains(word), "{}", answer.text());
        }
    }
    let log = running.log();
    for (n, (why, token)) in TOKENS.iter().enumerate() {
        let transport = if n < 4 { "http" } else { "ws" };
        let found = log.iter().any(|line| {
            line["target"] == "audit"
                && line["transport"] == transport
                && line["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.contains(why))
        });
        assert!(found, "{why} in\n{}", shown(&log));
        assert!(!shown(&log).contains(token));
    }
}

#[test]
fn refusals_over_http_are_counted_by_cause_and_told() {
    let running = Running::start(&[]);
    let wrong = || {
        // `carl:wrong`
        let get = Request::new("GET", "/api/v1/topics?filter=a");
        let get = get.header("Authorization", "Basic Y2FybDp3cm9uZw==");
        get.send(running.server.http()).status
    };
    let metrics = || {
        let get = Request::new("GET", "/metrics").header("Authorization", ANNA);
        get.send(running.server.http())
    };
    // Whoever has signed in from an address is not delayed there by others.
    assert_eq!(metrics().status, 200);
    let mut delayed = 0;
    until("it is delayed", || {
        delayed += usize::from(wrong() == 429);
        delayed > 10
    });
    let metrics = metrics();
    assert_eq!(metrics.status, 200);
    let log = running.log();
    has(
        &log,
        &json!({"target": "audit", "by": "carl", "result": "bad user name, password or token"}),
    );
    let delayed = log.iter().filter(|line| {
        line["target"] == "audit"
            && line["by"] == "carl"
            && line["result"]
                .as_str()
                .is_some_and(|text| text.starts_with("too many attempts"))
    });
    assert!((1..=5).contains(&delayed.count()), "{}", shown(&log));
    let refused = |cause: &str| {
        let name = format!("latchbus_sign_ins_refused_total{{cause=\"{cause}\"}} ");
        let line = metrics
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(&name));
        line.unwrap().parse::<u64>().unwrap()
    };
    assert!(refused("bad_credentials") > 0);
    assert!(refused("too_many_attempts") > 10);
    assert_eq!(refused("expired"), 0);
}

/// An operation that is refused says on what, in the words and fields of one that is done.
#[test]
fn operations_name_what_they_are_about() {
    let running = Running::start(&[]);
    let http = running.server.http();
    let ask = |method: &str, path: &str, authorization: &str| {
        let request = Request::new(method, path).header("Authorization", authorization);
        request
            .header("Content-Type", "application/json")
            .send(http)
            .status
    };
    // `root:correct horse`
    let root = "Basic cm9vdDpjb3JyZWN0IGhvcnNl";
    assert_eq!(ask("POST", "/api/v1/rooms/nowhere/reset", root), 404);
    assert_eq!(ask("POST", "/api/v1/rooms/main/reset", ANNA), 403);
    assert_eq!(ask("DELETE", "/api/v1/rooms/main/devices/kiosk", root), 404);
    assert_eq!(ask("POST", "/api/v1/undo/7", root), 404);
    assert_eq!(ask("POST", "/api/v1/rooms/main/reset", root), 200);
    let log = running.log();
    for (action, on, by, message) in [
        ("reset-room", "nowhere", "root", "refused to administer"),
        ("reset-room", "main", "anna", "refused to administer"),
        (
            "remove-device",
            "main/kiosk",
            "root",
            "refused to administer",
        ),
        ("undo", "7", "root", "refused to administer"),
        ("reset-room", "main", "root", "administered"),
    ] {
        has(
            &log,
            &json!({
                "target": "audit", "action": action, "on": on, "by": by, "transport": "http", "address": "tcp", "message": message,
            }),
        );
    }
}
