//! What MQTT 3.1.1 clients may rely on, over TCP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::num::NonZeroU16;
use std::collections::BTreeSet;
use std::sync::Arc;

use latchbus_bus::{Authorizer, Grant, Options, Principal, PublishRequest};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::{Connect, LastWill, Packet, SubscribeReturnCode};
use support::{Raw, Running, client, eventually, publish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn id(id: u16) -> NonZeroU16 {
    id.try_into().unwrap()
}

/// Acknowledges one message as its quality of service asks.
async fn acknowledge(raw: &mut Raw, publish: &rmqtt_codec::types::Publish) {
    match (publish.qos, publish.packet_id) {
        (QoS::AtLeastOnce, Some(packet_id)) => raw.send(Packet::PublishAck { packet_id }).await,
        (QoS::ExactlyOnce, Some(packet_id)) => {
            raw.send(Packet::PublishReceived { packet_id }).await;
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_lower_quality_of_service_counts() {
    let running = Running::start().await;
    let mut publisher = Raw::clean(running.address, "publisher").await;
    let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for subscribed in all {
        let mut subscriber = Raw::clean(running.address, "subscriber").await;
        subscriber.subscribe("a/+", subscribed).await;
        for (number, published) in all.into_iter().enumerate() {
            let packet_id = number as u16;
            publisher
                .send(publish("a/b", "x", published, packet_id))
                .await;
            match published {
                QoS::AtMostOnce => {}
                QoS::AtLeastOnce => {
                    let ack = Packet::PublishAck {
                        packet_id: id(packet_id),
                    };
                    assert_eq!(publisher.next().await, ack);
                }
                QoS::ExactlyOnce => {
                    let packet_id = id(packet_id);
                    assert_eq!(
                        publisher.next().await,
                        Packet::PublishReceived { packet_id }
                    );
                    publisher.send(Packet::PublishRelease { packet_id }).await;
                    assert_eq!(
                        publisher.next().await,
                        Packet::PublishComplete { packet_id }
                    );
                }
            }
            let message = subscriber.message().await;
            assert_eq!(message.qos, published.less_value(subscribed));
            assert_eq!((&*message.topic, &*message.payload), ("a/b", &b"x"[..]));
            assert!(!message.retain && !message.dup);
            acknowledge(&mut subscriber, &message).await;
            if message.qos == QoS::ExactlyOnce {
                let packet_id = message.packet_id.unwrap();
                assert_eq!(
                    subscriber.next().await,
                    Packet::PublishRelease { packet_id }
                );
                subscriber.send(Packet::PublishComplete { packet_id }).await;
            }
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn ten_thousand_retained_messages_arrive_whole() {
    const TOPICS: usize = 10_000;
    let running = Running::start().await;
    for number in 0..TOPICS {
        running
            .publish(&format!("many/{number}"), "v", true, 2)
            .await;
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut subscriber = Raw::clean(running.address, "s").await;
        subscriber.subscribe("many/#", qos).await;
        let mut seen = BTreeSet::new();
        let mut in_flight = BTreeSet::new();
        while seen.len() < TOPICS || !in_flight.is_empty() {
            match subscriber.next().await {
                Packet::Publish(message) => {
                    assert!(message.retain && message.qos == qos);
                    if qos == QoS::ExactlyOnce {
                        assert!(in_flight.insert(message.packet_id));
                        assert!(in_flight.len() <= 256);
                    }
                    acknowledge(&mut subscriber, &message).await;
                    assert!(
                        seen.insert(message.topic.clone()),
                        "{} twice",
                        message.topic
                    );
                }
                Packet::PublishRelease { packet_id } => {
                    assert!(in_flight.remove(&Some(packet_id)));
                    subscriber.send(Packet::PublishComplete { packet_id }).await;
                }
                other => panic!("{other:?}"),
            }
        }
        subscriber.quiet().await;
    }
    running.stop().await;
}

#[tokio::test]
async fn retained_is_a_flag_of_the_snapshot() {
    let running = Running::start().await;
    running.publish("r/1", "old", true, 2).await;
    let mut subscriber = Raw::clean(running.address, "s").await;
    subscriber.subscribe("r/#", QoS::AtMostOnce).await;
    let message = subscriber.message().await;
    assert!(message.retain && message.payload == "old");

    let mut publisher = Raw::clean(running.address, "p").await;
    let Packet::Publish(mut retained) = publish("r/1", "new", QoS::AtMostOnce, 0) else {
        unreachable!()
    };
    retained.retain = true;
    publisher.send(Packet::Publish(retained.clone())).await;
    let message = subscriber.message().await;
    assert!(!message.retain && message.payload == "new");

    // MQTT 3.1.1 §3.8.4: subscribing again brings the retained message again.
    subscriber.subscribe("r/#", QoS::AtMostOnce).await;
    let message = subscriber.message().await;
    assert!(message.retain && message.payload == "new");

    // An empty message clears when it is retained, and only then.
    publisher.send(publish("r/1", "", QoS::AtMostOnce, 0)).await;
    assert_eq!(subscriber.message().await.payload, "");
    let topic = TopicName::parse("r/1").unwrap();
    assert!(running.bus.last(topic).is_some());
    retained.payload = Default::default();
    publisher.send(Packet::Publish(retained)).await;
    let message = subscriber.message().await;
    assert!(!message.retain && message.payload.is_empty());
    assert!(running.bus.last(topic).is_none());
    running.stop().await;
}

#[tokio::test]
async fn unsubscribe_ends_the_messages() {
    let running = Running::start().await;
    let mut subscriber = Raw::clean(running.address, "s").await;
    subscriber.subscribe("u/a", QoS::AtMostOnce).await;
    // MQTT-3.10.4-1: filters that match the same are others.
    for (number, filters, ends) in [
        (8, &["u/+", "u/#", "#", "+/a", "U/a", "u/a/"][..], false),
        (9, &["u/a", "never/there"], true),
    ] {
        let topic_filters = filters.iter().map(|filter| (*filter).into()).collect();
        let packet_id = id(number);
        subscriber
            .send(Packet::Unsubscribe {
                packet_id,
                topic_filters,
            })
            .await;
        assert_eq!(
            subscriber.next().await,
            Packet::UnsubscribeAck { packet_id }
        );
        running.publish("u/a", "x", true, 2).await;
        match ends {
            true => assert_eq!(running.bus.read(|hub| hub.subscriptions()), 0),
            false => assert_eq!(subscriber.message().await.payload, "x"),
        }
        subscriber.quiet().await;
    }
    // What has ended can begin anew.
    subscriber.subscribe("u/a", QoS::AtMostOnce).await;
    assert!(subscriber.message().await.retain);
    subscriber.quiet().await;
    running.stop().await;
}

#[tokio::test]
async fn one_filter_twice_in_one_packet_is_one_subscription() {
    let running = Running::start().await;
    running.publish("d", "retained", true, 2).await;
    let mut subscriber = Raw::clean(running.address, "s").await;
    let topic_filters = vec![
        ("d".into(), QoS::AtMostOnce),
        ("d".into(), QoS::AtLeastOnce),
    ];
    let packet_id = id(3);
    subscriber
        .send(Packet::Subscribe {
            packet_id,
            topic_filters,
        })
        .await;
    let status = vec![
        SubscribeReturnCode::Success(QoS::AtMostOnce),
        SubscribeReturnCode::Success(QoS::AtLeastOnce),
    ];
    assert_eq!(
        subscriber.next().await,
        Packet::SubscribeAck { packet_id, status }
    );
    // The second begins the snapshot again, of which nothing was sent: it comes once, as the second has it.
    let retained = subscriber.message().await;
    assert_eq!((retained.qos, retained.retain), (QoS::AtLeastOnce, true));
    subscriber.quiet().await;
    running.publish("d", "x", true, 2).await;
    let live = subscriber.message().await;
    assert_eq!((live.qos, live.retain), (QoS::AtLeastOnce, false));
    subscriber.quiet().await;
    // MQTT-3.8.4-3: the same filter again brings what is retained again, and stays one subscription.
    subscriber.subscribe("d", QoS::AtMostOnce).await;
    let again = subscriber.message().await;
    assert_eq!((again.qos, again.retain), (QoS::AtMostOnce, true));
    subscriber.quiet().await;
    running.publish("d", "y", true, 2).await;
    assert_eq!(subscriber.message().await.payload, "y");
    subscriber.quiet().await;
    running.stop().await;
}

struct Rules;

impl Authorizer for Rules {
    fn authorize_connect(&self, principal: &Principal) -> bool {
        principal.client_id != "stranger"
    }

    fn authorize_publish(&self, _principal: &Principal, publish: &PublishRequest<'_>) -> bool {
        publish.topic.as_str() != "closed"
    }

    fn authorize_subscribe(
        &self,
        _principal: &Principal,
        filter: TopicFilter<&str>,
    ) -> Option<Grant> {
        (filter.as_str() != "secret").then(Grant::default)
    }
}

#[tokio::test]
async fn what_rules_refuse() {
    let options = Options {
        authorizer: Arc::new(Rules),
        ..Options::default()
    };
    let running = Running::with(options, Config::default()).await;
    let mut stranger = Raw::open(running.address).await;
    stranger
        .send(Packet::Connect(Box::new(client("stranger", true))))
        .await;
    match stranger.next().await {
        Packet::ConnectAck(ack) => assert_eq!(u8::from(ack.return_code), 5),
        other => panic!("{other:?}"),
    }
    assert_eq!(stranger.next_or_end().await, None);

    let mut raw = Raw::clean(running.address, "friend").await;
    let topic_filters = vec![
        ("secret".into(), QoS::AtMostOnce),
        ("closed".into(), QoS::AtMostOnce),
        ("one".into(), QoS::AtLeastOnce),
        ("two".into(), QoS::ExactlyOnce),
    ];
    let packet_id = id(1);
    raw.send(Packet::Subscribe {
        packet_id,
        topic_filters,
    })
    .await;
    let status = vec![
        SubscribeReturnCode::Failure,
        SubscribeReturnCode::Success(QoS::AtMostOnce),
        SubscribeReturnCode::Success(QoS::AtLeastOnce),
        SubscribeReturnCode::Success(QoS::ExactlyOnce),
    ];
    assert_eq!(raw.next().await, Packet::SubscribeAck { packet_id, status });
    // MQTT 3.1.1 §3.3.5: acknowledged and dropped.
    raw.send(publish("closed", "x", QoS::AtLeastOnce, 2)).await;
    assert_eq!(raw.next().await, Packet::PublishAck { packet_id: id(2) });
    raw.send(publish("closed", "x", QoS::ExactlyOnce, 3)).await;
    assert_eq!(
        raw.next().await,
        Packet::PublishReceived { packet_id: id(3) }
    );
    raw.quiet().await;
    assert_eq!(running.bus.metrics().publishes_not_allowed.get(), 2);
    running.stop().await;
}

fn with_will(id: &str, clean_session: bool) -> Connect {
    Connect {
        last_will: Some(LastWill {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "will".into(),
            message: id.to_owned().into(),
        }),
        ..client(id, clean_session)
    }
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let running = Running::start().await;
    let will = || {
        let last = running.bus.last(TopicName::parse("will").unwrap());
        last.map(|last| last.payload.bytes().clone())
    };
    let mut observer = Raw::clean(running.address, "observer").await;
    observer.subscribe("will/#", QoS::ExactlyOnce).await;
    let (mut polite, _) = Raw::connect(running.address, with_will("polite", true)).await;
    polite.send(Packet::Disconnect).await;
    assert_eq!(polite.next_or_end().await, None);
    assert_eq!(will(), None);

    let (cut, _) = Raw::connect(running.address, with_will("cut", true)).await;
    drop(cut);
    eventually(|| will().as_deref() == Some(b"cut")).await;

    let (mut broken, _) = Raw::connect(running.address, with_will("broken", true)).await;
    broken.stream.write_all(&[0x00, 0x00]).await.unwrap();
    assert_eq!(broken.next_or_end().await, None);
    eventually(|| will().as_deref() == Some(b"broken")).await;

    let (mut old, _) = Raw::connect(running.address, with_will("taken", true)).await;
    let mut new = Raw::clean(running.address, "taken").await;
    // The will was published before the new connection was accepted.
    assert_eq!(will().as_deref(), Some(&b"taken"[..]));
    assert_eq!(old.next_or_end().await, None);
    new.quiet().await;

    // MQTT-3.1.2-16: one that is not to be retained is not.
    let brief = Connect {
        last_will: Some(LastWill {
            qos: QoS::ExactlyOnce,
            retain: false,
            topic: "will/brief".into(),
            message: "brief".into(),
        }),
        ..client("brief", true)
    };
    drop(Raw::connect(running.address, brief).await);
    // Each was published once, at its quality of service.
    for (word, qos) in [
        ("cut", QoS::AtLeastOnce),
        ("broken", QoS::AtLeastOnce),
        ("taken", QoS::AtLeastOnce),
        ("brief", QoS::ExactlyOnce),
    ] {
        let published = observer.message().await;
        assert_eq!(
            (&published.payload[..], published.qos),
            (word.as_bytes(), qos)
        );
    }
    observer.quiet().await;
    assert!(
        running
            .bus
            .last(TopicName::parse("will/brief").unwrap())
            .is_none()
    );
    running.stop().await;
}

/// MQTT 3.1.1 §3.14.4: a DISCONNECT is the last packet that is taken from a client.
#[tokio::test]
async fn nothing_behind_a_disconnect_is_taken() {
    let running = Running::start().await;
    let mut raw = Raw::clean(running.address, "a").await;
    let bytes = b"\xe0\x00\x31\x09\x00\x06behindx\xc0\x00";
    raw.stream.write_all(bytes).await.unwrap();
    assert_eq!(raw.next_or_end().await, None);
    eventually(|| running.bus.metrics().connections.get() == 0).await;
    assert!(
        running
            .bus
            .last(TopicName::parse("behind").unwrap())
            .is_none()
    );
    running.stop().await;
}

#[tokio::test]
async fn a_persistent_session_goes_on_in_order() {
    let running = Running::start().await;
    let (mut first, present) = Raw::connect(running.address, client("p", false)).await;
    assert!(!present);
    first.subscribe("in/order", QoS::AtLeastOnce).await;
    for number in 0..5 {
        running
            .publish("in/order", &number.to_string(), false, 1)
            .await;
    }
    let mut ids = Vec::new();
    for number in 0..5 {
        let message = first.message().await;
        assert_eq!(message.payload, number.to_string());
        ids.push(message.packet_id.unwrap());
    }
    // Out of order: the others stay in flight.
    first.send(Packet::PublishAck { packet_id: ids[2] }).await;
    first.quiet().await;
    drop(first);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    for number in 5..1_000 {
        running
            .publish("in/order", &number.to_string(), false, 1)
            .await;
    }
    let (mut second, present) = Raw::connect(running.address, client("p", false)).await;
    assert!(present);
    for number in [0, 1, 3, 4].into_iter().chain(5..1_000) {
        let message = second.message().await;
        assert_eq!(message.payload, number.to_string());
        assert_eq!(message.dup, number < 5);
        if number < 5 {
            assert_eq!(message.packet_id, Some(ids[number]));
        }
        acknowledge(&mut second, &message).await;
    }
    second.quiet().await;

    // A clean session begins without it, and leaves nothing.
    let (mut clean, present) = Raw::connect(running.address, client("p", true)).await;
    assert!(!present);
    running.publish("in/order", "x", false, 1).await;
    clean.quiet().await;
    drop(clean);
    eventually(|| running.bus.metrics().connections.get() == 0).await;
    let (_, present) = Raw::connect(running.address, client("p", false)).await;
    assert!(!present);
    running.stop().await;
}

#[tokio::test]
async fn qos_2_counts_once_over_a_reconnect() {
    let running = Running::start().await;
    let mut observer = Raw::clean(running.address, "o").await;
    observer.subscribe("once", QoS::AtMostOnce).await;

    let (mut publisher, _) = Raw::connect(running.address, client("p", false)).await;
    publisher
        .send(publish("once", "x", QoS::ExactlyOnce, 5))
        .await;
    let received = Packet::PublishReceived { packet_id: id(5) };
    assert_eq!(publisher.next().await, received);
    drop(publisher);

    let (mut publisher, present) = Raw::connect(running.address, client("p", false)).await;
    assert!(present);
    let Packet::Publish(mut again) = publish("once", "x", QoS::ExactlyOnce, 5) else {
        unreachable!()
    };
    again.dup = true;
    publisher.send(Packet::Publish(again)).await;
    assert_eq!(publisher.next().await, received);
    drop(publisher);

    // PUBREL after yet another reconnect completes it.
    let (mut publisher, _) = Raw::connect(running.address, client("p", false)).await;
    publisher
        .send(Packet::PublishRelease { packet_id: id(5) })
        .await;
    assert_eq!(
        publisher.next().await,
        Packet::PublishComplete { packet_id: id(5) }
    );
    assert_eq!(observer.message().await.payload, "x");
    observer.quiet().await;

    // Released, the identifier is free for another message.
    publisher
        .send(publish("once", "y", QoS::ExactlyOnce, 5))
        .await;
    assert_eq!(publisher.next().await, received);
    assert_eq!(observer.message().await.payload, "y");
    running.stop().await;
}

#[tokio::test]
async fn too_many_sessions_drop_the_one_that_is_away_longest() {
    let config = Config {
        max_sessions_away: 2,
        ..Config::default()
    };
    let running = Running::with(Options::default(), config).await;
    for (count, name) in ["a", "b", "c"].into_iter().enumerate() {
        let (raw, _) = Raw::connect(running.address, client(name, false)).await;
        drop(raw);
        let metrics = running.server.metrics();
        eventually(|| {
            metrics.sessions_away.get() + metrics.sessions_dropped.get() == count as u64 + 1
        })
        .await;
    }
    assert_eq!(running.server.metrics().sessions_dropped.get(), 1);
    let (_, present) = Raw::connect(running.address, client("a", false)).await;
    assert!(!present);
    let (_, present) = Raw::connect(running.address, client("c", false)).await;
    assert!(present);
    running.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let config = Config {
        max_connections: 1,
        ..Config::default()
    };
    let running = Running::with(Options::default(), config).await;
    let mut first = Raw::clean(running.address, "a").await;
    let answers: [(&[u8], &[u8]); 3] = [
        (
            b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01b",
            b"\x20\x02\x00\x03",
        ),
        (
            b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01b",
            b"\x20\x03\x00\x97\x00",
        ),
        // What is not MQTT is told nothing.
        (b"GET / HTTP/1.1\r\n\r\n", b""),
    ];
    for (sent, expected) in answers {
        let mut second = Raw::open(running.address).await;
        second.stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let reading = second.stream.read_to_end(&mut answer);
        let read = tokio::time::timeout(support::DEADLINE, reading).await;
        assert!(matches!(read, Ok(Ok(_))) || expected.is_empty());
        assert_eq!(answer, expected, "{sent:02x?}");
    }
    assert_eq!(running.bus.metrics().connections_refused.get(), 3);
    assert_eq!(running.server.metrics().turned_away.get(), 2);
    // Those who say nothing are waited for, but not too many of them at a time.
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(Raw::open(running.address).await);
    }
    eventually(|| running.bus.metrics().connections_refused.get() == 67).await;
    let mut beyond = Raw::open(running.address).await;
    assert_eq!(beyond.next_or_end().await, None);
    drop(silent);
    first.quiet().await;
    first.send(Packet::Disconnect).await;
    assert_eq!(first.next_or_end().await, None);
    eventually(|| running.bus.metrics().connections.get() == 0).await;
    Raw::clean(running.address, "b").await.quiet().await;
    running.stop().await;
}

/// None of them ends the server, or anybody's connection.
#[tokio::test]
async fn names_of_any_characters() {
    let running = Running::start().await;
    let mut other = Raw::clean(running.address, "o").await;
    other.subscribe("a/#", QoS::AtMostOnce).await;
    let mut subscriber = Raw::clean(running.address, "every/where+#$").await;
    subscriber.subscribe("#", QoS::AtMostOnce).await;
    for name in ["élan", "日本/語", "a b", "/", "//", "$odd", "\u{1F600}"] {
        for odd_id in ["a+b", "$id", "#", "x/y", "é"] {
            let mut raw = Raw::clean(running.address, odd_id).await;
            raw.send(publish(name, odd_id, QoS::AtLeastOnce, 1)).await;
            assert_eq!(raw.next().await, Packet::PublishAck { packet_id: id(1) });
            if !name.starts_with('$') {
                loop {
                    let message = subscriber.message().await;
                    if !message.retain && !message.topic.starts_with("clicks/") {
                        assert_eq!(&*message.topic, name);
                        break;
                    }
                }
            }
        }
    }
    running.publish("a/b", "x", false, 0).await;
    assert_eq!(other.message().await.payload, "x");
    running.stop().await;
}

#[tokio::test]
async fn subscribers_that_leave_at_once_harm_nobody() {
    let running = Running::start().await;
    for number in 0..500 {
        running.publish(&format!("q/{number}"), "v", true, 2).await;
    }
    for _ in 0..100 {
        let mut raw = Raw::clean(running.address, "").await;
        let topic_filters = vec![("#".into(), QoS::AtLeastOnce)];
        raw.send(Packet::Subscribe {
            packet_id: id(1),
            topic_filters,
        })
        .await;
        raw.send(Packet::Disconnect).await;
    }
    Raw::clean(running.address, "after").await.quiet().await;
    eventually(|| running.bus.metrics().connections.get() <= 1).await;
    running.stop().await;
}

#[tokio::test]
async fn clients_of_an_older_version_or_without_an_id_are_told() {
    let running = Running::start().await;
    let table: [(&[u8], &[u8]); 9] = [
        // 3.1: unacceptable protocol version
        (
            b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a",
            b"\x20\x02\x00\x01",
        ),
        (
            b"\x10\x0d\x00\x04MQTT\x03\x02\x00\x3c\x00\x01a",
            b"\x20\x02\x00\x01",
        ),
        // a bridge of 3.1
        (
            b"\x10\x0f\x00\x06MQIsdp\x83\x02\x00\x3c\x00\x01a",
            b"\x20\x02\x00\x01",
        ),
        // versions that there are not: in the form of the oldest
        (
            b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01a",
            b"\x20\x02\x00\x01",
        ),
        (
            b"\x10\x0d\x00\x04MQTT\x00\x02\x00\x3c\x00\x01a",
            b"\x20\x02\x00\x01",
        ),
        (
            b"\x10\x0d\x00\x04MQTT\x85\x02\x00\x3c\x00\x01a",
            b"\x20\x02\x00\x01",
        ),
        (
            b"\x10\x0d\x00\x04MQTT\xff\x02\x00\x3c\x00\x01a",
            b"\x20\x02\x00\x01",
        ),
        // 3.1.1: no id, and yet a session
        (
            b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00",
            b"\x20\x02\x00\x02",
        ),
        // 5: an authentication method
        (
            b"\x10\x12\x00\x04MQTT\x05\x02\x00\x3c\x04\x15\x00\x01X\x00\x01a",
            b"\x20\x03\x00\x8c\x00",
        ),
    ];
    for (sent, expected) in table {
        let mut raw = Raw::open(running.address).await;
        raw.stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let reading = raw.stream.read_to_end(&mut answer);
        tokio::time::timeout(support::DEADLINE, reading)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer, expected, "{sent:02x?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn bad_bytes_end_their_own_connection() {
    const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
    let before: [(&str, &[u8]); 14] = [
        ("a packet before CONNECT", b"\xc0\x00"),
        ("a publish before CONNECT", b"\x30\x03\x00\x01a"),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
        ("a CONNACK", b"\x20\x02\x00\x00"),
        (
            "another protocol",
            b"\x10\x0d\x00\x04MQTX\x04\x02\x00\x00\x00\x01a",
        ),
        (
            "reserved connect flag",
            b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01a",
        ),
        (
            "will QoS without will",
            b"\x10\x0d\x00\x04MQTT\x04\x0a\x00\x00\x00\x01a",
        ),
        (
            "password without name",
            b"\x10\x10\x00\x04MQTT\x04\x42\x00\x00\x00\x01a\x00\x01p",
        ),
        (
            "invalid UTF-8 in the id",
            b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01\xff",
        ),
        (
            "U+0000 in the id",
            b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01\x00",
        ),
        (
            "invalid UTF-8 in the will's topic",
            b"\x10\x12\x00\x04MQTT\x04\x06\x00\x00\x00\x01a\x00\x01\xff\x00\x00",
        ),
        (
            "invalid UTF-8 in the user name",
            b"\x10\x10\x00\x04MQTT\x04\x82\x00\x00\x00\x01a\x00\x01\xff",
        ),
        ("a length of five bytes", b"\x10\xff\xff\xff\xff\x7f"),
        ("256 MB", b"\x10\xff\xff\xff\x7f"),
    ];
    let after: [(&str, &[u8]); 33] = [
        ("second CONNECT", CONNECT),
        ("CONNACK", b"\x20\x02\x00\x00"),
        ("SUBACK", b"\x90\x03\x00\x01\x00"),
        ("UNSUBACK", b"\xb0\x02\x00\x01"),
        ("PINGRESP", b"\xd0\x00"),
        ("AUTH", b"\xf0\x00"),
        ("packet type 0", b"\x00\x00"),
        ("QoS 3", b"\x36\x05\x00\x01a\x00\x01"),
        ("DUP with QoS 0", b"\x38\x03\x00\x01a"),
        ("wildcard + in a publish", b"\x30\x03\x00\x01+"),
        ("wildcard # in a publish", b"\x30\x03\x00\x01#"),
        ("empty topic", b"\x30\x02\x00\x00"),
        ("U+0000 in a topic", b"\x30\x03\x00\x01\x00"),
        ("invalid UTF-8 in a topic", b"\x30\x04\x00\x02\xc3\x28"),
        ("surrogate in a topic", b"\x30\x05\x00\x03\xed\xa0\x80"),
        ("topic longer than the packet", b"\x30\x03\x00\x09a"),
        ("packet id 0", b"\x32\x05\x00\x01a\x00\x00"),
        ("no packet id", b"\x32\x03\x00\x01a"),
        ("SUBSCRIBE with flags 0", b"\x80\x06\x00\x01\x00\x01a\x00"),
        ("SUBSCRIBE without filters", b"\x82\x02\x00\x01"),
        (
            "SUBSCRIBE with packet id 0",
            b"\x82\x06\x00\x00\x00\x01a\x00",
        ),
        (
            "SUBSCRIBE with reserved bits",
            b"\x82\x06\x00\x01\x00\x01a\x04",
        ),
        ("SUBSCRIBE with QoS 3", b"\x82\x06\x00\x01\x00\x01a\x03"),
        ("SUBSCRIBE cut short", b"\x82\x05\x00\x01\x00\x01a"),
        ("UNSUBSCRIBE without filters", b"\xa2\x02\x00\x01"),
        (
            "invalid UTF-8 in a filter",
            b"\x82\x06\x00\x01\x00\x01\xff\x00",
        ),
        (
            "invalid UTF-8 in a filter to end",
            b"\xa2\x05\x00\x01\x00\x01\xff",
        ),
        ("UNSUBSCRIBE with flags 0", b"\xa0\x05\x00\x01\x00\x01a"),
        ("DISCONNECT with flags", b"\xe1\x00"),
        ("DISCONNECT with a body", b"\xe0\x01\x00"),
        ("PUBREL with flags 0", b"\x60\x02\x00\x01"),
        ("PINGREQ with a body", b"\xc0\x01\x00"),
        ("a packet over the bound", b"\x30\xff\xff\xff\x7f"),
    ];
    let running = Running::start().await;
    let mut witness = Raw::clean(running.address, "witness").await;
    witness.subscribe("w", QoS::AtMostOnce).await;
    let cases = (before.into_iter().map(|case| (case, false)))
        .chain(after.into_iter().map(|case| (case, true)));
    for (count, ((name, bytes), connected)) in (1..).zip(cases) {
        let mut raw = Raw::open(running.address).await;
        if connected {
            raw.stream.write_all(CONNECT).await.unwrap();
            assert!(matches!(raw.next().await, Packet::ConnectAck(_)), "{name}");
        }
        // A byte at a time: packets may be cut anywhere.
        for byte in bytes {
            if raw.stream.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        assert_eq!(raw.next_or_end().await, None, "{name}");
        // The server lingers until the client closes too.
        drop(raw);
        eventually(|| running.server.metrics().violations.get() == count).await;
        running.publish("w", name, false, 0).await;
        assert_eq!(witness.message().await.payload, name);
    }
    running.stop().await;
}
