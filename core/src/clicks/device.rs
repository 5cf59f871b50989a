use core::fmt;
use core::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::counter::Counter;
use super::floor::FloorRecord;
use super::incarnation::Incarnation;
use super::live::{Full, Live};

/// How many live incarnations a device may have unless a setting says otherwise.
pub const DEFAULT_MAX_LIVE: usize = 64;

/// How many boots up to the highest stay live when the hub folds.
pub const FOLD_WINDOW_BOOTS: u32 = 8;

/// All that is known of one device's clicks.
///
/// Every incarnation above the floor has a counter of its own; what was folded is summed in the
/// base. The memory is `L`: see [`Live`].
///
/// Merging and folding are separate on purpose. [`Self::report`] and [`Self::join`] may run
/// anywhere, in any order, any number of times. [`Self::fold`] is a step of the one writer, because
/// two folds of different views of a device cannot be merged: the sums that they leave no longer
/// tell which clicks both contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clicks<L> {
    floor: u32,
    base: Counter,
    live: L,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The boot is at or below the floor, thus already folded. Nothing changed.
    Stale,
    /// No count was above what was known.
    Unchanged,
    /// A new incarnation, or one with more clicks than were known.
    Raised {
        /// What is now known of the incarnation.
        joined: Counter,
        /// The clicks that were news.
        gained: Counter,
    },
}

/// What [`Clicks::fold`] would do, for the caller that makes it part of one durable step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold<'a> {
    /// The floor and base after the fold: the floor topic's next payload.
    pub record: FloorRecord,
    /// The incarnations that fall, ascending. Their count topics are to be cleared.
    pub fallen: &'a [(Incarnation, Counter)],
}

impl<L: Live> Clicks<L> {
    /// All clicks of the device, saturated.
    #[must_use]
    pub fn value(&self) -> Counter {
        self.entries()
            .iter()
            .fold(self.base, |sum, (_, counter)| sum.saturating_add(*counter))
    }

    /// The live incarnations and their counters, ascending.
    #[must_use]
    pub fn entries(&self) -> &[(Incarnation, Counter)] {
        self.live.entries()
    }

    /// The floor and base as the floor topic carries them.
    #[must_use]
    pub const fn floor_record(&self) -> FloorRecord {
        FloorRecord {
            floor: self.floor,
            base: self.base,
        }
    }

    /// The highest boot that was ever reported, 0 without reports. A device without storage takes
    /// the next one.
    #[must_use]
    pub fn highest_boot(&self) -> u32 {
        let live = self.entries().last().map(|(newest, _)| newest.boot());
        live.unwrap_or(self.floor)
    }

    /// Merges one report of one incarnation. At most `max_live` incarnations, and no more than the
    /// memory holds, are live at a time.
    ///
    /// # Errors
    /// [`Full`] when a new incarnation has no room; nothing changed.
    pub fn report(
        &mut self,
        incarnation: Incarnation,
        counter: Counter,
        max_live: usize,
    ) -> Result<Outcome, Full> {
        if incarnation.boot() <= self.floor {
            return Ok(Outcome::Stale);
        }
        let known = self.merge(incarnation, counter, max_live)?;
        let joined = known.unwrap_or_default().join(counter);
        if known == Some(joined) {
            return Ok(Outcome::Unchanged);
        }
        Ok(Outcome::Raised {
            joined,
            gained: joined.since(known.unwrap_or_default()),
        })
    }

