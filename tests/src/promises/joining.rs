//! Whoever subscribes late.

use std::collections::BTreeSet;

use crate::bench::{Bench, message, modes};
use crate::deadline::until;
use crate::transport::{Connect, Incoming, Peer, Subscribe, Transport};

/// How many topics a late joiner finds.
const TOPICS: usize = 10_000;

/// Whoever subscribes late gets every retained value exactly once, and then what is live.
pub async fn late_joiner_gets_each_retained_topic_once_before_live<T: Transport>() {
    let bench = Bench::<T>::new().await;
    for n in 0..TOPICS {
        bench.state(&format!("many/{n}"), "old").await;
        bench
            .event(&format!("many/{n}"), "an event is not kept")
            .await;
    }
    for n in 0..TOPICS {
        bench
            .state(&format!("many/{n}"), format!("value {n}"))
            .await;
    }
    for &mode in modes::<T>() {
        let mut peer = bench.peer(&format!("late joiner {mode:?}")).await;
        let subscribe = Subscribe {
            mode,
            ..Subscribe::to(1, "many/#")
        };
        let snapshot = bench.snapshot(&mut peer, subscribe, "many/marker").await;

        let mut topics = BTreeSet::new();
        for message in &snapshot.messages {
            let n = message.topic.strip_prefix("many/").unwrap();
            assert_eq!(message.payload, format!("value {n}"), "the newest value");
            assert_ne!(message.retained, Some(false), "before live: {message:?}");
            assert!(topics.insert(n), "twice: {message:?}");
        }
        assert_eq!(topics.len(), TOPICS, "mode {mode:?}");
        assert_eq!((snapshot.resets, snapshot.missed), (0, 0));

        bench.state("many/live", format!("{mode:?}")).await;
        let live = message(&mut peer).await;
        assert_eq!(live.topic, "many/live");
        assert_ne!(live.retained, Some(true), "live is not flagged as retained");
        bench.clear("many/live").await;
        peer.leave().await;
    }
    bench.close().await;
}

/// How many large values a reader finds that takes them slowly: together more than what sockets hold.
const LARGE: usize = 1_600;
const LARGE_BYTES: usize = 4_000;

/// When a subscriber is told that it has everything, or, where its protocol has no word for that, when an event
/// comes that was published later, each topic that had a value when it subscribed has come: in that version or a
/// newer one, or as cleared; however many changed before it read them.
pub async fn synced_comes_after_every_value_that_was_there<T: Transport>() {
    for (&mode, changed) in modes::<T>()
        .iter()
        .flat_map(|mode| [(mode, 100), (mode, LARGE)])
    {
        let bench = Bench::<T>::new().await;
        for n in 0..LARGE {
            bench
                .state(&format!("large/{n}"), vec![b'.'; LARGE_BYTES])
                .await;
        }
        let narrow = Connect {
            narrow: true,
            ..Connect::named("takes its time")
        };
        let mut peer = bench.connect(narrow).await;
        let subscribe = Subscribe {
            mode,
            ..Subscribe::to(1, "large/#")
        };
        peer.subscribe(subscribe).await;
        let subscribed = || bench.bus.read(|hub| hub.subscriptions() == 1).then_some(());
        until("the subscription has begun", subscribed).await;
        // Those first that come last.
        for n in (LARGE - changed..LARGE).rev() {
            let topic = format!("large/{n}");
            match n % 1_000 {
                999 => bench.clear(&topic).await,
                _ => bench.state(&topic, "newer").await,
            };
        }
        let snapshot = bench.caught_up(&mut peer, 1, "large/marker").await;
        let came: BTreeSet<_> = snapshot.messages.iter().map(|m| &m.topic[..]).collect();
        let missing = (0..LARGE).map(|n| format!("large/{n}"));
        let missing: Vec<_> = missing.filter(|topic| !came.contains(&topic[..])).collect();
        assert!(
            missing.is_empty(),
            "mode {mode:?}, {changed} changed: {missing:?}"
        );
        bench.close().await;
    }
}

/// A clear is told to who is subscribed, and to a later subscriber the topic has no value.
pub async fn clear_reaches_subscribers_and_later_ones_see_nothing<T: Transport>() {
    let bench = Bench::<T>::new().await;
    for topic in ["room/a", "room/b"] {
        bench.state(topic, "here").await;
    }
    let mut early = bench.peer("early").await;
    let subscribe = Subscribe::to(1, "room/#");
    let snapshot = bench.snapshot(&mut early, subscribe, "room/marker").await;
    assert_eq!(snapshot.messages.len(), 2);

    // By the peer itself, as its protocol says it.
    early
        .publish(crate::transport::Publish::state(7, "room/a", b""))
        .await;
    let (mut acked, mut cleared) = (false, false);
    while !(acked && cleared) {
        match crate::bench::recv(&mut early).await {
            Incoming::Acked(7) => acked = true,
            Incoming::Message(message) => {
                assert!(message.cleared, "{message:?}");
                assert_eq!((&message.topic[..], message.payload.len()), ("room/a", 0));
                cleared = true;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.last("room/a"), None);

    let mut late = bench.peer("late").await;
    let snapshot = bench.snapshot(&mut late, subscribe, "room/marker").await;
    let topics: Vec<_> = snapshot.messages.iter().map(|m| &m.topic[..]).collect();
    assert_eq!(topics, ["room/b"]);

    // The topic can live again.
    bench.state("room/a", "again").await;
    assert_eq!(message(&mut late).await.payload, "again");
    bench.close().await;
}
