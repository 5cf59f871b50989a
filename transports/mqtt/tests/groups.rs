//! What becomes of a group's messages when a member's session ends (MQTT 5 §4.8.2).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::num::NonZeroU16;

use latchbus_bus::{Principal, Session, Subscribe};
use latchbus_core::hub::{Mode, Start};
use latchbus_core::topic::{TopicFilter, TopicName};
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{
    Connect, Packet, PublishAck, PublishAck2, PublishAckReason, SubscriptionOptions,
};
use support::five::{V5, client, message, one};
use support::{Running, eventually, log};

async fn member(running: &Running, connect: Connect) -> V5 {
    let (mut v5, ack) = V5::connect(running.address, connect).await;
    if !ack.session_present {
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            ..SubscriptionOptions::default()
        };
        v5.subscribe(one("$share/g/w", options)).await;
    }
    v5
}

fn lasting(id: &str, secs: u32) -> Connect {
    Connect {
        clean_start: false,
        session_expiry_interval_secs: secs,
        ..client(id)
    }
}

fn ack(packet_id: Option<NonZeroU16>) -> PublishAck {
    PublishAck {
        packet_id: packet_id.unwrap(),
        ..PublishAck::default()
    }
}

/// Completes the QoS 2 messages that the server is about to send, and says what they were.
async fn complete(v5: &mut V5, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let message = v5.message().await;
        v5.send(Packet::PublishReceived(ack(message.packet_id)))
            .await;
        let Some(Packet::PublishRelease(release)) = v5.next().await else {
            panic!("no PUBREL");
        };
        v5.send(Packet::PublishComplete(PublishAck2 {
            packet_id: release.packet_id,
            ..PublishAck2::default()
        }))
        .await;
        payloads.push(String::from_utf8(message.payload.to_vec()).unwrap());
    }
    payloads
}

/// §4.8.2: a QoS 1 message that a member has not acknowledged goes to another when the session ends. Until
/// then it waits for the member's return.
#[tokio::test]
async fn what_a_member_leaves_unacknowledged_another_gets() {
    for (expiry, clean) in [(0, true), (100, true)] {
        let running = Running::start().await;
        let mut first = member(&running, lasting("first", expiry)).await;
        for payload in ["1", "2", "3"] {
            running.publish("w", payload, false, 1).await;
        }
        for payload in ["1", "2", "3"] {
            assert_eq!(first.message().await.payload, payload);
        }
        let mut second = member(&running, client("second")).await;
        drop(first);
        if expiry > 0 {
            eventually(|| running.server.metrics().sessions_away.get() == 1).await;
            second.quiet().await;
            // The session ends with a clean start.
            let mut first = lasting("first", 0);
            first.clean_start = clean;
            V5::connect(running.address, first).await.0.quiet().await;
        }
        for payload in ["1", "2", "3"] {
            let message = second.message().await;
            assert_eq!(
                (&*message.payload, message.dup),
                (payload.as_bytes(), false)
            );
            second
                .send(Packet::PublishAck(ack(message.packet_id)))
                .await;
        }
        second.quiet().await;
        running.stop().await;
    }
}

/// MQTT-4.8.2-4: a QoS 2 message is completed with whom it was sent to; MQTT-4.8.2-5: nobody else gets it,
/// also when that session ends.
#[tokio::test]
async fn a_qos_2_message_stays_with_its_member() {
    let running = Running::start().await;
    let mut first = member(&running, lasting("first", 100)).await;
    running.publish("w", "returns", false, 2).await;
    assert_eq!(first.message().await.payload, "returns");
    let mut second = member(&running, client("second")).await;
    drop(first);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    second.quiet().await;
    let mut first = member(&running, lasting("first", 100)).await;
    assert_eq!(complete(&mut first, 1).await, ["returns"]);

    // The one that waits longest has the first turn.
    second.quiet().await;
    running.publish("w", "a", false, 2).await;
    running.publish("w", "b", false, 2).await;
    assert_eq!(complete(&mut second, 1).await.len(), 1);
    first.message().await;
    drop(first);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    drop(V5::connect(running.address, client("first")).await);
    running.publish("w", "next", false, 2).await;
    assert_eq!(complete(&mut second, 1).await, ["next"]);
    second.quiet().await;
    running.stop().await;
}