    /// Merges another view of the same device into this one. Never folds.
    ///
    /// Floor and base come from the side with the larger floor (equal floors: the larger base of
    /// each colour). Every incarnation above that floor is kept, with the larger count where both
    /// sides know it.
    ///
    /// # Errors
    /// [`Full`] when more than `max_live` incarnations, or more than the memory holds, would be
    /// live, unless `other` adds none; nothing changed.
    pub fn join<M: Live>(&mut self, other: &Clicks<M>, max_live: usize) -> Result<(), Full> {
        let floor = self.floor.max(other.floor);
        let kept = self.entries().iter().filter(|(i, _)| i.boot() > floor);
        let added = other
            .entries()
            .iter()
            .filter(|(i, _)| i.boot() > floor && self.position(*i).is_err());
        let (kept, added) = (kept.count(), added.count());
        if added > 0 && kept + added > max_live.min(L::CAPACITY) {
            return Err(Full);
        }

        if other.floor > self.floor {
            self.base = other.base;
        } else if other.floor == self.floor {
            self.base = self.base.join(other.base);
        }
        self.floor = floor;
        self.live.remove_first(self.entries().len() - kept);
        for (incarnation, counter) in other.entries() {
            if incarnation.boot() > floor {
                self.merge(*incarnation, *counter, max_live)?;
            }
        }
        Ok(())
    }

    /// What is to be folded: every incarnation more than [`FOLD_WINDOW_BOOTS`] boots behind the
    /// highest. `None` when there is none.
    #[must_use]
    pub fn pending_fold(&self) -> Option<Fold<'_>> {
        let floor = self.highest_boot().saturating_sub(FOLD_WINDOW_BOOTS);
        let count = self.entries().partition_point(|(i, _)| i.boot() <= floor);
        let fallen = self.entries().get(..count)?;
        if fallen.is_empty() {
            return None;
        }
        let base = fallen
            .iter()
            .fold(self.base, |sum, (_, counter)| sum.saturating_add(*counter));
        Some(Fold {
            record: FloorRecord { floor, base },
            fallen,
        })
    }

    /// Raises the floor and moves what falls below it into the base, so that memory stays bounded.
    /// Returns the new floor and base, or `None` when nothing was to be folded.
    ///
    /// The value stays the same. Only the device's one writer may do this, in one durable step with
    /// clearing the count topics of [`Fold::fallen`] and publishing [`Fold::record`]: see
    /// [`Self::pending_fold`]. A writer that learns the counts from retained topics folds only once it
    /// has read them all: those that fall and come after the fold are stale, and their clicks lost.
    pub fn fold(&mut self) -> Option<FloorRecord> {
        let Fold { record, fallen } = self.pending_fold()?;
        let count = fallen.len();
        self.floor = record.floor;
        self.base = record.base;
        self.live.remove_first(count);
        Some(record)
    }

    /// For [`Zero`](super::zero::Zero), which says what the base is since a reset.
    pub(super) const fn set_base(&mut self, base: Counter) {
        self.base = base;
    }

    /// Drops what is at or below a higher floor, whose sum is this base.
    pub(super) fn raise_floor(&mut self, floor: u32, base: Counter) {
        let fallen = self.entries().partition_point(|(i, _)| i.boot() <= floor);
        self.live.remove_first(fallen);
        self.floor = self.floor.max(floor);
        self.base = base;
    }

    /// Raises one counter and returns what was known of it. The boot must be above the floor.
    fn merge(
        &mut self,
        incarnation: Incarnation,
        counter: Counter,
        max_live: usize,
    ) -> Result<Option<Counter>, Full> {
        match self.position(incarnation) {
            Ok(index) => Ok(self.live.entries_mut().get_mut(index).map(|(_, known)| {
                let before = *known;
                *known = before.join(counter);
                before
            })),
            Err(index) => {
                if self.entries().len() >= max_live.min(L::CAPACITY) {
                    return Err(Full);
                }
                self.live.insert_at(index, (incarnation, counter))?;
                Ok(None)
            }
        }
    }

    fn position(&self, incarnation: Incarnation) -> Result<usize, usize> {
        self.entries()
            .binary_search_by_key(&incarnation, |(i, _)| *i)
    }
}

impl<L: Live> From<FloorRecord> for Clicks<L> {
    /// What a retained floor tells of a device: the folded part, nothing live.
    fn from(record: FloorRecord) -> Self {
        Self {
            floor: record.floor,
            base: record.base,
            live: L::default(),
        }
    }
}

