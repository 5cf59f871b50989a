//! Whoever subscribes late.

use std::collections::BTreeSet;

use crate::bench::{Bench, message, modes};
use crate::transport::{Incoming, Peer, Subscribe, Transport};

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
