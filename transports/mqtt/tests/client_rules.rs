//! The rules by which the client uses rumqttc, each against our server, mosquitto and rumqttd.
//!
//! mosquitto is started where it is installed. rumqttd takes minutes to build: it is started where
//! `LATCHBUS_RUMQTTD` names the program of `tests/mqtt/rumqttd`, as `tests/run` does. With `CI=true` a missing
//! peer fails, there or here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::net::SocketAddr;
use core::time::Duration;
use std::process::{Child, Command, Stdio};

use futures_util::StreamExt;
use latchbus_bus::Options as BusOptions;
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_mqtt::client::{Client, Link, Messages, Options, SendError};
use latchbus_mqtt::server::Config;
use support::{DEADLINE, Running};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A broker on one port, which can be stopped and started again without what it knew.
struct Peer {
    program: Program,
    address: SocketAddr,
    running: Option<Instance>,
}

#[derive(Debug, Clone)]
enum Program {
    Ours,
    Mosquitto,
    Rumqttd(String),
}

enum Instance {
    Ours(Running),
    Child(Child),
}

impl Peer {
    /// Every broker that there is here.
    async fn all() -> Vec<Self> {
        let mut programs = vec![Program::Ours];
        let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
        let there = Command::new("mosquitto")
            .arg("-h")
            .stdout(Stdio::null())
            .status();
        match there {
            Ok(_) => programs.push(Program::Mosquitto),
            Err(error) => assert!(!must, "mosquitto: {error}"),
        }
        if let Ok(program) = std::env::var("LATCHBUS_RUMQTTD") {
            programs.push(Program::Rumqttd(program));
        }
        let mut peers = Vec::new();
        for program in programs {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let mut peer = Self {
                program,
                address,
                running: None,
            };
            peer.start().await;
            peers.push(peer);
        }
        peers
    }

    async fn start(&mut self) {
        let port = self.address.port().to_string();
        let child = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            Instance::Child(command.spawn().unwrap())
        };
        self.running = Some(match &self.program {
            Program::Ours => Instance::Ours(
                Running::on(self.address, BusOptions::default(), Config::default()).await,
            ),
            Program::Mosquitto => child("mosquitto", &["-p", &port]),
            Program::Rumqttd(program) => child(program, &[&port]),
        });
        let listening = async {
            while TcpStream::connect(self.address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, listening).await.expect("it listens");
    }

    async fn stop(&mut self) {
        match self.running.take() {
            Some(Instance::Ours(running)) => running.stop().await,
            Some(Instance::Child(mut child)) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            None => {}
        }
    }