impl<L: Live> Serialize for Clicks<L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.floor, self.base, self.entries()).serialize(serializer)
    }
}

impl<'de, L: Live> Deserialize<'de> for Clicks<L> {
    /// Refuses what no sequence of reports leaves: entries out of order or at or below the floor.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (floor, base, Entries(live)) = Deserialize::deserialize(deserializer)?;
        let clicks = Self { floor, base, live };
        if clicks.entries().iter().any(|(i, _)| i.boot() <= floor) {
            return Err(D::Error::custom("live incarnation at or below the floor"));
        }
        Ok(clicks)
    }
}

pub(super) struct Entries<L>(pub(super) L);

impl<'de, L: Live> Deserialize<'de> for Entries<L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<L>(PhantomData<L>);

impl<'de, L: Live> Visitor<'de> for EntriesVisitor<L> {
    type Value = Entries<L>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("incarnations in ascending order with their counters")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries<L>, A::Error> {
        let mut live = L::default();
        while let Some(entry) = seq.next_element::<(Incarnation, Counter)>()? {
            let count = live.entries().len();
            if live.entries().last().is_some_and(|(i, _)| *i >= entry.0) {
                return Err(A::Error::custom("incarnations out of order"));
            }
            live.insert_at(count, entry).map_err(A::Error::custom)?;
        }
        Ok(Entries(live))
    }
}

#[cfg(test)]
mod tests {
    use super::super::counter::MAX_COUNT;
    use super::super::live::FixedLive;
    use super::*;

    type Small = Clicks<FixedLive<4>>;

    fn run(boot: u32, nonce: u32) -> Incarnation {
        Incarnation::new(boot, nonce).unwrap()
    }

    fn with(reports: &[(u32, u32, u64)]) -> Small {
        let mut clicks = Small::default();
        for (boot, nonce, red) in reports {
            let report = clicks.report(run(*boot, *nonce), Counter::new(*red, 0), 4);
            assert!(matches!(report, Ok(Outcome::Raised { .. })));
        }
        clicks
    }

    #[test]
    fn reports_only_raise() {
        let mut clicks = Small::default();
        let mut report = |red, blue| clicks.report(run(1, 7), Counter::new(red, blue), 4);
        let raised = |joined, gained| Ok(Outcome::Raised { joined, gained });
        assert_eq!(report(0, 0), raised(Counter::ZERO, Counter::ZERO));
        assert_eq!(report(3, 1), raised(Counter::new(3, 1), Counter::new(3, 1)));
        assert_eq!(report(3, 1), Ok(Outcome::Unchanged));
        assert_eq!(report(2, 0), Ok(Outcome::Unchanged));
        assert_eq!(report(2, 4), raised(Counter::new(3, 4), Counter::new(0, 3)));
        assert_eq!(clicks.value(), Counter::new(3, 4));
    }

