//! The features of MQTT 5 that concern more than one packet, over TCP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;
use std::sync::Arc;

use futures_util::StreamExt;
use latchbus_bus::{Options, StoreKind};
use latchbus_core::hub::{Kind, Limits, Mode, Start, Step};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_mqtt::Bounds;
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Connect, DisconnectReasonCode, LastWill, Packet, PublishAck, PublishProperties, RetainHandling,
    Subscribe, SubscribeAckReason, SubscriptionOptions, Unsubscribe,
};
use support::five::{V5, client, message, offline, one};
use support::{DEADLINE, Raw, Running, eventually};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

const QOS_1: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::AtLeastOnce,
    no_local: false,
    retain_as_published: false,
    retain_handling: RetainHandling::AtSubscribe,
};

fn bounded(bounds: Bounds) -> Config {
    Config {
        bounds,
        ..Config::default()
    }
}

fn retained(publish: Publish, properties: PublishProperties) -> Packet {
    Packet::Publish(Box::new(Publish {
        retain: true,
        properties: Some(properties),
        ..publish
    }))
}

fn text_properties() -> PublishProperties {
    PublishProperties {
        is_utf8_payload: true,
        content_type: Some("text/plain".into()),
        response_topic: Some("answers".into()),
        correlation_data: Some((&b"\0\xFF"[..]).into()),
        user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        ..PublishProperties::default()
    }
}

impl V5 {
    /// Publishes with QoS 1 and waits for the PUBACK.
    async fn publish(&mut self, publish: Packet) {
        self.send(publish).await;
        loop {
            match self.next().await.expect("the connection lives") {
                Packet::PublishAck(ack) => return assert_eq!(u8::from(ack.reason_code), 0),
                Packet::Publish(_) => {}
                other => panic!("{other:?} for a PUBACK"),
            }
        }
    }

    async fn acknowledge(&mut self, publish: &Publish) {
        let Some(packet_id) = publish.packet_id else {
            return;
        };
        self.send(Packet::PublishAck(PublishAck {
            packet_id,
            ..PublishAck::default()
        }))
        .await;
    }
}

#[tokio::test]
async fn what_goes_with_a_payload_reaches_subscribers_and_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let stored = || Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..Options::default()
    };
    let running = Running::with(stored(), Config::default()).await;
    let mut v5 = V5::open(running.address, "p").await;
    let publish = message("p/kept", "é", QoS::AtLeastOnce, 1);
    v5.publish(retained(publish, text_properties())).await;
    running.stop().await;

    let running = Running::with(stored(), Config::default()).await;
    let mut subscriber = V5::open(running.address, "s").await;
    subscriber.subscribe(one("p/+", QOS_1)).await;
    let kept = subscriber.message().await;
    assert!(kept.retain);
    assert_eq!(kept.properties, Some(text_properties()));
    let mut live = message("p/live", "é", QoS::AtMostOnce, 0);
    live.properties = Some(text_properties());
    subscriber.send(Packet::Publish(Box::new(live))).await;
    let live = subscriber.message().await;
    assert_eq!(live.properties, Some(text_properties()));

    // Those of 3.1.1 get the payload alone, and a will has properties too.
    let mut old = Raw::clean(running.address, "old").await;
    old.subscribe("p/+", QoS::AtMostOnce).await;
    assert_eq!(&*old.message().await.topic, "p/kept");
    let connect = Connect {
        last_will: Some(LastWill {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "p/will".into(),
            message: "bye".into(),
            will_delay_interval_sec: None,
            correlation_data: Some((&b"\0\xFF"[..]).into()),
            message_expiry_interval: None,
            content_type: Some("text/plain".into()),
            user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
            is_utf8_payload: Some(true),
            response_topic: Some("answers".into()),
        }),
        ..client("w")
    };
    drop(V5::connect(running.address, connect).await);
    let will = subscriber.message().await;
    assert_eq!(&*will.topic, "p/will");
    assert_eq!(will.properties, Some(text_properties()));
    running.stop().await;
}

