//! What was clicked, sent and acknowledged, beside all that is simulated: what the room must show.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use latchbus_core::clicks::Counter;
use latchbus_device::device::Report;

/// Which promise a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// It keeps its counts in a file.
    Stored,
    /// It forgets everything when it is killed.
    Forgetful,
}

impl Kind {
    /// Each kind has a room of its own, since of the one the room shows exactly what was clicked, and of the
    /// other what was clicked less what died unsent.
    pub(super) fn room(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Forgetful => "forgetful",
        }
    }
}

/// The truth.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Truth>);

#[derive(Debug, Default)]
struct Truth {
    /// Clicks that a device has accepted: stored, where it stores.
    made: BTreeMap<Kind, Counter>,
    /// Of each incarnation, by its topic.
    sent: BTreeMap<String, (Kind, Counter)>,
    acknowledged: BTreeMap<String, (Kind, Counter)>,
    /// What a room has shown.
    shown: BTreeMap<Kind, Counter>,
    violations: Vec<String>,
    /// Ids of those that were answered.
    operations: Vec<(&'static str, u64)>,
}

/// What a room shows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shown {
    pub(super) value: Counter,
    /// What it began with at its last reset.
    pub(super) given: Counter,
    /// What operations have taken from it.
    pub(super) taken: Counter,
}

impl Shown {
    /// All clicks that it has ever counted; none if it shows less than it was given.
    pub(super) fn counted(self) -> Option<Counter> {
        let clicked = self.value.since(self.given);
        let covers = self.value.covers(self.given);
        covers.then(|| clicked.saturating_add(self.taken))
    }
}

impl Ledger {
    pub(super) fn made(&self, kind: Kind, clicks: Counter) {
        let mut truth = self.lock();
        let made = truth.made.entry(kind).or_default();
        *made = made.saturating_add(clicks);
    }

    pub(super) fn sent(&self, kind: Kind, report: &Report) {
        join(&mut self.lock().sent, kind, report);
    }

    pub(super) fn acknowledged(&self, kind: Kind, report: &Report) {
        join(&mut self.lock().acknowledged, kind, report);
    }

    /// Something that was said before, for somebody to say again.
    pub(super) fn any_sent(&self, random: &mut fastrand::Rng) -> Option<(String, Counter)> {
        let truth = self.lock();
        let index = random.usize(..truth.sent.len().max(1));
        let (topic, (_, counter)) = truth.sent.iter().nth(index)?;
        Some((topic.clone(), *counter))
    }

    /// Somebody looks at a room, without what operations have given to it and with what they have taken: never more
    /// than was made and sent, never less than before, and never less than was acknowledged. So no old click comes back
    /// after a reset, and no new one is lost.
    pub(super) fn shown(&self, kind: Kind, shown: Shown) {
        let mut truth = self.lock();
        let Some(value) = shown.counted() else {
            let violation = format!("{kind:?}: less than it was given: {shown:?}");
            return truth.violations.push(violation);
        };
        let made = truth.made.get(&kind).copied().unwrap_or_default();
        let sent = sum(&truth.sent, kind);
        let acknowledged = sum(&truth.acknowledged, kind);
        let before = truth.shown.insert(kind, value).unwrap_or_default();
        for (least, most, what) in [
            (value, made, "made"),
            (value, sent, "sent"),
            (before, value, "now, and more was shown before"),
            (acknowledged, value, "now, and more was acknowledged"),
        ] {
            if least.join(most) != most {
                let violation = format!("{kind:?}: {least} is more than {most} {what}");
                truth.violations.push(violation);
            }
        }
    }

    /// An operation of this kind was made: it can be undone under this id.
    pub(super) fn operated(&self, kind: &'static str, id: u64) {
        self.lock().operations.push((kind, id));
    }

    /// The last operations.
    pub(super) fn undoable(&self) -> Vec<u64> {
        let operations = &self.lock().operations;
        operations.iter().rev().take(3).map(|(_, id)| *id).collect()
    }

    /// How many there were of a kind.
    pub(super) fn operations(&self, kind: &str) -> u64 {
        let operations = &self.lock().operations;
        operations.iter().filter(|(of, _)| *of == kind).count() as u64
    }

    /// Clicks that were made, and those of them that were never sent.
    pub(super) fn made_and_unsent(&self, kind: Kind) -> (Counter, Counter) {
        let truth = self.lock();
        let made = truth.made.get(&kind).copied().unwrap_or_default();
        (made, made.since(sum(&truth.sent, kind)))
    }

    /// Takes note of what must not be.
    pub(super) fn violated(&self, violation: String) {
        self.lock().violations.push(violation);
    }

    /// What must not have been, first things first.
    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Truth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn join(counters: &mut BTreeMap<String, (Kind, Counter)>, kind: Kind, report: &Report) {
    let (_, counter) = counters
        .entry(report.topic.clone())
        .or_insert((kind, Counter::ZERO));
    *counter = counter.join(report.counter);
}

fn sum(counters: &BTreeMap<String, (Kind, Counter)>, kind: Kind) -> Counter {
    let of_kind = counters.values().filter(|(of, _)| *of == kind);
    of_kind.fold(Counter::ZERO, |sum, (_, counter)| {
        sum.saturating_add(*counter)
    })
}
