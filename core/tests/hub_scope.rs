//! Subscriptions with a scope: to them, topics outside it are not there.

#![allow(clippy::expect_used, clippy::indexing_slicing)] // a test that panics has failed

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use latchbus_core::hub::{
    Cursor, Hub, Kind, Limits, Mode, Retain, Scope, SharedEntry, Start, Step, SubscriptionId,
};
use latchbus_core::topic::{TopicFilter, TopicName};
use proptest::prelude::*;

const TOPICS: [&str; 5] = ["a", "a/x", "a/y", "b", "$S"];
const FILTERS: [&str; 5] = ["#", "a/#", "+/x", "$S", "a"];

/// A bit for each topic.
#[derive(Debug)]
struct Mask(u64);

impl Mask {
    fn has(mask: u64, topic: &str) -> bool {
        let place = TOPICS.iter().position(|other| *other == topic);
        mask & (1 << place.expect("a topic of the test")) != 0
    }
}

impl Scope for Mask {
    fn id(&self) -> u64 {
        self.0
    }

    fn has(&self, topic: TopicName<&str>) -> bool {
        Self::has(self.0, topic.as_str())
    }
}

type Bytes = Vec<u8>;

#[derive(Debug, Clone)]
enum Operation {
    Publish(usize, Retain),
    Clear(usize),
    Take(usize),
    Rewind,
    Resume,
    SetScope(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let retain = prop_oneof![Just(Retain::No), Just(Retain::LAST), Just(Retain::Last(3))];
    prop_oneof![
        8 => (0..TOPICS.len(), retain).prop_map(|(topic, retain)| Operation::Publish(topic, retain)),
        2 => (0..TOPICS.len()).prop_map(Operation::Clear),
        5 => (0..6usize).prop_map(Operation::Take),
        1 => Just(Operation::Rewind),
        1 => Just(Operation::Resume),
        1 => (0..1u64 << TOPICS.len()).prop_map(Operation::SetScope),
    ]
}

fn topic(n: usize) -> TopicName<&'static str> {
    TopicName::parse(TOPICS[n]).expect("a topic")
}

fn hub(limits: Limits) -> Hub<Bytes> {
    Hub::new(7, limits)
}

type Seen = Step<(u64, Kind, String, Bytes)>;

fn seen(step: Step<SharedEntry<Bytes>>) -> Seen {
    match step {
        Step::Entry { entry, retained } => Step::Entry {
            entry: (
                entry.rev,
                entry.kind,
                entry.topic.as_str().to_owned(),
                entry.payload.clone(),
            ),
            retained,
        },
        Step::Reset => Step::Reset,
        Step::Gap { missed } => Step::Gap { missed },
        Step::Synced { cursor } => Step::Synced { cursor },
    }
}

