//! Statements of MQTT 5 that no other test file shows; `tests/mqtt/STATEMENTS.md` has them all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::num::{NonZeroU16, NonZeroU32};

use latchbus_core::topic::TopicName;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{
    Connect, Packet, PublishAck, PublishAck2, PublishAck2Reason, PublishAckReason,
    PublishProperties, SubscriptionOptions, Unsubscribe, UnsubscribeAckReason,
};
use support::five::{V5, client, message, one};
use support::{Running, eventually};
use tokio::io::AsyncWriteExt;

fn quality(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    }
}

fn persistent(id: &str) -> Connect {
    Connect {
        clean_start: false,
        session_expiry_interval_secs: 100,
        ..client(id)
    }
}

fn refused(packet_id: Option<NonZeroU16>) -> PublishAck {
    PublishAck {
        packet_id: packet_id.unwrap(),
        reason_code: PublishAckReason::UnspecifiedError,
        ..PublishAck::default()
    }
}

/// MQTT-3.3.4-10, MQTT-4.9.0-3: who takes no more messages still gets everything else.
#[tokio::test]
async fn a_full_window_delays_messages_alone() {
    let running = Running::start().await;
    let connect = Connect {
        receive_max: NonZeroU16::new(1),
        ..client("s")
    };
    let (mut v5, _) = V5::connect(running.address, connect).await;
    v5.subscribe(one("w", quality(QoS::AtLeastOnce))).await;
    for payload in ["1", "2", "3"] {
        running.publish("w", payload, false, 1).await;
    }
    assert_eq!(v5.message().await.payload, "1");
    v5.quiet().await;
    v5.subscribe(one("other", quality(QoS::AtMostOnce))).await;
    // Neither does the quota count for QoS 0, of a subscription that has nothing else.
    running.publish("other", "0", false, 0).await;
    v5.send(Packet::Publish(Box::new(message(
        "mine",
        "x",
        QoS::AtLeastOnce,
        7,
    ))))
    .await;
    let mut acknowledged = false;
    while !acknowledged {
        match v5.next().await.unwrap() {
            Packet::PublishAck(ack) => acknowledged = ack.packet_id.get() == 7,
            Packet::Publish(publish) => assert_eq!(publish.payload, "0"),
            other => panic!("{other:?}"),
        }
    }
    running.stop().await;
}

/// MQTT-4.4.0-2: a message that the client refuses is over, at QoS 1 and 2.
#[tokio::test]
async fn what_a_client_refuses_does_not_come_again() {
    let running = Running::start().await;
    let (mut v5, _) = V5::connect(running.address, persistent("s")).await;
    v5.subscribe(one("r", quality(QoS::ExactlyOnce))).await;
    running.publish("r", "one", false, 1).await;
    running.publish("r", "two", false, 2).await;
    let one = v5.message().await;
    let two = v5.message().await;
    v5.send(Packet::PublishAck(refused(one.packet_id))).await;
    v5.send(Packet::PublishReceived(refused(two.packet_id)))
        .await;
    v5.quiet().await;
    drop(v5);
    let (mut v5, ack) = V5::connect(running.address, persistent("s")).await;
    assert!(ack.session_present);
    v5.quiet().await;
    running.stop().await;
}

