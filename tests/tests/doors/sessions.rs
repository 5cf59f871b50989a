//! What outlives a connection: wills, shared subscriptions, cursors, and sessions that come back when other rules hold.

use std::collections::BTreeSet;

use latchbus_core::hub::{Cursor, Mode};
use latchbus_tests::bench::recv;
use latchbus_tests::deadline::until;
use latchbus_tests::transport::{Connect, Incoming, Peer, Subscribe, Transport};
use latchbus_tests::transports::{Mqtt3, Mqtt5, MqttPeer, WebSocketJson};

use crate::roles::matches;
use crate::table::{END, Table, Who};
use crate::world::World;
use crate::{USERS, subscribe, topics_to};

/// A will is published if its client could publish it, and is refused with the connection where the protocol can say so.
pub(crate) async fn wills(world: &World, user: Option<&str>, client: &str) {
    will::<4>(world, user, client).await;
    will::<5>(world, user, client).await;
}

async fn will<const LEVEL: u8>(world: &World, user: Option<&str>, client: &str) {
    let (who, connect) = (Who { user, client }, Connect::named(client).by(user));
    let mut observer = world.observer();
    let mut expected = BTreeSet::new();
    for (n, topic) in world.topics.iter().enumerate() {
        let retain = n % 2 == 1;
        let payload = format!("will-{LEVEL}-{n}");
        let will = (topic.as_str(), payload.as_bytes(), retain);
        let allowed = world.table.may_publish(who, topic, 1, retain);
        match MqttPeer::<LEVEL>::open_with_will(world.mqtt, connect, Some(will)).await {
            Ok(peer) => {
                assert!(allowed || LEVEL == 4, "{who:?} {topic}");
                peer.cut();
            }
            Err(code) => assert!(!allowed && LEVEL == 5 && code == 0x87, "{who:?} {topic}"),
        }
        if allowed {
            expected.insert((topic.clone(), payload));
        }
    }
    // The next with the same name waits for the will of the one before.
    let last = MqttPeer::<LEVEL>::open(world.mqtt, connect).await;
    last.leave().await;
    world.end("wills").await;
    assert_eq!(observer.all_to("wills").await, expected, "wills {who:?}");
}

/// Each message of a group goes to one of those who may read it.
pub(crate) async fn groups(world: &World, filter: &str) {
    let shared = format!("$share/group/{filter}");
    let mut expected = BTreeSet::new();
    let mut members = Vec::new();
    for (n, user) in USERS.into_iter().enumerate() {
        let client = format!("member-{n}");
        let mut peer = MqttPeer::<5>::open(world.mqtt, Connect::named(&client).by(user)).await;
        let who = Who {
            user,
            client: &client,
        };
        let mut kept = BTreeSet::new();
        let accepted = subscribe::<Mqtt5>(&mut peer, (1, &shared), &mut kept).await;
        assert_eq!(
            accepted,
            world.table.may_subscribe(who, filter),
            "{who:?} {shared}"
        );
        let readable: BTreeSet<_> = (world.topics.iter())
            .filter(|topic| accepted && matches(filter, topic) && world.table.may_read(who, topic))
            .cloned()
            .collect();
        expected.extend(readable.iter().cloned());
        assert!(subscribe::<Mqtt5>(&mut peer, (2, END), &mut kept).await);
        assert!(kept.is_empty());
        members.push((peer, readable));
    }
    for topic in &world.topics {
        world.event(topic, "shared").await;
    }
    // What one member may not read goes to another, perhaps after the end.
    let mut found = BTreeSet::new();
    let mut round = 0;
    while found != expected || round < 2 {
        let end = format!("shared-{round}");
        world.end(&end).await;
        for (peer, readable) in &mut members {
            for topic in topics_to(peer, &end).await {
                assert!(readable.contains(&topic), "{topic} of {shared}");
                assert!(found.insert(topic), "twice");
            }
        }
        round += 1;
        assert!(round < 10_000, "{found:?} of {expected:?}");
    }
    for (peer, _) in members {
        peer.leave().await;
    }
}

/// Somebody who is away while other rules come.
struct Gone {
    user: Option<&'static str>,
    filter: String,
    client: String,
    left: Left,
}

enum Left {
    Cursor(WebSocketJson, Cursor),
    Session3,
    Session5,
}

