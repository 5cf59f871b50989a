//! What the rules let through, by every way out of the bus, and what happens when they change.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use futures_util::{FutureExt, StreamExt};
use latchbus_bus::memory::MemoryPeer;
use latchbus_bus::{
    Authenticator, Authorizer, BoxFuture, Bus, Client, Clock, Credentials, Ended, Event, Forbidden,
    Grant, Identity, Options, Principal, Publish, PublishRefused, PublishRequest, ReadRules,
    Reader, Request, Session, SignIn, SignInRefused, SignedIn, SignedOut, Subscribe,
    SubscribeRefused,
};
use latchbus_core::hub::{Cursor, Mode, Start, Step};
use latchbus_core::topic::{TopicFilter, TopicName};
use support::*;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Users, each with the letters with which the topics may begin that it reads.
#[derive(Clone)]
struct Rules(Arc<Mutex<Table>>, watch::Sender<u64>);

#[derive(Default)]
struct Table {
    readers: Vec<(String, Reader)>,
    gone: BTreeSet<String>,
    /// Filters that nobody may subscribe to.
    refused: BTreeSet<String>,
}

struct Letters(String);

impl ReadRules for Letters {
    fn may_read(&self, topic: TopicName<&str>) -> bool {
        topic
            .as_str()
            .chars()
            .next()
            .is_some_and(|first| self.0.contains(first))
    }

    fn may_read_all(&self, filter: TopicFilter<&str>) -> bool {
        let first = filter.as_str().chars().next();
        first.is_some_and(|first| !"#+".contains(first) && self.0.contains(first))
    }
}

impl Rules {
    fn new(users: &[(&str, &str)]) -> Self {
        let rules = Self(Arc::default(), watch::Sender::new(0));
        for (user, letters) in users {
            rules.set(user, letters);
        }
        rules
    }

    fn set(&self, user: &str, letters: &str) {
        let mut table = self.0.lock().unwrap();
        table.readers.retain(|(other, _)| other != user);
        let reader = Reader::new(Letters(letters.to_owned()));
        table.readers.push((user.to_owned(), reader));
        drop(table);
        self.1.send_modify(|n| *n += 1);
    }

    fn refuse(&self, filter: &str, refused: bool) {
        let mut table = self.0.lock().unwrap();
        match refused {
            true => table.refused.insert(filter.to_owned()),
            false => table.refused.remove(filter),
        };
        drop(table);
        self.1.send_modify(|n| *n += 1);
    }

    fn remove(&self, user: &str) {
        self.0.lock().unwrap().gone.insert(user.to_owned());
        self.1.send_modify(|n| *n += 1);
    }
}

impl Authorizer for Rules {
    fn authorize_connect(&self, _: &Principal) -> bool {
        !self.0.lock().unwrap().refused.contains("connect")
    }

    fn authorize_publish(&self, principal: &Principal, publish: &PublishRequest<'_>) -> bool {
        principal.identity == Identity::Process || publish.topic.as_str() != "closed"
    }

    fn authorize_subscribe(&self, _: &Principal, filter: TopicFilter<&str>) -> Option<Grant> {
        let is_refused = self.0.lock().unwrap().refused.contains(filter.as_str());
        (filter.as_str() != "closed" && !is_refused).then(Grant::default)
    }

    fn reader(&self, principal: &Principal) -> Option<Reader> {
        let name = principal.identity.name()?;
        let table = self.0.lock().unwrap();
        let found = table.readers.iter().find(|(user, _)| user == name);
        found.map(|(_, reader)| reader.clone())
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.1.subscribe())
    }
}

impl Authenticator for Rules {
    fn authenticate(&self, sign_in: SignIn) -> BoxFuture<'_, Result<SignedIn, SignInRefused>> {
        Box::pin(async move {
            match (sign_in.credentials.user, sign_in.credentials.password) {
                (Some(user), Some(password)) if password == "right" => {
                    Ok(SignedIn::new(Identity::User(user)))
                }
                (Some(user), None) if user == "never" => core::future::pending().await,
                (None, None) if sign_in.credentials.token.is_none() => {
                    Err(SignInRefused::CredentialsRequired)
                }
                _ => Err(SignInRefused::BadCredentials),
            }
        })
    }

    fn still_valid(&self, principal: &Principal) -> bool {
        let name = principal.identity.name();
        !name.is_some_and(|name| self.0.lock().unwrap().gone.contains(name))
    }
}

