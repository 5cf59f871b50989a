//! Events of a namespace: outputs and inputs that need no code, general events, and what comes after a cut.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

mod support;

use core::time::Duration;

use bytes::Bytes;
use latchbus_bus::{Bus, HistoryRule, Options, Publish, StoreKind};
use latchbus_core::hub::Mode;
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_socketio::{Action, Config, Input, Namespace, Output};
use serde_json::{Value, json};
use support::{TestServer, WebSocket, patient, within};

fn topic(name: &str) -> TopicName<String> {
    TopicName::parse(name.to_owned()).unwrap()
}

async fn publish(bus: &Bus, name: &str, payload: &'static str) -> u64 {
    let publish = Publish::state(topic(name), payload);
    within(bus.publish(publish)).await.unwrap().rev
}

fn last(bus: &Bus, name: &str) -> Option<Bytes> {
    let last = bus.last(topic(name).borrowed())?;
    Some(last.payload.bytes().clone())
}

async fn until(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn output(event: &str, filter: &str, mode: Mode) -> Output {
    Output {
        event: event.to_owned(),
        filter: TopicFilter::parse(filter.to_owned()).unwrap(),
        mode,
    }
}

/// The next packet that begins so; others wait for whoever asks for them.
async fn wanted(socket: &mut WebSocket, begins: &str) -> String {
    if let Some(at) = socket.1.iter().position(|held| held.starts_with(begins)) {
        return socket.1.remove(at);
    }
    loop {
        let text = socket.text().await;
        if text.starts_with(begins) {
            return text;
        }
        socket.1.push(text);
    }
}

/// The next event of this name.
async fn event(socket: &mut WebSocket, name: &str) -> Vec<Value> {
    let text = wanted(socket, &format!("42[\"{name}\"")).await;
    serde_json::from_str(&text[2..]).unwrap()
}

/// An acknowledgement.
async fn ack(socket: &mut WebSocket, id: u64) -> Value {
    let prefix = format!("43{id}[");
    let text = wanted(socket, &prefix).await;
    let json = text.strip_prefix(&prefix).unwrap();
    serde_json::from_str(json.strip_suffix(']').unwrap()).unwrap()
}

#[tokio::test]
async fn the_tutorial_needs_no_code() {
    let server = TestServer::start(patient()).await;
    let (mut socket, connected) = server.joined("/", "").await;
    assert!(connected["sid"].is_string() && connected["pid"].is_string());
    let first = event(&mut socket, "clickValues").await;
    assert_eq!(first[1], json!({"red": 0, "blue": 0}));
    socket.send("42[\"redClicked\"]").await;
    assert_eq!(
        event(&mut socket, "clickValues").await[1],
        json!({"red": 1, "blue": 0})
    );
    socket.send("42[\"blueClicked\"]").await;
    assert_eq!(
        event(&mut socket, "clickValues").await[1],
        json!({"red": 1, "blue": 1})
    );
    // Late joiners get the newest value; polls as well.
    let session = server.open().await;
    session.post("40").await;
    let packets = session.packets(2).await;
    assert!(
        packets[1].starts_with("42[\"clickValues\",{\"red\":1,\"blue\":1},\""),
        "{packets:?}"
    );
    session.post("42[\"redClicked\"]").await;
    let packets = session.packets(1).await;
    assert!(
        packets[0].starts_with("42[\"clickValues\",{\"red\":2,\"blue\":1},\""),
        "{packets:?}"
    );
}

#[tokio::test]
async fn a_press_counts_once_under_its_id() {
    let server = TestServer::start(patient()).await;
    let (mut socket, _) = server.joined("/", "").await;
    let (mut other, _) = server.joined("/", "").await;
    for id in 1..=3 {
        socket.send(&format!("42{id}[\"redClicked\",\"a\"]")).await;
        assert!(ack(&mut socket, id).await["rev"].is_u64());
    }
    other.send("421[\"redClicked\",\"a\"]").await;
    assert!(ack(&mut other, 1).await["rev"].is_u64());
    // Without an id each counts, whatever else is given.
    for (id, arguments) in [(4, ""), (5, ",\"\""), (6, ",{\"clientX\":3}"), (7, ",null")] {
        socket
            .send(&format!("42{id}[\"redClicked\"{arguments}]"))
            .await;
        assert!(ack(&mut socket, id).await["rev"].is_u64());
    }
    other.send("422[\"redClicked\"]").await;
    ack(&mut other, 2).await;
    assert_eq!(
        last(&server.bus, "clicks/main/values").unwrap(),
        "{\"red\":6,\"blue\":0}"
    );
    // All clients are one device.
    assert!(last(&server.bus, "clicks/main/socketio/pressed").is_some());
    // An id that is none is told.
    let long = "x".repeat(65);
    socket
        .send(&format!("428[\"redClicked\",\"{long}\"]"))
        .await;
    assert_eq!(ack(&mut socket, 8).await["error"]["code"], "bad_message");
    assert_eq!(
        last(&server.bus, "clicks/main/values").unwrap(),
        "{\"red\":6,\"blue\":0}"
    );
}

#[tokio::test]
async fn outputs_and_inputs_of_ones_own() {
    let namespace = Namespace {
        outputs: vec![
            output("temp", "lab/temp", Mode::Latest),
            output("log", "log/#", Mode::Every),
        ],
        inputs: vec![Input {
            event: "note".to_owned(),
            action: Action::Publish {
                topic: topic("notes/a"),
                retain: true,
            },
        }],
        ..Namespace::new("/lab")
    };
    let server = TestServer::start(Config {
        namespaces: vec![namespace],
        ..patient()
    })
    .await;
    publish(&server.bus, "lab/temp", "21.5").await;
    publish(&server.bus, "log/a", "not json").await;
    let (mut socket, _) = server.joined("/lab", "").await;
    let mut first = [socket.event().await, socket.event().await];
    first.sort_by_key(|event| event[0].to_string());
    assert_eq!(first[0][..2], [json!("log"), json!("not json")]);
    assert_eq!(first[1][..2], [json!("temp"), json!(21.5)]);
    // Bytes follow their packet, before the offset's is the next.
    let bytes = Publish::event(topic("log/b"), Bytes::from_static(&[0, 255]));
    within(server.bus.publish(bytes)).await.unwrap();
    let text = socket.text().await;
    assert!(
        text.starts_with("451-/lab,[\"log\",{\"_placeholder\":true,\"num\":0},\""),
        "{text}"
    );
    assert_eq!(socket.bytes().await, [0, 255]);
    // A clear is null.
    publish(&server.bus, "lab/temp", "").await;
    assert_eq!(socket.event().await[..2], [json!("temp"), json!(null)]);
    // The first argument is published; general events are not known here.
    socket.send("42/lab,[\"note\",{\"a\":[1, 2]}]").await;
    until(|| last(&server.bus, "notes/a").is_some()).await;
    assert_eq!(last(&server.bus, "notes/a").unwrap(), "{\"a\":[1, 2]}");
    socket.send("42/lab,1[\"publish\",\"a\",1]").await;
    assert!(socket.text().await.starts_with("43/lab,1[{\"error\""));
}

#[tokio::test]
async fn general_events() {
    let server = TestServer::start(patient()).await;
    let (mut socket, _) = server.joined("/", "").await;
    event(&mut socket, "clickValues").await;
    publish(&server.bus, "lab/temp", "{\"c\":21.50}").await;
    socket
        .send("421[\"subscribe\",\"lab/#\",{\"id\":7,\"mode\":\"every\"}]")
        .await;
    assert_eq!(ack(&mut socket, 1).await, json!({}));
    let message = socket.event().await;
    assert_eq!(
        message[..3],
        [json!("message"), json!("lab/temp"), json!({"c": 21.5})]
    );
    assert_eq!(message[3]["id"], 7);
    assert!(message[3]["rev"].is_u64() && message[3]["at"].is_u64());
    assert!(message[4].is_string());
    let synced = event(&mut socket, "synced").await;
    assert_eq!(synced[..2], [json!("synced"), json!("lab/#")]);
    for (id, arguments, payload, received, flag) in [
        (
            2,
            "\"lab/a\",21.50,{\"retain\":true}",
            "21.50",
            json!(21.5),
            "",
        ),
        (3, "\"lab/a\",\"21.5\"", "21.5", json!(21.5), "event"),
        (4, "\"lab/a\",\"hello\"", "hello", json!("hello"), "event"),
        (
            5,
            "\"lab/a\",\"hello\",{\"json\":true}",
            "\"hello\"",
            json!("hello"),
            "json",
        ),
        (6, "\"lab/a\",null,null", "null", json!(null), "event"),
        (
            7,
            "\"lab/a\",\"\",{\"retain\":true}",
            "",
            json!(null),
            "cleared",
        ),
    ] {
        socket
            .send(&format!("42{id}[\"publish\",{arguments}]"))
            .await;
        let message = event(&mut socket, "message").await;
        assert_eq!(message[2], received, "{payload}");
        if !flag.is_empty() {
            assert_eq!(message[3][flag], true, "{payload}: {message:?}");
        }
        let rev = ack(&mut socket, id).await["rev"].clone();
        assert_eq!(rev, message[3]["rev"]);
    }
    socket
        .send("451-8[\"publish\",\"lab/b\",{\"_placeholder\":true,\"num\":0},{\"retain\":true}]")
        .await;
    socket.send_bytes(&[0, 255]).await;
    let text = wanted(&mut socket, "451-").await;
    assert!(
        text.starts_with("451-[\"message\",\"lab/b\",{\"_placeholder\":true,\"num\":0},{"),
        "{text}"
    );
    assert_eq!(socket.bytes().await, [0, 255]);
    ack(&mut socket, 8).await;
    assert_eq!(last(&server.bus, "lab/b").unwrap(), [0, 255][..]);
    socket.send("429[\"unsubscribe\",\"lab/#\"]").await;
    assert_eq!(ack(&mut socket, 9).await, json!({}));
    publish(&server.bus, "lab/temp", "1").await;
    socket.send("4210[\"unsubscribe\",\"lab/#\"]").await;
    assert_eq!(ack(&mut socket, 10).await["error"]["code"], "bad_message");
    // Without an acknowledgement, too.
    socket
        .send("42[\"publish\",\"lab/c\",1,{\"retain\":true}]")
        .await;
    until(|| last(&server.bus, "lab/c").is_some()).await;
}

#[tokio::test]
async fn a_history_is_read_page_by_page() {
    let bus = Bus::open(Options {
        history: vec![HistoryRule {
            filter: TopicFilter::parse("chat/+".to_owned()).unwrap(),
            keep: 5,
        }],
        ..Options::default()
    });
    let server = TestServer::on(bus.unwrap(), patient()).await;
    for text in ["\"0\"", "1", "2", "three", "4", "5"] {
        publish(&server.bus, "chat/lobby", text).await;
    }
    let (mut socket, _) = server.joined("/", "").await;
    socket
        .send("421[\"history\",\"chat/lobby\",{\"limit\":3}]")
        .await;
    let newest = ack(&mut socket, 1).await;
    let messages = newest["messages"].as_array().unwrap();
    assert_eq!((messages.len(), &newest["more"]), (3, &json!(true)));
    assert_eq!(
        (&messages[0]["text"], &messages[2]["payload"]),
        (&json!("three"), &json!(5))
    );
    assert!(messages[0]["at"].is_u64() && messages[0]["topic"] == "chat/lobby");
    let before = &messages[0]["rev"];
    socket
        .send(&format!(
            "422[\"history\",\"chat/lobby\",{{\"before\":{before}}}]"
        ))
        .await;
    let older = ack(&mut socket, 2).await;
    let payloads = older["messages"].as_array().unwrap().iter();
    let payloads: Vec<_> = payloads.map(|message| &message["payload"]).collect();
    assert_eq!(
        (payloads, &older["more"]),
        (vec![&json!(1), &json!(2)], &json!(false))
    );
    // Without options; and nobody asks for the answer.
    socket.send("42[\"history\",\"chat/none\"]").await;
    socket.send("423[\"history\",\"chat/none\"]").await;
    let none = ack(&mut socket, 3).await;
    assert_eq!(none, json!({"messages": [], "more": false}));
}

#[tokio::test]
async fn what_is_refused_is_an_answer() {
    let server = TestServer::start(patient()).await;
    let (mut socket, _) = server.joined("/", "").await;
    let large = "x".repeat((1 << 20) + 1);
    for (id, arguments, code) in [
        (1, "\"publish\",\"clicks/main/values\",1", "not_allowed"),
        (2, "\"publish\",\"a/+\",1", "invalid_topic"),
        (3, "\"publish\",1,1", "bad_message"),
        (4, "\"publish\",\"a\"", "bad_message"),
        (5, "\"publish\"", "bad_message"),
        (6, "\"publish\",\"a\",1,{\"retain\":3}", "bad_message"),
        (7, &format!("\"publish\",\"a\",\"{large}\""), "too_large"),
        (
            8,
            "\"publish\",\"clicks/main/x/press\",\"green\"",
            "bad_message",
        ),
        (20, "\"history\",\"a/+\"", "invalid_topic"),
        (21, "\"history\"", "bad_message"),
        (22, "\"history\",\"a\",{\"limit\":0}", "bad_message"),
        (23, "\"history\",\"a\",{\"before\":-1}", "bad_message"),
        (9, "\"subscribe\",\"a#\"", "invalid_filter"),
        (10, "\"subscribe\"", "bad_message"),
        (11, "\"subscribe\",\"a\",{\"mode\":\"some\"}", "bad_message"),
        (12, "\"subscribe\",\"a\",{\"max_rate\":0}", "bad_message"),
        (
            13,
            "\"subscribe\",\"a\",{\"mode\":\"every\",\"max_rate\":1}",
            "bad_message",
        ),
        (14, "\"subscribe\",\"a\",{\"since\":\"x\"}", "bad_message"),
        (15, "\"unsubscribe\",\"a\"", "bad_message"),
    ] {
        socket.send(&format!("42{id}[{arguments}]")).await;
        let answer = ack(&mut socket, id).await;
        assert_eq!(answer["error"]["code"], code, "{id}");
        assert!(answer["error"]["message"].is_string());
    }
    // Bytes within a payload are not known to be bytes.
    socket
        .send("451-16[\"publish\",\"a\",{\"b\":{\"_placeholder\":true,\"num\":0}}]")
        .await;
    socket.send_bytes(&[1]).await;
    assert_eq!(ack(&mut socket, 16).await["error"]["code"], "bad_message");
    // The connection has gone through all of that.
    socket.send("4217[\"publish\",\"a\",1]").await;
    assert!(ack(&mut socket, 17).await["rev"].is_u64());
}

#[tokio::test]
async fn an_output_that_is_refused_is_a_connect_error() {
    let bus = Bus::open(Options {
        session: latchbus_bus::SessionLimits {
            subscriptions: 1,
            ..latchbus_bus::SessionLimits::default()
        },
        ..Options::default()
    })
    .unwrap();
    let two = Namespace {
        outputs: vec![
            output("a", "a", Mode::Latest),
            output("b", "b", Mode::Latest),
        ],
        ..Namespace::new("/two")
    };
    let server = TestServer::on(
        bus,
        Config {
            namespaces: vec![two, Namespace::tutorial()],
            ..patient()
        },
    )
    .await;
    let mut socket = server.opened().await;
    socket.send("40/two,").await;
    let text = socket.text().await;
    assert!(
        text.starts_with("44/two,{\"message\":") && text.contains("\"full\""),
        "{text}"
    );
    // What was accepted of it is given back.
    until(|| server.bus.read(|hub| hub.subscriptions()) == 0).await;
    socket.join("/", "").await;
}

#[tokio::test]
async fn a_snapshot_comes_in_pages_of_sixteen() {
    let server = TestServer::start(patient()).await;
    for at in 0..40 {
        publish(&server.bus, &format!("many/{at}"), "1").await;
    }
    let session = server.open().await;
    session.post("40\u{1e}421[\"subscribe\",\"many/#\"]").await;
    let mut messages = 0;
    loop {
        let polled = session.poll().await;
        let packets: Vec<_> = polled.body.split('\u{1e}').collect();
        assert!(packets.len() <= 16, "{}", packets.len());
        messages += packets
            .iter()
            .filter(|it| it.contains("\"message\""))
            .count();
        if packets.iter().any(|it| it.contains("\"synced\"")) {
            break;
        }
    }
    assert_eq!(messages, 40);
}

#[tokio::test]
async fn who_does_not_poll_costs_nothing_and_gets_the_newest_value() {
    let server = TestServer::start(patient()).await;
    let session = server.open().await;
    session.post("40").await;
    session.packets(2).await;
    for _ in 0..2_000 {
        let press = Publish::event(topic("clicks/main/a/press"), "red");
        within(server.bus.publish(press)).await.unwrap();
    }
    let mut frames = 0;
    loop {
        let polled = session.poll().await;
        frames += polled.body.split('\u{1e}').count();
        if polled.body.contains("{\"red\":2000,") {
            break;
        }
    }
    assert!(frames <= 2, "{frames}");
}

/// What a client sends to go on after a cut.
fn comes_back(connected: &Value, offset: &Value) -> String {
    json!({"pid": connected["pid"], "offset": offset}).to_string()
}

#[tokio::test]
async fn a_client_goes_on_after_a_cut() {
    let server = TestServer::start(patient()).await;
    let (mut socket, mut connected) = server.joined("/", "").await;
    let mut offset = event(&mut socket, "clickValues").await[2].clone();
    for clicks in 1..=3 {
        // More than once, and without anything new as well.
        for changes in [false, true] {
            socket.0.close(None).await.unwrap();
            if changes {
                let press = Publish::event(topic("clicks/main/a/press"), "red");
                within(server.bus.publish(press)).await.unwrap();
            }
            let auth = comes_back(&connected, &offset);
            let again;
            (socket, again) = server.joined("/", &auth).await;
            assert_eq!(again["pid"], connected["pid"]);
            assert_ne!(again["sid"], connected["sid"]);
            connected = again;
            socket.send("421[\"publish\",\"x\",1]").await;
            if changes {
                let value = event(&mut socket, "clickValues").await;
                assert_eq!(value[1]["red"], clicks);
                offset = value[2].clone();
            }
            // Nothing else came.
            let text = socket.text().await;
            assert!(text.starts_with("431["), "{text}");
        }
    }
}

#[tokio::test]
async fn a_place_that_is_not_known_is_no_recovery() {
    let server = TestServer::start(patient()).await;
    let (mut socket, connected) = server.joined("/", "").await;
    let offset = event(&mut socket, "clickValues").await[2].clone();
    let pid = connected["pid"].as_str().unwrap();
    let (id, _) = pid.split_once('.').unwrap();
    for auth in [
        json!({}),
        json!({"pid": pid}),
        json!({"pid": pid, "offset": "hello"}),
        json!({"pid": pid, "offset": 3}),
        json!({"pid": 3, "offset": offset}),
        json!({"pid": "x", "offset": offset}),
        // The outputs of another table.
        json!({"pid": format!("{id}.0"), "offset": offset}),
        json!({"pid": pid, "offset": "0:1"}),
        json!({"pid": pid, "offset": format!("{:x}:99999999", server.bus.epoch())}),
        json!({"pid": pid, "offset": format!("{:x}:1;0:99999999", server.bus.epoch())}),
        // Subscriptions that nobody remembers.
        json!({"pid": pid, "offset": format!("{:x}:1;g", server.bus.epoch())}),
    ] {
        let (mut socket, again) = server.joined("/", &auth.to_string()).await;
        assert_ne!(again["pid"], pid, "{auth}");
        assert_eq!(event(&mut socket, "clickValues").await[1]["red"], 0);
    }
}

#[tokio::test]
async fn subscriptions_of_the_client_go_on_too() {
    let server = TestServer::start(patient()).await;
    let (mut socket, connected) = server.joined("/", "").await;
    event(&mut socket, "clickValues").await;
    socket
        .send("421[\"subscribe\",\"lab/#\",{\"mode\":\"every\",\"id\":3}]")
        .await;
    let synced = event(&mut socket, "synced").await;
    publish(&server.bus, "lab/a", "1").await;
    let message = event(&mut socket, "message").await;
    assert_eq!(message[2], 1);
    let mut offset = message[4].clone();
    assert_ne!(offset, synced[3]);
    let mut socket = Some(socket);
    for round in 0..3 {
        drop(socket.take());
        for payload in ["2", "3", "4"] {
            publish(&server.bus, "lab/a", payload).await;
        }
        let auth = comes_back(&connected, &offset);
        let (mut again, answer) = server.joined("/", &auth).await;
        assert_eq!(answer["pid"], connected["pid"], "{round}");
        for payload in [2, 3, 4] {
            let message = event(&mut again, "message").await;
            assert_eq!(
                (&message[2], &message[3]["id"]),
                (&json!(payload), &json!(3))
            );
            offset = message[4].clone();
        }
        // It can be ended, and another begun, under the names that it has now.
        if round == 1 {
            again.send("421[\"subscribe\",\"other/#\"]").await;
            ack(&mut again, 1).await;
            offset = event(&mut again, "synced").await[3].clone();
        }
        if round == 2 {
            again.send("421[\"unsubscribe\",\"other/#\"]").await;
            assert_eq!(ack(&mut again, 1).await, json!({}));
        }
        socket = Some(again);
    }
    // Who leaves does not come back.
    let mut socket = socket.unwrap();
    socket.send("41").await;
    socket.send("40/nowhere,").await;
    socket.text().await;
    let (_, answer) = server.joined("/", &comes_back(&connected, &offset)).await;
    assert_ne!(answer["pid"], connected["pid"]);
}

#[tokio::test]
async fn several_outputs_go_on_where_each_was() {
    let outputs: Vec<_> = (0..4)
        .map(|at| {
            output(
                &format!("e{at}"),
                &format!("o/{at}"),
                if at == 3 { Mode::Every } else { Mode::Latest },
            )
        })
        .collect();
    let namespace = Namespace {
        outputs,
        ..Namespace::new("/")
    };
    let server = TestServer::start(Config {
        namespaces: vec![namespace],
        ..patient()
    })
    .await;
    let mut newest = [0_u64; 4];
    let mut seen = [0_u64; 4];
    let (mut socket, mut connected) = server.joined("/", "").await;
    let mut offset = Value::Null;
    let mut random = 7_u64;
    for round in 1..=60_u64 {
        for _ in 0..3 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (random >> 33) as usize % 4;
            newest[at] += 1;
            let state = Publish::state(topic(&format!("o/{at}")), newest[at].to_string());
            within(server.bus.publish(state)).await.unwrap();
        }
        // Some of it is read, then the connection is cut.
        for _ in 0..=round % 3 {
            let Ok(event) = tokio::time::timeout(Duration::from_millis(30), socket.event()).await
            else {
                break;
            };
            let name = event[0].as_str().unwrap();
            let at: usize = name.strip_prefix('e').unwrap().parse().unwrap();
            let value = event[1].as_u64().unwrap();
            assert!(value >= seen[at], "nothing older after newer: {event:?}");
            seen[at] = value;
            offset = event[2].clone();
        }
        if offset.is_null() {
            continue;
        }
        drop(socket);
        let again;
        (socket, again) = server.joined("/", &comes_back(&connected, &offset)).await;
        assert_eq!(again["pid"], connected["pid"]);
        connected = again;
    }
    while seen != newest {
        let event = socket.event().await;
        let at: usize = event[0].as_str().unwrap()[1..].parse().unwrap();
        seen[at] = seen[at].max(event[1].as_u64().unwrap());
    }
}

