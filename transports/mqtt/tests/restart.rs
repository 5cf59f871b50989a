//! Sessions and wills over restarts: orderly ones, and those after a kill, of which the files that lie on the disk
//! between two commits are an image.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::time::Duration;
use std::path::Path;

use latchbus_bus::{Options, Publish, StoreKind};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::Packet;
use rmqtt_codec::v5::{self, Connect, SubscriptionOptions};
use support::five::{V5, client as client_5, offline, one};
use support::{Raw, Running, client, eventually, log, publish};
use tempfile::TempDir;

fn stored(directory: &Path) -> Options {
    Options {
        store: StoreKind::Directory(directory.to_owned()),
        ..Options::default()
    }
}

async fn start(directory: &Path) -> Running {
    let config = Config {
        will_grace: Duration::from_millis(50),
        ..Config::default()
    };
    Running::with(stored(directory), config).await
}

impl Running {
    /// What a kill at this moment would leave, when nothing is being written.
    async fn image(&self) -> TempDir {
        // A commit that is in doubt is confirmed by the next one.
        self.publish("image", "", true, 1).await;
        self.publish("image", "x", true, 1).await;
        let image = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(self.directory()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), image.path().join(file.file_name())).unwrap();
        }
        image
    }

    fn last(&self, topic: &str) -> Option<bytes::Bytes> {
        let last = self.bus.last(TopicName::parse(topic).unwrap());
        last.map(|last| last.payload.bytes().clone())
    }
}

fn with_will(id: &str, expiry: u32, delay: Option<u32>) -> Connect {
    Connect {
        clean_start: false,
        session_expiry_interval_secs: expiry,
        last_will: Some(offline(id, delay)),
        ..client_5(id)
    }
}

async fn acknowledge(raw: &mut Raw, message: &rmqtt_codec::types::Publish) {
    let packet_id = message.packet_id.unwrap();
    raw.send(Packet::PublishAck { packet_id }).await;
}

/// Subscriptions with their options, and what was published while nobody was there, in order.
#[tokio::test]
async fn a_session_goes_on_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let (mut raw, _) = Raw::connect(running.address, client("s", false)).await;
    raw.subscribe("e/#", QoS::AtLeastOnce).await;
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        retain_as_published: true,
        ..SubscriptionOptions::default()
    };
    let lasting = Connect {
        clean_start: false,
        session_expiry_interval_secs: 100,
        ..client_5("five")
    };
    let (mut v5, _) = V5::connect(running.address, lasting.clone()).await;
    let mut subscribe = one("e/+", options);
    subscribe.id = core::num::NonZeroU32::new(77);
    v5.subscribe(subscribe).await;
    running.publish("e/x", "before", false, 1).await;
    let message = raw_message(&mut raw, "before").await;
    acknowledge(&mut raw, &message).await;
    raw.quiet().await;
    drop((raw, v5));
    eventually(|| running.server.metrics().sessions_away.get() == 2).await;
    for number in 0..20 {
        running
            .publish("e/x", &number.to_string(), number % 4 == 3, 1)
            .await;
    }
    let image = running.image().await;
    running.stop().await;

    for directory in [&image, &directory] {
        let running = start(directory.path()).await;
        assert_eq!(running.server.metrics().sessions_restored.get(), 2);
        let (mut raw, present) = Raw::connect(running.address, client("s", false)).await;
        assert!(present);
        // Events, and of the state the newest value.
        for number in (0..20).filter(|number| number % 4 != 3 || *number == 19) {
            let message = raw_message(&mut raw, &number.to_string()).await;
            acknowledge(&mut raw, &message).await;
        }
        raw.quiet().await;
        let (mut v5, ack) = V5::connect(running.address, lasting.clone()).await;
        assert!(ack.session_present);
        let first = v5.message().await;
        assert_eq!(
            (
                &*first.payload,
                first.retain,
                first.properties.unwrap().subscription_ids[0].get()
            ),
            (&b"before"[..], false, 77)
        );
        // Nothing comes twice, and what comes now comes once.
        running.publish("e/x", "after", false, 1).await;
        raw_message(&mut raw, "after").await;
        raw.quiet().await;
        running.stop().await;
    }
}

async fn raw_message(raw: &mut Raw, payload: &str) -> rmqtt_codec::types::Publish {
    let message = raw.message().await;
    assert_eq!(message.payload, payload);
    message
}

