//! What is on disk when a publish has been answered.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use latchbus_bus::{Bus, OpenError, Options, PublishRefused, StoreError, StoreKind};
use support::*;

#[tokio::test]
async fn state_and_clicks_survive_a_restart_and_events_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let count = "clicks/main/k1/count/1-0000beef";
    let epoch = {
        let bus = open_in(directory.path());
        bus.publish(state("lab/temp", "21")).await.unwrap();
        bus.publish(state("lab/gone", "x")).await.unwrap();
        bus.publish(state("lab/gone", "")).await.unwrap();
        bus.publish(event("lab/door", "opened")).await.unwrap();
        bus.publish(state(count, r#"{"red":3,"blue":4}"#))
            .await
            .unwrap();
        bus.publish(event(
            "clicks/main/k2/press",
            r#"{"color":"red","n":2,"id":"p1"}"#,
        ))
        .await
        .unwrap();
        within(bus.close()).await;
        bus.epoch()
    };
    let bus = open_in(directory.path());
    assert_eq!(bus.epoch(), epoch, "cursors of the life before go on");
    assert_eq!(last(&bus, "lab/temp").unwrap(), "21");
    assert_eq!(last(&bus, "lab/gone"), None);
    assert_eq!(last(&bus, "lab/door"), None);
    assert_eq!(last(&bus, count).unwrap(), r#"{"red":3,"blue":4}"#);
    assert_eq!(
        last(&bus, "clicks/main/values").unwrap(),
        r#"{"red":5,"blue":4}"#
    );
    // The press that was answered comes again, as after a lost acknowledgement.
    bus.publish(event(
        "clicks/main/k2/press",
        r#"{"color":"red","n":2,"id":"p1"}"#,
    ))
    .await
    .unwrap();
    bus.publish(state(count, r#"{"red":3,"blue":4}"#))
        .await
        .unwrap();
    assert_eq!(
        last(&bus, "clicks/main/values").unwrap(),
        r#"{"red":5,"blue":4}"#
    );
    within(bus.close()).await;
}

/// As when the process is killed: nothing is flushed, closed or awaited.
#[tokio::test]
async fn what_was_answered_is_there_without_a_close() {
    let directory = tempfile::tempdir().unwrap();
    {
        let bus = open_in(directory.path());
        for n in 0..50 {
            bus.publish(state(&format!("kept/{n}"), n.to_string()))
                .await
                .unwrap();
        }
    }
    // The store's thread ends when the last handle is gone; until then the directory is taken.
    let options = Options {
        limits: LIMITS,
        store: StoreKind::Directory(directory.path().to_owned()),
        ..Options::default()
    };
    let reopen = async {
        loop {
            match Bus::open(options.clone()) {
                Ok(bus) => return bus,
                Err(OpenError::Store {
                    source: StoreError::Locked,
                    ..
                }) => tokio::time::sleep(core::time::Duration::from_millis(5)).await,
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    let bus = within(reopen).await;
    for n in 0..50 {
        assert_eq!(last(&bus, &format!("kept/{n}")).unwrap(), n.to_string());
    }
    within(bus.close()).await;
}

#[tokio::test]
async fn a_reader_never_sees_what_is_not_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open_in(directory.path());
    let publisher = bus.clone();
    let task = tokio::spawn(async move {
        for n in 1..=100 {
            let topic = "clicks/main/k/count/1-0000beef";
            let count = format!(r#"{{"red":{n},"blue":0}}"#);
            publisher.publish(state(topic, count)).await.unwrap();
        }
    });
    let mut commits = 0;
    while !task.is_finished() {
        // In this order: what is shown afterwards can only have been committed before.
        let shown = last(&bus, "clicks/main/values").unwrap();
        commits = bus.metrics().commits.get();
        let red: u64 = shown.split([':', ',']).nth(1).unwrap().parse().unwrap();
        assert!(red <= commits, "{red} shown after {commits} commits");
        tokio::task::yield_now().await;
    }
    task.await.unwrap();
    assert!(commits > 0);
    within(bus.close()).await;
}

#[tokio::test]
async fn messages_of_one_client_keep_their_order_through_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open_in(directory.path());
    let client = bus.client(latchbus_bus::Principal::process()).unwrap();
    let mut receipts = Vec::new();
    for n in 0..100 {
        let message = match n % 2 {
            0 => state("t", n.to_string()),
            // Needs no store, and waits for what is before it all the same.
            _ => event("t", n.to_string()),
        };
        receipts.push(client.enqueue(message).await);
    }
    let mut last_rev = 0;
    for receipt in receipts {
        let accepted = within(receipt).await.unwrap();
        assert!(accepted.rev > last_rev);
        last_rev = accepted.rev;
    }
    within(bus.close()).await;
}

#[tokio::test]
async fn reports_that_are_committed_together_end_at_the_largest() {
    let directory = tempfile::tempdir().unwrap();
    let topic = "clicks/main/k/count/1-0000beef";
    {
        let bus = open_in(directory.path());
        let client = bus.client(latchbus_bus::Principal::process()).unwrap();
        let mut receipts = Vec::new();
        // The first keeps the store busy; the others wait for it and go in one commit.
        for n in 0..50 {
            receipts.push(client.enqueue(state(&format!("busy/{n}"), "x")).await);
        }
        for red in [5, 3, 9, 2, 4] {
            let count = format!(r#"{{"red":{red},"blue":0}}"#);
            receipts.push(client.enqueue(state(topic, count)).await);
        }
        for receipt in receipts {
            within(receipt).await.unwrap();
        }
        assert_eq!(last(&bus, topic).unwrap(), r#"{"red":9,"blue":0}"#);
        within(bus.close()).await;
    }
    let bus = open_in(directory.path());
    assert_eq!(last(&bus, topic).unwrap(), r#"{"red":9,"blue":0}"#);
    assert_eq!(
        last(&bus, "clicks/main/values").unwrap(),
        r#"{"red":9,"blue":0}"#
    );
    within(bus.close()).await;
}

#[tokio::test]
async fn a_closed_bus_takes_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open_in(directory.path());
    bus.publish(state("t", "x")).await.unwrap();
    within(bus.close()).await;
    let refused = within(bus.publish(state("t", "y"))).await;
    assert!(matches!(refused, Err(PublishRefused::Closed)));
    // Closing twice is closing once.
    within(bus.close()).await;
    drop(bus);
    let bus = open_in(directory.path());
    assert_eq!(last(&bus, "t").unwrap(), "x");
    within(bus.close()).await;
}

#[tokio::test]
async fn a_store_has_one_owner_and_an_unusable_directory_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open_in(directory.path());
    assert_eq!(bus.health(), Ok(()));
    let open = |path: &std::path::Path| {
        Bus::open(Options {
            store: StoreKind::Directory(path.to_owned()),
            ..Options::default()
        })
    };
    let second = open(directory.path());
    assert!(matches!(
        second,
        Err(OpenError::Store {
            source: StoreError::Locked,
            ..
        })
    ));
    // The first goes on.
    bus.publish(state("t", "x")).await.unwrap();

    let file = directory.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    assert!(matches!(
        open(&file),
        Err(OpenError::Store {
            source: StoreError::Directory(_),
            ..
        })
    ));
    within(bus.close()).await;
}

/// A history takes a place for each value, also within one commit; what is refused is not stored, and a
/// clear needs no room.
#[tokio::test]
async fn a_full_log_stores_only_what_it_accepts_and_a_clear_frees_it() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        Bus::open(Options {
            limits: latchbus_core::hub::Limits {
                places: 400,
                ..LIMITS
            },
            store: StoreKind::Directory(directory.path().to_owned()),
            history: vec![latchbus_bus::HistoryRule {
                filter: filter("h/#"),
                keep: 1_000,
            }],
            ..Options::default()
        })
        .unwrap()
    };
    let (accepted, newest) = {
        let bus = open();
        let client = bus.client(latchbus_bus::Principal::process()).unwrap();
        let mut receipts = Vec::new();
        for n in 1..=600 {
            receipts.push((n, client.enqueue(state("h/a", n.to_string())).await));
        }
        let (mut accepted, mut newest) = (0, 0);
        for (n, receipt) in receipts {
            match within(receipt).await {
                Ok(_) => (accepted, newest) = (accepted + 1, n),
                Err(refused) => assert!(matches!(refused, PublishRefused::Hub(_)), "{refused}"),
            }
        }
        within(bus.close()).await;
        (accepted, newest)
    };
    // The hub's own topics come on top; the rate of a room comes with the first second, whichever is being published
    // then.
    assert!((400..=401).contains(&accepted), "{accepted}");

    let bus = open();
    assert_eq!(last(&bus, "h/a").unwrap(), newest.to_string());
    assert!(last(&bus, "clicks/main/values").is_some());
    let mut refused = None;
    for n in 0..100 {
        let full = bus.publish(state(&format!("another/{n}"), "x")).await;
        refused = refused.or(full.err());
    }
    assert!(matches!(refused, Some(PublishRefused::Hub(_))));
    bus.publish(event("clicks/main/k/press", "red"))
        .await
        .unwrap_err();
    bus.publish(state("h/a", "")).await.unwrap();
    bus.publish(state("another", "x")).await.unwrap();
    bus.publish(event("clicks/main/k/press", "red"))
        .await
        .unwrap();
    within(bus.close()).await;
}
