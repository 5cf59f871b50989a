//! What MQTT 5 adds, over TCP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use latchbus_bus::{Authorizer, Grant, Options, Principal, PublishRequest};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{
    Connect, Disconnect, DisconnectReasonCode, Packet, PublishAck, PublishAck2, PublishAckReason,
    PublishProperties, RetainHandling, Subscribe, SubscribeAckReason, SubscriptionOptions,
    Unsubscribe,
};
use support::five::{V5, client, message, offline, one};
use support::{Raw, Running, eventually};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn the_connack_announces_what_there_is() {
    let running = Running::start().await;
    let (_v5, ack) = V5::connect(running.address, client("")).await;
    let assigned = ack.assigned_client_id.clone();
    assert!(assigned.as_ref().is_some_and(|id| !id.is_empty()));
    assert!(!ack.session_present && ack.shared_subscription_available);
    assert!(ack.retain_available && ack.wildcard_subscription_available);
    assert_eq!((ack.topic_alias_max, ack.receive_max.get()), (16, 256));
    assert_eq!(ack.max_packet_size, Some((1 << 20) + (32 << 10)));

    // Without an id and without a clean start: a new session under a new name.
    let connect = Connect {
        clean_start: false,
        session_expiry_interval_secs: u32::MAX,
        ..client("")
    };
    let (_v5, ack) = V5::connect(running.address, connect).await;
    assert!(ack.assigned_client_id.is_some() && !ack.session_present);
    assert_ne!(ack.assigned_client_id, assigned);
    assert_eq!(ack.session_expiry_interval_secs, Some(86_400), "the bound");
    running.stop().await;
}

#[derive(Debug)]
struct Rules;

