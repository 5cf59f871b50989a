//! The messages of CONTRACT.md over real sockets, in both subprotocols.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test that panics has failed

mod common;

use common::{Peer, TestServer, within};
use latchbus_bus::{Options, Publish, SessionLimits};
use latchbus_core::hub::Limits;
use latchbus_core::topic::TopicName;
use latchbus_ws::Protocol;
use latchbus_ws::server::Config;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

async fn publish(server: &TestServer, topic: &str, payload: &str, retain: bool) -> u64 {
    let topic = TopicName::parse(topic.to_owned()).unwrap();
    let publish = Publish {
        retain,
        ..Publish::state(topic, payload.to_owned())
    };
    server.bus.publish(publish).await.unwrap().rev
}

fn small() -> Options {
    Options {
        limits: Limits {
            places: 40,
            recent: 4,
            topic_bytes: 50,
            payload_bytes: 100,
            ..Limits::default()
        },
        session: SessionLimits {
            subscriptions: 2,
            ..SessionLimits::default()
        },
        ..Options::default()
    }
}

#[tokio::test]
async fn the_welcome_says_what_the_server_takes() {
    let server = TestServer::start(small(), Config::default()).await;
    for protocol in Protocol::ALL {
        let (_peer, welcome) = Peer::connect(&server, protocol).await;
        assert!(welcome["server"].as_str().unwrap().starts_with("latchbus/"));
        assert_eq!(welcome["epoch"], format!("{:x}", server.bus.epoch()));
        assert_eq!(
            welcome["limits"],
            json!({"payload_bytes": 100, "topic_bytes": 50, "subscriptions": 2, "in_flight": 256})
        );
        // Postcard's frames are as they were.
        let time = (protocol == Protocol::Json).then(|| server.bus.clock().unix_ms());
        let said = welcome["time"].as_u64();
        assert_eq!(said.is_some(), time.is_some());
        assert!(said <= time && said.unwrap_or(0) + 60_000 > time.unwrap_or(0));
    }
    server.stop().await;
}

