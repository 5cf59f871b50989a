//! The hot path allocates nothing: the publish of state to a topic that has a value, and its take.
//!
//! Covered, each at a steady size: both forms of the hub (log, ring, views, cursors); the bus without a store, from
//! [`Client::publish`](latchbus_bus::Client::publish) through access rules, click rules, hub and wake-up to a
//! subscription's stream. Not covered, for they allocate: the payload and topic of the message itself (a transport
//! makes both once, from the bytes it has read), the encodings that transports make of it (once a message each, not
//! once a subscriber), tables that still grow, and the ring until it is full: from then on a message lives in the
//! memory of the one that leaves.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use allocation_counter::measure;
use futures_util::{FutureExt as _, StreamExt as _};
use latchbus_bus::{Bus, Options, Principal, Publish};
use latchbus_core::fixed_hub;
use latchbus_core::hub::{FixedHub, Hub, Limits, Mode, Retain, Start, Step};
use latchbus_core::topic::{TopicFilter, TopicName};

const LIMITS: Limits = Limits {
    places: 1_000,
    tombstones: 100,
    recent: 64,
    recent_bytes: 1 << 20,
    subscriptions: 100,
    topic_bytes: 100,
    payload_bytes: 100,
};

fn topic(text: &str) -> TopicName<&str> {
    TopicName::parse(text).unwrap()
}

fn filter(text: &str) -> TopicFilter<&str> {
    TopicFilter::parse(text).unwrap()
}

/// Allocations in `rounds` of a step, after some that bring every table to its size.
fn allocations(rounds: u64, mut step: impl FnMut(u64)) -> u64 {
    (0..1_000).for_each(&mut step);
    measure(|| (1_000..1_000 + rounds).for_each(&mut step)).count_total
}

#[test]
fn a_hub_allocates_nothing() {
    for mode in [Mode::Latest, Mode::Every] {
        let mut hub: Hub<&'static [u8]> = Hub::new(1, LIMITS);
        let subscriptions = ["lab/temp", "lab/+", "#"].map(|text| {
            let id = hub.subscribe(filter(text), mode, Start::Snapshot).unwrap();
            while hub.next(id).unwrap().is_some() {}
            id
        });
        let mut taken = 0;
        let count = allocations(10_000, |at| {
            hub.publish(topic("lab/temp"), b"21.5", Retain::LAST, at)
                .unwrap();
            for id in subscriptions {
                while let Some(step) = hub.next(id).unwrap() {
                    taken += u64::from(matches!(step, Step::Entry { .. }));
                }
            }
        });
        assert_eq!((taken, count), (33_000, 0), "{mode:?}");
    }
}

#[test]
fn a_hub_on_a_microcontroller_allocates_nothing() {
    let mut hub: fixed_hub! {
        retained: 8,
        tombstones: 4,
        recent: 8,
        subscriptions: 4,
        topic_bytes: 32,
        payload_bytes: 16,
    } = FixedHub::new(1);
    let id = hub
        .subscribe(filter("lab/+"), Mode::Latest, Start::Snapshot)
        .unwrap();
    let mut taken = 0;
    let count = allocations(1_000, |at| {
        hub.publish(topic("lab/temp"), b"21.5", Retain::LAST, at)
            .unwrap();
        while let Some(step) = hub.next(id).unwrap() {
            taken += u64::from(matches!(step, Step::Entry { .. }));
        }
    });
    assert_eq!((taken, count), (2_000, 0));
}

#[test]
fn the_bus_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bus = Bus::open(Options {
            limits: LIMITS,
            ..Options::default()
        })
        .unwrap();
        let client = bus.client(Principal::process()).unwrap();
        let mut streams = ["lab/temp", "lab/+", "#"].map(|text| {
            bus.subscribe(filter(text), Mode::Latest, Start::Live)
                .unwrap()
        });
        let publish = || Publish::state(TopicName::parse("lab/temp".to_owned()).unwrap(), "21.5");
        // The messages themselves are made before.
        let mut messages: Vec<_> = (0..3_000).map(|_| publish()).collect();
        let mut taken = 0;
        let count = allocations(2_000, |_| {
            let accepted = client.publish(messages.pop().unwrap()).now_or_never();
            assert!(accepted.unwrap().is_ok());
            for stream in &mut streams {
                while let Some(step) = stream.next().now_or_never() {
                    taken += u64::from(matches!(step, Some(Step::Entry { .. })));
                }
            }
        });
        assert_eq!((taken, count), (9_000, 0));
    });
}