fn open_by(rules: &Rules) -> Bus {
    Bus::open(Options {
        limits: LIMITS,
        sys_every: None,
        rooms: Vec::new(),
        authenticator: Arc::new(rules.clone()),
        authorizer: Arc::new(rules.clone()),
        ..Options::default()
    })
    .unwrap()
}

fn user(bus: &Bus, name: &str) -> Client {
    bus.client(Principal::user(name.to_owned(), "test"))
        .unwrap()
}

fn texts(values: &[latchbus_bus::Delivery]) -> Vec<&str> {
    values.iter().map(|value| value.topic.as_str()).collect()
}

/// The topics that come until `synced` or, after it, until this topic.
async fn topics(peer: &mut MemoryPeer, until: Option<&str>) -> Vec<String> {
    let mut topics = Vec::new();
    loop {
        match recv(peer).await {
            Event::Message { delivery, .. } => {
                let topic = delivery.topic.as_str().to_owned();
                let is_last = until == Some(&*topic);
                topics.push(topic);
                if is_last {
                    return topics;
                }
            }
            Event::Synced { .. } if until.is_none() => return topics,
            Event::Subscribed { .. } | Event::Synced { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn credentials_become_a_principal_or_a_refusal() {
    let bus = open_by(&Rules::new(&[]));
    let sign_in = |credentials| {
        SignIn::new("test")
            .with_client_id("c")
            .with_credentials(credentials)
    };
    let client = bus
        .sign_in(sign_in(Credentials::password("anna", "right")))
        .await
        .unwrap();
    assert_eq!(client.principal().identity, Identity::User("anna".into()));
    assert_eq!(
        (client.principal().transport, &*client.principal().client_id),
        ("test", "c")
    );
    for (credentials, expected) in [
        (Credentials::default(), SignInRefused::CredentialsRequired),
        (
            Credentials::password("anna", "wrong"),
            SignInRefused::BadCredentials,
        ),
        (Credentials::token("x"), SignInRefused::BadCredentials),
    ] {
        let shown = format!("{credentials:?}");
        assert!(!shown.contains("wrong") && !shown.contains('x'), "{shown}");
        assert_eq!(
            bus.sign_in(sign_in(credentials)).await.unwrap_err(),
            expected
        );
    }
}

/// What an MQTT client with no-local does not get is its own, and not that of somebody else who uses its client identifier.
#[tokio::test]
async fn who_uses_the_name_of_another_is_another_origin() {
    let bus = open_by(&Rules::new(&[]));
    let named = |principal: Principal| bus.client(principal.with_client_id("kiosk")).unwrap();
    let user = |name: &str| named(Principal::user(name.into(), "mqtt")).origin();
    let mut token = Principal::anonymous("mqtt");
    token.identity = Identity::Token {
        subject: "anna".into(),
    };
    let origins = [
        user("anna"),
        user("bea"),
        named(token).origin(),
        named(Principal::anonymous("mqtt")).origin(),
    ];
    let different: BTreeSet<_> = origins.into_iter().collect();
    assert_eq!(different.len(), 4);
    assert_eq!(user("anna"), origins[0]);
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_does_not_answer_is_given_up() {
    let bus = open_by(&Rules::new(&[]));
    let mut credentials = Credentials::default();
    credentials.user = Some("never".into());
    let refused = bus
        .sign_in(SignIn::new("test").with_credentials(credentials))
        .await;
    assert_eq!(refused.unwrap_err(), SignInRefused::Unavailable);
}

#[tokio::test]
async fn a_wide_filter_brings_what_may_be_read() {
    let bus = open_by(&Rules::new(&[("anna", "ac"), ("all", "abc")]));
    for topic in ["a/1", "b/1", "c/1"] {
        bus.publish(state(topic, "x")).await.unwrap();
    }
    let anna = user(&bus, "anna");
    let (mut peer, _run) = run(Session::new(anna.clone()), 16, CancellationToken::new());
    peer.requests
        .send(subscribe(1, "#", Mode::Every))
        .await
        .unwrap();
    assert_eq!(topics(&mut peer, None).await, ["a/1", "c/1"]);
    let mut stream = anna
        .subscribe(filter("#").borrowed(), Mode::Latest, Start::Snapshot)
        .unwrap();
    let mut watch = anna.watch("#").unwrap();
    for topic in ["b/2", "a/2", "b/3", "c/2"] {
        bus.publish(event(topic, "x")).await.unwrap();
    }
    assert_eq!(topics(&mut peer, Some("c/2")).await, ["a/2", "c/2"]);
    let mut streamed = Vec::new();
    while streamed.last().is_none_or(|last| last != "c/2") {
        if let Step::Entry { entry, .. } = within(stream.next()).await.unwrap() {
            streamed.push(entry.topic.as_str().to_owned());
        }
    }
    assert_eq!(streamed, ["a/1", "c/1", "a/2", "c/2"]);
    let mut watched = BTreeSet::new();
    while !watched.contains("c/2") {
        watched.insert(within(watch.next()).await.unwrap().topic().to_owned());
    }
    assert!(
        watched.iter().all(|topic| !topic.starts_with('b')),
        "{watched:?}"
    );
    // What one asks for at once.
    assert_eq!(
        texts(&anna.kept(filter("#").borrowed()).unwrap()),
        ["a/1", "c/1"]
    );
    assert!(anna.value("a/1").is_some() && anna.value("b/1").is_none());
    assert!(bus.value("b/1").is_some());
    assert!(anna.history(name("a/1").borrowed(), None, 9).is_ok());
    assert!(anna.history(name("b/1").borrowed(), None, 9).is_err());
    let mut exported = 0;
    for record in anna.export().await.unwrap() {
        assert!(!format!("{record:?}").contains("b/1"));
        exported += 1;
    }
    assert!(exported >= 2);
}

/// Also where it is hidden from `#`, and where a part of the whole may not be subscribed to.
#[tokio::test]
async fn an_export_has_what_may_be_read_and_nothing_else() {
    struct Only(&'static str, &'static [&'static str]);
    impl ReadRules for Only {
        fn may_read(&self, topic: TopicName<&str>) -> bool {
            topic.as_str().starts_with(self.0)
        }
        fn may_read_all(&self, filter: TopicFilter<&str>) -> bool {
            self.1.contains(&filter.as_str())
        }
    }
    struct Rules(Reader, &'static [&'static str]);
    impl Authorizer for Rules {
        fn authorize_subscribe(&self, _: &Principal, filter: TopicFilter<&str>) -> Option<Grant> {
            (self.1.contains(&filter.as_str())).then(Grant::default)
        }
        fn reader(&self, principal: &Principal) -> Option<Reader> {
            (principal.identity != Identity::Process).then(|| self.0.clone())
        }
    }
    const BOTH: &[&str] = &["#", "$SYS/#"];
    for (prefix, all, subscribes, expected) in [
        ("a", &[][..], BOTH, Some("a/1")),
        ("a", &[], &["#"][..], Some("a/1")),
        ("$s", &[], &["$SYS/#"], Some("$s/1")),
        ("a", &[], &["a/#"], None),
        ("a", BOTH, BOTH, Some("a/1")),
    ] {
        let bus = Bus::open(Options {
            sys_every: None,
            rooms: Vec::new(),
            authorizer: Arc::new(Rules(Reader::new(Only(prefix, all)), subscribes)),
            ..Options::default()
        })
        .unwrap();
        for topic in ["a/1", "$s/1"] {
            bus.publish(state(topic, "x")).await.unwrap();
        }
        let exported = match user(&bus, "anna").export().await {
            Ok(export) => export.map(|record| format!("{record:?}")).collect(),
            Err(_) => Vec::new(),
        };
        assert_eq!(
            exported.len(),
            usize::from(expected.is_some()),
            "{exported:?}"
        );
        assert!(exported.iter().all(|it| it.contains(expected.unwrap())));
    }
}

/// Its clicks too are read by rule only, and an export is a way to read.
#[tokio::test]
async fn what_the_hub_itself_retains_is_read_by_rule() {
    let bus = open_by(&Rules::new(&[("anna", "a"), ("carl", "c")]));
    bus.publish(event("clicks/main/kiosk/press", "red"))
        .await
        .unwrap();
    for (name, may) in [("anna", false), ("carl", true)] {
        let client = user(&bus, name);
        assert_eq!(client.value("clicks/main/values").is_some(), may);
        let forged = client.publish(state("clicks/main/values", "1")).await;
        assert!(forged.is_err());
        let exported = client.export().await.unwrap().count();
        assert_eq!(exported > 0, may);
    }
}

#[tokio::test]
async fn what_may_not_be_read_is_neither_missed_nor_counted() {
    let bus = open_by(&Rules::new(&[("anna", "a")]));
    let anna = user(&bus, "anna");
    let mut stream = anna
        .subscribe(filter("#").borrowed(), Mode::Every, Start::Live)
        .unwrap();
    for n in 0..10 * LIMITS.recent {
        bus.publish(event("b", n.to_string())).await.unwrap();
    }
    bus.publish(event("a", "x")).await.unwrap();
    let mut steps = Vec::new();
    loop {
        match within(stream.next()).await.unwrap() {
            Step::Entry { entry, .. } => {
                steps.push(entry.topic.as_str().to_owned());
                break;
            }
            Step::Synced { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(steps, ["a"]);
    let counts = stream.counts();
    assert_eq!((counts.taken, counts.skipped, counts.conflated), (1, 0, 0));
    assert_eq!((bus.lost().skipped, bus.lost().conflated), (0, 0));
}

#[tokio::test]
async fn a_cursor_resumes_with_what_may_be_read() {
    let bus = open_by(&Rules::new(&[("anna", "a")]));
    let first = bus.publish(state("a/1", "x")).await.unwrap().rev;
    for publish in [
        state("b/1", "x"),
        event("b/2", "x"),
        state("a/2", "x"),
        event("a/3", "x"),
    ] {
        bus.publish(publish).await.unwrap();
    }
    let (mut peer, _run) = run(
        Session::new(user(&bus, "anna")),
        16,
        CancellationToken::new(),
    );
    let cursor = Cursor {
        epoch: bus.epoch(),
        rev: first,
    };
    let subscribe = Subscribe {
        id: 1,
        filter: filter("#"),
        mode: Mode::Every,
        start: Start::Resume(cursor),
        pace: None,
        group: None,
        durable: false,
        waits: false,
    };
    let request = Request::Subscribe {
        id: 1,
        subscriptions: vec![subscribe],
    };
    peer.requests.send(request).await.unwrap();
    assert_eq!(topics(&mut peer, None).await, ["a/2", "a/3"]);
}

fn member(id: u64) -> Request {
    let subscriptions = vec![Subscribe {
        id,
        filter: filter("#"),
        mode: Mode::Every,
        start: Start::Live,
        pace: None,
        group: Some("g".into()),
        durable: false,
        waits: false,
    }];
    Request::Subscribe { id, subscriptions }
}

/// One of a group gets it, if one may read it; who may not leaves it to the others.
#[tokio::test]
async fn a_shared_subscription_of_members_with_different_rights() {
    let rules = Rules::new(&[("anna", "ab"), ("bea", "bc"), ("dora", "d")]);
    let bus = open_by(&rules);
    let mut peers = Vec::new();
    for name in ["anna", "bea", "dora"] {
        let (mut peer, _run) = run(Session::new(user(&bus, name)), 16, CancellationToken::new());
        peer.requests.send(member(1)).await.unwrap();
        assert!(matches!(recv(&mut peer).await, Event::Subscribed { .. }));
        peers.push((name, peer));
    }
    let mut expected = BTreeSet::new();
    for n in 0..60 {
        // Nobody reads `e`.
        let topic = format!("{}/{n}", ["a", "b", "c", "d", "e"][n % 5]);
        bus.publish(event(&topic, "x")).await.unwrap();
        if n % 5 < 4 {
            expected.insert(topic);
        }
        tokio::task::yield_now().await;
    }
    let mut got = BTreeSet::new();
    while got.len() < expected.len() {
        for (name, peer) in &mut peers {
            while let Some(Ok(event)) = peer.events.recv().now_or_never() {
                let Event::Message { delivery, .. } = event else {
                    continue;
                };
                let topic = delivery.topic.as_str();
                let letters = match *name {
                    "anna" => "ab",
                    "bea" => "bc",
                    _ => "d",
                };
                assert!(letters.contains(&topic[..1]), "{name} got {topic}");
                assert!(got.insert(topic.to_owned()), "{topic} twice");
            }
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(got, expected);
    assert_eq!(bus.lost().skipped, 0);
}

#[tokio::test]
async fn open_subscriptions_follow_the_rules() {
    let rules = Rules::new(&[("anna", "ab")]);
    let bus = open_by(&rules);
    let anna = user(&bus, "anna");
    let (mut peer, _run) = run(Session::new(anna.clone()), 16, CancellationToken::new());
    peer.requests
        .send(subscribe(1, "#", Mode::Every))
        .await
        .unwrap();
    assert!(
        topics(&mut peer, None)
            .await
            .iter()
            .all(|topic| !topic.starts_with('x'))
    );
    let mut stream = anna
        .subscribe(filter("#").borrowed(), Mode::Every, Start::Live)
        .unwrap();
    bus.publish(event("b/1", "x")).await.unwrap();
    assert_eq!(topics(&mut peer, Some("b/1")).await, ["b/1"]);
    rules.set("anna", "ac");
    // Until the new rules are known everywhere.
    within(async {
        loop {
            bus.publish(event("c/probe", "x")).await.unwrap();
            if peer.events.recv().now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    for topic in ["b/2", "c/1", "a/1"] {
        bus.publish(event(topic, "x")).await.unwrap();
    }
    let mut came = topics(&mut peer, Some("a/1")).await;
    came.retain(|topic| topic != "c/probe");
    assert_eq!(came, ["c/1", "a/1"]);
    let mut streamed = Vec::new();
    while streamed.last().is_none_or(|last| last != "a/1") {
        if let Step::Entry { entry, .. } = within(stream.next()).await.unwrap() {
            streamed.push(entry.topic.as_str().to_owned());
        }
    }
    streamed.retain(|topic| topic != "c/probe");
    // It was never asked for `b/1`, which it may not read any more.
    assert_eq!(streamed, ["c/1", "a/1"]);
}

#[tokio::test]
async fn a_subscription_that_is_not_allowed_any_more_brings_nothing_and_the_others_go_on() {
    let rules = Rules::new(&[("anna", "ab")]);
    let bus = open_by(&rules);
    let session = Session::new(user(&bus, "anna"));
    let (mut peer, _run) = run(session, 16, CancellationToken::new());
    for (id, filter) in [(1, "a/#"), (2, "b/#")] {
        let subscribe = subscribe(id, filter, Mode::Every);
        peer.requests.send(subscribe).await.unwrap();
        assert_eq!(topics(&mut peer, None).await, [] as [String; 0]);
    }
    rules.refuse("a/#", true);
    known_everywhere().await;
    for topic in ["a/1", "b/1"] {
        bus.publish(event(topic, "x")).await.unwrap();
    }
    assert_eq!(topics(&mut peer, Some("b/1")).await, ["b/1"]);
}

#[tokio::test]
async fn who_has_still_to_sign_in_may_do_nothing() {
    let bus = support::open();
    bus.publish(state("a", "1")).await.unwrap();
    let mut guest = Principal::anonymous("ws");
    guest.identity = Identity::Guest;
    let guest = bus.client(guest).unwrap();
    for publish in [state("a", "2"), event("a", "2")] {
        let refused = guest.publish(publish).await.unwrap_err();
        assert_eq!(refused, PublishRefused::SignInRequired);
    }
    let subscribed = guest.subscribe(filter("a").borrowed(), Mode::Latest, Start::Snapshot);
    assert_eq!(subscribed.unwrap_err(), SubscribeRefused::SignInRequired);
    let exported = guest.export().await.unwrap_err();
    assert_eq!(exported, SubscribeRefused::SignInRequired);
    assert!(!guest.may_administer());
    assert_eq!(last(&bus, "a").unwrap(), "1");
}

/// A session without a link takes what it may when it has one again.
#[tokio::test]
async fn a_session_that_was_away_follows_the_rules() {
    let rules = Rules::new(&[("anna", "ab")]);
    let bus = open_by(&rules);
    let (mut peer, first) = run(
        Session::new(user(&bus, "anna")),
        16,
        CancellationToken::new(),
    );
    peer.requests
        .send(subscribe(1, "#", Mode::Every))
        .await
        .unwrap();
    topics(&mut peer, None).await;
    drop(peer);
    let (session, _) = within(first).await.unwrap();
    for topic in ["a/1", "b/1", "a/2"] {
        bus.publish(event(topic, "x")).await.unwrap();
    }
    rules.set("anna", "a");
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
    let (mut peer, _second) = run(session, 16, CancellationToken::new());
    assert_eq!(topics(&mut peer, Some("a/2")).await, ["a/1", "a/2"]);
}

#[tokio::test]
async fn a_user_that_is_removed_is_out() {
    let rules = Rules::new(&[("anna", "a"), ("bea", "a")]);
    let bus = open_by(&rules);
    let (_peer, anna) = run(
        Session::new(user(&bus, "anna")),
        16,
        CancellationToken::new(),
    );
    let (_other, bea) = run(
        Session::new(user(&bus, "bea")),
        16,
        CancellationToken::new(),
    );
    let mut stream = (user(&bus, "anna"))
        .subscribe(filter("#").borrowed(), Mode::Every, Start::Live)
        .unwrap();
    tokio::task::yield_now().await;
    rules.remove("anna");
    let (_, ended) = within(anna).await.unwrap();
    assert!(
        matches!(ended, Ended::SignedOut(SignedOut::Revoked)),
        "{ended:?}"
    );
    while within(stream.next()).await.is_some() {}
    assert!(!bea.is_finished());
}

#[tokio::test]
async fn a_sign_in_expires_unless_it_is_renewed() {
    let bus = open_by(&Rules::new(&[]));
    let until = |after: Duration| {
        let mut principal = Principal::user("anna".into(), "test");
        principal.expires_at = Some(SystemTime::now() + after);
        principal
    };
    let short = bus.client(until(Duration::from_millis(20))).unwrap();
    let (_peer, ends) = run(Session::new(short), 16, CancellationToken::new());
    let (_, ended) = within(ends).await.unwrap();
    assert!(
        matches!(ended, Ended::SignedOut(SignedOut::Expired)),
        "{ended:?}"
    );

    let long = bus.client(until(Duration::from_secs(3_600))).unwrap();
    let (_peer, ends) = run(Session::new(long.clone()), 16, CancellationToken::new());
    tokio::task::yield_now().await;
    assert!(!ends.is_finished());
    long.renew(until(Duration::ZERO));
    let (_, ended) = within(ends).await.unwrap();
    assert!(
        matches!(ended, Ended::SignedOut(SignedOut::Expired)),
        "{ended:?}"
    );
}

/// What one may do where a topic begins with it: `events` alone, QoS 0 alone where it is `low`, and only both where it is `both`.
struct Less;

impl Authorizer for Less {
    fn authorize_publish(&self, _: &Principal, publish: &PublishRequest<'_>) -> bool {
        match publish.topic.as_str().split('/').next() {
            Some("events") => !publish.retain,
            Some("low") => publish.qos == 0,
            Some("both") => !publish.retain && publish.qos == 0,
            Some("none") => false,
            _ => true,
        }
    }
}

#[tokio::test]
async fn a_refusal_says_what_of_a_publish_it_is_that_is_refused() {
    let bus = Bus::builder().authorizer(Less).open().unwrap();
    let anna = user(&bus, "anna");
    let (state, event) = (true, false);
    for (topic, retain, qos, expected) in [
        ("events/a", event, 2, None),
        ("events/a", state, 0, Some(Forbidden::State)),
        ("events/a", state, 2, Some(Forbidden::State)),
        ("low/a", state, 0, None),
        ("low/a", state, 1, Some(Forbidden::Qos(1))),
        ("low/a", event, 2, Some(Forbidden::Qos(2))),
        ("both/a", event, 0, None),
        ("both/a", event, 1, Some(Forbidden::Qos(1))),
        ("both/a", state, 0, Some(Forbidden::State)),
        ("both/a", state, 2, Some(Forbidden::StateAtQos(2))),
        ("none/a", state, 2, Some(Forbidden::Topic)),
        ("clicks/main/values", event, 0, Some(Forbidden::Reserved)),
        ("$SYS/a", state, 2, Some(Forbidden::Reserved)),
    ] {
        let mut publish = Publish::event(TopicName::parse(topic.to_owned()).unwrap(), "1");
        (publish.retain, publish.qos) = (retain, qos);
        let expected = expected.map(|what| PublishRefused::NotAllowed(topic.to_owned(), what));
        let checked = anna.check_publish(&publish).err();
        assert_eq!(checked, expected, "{topic} {retain} {qos}");
        assert_eq!(anna.publish(publish).await.err(), expected);
    }
    bus.close().await;
}

async fn known_everywhere() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Its client is not told, and would not ask again.
#[tokio::test]
async fn a_subscription_that_is_refused_for_a_while_comes_back() {
    for (mode, group) in [
        (Mode::Every, None),
        (Mode::Latest, None),
        (Mode::Every, Some("g".to_owned())),
    ] {
        let rules = Rules::new(&[("anna", "a")]);
        let bus = open_by(&rules);
        bus.publish_state("a/kept", "1").await.unwrap();
        let (mut peer, _run) = run(
            Session::new(user(&bus, "anna")),
            16,
            CancellationToken::new(),
        );
        let Request::Subscribe { id, subscriptions } = subscribe(1, "a/#", mode) else {
            panic!("it is a subscription");
        };
        let is_member = group.is_some();
        let subscriptions = subscriptions.into_iter();
        let subscriptions = subscriptions.map(|subscribe| Subscribe {
            group: group.clone(),
            pace: None,
            ..subscribe
        });
        let subscriptions = subscriptions.collect();
        let request = Request::Subscribe { id, subscriptions };
        peer.requests.send(request).await.unwrap();
        match is_member {
            // The group is there.
            true => assert!(matches!(recv(&mut peer).await, Event::Subscribed { .. })),
            false => assert_eq!(topics(&mut peer, None).await, ["a/kept"]),
        }
        bus.publish(event("a/1", "x")).await.unwrap();
        assert!(topics(&mut peer, Some("a/1")).await.contains(&"a/1".into()));

        rules.refuse("a/#", true);
        known_everywhere().await;
        bus.publish(event("a/2", "x")).await.unwrap();
        bus.publish_state("a/kept", "2").await.unwrap();
        bus.publish_state("a/new", "2").await.unwrap();
        known_everywhere().await;
        assert!(peer.events.recv().now_or_never().is_none(), "{mode:?}");

        rules.refuse("a/#", false);
        known_everywhere().await;
        bus.publish(event("a/3", "x")).await.unwrap();
        let mut came = topics(&mut peer, Some("a/3")).await;
        came.sort();
        // A member of a group gets no state of before.
        let expected = match is_member {
            true => &["a/3"][..],
            false => &["a/3", "a/kept", "a/new"],
        };
        assert_eq!(came, expected, "{mode:?}");
    }
}

/// The same of a part of what a subscription brings.
#[tokio::test]
async fn a_part_that_is_refused_for_a_while_comes_back() {
    for mode in [Mode::Every, Mode::Latest] {
        let rules = Rules::new(&[("anna", "ab")]);
        let bus = open_by(&rules);
        let (mut peer, _run) = run(
            Session::new(user(&bus, "anna")),
            16,
            CancellationToken::new(),
        );
        peer.requests.send(subscribe(1, "#", mode)).await.unwrap();
        topics(&mut peer, None).await;
        rules.set("anna", "a");
        known_everywhere().await;
        bus.publish(event("b/event", "x")).await.unwrap();
        bus.publish_state("b/state", "1").await.unwrap();
        known_everywhere().await;
        rules.set("anna", "ab");
        known_everywhere().await;
        bus.publish(event("b/live", "x")).await.unwrap();
        let came = topics(&mut peer, Some("b/live")).await;
        assert_eq!(came, ["b/state", "b/live"], "{mode:?}");

        // It goes on with the rest meanwhile, and is told of what has gone.
        rules.set("anna", "a");
        known_everywhere().await;
        bus.publish_state("b/other", "1").await.unwrap();
        bus.clear("b/state").await.unwrap();
        bus.publish_state("a/state", "1").await.unwrap();
        bus.publish(event("a/live", "x")).await.unwrap();
        let came = topics(&mut peer, Some("a/live")).await;
        assert_eq!(came, ["a/state", "a/live"], "{mode:?}");
        rules.set("anna", "ab");
        known_everywhere().await;
        bus.publish(event("b/live", "x")).await.unwrap();
        let came = topics(&mut peer, Some("b/live")).await;
        assert_eq!(came, ["b/other", "b/state", "b/live"], "{mode:?}");
    }
}

/// One that was accepted in an earlier life, say.
#[tokio::test]
async fn a_subscription_that_waits_is_accepted_and_brings_nothing_until_it_is_allowed() {
    let rules = Rules::new(&[("anna", "a")]);
    let bus = open_by(&rules);
    bus.publish_state("a/kept", "1").await.unwrap();
    rules.refuse("a/#", true);
    known_everywhere().await;
    let session = Session::new(user(&bus, "anna"));
    let subscribe = |waits| {
        vec![Subscribe {
            id: 1,
            filter: filter("a/#"),
            mode: Mode::Every,
            start: Start::Snapshot,
            pace: None,
            group: None,
            durable: false,
            waits,
        }]
    };
    assert!(session.subscribe(subscribe(false))[0].is_err());
    assert!(session.subscribe(subscribe(true))[0].is_ok());
    let (mut peer, _run) = run(session, 16, CancellationToken::new());
    assert!(topics(&mut peer, None).await.is_empty());
    rules.refuse("a/#", false);
    assert_eq!(topics(&mut peer, Some("a/kept")).await, ["a/kept"]);
}

/// Each cause has its own words.
#[tokio::test]
async fn it_is_said_why_a_peer_may_not_stay() {
    let ends = async |bus: &Bus, client: Client, change: &mut dyn FnMut(&Client)| {
        let (_peer, ends) = run(Session::new(client.clone()), 16, CancellationToken::new());
        known_everywhere().await;
        change(&client);
        let (_, ended) = within(ends).await.unwrap();
        bus.close().await;
        match ended {
            Ended::SignedOut(why) => why,
            other => panic!("{other:?}"),
        }
    };
    let rules = Rules::new(&[]);
    let manual = |rules: &Rules| {
        let clock = Clock::manual(1_000_000);
        let bus = Bus::open(Options {
            clock: clock.clone(),
            sys_every: None,
            authenticator: Arc::new(rules.clone()),
            authorizer: Arc::new(rules.clone()),
            ..Options::default()
        });
        (bus.unwrap(), clock)
    };
    let guest = async |bus: &Bus| bus.sign_in_or_wait(SignIn::new("ws")).await.unwrap();

    let bus = open_by(&rules);
    let mut token = Principal::anonymous("test");
    token.identity = Identity::Token {
        subject: "anna".into(),
    };
    let client = bus.client(token.clone()).unwrap();
    token.expires_at = Some(SystemTime::now());
    let why = ends(&bus, client, &mut |client| client.renew(token.clone())).await;
    assert_eq!(why, SignedOut::TokenExpired);

    // No sign-in in time.
    let (bus, clock) = manual(&rules);
    let client = guest(&bus).await;
    clock.set(1_000_000 + 10_000);
    let why = ends(&bus, client, &mut |_| rules.refuse("nothing", true)).await;
    assert_eq!(why, SignedOut::NotSignedIn);
    assert_eq!(why.to_string(), "no sign-in within 10 s");

    // A wrong password.
    let bus = open_by(&rules);
    let client = guest(&bus).await;
    let wrong = client.sign_in_again(Credentials::password("anna", "wrong"));
    assert_eq!(wrong.await, Err(SignInRefused::BadCredentials));
    let why = ends(&bus, client, &mut |_| {}).await;
    assert_eq!(why, SignedOut::Refused(SignInRefused::BadCredentials));

    // Somebody else: it stays who it was.
    let bus = open_by(&rules);
    let client = user(&bus, "anna");
    let other = client.sign_in_again(Credentials::password("bea", "right"));
    assert_eq!(other.await, Err(SignInRefused::OtherIdentity));
    assert_eq!(client.principal().identity.name(), Some("anna"));
    let refused: Vec<_> = bus.metrics().sign_ins_refused.by_cause().collect();
    assert!(refused.contains(&("other_identity", 1)), "{refused:?}");
    rules.0.lock().unwrap().refused.insert("connect".into());
    let why = ends(&bus, client, &mut |_| rules.refuse("nothing", true)).await;
    assert_eq!(why, SignedOut::NotAllowed);
}
