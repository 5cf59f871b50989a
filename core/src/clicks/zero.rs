use core::cmp::Ordering;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::counter::Counter;
use super::device::{Clicks, Entries};
use super::floor::FloorRecord;
use super::incarnation::Incarnation;
use super::live::{Full, Live};

/// Where a device's clicks count from since an operator has reset them: the count of each live incarnation at the
/// last reset. Without a reset it is empty.
///
/// A device goes on reporting what it has counted since its boot, whether it has heard of the reset or not, so the
/// reset changes no report: what an incarnation counts for is its report less its zero. So a report from before the
/// reset, whenever it comes again, counts for nothing, and a click that the hub learns of after the reset counts
/// once, also when it was made before and not yet reported. Raising the floor instead would lose the clicks of every
/// device that runs on.
///
/// A zero belongs to one [`Clicks`], which all of these methods are given. [`Self::fold`] and [`Self::join`] take the
/// place of those of `Clicks`.
///
/// # Invariants
/// Each incarnation of a zero is live in its clicks, with a count that covers its zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zero<L> {
    /// Which reset this is of: the later one has the larger stamp.
    stamp: u64,
    live: L,
}

/// What one reset has taken from a device: [`Zero::give_back`] undoes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken<L> {
    base: Counter,
    live: L,
}

impl<L: Live> Zero<L> {
    /// The stamp of the last reset, 0 without one.
    #[must_use]
    pub const fn stamp(&self) -> u64 {
        self.stamp
    }

    /// What each incarnation had reported at the last reset, ascending. Those without clicks are left out.
    #[must_use]
    pub fn entries(&self) -> &[(Incarnation, Counter)] {
        self.live.entries()
    }

    /// All clicks of the device since the last reset, saturated.
    #[must_use]
    pub fn value_of<M: Live>(&self, clicks: &Clicks<M>) -> Counter {
        self.sum(clicks.floor_record().base, clicks.entries())
    }

    /// Begins anew: from now on the device has no clicks. Returns what it has lost by that.
    ///
    /// `stamp` must be larger than that of any reset before. The live incarnations fit, since they do in `clicks`.
    pub fn reset(&mut self, clicks: &mut Clicks<L>, stamp: u64) -> Taken<L> {
        let mut taken = Taken {
            base: clicks.floor_record().base,
            live: L::default(),
        };
        let mut live = L::default();
        for (incarnation, counter) in clicks.entries() {
            push(&mut live, *incarnation, *counter);
            push(
                &mut taken.live,
                *incarnation,
                counter.since(at(self.entries(), *incarnation)),
            );
        }
        clicks.set_base(Counter::ZERO);
        *self = Self { stamp, live };
        taken
    }

    /// Undoes the last reset: what it took counts again, and so does what has come since.
    ///
    /// `stamp` must be larger than that of any reset before, so that a copy from between the two does not take it
    /// again when it is merged.
    pub fn give_back(&mut self, clicks: &mut Clicks<L>, taken: &Taken<L>, stamp: u64) {
        let mut live = L::default();
        for (incarnation, zero) in self.entries() {
            let left = zero.since(at(taken.live.entries(), *incarnation));
            push(&mut live, *incarnation, left);
        }
        clicks.set_base(clicks.floor_record().base.saturating_add(taken.base));
        *self = Self { stamp, live };
    }

    /// [`Clicks::fold`] with regard to the zero: what falls below the floor counts less its zero. So it does in
    /// `taken`, the part of it that can still be given back.
    pub fn fold(
        &mut self,
        clicks: &mut Clicks<L>,
        taken: Option<&mut Taken<L>>,
    ) -> Option<FloorRecord> {
        let fold = clicks.pending_fold()?;
        let base = self.sum(clicks.floor_record().base, fold.fallen);
        let floor = clicks.fold()?.floor;
        clicks.set_base(base);
        drop_to(&mut self.live, floor);
        if let Some(taken) = taken {
            taken.fold_to(floor);
        }
        Some(clicks.floor_record())
    }

    /// The same up to a floor that another view of the device has, where that is higher.
    pub fn fold_to(&mut self, clicks: &mut Clicks<L>, floor: u32) {
        let fallen = clicks.entries().partition_point(|(i, _)| i.boot() <= floor);
        let fallen = clicks.entries().get(..fallen).unwrap_or_default();
        let base = self.sum(clicks.floor_record().base, fallen);
        clicks.raise_floor(floor, base);
        drop_to(&mut self.live, floor);
    }

