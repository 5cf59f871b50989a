//! Statements of the specification that no other test file shows; `tests/mqtt/STATEMENTS.md` has them all.
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

use latchbus_bus::{Options, SessionLimits};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v3::Packet;
use rmqtt_codec::v5;
use support::five::{V5, client as client_5, message, one};
use support::{DEADLINE, Raw, Running, client, eventually, publish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

fn id(number: u16) -> NonZeroU16 {
    number.try_into().unwrap()
}

fn subscribe(number: u16, filters: &[(&str, QoS)]) -> Packet {
    Packet::Subscribe {
        packet_id: id(number),
        topic_filters: filters
            .iter()
            .map(|(filter, qos)| ((*filter).into(), *qos))
            .collect(),
    }
}

/// MQTT-1.5.3-3, MQTT-4.7.3-4: names are compared character by character, as they are.
#[tokio::test]
async fn names_are_not_changed() {
    let running = Running::start().await;
    let mut raw = Raw::clean(running.address, "a").await;
    // A byte order mark, a composed and a decomposed letter, capitals, an empty level.
    let names = ["\u{FEFF}x", "x", "\u{e9}", "e\u{301}", "X", "/x", "x/"];
    for name in names {
        let filters = [(name, QoS::AtMostOnce)];
        raw.send(subscribe(1, &filters)).await;
        assert!(matches!(raw.next().await, Packet::SubscribeAck { .. }));
        for other in names {
            raw.send(publish(other, "", QoS::AtMostOnce, 0)).await;
        }
        assert_eq!(&*raw.message().await.topic, name);
        raw.quiet().await;
        raw.send(Packet::Unsubscribe {
            packet_id: id(2),
            topic_filters: vec![name.into()],
        })
        .await;
        assert!(matches!(raw.next().await, Packet::UnsubscribeAck { .. }));
    }
    running.stop().await;
}

/// MQTT-4.7.2-1: wildcards.
#[tokio::test]
async fn wildcards_stand_for_levels_and_not_for_dollar() {
    let running = Running::start().await;
    let mut raw = Raw::clean(running.address, "a").await;
    for (filter, matching, others) in [
        ("s/#", vec!["s", "s/a", "s/a/b"], vec!["sa", "$s/a"]),
        ("s/+", vec!["s/a", "s/"], vec!["s", "s/a/b"]),
        ("+/t", vec!["s/t", "/t"], vec!["$s/t", "t"]),
        ("$s/#", vec!["$s/t"], vec!["s/t"]),
    ] {
        raw.subscribe(filter, QoS::AtMostOnce).await;
        for topic in others.iter().chain(&matching) {
            raw.send(publish(topic, "", QoS::AtMostOnce, 0)).await;
        }
        for topic in matching {
            assert_eq!(&*raw.message().await.topic, topic);
        }
        raw.quiet().await;
        raw.send(Packet::Unsubscribe {
            packet_id: id(2),
            topic_filters: vec![filter.into()],
        })
        .await;
        assert!(matches!(raw.next().await, Packet::UnsubscribeAck { .. }));
    }
    running.stop().await;
}

/// MQTT-3.3.5-1: a message that several subscriptions match comes with the highest of their qualities.
#[tokio::test]
async fn overlapping_subscriptions() {
    let running = Running::start().await;
    let mut raw = Raw::clean(running.address, "a").await;
    let filters = [("o/#", QoS::AtLeastOnce), ("o/+", QoS::ExactlyOnce)];
    raw.send(subscribe(1, &filters)).await;
    raw.next().await;
    running.publish("o/x", "1", false, 2).await;
    let mut qualities = [raw.message().await.qos, raw.message().await.qos];
    qualities.sort();
    assert_eq!(qualities, [QoS::AtLeastOnce, QoS::ExactlyOnce]);
    running.stop().await;
}

/// MQTT-3.3.1-3: the DUP flag of a publisher says nothing to subscribers; MQTT-2.3.1-4, MQTT-4.4.0-1: packet
/// identifiers are not 0 and not in use twice, and what is not acknowledged comes again with its own;
/// acknowledgements may come in any order.
#[tokio::test]
async fn identifiers_and_the_dup_flag() {
    let running = Running::start().await;
    let (mut raw, _) = Raw::connect(running.address, client("s", false)).await;
    raw.subscribe("d", QoS::AtLeastOnce).await;
    let mut publisher = Raw::clean(running.address, "p").await;
    for number in 1..=20 {
        let Packet::Publish(mut repeated) = publish("d", "x", QoS::AtLeastOnce, number) else {
            unreachable!()
        };
        repeated.dup = true;
        publisher.send(Packet::Publish(repeated)).await;
        let packet_id = id(number);
        assert_eq!(publisher.next().await, Packet::PublishAck { packet_id });
    }
    let mut ids = Vec::new();
    for _ in 0..20 {
        let message = raw.message().await;
        assert!(!message.dup);
        ids.push(message.packet_id.unwrap());
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 20);
    // The odd places, from the end.
    for packet_id in ids.iter().skip(1).step_by(2).rev() {
        let packet_id = *packet_id;
        raw.send(Packet::PublishAck { packet_id }).await;
    }
    raw.quiet().await;
    drop(raw);
    let (mut raw, _) = Raw::connect(running.address, client("s", false)).await;
    for expected in ids.iter().step_by(2) {
        let message = raw.message().await;
        assert_eq!((message.dup, message.packet_id), (true, Some(*expected)));
    }
    raw.quiet().await;
    running.stop().await;
}

/// MQTT-3.10.4-3: what was under way before an UNSUBSCRIBE is completed; MQTT-3.10.4-5: there is an UNSUBACK
/// also where there was nothing to end.
#[tokio::test]
async fn an_unsubscribe_completes_what_was_under_way() {
    let running = Running::start().await;
    let (mut raw, _) = Raw::connect(running.address, client("s", false)).await;
    raw.subscribe("u", QoS::ExactlyOnce).await;
    running.publish("u", "x", false, 2).await;
    let message = raw.message().await;
    raw.send(Packet::Unsubscribe {
        packet_id: id(3),
        topic_filters: vec!["u".into(), "never/was".into()],
    })
    .await;
    assert_eq!(
        raw.next().await,
        Packet::UnsubscribeAck { packet_id: id(3) }
    );
    running.publish("u", "y", false, 2).await;
    raw.quiet().await;
    raw.send(Packet::Unsubscribe {
        packet_id: id(4),
        topic_filters: vec!["nor/this".into()],
    })
    .await;
    assert_eq!(
        raw.next().await,
        Packet::UnsubscribeAck { packet_id: id(4) }
    );
    drop(raw);
    let (mut raw, _) = Raw::connect(running.address, client("s", false)).await;
    let again = raw.message().await;
    assert!(again.dup && again.packet_id == message.packet_id);
    let packet_id = again.packet_id.unwrap();
    raw.send(Packet::PublishReceived { packet_id }).await;
    assert_eq!(raw.next().await, Packet::PublishRelease { packet_id });
    raw.send(Packet::PublishComplete { packet_id }).await;
    raw.quiet().await;
    running.stop().await;
}

/// MQTT-4.6.0-6: PUBREL in the order of the PUBRECs (MQTT-4.6.0-4); after a return, what is open comes in its
/// old order (MQTT-4.6.0-1), and what was released is not published again (MQTT-4.3.3-1).
#[tokio::test]
async fn releases_come_in_the_order_of_the_receipts() {
    let running = Running::start().await;
    let (mut raw, _) = Raw::connect(running.address, client("s", false)).await;
    raw.subscribe("q", QoS::ExactlyOnce).await;
    let mut ids = Vec::new();
    for payload in ["1", "2", "3", "4"] {
        running.publish("q", payload, false, 2).await;
        ids.push(raw.message().await.packet_id.unwrap());
    }
    // Neither a PUBACK nor a PUBCOMP completes what was not received (MQTT-4.3.3-1).
    for packet_id in ids.iter().copied() {
        raw.send(Packet::PublishAck { packet_id }).await;
        raw.send(Packet::PublishComplete { packet_id }).await;
    }
    for place in [1, 2, 0] {
        let packet_id = ids[place];
        raw.send(Packet::PublishReceived { packet_id }).await;
    }
    for place in [1, 2, 0] {
        let packet_id = ids[place];
        assert_eq!(raw.next().await, Packet::PublishRelease { packet_id });
    }
    drop(raw);
    let (mut raw, _) = Raw::connect(running.address, client("s", false)).await;
    for packet_id in ids.drain(..3) {
        assert_eq!(raw.next().await, Packet::PublishRelease { packet_id });
        raw.send(Packet::PublishComplete { packet_id }).await;
    }
    let last = raw.message().await;
    assert_eq!((&*last.payload, last.dup), (&b"4"[..], true));
    raw.quiet().await;
    running.stop().await;
}

/// MQTT-3.1.4-5: after a refused CONNECT nothing is processed; MQTT-3.2.2-4: no session is present then.
#[tokio::test]
async fn nothing_follows_a_refused_connect() {
    let running = Running::start().await;
    let mut raw = Raw::open(running.address).await;
    let bytes = b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00\x31\x06\x00\x03abcx";
    raw.stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let reading = raw.stream.read_to_end(&mut answer);
    timeout(DEADLINE, reading).await.unwrap().unwrap();
    assert_eq!(answer, b"\x20\x02\x00\x02");
    assert!(running.bus.last(TopicName::parse("abc").unwrap()).is_none());
    running.stop().await;
}

/// MQTT-3.1.2-7: what is retained is not part of the session of who published it.
#[tokio::test]
async fn retained_messages_outlive_the_session() {
    let running = Running::start().await;
    let mut raw = Raw::clean(running.address, "writer").await;
    let Packet::Publish(mut kept) = publish("kept", "x", QoS::AtMostOnce, 0) else {
        unreachable!()
    };
    kept.retain = true;
    raw.send(Packet::Publish(kept)).await;
    raw.quiet().await;
    raw.send(Packet::Disconnect).await;
    assert_eq!(raw.next_or_end().await, None);
    let mut raw = Raw::clean(running.address, "writer").await;
    raw.subscribe("kept", QoS::AtMostOnce).await;
    assert_eq!(raw.message().await.payload, "x");
    running.stop().await;
}

/// MQTT-3.1.3-5, and beyond: identifiers of one to 23 characters and longer ones; what is too long or too
/// many ends or refuses itself alone.
#[tokio::test]
async fn names_topics_and_subscriptions_of_any_size() {
    let options = Options {
        session: SessionLimits {
            subscriptions: 1_000,
            ..SessionLimits::default()
        },
        ..Options::default()
    };
    let running = Running::with(options, Config::default()).await;
    let mut witness = Raw::clean(running.address, "witness").await;
    for length in [1, 23, 24, 1_024] {
        Raw::clean(running.address, &"0aZ".repeat(400)[..length])
            .await
            .quiet()
            .await;
    }
    let mut raw = Raw::open(running.address).await;
    let long = client(&"i".repeat(65_000), true);
    raw.send(Packet::Connect(Box::new(long))).await;
    match raw.next().await {
        Packet::ConnectAck(ack) => assert_eq!(u8::from(ack.return_code), 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(raw.next_or_end().await, None);

    let mut v5 = V5::open(running.address, "v5").await;
    let deep = "/".repeat(1_000);
    let options = v5::SubscriptionOptions::default();
    v5.subscribe(one(&deep, options)).await;
    v5.send(v5::Packet::Publish(Box::new(message(
        &deep,
        "x",
        QoS::AtMostOnce,
        0,
    ))))
    .await;
    assert_eq!(&*v5.message().await.topic, &*deep);
    let longer = "/".repeat(60_000);
    let refused = v5.subscribe(one(&longer, options)).await;
    assert_eq!(refused, [v5::SubscribeAckReason::TopicFilterInvalid]);
    v5.send(v5::Packet::Publish(Box::new(message(
        &longer,
        "x",
        QoS::AtLeastOnce,
        1,
    ))))
    .await;
    match v5.next().await {
        Some(v5::Packet::PublishAck(ack)) => assert_eq!(u8::from(ack.reason_code), 0x90),
        other => panic!("{other:?}"),
    }

    // The first is subscribed already.
    let mut refused = 0;
    for packet in 0..20 {
        let filters = (0..100).map(|number| (format!("f/{packet}/{number}").into(), options));
        let status = v5
            .subscribe(v5::Subscribe {
                topic_filters: filters.collect(),
                ..one("", options)
            })
            .await;
        let full =
            |reason: &&v5::SubscribeAckReason| **reason == v5::SubscribeAckReason::QuotaExceeded;
        refused += status.iter().filter(full).count();
    }
    assert_eq!(refused, 1_001);
    v5.quiet().await;
    witness.quiet().await;
    drop(v5);
    eventually(|| running.bus.read(|hub| hub.subscriptions()) == 0).await;
    running.stop().await;
}

/// MQTT 5, MQTT-3.3.4-9: no more than the client's receive maximum; MQTT-3.1.2-25: what is too large counts
/// as delivered, also after a return with less room.
#[tokio::test]
async fn a_message_that_has_become_too_large_is_dropped_for_good() {
    let running = Running::start().await;
    let connect = |most| v5::Connect {
        clean_start: false,
        session_expiry_interval_secs: 100,
        max_packet_size: core::num::NonZeroU32::new(most),
        ..client_5("l")
    };
    let (mut v5, _) = V5::connect(running.address, connect(1_000)).await;
    let qos_1 = v5::SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        ..v5::SubscriptionOptions::default()
    };
    v5.subscribe(one("l", qos_1)).await;
    running.publish("l", &"x".repeat(500), false, 1).await;
    running.publish("l", "small", false, 1).await;
    v5.message().await;
    v5.message().await;
    drop(v5);
    let (mut v5, _) = V5::connect(running.address, connect(100)).await;
    let again: Publish = v5.message().await;
    assert_eq!((&*again.payload, again.dup), (&b"small"[..], true));
    v5.quiet().await;
    running.stop().await;
}

/// The table names tests that there are.
#[test]
fn the_table_of_statements_names_tests_that_exist() {
    let here = env!("CARGO_MANIFEST_DIR");
    let read = |path: String| std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{path}"));
    let table = read(format!("{here}/../../tests/mqtt/STATEMENTS.md"));
    let mut named = 0;
    for name in table.split('`').skip(1).step_by(2) {
        let Some((file, function)) = name.split_once("::") else {
            continue;
        };
        let text = match file {
            "file" | "fuzz" => continue,
            "unit" => ["properties", "encode", "reader"]
                .map(|file| read(format!("{here}/src/{file}.rs")))
                .concat(),
            file => read(format!("{here}/tests/{file}.rs")),
        };
        let definition = format!("fn {function}(");
        let by_macro = format!("    {function},\n");
        assert!(
            text.contains(&definition) || text.contains(&by_macro),
            "{name}"
        );
        named += 1;
    }
    assert!(named > 100, "{named}");
}

/// How many numbered statements each section of MQTT 3.1.1 has (OASIS Standard, Appendix B).
const STATEMENTS_3: [(&str, u32); 39] = [
    ("1.5.3", 3),
    ("2.2.2", 2),
    ("2.3.1", 7),
    ("3.1.0", 2),
    ("3.1.2", 24),
    ("3.1.3", 11),
    ("3.1.4", 5),
    ("3.2.0", 1),
    ("3.2.2", 6),
    ("3.3.1", 12),
    ("3.3.2", 3),
    ("3.3.4", 1),
    ("3.3.5", 2),
    ("3.6.1", 1),
    ("3.8.1", 1),
    ("3.8.3", 4),
    ("3.8.4", 6),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.12.4", 1),
    ("3.14.1", 1),
    ("3.14.4", 3),
    ("4.1.0", 2),
    ("4.3.1", 1),
    ("4.3.2", 2),
    ("4.3.3", 2),
    ("4.4.0", 1),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.1", 3),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.0", 2),
    ("6.0.0", 4),
    ("7.0.0", 2),
    ("7.1.1", 1),
    ("7.1.2", 1),
];

/// The same of MQTT 5; §2.2.1 begins at 2.
const STATEMENTS_5: [(&str, u32); 56] = [
    ("1.5.4", 3),
    ("1.5.5", 1),
    ("1.5.7", 1),
    ("2.1.3", 1),
    ("2.2.1", 6),
    ("2.2.2", 1),
    ("3.1.0", 2),
    ("3.1.2", 30),
    ("3.1.3", 12),
    ("3.1.4", 6),
    ("3.2.0", 2),
    ("3.2.2", 22),
    ("3.3.1", 13),
    ("3.3.2", 20),
    ("3.3.4", 10),
    ("3.4.2", 3),
    ("3.5.2", 3),
    ("3.6.1", 1),
    ("3.6.2", 3),
    ("3.7.2", 3),
    ("3.8.1", 1),
    ("3.8.3", 5),
    ("3.8.4", 8),
    ("3.9.2", 2),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.11.2", 2),
    ("3.11.3", 2),
    ("3.12.4", 1),
    ("3.14.0", 1),
    ("3.14.1", 1),
    ("3.14.2", 4),
    ("3.14.4", 3),
    ("3.15.1", 1),
    ("3.15.2", 3),
    ("4.1.0", 2),
    ("4.2.0", 1),
    ("4.3.1", 1),
    ("4.3.2", 5),
    ("4.3.3", 13),
    ("4.4.0", 2),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.0", 1),
    ("4.7.1", 2),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.2", 6),
    ("4.9.0", 3),
    ("4.12.0", 7),
    ("4.12.1", 2),
    ("4.13.1", 1),
    ("4.13.2", 1),
    ("6.0.0", 4),
];

/// The statements that the first cells of the tables name: `MQTT-1.2.3-4, -5, -7 to -9, §1.2`.
fn listed(tables: &str) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    let cells = tables.lines().filter_map(|line| line.split('|').nth(1));
    for cell in cells.filter(|cell| cell.contains("MQTT-")) {
        let mut section = String::new();
        for item in cell.trim().split(", ") {
            let (from, to) = item.split_once(" to ").unwrap_or((item, ""));
            let number = match from.strip_prefix("MQTT-") {
                Some(named) => {
                    let (named, number) = named.split_once('-').expect("a number");
                    section = named.to_owned();
                    number
                }
                None => from.strip_prefix('-').unwrap_or_else(|| panic!("{item}")),
            };
            let from: u32 = number.parse().unwrap_or_else(|_| panic!("{item}"));
            let to = to.strip_prefix('-').map_or(from, |to| to.parse().unwrap());
            found.extend((from..=to).map(|number| (section.clone(), number)));
        }
    }
    found.sort();
    found
}

/// The tables have each statement of the specification once.
#[test]
fn no_statement_is_missing() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/mqtt/STATEMENTS.md"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let (_, tables) = text.split_once("## MQTT 3.1.1\n").unwrap();
    let (three, rest) = tables.split_once("## MQTT 5\n").unwrap();
    let (five, _) = rest.split_once("\n## ").unwrap();
    for (tables, sections) in [(three, &STATEMENTS_3[..]), (five, &STATEMENTS_5[..])] {
        let mut expected = Vec::new();
        for (section, count) in sections {
            let first = if *section == "2.2.1" { 2 } else { 1 };
            expected.extend((first..=*count).map(|number| ((*section).to_owned(), number)));
        }
        expected.sort();
        assert_eq!(listed(tables), expected);
    }
}
