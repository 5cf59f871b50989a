//! What is known of devices, taken out for an export and merged from one.

use latchbus_core::clicks::{
    Clicks, Counter, DEFAULT_MAX_LIVE, FloorRecord, Full, GrowingLive, Incarnation,
};

use super::{PRESS_IDS, PressIds, Rooms, full};
use crate::PublishRefused;
use crate::backup::{DeviceClicks, Ledger};

/// What is to be stored and published for a device whose clicks were merged with others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// What is now known of incarnations that were lower, or not known.
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
                counts: Ledger::from(&device.record.counts),
                pressed: Ledger::from(&device.record.pressed),
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

    /// Merges what another hub, or this one in an earlier life, knew of a device. `None` when all of it is
    /// known.
    pub(crate) fn merge(&mut self, other: &DeviceClicks) -> Result<Option<Merged>, PublishRefused> {
        let (max_live, own) = (self.limits.incarnations, self.own);
        let (score, device) = self.place(&other.room, &other.device)?;
        let record = &mut device.record;
        let counts = merged(&record.counts, &other.counts, max_live)
            .map_err(|Full| full("incarnations of the device", max_live))?;
        let pressed = merged(&record.pressed, &other.pressed, DEFAULT_MAX_LIVE)
            .map_err(|Full| full("starts of the hub", DEFAULT_MAX_LIVE))?;
        let press_ids: Vec<_> = (device.press_ids.take(&other.press_ids).into_iter())
            .zip(record.press_ids..)
            .map(|(id, order)| (order, id))
            .collect();
        record.press_ids += press_ids.len() as u64;
        if counts == record.counts && pressed == record.pressed && press_ids.is_empty() {
            return Ok(None);
        }
        // Nobody has clicked now: the rate stays as it is.
        for (before, after) in [(&record.counts, &counts), (&record.pressed, &pressed)] {
            let gained = after.value().since(before.value());
            score.value = score.value.saturating_add(gained);
        }
        let before = record.counts.entries().iter();
        let merged = Merged {
            raised: (counts.entries().iter())
                .filter(|entry| !record.counts.entries().contains(entry))
                .copied()
                .collect(),
            fallen: before
                .map(|(run, _)| *run)
                .filter(|run| run.boot() <= counts.floor_record().floor)
                .collect(),
            floor: Some(counts.floor_record()).filter(|new| *new != record.counts.floor_record()),
            pressed: Some(pressed.value()).filter(|new| *new != record.pressed.value()),
            press_ids,
            // What this start counts must lie above what others have folded, or it would be lost.
            start: Some(pressed.highest_boot().saturating_add(1))
                .filter(|new| *new > own.boot().saturating_add(1)),
        };
        (record.counts, record.pressed) = (counts, pressed);
        if let Some(start) = merged.start {
            self.own = Incarnation::new(start, own.nonce()).unwrap_or(own);
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

/// Both views of a device's clicks as one, with every count at least as large as in either. A join alone
/// takes the base of the side with the larger floor; here the other side is first folded up to that floor,
/// which a hub may do since it is the one writer of its record.
fn merged(
    known: &Clicks<GrowingLive>,
    other: &Ledger,
    max_live: usize,
) -> Result<Clicks<GrowingLive>, Full> {
    let (ours, theirs) = (known.floor_record().floor, other.folded().floor);
    let mut joined = Ledger::from(known).folded_to(theirs);
    joined.join(&other.folded_to(ours), max_live)?;
    joined.fold();
    Ok(joined)
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
            let backup = Ledger::from(&theirs);
            let once = merged(&ours, &backup, 64).unwrap();
            let all: u64 = truth.iter().sum();
            prop_assert!(once.value().red() >= ours.value().red());
            prop_assert!(once.value().red() >= theirs.value().red());
            prop_assert!(once.value().red() <= all);
            prop_assert!(once.pending_fold().is_none());
            prop_assert_eq!(&merged(&once, &backup, 64).unwrap(), &once);
            prop_assert_eq!(&merged(&once, &Ledger::from(&ours), 64).unwrap(), &once);
            prop_assert_eq!(&merged(&theirs, &Ledger::from(&ours), 64).unwrap(), &once);
        }
    }
}