    fn options(&self, id: &str) -> Options {
        Options {
            backoff: (Duration::from_millis(5), Duration::from_millis(50)),
            ..Options::new(id, "127.0.0.1", self.address.port())
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(Instance::Child(child)) = &mut self.running {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

fn topic(name: &str) -> TopicName<&str> {
    TopicName::parse(name).unwrap()
}

fn filter(name: &str) -> TopicFilter<&str> {
    TopicFilter::parse(name).unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

async fn reaches(client: &Client, state: Link) {
    soon(client.link().wait_for(|link| *link == state))
        .await
        .unwrap();
}

/// Reads until a message says this.
async fn hears(messages: &mut Messages, payload: &str) {
    soon(async {
        while messages.next().await.expect("the client lives").payload != payload.as_bytes() {}
    })
    .await;
}

/// Rule: one task does nothing but poll. However the callers come and go, every event arrives, in order.
#[tokio::test]
async fn one_task_polls_and_callers_may_be_dropped() {
    for mut peer in Peer::all().await {
        let client = Client::connect(peer.options("one"));
        let reader = Client::connect(peer.options("reader"));
        let mut messages = reader.subscribe(filter("one/#"));
        reaches(&reader, Link::Online).await;
        client.set(topic("one/first"), "first", false).unwrap();
        hears(&mut messages, "first").await;
        for number in 0..500 {
            client
                .publish(topic("one/event"), number.to_string())
                .unwrap();
            // Waits that are given up in the middle.
            if number % 10 == 0 {
                let _given_up = timeout(Duration::from_micros(50), client.settled()).await;
            }
        }
        soon(client.settled()).await;
        for number in 0..500 {
            let mut message = soon(messages.next()).await.unwrap();
            // rumqttd may send a retained message to a new subscriber twice.
            while message.topic.as_str() == "one/first" {
                message = soon(messages.next()).await.unwrap();
            }
            assert_eq!(message.payload, number.to_string(), "{:?}", peer.program);
        }
        client.close().await;
        reader.close().await;
        peer.stop().await;
    }
}

/// Rule: back off with jitter. A server that ends every connection is asked a few times a second.
#[tokio::test]
async fn a_server_that_hangs_up_is_not_flooded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = Client::connect(Options {
        backoff: (Duration::from_millis(50), Duration::from_millis(400)),
        ..Options::new("flood", "127.0.0.1", port)
    });
    let mut attempts = 0;
    // It goes on trying, however busy the machine is.
    for _ in 0..4 {
        drop(soon(listener.accept()).await.unwrap());
    }
    let counting = async {
        loop {
            drop(listener.accept().await.unwrap());
            attempts += 1;
        }
    };
    let _over = timeout(Duration::from_secs(2), counting).await;
    // With full jitter a wait is half of its bound on average: 25, 50, 100, 200, 200 … ms.
    assert!(attempts <= 36, "{attempts} attempts in 2 s");
    drop(client);
}

/// Rule: after a CONNACK without a session, subscribe again and publish the state again.
#[tokio::test]
async fn a_broker_that_has_forgotten_is_told_again() {
    for mut peer in Peer::all().await {
        let client = Client::connect(peer.options("told"));
        let mut commands = client.subscribe(filter("told/command"));
        client.set(topic("told/state"), "1", false).unwrap();
        client.set(topic("told/also"), "1", false).unwrap();
        soon(client.settled()).await;
        for round in 2..4 {
            peer.stop().await;
            reaches(&client, Link::Offline).await;
            client
                .set(topic("told/state"), round.to_string(), false)
                .unwrap();
            peer.start().await;
            reaches(&client, Link::Online).await;
            soon(client.settled()).await;
            let observer = Client::connect(peer.options("observer"));
            let mut state = observer.subscribe(filter("told/#"));
            let mut seen = Vec::new();
            while seen.len() < 2 {
                let message = soon(state.next()).await.unwrap();
                seen.push((message.topic.to_string(), message.payload));
            }
            seen.sort();
            let expected = [
                ("told/also".to_owned(), "1".into()),
                ("told/state".to_owned(), round.to_string().into()),
            ];
            assert_eq!(seen, expected, "{:?}", peer.program);
            observer
                .publish(topic("told/command"), round.to_string())
                .unwrap();
            hears(&mut commands, &round.to_string()).await;
            observer.close().await;
        }
        client.close().await;
        peer.stop().await;
    }
}

/// Rule: `set_max_packet_size`, whose default is 10 KiB, and a check before publishing.
#[tokio::test]
async fn large_messages_pass_and_larger_ones_are_refused_here() {
    for mut peer in Peer::all().await {
        let client = Client::connect(peer.options("large"));
        let mut messages = client.subscribe(filter("large"));
        let large = "x".repeat(60 << 10);
        client.set(topic("large"), large.clone(), false).unwrap();
        hears(&mut messages, &large).await;
        let larger = client.set(topic("large"), "x".repeat(257 << 10), false);
        assert!(matches!(larger, Err(SendError::TooLarge { .. })));
        client.set(topic("large"), "small", false).unwrap();
        hears(&mut messages, "small").await;
        client.close().await;
        peer.stop().await;
    }
}

/// Rule: `clean_session = false` and a stable id, where QoS 1 must not lose.
#[tokio::test]
async fn what_comes_while_a_persistent_client_is_away_reaches_it() {
    for mut peer in Peer::all().await {
        let persistent = || Options {
            clean_session: false,
            ..peer.options("persistent")
        };
        let first = Client::connect(persistent());
        let mut messages = first.subscribe(filter("away/event"));
        let writer = Client::connect(peer.options("writer"));
        writer
            .set(topic("away/event"), "subscribed", false)
            .unwrap();
        hears(&mut messages, "subscribed").await;
        soon(writer.settled()).await;
        first.close().await;
        for number in 0..50 {
            writer
                .publish(topic("away/event"), number.to_string())
                .unwrap();
        }
        soon(writer.settled()).await;
        let second = Client::connect(persistent());
        let mut messages = second.subscribe(filter("away/event"));
        for number in 0..50 {
            hears(&mut messages, &number.to_string()).await;
        }
        second.close().await;
        writer.close().await;
        peer.stop().await;
    }
}

/// Rule: `try_publish` from another task, and conflation by topic where its queue is full.
#[tokio::test]
async fn of_a_thousand_changes_the_newest_arrives_and_nobody_waits() {
    for mut peer in Peer::all().await {
        let client = Client::connect(peer.options("fast"));
        let reader = Client::connect(peer.options("reader"));
        let mut messages = reader.subscribe(filter("fast/#"));
        reaches(&client, Link::Online).await;
        reaches(&reader, Link::Online).await;
        for change in 0..1_000 {
            for number in 0..100 {
                client
                    .set(topic(&format!("fast/{number}")), change.to_string(), false)
                    .unwrap();
            }
        }
        soon(client.settled()).await;
        let mut newest = std::collections::BTreeMap::new();
        let mut received = 0;
        soon(async {
            while newest.len() < 100 || newest.values().any(|value| value != "999") {
                let message = messages.next().await.unwrap();
                received += 1;
                newest.insert(message.topic.to_string(), message.payload);
            }
        })
        .await;
        assert!(
            received < 10_000,
            "{received} of 100,000: {:?}",
            peer.program
        );
        client.close().await;
        reader.close().await;
        peer.stop().await;
    }
}