/// What comes after a return is what may be read then.
pub(crate) async fn returns(world: &mut World, later: Table, filters: &[String]) {
    let mut all = Vec::new();
    for (n, (user, filter)) in USERS.into_iter().zip(filters).enumerate() {
        let gone = |client: &str, left| Gone {
            user,
            filter: filter.clone(),
            client: client.to_owned(),
            left,
        };
        if let Some((transport, cursor)) = leaves_a_cursor(world, user, filter).await {
            all.push(gone("", Left::Cursor(transport, cursor)));
        }
        for (client, left) in [("s3", Left::Session3), ("s5", Left::Session5)] {
            let client = format!("{client}-{n}");
            let is_there = match left {
                Left::Session3 => leaves_a_session::<4, Mqtt3>(world, user, &client, filter).await,
                _ => leaves_a_session::<5, Mqtt5>(world, user, &client, filter).await,
            };
            if is_there {
                all.push(gone(&client, left));
            }
        }
    }
    until("all are away", || {
        (world.bus.metrics().connections.get() == 0).then_some(())
    })
    .await;
    for topic in &world.topics {
        world.state(topic, "before").await;
    }
    let before = world.table.clone();
    let wills = wills_to_come(world).await;
    world.replace_rules(later);
    let mut observer = world.observer();
    let mut expected = BTreeSet::new();
    for Testament {
        peer,
        user,
        client,
        topic,
    } in wills
    {
        peer.cut();
        let connect = Connect::named(&client).by(user);
        (MqttPeer::<5>::open(world.mqtt, connect).await)
            .leave()
            .await;
        let client = &*client;
        if (world.table).may_publish(Who { user, client }, &topic, 1, false) {
            expected.insert((topic, client.to_owned()));
        }
    }
    world.end("wills").await;
    assert_eq!(
        observer.all_to("wills").await,
        expected,
        "wills under other rules"
    );
    for topic in &world.topics {
        world.state(topic, "after").await;
    }
    for gone in all {
        let (user, client) = (gone.user, &*gone.client);
        let who = Who { user, client };
        let at = format!("{who:?} {}", gone.filter);
        let topics = match gone.left {
            Left::Cursor(transport, cursor) => {
                let mut peer = transport.connect(Connect::named("").by(user)).await;
                peer.subscribe(Subscribe {
                    mode: Mode::Every,
                    since: Some(cursor),
                    ..Subscribe::to(1, &gone.filter)
                })
                .await;
                all_now::<WebSocketJson>(world, &mut peer).await
            }
            Left::Session3 => come_back::<4, Mqtt3>(world, user, client).await,
            Left::Session5 => come_back::<5, Mqtt5>(world, user, client).await,
        };
        for topic in &world.topics {
            let reads = |table: &Table| matches(&gone.filter, topic) && table.may_read(who, topic);
            let (then, now) = (reads(&before), reads(&world.table));
            assert!(now || !topics.contains(topic), "{topic} of {at}");
            assert!(
                !(then && now) || topics.contains(topic),
                "no {topic} of {at}"
            );
        }
        assert!(topics.iter().all(|topic| matches(&gone.filter, topic)));
    }
}

/// Somebody who is here with a will when other rules come.
struct Testament {
    peer: MqttPeer<5>,
    user: Option<&'static str>,
    client: String,
    topic: String,
}

async fn wills_to_come(world: &World) -> Vec<Testament> {
    let mut wills = Vec::new();
    for user in USERS {
        for topic in &world.topics {
            let client = format!("will-{}", wills.len());
            let connect = Connect::named(&client).by(user);
            let will = Some((topic.as_str(), client.as_bytes(), false));
            let opened = MqttPeer::<5>::open_with_will(world.mqtt, connect, will).await;
            let who = Who {
                user,
                client: &client,
            };
            let allowed = world.table.may_publish(who, topic, 1, false);
            assert_eq!(opened.is_ok(), allowed, "{who:?} {topic}");
            let topic = topic.clone();
            wills.extend(opened.ok().map(|peer| Testament {
                peer,
                user,
                client: client.clone(),
                topic,
            }));
        }
    }
    wills
}

/// What comes of what was published before now.
async fn all_now<T: Transport>(world: &World, peer: &mut T::Peer) -> BTreeSet<String> {
    let mut topics = BTreeSet::new();
    let mut answered = false;
    let has_synced = T::WORDS.synced;
    peer.subscribe(Subscribe::to(2, END)).await;
    while !answered {
        match recv(peer).await {
            Incoming::Subscribed(2) => answered = !has_synced,
            Incoming::Synced(2, _) => answered = true,
            Incoming::Message(message) => _ = topics.insert(message.topic),
            Incoming::Refused(Some(1), _) if has_synced => {}
            Incoming::Subscribed(_) | Incoming::Synced(..) | Incoming::Reset(_) => {}
            other => panic!("{other:?}"),
        }
    }
    world.end("returned").await;
    topics.extend(topics_to(peer, "returned").await);
    topics
}

/// Subscribes over WebSocket and is cut off, unless the subscription is refused.
async fn leaves_a_cursor(
    world: &World,
    user: Option<&str>,
    filter: &str,
) -> Option<(WebSocketJson, Cursor)> {
    let transport = WebSocketJson::serve(world.bus.clone()).await;
    let mut peer = transport.connect(Connect::named("").by(user)).await;
    peer.subscribe(Subscribe::to(1, filter)).await;
    let cursor = loop {
        match recv(&mut peer).await {
            Incoming::Synced(1, cursor) => break cursor,
            Incoming::Message(_) | Incoming::Subscribed(_) => {}
            Incoming::Refused(..) => {
                peer.leave().await;
                return None;
            }
            other => panic!("{other:?}"),
        }
    };
    peer.cut();
    Some((transport, cursor))
}

const fn session<'a>(client: &'a str, user: Option<&'a str>) -> Connect<'a> {
    Connect {
        resume: true,
        ..Connect::named(client).by(user)
    }
}

/// The same with a session of MQTT.
async fn leaves_a_session<const LEVEL: u8, T: Transport<Peer = MqttPeer<LEVEL>>>(
    world: &World,
    user: Option<&str>,
    client: &str,
    filter: &str,
) -> bool {
    let mut peer = MqttPeer::<LEVEL>::open(world.mqtt, session(client, user)).await;
    let accepted = subscribe::<T>(&mut peer, (1, filter), &mut BTreeSet::new()).await;
    // What is retained is under way, perhaps, and not acknowledged.
    match accepted {
        true => peer.cut(),
        false => peer.leave().await,
    }
    accepted
}

async fn come_back<const LEVEL: u8, T: Transport<Peer = MqttPeer<LEVEL>>>(
    world: &World,
    user: Option<&str>,
    client: &str,
) -> BTreeSet<String> {
    let mut peer = MqttPeer::<LEVEL>::open(world.mqtt, session(client, user)).await;
    let topics = all_now::<T>(world, &mut peer).await;
    peer.leave().await;
    topics
}