fn take(hub: &mut Hub<Bytes>, id: SubscriptionId, most: usize) -> Vec<Seen> {
    let mut steps = Vec::new();
    while steps.len() < most
        && let Some(step) = hub.next(id).expect("a subscription")
    {
        steps.push(seen(step));
    }
    steps
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Latest), Just(Mode::Every)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What a subscription with a scope is given, to the last count, is what it would be given if nothing else had
    /// ever been published.
    #[test]
    fn outside_its_scope_there_is_nothing(
        filter in 0..FILTERS.len(),
        mode in mode(),
        live in any::<bool>(),
        mask in 0..1u64 << TOPICS.len(),
        before in prop::collection::vec(operation(), 0..20),
        operations in prop::collection::vec(operation(), 0..60),
    ) {
        let (mut whole, mut part) = (hub(Limits::default()), hub(Limits::default()));
        // Others of the same filter, with other scopes and none.
        let filter = TopicFilter::parse(FILTERS[filter]).expect("a filter");
        let start = if live { Start::Live } else { Start::Snapshot };
        let mut subscribed = None;
        let number = before.len();
        for (n, operation) in before.into_iter().chain(operations).enumerate() {
            if n == number {
                for scope in [None, Some(mask ^ 1)] {
                    let scope = scope.map(|mask| Arc::new(Mask(mask)) as _);
                    whole.subscribe_within(filter, scope, mode, start).expect("room");
                }
                let id = whole.subscribe_within(filter, Some(Arc::new(Mask(mask))), mode, start);
                let other = part.subscribe(filter, mode, start);
                subscribed = Some((id.expect("room"), other.expect("room")));
            }
            let payload = n.to_le_bytes().to_vec();
            match operation {
                Operation::Publish(n, retain) => {
                    let at = whole.publish(topic(n), payload.clone(), retain, 0).expect("room").rev;
                    part.skip_to(at - 1);
                    if Mask::has(mask, TOPICS[n]) {
                        part.publish(topic(n), payload, retain, 0).expect("room");
                    }
                    part.skip_to(at);
                }
                Operation::Clear(n) => {
                    if let Some(entry) = whole.clear(topic(n), 0).expect("short") {
                        part.skip_to(entry.rev - 1);
                        if Mask::has(mask, TOPICS[n]) {
                            part.clear(topic(n), 0).expect("short");
                        }
                        part.skip_to(entry.rev);
                    }
                }
                Operation::Take(most) => if let Some((id, other)) = subscribed {
                    prop_assert_eq!(take(&mut whole, id, most), take(&mut part, other, most));
                },
                Operation::Rewind => if let Some((id, other)) = subscribed {
                    whole.rewind(id).expect("a subscription");
                    part.rewind(other).expect("a subscription");
                },
                Operation::Resume => if let Some((id, other)) = &mut subscribed {
                    let start = Start::Resume(Cursor { epoch: 7, rev: whole.taken(*id).expect("known") });
                    whole.unsubscribe(*id).expect("a subscription");
                    part.unsubscribe(*other).expect("a subscription");
                    let scope = Some(Arc::new(Mask(mask)) as _);
                    *id = whole.subscribe_within(filter, scope, mode, start).expect("room");
                    *other = part.subscribe(filter, mode, start).expect("room");
                },
                Operation::SetScope(other) => if let Some((id, _)) = subscribed {
                    // And back, before anything happens.
                    whole.set_scope(id, Some(Arc::new(Mask(mask))), true).expect("a subscription");
                    let _others = other;
                },
            }
        }
        if let Some((id, other)) = subscribed {
            prop_assert_eq!(take(&mut whole, id, 1_000), take(&mut part, other, 1_000));
            let counts = |hub: &Hub<Bytes>, id| hub.subscription_counts(id).expect("known");
            prop_assert_eq!(counts(&whole, id), counts(&part, other));
        }
    }

    /// Scopes change, rings overflow and clears are forgotten: nothing comes from outside the scope of the moment, and what
    /// is in the last scope comes with its last value, once.
    #[test]
    fn a_scope_changes(
        filter in 0..FILTERS.len(),
        mode in mode(),
        recent in 1..12usize,
        tombstones in prop_oneof![Just(2), Just(100)],
        operations in prop::collection::vec(operation(), 0..80),
    ) {
        let limits = Limits { recent, tombstones, ..Limits::default() };
        let mut hub = hub(limits);
        let filter = TopicFilter::parse(FILTERS[filter]).expect("a filter");
        let mut mask = 0b10101;
        let mut left: BTreeSet<usize> = (0..TOPICS.len()).filter(|n| !Mask::has(mask, TOPICS[*n])).collect();
        let scope = Some(Arc::new(Mask(mask)) as _);
        let mut id = hub.subscribe_within(filter, scope, mode, Start::Snapshot).expect("room");
        let mut last = BTreeMap::new();
        let mut check = |steps: Vec<Seen>, mask| {
            for step in steps {
                if let Step::Entry { entry: (rev, kind, topic, _), .. } = step.clone() {
                    prop_assert!(Mask::has(mask, &topic), "{topic}");
                    match kind {
                        Kind::State => last.insert(topic, rev),
                        Kind::Cleared => last.remove(&topic),
                        Kind::Event => None,
                    };
                } else if step == Step::Reset {
                    last.clear();
                }
            }
            Ok(())
        };
        for (n, operation) in operations.into_iter().enumerate() {
            let payload = n.to_le_bytes().to_vec();
            match operation {
                Operation::Publish(n, retain) => {
                    hub.publish(topic(n), payload, retain, 0).expect("room");
                }
                Operation::Clear(n) => {
                    hub.clear(topic(n), 0).expect("short");
                }
                Operation::Take(most) => check(take(&mut hub, id, most), mask)?,
                Operation::Rewind => hub.rewind(id).expect("a subscription"),
                Operation::Resume => {
                    let start = Start::Resume(Cursor { epoch: 7, rev: hub.taken(id).expect("known") });
                    hub.unsubscribe(id).expect("a subscription");
                    let scope = Some(Arc::new(Mask(mask)) as _);
                    id = hub.subscribe_within(filter, scope, mode, start).expect("room");
                }
                Operation::SetScope(other) => {
                    mask = other;
                    hub.set_scope(id, Some(Arc::new(Mask(mask))), true).expect("a subscription");
                    left.extend((0..TOPICS.len()).filter(|n| !Mask::has(mask, TOPICS[*n])));
                }
            }
        }
        check(take(&mut hub, id, 10_000), mask)?;
        for (n, text) in TOPICS.iter().enumerate() {
            if !Mask::has(mask, text) || !filter.matches(&topic(n)) {
                continue;
            }
            match hub.last(topic(n)) {
                Some(entry) => prop_assert_eq!(last.get(*text), Some(&entry.rev), "{}", text),
                // A clear that was forgotten while it was out of scope is not known.
                None => prop_assert!(
                    !last.contains_key(*text) || tombstones == 2 && left.contains(&n),
                    "{}", text
                ),
            }
        }
        hub.unsubscribe(id).expect("a subscription");
        prop_assert!(!hub.is_followed(topic(0)));
    }
}