#[tokio::test]
async fn nobody_is_given_what_has_expired() {
    let directory = tempfile::tempdir().unwrap();
    let stored = || Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..Options::default()
    };
    let running = Running::with(stored(), Config::default()).await;
    let expiring = |topic: &str, secs: u32, id| {
        let properties = PublishProperties {
            message_expiry_interval: NonZeroU32::new(secs),
            ..PublishProperties::default()
        };
        retained(message(topic, "x", QoS::AtLeastOnce, id), properties)
    };
    let away = Connect {
        clean_start: false,
        session_expiry_interval_secs: 100,
        ..client("away")
    };
    let (mut sleeper, _) = V5::connect(running.address, away.clone()).await;
    let events = SubscriptionOptions {
        retain_handling: RetainHandling::NoAtSubscribe,
        ..QOS_1
    };
    sleeper.subscribe(one("e/#", events)).await;
    drop(sleeper);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;

    let filter = TopicFilter::parse("e/#").unwrap();
    let mut steps = (running.bus.subscribe(filter, Mode::Latest, Start::Live)).unwrap();
    let mut v5 = V5::open(running.address, "p").await;
    // Two seconds, so that one has passed for the others too, which are rounded up.
    // When the last of them has expired, the others have too.
    v5.publish(expiring("e/long", 100, 2)).await;
    v5.publish(expiring("e/renewed", 2, 3)).await;
    v5.publish(expiring("e/renewed", 100, 4)).await;
    v5.publish(expiring("e/short", 2, 1)).await;

    // A topic whose value has expired is cleared, and whoever reads the bus sees it.
    let cleared = async {
        loop {
            if let Some(Step::Entry { entry, .. }) = steps.next().await
                && entry.kind == Kind::Cleared
            {
                return entry;
            }
        }
    };
    let cleared = timeout(DEADLINE, cleared).await.unwrap();
    assert_eq!(cleared.topic.as_str(), "e/short");
    let short = TopicName::parse("e/short").unwrap();
    assert!(running.bus.last(short).is_none());

    let mut subscriber = V5::open(running.address, "s").await;
    subscriber.subscribe(one("e/#", QOS_1)).await;
    for topic in ["e/long", "e/renewed"] {
        let kept = subscriber.message().await;
        assert_eq!(&*kept.topic, topic);
        let left = kept.properties.unwrap().message_expiry_interval.unwrap();
        assert!((90..100).contains(&left.get()), "{left} s are left");
    }
    subscriber.quiet().await;
    // Who was away is given neither the message nor the clear, which nobody has published.
    let (mut sleeper, ack) = V5::connect(running.address, away).await;
    assert!(ack.session_present);
    let mut topics = Vec::new();
    for _ in 0..2 {
        topics.push(sleeper.message().await.topic.to_string());
    }
    topics.sort();
    assert_eq!(topics, ["e/long", "e/renewed"]);
    sleeper.quiet().await;
    assert!(running.bus.lost().expired >= 1);
    running.stop().await;

    let running = Running::with(stored(), Config::default()).await;
    assert!(running.bus.last(short).is_none(), "also in the store");
    let long = TopicName::parse("e/long").unwrap();
    let long = running.bus.last(long).unwrap();
    assert!(long.payload.expires_at().is_some());
    running.stop().await;
}

#[tokio::test]
async fn topic_aliases_of_a_client() {
    let running = Running::start().await;
    let mut v5 = V5::open(running.address, "a").await;
    v5.subscribe(one("#", QOS_1)).await;
    let aliased = |topic: &str, alias, payload: &str| {
        let mut publish = message(topic, payload, QoS::AtMostOnce, 0);
        publish.properties = Some(PublishProperties {
            topic_alias: NonZeroU16::new(alias),
            ..PublishProperties::default()
        });
        Packet::Publish(Box::new(publish))
    };
    for (sent, alias, topic) in [
        ("t/1", 1, "t/1"),
        ("", 1, "t/1"),
        ("t/2", 16, "t/2"),
        ("", 16, "t/2"),
        ("t/3", 1, "t/3"),
        ("", 1, "t/3"),
    ] {
        v5.send(aliased(sent, alias, "x")).await;
        loop {
            let published = v5.message().await;
            if !published.topic.starts_with("clicks/") {
                assert_eq!(&*published.topic, topic);
                break;
            }
        }
    }
    // They end with the connection.
    let mut v5 = V5::open(running.address, "a").await;
    v5.send(aliased("", 1, "x")).await;
    v5.ends(DisconnectReasonCode::ProtocolError).await;
    let mut v5 = V5::open(running.address, "a").await;
    v5.stream
        .write_all(b"\x30\x07\0\x01a\x03\x23\0\0")
        .await
        .unwrap();
    v5.ends(DisconnectReasonCode::TopicAliasInvalid).await;
    running.stop().await;
}