    #[test]
    fn clones_and_reboots_are_counted_apart() {
        let clicks = with(&[(2, 1, 5), (1, 9, 3), (2, 0, 1)]);
        assert_eq!(clicks.value().red(), 9);
        assert_eq!(clicks.highest_boot(), 2);
        assert!(clicks.entries().is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn full_refuses_only_what_is_new() {
        let mut clicks = with(&[(1, 0, 1), (1, 1, 1), (1, 2, 1), (1, 3, 1)]);
        let before = clicks.clone();
        assert_eq!(clicks.report(run(1, 4), Counter::new(9, 9), 64), Err(Full));
        assert_eq!(clicks, before);
        assert!(clicks.report(run(1, 3), Counter::new(9, 9), 2).is_ok());

        let mut fewer = with(&[(1, 0, 1), (1, 1, 1)]);
        assert_eq!(fewer.report(run(1, 2), Counter::ZERO, 2), Err(Full));
    }

    #[test]
    fn a_join_beyond_the_bound_changes_nothing() {
        let mut ours = with(&[(1, 0, 1), (1, 1, 1), (2, 0, 1)]);
        let before = ours.clone();
        let theirs = with(&[(1, 0, 9), (3, 0, 1), (4, 0, 1)]);
        assert_eq!(ours.join(&theirs, 64), Err(Full));
        assert_eq!(ours, before);
        let known = with(&[(1, 0, 9)]);
        assert_eq!(ours.join(&known, 1), Ok(()));
        assert_eq!(ours.value().red(), 11);
    }

    #[test]
    fn a_fold_keeps_the_value_and_makes_older_reports_stale() {
        let mut clicks = with(&[(1, 0, 10), (1, 1, 20), (2, 0, 5)]);
        assert_eq!(clicks.pending_fold(), None);
        assert_eq!(clicks.fold(), None);
        clicks.report(run(9, 0), Counter::new(1, 1), 4).unwrap();
        let record = FloorRecord {
            floor: 1,
            base: Counter::new(30, 0),
        };
        let pending = clicks.pending_fold().unwrap();
        assert_eq!(pending.record, record);
        assert_eq!(
            pending.fallen,
            &[
                (run(1, 0), Counter::new(10, 0)),
                (run(1, 1), Counter::new(20, 0))
            ]
        );
        assert_eq!(clicks.fold(), Some(record));
        assert_eq!(clicks.floor_record(), record);
        assert_eq!(clicks.value(), Counter::new(36, 1));
        assert_eq!(
            clicks.report(run(1, 0), Counter::new(99, 0), 4),
            Ok(Outcome::Stale)
        );
        assert_eq!(
            clicks.report(run(1, 5), Counter::new(99, 0), 4),
            Ok(Outcome::Stale)
        );
        assert_eq!(clicks.fold(), None);
    }

    #[test]
    fn the_larger_floor_brings_its_base() {
        let mut folded = with(&[(1, 0, 10), (2, 0, 5), (9, 0, 1)]);
        let view = folded.clone();
        folded.fold().unwrap();
        let mut late = view.clone();
        late.join(&folded, 4).unwrap();
        assert_eq!(late, folded);
        folded.join(&view, 4).unwrap();
        assert_eq!(late, folded);

        let mut fresh = Small::from(folded.floor_record());
        assert_eq!((fresh.value().red(), fresh.highest_boot()), (10, 1));
        fresh.join(&view, 4).unwrap();
        assert_eq!(fresh, folded);
    }

    #[test]
    fn the_value_saturates() {
        let clicks = with(&[(1, 0, MAX_COUNT), (2, 0, 1)]);
        assert_eq!(clicks.value().red(), MAX_COUNT);
    }

    #[test]
    fn the_stored_form_is_fixed_and_checked() {
        let mut clicks = with(&[(1, 7, 10), (2, 0, 5), (9, 300, 1)]);
        clicks.fold().unwrap();
        let mut buffer = [0; 64];
        let stored = postcard::to_slice(&clicks, &mut buffer).unwrap();
        // floor, base, number of entries, then boot, nonce, red, blue of each.
        assert_eq!(stored, [1, 10, 0, 2, 2, 0, 5, 0, 9, 0xac, 2, 1, 0]);
        assert_eq!(postcard::from_bytes(stored), Ok(clicks));

        let refused = |bytes: &[u8]| postcard::from_bytes::<Small>(bytes).is_err();
        assert!(refused(&[1, 10, 0, 1, 1, 0, 5, 0]), "boot at the floor");
        assert!(
            refused(&[0, 0, 0, 2, 2, 0, 5, 0, 1, 0, 1, 0]),
            "out of order"
        );
        assert!(refused(&[0, 0, 0, 2, 2, 0, 5, 0, 2, 0, 1, 0]), "twice");
        assert!(refused(&[0, 0, 0, 1, 0, 0, 5, 0]), "boot 0");
        let five = [
            0, 0, 0, 5, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0,
        ];
        assert!(refused(&five), "more than the memory holds");
    }
}
