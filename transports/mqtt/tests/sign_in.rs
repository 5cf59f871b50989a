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

use latchbus_bus::{Clock, Options, Principal, StoreKind};
use latchbus_mqtt::server::Config;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::{Connect, Packet};
use rmqtt_codec::v5::{
    self, Auth, AuthReasonCode, ConnectAckReason, DisconnectReasonCode, SubscribeAckReason,
};
use support::five::{V5, one};
use support::{DEADLINE, Raw, Running, client, eventually, five};
use tokio::time::timeout;

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

/// The same client with an event at QoS 0 as its will.
fn with_will(connect: Connect, topic: &'static str) -> Connect {
    Connect {
        last_will: Some(rmqtt_codec::v3::LastWill {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: topic.into(),
            message: "x".into(),
        }),
        ..connect
    }
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
    let connect = with_will(three("c", "carl", "right"), "b/will");
    let (carl, _) = Raw::connect(running.address, connect).await;
    drop(carl);
    assert_eq!(&*bea.message().await.topic, "b/will");
    anna.quiet().await;
    running.stop().await;
}

/// That its device is gone is true, and nobody else would say it.
#[tokio::test]
async fn the_will_of_a_removed_user_is_published() {
    let doorman = Doorman::new();
    let running = Running::with(doorman.options(), Config::default()).await;
    let (mut bea, _) = Raw::connect(running.address, three("b", "bea", "right")).await;
    bea.subscribe("#", QoS::AtMostOnce).await;
    let old = with_will(three("c", "carl", "right"), "b/3");
    let new = v5::Connect {
        last_will: Some(five::will("b/5", "x")),
        ..four("d", "dora", "right")
    };
    let _carl = Raw::connect(running.address, old).await;
    let _dora = V5::connect(running.address, new).await;
    for (user, topic) in [("carl", "b/3"), ("dora", "b/5")] {
        doorman.remove(user);
        assert_eq!(&*bea.message().await.topic, topic);
    }
    running.stop().await;
}

/// Reads up to this topic; whatever comes is of those with the same first letter.
async fn brings(raw: &mut Raw, topic: &str) {
    loop {
        let message = raw.message().await;
        assert_eq!(message.topic.chars().next(), topic.chars().next());
        if &*message.topic == topic {
            return;
        }
    }
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
    // Who comes with the same client identifier and is somebody else gets a session of their own, and leaves the other where it is.
    let (mut bea, present) = Raw::connect(running.address, connect("bea")).await;
    assert!(!present, "the session of somebody else");
    running.publish("a/2", "x", false, 1).await;
    bea.quiet().await;
    let (mut anna, present) = Raw::connect(running.address, connect("anna")).await;
    assert!(present, "ended by somebody else");
    // What was not acknowledged comes again before it.
    brings(&mut anna, "a/2").await;
    bea.subscribe("#", QoS::AtLeastOnce).await;
    running.publish("b/3", "x", false, 1).await;
    assert_eq!(&*bea.message().await.topic, "b/3");
    for raw in [&mut anna, &mut bea] {
        raw.quiet().await;
    }
    running.stop().await;

    // Nor does a restart mix them up.
    let running = Running::with(options(), Config::default()).await;
    for (user, topic) in [("bea", "b/4"), ("anna", "a/4")] {
        running.publish(topic, "x", false, 1).await;
        let (mut raw, present) = Raw::connect(running.address, connect(user)).await;
        assert!(present);
        brings(&mut raw, topic).await;
        raw.quiet().await;
    }

    // An administrator sees both under the one identifier, and ends both.
    eventually(|| running.server.metrics().sessions_away.get() == 2).await;
    let admin = running.bus.client(Principal::process()).unwrap();
    let sessions = running.server.sessions(&admin, "", 1).unwrap();
    let seen = sessions.iter().map(|session| {
        let name = session.principal.identity.name().unwrap_or_default();
        (&*session.client_id, name)
    });
    let seen: Vec<_> = seen.collect();
    assert_eq!(seen, [("shared-id", "anna"), ("shared-id", "bea")]);
    let behind = running.server.sessions(&admin, "shared-id", 1);
    assert_eq!(behind.unwrap(), []);
    let ended = running.server.end_session(&admin, "shared-id");
    ended.await.unwrap();
    assert_eq!(running.server.sessions(&admin, "", 9).unwrap(), []);
    running.stop().await;
}

