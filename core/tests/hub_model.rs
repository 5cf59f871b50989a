//! Both forms of the hub against the model: any operations in any order, the same answers.

#![allow(clippy::expect_used, clippy::indexing_slicing)] // a test that panics has failed

mod support;

use std::collections::BTreeSet;

use latchbus_core::hub::{Cursor, FixedHub, Hub, Kind, Limits, Mode, Retain, Start, Step};
use proptest::prelude::*;
use support::{Driver, limits, model::Model};

const TOPICS: [&str; 6] = ["a", "a/x", "a/y", "b", "$S", "too/long/topic"];
const FILTERS: [&str; 7] = ["a", "#", "a/#", "+/x", "a/+", "$S", "b"];

#[derive(Debug, Clone)]
enum Operation {
    Publish {
        topic: usize,
        size: usize,
        retain: Retain,
    },
    Clear {
        topic: usize,
    },
    Subscribe {
        filter: usize,
        mode: Mode,
        start: Begin,
    },
    Take {
        which: usize,
        steps: usize,
    },
    Unsubscribe {
        which: usize,
    },
    Rewind {
        which: usize,
    },
    /// Leaves out revisions, in a form that can.
    Skip {
        by: u64,
    },
    /// Ends a subscription and resumes it from the last revision that it took.
    Reconnect {
        which: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum Begin {
    Snapshot,
    Live,
    Resume { back: u64, epoch: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    let mode = prop_oneof![Just(Mode::Latest), Just(Mode::Every), Just(Mode::State)];
    let retain = prop_oneof![
        2 => Just(Retain::No),
        4 => Just(Retain::LAST),
        1 => (0..4u16).prop_map(Retain::Last),
    ];
    let begin = prop_oneof![
        3 => Just(Begin::Snapshot),
        1 => Just(Begin::Live),
        3 => (0..20u64, 6..8u64).prop_map(|(back, epoch)| Begin::Resume { back, epoch }),
    ];
    prop_oneof![
        8 => (0..TOPICS.len(), 0..6usize, retain)
            .prop_map(|(topic, size, retain)| Operation::Publish { topic, size, retain }),
        2 => (0..TOPICS.len()).prop_map(|topic| Operation::Clear { topic }),
        2 => (0..FILTERS.len(), mode, begin)
            .prop_map(|(filter, mode, start)| Operation::Subscribe { filter, mode, start }),
        5 => (0..8usize, 0..6usize).prop_map(|(which, steps)| Operation::Take { which, steps }),
        1 => (0..8usize).prop_map(|which| Operation::Unsubscribe { which }),
        1 => (0..8usize).prop_map(|which| Operation::Rewind { which }),
        1 => (0..8usize).prop_map(|which| Operation::Reconnect { which }),
        1 => (1..6u64).prop_map(|by| Operation::Skip { by }),
    ]
}

/// One subscription, in the hub under test and in the model.
struct Pair<I> {
    real: I,
    model: usize,
    filter: usize,
    mode: Mode,
    last: Cursor,
    /// Topics whose values have to come, as values or as cleared, before `Synced`.
    pending: BTreeSet<&'static str>,
}

impl<I: Copy> Pair<I> {
    /// The topics that have a value after `rev` now.
    fn await_values<H: Driver>(&mut self, real: &H, rev: u64) {
        let filter = support::filter(FILTERS[self.filter]);
        let values = TOPICS.into_iter().filter(|topic| {
            filter.matches(&support::name(topic))
                && real.last(topic).is_some_and(|value| value.rev > rev)
        });
        self.pending = values.collect();
    }

    /// Takes a step from both.
    fn next<H: Driver<Id = I>>(
        &mut self,
        real: &mut H,
        model: &mut Model,
    ) -> Option<Step<support::Taken>> {
        let step = real.next(self.real);
        assert_eq!(step, model.next(self.model));
        match &step {
            Some(Step::Reset) => self.await_values(real, 0),
            Some(Step::Entry { entry, .. }) => {
                self.last.rev = entry.rev;
                if entry.kind != Kind::Event {
                    self.pending.remove(entry.topic.as_str());
                }
            }
            Some(Step::Synced { cursor }) => {
                self.last = *cursor;
                assert_eq!(self.pending, BTreeSet::new());
            }
            Some(Step::Gap { .. }) | None => {}
        }
        step
    }
}

fn check<H: Driver>(mut real: H, limits: Limits, operations: Vec<Operation>) {
    const EPOCH: u64 = 7;
    let mut model = Model::new(EPOCH, limits);
    let mut pairs: Vec<Pair<H::Id>> = Vec::new();
    for (at, operation) in operations.into_iter().enumerate() {
        let at = at as u64;
        match operation {
            Operation::Publish {
                topic,
                size,
                retain,
            } => {
                let payload = vec![at as u8; size];
                let topic = TOPICS[topic];
                let expected = model.publish(topic, &payload, retain, at);
                assert_eq!(real.publish(topic, &payload, retain, at), expected);
                assert_eq!(real.last(topic), model.last(topic));
            }
            Operation::Clear { topic } => {
                let topic = TOPICS[topic];
                assert_eq!(real.clear(topic, at), model.clear(topic, at));
                assert_eq!(real.last(topic), model.last(topic));
            }
            Operation::Subscribe {
                filter,
                mode,
                start,
            } => {
                let rev = model.revision();
                let start = match start {
                    Begin::Snapshot => Start::Snapshot,
                    Begin::Live => Start::Live,
                    Begin::Resume { back, epoch } => Start::Resume(Cursor {
                        epoch,
                        rev: (rev + 2).saturating_sub(back),
                    }),
                };
                subscribe(&mut real, &mut model, &mut pairs, filter, mode, start);
            }
            Operation::Take { which, steps } => {
                if let Some(pair) = pairs.get_mut(which) {
                    for _ in 0..steps {
                        pair.next(&mut real, &mut model);
                    }
                    assert_eq!(real.counts(pair.real), model.counts(pair.model));
                }
            }
            Operation::Unsubscribe { which } => {
                if which < pairs.len() {
                    let pair = pairs.swap_remove(which);
                    real.unsubscribe(pair.real);
                    model.unsubscribe(pair.model);
                }
            }
            Operation::Rewind { which } => {
                if let Some(pair) = pairs.get_mut(which) {
                    real.rewind(pair.real);
                    model.rewind(pair.model);
                    pair.await_values(&real, 0);
                }
            }
            Operation::Skip { by } => {
                if real.skip(by) {
                    model.skip(by);
                }
            }
            Operation::Reconnect { which } => {
                if which < pairs.len() {
                    let pair = pairs.swap_remove(which);
                    real.unsubscribe(pair.real);
                    model.unsubscribe(pair.model);
                    let start = Start::Resume(pair.last);
                    subscribe(
                        &mut real,
                        &mut model,
                        &mut pairs,
                        pair.filter,
                        pair.mode,
                        start,
                    );
                }
            }
        }
    }
    for pair in &mut pairs {
        drain(&mut real, &mut model, pair);
    }
}

fn subscribe<H: Driver>(
    real: &mut H,
    model: &mut Model,
    pairs: &mut Vec<Pair<H::Id>>,
    filter: usize,
    mode: Mode,
    start: Start,
) {
    let model = model.subscribe(FILTERS[filter], mode, start);
    let id = real.subscribe(FILTERS[filter], mode, start);
    assert_eq!(id.is_some(), model.is_some());
    if let (Some(id), Some(model)) = (id, model) {
        let mut pair = Pair {
            real: id,
            model,
            filter,
            mode,
            last: Cursor { epoch: 7, rev: 0 },
            pending: BTreeSet::new(),
        };
        pair.await_values(
            real,
            match start {
                Start::Snapshot => 0,
                Start::Live => u64::MAX,
                Start::Resume(cursor) => cursor.rev,
            },
        );
        pairs.push(pair);
    }
}

/// When all is quiet a subscription ends at the newest value of every topic, whatever it went through.
fn drain<H: Driver>(real: &mut H, model: &mut Model, pair: &mut Pair<H::Id>) {
    while pair.next(real, model).is_some() {}
    assert_eq!(real.counts(pair.real), model.counts(pair.model));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn fixed_agrees(operations in proptest::collection::vec(operation(), 0..120)) {
        check(FixedHub::<5, 2, 6, 4, 8, 4>::new(7), limits(5, 2, 6, 4), operations);
    }

    #[test]
    fn fixed_agrees_with_tiny_tables(operations in proptest::collection::vec(operation(), 0..120)) {
        check(FixedHub::<3, 1, 1, 2, 8, 4>::new(7), limits(3, 1, 1, 2), operations);
    }

    #[test]
    fn growing_agrees(operations in proptest::collection::vec(operation(), 0..120)) {
        let limits = limits(5, 2, 6, 4);
        check(Hub::<Vec<u8>>::new(7, limits), limits, operations);
    }

    #[test]
    fn growing_agrees_with_tiny_tables(operations in proptest::collection::vec(operation(), 0..120)) {
        let limits = Limits { recent_bytes: 9, ..limits(3, 0, 3, 2) };
        check(Hub::<Vec<u8>>::new(7, limits), limits, operations);
    }
}

/// A clear that has left the ring before it was taken, and whose topic has a value again: found by chance.
#[test]
fn a_clear_that_is_overtaken_twice() {
    let event = |topic| Operation::Publish {
        topic,
        size: 0,
        retain: Retain::No,
    };
    let state = Operation::Publish {
        topic: 2,
        size: 0,
        retain: Retain::LAST,
    };
    let subscribe = |mode, filter| Operation::Subscribe {
        filter,
        mode,
        start: Begin::Snapshot,
    };
    let operations = vec![
        state.clone(),
        subscribe(Mode::Every, 1),
        Operation::Reconnect { which: 0 },
        event(0),
        Operation::Clear { topic: 2 },
        event(0),
        event(3),
        event(0),
        event(0),
        Operation::Take { which: 0, steps: 2 },
        event(0),
        state,
    ];
    let limits = limits(5, 2, 6, 4);
    check(
        FixedHub::<5, 2, 6, 4, 8, 4>::new(7),
        limits,
        operations.clone(),
    );
    check(Hub::<Vec<u8>>::new(7, limits), limits, operations);
}

/// What a subscriber has put together from its steps is what the hub keeps.
#[derive(Default)]
struct Mirror {
    values: std::collections::BTreeMap<String, Vec<u8>>,
    events: u64,
}

impl Mirror {
    fn take(&mut self, step: Step<support::Taken>) {
        match step {
            Step::Reset => self.values.clear(),
            Step::Entry { entry, .. } => match entry.kind {
                Kind::State => drop(self.values.insert(entry.topic, entry.payload)),
                Kind::Cleared => drop(self.values.remove(&entry.topic)),
                Kind::Event => self.events += 1,
            },
            Step::Gap { missed } => self.events += missed,
            Step::Synced { .. } => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_mirror_ends_equal_and_never_goes_back(
        operations in proptest::collection::vec(operation(), 0..160),
        every in any::<bool>(),
        stale in any::<bool>(),
    ) {
        let mut hub = Hub::<Vec<u8>>::new(7, limits(5, 2, 6, 4));
        let mode = if every { Mode::Every } else { Mode::Latest };
        let of_another_life = Start::Resume(Cursor { epoch: 6, rev: 3 });
        let start = if stale { of_another_life } else { Start::Snapshot };
        let mut id = Driver::subscribe(&mut hub, "#", mode, start).unwrap();
        let (mut mirror, mut last) = (Mirror::default(), Cursor { epoch: 7, rev: 0 });
        let mut steps = Vec::new();
        let (mut events, mut reconnected) = (0, false);
        for operation in operations {
            match operation {
                Operation::Publish { topic, size, retain } => {
                    let accepted = Driver::publish(&mut hub, TOPICS[topic], &vec![1; size], retain, 0);
                    let seen = accepted.is_some() && !TOPICS[topic].starts_with('$');
                    events += u64::from(seen && retain == Retain::No);
                }
                Operation::Clear { topic } => {
                    Driver::clear(&mut hub, TOPICS[topic], 0);
                }
                Operation::Reconnect { .. } => {
                    Driver::unsubscribe(&mut hub, id);
                    id = Driver::subscribe(&mut hub, "#", mode, Start::Resume(last)).unwrap();
                    reconnected = true;
                }
                Operation::Take { steps: n, .. } => {
                    steps.extend((0..n).filter_map(|_| Driver::next(&mut hub, id)));
                }
                Operation::Rewind { .. } => {
                    Driver::rewind(&mut hub, id);
                    last.rev = 0;
                }
                Operation::Skip { by } => {
                    Driver::skip(&mut hub, by);
                }
                Operation::Subscribe { .. } | Operation::Unsubscribe { .. } => {}
            }
            for step in steps.drain(..) {
                match &step {
                    Step::Reset => last.rev = 0,
                    Step::Synced { cursor } => last = *cursor,
                    Step::Entry { entry, .. } => {
                        prop_assert!(entry.rev > last.rev || (last.rev == 0));
                        last.rev = entry.rev;
                    }
                    Step::Gap { .. } => {}
                }
                mirror.take(step);
            }
        }
        while let Some(step) = Driver::next(&mut hub, id) {
            mirror.take(step);
        }
        if !reconnected {
            // Each event was delivered or told of.
            prop_assert_eq!(mirror.events, events);
        }
        for topic in ["a", "a/x", "a/y", "b"] {
            let kept = Driver::last(&hub, topic).map(|entry| entry.payload);
            prop_assert_eq!(mirror.values.get(topic), kept.as_ref());
        }
    }
}
