//! The programs as their users run them, with `mosquitto_pub` and `mosquitto_sub` as peers. Tests that need
//! those are named for it.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Instant;

use latchbus_core::clicks::Counter;
use latchbus_tests::bench::{message, recv};
use latchbus_tests::program::{Server, device, installed, lines};
use latchbus_tests::transport::{Connect, End, Incoming, Peer, Publish, Subscribe};
use latchbus_tests::transports::{Json, MqttPeer, WebSocketPeer};
use latchbus_tests::{DEADLINE, within};
use tokio::process::{Child, Command};

type Observer = WebSocketPeer<Json>;

const VALUES: &str = "clicks/main/values";

/// Sees what the room shows.
async fn observer(http: SocketAddr) -> Observer {
    let mut observer = WebSocketPeer::open(http, false).await;
    observer.subscribe(Subscribe::to(1, VALUES)).await;
    observer
}

/// The room's clicks, as soon as there are at least so many.
async fn at_least(observer: &mut Observer, clicks: u64) -> u64 {
    within(&format!("{clicks} clicks"), async {
        loop {
            let shown = Counter::parse(&message(observer).await.payload)
                .unwrap()
                .total();
            if shown >= clicks {
                return shown;
            }
        }
    })
    .await
}

fn simulation(id: &str, url: &str, directory: &std::path::Path) -> Command {
    let mut device = device(id, url, &directory.join(format!("{id}.json")));
    device.args(["--simulate", "200", "--count", "500", "--seed", "7"]);
    device
}