    /// [`Clicks::join`] with regard to resets: base and zero come from the side with the later reset, and where both
    /// know the same one, as there. So what an earlier view had in its base does not come back.
    ///
    /// # Errors
    /// As there; nothing changed.
    pub fn join(
        &mut self,
        clicks: &mut Clicks<L>,
        (other_zero, other): (&Self, &Clicks<L>),
        max_live: usize,
    ) -> Result<(), Full> {
        let (ours, theirs) = (clicks.floor_record(), other.floor_record());
        let base = match (self.stamp, ours.floor).cmp(&(other_zero.stamp, theirs.floor)) {
            Ordering::Less => theirs.base,
            Ordering::Equal => ours.base.join(theirs.base),
            Ordering::Greater => ours.base,
        };
        clicks.join(other, max_live)?;
        clicks.set_base(base);
        if self.stamp <= other_zero.stamp {
            let mut live = L::default();
            for (incarnation, _) in clicks.entries() {
                let mut zero = at(other_zero.entries(), *incarnation);
                if self.stamp == other_zero.stamp {
                    zero = zero.join(at(self.entries(), *incarnation));
                }
                push(&mut live, *incarnation, zero);
            }
            self.live = live;
            self.stamp = other_zero.stamp;
        }
        drop_to(&mut self.live, clicks.floor_record().floor);
        Ok(())
    }

    /// A zero of these parts, ascending. `None` when they are not.
    #[must_use]
    pub fn from_entries(stamp: u64, entries: &[(Incarnation, Counter)]) -> Option<Self> {
        let mut live = L::default();
        for (n, entry) in entries.iter().enumerate() {
            live.insert_at(n, *entry).ok()?;
        }
        let ascending = entries.is_sorted_by(|(a, _), (b, _)| a < b);
        ascending.then_some(Self { stamp, live })
    }

    fn sum(&self, base: Counter, entries: &[(Incarnation, Counter)]) -> Counter {
        entries.iter().fold(base, |sum, (incarnation, counter)| {
            sum.saturating_add(counter.since(at(self.entries(), *incarnation)))
        })
    }
}

impl<L: Live> Taken<L> {
    /// All that was taken, saturated.
    #[must_use]
    pub fn value(&self) -> Counter {
        let live = self.live.entries().iter();
        live.fold(self.base, |sum, (_, counter)| sum.saturating_add(*counter))
    }

    /// Sums up what falls below a floor, as [`Zero::fold_to`] does.
    pub fn fold_to(&mut self, floor: u32) {
        let fallen = self
            .live
            .entries()
            .iter()
            .filter(|(i, _)| i.boot() <= floor);
        self.base = fallen.fold(self.base, |sum, (_, counter)| sum.saturating_add(*counter));
        drop_to(&mut self.live, floor);
    }
}

fn at(entries: &[(Incarnation, Counter)], incarnation: Incarnation) -> Counter {
    let found = entries.binary_search_by_key(&incarnation, |(i, _)| *i);
    let entry = found.ok().and_then(|index| entries.get(index));
    entry.map_or(Counter::ZERO, |(_, counter)| *counter)
}

/// Appends what is not zero. The incarnations come in ascending order, and are of a memory of the same size.
fn push<L: Live>(live: &mut L, incarnation: Incarnation, counter: Counter) {
    if !counter.is_zero() {
        let end = live.entries().len();
        let inserted = live.insert_at(end, (incarnation, counter));
        debug_assert!(inserted.is_ok(), "it fits where it comes from");
    }
}

fn drop_to<L: Live>(live: &mut L, floor: u32) {
    let fallen = live.entries().partition_point(|(i, _)| i.boot() <= floor);
    live.remove_first(fallen);
}

impl<L: Live> Serialize for Zero<L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.stamp, self.entries()).serialize(serializer)
    }
}

impl<'de, L: Live> Deserialize<'de> for Zero<L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (stamp, Entries(live)) = Deserialize::deserialize(deserializer)?;
        Ok(Self { stamp, live })
    }
}

impl<L: Live> Serialize for Taken<L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.base, self.live.entries()).serialize(serializer)
    }
}

impl<'de, L: Live> Deserialize<'de> for Taken<L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (base, Entries(live)) = Deserialize::deserialize(deserializer)?;
        Ok(Self { base, live })
    }
}