#[tokio::test]
async fn topic_aliases_of_the_server() {
    let running = Running::start().await;
    let connect = Connect {
        clean_start: false,
        session_expiry_interval_secs: 100,
        topic_alias_max: 1,
        ..client("a")
    };
    let (mut v5, _) = V5::connect(running.address, connect.clone()).await;
    v5.subscribe(one("t/#", QOS_1)).await;
    let alias = |publish: &Publish| publish.properties.as_ref().unwrap().topic_alias;
    for number in 0..3 {
        running.publish("t/first", "x", false, number).await;
        let publish = v5.message().await;
        let topic = if number == 0 { "t/first" } else { "" };
        assert_eq!(
            (&*publish.topic, alias(&publish)),
            (topic, NonZeroU16::new(1))
        );
    }
    running.publish("t/second", "x", false, 1).await;
    let publish = v5.message().await;
    assert_eq!((&*publish.topic, alias(&publish)), ("t/second", None));
    drop(v5);
    // Sent again over another connection, the topic is named again.
    let (mut v5, _) = V5::connect(running.address, connect).await;
    let publish = v5.message().await;
    assert_eq!(
        (&*publish.topic, alias(&publish)),
        ("t/first", NonZeroU16::new(1))
    );
    assert!(publish.dup);
    // MQTT-3.1.2-27: none for a client that has not named a maximum.
    let mut plain = V5::open(running.address, "plain").await;
    plain.subscribe(one("t/#", QOS_1)).await;
    for _ in 0..2 {
        running.publish("t/first", "x", false, 1).await;
        let publish = plain.message().await;
        let alias = publish.properties.and_then(|said| said.topic_alias);
        assert_eq!((&*publish.topic, alias), ("t/first", None));
    }
    running.stop().await;
}

#[tokio::test]
async fn no_local_keeps_a_clients_own_messages_from_it() {
    let running = Running::start().await;
    let connect = Connect {
        clean_start: false,
        session_expiry_interval_secs: 100,
        ..client("own")
    };
    let (mut v5, _) = V5::connect(running.address, connect.clone()).await;
    let no_local = SubscriptionOptions {
        no_local: true,
        ..QOS_1
    };
    assert_eq!(
        v5.subscribe(one("n/#", no_local)).await,
        [SubscribeAckReason::GrantedQos1]
    );
    let publish = |number| message("n/own", "own", QoS::AtLeastOnce, number);
    v5.publish(Packet::Publish(Box::new(publish(1)))).await;
    v5.publish(retained(publish(2), PublishProperties::default()))
        .await;
    running.publish("n/others", "others", false, 1).await;
    let others = v5.message().await;
    assert_eq!(&*others.topic, "n/others");
    v5.acknowledge(&others).await;
    // It is the same client after a reconnect, and also what it clears is its own.
    drop(v5);
    let (mut v5, ack) = V5::connect(running.address, connect).await;
    assert!(ack.session_present);
    let mut clear = publish(3);
    clear.payload = "".into();
    v5.publish(retained(clear, PublishProperties::default()))
        .await;
    running.publish("n/more", "others", false, 0).await;
    assert_eq!(&*v5.message().await.topic, "n/more");
    v5.subscribe(one("$share/g/n/#", no_local_after(no_local)))
        .await;
    v5.send(Packet::Subscribe(one("$share/g/n/#", no_local)))
        .await;
    v5.ends(DisconnectReasonCode::ProtocolError).await;
    running.stop().await;
}

fn no_local_after(options: SubscriptionOptions) -> SubscriptionOptions {
    SubscriptionOptions {
        no_local: false,
        ..options
    }
}