/// Whoever gets the name of a user that was removed is somebody else, and finds no session, neither one that was kept nor one that
/// was in use.
#[tokio::test]
async fn the_sessions_of_a_user_end_when_it_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let doorman = Doorman::new();
    let options = || Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..doorman.options()
    };
    let durable = |id: &str, user: &str| v5::Connect {
        clean_start: false,
        session_expiry_interval_secs: 3_600,
        ..four(id, user, "right")
    };
    let begin = async |running: &Running, users: &[&str]| {
        for user in users {
            let (mut raw, present) =
                Raw::connect(running.address, three("three", user, "right")).await;
            assert!(!present, "{user}");
            raw.subscribe("#", QoS::AtLeastOnce).await;
            let (mut five, ack) = V5::connect(running.address, durable("five", user)).await;
            assert!(!ack.session_present, "{user}");
            five.subscribe(one("#", v5::SubscriptionOptions::default()))
                .await;
        }
    };
    let present = async |running: &Running, user: &str| {
        let (_raw, three) = Raw::connect(running.address, three("three", user, "right")).await;
        let (_five, five) = V5::connect(running.address, durable("five", user)).await;
        (three, five.session_present)
    };
    let away = |running: &Running| running.server.metrics().sessions_away.get();

    let running = Running::with(options(), Config::default()).await;
    begin(&running, &["anna", "bea"]).await;
    eventually(|| away(&running) == 4).await;
    running.publish("a/1", "x", false, 1).await;
    doorman.remove("anna");
    eventually(|| away(&running) == 2).await;
    doorman.add("anna");
    assert_eq!(present(&running, "anna").await, (false, false));
    assert_eq!(present(&running, "bea").await, (true, true));

    // While they are connected.
    let (anna, _) = Raw::connect(running.address, three("in use", "anna", "right")).await;
    eventually(|| away(&running) == 4).await;
    doorman.remove("anna");
    eventually(|| away(&running) == 2).await;
    drop(anna);
    doorman.add("anna");
    assert_eq!(present(&running, "anna").await, (false, false));
    let in_use = Raw::connect(running.address, three("in use", "anna", "right"));
    assert!(!in_use.await.1);
    running.stop().await;

    // While the server is away.
    doorman.remove("anna");
    let running = Running::with(options(), Config::default()).await;
    eventually(|| away(&running) == 2).await;
    doorman.add("anna");
    assert_eq!(present(&running, "anna").await, (false, false));
    assert_eq!(present(&running, "bea").await, (true, true));
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

/// Signs in by the method `token`.
fn by_token(id: &str, token: &str) -> v5::Connect {
    v5::Connect {
        auth_method: Some("token".into()),
        auth_data: Some(token.to_owned().into()),
        ..five::client(id)
    }
}

fn auth(method: Option<&'static str>, data: Option<&'static [u8]>) -> Auth {
    Auth {
        reason_code: AuthReasonCode::ReAuth,
        auth_method: method.map(Into::into),
        auth_data: data.map(Into::into),
        ..Auth::default()
    }
}

fn renewed() -> v5::Packet {
    v5::Packet::Auth(Auth {
        auth_method: Some("token".into()),
        ..Auth::default()
    })
}