async fn succeeds(child: &mut Child) {
    let status = within("the device ends", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn devices_that_are_killed_and_started_again_count_every_click_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::ephemeral().await;
    let mut observer = observer(server.http).await;
    let urls = [
        ("k1", format!("mqtt://{}", server.mqtt)),
        ("k2", format!("ws://{}/ws", server.http)),
    ];
    let mut told = 0;
    for (id, url) in &urls {
        for kill_at in [50, 200, 350] {
            let mut device = simulation(id, url, directory.path()).spawn().unwrap();
            at_least(&mut observer, told + kill_at).await;
            device.kill().await.unwrap();
        }
        let mut device = simulation(id, url, directory.path()).spawn().unwrap();
        succeeds(&mut device).await;
        told += 500;
        // Exactly: the device has been acknowledged, so there is nothing left that could come.
        assert_eq!(at_least(&mut observer, told).await, told);
    }
    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_has_lost_no_click() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let arguments = ["--data-dir", data.to_str().unwrap()];
    let mut server = Server::start(&arguments).await;
    let (http, mqtt) = (server.http, server.mqtt);
    let urls = [
        ("k1", format!("mqtt://{mqtt}")),
        ("k2", format!("ws://{http}/ws")),
    ];
    let mut devices: Vec<_> = (urls.iter())
        .map(|(id, url)| {
            let mut device = simulation(id, url, directory.path());
            let patience = format!("{}s", DEADLINE.as_secs());
            device.args(["--timeout", &patience]).spawn().unwrap()
        })
        .collect();
    let mut shown = 0;
    for kill_at in [100, 400, 700] {
        let seen = at_least(&mut observer(http).await, kill_at).await;
        assert!(seen >= shown, "{seen} after {shown} were shown");
        shown = seen;
        server.kill().await;
        server = Server::start_on(http, mqtt, &arguments).await;
    }
    for device in &mut devices {
        succeeds(device).await;
    }
    assert_eq!(at_least(&mut observer(http).await, 1_000).await, 1_000);
    assert_eq!(server.stop().await.code(), Some(0));
}

const TOPICS: u64 = 10_000;

/// Publishes the topics over MQTT, acknowledged, a hundred at a time.
async fn publish_many(mqtt: SocketAddr) {
    let mut publisher = MqttPeer::<4>::open(mqtt, Connect::named("publisher")).await;
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < TOPICS {
        while sent < TOPICS && sent < acknowledged + 100 {
            sent += 1;
            let (topic, payload) = (format!("many/{sent}"), format!("value {sent}"));
            publisher
                .publish(Publish::state(sent, &topic, payload.as_bytes()))
                .await;
        }
        acknowledged += 1;
        assert_eq!(recv(&mut publisher).await, Incoming::Acked(acknowledged));
    }
    publisher.leave().await;
}

#[tokio::test]
async fn ten_thousand_retained_topics_arrive_whole_at_a_websocket() {
    let server = Server::ephemeral().await;
    publish_many(server.mqtt).await;
    let mut reader = Observer::open(server.http, false).await;
    reader.subscribe(Subscribe::to(1, "many/#")).await;
    let mut topics = BTreeSet::new();
    loop {
        match recv(&mut reader).await {
            Incoming::Message(message) => assert!(topics.insert(message.topic), "twice"),
            Incoming::Synced(1, _) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(topics.len() as u64, TOPICS);
}

#[tokio::test]
async fn ten_thousand_retained_topics_arrive_whole_at_mosquitto_sub() {
    let Some(_) = installed("mosquitto_sub") else {
        return;
    };
    let server = Server::ephemeral().await;
    publish_many(server.mqtt).await;
    for qos in ["0", "1"] {
        let mut child =
            mosquitto_sub(server.mqtt, &["-t", "many/#", "-q", qos, "-F", "%r %t %p"]).unwrap();
        let mut printed = lines(&mut child);
        let mut topics = BTreeMap::new();
        while topics.len() < TOPICS as usize {
            let line = within("a topic", printed.next_line())
                .await
                .unwrap()
                .unwrap();
            let (topic, value) = line
                .strip_prefix("1 many/")
                .unwrap()
                .split_once(' ')
                .unwrap();
            let before = topics.insert(topic.to_owned(), value.to_owned());
            assert_eq!(before, None, "{topic} twice");
        }
        for (topic, value) in topics {
            assert_eq!(value, format!("value {topic}"));
        }
        // And nothing more before what is live.
        let mut publisher = MqttPeer::<4>::open(server.mqtt, Connect::named("live")).await;
        publisher
            .publish(Publish::event(1, "many/live", b"now"))
            .await;
        assert_eq!(recv(&mut publisher).await, Incoming::Acked(1));
        let line = within("what is live", printed.next_line()).await.unwrap();
        assert_eq!(line.unwrap(), "0 many/live now");
        child.kill().await.unwrap();
    }
}

fn mosquitto_sub(mqtt: SocketAddr, arguments: &[&str]) -> Option<Child> {
    let mut command = installed("mosquitto_sub")?;
    command.args(["-h", &mqtt.ip().to_string(), "-p", &mqtt.port().to_string()]);
    Some(
        command
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    )
}

#[tokio::test]
async fn a_press_by_mosquitto_pub_reaches_mosquitto_sub_and_a_websocket() {
    let Some(mut press) = installed("mosquitto_pub") else {
        return;
    };
    let server = Server::ephemeral().await;
    let Some(mut child) = mosquitto_sub(server.mqtt, &["-t", "clicks/#", "-v"]) else {
        return;
    };
    let mut printed = lines(&mut child);
    let mut wait_for = async |line: &str| {
        within(line, async {
            while printed.next_line().await.unwrap().unwrap() != line {}
        })
        .await;
    };
    // The retained values: it is subscribed.
    wait_for(r#"clicks/main/values {"red":0,"blue":0}"#).await;
    let mut observer = observer(server.http).await;
    assert_eq!(at_least(&mut observer, 0).await, 0);

    press.args(["-h", "127.0.0.1", "-p", &server.mqtt.port().to_string()]);
    press.args(["-t", "clicks/main/kiosk-1/press", "-m", "red"]);
    let status = within("mosquitto_pub", press.status()).await.unwrap();
    assert!(status.success());
    wait_for(r#"clicks/main/values {"red":1,"blue":0}"#).await;
    assert_eq!(
        message(&mut observer).await.payload,
        r#"{"red":1,"blue":0}"#
    );

    // And the other way: a tab of the page is a device on a WebSocket.
    let topic = "clicks/main/web-0badcafe/count/1-0000beef";
    observer
        .publish(Publish::state(9, topic, br#"{"red":0,"blue":2}"#))
        .await;
    wait_for(r#"clicks/main/values {"red":1,"blue":2}"#).await;
    wait_for(r#"clicks/main/share {"red":33.3,"blue":66.7}"#).await;
    child.kill().await.unwrap();
    assert_eq!(server.stop().await.code(), Some(0));
}

/// A hundred thousand changes of a topic that a WebSocket client does not read.
#[tokio::test]
async fn a_client_that_stops_reading_does_not_cost_memory() {
    const CHANGES: u64 = 100_000;
    const VALUE_BYTES: usize = 1 << 10;
    /// A quarter of what was published.
    const MOST_GROWTH: u64 = 25 << 20;

    let server = Server::ephemeral().await;
    let mut slow = Observer::open(server.http, true).await;
    slow.subscribe(Subscribe::to(1, "slow/topic")).await;
    assert!(matches!(recv(&mut slow).await, Incoming::Synced(1, _)));

    let mut publisher = MqttPeer::<5>::open(server.mqtt, Connect::named("publisher")).await;
    let mut publish = async |topic: &str, n: u64| {
        let value = format!("{n:0VALUE_BYTES$}");
        // Some are acknowledged, so that the publisher is no faster than the server.
        let id = n.is_multiple_of(500).then_some(n / 500 + 1);
        publisher
            .publish(Publish {
                id,
                ..Publish::state(1, topic, value.as_bytes())
            })
            .await;
        if let Some(id) = id {
            assert_eq!(recv(&mut publisher).await, Incoming::Acked(id));
        }
    };
    // Fills the recent ring, which keeps 16 MiB for everybody.
    for n in 1..=20_000 {
        publish("warm/up", n).await;
    }
    let before = server.resident_bytes();
    for n in 1..=CHANGES {
        publish("slow/topic", n).await;
    }
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < MOST_GROWTH, "{growth} bytes more");

    let (mut last, mut read) = (0, 0);
    while last < CHANGES {
        let payload = message(&mut slow).await.payload;
        let n: u64 = core::str::from_utf8(&payload).unwrap().parse().unwrap();
        assert!(n > last, "{n} after {last}");
        (last, read) = (n, read + 1);
    }
    assert!(read < CHANGES / 4, "{read} messages were kept for it");
}

#[tokio::test]
async fn sigterm_says_goodbye_and_ends_in_time() {
    let server = Server::ephemeral().await;
    let mut websocket = observer(server.http).await;
    at_least(&mut websocket, 0).await;
    let mut mqtt = MqttPeer::<5>::open(server.mqtt, Connect::named("peer")).await;
    // It never answers the goodbye.
    let silent = Observer::open(server.http, true).await;

    let begun = Instant::now();
    let (status, goodbye, disconnect) = tokio::join!(
        server.stop(),
        async {
            loop {
                if let Incoming::Ended(end) = recv(&mut websocket).await {
                    return end;
                }
            }
        },
        recv(&mut mqtt),
    );
    assert_eq!(status.code(), Some(0));
    // Users are promised 5 s. A busy machine may be ten times as slow.
    assert!(begun.elapsed().as_secs() < 50);
    assert_eq!(goodbye, End::GoingAway);
    assert_eq!(disconnect, Incoming::Ended(End::GoingAway));
    drop(silent);
}

#[tokio::test]
async fn a_device_that_is_sent_to_the_port_of_the_web_page_says_so() {
    let server = Server::ephemeral().await;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("mqtt://{}", server.http);
    let mut device = simulation("k1", &url, directory.path());
    device.args(["--timeout", "2s"]).stderr(Stdio::piped());
    let output = within("the device ends", device.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("an HTTP server, not MQTT"), "{said}");
}