/// Events that were published while they were outside the scope of one that had taken all there was are not for it. State is,
/// and clears are, whatever else it has taken meanwhile; what it had in scope does not come again.
#[test]
fn what_came_while_it_was_out_of_scope() {
    for mode in [Mode::Latest, Mode::Every] {
        let mut hub = hub(Limits::default());
        let all = TopicFilter::parse("#").expect("a filter");
        let scope = |mask| Some(Arc::new(Mask(mask)) as _);
        let id = hub.subscribe_within(all, scope(0b11111), mode, Start::Snapshot);
        let id = id.expect("room");
        let publish = |hub: &mut Hub<Bytes>, n, text: &str, retain| {
            hub.publish(topic(n), text.into(), retain, 0).expect("room");
        };
        let texts = |steps: Vec<Seen>| -> Vec<String> {
            let entries = steps.into_iter().filter_map(|step| match step {
                Step::Entry {
                    entry: (_, kind, topic, bytes),
                    ..
                } => Some(match kind {
                    Kind::Cleared => format!("no {topic}"),
                    _ => String::from_utf8(bytes).expect("text"),
                }),
                _ => None,
            });
            entries.collect()
        };
        let set = |hub: &mut Hub<Bytes>, mask, with_state| {
            hub.set_scope(id, scope(mask), with_state).expect("known");
        };
        publish(&mut hub, 0, "first", Retain::LAST);
        publish(&mut hub, 3, "gone later", Retain::LAST);
        assert_eq!(texts(take(&mut hub, id, 10)), ["first", "gone later"]);
        set(&mut hub, 0b01, true);
        publish(&mut hub, 1, "event", Retain::No);
        publish(&mut hub, 1, "old state", Retain::LAST);
        publish(&mut hub, 1, "state", Retain::LAST);
        hub.clear(topic(3), 0).expect("short");
        publish(&mut hub, 0, "second", Retain::LAST);
        assert_eq!(texts(take(&mut hub, id, 10)), ["second"]);
        publish(&mut hub, 2, "event", Retain::No);
        publish(&mut hub, 2, "new state", Retain::LAST);
        set(&mut hub, 0b11111, true);
        publish(&mut hub, 1, "live", Retain::No);
        let came = texts(take(&mut hub, id, 10));
        assert_eq!(came, ["state", "no b", "new state", "live"], "{mode:?}");
        // A slow one, which had not taken what was for it, has all of it.
        publish(&mut hub, 0, "third", Retain::No);
        set(&mut hub, 0b01, true);
        assert_eq!(texts(take(&mut hub, id, 10)), ["third"], "{mode:?}");
        // One that takes no state of before.
        publish(&mut hub, 1, "later state", Retain::LAST);
        set(&mut hub, 0b11111, false);
        publish(&mut hub, 1, "latest state", Retain::LAST);
        let came = texts(take(&mut hub, id, 10));
        assert_eq!(came, ["latest state"], "{mode:?}");
        let counts = hub.subscription_counts(id).expect("known");
        assert_eq!(counts.skipped, 0);
    }
}
