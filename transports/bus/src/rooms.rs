//! Everything the bus knows of clicks: rooms, their devices, and what is derived of them.

mod fullest;
mod merge;
mod reset;

use std::collections::{HashMap, HashSet, VecDeque};

use latchbus_core::clicks::{
    Clicks, Counter, DEFAULT_MAX_LIVE, FloorRecord, Full, GrowingLive, Incarnation, Outcome,
    PerSecond, Press, Rate,
};
use serde::{Deserialize, Serialize};

use self::fullest::Fullest;
pub(crate) use self::reset::{DeviceZero, MAX_STAMP, Operation, Operator, RoomReset, UNDO_MS};
use crate::{ClickLimits, PublishRefused};

/// How many press ids of a device are remembered: a press is counted once among these.
pub(crate) const PRESS_IDS: usize = 1_024;

/// All rooms. Bounds: [`ClickLimits`]; beyond them a report is refused, and nobody is evicted.
#[derive(Debug)]
pub(crate) struct Rooms {
    limits: ClickLimits,
    /// The incarnation in which this run of the hub counts presses.
    own: Incarnation,
    rooms: HashMap<String, Room>,
    /// In all rooms.
    devices: usize,
    /// Devices by room.
    room_devices: Fullest,
    /// Incarnations by device, of those that it reports itself.
    incarnations: Fullest,
    /// That of the newest operation.
    last_stamp: u64,
}

#[derive(Debug, Default)]
struct Room {
    devices: HashMap<String, Device>,
    score: Score,
    reset: RoomReset,
}

/// What is derived of a room's devices.
#[derive(Debug, Default)]
struct Score {
    value: Counter,
    rate: Rate,
    shown_rate: Option<PerSecond>,
}

impl Score {
    fn gain(&mut self, gained: Counter, now_ms: u64) {
        self.value = self.value.saturating_add(gained);
        self.rate.record(now_ms, gained);
    }
}

/// What is stored of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What the device reports itself.
    pub(crate) counts: Clicks<GrowingLive>,
    /// What the hub counts on the device's behalf, an incarnation for each start of the hub. It is a
    /// ledger of its own, because the hub's start numbers would fold the device's boots away.
    pub(crate) pressed: Clicks<GrowingLive>,
    /// How many press ids were remembered so far.
    pub(crate) press_ids: u64,
}

#[derive(Debug, Default)]
struct Device {
    record: Record,
    zero: DeviceZero,
    press_ids: PressIds,
}

/// The last [`PRESS_IDS`] ids, to be looked up and forgotten in order.
#[derive(Debug, Default)]
struct PressIds {
    order: VecDeque<Box<str>>,
    known: HashSet<Box<str>>,
}

/// What a report changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reported {
    Stale,
    /// As much was known already: this.
    Unchanged(Counter),
    Raised(Raised),
}

/// What is to be stored and published for a report that raised a counter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Raised {
    /// What is now known of the incarnation.
    pub(crate) joined: Counter,
    /// The new floor, and the incarnations that fell below it.
    pub(crate) folded: Option<(FloorRecord, Vec<Incarnation>)>,
    /// Its zero is to be shown too: it has changed, or was hidden with the device.
    pub(crate) zero: bool,
}

/// What a press changed; `None` when it had been counted before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pressed {
    /// All presses that the hub has counted for the device.
    pub(crate) value: Counter,
    /// How many ids of the device were remembered before this one's.
    pub(crate) id_order: Option<u64>,
    /// Its zero is to be shown too: it has changed, or was hidden with the device.
    pub(crate) zero: bool,
}

impl Rooms {
    pub(crate) fn new(limits: ClickLimits, own: Incarnation) -> Self {
        Self {
            limits,
            own,
            rooms: HashMap::new(),
            devices: 0,
            room_devices: Fullest::default(),
            incarnations: Fullest::default(),
            last_stamp: 0,
        }
    }

    /// Puts back what was stored, in any order.
    pub(crate) fn restore(&mut self, room: &str, device: &str, record: Record) {
        let room = self.rooms.entry(room.into()).or_default();
        let value = record.counts.value().saturating_add(record.pressed.value());
        room.score.value = room.score.value.saturating_add(value);
        let before = room.devices.len();
        let device = room.devices.entry(device.into()).or_default();
        let live = device.record.counts.entries().len();
        self.incarnations
            .change(live, record.counts.entries().len());
        device.record = record;
        let after = room.devices.len();
        self.devices += after - before;
        self.room_devices.change(before, after);
    }

    /// Puts back the remembered press ids of a device, oldest first.
    pub(crate) fn restore_press_id(&mut self, room: &str, device: &str, id: &str) {
        let device = self
            .rooms
            .get_mut(room)
            .and_then(|room| room.devices.get_mut(device));
        if let Some(device) = device {
            device.press_ids.remember(id);
        }
    }

