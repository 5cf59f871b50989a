//! Whoever comes back.

use std::collections::BTreeMap;

use crate::bench::{Bench, Snapshot, wait};
use crate::transport::{Connect, Incoming, Message, Peer, Subscribe, Transport};

const RETURNING: Connect<'static> = Connect {
    name: "returning",
    resume: true,
    narrow: false,
    user: None,
};

/// Connects again and takes what was missed: by the cursor where there is one, else as the session that the
/// server has kept.
async fn resume<T: Transport>(
    bench: &Bench<T>,
    before: &Snapshot,
    filter: &str,
    marker: &str,
) -> (T::Peer, Snapshot) {
    let mut peer = bench.connect(RETURNING).await;
    let snapshot = if T::WORDS.synced {
        let since = before.cursor;
        let subscribe = Subscribe {
            since,
            ..Subscribe::to(1, filter)
        };
        bench.snapshot(&mut peer, subscribe, marker).await
    } else {
        bench.caught_up(&mut peer, 1, marker).await
    };
    (peer, snapshot)
}

/// Who comes back after a cut gets what has changed meanwhile, cleared topics included, and nothing else.
pub async fn resume_brings_only_what_changed<T: Transport>() {
    let bench = Bench::<T>::new().await;
    for n in 0..100 {
        bench.state(&format!("back/{n}"), "first").await;
    }
    let mut peer = bench.connect(RETURNING).await;
    let before = bench
        .snapshot(&mut peer, Subscribe::to(1, "back/#"), "back/marker")
        .await;
    assert_eq!(before.messages.len(), 100);
    peer.cut();

    for round in 0..5 {
        for n in [3, 50, 99] {
            bench
                .state(&format!("back/{n}"), format!("round {round}"))
                .await;
        }
    }
    bench.clear("back/7").await;
    bench.state("back/new", "new").await;
    bench.state("elsewhere", "x").await;

    let (mut peer, after) = resume(&bench, &before, "back/#", "back/marker").await;
    assert_eq!((after.resets, after.missed), (0, 0));
    let mut came = BTreeMap::<&str, Vec<&[u8]>>::new();
    // What was on its way when the connection was cut may come again (at least once is all that QoS 1
    // promises); it is flagged, and was either received before or is new.
    let received = |message: &&Message| {
        let mut before = before.messages.iter();
        message.again
            && before.any(|b| (&b.topic, &b.payload) == (&message.topic, &message.payload))
    };
    for message in after.messages.iter().filter(|message| !received(message)) {
        assert_eq!(message.cleared, message.topic == "back/7", "{message:?}");
        assert_ne!(
            message.retained,
            Some(true),
            "not a new snapshot: {message:?}"
        );
        came.entry(&message.topic)
            .or_default()
            .push(&message.payload);
    }
    let rounds: [&[u8]; 5] = [b"round 0", b"round 1", b"round 2", b"round 3", b"round 4"];
    // By cursor each topic comes once; a session gets each publish.
    let changed = if T::WORDS.synced {
        &rounds[4..]
    } else {
        &rounds[..]
    };
    let mut expected = BTreeMap::<&str, Vec<&[u8]>>::new();
    for topic in ["back/3", "back/50", "back/99"] {
        expected.insert(topic, changed.to_vec());
    }
    expected.insert("back/7", vec![b""]);
    expected.insert("back/new", vec![b"new"]);
    assert_eq!(came, expected);

    bench.state("back/3", "live").await;
    assert_eq!(crate::bench::message(&mut peer).await.payload, "live");
    peer.leave().await;
    bench.close().await;
}

/// Who was away for longer than tombstones are remembered begins again with all that is left: a cleared
/// topic does not live on.
pub async fn forgotten_tombstone_resets_the_subscriber<T: Transport>() {
    let bench = Bench::<T>::new().await;
    for n in 0..50 {
        bench.state(&format!("reset/{n}"), "value").await;
    }
    let mut peer = bench.connect(RETURNING).await;
    let before = bench
        .snapshot(&mut peer, Subscribe::to(1, "reset/#"), "reset/marker")
        .await;
    assert_eq!(before.messages.len(), 50);
    peer.cut();
    // So that no clear is on its way to it.
    bench.nobody_connected().await;

    // More clears than tombstones, and more publishes than the recent ring holds.
    for n in 0..40 {
        bench.clear(&format!("reset/{n}")).await;
    }
    for n in 0..2 * crate::bench::LIMITS.recent {
        bench.event("elsewhere", n.to_string()).await;
    }

    let (mut peer, after) = resume(&bench, &before, "reset/#", "reset/marker").await;
    if T::WORDS.gap {
        assert_eq!(after.resets, 1);
    }
    let mut topics: Vec<_> = (after.messages.iter())
        .inspect(|message| assert!(!message.cleared, "{message:?}"))
        .inspect(|message| assert_ne!(message.retained, Some(false), "{message:?}"))
        .filter(|message| !message.again)
        .map(|message| message.topic.clone())
        .collect();
    topics.sort();
    let left: Vec<_> = (40..50).map(|n| format!("reset/{n}")).collect();
    assert_eq!(topics, left);

    if T::WORDS.synced {
        // A cursor of another life of the server is as unknown.
        let other_life = before.cursor.map(|mut cursor| {
            cursor.epoch ^= 1;
            cursor
        });
        let subscribe = Subscribe {
            since: other_life,
            ..Subscribe::to(2, "reset/#")
        };
        peer.subscribe(subscribe).await;
        wait(&mut peer, Incoming::Reset(2)).await;
        let again = bench.caught_up(&mut peer, 2, "reset/marker").await;
        assert_eq!(again.messages.len(), 10);
    }
    peer.leave().await;
    bench.close().await;
}
