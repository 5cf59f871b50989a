//! One random table of rules, and every way in and out: nothing is delivered or accepted that a simple reference forbids, and
//! everything that it allows is.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../roles.rs"]
mod roles;
mod sessions;
mod table;
mod world;

use std::collections::BTreeSet;

use latchbus_bus::{Credentials, SignIn};
use latchbus_core::hub::Mode;
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::ErrorCode;
use latchbus_tests::bench::recv;
use latchbus_tests::depth::sized;
use latchbus_tests::http::{Answer, request_by};
use latchbus_tests::transport::{Connect, Incoming, Peer, Publish, Subscribe, Transport};
use latchbus_tests::transports::{
    Memory, Mqtt3, Mqtt5, OverPolls, OverWebSocket, SocketIo, WebSocketJson, WebSocketPostcard,
};
use latchbus_tests::users::PASSWORD;
use latchbus_tests::within;
use proptest::prelude::*;
use roles::matches;
use serde_json::Value;
use table::{END, Who, filter, table, topic};
use world::World;

/// Who comes: nobody in particular, and two users.
const USERS: [Option<&str>; 3] = [None, Some("anna"), Some("bea")];

/// What a door knows of its clients, and how it publishes.
struct Door {
    name: &'static str,
    /// It knows what clients call themselves.
    named: bool,
    qos: u8,
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: sized(5, 150),
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_door_keeps_the_rules(
        table in table(),
        later in table(),
        topics in prop::collection::btree_set(topic(), 12),
        filters in prop::collection::vec(filter(), 3),
        client in prop::sample::select(vec!["a", "c", "+", "a/b", "#"]),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::open(table, topics).await;
            for (user, filter) in USERS.into_iter().zip(&filters) {
                let visitor = (user, client, filter.as_str());
                // `max_qos` is a limit of MQTT.
                let over_bus = |name| Door { name, named: false, qos: 0 };
                let mqtt = |name| Door { name, named: true, qos: 1 };
                come::<Memory>(&world, Door { named: true, ..over_bus("memory") }, visitor).await;
                come::<WebSocketJson>(&world, over_bus("json"), visitor).await;
                come::<WebSocketPostcard>(&world, over_bus("postcard"), visitor).await;
                come::<SocketIo<OverWebSocket>>(&world, over_bus("socketio"), visitor).await;
                come::<SocketIo<OverPolls>>(&world, over_bus("socketio-polls"), visitor).await;
                come::<Mqtt3>(&world, mqtt("mqtt3"), visitor).await;
                come::<Mqtt5>(&world, mqtt("mqtt5"), visitor).await;
                over_http(&world, user, filter).await;
                in_process(&world, user, filter).await;
                sessions::wills(&world, user, client).await;
            }
            sessions::groups(&world, &filters[0]).await;
            sessions::returns(&mut world, later, &filters).await;
            world.close().await;
        });
    }
}

type Visitor<'a> = (Option<&'a str>, &'a str, &'a str);

/// Somebody comes by one door, subscribes, reads what was there and what comes, and publishes.
async fn come<T: Transport>(world: &World, door: Door, (user, client, filter): Visitor<'_>) {
    let client = if door.named { client } else { "" };
    let (who, table) = (Who { user, client }, &world.table);
    let at = format!("{} {who:?} {filter}", door.name);
    let transport = T::serve(world.bus.clone()).await;
    let connect = transport.connect(Connect::named(client).by(user));
    let mut peer = within("connect", connect).await;

    let mut kept = BTreeSet::new();
    let accepted = subscribe::<T>(&mut peer, (1, filter), &mut kept).await;
    assert_eq!(accepted, table.may_subscribe(who, filter), "{at}");
    assert!(subscribe::<T>(&mut peer, (2, END), &mut kept).await);
    let readable: BTreeSet<_> = (world.topics.iter())
        .filter(|topic| accepted && matches(filter, topic) && table.may_read(who, topic))
        .cloned()
        .collect();
    world.end("kept").await;
    kept.extend(topics_to(&mut peer, "kept").await);
    assert_eq!(kept, readable, "kept {at}");
    for topic in &world.topics {
        world.event(topic, "live").await;
    }
    world.end("live").await;
    assert_eq!(topics_to(&mut peer, "live").await, readable, "live {at}");

    let mut observer = world.observer();
    let mut expected = BTreeSet::new();
    for (n, topic) in world.topics.iter().enumerate() {
        for retain in [false, true] {
            let id = 10 + 2 * n as u64 + u64::from(retain);
            let payload = format!("{}-{id}", door.name);
            let allowed = table.may_publish(who, topic, door.qos, retain);
            peer.publish(Publish {
                id: Some(id),
                topic,
                payload: payload.as_bytes(),
                retain,
                again: false,
            })
            .await;
            let refused = Incoming::Refused(Some(id), ErrorCode::NotAllowed);
            match answer(&mut peer).await {
                answer if answer == refused => assert!(!allowed, "{topic} {retain} {at}"),
                Incoming::Acked(acked) if acked == id => {
                    assert!(allowed || !T::WORDS.refusals, "{topic} {retain} {at}");
                }
                other => panic!("{other:?}"),
            }
            if allowed {
                expected.insert((topic.clone(), payload));
            }
        }
    }
    world.end("published").await;
    assert_eq!(observer.all_to("published").await, expected, "{at}");
    within("leave", peer.leave()).await;
}

