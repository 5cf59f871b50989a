//! Any operations in any order on both forms of the hub, against the model that core's own tests use.
//!
//! Input: one byte for the hub under test, then three bytes for each operation.
#![no_main]

#[path = "../../core/tests/support/mod.rs"]
mod support;

use latchbus_core::hub::{Cursor, FixedHub, Hub, Limits, Mode, Retain, Start, Step};
use libfuzzer_sys::fuzz_target;
use support::{Driver, limits, model::Model};

const EPOCH: u64 = 7;
/// The model looks through everything at each step.
const MAX_OPERATIONS: usize = 400;
const TOPICS: [&str; 12] = [
    "a",
    "a/x",
    "a/y",
    "b",
    "$S",
    "too/long/topic",
    "a/",
    "/",
    "/x",
    "a/x/c",
    "$S/x",
    "é",
];
const FILTERS: [&str; 16] = [
    "a",
    "#",
    "a/#",
    "+/x",
    "a/+",
    "$S",
    "b",
    "+",
    "+/+",
    "+/#",
    "a/+/c",
    "/",
    "/#",
    "$S/#",
    "+/x/#",
    "too/long/filter",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((form, operations)) = bytes.split_first() else {
        return;
    };
    match form % 4 {
        0 => check(
            FixedHub::<5, 2, 6, 4, 8, 4>::new(EPOCH),
            limits(5, 2, 6, 4),
            operations,
        ),
        1 => check(
            FixedHub::<3, 1, 1, 2, 8, 4>::new(EPOCH),
            limits(3, 1, 1, 2),
            operations,
        ),
        2 => {
            let limits = limits(20, 3, 12, 8);
            check(Hub::<Vec<u8>>::new(EPOCH, limits), limits, operations);
        }
        _ => {
            let limits = Limits {
                recent_bytes: 9,
                ..limits(3, 0, 3, 2)
            };
            check(Hub::<Vec<u8>>::new(EPOCH, limits), limits, operations);
        }
    }
});

/// One subscription, in the hub under test and in the model.
struct Pair<I> {
    real: I,
    model: usize,
    filter: &'static str,
    mode: Mode,
    last: Cursor,
}

struct Check<H: Driver> {
    real: H,
    model: Model,
    pairs: Vec<Pair<H::Id>>,
}

fn check<H: Driver>(real: H, limits: Limits, operations: &[u8]) {
    let mut check = Check {
        real,
        model: Model::new(EPOCH, limits),
        pairs: Vec::new(),
    };
    for (at, operation) in operations
        .as_chunks::<3>()
        .0
        .iter()
        .take(MAX_OPERATIONS)
        .enumerate()
    {
        check.apply(*operation, at as u64);
    }
    // When all is quiet both have nothing more to give.
    while let Some(pair) = check.pairs.len().checked_sub(1) {
        while check.take(pair) {}
        check.unsubscribe(pair);
    }
}

impl<H: Driver> Check<H> {
    fn apply(&mut self, [code, a, b]: [u8; 3], at: u64) {
        let topic = TOPICS[usize::from(a) % TOPICS.len()];
        match code % 16 {
            0..=5 => self.publish(topic, b, at),
            6 => {
                assert_eq!(self.real.clear(topic, at), self.model.clear(topic, at));
                assert_eq!(self.real.last(topic), self.model.last(topic));
            }
            7..=9 => self.subscribe(
                FILTERS[usize::from(a) % FILTERS.len()],
                mode(b),
                self.start(b >> 1),
            ),
            // A place that is not taken does nothing.
            _ if usize::from(a) >= self.pairs.len() => {}
            10 => {
                let pair = &self.pairs[usize::from(a)];
                self.real.rewind(pair.real);
                self.model.rewind(pair.model);
            }
            11..=13 => {
                for _ in 0..b % 16 {
                    self.take(a.into());
                }
            }
            14 => drop(self.unsubscribe(a.into())),
            // Comes back with the cursor that a client would name.
            _ => {
                let pair = self.unsubscribe(a.into());
                self.subscribe(pair.filter, pair.mode, Start::Resume(pair.last));
            }
        }
    }

    fn publish(&mut self, topic: &str, b: u8, at: u64) {
        let payload = vec![at as u8; usize::from(b % 6)];
        let retain = match b / 6 % 7 {
            0 | 1 => Retain::No,
            n @ 2..=4 => Retain::Last(u16::from(n) - 2),
            _ => Retain::LAST,
        };
        let accepted = self.real.publish(topic, &payload, retain, at);
        assert_eq!(accepted, self.model.publish(topic, &payload, retain, at));
        assert_eq!(self.real.last(topic), self.model.last(topic));
    }

    fn start(&self, b: u8) -> Start {
        match b % 4 {
            0 | 1 => Start::Snapshot,
            2 => Start::Live,
            _ => {
                let epoch = if b & 0x40 == 0 { EPOCH } else { EPOCH - 1 };
                // Some cursors lie ahead of the hub.
                let rev = (self.model.revision() + 2).saturating_sub((b >> 2 & 0x0f).into());
                Start::Resume(Cursor { epoch, rev })
            }
        }
    }

    fn subscribe(&mut self, filter: &'static str, mode: Mode, start: Start) {
        let real = self.real.subscribe(filter, mode, start);
        let model = self.model.subscribe(filter, mode, start);
        assert_eq!(real.is_some(), model.is_some());
        if let (Some(real), Some(model)) = (real, model) {
            let last = Cursor {
                epoch: EPOCH,
                rev: 0,
            };
            self.pairs.push(Pair {
                real,
                model,
                filter,
                mode,
                last,
            });
        }
    }

    /// Whether there was something to take.
    fn take(&mut self, which: usize) -> bool {
        let pair = &mut self.pairs[which];
        let step = self.real.next(pair.real);
        assert_eq!(
            step,
            self.model.next(pair.model),
            "{} {:?}",
            pair.filter,
            pair.mode
        );
        assert_eq!(self.real.counts(pair.real), self.model.counts(pair.model));
        match &step {
            Some(Step::Entry { entry, .. }) => pair.last.rev = entry.rev,
            Some(Step::Synced { cursor }) => pair.last = *cursor,
            _ => {}
        }
        step.is_some()
    }

    fn unsubscribe(&mut self, which: usize) -> Pair<H::Id> {
        let pair = self.pairs.swap_remove(which);
        self.real.unsubscribe(pair.real);
        self.model.unsubscribe(pair.model);
        pair
    }
}

fn mode(b: u8) -> Mode {
    if b & 1 == 0 {
        Mode::Latest
    } else {
        Mode::Every
    }
}
