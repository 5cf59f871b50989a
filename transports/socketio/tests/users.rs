//! Who comes back after a cut, and as whom.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

mod support;

use latchbus_bus::{Bus, Publish};
use latchbus_core::hub::Mode;
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_socketio::{Config, Namespace, Output};
use serde_json::{Value, json};
use support::{TestServer, patient, within};

#[path = "../../../tests/doorman.rs"]
mod doorman;
use doorman::Doorman;

/// Everyone gets what they may read, without having asked.
fn all() -> Config {
    let everything = Output {
        event: "all".to_owned(),
        filter: TopicFilter::parse("#".to_owned()).unwrap(),
        mode: Mode::Latest,
    };
    let namespace = Namespace {
        outputs: vec![everything],
        general: true,
        ..Namespace::new("/")
    };
    Config {
        namespaces: vec![namespace],
        ..patient()
    }
}

async fn server(doorman: &Doorman) -> TestServer {
    let server = TestServer::on(Bus::open(doorman.options()).unwrap(), all()).await;
    for topic in ["a/1", "b/1"] {
        publish(&server, topic).await;
    }
    server
}

async fn publish(server: &TestServer, topic: &str) {
    let topic = TopicName::parse(topic.to_owned()).unwrap();
    let published = server.bus.publish(Publish::state(topic, "1"));
    within(published).await.unwrap();
}

fn user(name: &str) -> Value {
    json!({"user": name, "password": "right"})
}

fn token(name: &str) -> Value {
    json!({"token": format!("token-{name}")})
}

/// What the client's library sends when it comes back.
fn with_place(mut auth: Value, pid: &Value, offset: &Value) -> String {
    auth["pid"] = pid.clone();
    auth["offset"] = offset.clone();
    auth.to_string()
}

#[tokio::test]
async fn who_comes_back_as_another_user_begins_anew() {
    let server = server(&Doorman::new()).await;
    let (mut socket, connected) = server.joined("/", &user("anna").to_string()).await;
    socket.send("421[\"subscribe\",\"a/#\"]").await;
    let (mut offset, mut seen, mut published) = (Value::Null, 0, 0);
    // Both of its subscriptions bring both.
    while seen < 4 {
        if seen == 2 && published == 0 {
            publish(&server, "a/2").await;
            published = 1;
        }
        let text = socket.text().await;
        if let Some(event) = text.strip_prefix("42") {
            let event: Vec<Value> = serde_json::from_str(event).unwrap();
            seen += usize::from(event[0] == "all" || event[0] == "message");
            offset = event.last().unwrap().clone();
        }
    }
    drop(socket);
    let pid = &connected["pid"];

    for (auth, topics) in [
        (user("bea"), 1),
        (token("bea"), 1),
        // Nothing begins with that letter, and nothing of anna's comes.
        (user("carl"), 0),
        // A token and a password prove different things.
        (token("anna"), 2),
    ] {
        let (mut socket, again) = server
            .joined("/", &with_place(auth.clone(), pid, &offset))
            .await;
        assert_ne!(&again["pid"], pid, "{auth}");
        socket.send("427[\"unsubscribe\",\"a/#\"]").await;
        let (mut values, mut ack) = (0, String::new());
        while ack.is_empty() || values < topics {
            let text = socket.text().await;
            match text.strip_prefix("42") {
                Some(event) => {
                    let event: Vec<Value> = serde_json::from_str(event).unwrap();
                    assert_eq!(event[0], "all", "{text}");
                    values += 1;
                }
                None => ack = text,
            }
        }
        assert_eq!(values, topics, "{auth}");
        // What anna had subscribed to is not theirs to end.
        assert!(ack.starts_with("437[{\"error\""), "{ack}");
        // Their own place is theirs, and not anna's.
        let theirs = with_place(user("anna"), &again["pid"], &offset);
        let (_, as_anna) = server.joined("/", &theirs).await;
        assert_ne!(as_anna["pid"], again["pid"], "{auth}");
    }

    // Anna goes on: there is nothing new, and her subscription is there.
    let (mut socket, again) = server
        .joined("/", &with_place(user("anna"), pid, &offset))
        .await;
    assert_eq!(&again["pid"], pid);
    socket.send("427[\"unsubscribe\",\"a/#\"]").await;
    loop {
        let text = socket.text().await;
        assert!(!text.contains("\"all\""), "{text}");
        if text.starts_with("43") {
            assert_eq!(text, "437[{}]");
            break;
        }
    }
}

