//! Compare and set: a publish that expects another value than there is changes nothing, and nobody overwrites what he
//! has not seen.

// Helpers of tests are tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeMap;

use fastrand::Rng;
use futures_util::FutureExt;
use latchbus_bus::simulation::{self, Commits, Disk, Memory};
use latchbus_bus::{
    Authorizer, Bus, Clock, Expected, Grant, Options, Principal, Publish, PublishRefused,
    PublishRequest,
};
use latchbus_core::topic::TopicFilter;
use support::*;

/// Unless `LATCHBUS_CASES` says otherwise.
const CASES: u64 = 200;

fn expecting(expected: Expected, publish: Publish) -> Publish {
    publish.expecting(expected)
}

fn raced(topic: &str) -> PublishRefused {
    PublishRefused::Raced(topic.to_owned())
}

fn stored() -> (Bus, Commits) {
    let options = Options {
        limits: LIMITS,
        sys_every: None,
        clock: Clock::manual(1_000),
        ..Options::default()
    };
    simulation::open(options, Disk::memory(&Memory::default())).unwrap()
}

#[tokio::test]
async fn each_expectation_without_a_store() {
    let bus = open();
    let absent = |payload: &str| expecting(Expected::Absent, state("t", payload));
    let first = bus.publish(absent("1")).await.unwrap().rev;
    assert_eq!(bus.publish(absent("2")).await.unwrap_err(), raced("t"));
    for (expected, holds) in [
        (Expected::Present, true),
        (Expected::OneOf(vec![first]), true),
        (Expected::OneOf(vec![first - 1, first]), true),
        (Expected::OneOf(vec![first - 1, first + 1]), false),
        (Expected::OneOf(vec![]), false),
        (Expected::NoneOf(vec![first]), false),
        (Expected::NoneOf(vec![first + 1]), true),
        (Expected::NoneOf(vec![]), true),
        (Expected::Absent, false),
    ] {
        // An event leaves the value as it is, and goes the same way in.
        let answer = bus
            .publish(expecting(expected.clone(), event("t", "e")))
            .await;
        assert_eq!(answer.is_ok(), holds, "{expected:?}");
    }
    assert_eq!(last(&bus, "t").unwrap(), "1");

    let cleared = expecting(Expected::OneOf(vec![first]), state("t", ""));
    bus.publish(cleared).await.unwrap();
    for expected in [
        Expected::Present,
        Expected::OneOf(vec![first]),
        Expected::OneOf(vec![u64::MAX]),
    ] {
        let refused = bus.publish(expecting(expected, state("t", "2"))).await;
        assert_eq!(refused.unwrap_err(), raced("t"));
    }
    let none_of = expecting(Expected::NoneOf(vec![first]), state("t", "3"));
    bus.publish(none_of).await.unwrap();
    assert_eq!(last(&bus, "t").unwrap(), "3");
}

/// What stands earlier in a batch has been accepted, although nobody has seen it.
#[tokio::test(start_paused = true)]
async fn what_stands_earlier_in_a_batch_counts() {
    let (bus, mut commits) = stored();
    let client = bus.client(Principal::process()).unwrap();
    let receipt = client.enqueue(state("t", "0")).await;
    while commits.turn().unwrap() {}
    let first = receipt.await.unwrap().rev;
    let of_first = || Expected::OneOf(vec![first]);

    let mut receipts = Vec::new();
    let publishes = [
        (expecting(of_first(), state("t", "1")), true),
        // Its value is a newer one now.
        (expecting(of_first(), state("t", "2")), false),
        (expecting(Expected::Absent, state("t", "2")), false),
        (
            expecting(Expected::OneOf(vec![u64::MAX]), state("t", "2")),
            false,
        ),
        (expecting(Expected::Present, event("t", "e")), true),
        (state("t", ""), true),
        (expecting(Expected::Present, state("t", "2")), false),
        (expecting(of_first(), state("t", "2")), false),
        (expecting(Expected::Absent, state("t", "3")), true),
        (expecting(Expected::Absent, state("t", "4")), false),
        // Another topic is another matter.
        (expecting(Expected::Absent, state("t/t", "5")), true),
        (expecting(of_first(), state("t/t", "6")), false),
    ];
    let mut expected = Vec::new();
    for (publish, holds) in publishes {
        receipts.push(client.enqueue(publish).await);
        expected.push(holds);
    }
    assert!(commits.turn().unwrap());
    let answers = receipts.into_iter().map(|receipt| {
        let answer = receipt.now_or_never();
        answer.expect("all are of one batch").is_ok()
    });
    assert_eq!(answers.collect::<Vec<_>>(), expected);
    assert_eq!(last(&bus, "t").unwrap(), "3");
    assert_eq!(last(&bus, "t/t").unwrap(), "5");
}

