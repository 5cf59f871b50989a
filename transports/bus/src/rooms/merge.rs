//! What is known of devices, taken out for an export and merged from one.

use core::cmp::Ordering;

use latchbus_core::clicks::{
    Clicks, Counter, DEFAULT_MAX_LIVE, FloorRecord, Full, GrowingLive, Incarnation, Zero,
};

use super::{DeviceZero, PRESS_IDS, PressIds, Rooms, full};
use crate::PublishRefused;
use crate::backup::{DeviceClicks, Ledger, RoomClicks};

/// What is to be stored and published for a device whose clicks were merged with others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// What is now known of incarnations that were lower, or not known, or not shown.
    pub(crate) raised: Vec<(Incarnation, Counter)>,
    /// Incarnations that have fallen below the floor.
    pub(crate) fallen: Vec<Incarnation>,
    /// Where it has changed.
    pub(crate) floor: Option<FloorRecord>,
    /// Where it has changed.
    pub(crate) pressed: Option<Counter>,
    /// The press ids that were not known, each with the number of those before it.
    pub(crate) press_ids: Vec<(u64, String)>,
    /// Where the hub has to count under a higher start number.
    pub(crate) start: Option<u32>,
    /// The device's zero has changed, or is shown again.
    pub(crate) zero: bool,
    /// The device was removed, and has not reported since.
    pub(crate) hidden: bool,
}

impl Rooms {
    /// Everything that is known of devices, by name.
    pub(crate) fn export(&self) -> Vec<DeviceClicks> {
        let rooms = self.rooms.iter();
        let known = rooms.flat_map(|(name, room)| room.devices.iter().map(move |one| (name, one)));
        let mut devices: Vec<_> = known
            .map(|(room, (name, device))| DeviceClicks {
                room: room.clone(),
                device: name.clone(),
                counts: Ledger::of(&device.record.counts, &device.zero.counts),
                pressed: Ledger::of(&device.record.pressed, &device.zero.pressed),
                removed: device.zero.removed,
                press_ids: device
                    .press_ids
                    .order
                    .iter()
                    .map(|id| (**id).into())
                    .collect(),
            })
            .collect();
        devices.sort_unstable_by(|a, b| (&a.room, &a.device).cmp(&(&b.room, &b.device)));
        devices
    }

    /// What operations have made of rooms, by name.
    pub(crate) fn export_resets(&self) -> Vec<RoomClicks> {
        let mut rooms: Vec<_> = (self.rooms.iter())
            .filter(|(_, room)| room.reset.stamp > 0)
            .map(|(name, room)| RoomClicks::of(name, &room.reset))
            .collect();
        rooms.sort_unstable_by(|a, b| a.room.cmp(&b.room));
        rooms
    }

    /// Takes what the later reset of a room has made of it. False when that is ours.
    pub(crate) fn merge_reset(&mut self, other: &RoomClicks) -> Result<bool, PublishRefused> {
        let limit = self.limits.rooms;
        if !self.rooms.contains_key(&other.room) && self.rooms.len() >= limit {
            return Err(full("rooms", limit));
        }
        let reset = other.to_reset();
        self.last_stamp = self.last_stamp.max(reset.stamp);
        let room = self.rooms.entry(other.room.clone()).or_default();
        if reset.stamp <= room.reset.stamp {
            return Ok(false);
        }
        room.reset = reset;
        room.recount();
        Ok(true)
    }

    /// Merges what another hub, or this one in an earlier life, knew of a device. `None` when all of it is
    /// known.
    pub(crate) fn merge(&mut self, other: &DeviceClicks) -> Result<Option<Merged>, PublishRefused> {
        let (max_live, own) = (self.limits.incarnations, self.own);
        self.last_stamp = self.last_stamp.max(other.counts.zero().stamp());
        let (_, device) = self.place(&other.room, &other.device)?;
        let (record, zero) = (&device.record, &device.zero);
        let (counts, counts_zero) = merged((&record.counts, &zero.counts), &other.counts, max_live)
            .map_err(|Full| full("incarnations of the device", max_live))?;
        let ours = (&record.pressed, &zero.pressed);
        let (pressed, pressed_zero) = merged(ours, &other.pressed, DEFAULT_MAX_LIVE)
            .map_err(|Full| full("starts of the hub", DEFAULT_MAX_LIVE))?;
        let later = other.counts.zero().stamp().cmp(&zero.counts.stamp());
        let mut undo = zero.undo.clone().filter(|_| later != Ordering::Greater);
        if let Some(undo) = &mut undo {
            undo.counts.fold_to(counts.floor_record().floor);
            undo.pressed.fold_to(pressed.floor_record().floor);
        }
        let merged_zero = DeviceZero {
            counts: counts_zero,
            pressed: pressed_zero,
            removed: match later {
                Ordering::Less => zero.removed,
                Ordering::Equal => zero.removed || other.removed,
                Ordering::Greater => other.removed,
            },
            returned: later != Ordering::Greater && zero.returned,
            undo,
        };
        let was_hidden = device.is_hidden();
        let device = &mut *device;
        let record = &mut device.record;
        let press_ids: Vec<_> = (device.press_ids.take(&other.press_ids).into_iter())
            .zip(record.press_ids..)
            .map(|(id, order)| (order, id))
            .collect();
        record.press_ids += press_ids.len() as u64;
        if counts == record.counts
            && pressed == record.pressed
            && merged_zero == device.zero
            && press_ids.is_empty()
        {
            return Ok(None);
        }
        let pressed_value = merged_zero.pressed.value_of(&pressed);
        let before = record.counts.entries().iter();
        let mut merged = Merged {
            raised: (counts.entries().iter())
                .filter(|entry| was_hidden || !record.counts.entries().contains(entry))
                .copied()
                .collect(),
            fallen: before
                .map(|(run, _)| *run)
                .filter(|run| run.boot() <= counts.floor_record().floor)
                .collect(),
            floor: Some(counts.floor_record()).filter(|new| *new != record.counts.floor_record()),
            pressed: Some(pressed_value)
                .filter(|new| *new != device.zero.pressed.value_of(&record.pressed)),
            press_ids,
            // What this start counts must lie above what others have folded, or it would be lost.
            start: Some(pressed.highest_boot().saturating_add(1))
                .filter(|new| *new > own.boot().saturating_add(1)),
            zero: was_hidden || merged_zero != device.zero,
            hidden: false,
        };
        (record.counts, record.pressed) = (counts, pressed);
        device.zero = merged_zero;
        device.zero.returned |= device.zero.removed && !device.value().is_zero();
        merged.hidden = device.is_hidden();
        if let Some(start) = merged.start {
            self.own = Incarnation::new(start, own.nonce()).unwrap_or(own);
        }
        // Nobody has clicked now: the rate stays as it is.
        if let Some(room) = self.rooms.get_mut(&other.room) {
            room.recount();
        }
        Ok(Some(merged))
    }
}

