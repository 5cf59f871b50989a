//! Who comes in over MQTT, what they are told who do not, and what becomes of their sessions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::time::Duration;

use latchbus_bus::{Options, StoreKind};
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::{Connect, Packet};
use rmqtt_codec::v5::{self, DisconnectReasonCode, SubscribeAckReason};
use support::five::{V5, one};
use support::{Raw, Running, client, eventually, five};

#[path = "../../../tests/doorman.rs"]
mod doorman;
use doorman::Doorman;

fn three(id: &str, user: &str, password: &'static str) -> Connect {
    Connect {
        username: Some(user.to_owned().into()),
        password: Some(password.into()),
        ..client(id, false)
    }
}

fn four(id: &str, user: &str, password: &'static str) -> v5::Connect {
    v5::Connect {
        username: Some(user.to_owned().into()),
        password: Some(password.into()),
        ..five::client(id)
    }
}

/// The code of the CONNACK.
async fn code(running: &Running, connect: Connect) -> u8 {
    let mut raw = Raw::open(running.address).await;
    raw.send(Packet::Connect(Box::new(connect))).await;
    let Packet::ConnectAck(ack) = raw.next().await else {
        panic!("no CONNACK");
    };
    ack.return_code.into()
}

#[tokio::test]
async fn refusals_have_the_codes_of_their_version() {
    let running = Running::with(Doorman::new().options(), Config::default()).await;
    for (user, password, of_three, of_five) in [
        ("anna", "right", 0, 0),
        ("anna", "wrong", 4, 0x86),
        ("", "", 4, 0x86),
        ("barred", "right", 5, 0x87),
        ("often", "right", 3, 0x97),
        ("broken", "right", 3, 0x88),
    ] {
        assert_eq!(
            code(&running, three("a", user, password)).await,
            of_three,
            "{user}"
        );
        let (_, ack) = V5::connect(running.address, four("b", user, password)).await;
        assert_eq!(u8::from(ack.reason_code), of_five, "{user}");
    }
    assert_eq!(code(&running, client("a", true)).await, 5);
    let (_, ack) = V5::connect(running.address, five::client("b")).await;
    assert_eq!(u8::from(ack.reason_code), 0x87);
    running.stop().await;
}

/// Somebody whose password takes for ever holds up nobody else, and not the end of the server.
#[tokio::test]
async fn others_come_in_meanwhile() {
    let running = Running::with(Doorman::new().options(), Config::default()).await;
    let mut slow = Raw::open(running.address).await;
    slow.send(Packet::Connect(Box::new(three("slow", "slow", "x"))))
        .await;
    let (mut anna, _) = Raw::connect(running.address, three("a", "anna", "right")).await;
    anna.quiet().await;
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_get_an_answer_is_refused_in_time() {
    let config = Config {
        connect_timeout: Duration::from_millis(50),
        ..Config::default()
    };
    let running = Running::with(Doorman::new().options(), config).await;
    assert_eq!(code(&running, three("slow", "slow", "x")).await, 3);
    running.stop().await;
}

#[tokio::test]
async fn what_is_granted_and_what_is_read() {
    let running = Running::with(Doorman::new().options(), Config::default()).await;
    running.publish("a/kept", "1", true, 2).await;
    running.publish("b/kept", "1", true, 2).await;
    let (mut anna, _) = V5::connect(running.address, four("a", "anna", "right")).await;
    let options = |qos| v5::SubscriptionOptions {
        qos,
        ..v5::SubscriptionOptions::default()
    };
    let mut subscribe = one("#", options(QoS::ExactlyOnce));
    subscribe
        .topic_filters
        .push(("closed".into(), options(QoS::ExactlyOnce)));
    subscribe
        .topic_filters
        .push(("plain".into(), options(QoS::AtLeastOnce)));
    let status = anna.subscribe(subscribe).await;
    assert_eq!(
        status,
        [
            SubscribeAckReason::GrantedQos1,
            SubscribeAckReason::NotAuthorized,
            SubscribeAckReason::GrantedQos0,
        ]
    );
    let kept = anna.message().await;
    assert_eq!((&*kept.topic, kept.qos), ("a/kept", QoS::AtLeastOnce));
    running.publish("b/live", "1", false, 1).await;
    running.publish("a/live", "1", false, 1).await;
    assert_eq!(&*anna.message().await.topic, "a/live");
    anna.quiet().await;
    running.stop().await;
}

/// The will of somebody goes to those who may read it.
#[tokio::test]
async fn a_will_is_read_by_rule() {
    let running = Running::with(Doorman::new().options(), Config::default()).await;
    let (mut anna, _) = Raw::connect(running.address, three("a", "anna", "right")).await;
    let (mut bea, _) = Raw::connect(running.address, three("b", "bea", "right")).await;
    for raw in [&mut anna, &mut bea] {
        raw.subscribe("#", QoS::AtMostOnce).await;
    }
    let mut connect = three("c", "carl", "right");
    connect.last_will = Some(rmqtt_codec::v3::LastWill {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "b/will".into(),
        message: "x".into(),
    });
    let (carl, _) = Raw::connect(running.address, connect).await;
    drop(carl);
    assert_eq!(&*bea.message().await.topic, "b/will");
    anna.quiet().await;
    running.stop().await;
}

/// A session is its owner's, also after a restart.
#[tokio::test]
async fn nobody_takes_over_the_session_of_another_user() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..Doorman::new().options()
    };
    let running = Running::with(options(), Config::default()).await;
    let connect = |user: &str| three("shared-id", user, "right");
    let (mut anna, present) = Raw::connect(running.address, connect("anna")).await;
    assert!(!present);
    anna.subscribe("#", QoS::AtLeastOnce).await;
    drop(anna);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    running.publish("a/1", "x", false, 1).await;
    running.publish("b/1", "x", false, 1).await;
    running.stop().await;

    let running = Running::with(options(), Config::default()).await;
    let (mut anna, present) = Raw::connect(running.address, connect("anna")).await;
    assert!(present);
    assert_eq!(&*anna.message().await.topic, "a/1");
    anna.quiet().await;
    drop(anna);
    eventually(|| running.server.metrics().sessions_away.get() == 1).await;
    let (mut bea, present) = Raw::connect(running.address, connect("bea")).await;
    assert!(!present, "the session of somebody else");
    running.publish("a/2", "x", false, 1).await;
    bea.quiet().await;
    running.stop().await;
}

#[tokio::test]
async fn a_user_that_is_removed_is_disconnected() {
    let doorman = Doorman::new();
    let running = Running::with(doorman.options(), Config::default()).await;
    let (mut anna, _) = V5::connect(running.address, four("a", "anna", "right")).await;
    let (mut old, _) = Raw::connect(running.address, three("o", "anna", "right")).await;
    let (mut bea, _) = V5::connect(running.address, four("b", "bea", "right")).await;
    doorman.remove("anna");
    anna.ends(DisconnectReasonCode::NotAuthorized).await;
    assert_eq!(old.next_or_end().await, None);
    bea.quiet().await;
    running.stop().await;
}