/// MQTT 5 §4.12.
#[tokio::test]
async fn a_token_comes_by_the_authentication_method_of_that_name() {
    use ConnectAckReason::{
        BadAuthenticationMethod, BadUserNameOrPassword, QuotaExceeded, ServerUnavailable, Success,
    };

    let running = Running::with(Doorman::new().options(), Config::default()).await;
    for (token, expected) in [
        ("token-anna", Success),
        ("x", BadUserNameOrPassword),
        ("", BadUserNameOrPassword),
        ("token-expired", BadUserNameOrPassword),
        ("token-often", QuotaExceeded),
        ("token-broken", ServerUnavailable),
    ] {
        let (_, ack) = V5::connect(running.address, by_token("a", token)).await;
        assert_eq!(ack.reason_code, expected, "{token}");
        // MQTT-4.12.0-5
        let method = (expected == Success).then(|| "token".into());
        assert_eq!((ack.auth_method, ack.auth_data), (method, None), "{token}");
    }
    for (method, data, expected) in [
        ("token", None, BadUserNameOrPassword),
        ("token", Some(&b"\xff"[..]), BadUserNameOrPassword),
        ("Token", Some(b"token-anna"), BadAuthenticationMethod),
        ("", Some(b"token-anna"), BadAuthenticationMethod),
    ] {
        let connect = v5::Connect {
            auth_method: Some(method.into()),
            auth_data: data.map(Into::into),
            ..five::client("a")
        };
        let (_, ack) = V5::connect(running.address, connect).await;
        assert_eq!(ack.reason_code, expected, "{method} {data:?}");
    }
    // The token counts, whatever user stands beside it.
    let connect = v5::Connect {
        username: Some("bea".into()),
        ..by_token("a", "token-anna")
    };
    let (mut anna, _) = V5::connect(running.address, connect).await;
    running.publish("a/kept", "1", true, 1).await;
    running.publish("b/kept", "1", true, 1).await;
    anna.subscribe(one("#", v5::SubscriptionOptions::default()))
        .await;
    assert_eq!(&*anna.message().await.topic, "a/kept");
    anna.quiet().await;
    running.stop().await;
}

/// MQTT 5 §4.12.1: the sign-in goes on with the new token, and everything else goes on meanwhile.
#[tokio::test]
async fn a_client_proves_anew_who_it_is() {
    const END_MS: u64 = 1_000_000_000_000;
    let (clock, doorman) = (Clock::manual(END_MS - 1_000_000), Doorman::new());
    let options = Options {
        clock: clock.clone(),
        ..doorman.options()
    };
    let running = Running::with(options, Config::default()).await;
    let (mut anna, _) = V5::connect(running.address, by_token("a", "old-anna")).await;
    let (mut bea, _) = V5::connect(running.address, by_token("b", "old-bea")).await;
    anna.subscribe(one("#", v5::SubscriptionOptions::default()))
        .await;
    for _ in 0..2 {
        anna.send(v5::Packet::Auth(auth(Some("token"), Some(b"token-anna"))))
            .await;
        assert_eq!(anna.next().await, Some(renewed()));
    }
    clock.set(END_MS + 1);
    // Everything that is open is looked at again.
    doorman.remove("nobody");
    bea.ends(DisconnectReasonCode::NotAuthorized).await;
    running.publish("a/live", "1", false, 0).await;
    assert_eq!(&*anna.message().await.topic, "a/live");
    running.stop().await;
}