impl PressIds {
    /// Remembers those that are not known yet, the newest first, as far as they take nobody's place.
    fn take(&mut self, ids: &[String]) -> Vec<String> {
        let news: Vec<_> = (ids.iter())
            .filter(|id| !self.known.contains(id.as_str()))
            .cloned()
            .collect();
        let room = PRESS_IDS.saturating_sub(self.order.len());
        let taken = news.into_iter().rev().take(room).collect::<Vec<_>>();
        let taken: Vec<_> = taken.into_iter().rev().collect();
        for id in &taken {
            self.remember(id);
        }
        taken
    }
}

/// Both views of a device's clicks as one: the later reset's, and without one with every count at least as large as in
/// either. A join alone takes the base of the side with the larger floor; here the other side is first folded up to that
/// floor, which a hub may do since it is the one writer of its record.
fn merged(
    (known, zero): (&Clicks<GrowingLive>, &Zero<GrowingLive>),
    other: &Ledger,
    max_live: usize,
) -> Result<(Clicks<GrowingLive>, Zero<GrowingLive>), Full> {
    let (ours, theirs) = (known.floor_record().floor, other.folded().floor);
    let (mut joined, mut joined_zero) = (known.clone(), zero.clone());
    joined_zero.fold_to(&mut joined, theirs);
    let (mut other, mut other_zero) = (other.clicks(), other.zero().clone());
    other_zero.fold_to(&mut other, ours);
    joined_zero.join(&mut joined, (&other_zero, &other), max_live)?;
    joined_zero.fold(&mut joined, None);
    Ok((joined, joined_zero))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What each boot of a device has counted in truth.
    const BOOTS: u32 = 24;

    /// A view of a device's clicks: which part of each boot's count a hub has seen, in what order of boots.
    fn view() -> impl Strategy<Value = Vec<(u32, u64)>> {
        proptest::collection::vec((1..=BOOTS, 0..=10_u64), 0..30)
    }

    fn truth() -> impl Strategy<Value = Vec<u64>> {
        proptest::collection::vec(0..1_000_u64, BOOTS as usize)
    }

    fn seen(truth: &[u64], view: &[(u32, u64)]) -> Clicks<GrowingLive> {
        let mut clicks = Clicks::default();
        for (boot, tenths) in view {
            let count = truth.get(*boot as usize - 1).copied().unwrap_or_default();
            let run = Incarnation::new(*boot, 7).unwrap();
            let counter = Counter::new(count * tenths / 10, 0);
            clicks.report(run, counter, 64).unwrap();
            clicks.fold();
        }
        clicks
    }

    proptest! {
        #[test]
        fn a_merge_never_lowers_never_invents_and_comes_to_rest(
            truth in truth(), ours in view(), theirs in view(),
        ) {
            let (ours, theirs) = (seen(&truth, &ours), seen(&truth, &theirs));
            let backup = Ledger::of(&theirs, &Zero::default());
            let own = Ledger::of(&ours, &Zero::default());
            let merged = |known: &Clicks<GrowingLive>, other: &Ledger| {
                merged((known, &Zero::default()), other, 64).unwrap().0
            };
            let once = merged(&ours, &backup);
            let all: u64 = truth.iter().sum();
            prop_assert!(once.value().red() >= ours.value().red());
            prop_assert!(once.value().red() >= theirs.value().red());
            prop_assert!(once.value().red() <= all);
            prop_assert!(once.pending_fold().is_none());
            prop_assert_eq!(&merged(&once, &backup), &once);
            prop_assert_eq!(&merged(&once, &own), &once);
            prop_assert_eq!(&merged(&theirs, &own), &once);
        }
    }
}