/// Without a disk nothing of this is there after a restart, and nothing waits for it.
#[tokio::test]
async fn a_clean_start_and_an_end_forget_what_was_stored() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    for id in ["cleaned", "left", "expired"] {
        let lasting = Connect {
            clean_start: false,
            session_expiry_interval_secs: if id == "expired" { 1 } else { 100 },
            ..client_5(id)
        };
        let (mut v5, _) = V5::connect(running.address, lasting).await;
        v5.subscribe(one("e/#", SubscriptionOptions::default()))
            .await;
        if id == "left" {
            let forget = v5::Disconnect {
                session_expiry_interval_secs: Some(0),
                ..v5::Disconnect::default()
            };
            v5.send(v5::Packet::Disconnect(forget)).await;
            assert_eq!(v5.next().await, None);
        }
        drop(v5);
    }
    eventually(|| running.server.metrics().sessions_away.get() >= 1).await;
    V5::open(running.address, "cleaned").await.quiet().await;
    eventually(|| running.bus.read(|hub| hub.subscriptions()) == 0).await;
    let image = running.image().await;
    running.stop().await;
    for directory in [&image, &directory] {
        let running = start(directory.path()).await;
        assert_eq!(running.server.metrics().sessions_restored.get(), 0);
        running.stop().await;
    }
}

/// A session that was to end while the server was down is not there; one whose client was connected when the
/// server was killed has its whole interval from the start.
#[tokio::test]
async fn sessions_expire_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let keep = |id: &str| Connect {
        clean_start: false,
        session_expiry_interval_secs: 2,
        ..client_5(id)
    };
    let (mut here, _) = V5::connect(running.address, keep("here")).await;
    here.subscribe(one("e", SubscriptionOptions::default()))
        .await;
    let (mut away, _) = V5::connect(running.address, keep("away")).await;
    away.subscribe(one("e", SubscriptionOptions::default()))
        .await;
    drop(away);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    let image = running.image().await;
    // It ends here, two seconds after its client has left.
    eventually(|| running.server.metrics().sessions_away.get() == 0).await;
    running.stop().await;
    let running = start(image.path()).await;
    let (_here, ack) = V5::connect(running.address, keep("here")).await;
    assert!(ack.session_present);
    eventually(|| running.server.metrics().sessions_away.get() == 0).await;
    let (_away, ack) = V5::connect(running.address, keep("away")).await;
    assert!(!ack.session_present);
    running.stop().await;
}

/// After a kill the wills of those who were connected are published, unless they return; delayed ones of those
/// who were away are due as before. An orderly stop publishes the wills of those who are connected.
#[tokio::test]
async fn wills_outlive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let mut connected = Vec::new();
    for (id, expiry, delay) in [
        ("gone", 0, None),
        ("kept", 100, None),
        ("late", 100, Some(60)),
    ] {
        let (v5, _) = V5::connect(running.address, with_will(id, expiry, delay)).await;
        connected.push(v5);
    }
    let (mut leaving, _) = V5::connect(running.address, with_will("leaving", 100, None)).await;
    leaving
        .send(v5::Packet::Disconnect(v5::Disconnect::default()))
        .await;
    assert_eq!(leaving.next().await, None);
    drop(V5::connect(running.address, with_will("away", 100, Some(1))).await);
    drop(V5::connect(running.address, with_will("expiring", 1, Some(90))).await);
    eventually(|| running.server.metrics().sessions_away.get() == 3).await;
    let image = running.image().await;
    let killed = start(image.path()).await;
    for id in ["gone", "kept", "away", "expiring"] {
        let topic = format!("status/{id}");
        eventually(|| killed.last(&topic).as_deref() == Some(b"offline")).await;
    }
    assert_eq!(killed.last("status/late"), None);
    assert_eq!(killed.last("status/leaving"), None);
    // Said once, and not again at the next start.
    killed.publish("status/gone", "online", true, 1).await;
    killed.stop().await;
    let again = start(image.path()).await;
    let (_late, ack) = V5::connect(again.address, with_will("late", 100, None)).await;
    assert!(ack.session_present);
    assert_eq!(again.last("status/gone").as_deref(), Some(&b"online"[..]));
    assert_eq!(again.last("status/late"), None);
    again.stop().await;

    running.stop().await;
    let running = start(directory.path()).await;
    assert_eq!(
        running.last("status/gone").as_deref(),
        Some(&b"offline"[..])
    );
    assert_eq!(running.last("status/late"), None);
    running.stop().await;
}