#[tokio::test]
async fn members_of_a_group_take_turns() {
    let running = Running::start().await;
    running.publish("g/kept", "x", true, 1).await;
    let mut members = Vec::new();
    // MQTT-4.8.2-3: each with its own quality of service.
    let qualities = [QoS::AtLeastOnce, QoS::AtMostOnce, QoS::AtLeastOnce];
    for (name, qos) in ["a", "b", "c"].into_iter().zip(qualities) {
        let mut v5 = V5::open(running.address, name).await;
        let options = SubscriptionOptions { qos, ..QOS_1 };
        let granted = v5.subscribe(one("$share/workers/g/#", options)).await;
        let expected = match qos {
            QoS::AtMostOnce => SubscribeAckReason::GrantedQos0,
            _ => SubscribeAckReason::GrantedQos1,
        };
        assert_eq!(granted, [expected]);
        v5.quiet().await;
        members.push(v5);
    }
    let mut all = V5::open(running.address, "all").await;
    all.subscribe(one("$share/others/g/#", QOS_1)).await;
    for round in 0..4 {
        for (turn, member) in members.iter_mut().enumerate() {
            let payload = format!("{round}-{turn}");
            running.publish("g/job", &payload, false, 1).await;
            let job = member.message().await;
            assert_eq!(job.payload, payload, "each in turn");
            assert_eq!(job.qos, qualities[turn]);
            member.acknowledge(&job).await;
            member.quiet().await;
            let copy = all.message().await;
            assert_eq!(copy.payload, payload, "and each group");
            all.acknowledge(&copy).await;
        }
    }
    // Who leaves takes no more turns.
    let mut leaving = members.remove(1);
    leaving
        .send(Packet::Unsubscribe(Unsubscribe {
            packet_id: NonZeroU16::MIN,
            user_properties: Vec::new(),
            topic_filters: vec!["$share/workers/g/#".into()],
        }))
        .await;
    assert!(matches!(
        leaving.next().await,
        Some(Packet::UnsubscribeAck(_))
    ));
    drop(members.remove(1));
    eventually(|| running.bus.metrics().connections.get() == 3).await;
    for number in 0..10 {
        running
            .publish("g/job", &number.to_string(), false, 1)
            .await;
        let job = members[0].message().await;
        assert_eq!(job.payload, number.to_string());
        members[0].acknowledge(&job).await;
    }
    leaving.quiet().await;
    running.stop().await;
}

/// A member that does not acknowledge takes what its window allows; the others take the rest.
#[tokio::test]
async fn a_member_that_is_stuck_holds_nobody_up() {
    let running = Running::start().await;
    let connect = Connect {
        receive_max: NonZeroU16::new(1),
        ..client("stuck")
    };
    let (mut stuck, _) = V5::connect(running.address, connect).await;
    stuck.subscribe(one("$share/g/w", QOS_1)).await;
    let mut able = V5::open(running.address, "able").await;
    able.subscribe(one("$share/g/w", QOS_1)).await;
    for number in 0..20 {
        running.publish("w", &number.to_string(), false, 1).await;
    }
    let mut taken = vec![stuck.message().await.payload];
    stuck.quiet().await;
    for _ in 0..19 {
        let message = able.message().await;
        able.acknowledge(&message).await;
        taken.push(message.payload);
    }
    taken.sort_by_key(|payload| str::from_utf8(payload).unwrap().parse::<u32>().unwrap());
    let expected: Vec<_> = (0..20).map(|number: u32| number.to_string()).collect();
    assert_eq!(taken, expected);
    running.stop().await;
}

/// While all its members are away, a group's messages wait.
#[tokio::test]
async fn a_group_whose_members_are_away_keeps_its_messages() {
    let running = Running::start().await;
    let connect = Connect {
        clean_start: false,
        session_expiry_interval_secs: 100,
        ..client("m")
    };
    let (mut member, _) = V5::connect(running.address, connect.clone()).await;
    member.subscribe(one("$share/g/w", QOS_1)).await;
    drop(member);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    for payload in ["1", "2", "3"] {
        running.publish("w", payload, false, 1).await;
    }
    let (mut member, ack) = V5::connect(running.address, connect).await;
    assert!(ack.session_present);
    for payload in ["1", "2", "3"] {
        assert_eq!(member.message().await.payload, payload);
    }
    running.stop().await;
}