/// MQTT-4.8.2-6: what a member refuses is offered to nobody else.
#[tokio::test]
async fn what_a_member_refuses_is_over() {
    let running = Running::start().await;
    let mut first = member(&running, lasting("first", 0)).await;
    running.publish("w", "refused", false, 1).await;
    let message = first.message().await;
    let mut second = member(&running, client("second")).await;
    first
        .send(Packet::PublishAck(PublishAck {
            reason_code: PublishAckReason::UnspecifiedError,
            ..ack(message.packet_id)
        }))
        .await;
    first.quiet().await;
    drop(first);
    eventually(|| running.bus.metrics().connections.get() == 1).await;
    second.quiet().await;
    running.publish("w", "next", false, 2).await;
    assert_eq!(complete(&mut second, 1).await, ["next"]);
    running.stop().await;
}

/// Members take turns also where each message comes when the one before was answered, and nobody waits for the members.
#[tokio::test]
async fn members_take_turns_however_quickly_messages_come() {
    const MESSAGES: u64 = 100;
    let running = Running::start().await;
    let mut members = Vec::new();
    for name in ["first", "second"] {
        let mut v5 = member(&running, client(name)).await;
        v5.quiet().await;
        members.push(v5);
    }
    let mut publisher = V5::open(running.address, "publisher").await;
    let before = running.bus.metrics().messages_sent.get();
    for _ in 0..MESSAGES {
        let message = message("w", "x", QoS::AtLeastOnce, 1);
        publisher.send(Packet::Publish(Box::new(message))).await;
        assert!(matches!(
            publisher.next().await,
            Some(Packet::PublishAck(_))
        ));
    }
    eventually(|| running.bus.metrics().messages_sent.get() - before == MESSAGES).await;
    let mut taken = Vec::new();
    for member in &mut members {
        member.send(Packet::PingRequest).await;
        let mut count = 0;
        while let Some(Packet::Publish(_)) = member.next().await {
            count += 1;
        }
        taken.push(count);
    }
    assert_eq!(taken.iter().sum::<u64>(), MESSAGES, "{taken:?}");
    assert!(taken.iter().all(|count| *count >= 40), "{taken:?}");
    running.stop().await;
}

/// What ended sessions leave to their group is bounded: the oldest of it is lost, counted and said.
#[tokio::test]
async fn what_a_group_has_no_room_for_is_said() {
    const BOUND: usize = 4_096;
    log::capture();
    let running = Running::start().await;
    running.publish("overflow", "x", true, 1).await;
    let topic = TopicName::parse("overflow").unwrap();
    let message = running.bus.last(topic).unwrap();
    let principal = Principal::anonymous("mqtt").with_client_id("overflowing");
    let session = Session::new(running.bus.client(principal).unwrap());
    let subscribed = session.subscribe(vec![Subscribe {
        id: 1,
        filter: TopicFilter::parse("overflow".to_owned()).unwrap(),
        mode: Mode::Every,
        start: Start::Live,
        pace: None,
        group: Some("g".to_owned()),
        durable: false,
        waits: false,
    }]);
    assert_eq!(subscribed, [Ok(())]);
    let said = || log::lines(&[" WARN mqtt: ", "shared subscription lost", "overflowing"]);
    session.give_back(1, vec![message.clone(); BOUND]);
    assert_eq!((said().len(), running.bus.lost().skipped), (0, 0));
    session.give_back(1, vec![message; 3]);
    assert_eq!(running.bus.lost().skipped, 3);
    let said = said();
    assert!(said.len() == 1 && said[0].contains("lost=3"), "{said:?}");
    drop(session);
    running.stop().await;
}