/// A will that the bus refuses leaves nothing behind.
#[tokio::test]
async fn a_refused_will_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = stored(directory.path());
    options.limits.places = 64;
    let running = Running::with(options, Config::default()).await;
    let fill = |n: usize| {
        let topic = TopicName::parse(format!("fill/{n}")).unwrap();
        running.bus.publish(Publish::state(topic, "x"))
    };
    for n in 0.. {
        if fill(n).await.is_err() {
            break;
        }
    }
    let before = running.bus.metrics().publishes_dropped.get();
    let connect = with_will("refused", 0, None);
    drop(V5::connect(running.address, connect).await);
    eventually(|| running.bus.metrics().publishes_dropped.get() > before).await;
    running.publish("fill/0", "", true, 1).await;
    eventually(|| running.bus.metrics().connections.get() == 0).await;
    let image = running.image().await;
    running.stop().await;
    let running = Running::with(stored(image.path()), Config::default()).await;
    assert_eq!(running.server.metrics().sessions_away.get(), 0);
    running.stop().await;
}

/// Whoever comes back in time takes its will back, with or without a session.
#[tokio::test]
async fn a_return_takes_the_will_back() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let _clean = V5::connect(running.address, with_will("clean", 0, None)).await;
    let _kept = V5::connect(running.address, with_will("kept", 100, None)).await;
    let image = running.image().await;
    running.stop().await;
    // The grace of a server that nobody has told otherwise.
    let running = Running::with(stored(image.path()), Config::default()).await;
    assert_eq!(running.server.metrics().sessions_away.get(), 2);
    let mut returned = Vec::new();
    for id in ["clean", "kept"] {
        let without = Connect {
            last_will: None,
            ..with_will(id, 100, None)
        };
        let (mut v5, ack) = V5::connect(running.address, without).await;
        assert_eq!(ack.session_present, id == "kept");
        v5.quiet().await;
        returned.push(v5);
    }
    assert_eq!(running.server.metrics().sessions_away.get(), 0);
    running.stop().await;
    let running = start(image.path()).await;
    // Those two sessions are away since; their wills are no more.
    eventually(|| running.server.metrics().sessions_restored.get() == 2).await;
    assert_eq!(running.last("status/clean"), None);
    assert_eq!(running.last("status/kept"), None);
    running.stop().await;
}

/// Those whom a kill has cut off take no room from the sessions of those who are away, and their wills wait for
/// them, also where there are more of them than may be away.
#[tokio::test]
async fn all_who_were_connected_may_return() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let mut connected = Vec::new();
    for id in ["a", "b", "c"] {
        connected.push(V5::connect(running.address, with_will(id, 100, None)).await);
    }
    drop(
        V5::connect(
            running.address,
            Connect {
                last_will: None,
                ..with_will("0", 100, None)
            },
        )
        .await,
    );
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    let image = running.image().await;
    running.stop().await;
    let config = Config {
        max_sessions_away: 1,
        ..Config::default()
    };
    let running = Running::with(stored(image.path()), config).await;
    assert_eq!(running.server.metrics().sessions_away.get(), 4);
    // One more who leaves takes the place of the one that is away.
    drop(
        V5::connect(
            running.address,
            Connect {
                last_will: None,
                ..with_will("1", 100, None)
            },
        )
        .await,
    );
    eventually(|| running.server.metrics().sessions_dropped.get() == 1).await;
    for id in ["a", "b", "c"] {
        let (returned, ack) = V5::connect(running.address, with_will(id, 100, None)).await;
        assert!(ack.session_present);
        assert_eq!(running.last(&format!("status/{id}")), None);
        connected.push((returned, ack));
    }
    assert_eq!(running.server.metrics().sessions_away.get(), 1);
    running.stop().await;
}

