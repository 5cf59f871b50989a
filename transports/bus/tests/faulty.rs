//! The link that goes wrong does so as asked, and the same way for the same seed.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use core::{future::pending, time::Duration};

use latchbus_bus::faulty::{self, Broken, Faults};
use latchbus_bus::{Bus, Ended, Event, LinkReceiver, Request, memory};
use support::*;
use tokio::time::Instant;

/// What arrives of a hundred requests that were sent at once, each with its time.
async fn arrivals(faults: Faults, seed: u64) -> Vec<(Duration, u64)> {
    let (link, peer) = memory::link(256);
    let (mut receiver, _sender) = faulty::link(link.receiver, link.sender, faults, seed);
    let begun = Instant::now();
    for id in 0..100 {
        peer.requests.send(Request::Ping { id }).await.unwrap();
    }
    peer.requests.leave().await;
    let mut arrived = Vec::new();
    loop {
        match receiver.recv().await {
            Ok(Some(Request::Ping { id })) => arrived.push((begun.elapsed(), id)),
            Ok(Some(other)) => panic!("{other:?}"),
            Ok(None) | Err(Broken::Cut) => return arrived,
            Err(Broken::Inner(error)) => panic!("{error}"),
        }
    }
}

fn ids(arrived: &[(Duration, u64)]) -> Vec<u64> {
    arrived.iter().map(|(_, id)| *id).collect()
}

const LATEST: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn without_faults_everything_passes_at_once() {
    let arrived = arrivals(Faults::NONE, 1).await;
    assert_eq!(ids(&arrived), (0..100).collect::<Vec<_>>());
    assert!(arrived.iter().all(|(at, _)| at.is_zero()));
}

#[tokio::test(start_paused = true)]
async fn dropped_ones_are_missing_and_doubled_ones_come_twice() {
    let arrived = arrivals(
        Faults {
            drop: 0.3,
            ..Faults::NONE
        },
        2,
    )
    .await;
    assert!((50..90).contains(&arrived.len()), "{}", arrived.len());
    assert!(ids(&arrived).is_sorted());

    let faults = Faults {
        duplicate: 0.3,
        latest: LATEST,
        ..Faults::NONE
    };
    let arrived = arrivals(faults, 3).await;
    assert!((110..150).contains(&arrived.len()), "{}", arrived.len());
    for id in 0..100 {
        assert!(ids(&arrived).contains(&id));
    }
}

#[tokio::test(start_paused = true)]
async fn reordered_ones_are_overtaken_and_delayed_ones_hold_up_the_rest() {
    let faults = Faults {
        reorder: 0.3,
        latest: LATEST,
        ..Faults::NONE
    };
    let arrived = arrivals(faults, 4).await;
    assert_eq!(arrived.len(), 100);
    assert!(!ids(&arrived).is_sorted());
    let late = arrived.iter().filter(|(at, _)| !at.is_zero()).count();
    assert!((10..50).contains(&late), "{late} late");

    let faults = Faults {
        delay: 0.3,
        latest: LATEST,
        ..Faults::NONE
    };
    let arrived = arrivals(faults, 5).await;
    assert_eq!(ids(&arrived), (0..100).collect::<Vec<_>>());
    assert!(arrived.last().unwrap().0 > LATEST / 2);
    assert!(arrived.last().unwrap().0 <= LATEST + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_both_halves_and_the_peer_sees_it() {
    let arrived = arrivals(
        Faults {
            cut: 0.05,
            ..Faults::NONE
        },
        6,
    )
    .await;
    assert!(arrived.len() < 100);

    let bus = open();
    let mut session = session(&bus);
    let (link, mut peer) = memory::link(8);
    let faults = Faults {
        cut: 1.0,
        ..Faults::NONE
    };
    let (receiver, mut sender) = faulty::link(link.receiver, link.sender, faults, 7);
    peer.requests.send(Request::Ping { id: 1 }).await.unwrap();
    let ended = session.run(receiver, &mut sender, pending()).await;
    assert!(matches!(ended, Ended::Receiver(Broken::Cut)));
    drop(sender);
    assert!(within(peer.events.recv()).await.is_err());
    assert!(peer.requests.send(Request::Ping { id: 2 }).await.is_err());
}

/// What the sending half holds back leaves by itself, though nothing else happens.
#[tokio::test(start_paused = true)]
async fn late_events_arrive_on_a_quiet_link() {
    let bus: Bus = open();
    let mut session = session(&bus);
    let (link, mut peer) = memory::link(8);
    let faults = Faults {
        delay: 1.0,
        latest: LATEST,
        ..Faults::NONE
    };
    let (receiver, mut sender) = faulty::link(link.receiver, link.sender, faults, 8);
    tokio::spawn(async move {
        session.run(receiver, &mut sender, pending()).await;
    });
    for id in 0..10 {
        peer.requests.send(Request::Ping { id }).await.unwrap();
        assert!(matches!(recv(&mut peer).await, Event::Pong { id: pong, .. } if pong == id));
    }
}

#[tokio::test(start_paused = true)]
async fn a_seed_is_a_run() {
    let faults = Faults {
        drop: 0.1,
        duplicate: 0.1,
        reorder: 0.1,
        delay: 0.1,
        cut: 0.005,
        latest: LATEST,
    };
    let runs = |seed| async move { (arrivals(faults, seed).await, arrivals(faults, seed).await) };
    let mut different = 0;
    let mut before = Vec::new();
    for seed in 0..20 {
        let (once, again) = runs(seed).await;
        assert_eq!(ids(&once), ids(&again), "seed {seed}");
        different += usize::from(ids(&once) != before);
        before = ids(&once);
    }
    assert_eq!(different, 20);
}