#[tokio::test]
async fn who_cannot_prove_anew_who_it_is_has_to_go() {
    use DisconnectReasonCode::{
        BadAuthenticationMethod, NotAuthorized, ProtocolError, QuotaExceeded, ServerBusy,
    };

    let running = Running::with(Doorman::new().options(), Config::default()).await;
    let continues = Auth {
        reason_code: AuthReasonCode::ContinueAuth,
        ..auth(Some("token"), Some(b"token-anna"))
    };
    for (auth, expected) in [
        (auth(Some("token"), Some(b"x")), NotAuthorized),
        (auth(Some("token"), Some(b"\xff")), NotAuthorized),
        (auth(Some("token"), None), NotAuthorized),
        (auth(Some("token"), Some(b"token-expired")), NotAuthorized),
        // Somebody else.
        (auth(Some("token"), Some(b"token-bea")), NotAuthorized),
        (auth(Some("token"), Some(b"token-often")), QuotaExceeded),
        (auth(Some("token"), Some(b"token-broken")), ServerBusy),
        (
            auth(Some("other"), Some(b"token-anna")),
            BadAuthenticationMethod,
        ),
        (auth(None, None), ProtocolError),
        (continues, ProtocolError),
    ] {
        let (mut anna, _) = V5::connect(running.address, by_token("a", "token-anna")).await;
        anna.send(v5::Packet::Auth(auth.clone())).await;
        // What comes behind it is not done.
        let publish = five::message("a/late", "1", QoS::AtMostOnce, 0);
        anna.send(v5::Packet::Publish(Box::new(publish))).await;
        match anna.next().await {
            Some(v5::Packet::Disconnect(goodbye)) => {
                assert_eq!(goodbye.reason_code, expected, "{auth:?}");
            }
            other => panic!("{auth:?}: {other:?}"),
        }
        assert_eq!(anna.next().await, None);
    }
    // A password was no method.
    let (mut anna, _) = V5::connect(running.address, four("a", "anna", "right")).await;
    anna.send(v5::Packet::Auth(auth(Some("token"), Some(b"token-anna"))))
        .await;
    anna.ends(ProtocolError).await;
    running.stop().await;
}

/// What was on its way when the rules changed is not sent again to who may not read it any more; also after a restart.
#[tokio::test]
async fn what_is_sent_again_is_what_may_be_read_now() {
    for restarts in [false, true] {
        let (directory, doorman) = (tempfile::tempdir().unwrap(), Doorman::new());
        let options = || Options {
            store: match restarts {
                true => StoreKind::Directory(directory.path().to_owned()),
                false => StoreKind::Memory,
            },
            ..doorman.options()
        };
        let mut running = Running::with(options(), Config::default()).await;
        let connect = || Connect {
            clean_session: false,
            ..three("a", "anna", "right")
        };
        let (mut anna, _) = Raw::connect(running.address, connect()).await;
        anna.subscribe("a/#", QoS::ExactlyOnce).await;
        let mut ids = Vec::new();
        for (topic, qos) in [("a/1", 1), ("a/2", 2), ("a/3", 1), ("a/4", 2)] {
            running.publish(topic, "x", false, qos).await;
            let message = anna.message().await;
            assert_eq!(&*message.topic, topic);
            ids.push(message.packet_id.unwrap());
        }
        drop(anna);
        eventually(|| running.server.metrics().sessions_away.get() == 1).await;
        for topic in ["a/1", "a/2"] {
            doorman.remove(topic);
        }
        if restarts {
            running.stop().await;
            running = Running::with(options(), Config::default()).await;
        }
        let (mut anna, present) = Raw::connect(running.address, connect()).await;
        assert!(present);
        // The client may have a/2, and waits for this.
        let release = Packet::PublishRelease { packet_id: ids[1] };
        assert_eq!(anna.next().await, release);
        for (topic, id) in [("a/3", ids[2]), ("a/4", ids[3])] {
            let message = anna.message().await;
            assert_eq!((&*message.topic, message.packet_id), (topic, Some(id)));
            assert!(message.dup);
        }
        anna.send(Packet::PublishComplete { packet_id: ids[1] })
            .await;
        anna.send(Packet::PublishAck { packet_id: ids[2] }).await;
        anna.quiet().await;
        running.stop().await;
    }
}