/// More were connected at a kill than may be: the log names the setting.
#[tokio::test]
async fn who_finds_no_place_to_return_to_is_said() {
    log::capture();
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let mut connected = Vec::new();
    for id in ["beyond-1", "beyond-2", "beyond-3"] {
        connected.push(V5::connect(running.address, with_will(id, 100, None)).await);
    }
    let image = running.image().await;
    running.stop().await;
    let config = Config {
        max_connections: 2,
        ..Config::default()
    };
    let running = Running::with(stored(image.path()), config).await;
    eventually(|| running.server.metrics().sessions_dropped.get() == 1).await;
    let lines = log::lines(&["session ended, with", "beyond-"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    for words in ["setting=\"limits.connections\"", "limit=2", " WARN mqtt: "] {
        assert!(lines[0].contains(words), "{words} in {lines:?}");
    }
    running.stop().await;
}

/// A thousand sessions to which a hundred events each are owed.
#[tokio::test]
async fn a_thousand_sessions_are_there_again() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    // Fifty at a time, who share their commits.
    for some in 0..20 {
        let sleepers = (some * 50..).take(50).map(async |number| {
            let sleeper = client(&format!("s{number}"), false);
            let (mut raw, _) = Raw::connect(running.address, sleeper).await;
            raw.subscribe("many/+", QoS::AtLeastOnce).await;
        });
        futures_util::future::join_all(sleepers).await;
    }
    eventually(|| running.server.metrics().sessions_away.get() == 1_000).await;
    for number in 0..100 {
        running
            .publish("many/x", &number.to_string(), false, 1)
            .await;
    }
    running.stop().await;
    let began = std::time::Instant::now();
    let running = start(directory.path()).await;
    println!("1,000 sessions with 100 events each: {:?}", began.elapsed());
    assert_eq!(running.server.metrics().sessions_restored.get(), 1_000);
    for number in [0, 500, 999] {
        let id = format!("s{number}");
        let (mut raw, present) = Raw::connect(running.address, client(&id, false)).await;
        assert!(present);
        for number in 0..100 {
            let message = raw_message(&mut raw, &number.to_string()).await;
            acknowledge(&mut raw, &message).await;
        }
        raw.quiet().await;
    }
    running.stop().await;
}

/// QoS 2 in both directions, the server killed after each packet: the image of each moment goes on with the
/// client as it was then.
#[tokio::test]
async fn qos_2_is_completed_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let (mut raw, _) = Raw::connect(running.address, client("q", false)).await;
    raw.subscribe("out", QoS::ExactlyOnce).await;
    let subscribed = running.image().await;

    // To the server.
    raw.send(publish("clicks/main/k/press", "red", QoS::ExactlyOnce, 5))
        .await;
    let packet_id = 5.try_into().unwrap();
    assert_eq!(raw.next().await, Packet::PublishReceived { packet_id });
    let received = running.image().await;
    raw.send(Packet::PublishRelease { packet_id }).await;
    assert_eq!(raw.next().await, Packet::PublishComplete { packet_id });
    let completed = running.image().await;
    for (image, stage) in [(subscribed, 0), (received, 1), (completed, 2)] {
        let running = start(image.path()).await;
        let (mut raw, present) = Raw::connect(running.address, client("q", false)).await;
        assert!(present, "{stage}");
        let mut again = publish("clicks/main/k/press", "red", QoS::ExactlyOnce, 5);
        if let Packet::Publish(publish) = &mut again {
            publish.dup = stage < 2;
        }
        // The last is a press of its own, with an identifier that is free again.
        raw.send(again).await;
        assert_eq!(raw.next().await, Packet::PublishReceived { packet_id });
        raw.send(Packet::PublishRelease { packet_id }).await;
        assert_eq!(raw.next().await, Packet::PublishComplete { packet_id });
        let expected = if stage == 2 {
            r#"{"red":2,"blue":0}"#
        } else {
            r#"{"red":1,"blue":0}"#
        };
        eventually(|| running.last("clicks/main/values").as_deref() == Some(expected.as_bytes()))
            .await;
        running.stop().await;
    }

    // From the server.
    running.publish("out", "x", false, 2).await;
    let message = raw_message(&mut raw, "x").await;
    let packet_id = message.packet_id.unwrap();
    let sent = running.image().await;
    raw.send(Packet::PublishReceived { packet_id }).await;
    assert_eq!(raw.next().await, Packet::PublishRelease { packet_id });
    let released = running.image().await;
    raw.send(Packet::PublishComplete { packet_id }).await;
    raw.quiet().await;
    drop(raw);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    // As clients do that know nothing of sessions.
    let (mut raw, _) = Raw::connect(running.address, client("q", false)).await;
    raw.subscribe("out", QoS::ExactlyOnce).await;
    let finished = running.image().await;
    for (image, stage) in [(sent, 0), (released, 1), (finished, 2)] {
        let running = start(image.path()).await;
        let (mut raw, present) = Raw::connect(running.address, client("q", false)).await;
        assert!(present, "{stage}");
        if stage == 0 {
            let again = raw_message(&mut raw, "x").await;
            assert_eq!((again.packet_id, again.dup), (Some(packet_id), true));
            raw.send(Packet::PublishReceived { packet_id }).await;
        }
        if stage < 2 {
            assert_eq!(raw.next().await, Packet::PublishRelease { packet_id });
            raw.send(Packet::PublishComplete { packet_id }).await;
        }
        running.publish("out", "next", false, 2).await;
        raw_message(&mut raw, "next").await;
        raw.quiet().await;
        running.stop().await;
    }
    running.stop().await;
}

