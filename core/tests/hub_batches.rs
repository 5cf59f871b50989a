//! A reader in mode `latest` or `state` that takes its batches in several turns, while the hub goes on.
#![cfg(feature = "alloc")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a panic is the report"
)]

use std::collections::BTreeMap;

use latchbus_core::hub::{Hub, Limits, Mode, Retain, Start, Step, SubscriptionId, Upcoming};
use latchbus_core::topic::{TopicFilter, TopicName};
use proptest::prelude::*;

fn publish(hub: &mut Hub<Vec<u8>>, topic: &str, retain: Retain) {
    let topic = TopicName::parse(topic).unwrap();
    hub.publish(topic, b"x".to_vec(), retain, 0).unwrap();
}

fn subscribe(hub: &mut Hub<Vec<u8>>, mode: Mode) -> SubscriptionId {
    let all = TopicFilter::parse("#").unwrap();
    let id = hub.subscribe(all, mode, Start::Snapshot).unwrap();
    while hub.next(id).unwrap().is_some() {}
    id
}

/// The next entry of a batch: its revision and its topic.
fn next(hub: &mut Hub<Vec<u8>>, id: SubscriptionId, to: u64) -> Option<(u64, String)> {
    match hub.next_in_batch(id, to).unwrap() {
        Upcoming::Step(Step::Entry { entry, .. }) => {
            Some((entry.rev, entry.topic.as_str().to_owned()))
        }
        Upcoming::Step(other) => panic!("{other:?}"),
        Upcoming::Later(_) | Upcoming::Nothing => None,
    }
}

/// The score of a room changes with each click of each device: a dashboard on a slow link is to see it nevertheless.
#[test]
fn what_changes_all_the_time_comes_in_each_batch() {
    const DEVICES: usize = 50;
    const A_TURN: usize = 10;
    for mode in [Mode::Latest, Mode::State] {
        let mut hub = Hub::new(1, Limits::default());
        let id = subscribe(&mut hub, mode);
        let click = |hub: &mut Hub<Vec<u8>>, n: usize| {
            publish(hub, &format!("device/{}", n % DEVICES), Retain::LAST);
            publish(hub, "score", Retain::LAST);
        };
        let mut clicks = 0..;
        let mut some = |hub: &mut Hub<Vec<u8>>| {
            clicks
                .by_ref()
                .take(DEVICES)
                .for_each(|click_number| click(hub, click_number));
        };
        some(&mut hub);
        for _ in 0..10 {
            let (to, mut scores, mut devices) = (hub.revision(), 0, 0);
            'batch: loop {
                for _ in 0..A_TURN {
                    match next(&mut hub, id, to) {
                        Some((_, topic)) if topic == "score" => scores += 1,
                        Some(_) => devices += 1,
                        None => break 'batch,
                    }
                }
                some(&mut hub);
            }
            assert_eq!((scores, devices), (1, DEVICES), "{mode:?}");
        }
    }
}

proptest! {
    /// A batch brings each topic that has changed since the last one, as it was at its end, in the hub's order.
    #[test]
    fn a_batch_is_what_has_changed(
        turns in prop::collection::vec(
            (prop::collection::vec((0_u8..6, 0_u8..8), 0..12), 1_usize..5),
            1..60,
        ),
    ) {
        let mut hub = Hub::new(1, Limits::default());
        let id = subscribe(&mut hub, Mode::State);
        // By topic: its newest revision up to the end of the batch, and that of now.
        let mut now = BTreeMap::<String, u64>::new();
        let mut expected = BTreeMap::<u64, String>::new();
        let (mut from, mut to) = (0, 0);
        for (publishes, a_turn) in turns {
            for (topic, kind) in publishes {
                let topic = format!("t/{topic}");
                let retain = if kind == 0 { Retain::No } else { Retain::LAST };
                publish(&mut hub, &topic, retain);
                if kind > 0 {
                    now.insert(topic, hub.revision());
                }
            }
            for _ in 0..a_turn {
                if to == from {
                    to = hub.revision();
                    let changed = now.iter().filter(|(_, rev)| **rev > from);
                    expected = changed.map(|(topic, rev)| (*rev, topic.clone())).collect();
                }
                let next = next(&mut hub, id, to);
                prop_assert_eq!(&next, &expected.pop_first());
                if next.is_none() {
                    from = to;
                    break;
                }
            }
        }
    }
}