    /// Makes sure that a room is shown, also before its first click.
    pub(crate) fn open_room(&mut self, room: &str) {
        self.rooms.entry(room.into()).or_default();
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.rooms.keys().map(String::as_str)
    }

    pub(crate) fn value(&self, room: &str) -> Counter {
        self.rooms
            .get(room)
            .map_or(Counter::ZERO, |room| room.score.value)
    }

    /// Whether the device has counted here.
    pub(crate) fn knows(&self, room: &str, device: &str) -> bool {
        self.record(room, device).is_some()
    }

    /// What is to be stored of a device.
    pub(crate) fn record(&self, room: &str, device: &str) -> Option<&Record> {
        let device = self.rooms.get(room)?.devices.get(device)?;
        Some(&device.record)
    }

    /// Rooms and devices, for metrics.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.rooms.len(), self.devices)
    }

    /// The devices of the room that has the most, and the incarnations of the device that has the most.
    pub(crate) fn fullest(&self) -> (usize, usize) {
        (self.room_devices.most(), self.incarnations.most())
    }

    pub(crate) fn report(
        &mut self,
        (room, device): (&str, &str),
        incarnation: Incarnation,
        counter: Counter,
        now_ms: u64,
    ) -> Result<Reported, PublishRefused> {
        let max_live = self.limits.incarnations;
        let (score, device) = self.place(room, device)?;
        let was_hidden = device.is_hidden();
        let Device { record, zero, .. } = device;
        let clicks = &mut record.counts;
        let before = clicks.entries().len();
        let outcome = clicks.report(incarnation, counter, max_live);
        let outcome = outcome.map_err(|Full| full("incarnations of the device", max_live))?;
        let (reported, after) = (
            match outcome {
                Outcome::Stale => Reported::Stale,
                Outcome::Unchanged => {
                    let mut live = clicks.entries().iter();
                    let known = live.find(|(run, _)| *run == incarnation);
                    let joined = known.map_or(counter, |(_, known)| *known);
                    zero.returned = zero.removed;
                    match was_hidden {
                        false => Reported::Unchanged(joined),
                        true => Reported::Raised(Raised {
                            joined,
                            folded: None,
                            zero: true,
                        }),
                    }
                }
                Outcome::Raised { joined, gained } => {
                    let fallen = clicks.pending_fold().map(|fold| {
                        let fallen = fold.fallen.iter().map(|(incarnation, _)| *incarnation);
                        fallen.collect()
                    });
                    let zeros = zero.counts.entries().len();
                    zero.fold_counts(clicks);
                    let folded = fallen.map(|fallen| (clicks.floor_record(), fallen));
                    let zero_changed = zero.counts.entries().len() != zeros;
                    score.gain(gained, now_ms);
                    zero.returned = zero.removed;
                    Reported::Raised(Raised {
                        joined,
                        folded,
                        zero: was_hidden || zero_changed,
                    })
                }
            },
            clicks.entries().len(),
        );
        self.incarnations.change(before, after);
        Ok(reported)
    }

    pub(crate) fn press(
        &mut self,
        (room, device): (&str, &str),
        press: Press<'_>,
        now_ms: u64,
    ) -> Result<Option<Pressed>, PublishRefused> {
        let own = self.own;
        let (score, device) = self.place(room, device)?;
        if press
            .id
            .is_some_and(|id| device.press_ids.known.contains(id))
        {
            return Ok(None);
        }
        let was_hidden = device.is_hidden();
        let Device { record, zero, .. } = &mut *device;
        let counted = record.pressed.entries().iter().find(|(run, _)| *run == own);
        let mut counter = counted.map_or(Counter::ZERO, |(_, counter)| *counter);
        counter.add(press.color, press.n);
        // Folding keeps this ledger far below the bound.
        let outcome = record.pressed.report(own, counter, DEFAULT_MAX_LIVE);
        let outcome = outcome.map_err(|Full| full("starts of the hub", DEFAULT_MAX_LIVE))?;
        let zeros = zero.pressed.entries().len();
        zero.fold_pressed(&mut record.pressed);
        let zero_changed = zero.pressed.entries().len() != zeros;
        zero.returned = zero.removed;
        if let Outcome::Raised { gained, .. } = outcome {
            score.gain(gained, now_ms);
        }
        let id_order = press.id.map(|id| {
            device.press_ids.remember(id);
            let order = device.record.press_ids;
            device.record.press_ids += 1;
            order
        });
        Ok(Some(Pressed {
            value: device.zero.pressed.value_of(&device.record.pressed),
            id_order,
            zero: was_hidden || zero_changed,
        }))
    }

    /// The rooms whose rate has changed since it was last asked for.
    pub(crate) fn rates(&mut self, now_ms: u64) -> Vec<(String, PerSecond)> {
        let mut changed = Vec::new();
        for (name, room) in &mut self.rooms {
            let rate = room.score.rate.per_second(now_ms);
            if room.score.shown_rate != Some(rate) {
                room.score.shown_rate = Some(rate);
                changed.push((name.clone(), rate));
            }
        }
        changed
    }

    /// The place of a device, made if there is room for it.
    fn place(
        &mut self,
        room: &str,
        device: &str,
    ) -> Result<(&mut Score, &mut Device), PublishRefused> {
        let (rooms, devices) = (self.limits.rooms, self.limits.devices);
        if !self.rooms.contains_key(room) {
            if self.rooms.len() >= rooms {
                return Err(full("rooms", rooms));
            }
            self.rooms.insert(room.into(), Room::default());
        }
        let Room {
            devices: known,
            score,
            ..
        } = self
            .rooms
            .get_mut(room)
            .ok_or_else(|| full("rooms", rooms))?;
        if !known.contains_key(device) {
            if known.len() >= devices {
                return Err(full("devices of the room", devices));
            }
            known.insert(device.into(), Device::default());
            self.devices += 1;
            self.room_devices.change(known.len() - 1, known.len());
        }
        let device = known
            .get_mut(device)
            .ok_or_else(|| full("devices of the room", devices))?;
        Ok((score, device))
    }
}