/// MQTT-4.3.3-7, MQTT-4.3.3-13: once sent, a message is completed although its time is over. What a connection later is left of
/// it is in the tests of expiry.
#[tokio::test]
async fn what_was_sent_does_not_expire() {
    let running = Running::start().await;
    let (mut v5, _) = V5::connect(running.address, persistent("s")).await;
    v5.subscribe(one("x", quality(QoS::ExactlyOnce))).await;
    let mut publisher = V5::open(running.address, "p").await;
    let mut short = message("x", "short", QoS::ExactlyOnce, 1);
    short.retain = true;
    short.properties = Some(PublishProperties {
        message_expiry_interval: NonZeroU32::new(1),
        ..PublishProperties::default()
    });
    publisher.send(Packet::Publish(Box::new(short))).await;
    let sent = v5.message().await;
    let topic = TopicName::parse("x").unwrap();
    eventually(|| running.bus.last(topic).is_none()).await;
    let packet_id = sent.packet_id.unwrap();
    v5.send(Packet::PublishReceived(PublishAck {
        packet_id,
        ..PublishAck::default()
    }))
    .await;
    match v5.next().await {
        Some(Packet::PublishRelease(release)) => assert_eq!(release.packet_id, packet_id),
        other => panic!("{other:?}"),
    }
    v5.send(Packet::PublishComplete(PublishAck2 {
        packet_id,
        ..PublishAck2::default()
    }))
    .await;
    // The publisher's half is completed too.
    assert!(matches!(
        publisher.next().await,
        Some(Packet::PublishReceived(_))
    ));
    publisher
        .send(Packet::PublishRelease(PublishAck2 {
            packet_id: NonZeroU16::MIN,
            ..PublishAck2::default()
        }))
        .await;
    match publisher.next().await {
        Some(Packet::PublishComplete(ack)) => {
            assert_eq!(ack.reason_code, PublishAck2Reason::Success);
        }
        other => panic!("{other:?}"),
    }
    running.stop().await;
}

/// MQTT-3.11.3-1, MQTT-3.10.4-6: a code for each filter, in their order, in one UNSUBACK.
#[tokio::test]
async fn an_unsuback_has_its_codes_in_order() {
    let running = Running::start().await;
    let mut v5 = V5::open(running.address, "s").await;
    v5.subscribe(one("there", quality(QoS::AtMostOnce))).await;
    v5.send(Packet::Unsubscribe(Unsubscribe {
        packet_id: NonZeroU16::MAX,
        user_properties: Vec::new(),
        topic_filters: ["never", "there", "there", "nor/#"].map(Into::into).into(),
    }))
    .await;
    let Some(Packet::UnsubscribeAck(ack)) = v5.next().await else {
        panic!("no UNSUBACK");
    };
    let none = UnsubscribeAckReason::NoSubscriptionExisted;
    assert_eq!(ack.packet_id, NonZeroU16::MAX);
    assert_eq!(
        ack.status,
        [none, UnsubscribeAckReason::Success, none, none]
    );
    running.stop().await;
}

/// MQTT-3.4.2-2, MQTT-3.5.2-2, MQTT-3.14.2-3: a reason in words only where the client's maximum allows it.
#[tokio::test]
async fn words_are_left_out_where_they_do_not_fit() {
    let running = Running::start().await;
    for (most, with_words) in [(16, false), (1_000, true)] {
        let connect = Connect {
            max_packet_size: NonZeroU32::new(most),
            ..client("s")
        };
        let (mut v5, _) = V5::connect(running.address, connect).await;
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let refused = message("clicks/main/values", "x", qos, 1);
            v5.send(Packet::Publish(Box::new(refused))).await;
            let (Some(Packet::PublishAck(ack)) | Some(Packet::PublishReceived(ack))) =
                v5.next().await
            else {
                panic!("no answer");
            };
            assert_eq!(ack.reason_code, PublishAckReason::NotAuthorized);
            assert_eq!(ack.reason_string.is_some(), with_words);
        }
        // QoS 3
        v5.stream
            .write_all(b"\x36\x06\0\x01a\0\x01\0")
            .await
            .unwrap();
        let Some(Packet::Disconnect(disconnect)) = v5.next().await else {
            panic!("no DISCONNECT");
        };
        assert_eq!(u8::from(disconnect.reason_code), 0x81);
        assert_eq!(disconnect.reason_string.is_some(), with_words);
        assert_eq!(v5.next().await, None, "nothing follows a DISCONNECT");
    }
    running.stop().await;
}