async fn puback(v5: &mut V5, packet_id: core::num::NonZeroU16) {
    let ack = v5::PublishAck {
        packet_id,
        ..v5::PublishAck::default()
    };
    v5.send(v5::Packet::PublishAck(ack)).await;
}

/// MQTT-4.4.0-1, MQTT-3.3.1-1: what was sent comes again as it was, in order, also where a newer value has replaced it and
/// in a shared subscription; what was not sent has its identifier yet to come.
#[tokio::test]
async fn unacknowledged_messages_keep_their_identifiers() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let lasting = || Connect {
        clean_start: false,
        session_expiry_interval_secs: 100,
        receive_max: Some(5.try_into().unwrap()),
        ..client_5("s")
    };
    let (mut v5, _) = V5::connect(running.address, lasting()).await;
    for filter in ["e/#", "$share/g/shared"] {
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            ..SubscriptionOptions::default()
        };
        v5.subscribe(one(filter, options)).await;
    }
    let mut sent = Vec::new();
    for (topic, payload, retain, qos) in [
        ("e/x", "m0", false, 1),
        ("e/x", "m1", true, 1),
        ("e/y", "m2", false, 2),
        ("e/x", "m3", true, 1),
        ("shared", "m4", false, 1),
    ] {
        running.publish(topic, payload, retain, qos).await;
        let message = v5.message().await;
        assert_eq!(
            (&message.payload[..], message.dup),
            (payload.as_bytes(), false)
        );
        sent.push((payload.to_owned(), message.packet_id.unwrap()));
    }
    for (payload, qos) in [("m5", 1), ("m6", 2), ("m7", 1)] {
        running.publish("e/x", payload, false, qos).await;
    }
    v5.quiet().await;
    let (_, first) = sent.remove(0);
    puback(&mut v5, first).await;
    // It is stored that the first is acknowledged, with what takes its place.
    let message = v5.message().await;
    assert_eq!((&message.payload[..], message.dup), (&b"m5"[..], false));
    sent.push(("m5".to_owned(), message.packet_id.unwrap()));
    let image = running.image().await;
    running.stop().await;

    for directory in [&image, &directory] {
        let running = start(directory.path()).await;
        let (mut v5, ack) = V5::connect(running.address, lasting()).await;
        assert!(ack.session_present);
        for (payload, id) in &sent {
            let message = v5.message().await;
            assert_eq!(&message.payload[..], payload.as_bytes());
            assert_eq!(
                (message.packet_id, message.dup),
                (Some(*id), true),
                "{payload}"
            );
        }
        // Late, and not in order: each hits its own.
        for acknowledged in [2, 0] {
            puback(&mut v5, sent[acknowledged].1).await;
        }
        for payload in ["m6", "m7"] {
            let message = v5.message().await;
            assert_eq!(
                (&message.payload[..], message.dup),
                (payload.as_bytes(), false)
            );
            let id = message.packet_id.unwrap();
            assert!(
                id != first && sent.iter().all(|(_, other)| *other != id),
                "{id}"
            );
        }
        drop(v5);
        eventually(|| running.server.metrics().sessions_away.get() == 1).await;
        running.stop().await;
        let running = start(directory.path()).await;
        let (mut v5, _) = V5::connect(running.address, lasting()).await;
        for payload in ["m2", "m4", "m5", "m6", "m7"] {
            let message = v5.message().await;
            assert_eq!(
                (&message.payload[..], message.dup),
                (payload.as_bytes(), true)
            );
        }
        v5.quiet().await;
        running.stop().await;
    }
}