impl PressIds {
    fn remember(&mut self, id: &str) {
        if self.order.len() >= PRESS_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id.into());
        self.known.insert(id.into());
    }
}

fn full(what: &'static str, limit: usize) -> PublishRefused {
    PublishRefused::ClicksFull { what, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ClickLimits = ClickLimits {
        rooms: 2,
        devices: 2,
        incarnations: 4,
    };

    fn rooms() -> Rooms {
        Rooms::new(LIMITS, "1-00000001".parse().unwrap())
    }

    fn press(id: Option<&str>) -> Press<'_> {
        Press {
            color: latchbus_core::clicks::Color::Red,
            n: 1,
            id,
        }
    }

    #[test]
    fn presses_and_reports_of_one_device_do_not_fold_each_other() {
        let mut rooms = rooms();
        let boot = "1-0000beef".parse().unwrap();
        for start in 1..50 {
            rooms.own = Incarnation::new(start, 7).unwrap();
            rooms.press(("main", "k"), press(None), 0).unwrap().unwrap();
        }
        let raised = rooms
            .report(("main", "k"), boot, Counter::new(3, 4), 0)
            .unwrap();
        assert!(matches!(raised, Reported::Raised(_)));
        assert_eq!(rooms.value("main"), Counter::new(52, 4));
        assert_eq!(rooms.fullest(), (1, 1));
    }

    #[test]
    fn a_press_id_counts_once_among_the_last() {
        let mut rooms = rooms();
        let device = ("main", "k");
        assert!(rooms.press(device, press(Some("a")), 0).unwrap().is_some());
        assert!(rooms.press(device, press(Some("a")), 0).unwrap().is_none());
        for n in 0..PRESS_IDS {
            let id = n.to_string();
            assert!(rooms.press(device, press(Some(&id)), 0).unwrap().is_some());
        }
        assert!(rooms.press(device, press(Some("a")), 0).unwrap().is_some());
        assert_eq!(rooms.value("main"), Counter::new(PRESS_IDS as u64 + 2, 0));
    }

    #[test]
    fn bounds_refuse_what_is_new_and_evict_nobody() {
        let mut rooms = rooms();
        for (room, device) in [("a", "x"), ("a", "y"), ("b", "x")] {
            rooms.press((room, device), press(None), 0).unwrap();
        }
        for (room, device) in [("a", "z"), ("c", "x")] {
            let refused = rooms.press((room, device), press(None), 0);
            assert!(matches!(
                refused,
                Err(PublishRefused::ClicksFull { limit: 2, .. })
            ));
        }
        assert_eq!(rooms.sizes(), (2, 3));
        assert_eq!(rooms.fullest(), (2, 0));
        assert_eq!(rooms.value("a"), Counter::new(2, 0));
        assert_eq!(rooms.value("b"), Counter::new(1, 0));
    }

    #[test]
    fn what_was_stored_comes_back() {
        let mut before = rooms();
        let device = ("main", "k");
        before.press(device, press(Some("a")), 0).unwrap();
        before
            .report(device, "3-00000003".parse().unwrap(), Counter::new(0, 5), 0)
            .unwrap();

        let mut after = Rooms::new(LIMITS, "2-00000002".parse().unwrap());
        after.restore("main", "k", before.record("main", "k").unwrap().clone());
        after.restore_press_id("main", "k", "a");
        assert_eq!(after.value("main"), Counter::new(1, 5));
        assert_eq!((after.sizes(), after.fullest()), ((1, 1), (1, 1)));
        assert!(after.press(device, press(Some("a")), 0).unwrap().is_none());
        after.press(device, press(None), 0).unwrap();
        assert_eq!(after.value("main"), Counter::new(2, 5));
    }
}
