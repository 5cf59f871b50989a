//! Clients that others wrote, and ours, against the server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use latchbus_bus::Options as BusOptions;
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_mqtt::client::{Client, Link, Message, Options, SendError, Will};
use latchbus_mqtt::server::Config;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use support::{DEADLINE, Running, eventually};
use tokio::time::timeout;

fn topic(name: &str) -> TopicName<&str> {
    TopicName::parse(name).unwrap()
}

fn filter(name: &str) -> TopicFilter<&str> {
    TopicFilter::parse(name).unwrap()
}

fn options(running: &Running, id: &str) -> Options {
    Options {
        backoff: (Duration::from_millis(5), Duration::from_millis(50)),
        ..Options::new(id, "127.0.0.1", running.address.port())
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

async fn reaches(client: &Client, state: Link) {
    soon(client.link().wait_for(|link| *link == state))
        .await
        .unwrap();
}

#[tokio::test]
async fn rumqttc_3_1_1_at_each_quality_of_service() {
    let running = Running::start().await;
    let mut options = MqttOptions::new("v4", "127.0.0.1", running.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 100);
    let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    client.subscribe("r/#", QoS::ExactlyOnce).await.unwrap();
    for qos in all {
        for number in 0..20 {
            client
                .publish(format!("r/{number}"), qos, true, "x")
                .await
                .unwrap();
        }
    }
    let mut received = Vec::new();
    soon(async {
        while received.len() < 60 {
            if let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
                received.push((publish.qos as u8, publish.topic));
            }
        }
    })
    .await;
    let expected: Vec<_> = (0..60).map(|n| (n / 20, format!("r/{}", n % 20))).collect();
    assert_eq!(received, expected);
    running.stop().await;
}

#[tokio::test]
async fn rumqttc_5_at_each_quality_of_service() {
    let running = Running::start().await;
    let mut options = rumqttc::v5::MqttOptions::new("v5", "127.0.0.1", running.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = rumqttc::v5::AsyncClient::new(options, 100);
    let all = [QoS5::AtMostOnce, QoS5::AtLeastOnce, QoS5::ExactlyOnce];
    client.subscribe("r/#", QoS5::ExactlyOnce).await.unwrap();
    for qos in all {
        for number in 0..20 {
            client
                .publish(format!("r/{number}"), qos, true, "x")
                .await
                .unwrap();
        }
    }
    let mut received = Vec::new();
    soon(async {
        while received.len() < 60 {
            let event = events.poll().await.unwrap();
            if let rumqttc::v5::Event::Incoming(rumqttc::v5::Incoming::Publish(publish)) = event {
                let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                received.push((publish.qos as u8, topic));
            }
        }
    })
    .await;
    let expected: Vec<_> = (0..60).map(|n| (n / 20, format!("r/{}", n % 20))).collect();
    assert_eq!(received, expected);
    running.stop().await;
}

/// A persistent session with QoS 2, and a will: what rumqttc does for either version.
macro_rules! session_and_will {
    ($name:ident, $rumqttc:path, $event:path, $packet:path, $options:expr, $will:expr) => {
        #[tokio::test]
        async fn $name() {
            use $event as Event;
            use $packet as Packet;
            use $rumqttc::{AsyncClient, mqttbytes::QoS};

            let running = Running::start().await;
            let port = running.address.port();
            let (client, mut events) = AsyncClient::new($options("keeper", port, None), 10);
            client.subscribe("kept/#", QoS::ExactlyOnce).await.unwrap();
            soon(async {
                while !matches!(events.poll().await, Ok(Event::Incoming(Packet::SubAck(_)))) {}
            })
            .await;
            // It leaves as a crash does, and its will reaches nobody but the topic.
            drop((client, events));
            eventually(|| running.server.metrics().sessions_away.get() == 1).await;
            for number in 0..300 {
                running
                    .publish("kept/x", &number.to_string(), false, 2)
                    .await;
            }
            let will = Some($will);
            let (client, mut events) = AsyncClient::new($options("keeper", port, will), 10);
            let mut received = Vec::new();
            soon(async {
                while received.len() < 300 {
                    match events.poll().await.unwrap() {
                        Event::Incoming(Packet::ConnAck(ack)) => assert!(ack.session_present),
                        Event::Incoming(Packet::Publish(publish)) => {
                            received.push(publish.payload);
                        }
                        _ => {}
                    }
                }
            })
            .await;
            let expected: Vec<_> = (0..300).map(|number: u32| number.to_string()).collect();
            assert_eq!(received, expected);
            drop((client, events));
            let will = || running.bus.last(topic("will"));
            eventually(|| will().is_some()).await;
            assert_eq!(will().unwrap().payload.bytes(), "gone");
            running.stop().await;
        }
    };
}

session_and_will!(
    rumqttc_3_1_1_persistent_session_and_will,
    rumqttc,
    rumqttc::Event,
    rumqttc::Packet,
    |id: &str, port, will: Option<rumqttc::LastWill>| {
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_clean_session(false);
        if let Some(will) = will {
            options.set_last_will(will);
        }
        options
    },
    rumqttc::LastWill::new("will", "gone", QoS::AtLeastOnce, true)
);

session_and_will!(
    rumqttc_5_persistent_session_and_will,
    rumqttc::v5,
    rumqttc::v5::Event,
    rumqttc::v5::mqttbytes::v5::Packet,
    |id: &str, port, will: Option<rumqttc::v5::mqttbytes::v5::LastWill>| {
        let mut options = rumqttc::v5::MqttOptions::new(id, "127.0.0.1", port);
        options.set_clean_start(false);
        options.set_connect_properties(rumqttc::v5::mqttbytes::v5::ConnectProperties {
            session_expiry_interval: Some(300),
            ..rumqttc::v5::mqttbytes::v5::ConnectProperties::new()
        });
        if let Some(will) = will {
            options.set_last_will(will);
        }
        options
    },
    rumqttc::v5::mqttbytes::v5::LastWill::new("will", "gone", QoS5::AtLeastOnce, true, None)
);

#[tokio::test]
async fn our_client_publishes_subscribes_and_confirms() {
    let running = Running::start().await;
    running.publish("c/old", "1", true, 2).await;
    let client = Client::connect(options(&running, "ours"));
    let mut messages = client.subscribe(filter("c/#"));
    let retained = soon(messages.next()).await.unwrap();
    assert!(retained.retained && retained.payload == "1");
    client.publish(topic("c/event"), "x").unwrap();
    let expected = Message {
        topic: TopicName::parse("c/event".to_owned()).unwrap(),
        payload: "x".into(),
        retained: false,
    };
    assert_eq!(soon(messages.next()).await, Some(expected));

    assert!(client.confirmed(topic("s")).is_none());
    for number in 0..1_000 {
        client.set(topic("s"), number.to_string(), false).unwrap();
    }
    let mut confirmed = client.confirmed(topic("s")).unwrap();
    soon(confirmed.wait_for(|value| value.as_deref() == Some(b"999")))
        .await
        .unwrap();
    soon(client.settled()).await;
    let last = running.bus.last(topic("s")).unwrap();
    assert_eq!(last.payload.bytes(), "999");
    // Of a thousand changes made at once, the last mattered.
    assert!(running.bus.metrics().messages_received.get() < 100);

    let too_large = Bytes::from(vec![0; 256 << 10]);
    let refused = client.set(topic("large"), too_large, false);
    assert!(matches!(refused, Err(SendError::TooLarge { .. })));
    drop(messages);
    client.publish(topic("c/event"), "y").unwrap();
    soon(client.settled()).await;

    client.close().await;
    assert_eq!(*client.link().borrow(), Link::Closed);
    let mut after = client.subscribe(filter("c/#"));
    assert_eq!(after.next().await, None);
    eventually(|| running.bus.metrics().connections.get() == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn a_server_that_comes_back_empty_is_told_again() {
    let running = Running::start().await;
    let address = running.address;
    let client = Client::connect(options(&running, "ours"));
    let mut messages = client.subscribe(filter("other"));
    client.set(topic("mine"), "1", false).unwrap();
    soon(client.settled()).await;
    running.stop().await;
    reaches(&client, Link::Offline).await;
    client.set(topic("mine"), "2", false).unwrap();
    client.set(topic("mine"), "3", false).unwrap();
    client.set(topic("also"), "1", false).unwrap();
    client.publish(topic("event"), "1").unwrap();

    let running = Running::on(address, BusOptions::default(), Config::default()).await;
    reaches(&client, Link::Online).await;
    soon(client.settled()).await;
    assert_eq!(
        running.bus.last(topic("mine")).unwrap().payload.bytes(),
        "3"
    );
    assert_eq!(
        running.bus.last(topic("also")).unwrap().payload.bytes(),
        "1"
    );
    assert_eq!(running.bus.metrics().messages_received.get(), 3);
    running.publish("other", "hello", true, 2).await;
    assert_eq!(soon(messages.next()).await.unwrap().payload, "hello");
    running.stop().await;
}

#[tokio::test]
async fn our_clients_will() {
    let running = Running::start().await;
    let will = |payload: &'static str| Options {
        will: Some(Will {
            topic: TopicName::parse("status".to_owned()).unwrap(),
            payload: payload.into(),
            retain: true,
        }),
        ..options(&running, payload)
    };
    let status = || {
        running
            .bus
            .last(topic("status"))
            .map(|last| last.payload.bytes().clone())
    };
    let polite = Client::connect(will("polite"));
    reaches(&polite, Link::Online).await;
    polite.close().await;
    eventually(|| running.bus.metrics().connections.get() == 0).await;
    assert_eq!(status(), None);
    let dropped = Client::connect(will("dropped"));
    reaches(&dropped, Link::Online).await;
    drop(dropped);
    eventually(|| status().as_deref() == Some(b"dropped")).await;
    running.stop().await;
}

#[tokio::test]
async fn a_stream_that_nobody_reads_drops_the_oldest() {
    let running = Running::start().await;
    let client = Client::connect(Options {
        max_messages: 10,
        ..options(&running, "slow")
    });
    let mut slow = client.subscribe(filter("n"));
    let mut done = client.subscribe(filter("done"));
    reaches(&client, Link::Online).await;
    // Both are there when a message to the second has come back.
    running.publish("done", "0", true, 2).await;
    soon(done.next()).await.unwrap();
    for number in 0..100 {
        running.publish("n", &number.to_string(), false, 2).await;
    }
    eventually(|| slow.missed() == 90).await;
    assert_eq!(soon(slow.next()).await.unwrap().payload, "90");
    client.close().await;
    assert_eq!(slow.by_ref().count().await, 9);
    running.stop().await;
}
