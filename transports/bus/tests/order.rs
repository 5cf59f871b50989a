//! The order in which a session with several subscriptions gets its messages: that of the hub.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use core::time::Duration;
use latchbus_bus::memory::MemoryPeer;
use latchbus_bus::{Bus, Event, Options, Request, Subscribe};
use latchbus_core::hub::{Kind, Mode, Start};
use support::*;
use tokio_util::sync::CancellationToken;

/// Disjoint ones, and some that overlap.
const FILTERS: [&str; 6] = ["m/0", "m/1", "+/2", "m/+", "+/+", "other/#"];

fn all_filters() -> Request {
    let subscriptions = FILTERS.iter().zip(1..).map(|(topics, id)| Subscribe {
        id,
        filter: filter(topics),
        mode: Mode::Every,
        start: Start::Snapshot,
        pace: None,
        group: None,
        durable: false,
        waits: false,
    });
    Request::Subscribe {
        id: 1,
        subscriptions: subscriptions.collect(),
    }
}

/// Takes messages up to this many of all subscriptions; their revisions never go back.
async fn in_order(peer: &mut MemoryPeer, count: usize) -> Vec<(u64, String)> {
    let mut came = Vec::new();
    let mut last = 0;
    while came.len() < count {
        match recv(peer).await {
            Event::Message {
                subscription,
                delivery,
                ..
            } => {
                assert!(
                    delivery.rev >= last,
                    "{} after {last}: {came:?}",
                    delivery.rev
                );
                last = delivery.rev;
                came.push((subscription, text(&delivery)));
            }
            Event::Subscribed { .. } | Event::Synced { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    came
}

/// How many of the filters a topic of [`TOPICS`] has.
const TOPICS: [(&str, usize); 4] = [("m/0", 3), ("m/1", 3), ("m/2", 3), ("other/x", 2)];

#[tokio::test]
async fn a_snapshot_of_several_filters_comes_in_one_order() {
    let bus = open();
    let mut expected = 0;
    for n in [3, 1, 2, 0, 2] {
        let (topic, _) = TOPICS[n];
        bus.publish(state(topic, n.to_string())).await.unwrap();
    }
    for (_, copies) in TOPICS {
        expected += copies;
    }
    let mut peer = connect(&bus);
    peer.requests.send(all_filters()).await.unwrap();
    let came = in_order(&mut peer, expected).await;
    let mut values: Vec<_> = came.iter().map(|(_, value)| &value[..]).collect();
    values.dedup();
    assert_eq!(values, ["3", "1", "0", "2"]);
}

#[tokio::test]
async fn what_came_while_the_session_was_away_comes_in_one_order() {
    let bus = open();
    let (mut peer, first) = run(session(&bus), 16, CancellationToken::new());
    peer.requests.send(all_filters()).await.unwrap();
    while !matches!(
        recv(&mut peer).await,
        Event::Synced {
            subscription: 6,
            ..
        }
    ) {}
    drop(peer);
    let (session, _) = within(first).await.unwrap();
    let mut expected = 0;
    for n in 0..12 {
        let (topic, copies) = TOPICS[(n * 7) % 4];
        let publish = if n % 3 == 0 { state } else { event };
        bus.publish(publish(topic, n.to_string())).await.unwrap();
        expected += copies;
    }
    let (mut peer, _second) = run(session, 4, CancellationToken::new());
    let came = in_order(&mut peer, expected).await;
    let mut values: Vec<_> = came.iter().map(|(_, value)| value.clone()).collect();
    values.dedup();
    assert_eq!(values, (0..12).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// Publishers in other threads, whose wake-ups arrive one by one while the session takes what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_live_burst_comes_in_one_order() {
    const EACH: usize = 2_000;
    let mut options = Options::default();
    options.limits.recent = 100_000;
    let bus = Bus::open(options).unwrap();
    let mut peer = connect(&bus);
    peer.requests.send(all_filters()).await.unwrap();
    while !matches!(
        recv(&mut peer).await,
        Event::Synced {
            subscription: 6,
            ..
        }
    ) {}
    let mut expected = 0;
    for (topic, copies) in TOPICS {
        let bus = bus.clone();
        expected += copies * EACH;
        tokio::spawn(async move {
            for n in 0..EACH {
                bus.publish(event(topic, n.to_string())).await.unwrap();
            }
        });
    }
    in_order(&mut peer, expected).await;
}

/// A subscription that ends, or is replaced, while it has news, keeps nobody from theirs.
#[tokio::test]
async fn those_that_end_or_begin_again_leave_the_order_to_the_others() {
    let bus = open();
    let (mut peer, _run) = run(session(&bus), 1, CancellationToken::new());
    peer.requests.send(all_filters()).await.unwrap();
    while !matches!(
        recv(&mut peer).await,
        Event::Synced {
            subscription: 6,
            ..
        }
    ) {}
    for n in 0..4 {
        bus.publish(event("m/1", n.to_string())).await.unwrap();
    }
    // Two of its three have the first now.
    in_order(&mut peer, 1).await;
    let ended = Request::Unsubscribe {
        id: 2,
        subscriptions: vec![2],
    };
    peer.requests.send(ended).await.unwrap();
    let again = subscribe(5, "m/#", Mode::Every);
    peer.requests.send(again).await.unwrap();
    bus.publish(state("m/1", "last")).await.unwrap();
    let mut last = Vec::new();
    while last.len() < 2 {
        match recv(&mut peer).await {
            Event::Message {
                subscription,
                delivery,
                ..
            } if text(&delivery) == "last" => last.push(subscription),
            _ => {}
        }
    }
    last.sort_unstable();
    assert_eq!(last, [4, 5]);
}

/// What has expired on the way to somebody who knows an older value is told as cleared, before all is said to have
/// come.
#[tokio::test]
async fn an_expired_value_comes_as_cleared_before_synced() {
    let clock = latchbus_bus::Clock::manual(1_000_000);
    let bus = Bus::open(Options {
        clock: clock.clone(),
        ..Options::default()
    })
    .unwrap();
    let brief = |value: &str| {
        let mut publish = state("t", value);
        publish.expires_in = Some(Duration::from_secs(5));
        publish
    };
    let first = bus.publish(brief("1")).await.unwrap();
    bus.publish(brief("2")).await.unwrap();
    for (start, expected) in [
        (Start::Snapshot, None),
        (
            Start::Resume(latchbus_core::hub::Cursor {
                epoch: bus.epoch(),
                rev: first.rev,
            }),
            Some(Kind::Cleared),
        ),
    ] {
        let mut stream = bus
            .subscribe(filter("t").borrowed(), Mode::Latest, start)
            .unwrap();
        clock.set(1_006_000);
        let mut came = None;
        loop {
            use futures_util::StreamExt as _;
            match within(stream.next()).await.unwrap() {
                latchbus_core::hub::Step::Entry { entry, .. } => came = Some(entry.kind),
                latchbus_core::hub::Step::Synced { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        // The bus's own clear may have come first.
        assert!(came == expected || came == Some(Kind::Cleared), "{came:?}");
    }
}