#[tokio::test]
async fn revision_and_time_come_to_those_who_ask() {
    let running = Running::start().await;
    running.publish("r", "x", true, 1).await;
    let mut v5 = V5::open(running.address, "s").await;
    let asking = Subscribe {
        user_properties: ["latchbus-rev", "latchbus-at"]
            .map(|name| (name.into(), "".into()))
            .into(),
        ..one("r", QOS_1)
    };
    v5.subscribe(asking).await;
    let last = running.bus.last(TopicName::parse("r").unwrap()).unwrap();
    let stamps = v5.message().await.properties.unwrap().user_properties;
    let rev = format!("{:x}:{}", running.bus.epoch(), last.rev);
    assert_eq!(
        stamps,
        [
            ("latchbus-rev".into(), rev.into()),
            ("latchbus-at".into(), last.at.to_string().into())
        ]
    );
    v5.subscribe(one("r", QOS_1)).await;
    let properties = v5.message().await.properties.unwrap();
    assert!(properties.user_properties.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn what_the_server_is_told_to_refuse_or_to_lower() {
    let parse = |filter: &str| TopicFilter::parse(filter.to_owned()).unwrap();
    let bounds = Bounds {
        keep_alive: Some(Duration::from_secs(60)),
        client_id_bytes: 40,
        refused_filters: Arc::new([parse("test/nosubscribe"), parse("secret/#")]),
        ..Bounds::default()
    };
    let running = Running::with(Options::default(), bounded(bounds)).await;
    for (asked, told) in [(120, Some(60)), (0, Some(60)), (59, None)] {
        let connect = Connect {
            keep_alive: asked,
            ..client("k")
        };
        let (_v5, ack) = V5::connect(running.address, connect).await;
        assert_eq!(ack.server_keepalive_sec, told);
    }
    let mut v5 = V5::open(running.address, "v5").await;
    let mut old = Raw::clean(running.address, "old").await;
    for (filter, refused) in [
        ("test/nosubscribe", true),
        ("secret/a/b", true),
        ("secret/#", true),
        ("$share/g/secret/a", true),
        ("test/other", false),
    ] {
        let expected = match refused {
            true => SubscribeAckReason::UnspecifiedError,
            false => SubscribeAckReason::GrantedQos1,
        };
        assert_eq!(
            v5.subscribe(one(filter, QOS_1)).await,
            [expected],
            "{filter}"
        );
        old.send(rmqtt_codec::v3::Packet::Subscribe {
            packet_id: NonZeroU16::MIN,
            topic_filters: vec![(filter.into(), QoS::AtLeastOnce)],
        })
        .await;
        let rmqtt_codec::v3::Packet::SubscribeAck { status, .. } = old.next().await else {
            panic!("no SUBACK");
        };
        use rmqtt_codec::v3::SubscribeReturnCode::{Failure, Success};
        let expected = match refused {
            true => Failure,
            false => Success(QoS::AtLeastOnce),
        };
        assert_eq!(status, [expected]);
    }
    let long = V5::connect(running.address, client(&"i".repeat(41)))
        .await
        .1;
    assert_eq!(u8::from(long.reason_code), 0x85);
    running.stop().await;
}

#[tokio::test]
async fn words_come_to_those_who_want_them() {
    let running = Running::start().await;
    for wanted in [true, false] {
        let connect = Connect {
            request_problem_info: wanted,
            ..client("c")
        };
        let (mut v5, _) = V5::connect(running.address, connect).await;
        let refused = message("clicks/main/values", "x", QoS::AtLeastOnce, 1);
        v5.send(Packet::Publish(Box::new(refused))).await;
        let Some(Packet::PublishAck(ack)) = v5.next().await else {
            panic!("no PUBACK");
        };
        assert_eq!(u8::from(ack.reason_code), 0x87);
        assert_eq!(ack.reason_string.is_some(), wanted);
    }
    running.stop().await;
}

/// What a CONNECT can have wrong, with the code that says so (MQTT 5 §3.2.2.2), and what may come after.
#[tokio::test]
async fn each_violation_has_its_code() {
    let running = Running::start().await;
    let connects: [(&str, &[u8], u8); 10] = [
        ("reserved flag", b"\0\x04MQTT\x05\x03\0\0\0\0\x01a", 0x81),
        (
            "a property twice",
            b"\0\x04MQTT\x05\x02\0\0\x06\x21\0\x01\x21\0\x01\0\x01a",
            0x82,
        ),
        (
            "receive maximum 0",
            b"\0\x04MQTT\x05\x02\0\0\x03\x21\0\0\0\x01a",
            0x82,
        ),
        (
            "an unknown property",
            b"\0\x04MQTT\x05\x02\0\0\x02\x7f\0\0\x01a",
            0x81,
        ),
        (
            "authentication data alone",
            b"\0\x04MQTT\x05\x02\0\0\x04\x16\0\x01x\0\x01a",
            0x82,
        ),
        (
            "an authentication method",
            b"\0\x04MQTT\x05\x02\0\0\x04\x15\0\x01x\0\x01a",
            0x8C,
        ),
        (
            "a will to nothing",
            b"\0\x04MQTT\x05\x06\0\0\0\0\x01a\0\0\0\0\0",
            0x81,
        ),
        (
            "a will with an empty response topic",
            b"\0\x04MQTT\x05\x06\0\0\0\0\x01a\x03\x08\0\0\0\x01w\0\0",
            0x82,
        ),
        (
            "a will with a response topic #",
            b"\0\x04MQTT\x05\x06\0\0\0\0\x01a\x04\x08\0\x01#\0\x01w\0\0",
            0x82,
        ),
        (
            "a will to #",
            b"\0\x04MQTT\x05\x06\0\0\0\0\x01a\0\0\x01#\0\0",
            0x81,
        ),
    ];
    for (name, body, code) in connects {
        let mut raw = Raw::open(running.address).await;
        let header = [0x10, body.len() as u8];
        raw.stream
            .write_all(&[&header, body].concat())
            .await
            .unwrap();
        let mut answer = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut raw.stream, &mut answer);
        timeout(DEADLINE, reading).await.unwrap().unwrap();
        assert_eq!(answer, [0x20, 3, 0, code, 0], "{name}");
    }
    let packets: [(&str, &[u8], u8); 38] = [
        ("payload format 2", b"\x30\x06\0\x01a\x02\x01\x02", 0x82),
        (
            "a property twice",
            b"\x30\x08\0\x01a\x04\x01\x01\x01\x01",
            0x82,
        ),
        (
            "subscription identifier",
            b"\x30\x06\0\x01a\x02\x0b\x01",
            0x82,
        ),
        ("response topic #", b"\x30\x08\0\x01a\x04\x08\0\x01#", 0x82),
        (
            "response topic a/+",
            b"\x30\x0a\0\x01a\x06\x08\0\x03a/+",
            0x82,
        ),
        (
            "an empty response topic",
            b"\x30\x07\0\x01a\x03\x08\0\0",
            0x82,
        ),
        ("no topic", b"\x30\x03\0\0\0", 0x82),
        ("wildcard +", b"\x30\x04\0\x01+\0", 0x81),
        ("wildcard #", b"\x30\x04\0\x01#\0", 0x81),
        ("wildcard at QoS 1", b"\x32\x08\0\x03a/#\0\x01\0", 0x81),
        ("QoS 3", b"\x36\x06\0\x01a\0\x01\0", 0x81),
        ("packet identifier 0", b"\x32\x06\0\x01a\0\0\0", 0x82),
        (
            "properties longer than the packet",
            b"\x30\x04\0\x01a\x09",
            0x81,
        ),
        (
            "a session expiry in a PUBLISH",
            b"\x30\x09\0\x01a\x05\x11\0\0\0\x01",
            0x81,
        ),
        (
            "SUBSCRIBE with reserved bits",
            b"\x82\x07\0\x01\0\0\x01a\x40",
            0x81,
        ),
        (
            "a subscription at QoS 3",
            b"\x82\x07\0\x01\0\0\x01a\x03",
            0x82,
        ),
        (
            "an alias that stands for nothing",
            b"\x30\x06\0\0\x03\x23\0\x01",
            0x82,
        ),
        ("retain handling 3", b"\x82\x07\0\x01\0\0\x01a\x30", 0x82),
        (
            "subscription identifier 0",
            b"\x82\x09\0\x01\x02\x0b\0\0\x01a\0",
            0x82,
        ),
        ("SUBSCRIBE without filters", b"\x82\x03\0\x01\0", 0x82),
        (
            "second CONNECT",
            b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01a",
            0x82,
        ),
        ("AUTH", b"\xf0\x00", 0x82),
        ("AUTH with flags", b"\xf1\x00", 0x81),
        ("DUP with QoS 0", b"\x38\x04\0\x01a\0", 0x81),
        ("SUBSCRIBE with flags 0", b"\x80\x07\0\x01\0\0\x01a\0", 0x81),
        ("UNSUBSCRIBE with flags 0", b"\xa0\x06\0\x01\0\0\x01a", 0x81),
        ("PUBREL with flags 0", b"\x60\x02\0\x01", 0x81),
        ("DISCONNECT with flags", b"\xe1\x00", 0x81),
        ("UNSUBSCRIBE without filters", b"\xa2\x03\0\x01\0", 0x82),
        (
            "a filter that is not UTF-8",
            b"\x82\x07\0\x01\0\0\x01\xff\0",
            0x81,
        ),
        ("such a filter to end", b"\xa2\x06\0\x01\0\0\x01\xff", 0x81),
        (
            "a user property that is not UTF-8",
            b"\x30\x0b\0\x01a\x07\x26\0\x01a\0\x01\xff",
            0x81,
        ),
        (
            "a response topic that is not UTF-8",
            b"\x30\x08\0\x01a\x04\x08\0\x01\xff",
            0x81,
        ),
        (
            "a content type that is not UTF-8",
            b"\x30\x08\0\x01a\x04\x03\0\x01\xff",
            0x81,
        ),
        ("U+0000", b"\x30\x04\0\x01\0\0", 0x81),
        ("topic alias 0", b"\x30\x07\0\x01a\x03\x23\0\0", 0x94),
        (
            "a reason code that DISCONNECT does not have",
            b"\xe0\x01\x03",
            0x81,
        ),
        ("invalid UTF-8", b"\x30\x06\0\x02\xc3\x28\0\0", 0x81),
    ];
    let mut witness = V5::open(running.address, "witness").await;
    for (name, bytes, code) in packets {
        let mut v5 = V5::open(running.address, "bad").await;
        v5.stream.write_all(bytes).await.unwrap();
        match v5.next().await {
            Some(Packet::Disconnect(disconnect)) => {
                assert_eq!(u8::from(disconnect.reason_code), code, "{name}");
                assert!(disconnect.reason_string.is_some(), "{name}");
            }
            other => panic!("{other:?} after {name}"),
        }
        assert_eq!(v5.next().await, None, "{name}");
    }
    witness.quiet().await;
    running.stop().await;
}

/// The queue of a session that is away is the hub's recent ring: what falls out is counted.
#[tokio::test]
async fn the_queue_of_a_session_that_is_away_is_bounded_and_counted() {
    let options = Options {
        limits: Limits {
            recent: 100,
            ..Limits::default()
        },
        ..Options::default()
    };
    let running = Running::with(options, Config::default()).await;
    let connect = Connect {
        clean_start: false,
        session_expiry_interval_secs: 100,
        ..client("away")
    };
    let (mut v5, _) = V5::connect(running.address, connect.clone()).await;
    v5.subscribe(one("q", QOS_1)).await;
    drop(v5);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    for number in 0..1_000 {
        running.publish("q", &number.to_string(), false, 1).await;
    }
    let (mut v5, _) = V5::connect(running.address, connect).await;
    let first = v5.message().await;
    let first: u32 = str::from_utf8(&first.payload).unwrap().parse().unwrap();
    // The bus itself publishes too.
    assert!((900..960).contains(&first), "{first}");
    for number in first + 1..1_000 {
        assert_eq!(v5.message().await.payload, number.to_string());
    }
    v5.quiet().await;
    assert_eq!(running.bus.lost().skipped, u64::from(first));
    let behind = running.bus.behind(16);
    assert_eq!(behind.len(), 1);
    assert_eq!(
        (&*behind[0].principal.client_id, behind[0].skipped),
        ("away", first.into())
    );
    running.stop().await;
}

/// Where nothing is stored sessions end with the server, and with them the time that a will was to wait. Where
/// they are stored they go on, and so does that time.
#[tokio::test]
async fn wills_are_published_when_the_server_stops() {
    let with_will = |id: &str, delay| Connect {
        session_expiry_interval_secs: 100,
        last_will: Some(offline(id, delay)),
        ..client(id)
    };
    let directory = tempfile::tempdir().unwrap();
    let stored = StoreKind::Directory(directory.path().to_owned());
    for (store, away_too) in [(StoreKind::Memory, true), (stored, false)] {
        let options = Options {
            store,
            ..Options::default()
        };
        let running = Running::with(options, Config::default()).await;
        let _here = V5::connect(running.address, with_will("here", None)).await;
        drop(V5::connect(running.address, with_will("away", Some(90))).await);
        eventually(|| running.server.metrics().sessions_away.get() == 1).await;
        let bus = running.bus.clone();
        running.stop().await;
        let said = |topic| bus.last(TopicName::parse(topic).unwrap()).is_some();
        assert!(said("status/here"));
        assert_eq!(said("status/away"), away_too);
    }
}