/// Clicks are merged, and still they are not taken where they were not expected.
#[tokio::test]
async fn clicks_have_expectations_too() {
    let bus = open();
    let count = "clicks/main/d/count/1-0000beef";
    let of = |red| format!(r#"{{"red":{red},"blue":0}}"#);
    let first = bus.publish(state(count, of(1))).await.unwrap().rev;
    let refused = expecting(Expected::Absent, state(count, of(2)));
    assert_eq!(bus.publish(refused).await.unwrap_err(), raced(count));
    assert_eq!(last(&bus, "clicks/main/values").unwrap(), of(1));
    let raised = expecting(Expected::OneOf(vec![first]), state(count, of(2)));
    bus.publish(raised).await.unwrap();
    assert_eq!(last(&bus, "clicks/main/values").unwrap(), of(2));
}

struct WriteOnly;

impl Authorizer for WriteOnly {
    fn authorize_publish(&self, _: &Principal, _: &PublishRequest<'_>) -> bool {
        true
    }

    fn authorize_subscribe(&self, _: &Principal, _: TopicFilter<&str>) -> Option<Grant> {
        None
    }
}

/// To be told what is not there is to read.
#[tokio::test]
async fn who_may_not_read_expects_nothing() {
    let bus = Bus::builder().authorizer(WriteOnly).open().unwrap();
    bus.publish(state("t", "1")).await.unwrap();
    for expected in [
        Expected::Absent,
        Expected::Present,
        Expected::NoneOf(vec![1]),
    ] {
        let refused = bus.publish(expecting(expected, state("t", "2"))).await;
        let unreadable = PublishRefused::Unreadable("t".to_owned());
        assert_eq!(refused.unwrap_err(), unreadable);
    }
}

/// Whoever counts by reading, adding one and setting, loses no count, however the batches fall.
#[tokio::test(start_paused = true)]
async fn no_update_is_lost() {
    let cases = std::env::var("LATCHBUS_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let mut races = 0;
    for seed in 0..cases {
        races += case(seed).await;
    }
    assert!(races > cases, "{races} races in {cases} cases");
}

async fn case(seed: u64) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let (bus, mut commits) = stored();
    let clients = [(); 3].map(|()| bus.client(Principal::process()).unwrap());
    let topics = ["a", "b"];
    let (mut added, mut races) = (BTreeMap::new(), 0);
    let mut waiting = Vec::new();
    for _ in 0..60 {
        match rng.u8(..4) {
            0..3 => {
                let topic = topics[rng.usize(..topics.len())];
                let standing = bus.last(name(topic).borrowed());
                let (expected, value) = match &standing {
                    None => (Expected::Absent, 0),
                    Some(it) => (
                        Expected::OneOf(vec![it.rev]),
                        text(it).parse::<u64>().unwrap(),
                    ),
                };
                let publish = expecting(expected, state(topic, (value + 1).to_string()));
                let client = &clients[rng.usize(..clients.len())];
                waiting.push((topic, client.enqueue(publish).await));
            }
            _ => {
                while commits.turn().unwrap() {}
                for (topic, receipt) in waiting.drain(..) {
                    match receipt.await {
                        Ok(_) => *added.entry(topic).or_default() += 1,
                        Err(refused) => {
                            assert_eq!(refused, raced(topic));
                            races += 1;
                        }
                    }
                }
            }
        }
    }
    while commits.turn().unwrap() {}
    for (topic, receipt) in waiting {
        if receipt.await.is_ok() {
            *added.entry(topic).or_default() += 1;
        }
    }
    for topic in topics {
        let value = last(&bus, topic).map_or(0, |value| value.parse().unwrap());
        assert_eq!(
            value,
            added.get(topic).copied().unwrap_or(0_u64),
            "seed {seed}, {topic}"
        );
    }
    races
}