impl Authorizer for Rules {
    fn authorize_publish(&self, _principal: &Principal, publish: &PublishRequest<'_>) -> bool {
        publish.topic.as_str() != "clicks/main/values"
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
async fn refusals_carry_their_reasons() {
    let options = Options {
        authorizer: Arc::new(Rules),
        ..Options::default()
    };
    let running = Running::with(options, Config::default()).await;
    let mut v5 = V5::open(running.address, "a").await;
    let cases = [
        ("clicks/main/values", "{}", PublishAckReason::NotAuthorized),
        (
            "clicks/main/k/press",
            "green",
            PublishAckReason::PayloadFormatInvalid,
        ),
        ("fine", "x", PublishAckReason::Success),
    ];
    for (number, (topic, payload, expected)) in (1..).zip(cases) {
        v5.send(Packet::Publish(Box::new(message(
            topic,
            payload,
            QoS::AtLeastOnce,
            number,
        ))))
        .await;
        match v5.next().await {
            Some(Packet::PublishAck(ack)) => {
                assert_eq!(ack.reason_code, expected, "{topic}");
                assert_eq!(ack.packet_id.get(), number);
            }
            other => panic!("{other:?}"),
        }
        // A refused PUBREC frees the identifier at once.
        for _ in 0..2 {
            v5.send(Packet::Publish(Box::new(message(
                topic,
                payload,
                QoS::ExactlyOnce,
                100,
            ))))
            .await;
            match v5.next().await {
                Some(Packet::PublishReceived(ack)) => {
                    assert_eq!((ack.reason_code, ack.packet_id.get()), (expected, 100));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let long = "l".repeat(2_000);
    let statuses = v5
        .subscribe(one(&long, SubscriptionOptions::default()))
        .await;
    assert_eq!(statuses, [SubscribeAckReason::TopicFilterInvalid]);
    // A code for each filter, in their order: MQTT-3.8.4-6, MQTT-3.9.3-1.
    let filter = |filter: &str, qos| {
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        (filter.into(), options)
    };
    let statuses = v5
        .subscribe(Subscribe {
            topic_filters: vec![
                filter("a", QoS::ExactlyOnce),
                filter(&long, QoS::AtMostOnce),
                filter("secret", QoS::AtMostOnce),
                filter("b", QoS::AtMostOnce),
                filter("c", QoS::AtLeastOnce),
            ],
            ..one("", SubscriptionOptions::default())
        })
        .await;
    assert_eq!(
        statuses,
        [
            SubscribeAckReason::GrantedQos2,
            SubscribeAckReason::TopicFilterInvalid,
            SubscribeAckReason::NotAuthorized,
            SubscribeAckReason::GrantedQos0,
            SubscribeAckReason::GrantedQos1,
        ]
    );
    // MQTT-3.6.2-1: a PUBREL for what is not known says so.
    v5.send(Packet::PublishReceived(PublishAck {
        packet_id: NonZeroU16::MAX,
        ..PublishAck::default()
    }))
    .await;
    match v5.next().await {
        Some(Packet::PublishRelease(release)) => {
            assert_eq!(release.packet_id, NonZeroU16::MAX);
            assert_eq!(u8::from(release.reason_code), 0x92);
        }
        other => panic!("{other:?}"),
    }
    v5.send(Packet::PublishRelease(PublishAck2 {
        packet_id: NonZeroU16::MAX,
        ..PublishAck2::default()
    }))
    .await;
    match v5.next().await {
        Some(Packet::PublishComplete(ack)) => {
            assert_eq!(ack.packet_id, NonZeroU16::MAX);
            assert_eq!(u8::from(ack.reason_code), 0x92);
        }
        other => panic!("{other:?}"),
    }
    running.stop().await;
}

#[tokio::test]
async fn violations_are_named_before_the_end() {
    let running = Running::start().await;
    let mut taken = V5::open(running.address, "a").await;
    let mut v5 = V5::open(running.address, "a").await;
    taken.ends(DisconnectReasonCode::SessionTakenOver).await;

    let mut aliased = message("t", "x", QoS::AtMostOnce, 0);
    aliased.properties = Some(PublishProperties {
        topic_alias: NonZeroU16::new(17),
        ..PublishProperties::default()
    });
    v5.send(Packet::Publish(Box::new(aliased))).await;
    v5.ends(DisconnectReasonCode::TopicAliasInvalid).await;

    let mut v5 = V5::open(running.address, "b").await;
    v5.stream
        .write_all(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F])
        .await
        .unwrap();
    v5.ends(DisconnectReasonCode::PacketTooLarge).await;

    let mut v5 = V5::open(running.address, "c").await;
    v5.send(Packet::ConnectAck(Box::default())).await;
    v5.ends(DisconnectReasonCode::ProtocolError).await;

    // 256 are announced; more are tolerated, for there are clients that do not look.
    let mut v5 = V5::open(running.address, "d").await;
    for id in 1..=4_096 {
        v5.send(Packet::Publish(Box::new(message(
            "t",
            "x",
            QoS::ExactlyOnce,
            id,
        ))))
        .await;
    }
    for _ in 0..4_096 {
        assert!(matches!(v5.next().await, Some(Packet::PublishReceived(_))));
    }
    // One that is released makes room for another, and for no more.
    v5.send(Packet::PublishRelease(PublishAck2 {
        packet_id: NonZeroU16::MIN,
        ..PublishAck2::default()
    }))
    .await;
    assert!(matches!(v5.next().await, Some(Packet::PublishComplete(_))));
    for (qos, id) in [(QoS::ExactlyOnce, 1), (QoS::AtLeastOnce, 5_000)] {
        v5.send(Packet::Publish(Box::new(message("t", "x", qos, id))))
            .await;
    }
    assert!(matches!(v5.next().await, Some(Packet::PublishReceived(_))));
    v5.ends(DisconnectReasonCode::ReceiveMaximumExceeded).await;

    let mut v5 = V5::open(running.address, "e").await;
    running.bus.close().await;
    v5.ends(DisconnectReasonCode::ServerShuttingDown).await;
}

#[tokio::test]
async fn options_of_a_subscription() {
    let running = Running::start().await;
    running.publish("o/a", "kept", true, 2).await;
    let mut v5 = V5::open(running.address, "s").await;
    let never = SubscriptionOptions {
        retain_handling: RetainHandling::NoAtSubscribe,
        ..SubscriptionOptions::default()
    };
    v5.subscribe(one("o/#", never)).await;
    v5.quiet().await;
    let when_new = SubscriptionOptions {
        retain_handling: RetainHandling::AtSubscribeNew,
        retain_as_published: true,
        qos: QoS::AtLeastOnce,
        ..SubscriptionOptions::default()
    };
    v5.subscribe(one("o/#", when_new)).await;
    v5.quiet().await;
    // The options have changed, the subscription went on.
    running.publish("o/a", "live", true, 1).await;
    let live = v5.message().await;
    assert!(live.retain && live.qos == QoS::AtLeastOnce);
    running.publish("o/a", "event", false, 0).await;
    assert!(!v5.message().await.retain);
    // Retain handling 0: the same filter again brings what is retained again. MQTT-3.3.1-12: without retain as published
    // the flag says that a message is of the snapshot.
    let again = SubscriptionOptions {
        retain_handling: RetainHandling::AtSubscribe,
        ..SubscriptionOptions::default()
    };
    v5.subscribe(one("o/#", again)).await;
    assert!(v5.message().await.retain);
    running.publish("o/a", "live", true, 1).await;
    assert!(!v5.message().await.retain);
    v5.quiet().await;

    let mut identified = one("o/+", when_new);
    identified.id = NonZeroU32::new(300_000);
    v5.subscribe(identified).await;
    let retained = v5.message().await;
    assert!(retained.retain && retained.payload == "live");
    let identifiers = retained.properties.unwrap().subscription_ids;
    assert_eq!(identifiers, [NonZeroU32::new(300_000).unwrap()]);
    // MQTT-3.3.1-10: a subscription that has ended is new when it begins again.
    v5.send(Packet::Unsubscribe(Unsubscribe {
        packet_id: NonZeroU16::MIN,
        user_properties: Vec::new(),
        topic_filters: vec!["o/#".into(), "o/+".into()],
    }))
    .await;
    assert!(matches!(v5.next().await, Some(Packet::UnsubscribeAck(_))));
    v5.subscribe(one("o/#", when_new)).await;
    assert!(v5.message().await.retain);
    v5.quiet().await;
    running.stop().await;
}

#[tokio::test]
async fn the_client_bounds_what_it_gets() {
    let running = Running::start().await;
    let connect = Connect {
        receive_max: NonZeroU16::new(2),
        max_packet_size: NonZeroU32::new(100),
        ..client("s")
    };
    let (mut v5, _) = V5::connect(running.address, connect).await;
    let qos_1 = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        ..SubscriptionOptions::default()
    };
    v5.subscribe(one("b", qos_1)).await;
    running.publish("b", &"x".repeat(200), false, 1).await;
    for payload in ["1", "2", "3"] {
        running.publish("b", payload, false, 1).await;
    }
    let first = v5.message().await;
    assert_eq!(first.payload, "1", "what is too large is left out");
    assert_eq!(v5.message().await.payload, "2");
    v5.quiet().await;
    v5.send(Packet::PublishAck(rmqtt_codec::v5::PublishAck {
        packet_id: first.packet_id.unwrap(),
        ..Default::default()
    }))
    .await;
    assert_eq!(v5.message().await.payload, "3");
    drop(v5);
    eventually(|| running.server.metrics().messages_too_large.get() == 1).await;
    running.stop().await;
}

/// MQTT 5 §3.14.2.1, MQTT-3.14.4-3: a DISCONNECT drops the will, but for that with the code 0x04.
#[tokio::test]
async fn a_disconnect_with_will_publishes_it() {
    let running = Running::start().await;
    for (id, reason_code, says) in [
        ("quiet", DisconnectReasonCode::NormalDisconnection, false),
        (
            "words",
            DisconnectReasonCode::DisconnectWithWillMessage,
            true,
        ),
    ] {
        let connect = Connect {
            last_will: Some(offline(id, None)),
            ..client(id)
        };
        let (mut v5, _) = V5::connect(running.address, connect).await;
        let disconnect = Disconnect {
            reason_code,
            ..Disconnect::default()
        };
        v5.send(Packet::Disconnect(disconnect)).await;
        assert_eq!(v5.next().await, None);
        eventually(|| running.bus.metrics().connections.get() == 0).await;
        let status = format!("status/{id}");
        let will = running.bus.last(TopicName::parse(&status[..]).unwrap());
        assert_eq!(will.is_some(), says, "{id}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_session_lives_as_long_as_was_agreed() {
    let running = Running::start().await;
    let keep = |secs| Connect {
        clean_start: false,
        session_expiry_interval_secs: secs,
        ..client("k")
    };
    let (mut v5, _) = V5::connect(running.address, keep(100)).await;
    v5.send(Packet::Disconnect(Disconnect::default())).await;
    assert_eq!(v5.next().await, None);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    let (mut v5, ack) = V5::connect(running.address, keep(100)).await;
    assert!(ack.session_present);
    // MQTT-3.1.2-4: a clean start ends the session that there is.
    v5.send(Packet::Disconnect(Disconnect::default())).await;
    assert_eq!(v5.next().await, None);
    let anew = Connect {
        clean_start: true,
        ..keep(100)
    };
    let (mut v5, ack) = V5::connect(running.address, anew).await;
    assert!(!ack.session_present);
    let forget = Disconnect {
        session_expiry_interval_secs: Some(0),
        ..Disconnect::default()
    };
    v5.send(Packet::Disconnect(forget)).await;
    assert_eq!(v5.next().await, None);
    let (mut v5, ack) = V5::connect(running.address, keep(0)).await;
    assert!(!ack.session_present);
    // MQTT 5 §3.14.2.2.2: what was to end may not be kept.
    let too_late = Disconnect {
        session_expiry_interval_secs: Some(9),
        ..Disconnect::default()
    };
    v5.send(Packet::Disconnect(too_late)).await;
    v5.ends(DisconnectReasonCode::ProtocolError).await;
    running.stop().await;
}

#[tokio::test]
async fn a_client_may_come_back_with_less_room() {
    let running = Running::start().await;
    let room = |messages| Connect {
        clean_start: false,
        session_expiry_interval_secs: 100,
        receive_max: NonZeroU16::new(messages),
        ..client("r")
    };
    let (mut v5, _) = V5::connect(running.address, room(3)).await;
    let qos_1 = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        ..SubscriptionOptions::default()
    };
    v5.subscribe(one("r", qos_1)).await;
    for payload in ["1", "2", "3", "4"] {
        running.publish("r", payload, false, 1).await;
    }
    for payload in ["1", "2", "3"] {
        assert_eq!(v5.message().await.payload, payload);
    }
    drop(v5);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    let (mut v5, ack) = V5::connect(running.address, room(1)).await;
    assert!(ack.session_present);
    for payload in ["1", "2", "3", "4"] {
        let message = v5.message().await;
        assert_eq!(
            (&*message.payload, message.dup),
            (payload.as_bytes(), payload != "4")
        );
        v5.quiet().await;
        v5.send(Packet::PublishAck(rmqtt_codec::v5::PublishAck {
            packet_id: message.packet_id.unwrap(),
            ..Default::default()
        }))
        .await;
    }
    running.stop().await;
}

/// A property that its version does not know must not reach a subscriber of 3.1.1.
#[tokio::test]
async fn messages_cross_between_the_versions() {
    let running = Running::start().await;
    let mut old = Raw::clean(running.address, "old").await;
    old.subscribe("x/#", QoS::AtLeastOnce).await;
    let mut new = V5::open(running.address, "new").await;
    new.subscribe(one("x/#", SubscriptionOptions::default()))
        .await;
    let mut publish = message("x/5", "hi", QoS::AtLeastOnce, 1);
    publish.properties = Some(PublishProperties {
        content_type: Some("text/plain".into()),
        user_properties: vec![("k".into(), "v".into())],
        message_expiry_interval: NonZeroU32::new(60),
        ..PublishProperties::default()
    });
    new.send(Packet::Publish(Box::new(publish))).await;
    let received = old.message().await;
    assert_eq!((&*received.topic, &*received.payload), ("x/5", &b"hi"[..]));
    old.send(support::publish("x/3", "ho", QoS::AtMostOnce, 0))
        .await;
    let mut payloads = Vec::new();
    while payloads.len() < 2 {
        if let Some(Packet::Publish(publish)) = new.next().await {
            payloads.push(publish.payload);
        }
    }
    assert_eq!(payloads, ["hi", "ho"]);
    running.stop().await;
}