#[tokio::test]
async fn who_is_refused_has_not_joined_and_may_try_again() {
    let server = server(&Doorman::new()).await;
    let mut socket = server.opened().await;
    for (auth, message) in [
        (json!({}), "credentials are required"),
        (
            json!({"user": "anna", "password": "wrong"}),
            "bad user name, password or token",
        ),
    ] {
        let mut socket = server.opened().await;
        socket.send(&format!("40{auth}")).await;
        let answer: Value = serde_json::from_str(&socket.text().await[2..]).unwrap();
        assert_eq!(
            answer,
            json!({"message": message, "data": {"code": "unauthorized"}})
        );
    }
    // Another namespace first; the names of those that there are not are no secret.
    socket.send("40/nowhere,{}").await;
    assert_eq!(
        socket.text().await,
        "44/nowhere,{\"message\":\"Invalid namespace\"}"
    );
    socket.join("/", &token("anna").to_string()).await;
    // What comes right behind a CONNECT waits for it.
    let mut hasty = server.opened().await;
    hasty.send(&format!("40{}", user("anna"))).await;
    hasty.send("421[\"publish\",\"a/2\",1]").await;
    assert!(hasty.text().await.starts_with("40{"));
}

/// An output that the rules refuse keeps nobody out of what they allow, and brings its values once they allow it.
#[tokio::test]
async fn who_may_not_read_an_output_joins_for_the_rest() {
    let output = |event: &str, filter: &str| Output {
        event: event.to_owned(),
        filter: TopicFilter::parse(filter.to_owned()).unwrap(),
        mode: Mode::Latest,
    };
    let namespace = |name: &str, outputs, general| Namespace {
        outputs,
        general,
        ..Namespace::new(name)
    };
    let config = Config {
        namespaces: vec![
            namespace("/", vec![output("values", "closed")], true),
            namespace(
                "/two",
                vec![output("values", "closed"), output("mine", "a/#")],
                false,
            ),
            namespace("/none", vec![output("values", "closed")], false),
        ],
        ..patient()
    };
    let doorman = Doorman::new();
    let server = TestServer::on(Bus::open(doorman.options()).unwrap(), config).await;
    publish(&server, "a/1").await;
    let auth = user("anna").to_string();
    let (mut socket, _) = server.joined("/", &auth).await;
    socket.send("421[\"subscribe\",\"a/#\"]").await;
    assert_eq!(socket.text().await, "431[{}]");
    assert!(socket.text().await.contains("\"message\",\"a/1\""));
    let (mut socket, _) = server.joined("/two", &auth).await;
    let text = socket.text().await;
    assert!(text.contains("[\"mine\",1"), "{text}");
    let mut socket = server.opened().await;
    socket.send(&format!("40/none,{auth}")).await;
    let text = socket.text().await;
    assert!(
        text.starts_with("44/none,") && text.contains("not_allowed"),
        "{text}"
    );
}