#[tokio::test]
async fn a_client_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..Options::default()
    };
    let mut place: Option<(Value, Value)> = None;
    for life in 0..3 {
        let server = TestServer::on(Bus::open(options()).unwrap(), patient()).await;
        let auth = place.as_ref().map_or(String::new(), |(connected, offset)| {
            comes_back(connected, offset)
        });
        let (mut socket, connected) = server.joined("/", &auth).await;
        if let Some((before, _)) = &place {
            assert_eq!(connected["pid"], before["pid"], "{life}");
        } else {
            event(&mut socket, "clickValues").await;
        }
        socket.send("421[\"redClicked\"]").await;
        let value = event(&mut socket, "clickValues").await;
        assert_eq!(value[1]["red"], life + 1);
        ack(&mut socket, 1).await;
        place = Some((connected, value[2].clone()));
        drop(socket);
        server.stop().await;
    }
}

#[tokio::test]
async fn many_subscriptions_go_on_too() {
    let server = TestServer::start(patient()).await;
    let (mut socket, connected) = server.joined("/", "").await;
    // More than an offset names; and those that have no rate of their own come in one order.
    for at in 0..30 {
        publish(&server.bus, &format!("many/{at}"), "1").await;
        socket
            .send(&format!("42{at}[\"subscribe\",\"many/{at}\"]"))
            .await;
    }
    for at in 0..30 {
        assert_eq!(ack(&mut socket, at).await, json!({}));
        event(&mut socket, "synced").await;
    }
    let mut offset = Value::Null;
    for at in 0..30 {
        publish(&server.bus, &format!("many/{at}"), "2").await;
    }
    let mut newest = 0;
    while newest < 30 {
        let message = event(&mut socket, "message").await;
        newest += u64::from(message[2] == 2);
        offset = message[4].clone();
    }
    drop(socket);
    publish(&server.bus, "many/7", "3").await;
    publish(&server.bus, "many/29", "3").await;
    let auth = comes_back(&connected, &offset);
    let (mut socket, again) = server.joined("/", &auth).await;
    assert_eq!(again["pid"], connected["pid"], "{offset}");
    let mut came = Vec::new();
    while came.iter().filter(|(_, value)| *value == 3).count() < 2 {
        let message = event(&mut socket, "message").await;
        came.push((message[1].clone(), message[2].as_u64().unwrap()));
    }
    came.retain(|(_, value)| *value == 3);
    came.sort_by_key(|(topic, _)| topic.to_string());
    assert_eq!(came, [(json!("many/29"), 3), (json!("many/7"), 3)]);
}

#[tokio::test]
async fn a_subscription_whose_snapshot_was_not_seen_begins_anew() {
    let server = TestServer::start(patient()).await;
    publish(&server.bus, "old/a", "1").await;
    let (mut socket, connected) = server.joined("/", "").await;
    publish(&server.bus, "x", "1").await;
    let offset = event(&mut socket, "clickValues").await[2].clone();
    socket.send("421[\"subscribe\",\"old/#\"]").await;
    assert_eq!(ack(&mut socket, 1).await, json!({}));
    drop(socket);
    let (mut socket, again) = server.joined("/", &comes_back(&connected, &offset)).await;
    assert_eq!(again["pid"], connected["pid"]);
    assert_eq!(
        event(&mut socket, "message").await[1..3],
        [json!("old/a"), json!(1)]
    );
    event(&mut socket, "synced").await;
}
