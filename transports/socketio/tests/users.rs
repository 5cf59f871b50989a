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