/// Between two polls nothing is lost: why a namespace was not joined comes with the next one, and there is time to sign in.
#[tokio::test]
async fn over_polling_who_is_refused_learns_why_and_may_try_again() {
    let server = server(&Doorman::new()).await;
    for waits in [false, true] {
        let polling = server.open().await;
        for (auth, message) in [
            (json!({}), "credentials are required"),
            (
                json!({"user": "anna", "password": "wrong"}),
                "bad user name, password or token",
            ),
            (json!({"token": "token-expired"}), "the token has expired"),
            (
                json!({"user": "often", "password": "right"}),
                "too many attempts, try again in 9 s",
            ),
        ] {
            let connect = format!("40{auth}");
            let answer = match waits {
                true => {
                    let poll = polling.begin_poll().await;
                    assert_eq!(polling.post(&connect).await.body, "ok");
                    within(poll.answer()).await
                }
                false => {
                    assert_eq!(polling.post(&connect).await.body, "ok");
                    polling.poll().await
                }
            };
            assert_eq!(answer.status, 200, "{answer:?}");
            let answer: Value = serde_json::from_str(&answer.body[2..]).unwrap();
            assert_eq!(
                answer,
                json!({"message": message, "data": {"code": "unauthorized"}})
            );
        }
        polling.post(&format!("40{}", user("anna"))).await;
        assert!(polling.poll().await.body.starts_with("40{"));
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {pair}\r\n")
}

/// The ID of a session stands in URLs: elsewhere it does not speak for who has proved by a header who they are, and nowhere for others.
#[tokio::test]
async fn a_session_that_a_header_has_begun_is_no_other_users() {
    let server = server(&Doorman::new()).await;
    let anna = basic("anna", "right");
    let open = "EIO=4&transport=polling";
    let answer = server.request_with("GET", open, &anna, "").await;
    let opened: Value = serde_json::from_str(&answer.body[1..]).unwrap();
    let query = format!("{open}&sid={}", opened["sid"].as_str().unwrap());
    let ask = async |method: &str, headers: &str, body: &str| {
        server.request_with(method, &query, headers, body).await
    };
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let elsewhere = "X-Forwarded-For: 192.0.2.7\r\n";
    for (headers, status) in [
        (basic("anna", "wrong"), 401),
        ("Authorization: Bearer nonsense\r\n".to_owned(), 401),
        ("Authorization: nonsense\r\n".to_owned(), 401),
        ("Authorization: Bearer token-anna\r\n".to_owned(), 403),
        (basic("bea", "right"), 403),
        (basic("often", "right"), 429),
        (basic("broken", "right"), 503),
        (elsewhere.to_owned(), 401),
        (basic("bea", "right") + elsewhere, 403),
    ] {
        assert_eq!(ask("GET", &headers, "").await.status, status, "{headers}");
        let posted = ask("POST", &headers, "41").await;
        assert_eq!(posted.status, status, "{headers}");
        let query = query.replace("polling", "websocket");
        let headers = format!("{upgrade}{headers}");
        let upgraded = server.request_with("GET", &query, &headers, "").await;
        assert_eq!(upgraded.status, status, "{headers}");
    }
    // It was ended by none of them. Clients that leave the header out of later requests go on.
    let moved = anna.clone() + elsewhere;
    for (headers, body, answered) in [
        ("", "40", "40{"),
        (&anna, "421[\"publish\",\"a/2\",1]", "431["),
        (&moved, "422[\"publish\",\"a/2\",2]", "432["),
    ] {
        assert_eq!(ask("POST", headers, body).await.body, "ok", "{headers}");
        while !ask("GET", headers, "").await.body.contains(answered) {}
    }
    let sid = opened["sid"].as_str();
    let mut socket = server.websocket(sid).await;
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe");
}

/// One that has signed in within its CONNECT is its bearer's, but wrong credentials beside it are refused as everywhere.
#[tokio::test]
async fn a_session_without_a_header_is_its_bearers() {
    let server = server(&Doorman::new()).await;
    let polling = server.open().await;
    let ask = async |method: &str, headers: &str, body: &str| {
        let query = polling.query();
        server.request_with(method, &query, headers, body).await
    };
    let refused = async || {
        for (headers, status) in [
            (basic("anna", "wrong"), 401),
            ("Authorization: Bearer nonsense\r\n".to_owned(), 401),
            (basic("bea", "right"), 403),
        ] {
            let posted = ask("POST", &headers, "41").await;
            assert_eq!(posted.status, status, "{headers}");
            assert_eq!(ask("GET", &headers, "").await.status, status, "{headers}");
        }
    };
    refused().await;
    polling.post(&format!("40{}", user("anna"))).await;
    assert!(polling.poll().await.body.starts_with("40{"));
    refused().await;
    let right = basic("anna", "right");
    let published = ask("POST", &right, "421[\"publish\",\"a/2\",1]").await;
    assert_eq!(published.body, "ok");
    assert!(polling.poll().await.body.contains("431["));
}