/// The greatest quality of service is that of the rules of now, for subscriptions that are there too.
#[tokio::test]
async fn subscriptions_that_are_there_follow_the_rules() {
    let (directory, doorman) = (tempfile::tempdir().unwrap(), Doorman::new());
    let options = || Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..doorman.options()
    };
    let running = Running::with(options(), Config::default()).await;
    let connect = || Connect {
        clean_session: false,
        ..three("a", "anna", "right")
    };
    let (mut anna, _) = Raw::connect(running.address, connect()).await;
    anna.subscribe("a/+", QoS::AtLeastOnce).await;
    running.publish("a/1", "x", false, 1).await;
    let before = anna.message().await;
    assert_eq!(before.qos, QoS::AtLeastOnce);
    doorman.remove("a/+");
    let follows = async {
        loop {
            running.publish("a/2", "x", false, 1).await;
            let message = anna.message().await;
            if message.qos == QoS::AtMostOnce {
                break;
            }
            let packet_id = message.packet_id.unwrap();
            anna.send(Packet::PublishAck { packet_id }).await;
        }
    };
    timeout(DEADLINE, follows).await.expect("in time");
    let packet_id = before.packet_id.unwrap();
    anna.send(Packet::PublishAck { packet_id }).await;
    anna.quiet().await;
    running.stop().await;

    let running = Running::with(options(), Config::default()).await;
    let (mut anna, present) = Raw::connect(running.address, connect()).await;
    assert!(present);
    running.publish("a/3", "x", false, 1).await;
    let message = anna.message().await;
    assert_eq!((&*message.topic, message.qos), ("a/3", QoS::AtMostOnce));
    running.stop().await;
}

/// A client of MQTT is not told that a subscription is refused later, and does not ask again.
#[tokio::test]
async fn a_subscription_that_is_refused_for_a_while_comes_back() {
    let (directory, doorman) = (tempfile::tempdir().unwrap(), Doorman::new());
    let options = || Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..doorman.options()
    };
    let connect = || Connect {
        clean_session: false,
        ..three("a", "anna", "right")
    };
    let running = Running::with(options(), Config::default()).await;
    let (mut anna, _) = Raw::connect(running.address, connect()).await;
    anna.subscribe("a/#", QoS::AtMostOnce).await;
    running.publish("a/kept", "1", true, 1).await;
    assert_eq!(&*anna.message().await.topic, "a/kept");
    let (mut five, _) = V5::connect(running.address, four("b", "anna", "right")).await;
    let once = v5::SubscriptionOptions {
        retain_handling: v5::RetainHandling::AtSubscribeNew,
        ..v5::SubscriptionOptions::default()
    };
    five.subscribe(one("a/#", once)).await;
    assert_eq!(&*five.message().await.topic, "a/kept");

    let mut changes = running.bus.rule_changes();
    doorman.remove("a/#");
    changes.changed().await.unwrap();
    anna.quiet().await;
    five.quiet().await;
    running.publish("a/1", "x", false, 1).await;
    anna.quiet().await;
    five.quiet().await;
    // Whoever asks again is told, also where nothing retained would come.
    let status = five.subscribe(one("a/#", once)).await;
    assert_eq!(status, [SubscribeAckReason::NotAuthorized]);

    let mut changes = running.bus.rule_changes();
    doorman.add("a/#");
    changes.changed().await.unwrap();
    for topic in ["a/kept", "a/2"] {
        if topic == "a/2" {
            running.publish("a/2", "x", false, 1).await;
        }
        assert_eq!(&*anna.message().await.topic, topic);
        assert_eq!(&*five.message().await.topic, topic);
    }

    // Over a restart.
    doorman.remove("a/#");
    running.stop().await;
    let running = Running::with(options(), Config::default()).await;
    let (mut anna, present) = Raw::connect(running.address, connect()).await;
    assert!(present);
    running.publish("a/3", "x", false, 1).await;
    anna.quiet().await;
    let mut changes = running.bus.rule_changes();
    doorman.add("a/#");
    changes.changed().await.unwrap();
    assert_eq!(&*anna.message().await.topic, "a/kept");
    running.publish("a/4", "x", false, 1).await;
    assert_eq!(&*anna.message().await.topic, "a/4");
    running.stop().await;
}