#[tokio::test]
async fn an_event_is_told_from_state() {
    let server = TestServer::default().await;
    let (mut peer, _) = Peer::connect(&server, Protocol::Json).await;
    peer.subscribe(json!({"op": "subscribe", "id": 1, "filter": "lab/#"}))
        .await;
    for (retain, event) in [(true, Value::Null), (false, json!(true))] {
        publish(&server, "lab/bell", "1", retain).await;
        let message = peer.recv().await;
        assert_eq!(
            (&message["payload"], &message["event"]),
            (&json!(1), &event)
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_pong_says_what_was_conflated() {
    const VALUES: u64 = 100;
    let server = TestServer::default().await;
    let (mut peer, _) = Peer::connect(&server, Protocol::Json).await;
    peer.subscribe(json!({"op": "subscribe", "id": 1, "filter": "lab/#", "max_rate": 20}))
        .await;
    for value in 1..=VALUES {
        publish(&server, "lab/a", &value.to_string(), true).await;
    }
    let (mut taken, mut last) = (0, 0);
    while last < VALUES {
        last = peer.recv().await["payload"].as_u64().unwrap();
        taken += 1;
    }
    let pong = peer.ask(json!({"op": "ping", "id": 2})).await;
    let conflated = pong["conflated"].as_u64().unwrap_or(0);
    assert_eq!(taken + conflated, VALUES, "{pong}");
    assert!(conflated > 0);
    server.stop().await;
}

#[tokio::test]
async fn the_snapshot_then_synced_then_live() {
    let server = TestServer::default().await;
    publish(&server, "lab/a", "1", true).await;
    publish(&server, "lab/b", "2", true).await;
    publish(&server, "lab/event", "0", false).await;
    let newest = publish(&server, "lab/a", "3", true).await;
    for protocol in Protocol::ALL {
        let (mut peer, _) = Peer::connect(&server, protocol).await;
        let all = peer
            .subscribe(json!({"op": "subscribe", "id": 9, "filter": "lab/+"}))
            .await;
        let values: Vec<_> = all.iter().map(|m| (&m["topic"], &m["payload"])).collect();
        let (a, b) = (json!("lab/a"), json!("lab/b"));
        assert_eq!(values[..2], [(&b, &json!(2)), (&a, &json!(3))], "{all:?}");
        assert!(all.iter().all(|m| m["id"] == 9));
        assert_eq!(all[1]["rev"], newest);
        assert!(all[1]["at"].as_u64().unwrap() > 1_700_000_000_000);
        let cursor = all[2]["cursor"].as_str().unwrap();
        assert!(cursor.starts_with(&format!("{:x}:", server.bus.epoch())));

        let rev = publish(&server, "lab/event", "null", false).await;
        let live = peer.recv().await;
        assert_eq!(live["topic"], "lab/event");
        assert_eq!(live["payload"], Value::Null);
        assert!(live.as_object().unwrap().contains_key("payload"));
        assert_eq!(live["rev"], rev);
    }
    server.stop().await;
}

/// A reader that is slower than the events come would see an old value for as long as they do.
#[tokio::test]
async fn in_mode_state_no_value_waits_behind_events() {
    const EVENTS: u64 = 100;
    let server = TestServer::default().await;
    for protocol in Protocol::ALL {
        let (mut peer, _) = Peer::connect(&server, protocol).await;
        publish(&server, "lab/a", "1", true).await;
        publish(&server, "lab/event", "0", false).await;
        let all = peer
            .subscribe(json!({"op": "subscribe", "id": 9, "filter": "lab/+", "mode": "state"}))
            .await;
        assert_eq!(all.len(), 2, "{all:?}");
        for _ in 0..EVENTS {
            publish(&server, "lab/event", "1", false).await;
        }
        let rev = publish(&server, "lab/a", "2", true).await;
        let live = peer.recv().await;
        assert_eq!(
            (&live["topic"], &live["rev"]),
            (&json!("lab/a"), &json!(rev))
        );
        // They are nothing that it has lost, either.
        let pong = peer.ask(json!({"op": "ping", "id": 10})).await;
        assert_eq!(pong.get("skipped"), None, "{pong}");
    }
    server.stop().await;
}

#[tokio::test]
async fn publishes_are_acknowledged_with_their_revision() {
    let server = TestServer::default().await;
    for protocol in Protocol::ALL {
        let (mut peer, _) = Peer::connect(&server, protocol).await;
        let ack = peer
            .ask(json!({"op": "publish", "id": 2, "topic": "lab/t", "payload": {"c": 21.5}, "retain": true}))
            .await;
        let last = server.bus.last(TopicName::parse("lab/t").unwrap()).unwrap();
        assert_eq!(ack, json!({"op": "ack", "id": 2, "rev": last.rev}));
        assert_eq!(last.payload.bytes(), r#"{"c":21.5}"#);
        // Without an id there is no answer: the next message is the pong.
        peer.send(json!({"op": "publish", "topic": "lab/t", "payload": 1}))
            .await;
        let pong = peer.ask(json!({"op": "ping", "id": 3})).await;
        assert_eq!(pong, json!({"op": "pong", "id": 3}));
    }
    server.stop().await;
}

#[tokio::test]
async fn every_kind_of_payload_arrives_as_it_is() {
    let server = TestServer::default().await;
    for (n, protocol) in Protocol::ALL.into_iter().enumerate() {
        let (mut peer, _) = Peer::connect(&server, protocol).await;
        let (mut other, _) = Peer::connect(&server, Protocol::ALL[1 - n]).await;
        for one in [&mut peer, &mut other] {
            one.subscribe(json!({"op": "subscribe", "id": 1, "filter": "lab/#"}))
                .await;
        }
        for (key, payload) in [
            ("payload", json!([1, "é", null])),
            ("text", json!("red \"3\"\n")),
            ("text", json!("")),
            ("base64", json!("//4A")),
        ] {
            let mut message = json!({"op": "publish", "topic": "lab/x"});
            message[key] = payload.clone();
            peer.send(message).await;
            for one in [&mut peer, &mut other] {
                let got = one.recv().await;
                assert_eq!(got[key], payload, "{got}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_cleared_topic_says_so() {
    let server = TestServer::default().await;
    for protocol in Protocol::ALL {
        let (mut peer, _) = Peer::connect(&server, protocol).await;
        for clear in [json!({"cleared": true}), json!({"text": ""})] {
            publish(&server, "lab/a", "1", true).await;
            let all = peer
                .subscribe(json!({"op": "subscribe", "id": 1, "filter": "lab/a"}))
                .await;
            assert_eq!(all.len(), 2, "{all:?}");
            let mut message = json!({"op": "publish", "topic": "lab/a", "retain": true});
            for (key, value) in clear.as_object().unwrap() {
                message[key] = value.clone();
            }
            let cleared = peer.ask(message).await;
            assert_eq!(cleared["op"], "message");
            assert_eq!(
                (&cleared["topic"], &cleared["cleared"]),
                (&json!("lab/a"), &json!(true))
            );
            assert!(cleared.get("payload").is_none() && cleared.get("text").is_none());
            assert!(
                server
                    .bus
                    .last(TopicName::parse("lab/a").unwrap())
                    .is_none()
            );
            peer.unsubscribe(1).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_refused_names_its_code_and_changes_nothing() {
    let server = TestServer::start(small(), Config::default()).await;
    let sub = |id: u64, filter: &str| json!({"op": "subscribe", "id": id, "filter": filter});
    for protocol in Protocol::ALL {
        let (mut peer, _) = Peer::connect(&server, protocol).await;
        let publish = |topic: &str, text: &str| json!({"op": "publish", "id": 5, "topic": topic, "text": text, "retain": true});
        peer.refused(publish("a/+", "x"), "invalid_topic").await;
        peer.refused(publish("", "x"), "invalid_topic").await;
        peer.refused(publish(&"t".repeat(51), "x"), "invalid_topic")
            .await;
        peer.refused(publish("a", &"x".repeat(101)), "too_large")
            .await;
        peer.refused(publish("clicks/main/values", "x"), "not_allowed")
            .await;
        peer.refused(publish("$SYS/broker/x", "x"), "not_allowed")
            .await;
        peer.refused(publish("clicks/main/kiosk/press", "green"), "bad_message")
            .await;
        for (topic, text, reason) in [
            ("clicks/main/kiosk/pres", "red", "did you mean `press`?"),
            ("clicks/main/kiosk/Press", "red", "did you mean `press`?"),
            ("clicks/main/kiosk/conut", "red", "did you mean `count`?"),
            ("clicks/main/kiosk/counts", "red", "did you mean `count`?"),
            ("clicks/press", "red", "one room and one device are named"),
            (
                "clicks/main/press",
                "red",
                "one room and one device are named",
            ),
            (
                "clicks/main/a/b/press",
                "red",
                "one room and one device are named",
            ),
            (
                "clicks/main/kiosk/press",
                " {\"color\":\"red\"}",
                "white space",
            ),
            (
                "clicks/main/kiosk/count/1-0badcafe",
                " {\"red\":1,\"blue\":0}",
                "white space",
            ),
        ] {
            let answer = peer.ask(publish(topic, text)).await;
            assert_eq!(answer["code"], "bad_message");
            assert!(
                answer["message"].as_str().unwrap().contains(reason),
                "{answer}"
            );
        }
        peer.refused(sub(6, "a#"), "invalid_filter").await;
        peer.refused(sub(6, &"f".repeat(51)), "invalid_filter")
            .await;
        peer.refused(json!({"op": "unsubscribe", "id": 6}), "bad_message")
            .await;
        peer.refused(
            json!({"op": "subscribe", "id": 6, "filter": "a", "mode": "every", "max_rate": 1.0}),
            "bad_message",
        )
        .await;
        for id in [1, 2] {
            peer.subscribe(sub(id, "a")).await;
        }
        peer.refused(sub(3, "a"), "full").await;
        // The same id replaces.
        peer.subscribe(sub(2, "b")).await;
    }
    let (mut peer, _) = Peer::connect(&server, Protocol::Json).await;
    let mut code = Value::Null;
    for n in 0..50 {
        let topic = format!("fill/{n}");
        let message =
            json!({"op": "publish", "id": n, "topic": topic, "payload": n, "retain": true});
        code = peer.ask(message).await["code"].take();
    }
    assert_eq!(code, "full");
    server.stop().await;
}

#[tokio::test]
async fn a_bad_message_keeps_the_connection() {
    let server = TestServer::default().await;
    let (mut json_peer, _) = Peer::connect(&server, Protocol::Json).await;
    let (mut postcard_peer, _) = Peer::connect(&server, Protocol::Postcard).await;
    for message in [
        Message::text("{"),
        Message::text(""),
        Message::text(r#"{"op":"dance"}"#),
        Message::binary(vec![1, 3, 7]),
    ] {
        json_peer.send_raw(message).await;
        let answer = json_peer.recv().await;
        assert_eq!(
            (&answer["op"], &answer["code"]),
            (&json!("error"), &json!("bad_message"))
        );
        assert!(answer.get("id").is_none());
    }
    let unknown = json!({"op": "ping", "id": 8, "colour": "red"});
    json_peer.refused(unknown, "bad_message").await;
    for message in [
        Message::binary(vec![]),
        Message::binary(vec![2, 3, 7]),
        Message::binary(vec![1, 99]),
        Message::binary(vec![1, 3, 7, 0]),
        Message::text(r#"{"op":"ping","id":1}"#),
    ] {
        postcard_peer.send_raw(message).await;
        let answer = postcard_peer.recv().await;
        assert_eq!(
            (&answer["op"], &answer["code"]),
            (&json!("error"), &json!("bad_message"))
        );
    }
    for peer in [&mut json_peer, &mut postcard_peer] {
        assert_eq!(peer.ask(json!({"op": "ping", "id": 1})).await["op"], "pong");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_cursor_resumes_where_it_stood() {
    let server = TestServer::start(small(), Config::default()).await;
    publish(&server, "lab/a", "1", true).await;
    publish(&server, "lab/b", "1", true).await;
    for protocol in Protocol::ALL {
        let (mut peer, _) = Peer::connect(&server, protocol).await;
        let all = peer
            .subscribe(json!({"op": "subscribe", "id": 1, "filter": "lab/#"}))
            .await;
        let cursor = all.last().unwrap()["cursor"].clone();
        drop(peer);

        for n in 0..9 {
            publish(&server, "lab/b", &n.to_string(), true).await;
        }
        let (mut peer, _) = Peer::connect(&server, protocol).await;
        let resumed = peer
            .subscribe(json!({"op": "subscribe", "id": 1, "filter": "lab/#", "since": cursor}))
            .await;
        assert_eq!(resumed.len(), 2, "{resumed:?}");
        assert_eq!(
            (&resumed[0]["topic"], &resumed[0]["payload"]),
            (&json!("lab/b"), &json!(8))
        );

        // Events that have left the ring are counted.
        peer.unsubscribe(1).await;
        for n in 0..9 {
            publish(&server, "lab/event", &n.to_string(), false).await;
        }
        let resumed = peer
            .subscribe(json!({"op": "subscribe", "id": 2, "filter": "lab/event", "mode": "every", "since": cursor}))
            .await;
        assert_eq!(
            (&resumed[0]["op"], &resumed[0]["id"]),
            (&json!("gap"), &json!(2))
        );
        assert!(resumed[0]["missed"].as_u64().unwrap() >= 5);

        // A cursor of another life.
        let reset = peer
            .subscribe(json!({"op": "subscribe", "id": 1, "filter": "lab/#", "since": "1:1"}))
            .await;
        assert_eq!(reset[0], json!({"op": "reset", "id": 1}));
        assert_eq!(reset.len(), 4, "{reset:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn overlapping_subscriptions_each_get_their_copy() {
    let server = TestServer::default().await;
    for protocol in Protocol::ALL {
        let (mut peer, _) = Peer::connect(&server, protocol).await;
        for (id, filter) in [(1, "lab/#"), (2, "lab/+"), (3, "lab/z")] {
            peer.subscribe(json!({"op": "subscribe", "id": id, "filter": filter}))
                .await;
        }
        publish(&server, "lab/z", "7", false).await;
        let mut ids = vec![];
        for _ in 0..3 {
            ids.push(peer.recv().await["id"].as_u64().unwrap());
        }
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3]);

        // Unsubscribing is not answered; what follows no longer goes to it.
        for id in [1, 3] {
            peer.send(json!({"op": "unsubscribe", "id": id})).await;
        }
        peer.ask(json!({"op": "ping", "id": 1})).await;
        publish(&server, "lab/z", "8", false).await;
        assert_eq!(peer.recv().await["id"], 2);
        assert_eq!(peer.ask(json!({"op": "ping", "id": 2})).await["op"], "pong");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_press_over_websocket_counts() {
    let server = TestServer::default().await;
    let (mut peer, _) = Peer::connect(&server, Protocol::Json).await;
    peer.subscribe(json!({"op": "subscribe", "id": 1, "filter": "clicks/main/values"}))
        .await;
    peer.send(json!({"op": "publish", "topic": "clicks/main/kiosk-1/press", "text": "red 3"}))
        .await;
    let values = within(peer.recv()).await;
    assert_eq!(values["payload"], json!({"red": 3, "blue": 0}));
    server.stop().await;
}