/// Whether a subscription is accepted. The topics of what comes before that is known are `kept`.
async fn subscribe<T: Transport>(
    peer: &mut T::Peer,
    (id, filter): (u64, &str),
    kept: &mut BTreeSet<String>,
) -> bool {
    peer.subscribe(Subscribe {
        mode: Mode::Every,
        ..Subscribe::to(id, filter)
    })
    .await;
    loop {
        match recv(peer).await {
            Incoming::Message(message) => _ = kept.insert(message.topic),
            Incoming::Subscribed(subscribed) if subscribed == id => {
                if !T::WORDS.synced {
                    return true;
                }
            }
            Incoming::Synced(synced, _) if synced == id => return true,
            Incoming::Refused(Some(refused), code) if refused == id => {
                assert!(code == ErrorCode::NotAllowed || !T::WORDS.refusals);
                return false;
            }
            other => panic!("instead of an answer: {other:?}"),
        }
    }
}

/// The topics of what comes up to the end.
async fn topics_to(peer: &mut impl Peer, end: &str) -> BTreeSet<String> {
    let mut topics = BTreeSet::new();
    loop {
        match recv(peer).await {
            Incoming::Message(message) if message.topic == END => {
                if message.payload == end {
                    return topics;
                }
            }
            Incoming::Message(message) => _ = topics.insert(message.topic),
            Incoming::Synced(..) | Incoming::Subscribed(_) => {}
            other => panic!("instead of a message: {other:?}"),
        }
    }
}

/// What the last publish is answered.
async fn answer(peer: &mut impl Peer) -> Incoming {
    loop {
        match recv(peer).await {
            Incoming::Message(_) | Incoming::Synced(..) => {}
            answer => return answer,
        }
    }
}

/// The same over HTTP.
async fn over_http(world: &World, user: Option<&str>, filter: &str) {
    let (who, table) = (Who { user, client: "" }, &world.table);
    let ask = async |method: &str, path: &str, body: &str| -> Answer {
        let asked = request_by(world.http, user, method, path, body);
        within("an answer", asked).await.unwrap()
    };
    let at = format!("http {who:?}");
    let named = |list: &[Value]| -> BTreeSet<String> {
        let names = list.iter().filter_map(|it| it["topic"].as_str());
        names.map(str::to_owned).collect()
    };
    let query = filter.replace('#', "%23").replace('+', "%2B");
    let listed = ask("GET", &format!("/api/v1/topics?filter={query}"), "").await;
    let readable = |topic: &&String| table.may_read(who, topic);
    match table.may_subscribe(who, filter) {
        false => assert_eq!(listed.status, 403, "{filter} {at}"),
        true => {
            let list: Vec<Value> = serde_json::from_str(&listed.body).unwrap();
            let expected = world.topics.iter().filter(|topic| matches(filter, topic));
            let expected: BTreeSet<_> = expected.filter(readable).cloned().collect();
            assert_eq!(named(&list), expected, "{filter} {at}");
        }
    }
    let exported = ask("GET", "/api/v1/export", "").await;
    match table.may_subscribe(who, "#") || table.may_subscribe(who, "$SYS/#") {
        false => assert_eq!(exported.status, 403, "export {at}"),
        true => {
            let lines = exported.body.lines();
            let lines: Vec<Value> = lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let expected: BTreeSet<_> = world.topics.iter().filter(readable).cloned().collect();
            assert_eq!(named(&lines), expected, "export {at}");
        }
    }
    let mut observer = world.observer();
    let mut accepted = BTreeSet::new();
    for topic in world.topics.iter().chain([&"a/none".to_owned()]) {
        let status = |allowed| if allowed { 200 } else { 403 };
        let read = status(table.may_read(who, topic));
        let path = format!("/api/v1/topics/{topic}");
        for (method, retain) in [("POST", false), ("PUT", true)] {
            let payload = format!("http-{method}");
            let may = table.may_publish(who, topic, 0, retain);
            let answer = ask(method, &path, &payload).await;
            assert_eq!(answer.status, status(may), "{method} {topic} {at}");
            if may {
                accepted.insert((topic.clone(), payload));
            }
        }
        let is_there = world.bus.value(topic.as_str()).is_some();
        let expected = if read == 200 && !is_there { 404 } else { read };
        assert_eq!(ask("GET", &path, "").await.status, expected, "{topic} {at}");
        let history = format!("/api/v1/history/{topic}");
        assert_eq!(
            ask("GET", &history, "").await.status,
            read,
            "{history} {at}"
        );
    }
    world.end("http").await;
    assert_eq!(observer.all_to("http").await, accepted, "{at}");
    world.clear("a/none").await;
}

/// The same by the calls of the process that holds the bus, on behalf of somebody.
async fn in_process(world: &World, user: Option<&str>, filter: &str) {
    let (who, table) = (Who { user, client: "" }, &world.table);
    let sign_in = SignIn::new("test");
    let client = world.bus.sign_in(match user {
        Some(user) => sign_in.with_credentials(Credentials::password(user, PASSWORD)),
        None => sign_in,
    });
    let client = client.await.unwrap();
    let may_read = |topic: &str| table.may_read(who, topic);
    let kept = client.kept(TopicFilter::parse(filter).unwrap());
    let allowed = table.may_subscribe(who, filter);
    assert_eq!(kept.is_ok(), allowed, "{who:?} {filter}");
    let found = kept.unwrap_or_default();
    let found: BTreeSet<_> = found
        .iter()
        .map(|it| it.topic.as_str().to_owned())
        .collect();
    let expected =
        (world.topics.iter()).filter(|it| allowed && matches(filter, it) && may_read(it));
    assert_eq!(found, expected.cloned().collect(), "{who:?} {filter}");
    for topic in &world.topics {
        let name = TopicName::parse(topic.as_str()).unwrap();
        let read = may_read(topic);
        assert_eq!(
            client.value(topic.as_str()).is_some(),
            read,
            "{who:?} {topic}"
        );
        assert_eq!(
            client.history(name, None, 9).is_ok(),
            read,
            "{who:?} {topic}"
        );
    }
}
