//! The operator's hand: rooms that begin anew, devices that are removed, and both undone. The law is
//! [`Zero`]'s; here it is applied to a room and all its devices, with what is stored and shown of it.

use core::fmt::{self, Display};

use latchbus_core::clicks::{Clicks, Counter, GrowingLive, Taken, Zero};
use serde::{Deserialize, Serialize};

use super::{Device, Record, Room, Rooms};
use crate::frames::json::quoted;
use crate::operate::OperationError;

/// For how long an operation can be undone, in milliseconds.
pub(crate) const UNDO_MS: u64 = 60_000;

/// Ids of operations, which are stamps too, stay below this: every JSON reader has to tell them apart.
pub(crate) const MAX_STAMP: u64 = (1 << 53) - 1;

/// What is stored of a device that an operation has touched, beside its [`Record`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceZero {
    pub(crate) counts: Zero<GrowingLive>,
    pub(crate) pressed: Zero<GrowingLive>,
    /// The last operation has removed it: it is not listed until it has a click again.
    pub(crate) removed: bool,
    /// It has reported since, and its topics are there again.
    pub(crate) returned: bool,
    /// What the last operation has taken, as long as that may be undone.
    pub(crate) undo: Option<DeviceUndo>,
}

/// How the last operation on a device is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceUndo {
    pub(crate) counts: Taken<GrowingLive>,
    pub(crate) pressed: Taken<GrowingLive>,
    /// What it was before.
    removed: (bool, bool),
    /// What its status was, where it was removed.
    status: Option<String>,
    /// By [`Clock::deadline_ms`](crate::Clock::deadline_ms).
    until: u64,
}

/// What is stored of a room that an operation has touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomReset {
    /// That of the last reset, or of its undoing.
    pub(crate) stamp: u64,
    /// That of the last operation of any kind.
    pub(crate) newest: u64,
    /// What the room begins with: it belongs to no device.
    pub(crate) given: Counter,
    /// All clicks that operations have taken from the room and not given back.
    pub(crate) taken: Counter,
    pub(crate) last: Option<LastReset>,
    pub(crate) undo: Option<RoomUndo>,
}

/// The last reset of a room, as its topic shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastReset {
    pub(crate) id: u64,
    /// In Unix milliseconds.
    pub(crate) at: u64,
    /// Who it was.
    pub(crate) by: String,
    pub(crate) from: Counter,
    pub(crate) to: Counter,
    pub(crate) undone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomUndo {
    given: Counter,
    taken: Counter,
    until: u64,
}

/// When an operation is made, and by whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operator<'a> {
    pub(crate) name: &'a str,
    /// In Unix milliseconds.
    pub(crate) at: u64,
    /// By [`Clock::deadline_ms`](crate::Clock::deadline_ms).
    pub(crate) deadline_now: u64,
}

/// What an operation has changed, and what is to be shown of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) id: u64,
    pub(crate) room: String,
    /// The device that was removed, or is there again.
    pub(crate) device: Option<String>,
    /// The room's clicks, or the device's.
    pub(crate) from: Counter,
    pub(crate) to: Counter,
    /// Whose records have changed.
    pub(crate) devices: Vec<String>,
    /// The status that the device had.
    pub(crate) status: Option<String>,
}

impl DeviceZero {
    /// All clicks of the device since the last operation.
    pub(super) fn value_of(&self, record: &Record) -> Counter {
        let counts = self.counts.value_of(&record.counts);
        counts.saturating_add(self.pressed.value_of(&record.pressed))
    }

    /// Whether there is something to show of it.
    pub(crate) fn is_said(&self) -> bool {
        self.removed || !self.counts.entries().is_empty()
    }

    /// Folds what the device reports itself: see [`Zero::fold`].
    pub(super) fn fold_counts(&mut self, counts: &mut Clicks<GrowingLive>) {
        let taken = self.undo.as_mut().map(|undo| &mut undo.counts);
        self.counts.fold(counts, taken);
    }

    /// And what the hub counts on its behalf.
    pub(super) fn fold_pressed(&mut self, pressed: &mut Clicks<GrowingLive>) {
        let taken = self.undo.as_mut().map(|undo| &mut undo.pressed);
        self.pressed.fold(pressed, taken);
    }
}

impl Device {
    /// All its clicks.
    pub(super) fn value(&self) -> Counter {
        self.zero.value_of(&self.record)
    }

    /// Removed, and it has not reported since.
    pub(super) const fn is_hidden(&self) -> bool {
        self.zero.removed && !self.zero.returned
    }

    fn reset(&mut self, stamp: u64, deadline_now: u64) -> &mut DeviceUndo {
        let zero = &mut self.zero;
        zero.undo.insert(DeviceUndo {
            counts: zero.counts.reset(&mut self.record.counts, stamp),
            pressed: zero.pressed.reset(&mut self.record.pressed, stamp),
            removed: (zero.removed, zero.returned),
            status: None,
            until: deadline_now.saturating_add(UNDO_MS),
        })
    }

    fn give_back(&mut self, undo: &DeviceUndo, stamp: u64) {
        let (record, zero) = (&mut self.record, &mut self.zero);
        zero.counts
            .give_back(&mut record.counts, &undo.counts, stamp);
        zero.pressed
            .give_back(&mut record.pressed, &undo.pressed, stamp);
        (zero.removed, zero.returned) = undo.removed;
        zero.undo = None;
    }
}

impl Room {
    /// What it shows: what it was given, and all clicks of its devices.
    pub(super) fn recount(&mut self) {
        self.score.value = self.reset.given.saturating_add(self.clicked());
    }

    fn clicked(&self) -> Counter {
        let devices = self.devices.values();
        devices.fold(Counter::ZERO, |sum, device| {
            sum.saturating_add(device.value())
        })
    }
}

impl Rooms {
    /// Puts back what operations have left of a device, once its record is there.
    pub(crate) fn restore_zero(&mut self, room: &str, device: &str, zero: DeviceZero) {
        self.last_stamp = self.last_stamp.max(zero.counts.stamp());
        let device = (self.rooms.get_mut(room)).and_then(|room| room.devices.get_mut(device));
        if let Some(device) = device {
            device.zero = zero;
        }
    }

    /// And of a room.
    pub(crate) fn restore_reset(&mut self, room: &str, reset: RoomReset) {
        self.last_stamp = self.last_stamp.max(reset.newest);
        self.rooms.entry(room.into()).or_default().reset = reset;
    }

    /// Counts each room again, once all is put back.
    pub(crate) fn recount(&mut self) {
        self.rooms.values_mut().for_each(Room::recount);
    }

    /// Whether the device was removed and has not reported since.
    pub(crate) fn is_hidden(&self, room: &str, device: &str) -> bool {
        let device = (self.rooms.get(room)).and_then(|room| room.devices.get(device));
        device.is_some_and(Device::is_hidden)
    }

    /// The stamp of the operation that has hidden the device: Unix milliseconds, or a little more.
    pub(crate) fn hidden_since(&self, room: &str, device: &str) -> Option<u64> {
        let zero = self.zero(room, device)?;
        self.is_hidden(room, device).then(|| zero.counts.stamp())
    }

    pub(crate) fn zero(&self, room: &str, device: &str) -> Option<&DeviceZero> {
        Some(&self.rooms.get(room)?.devices.get(device)?.zero)
    }

    pub(crate) fn last_reset(&self, room: &str) -> Option<&RoomReset> {
        let reset = &self.rooms.get(room)?.reset;
        (reset.newest > 0).then_some(reset)
    }

    /// Lets a room begin anew, with these counts.
    pub(crate) fn reset_room(
        &mut self,
        name: &str,
        given: Counter,
        by: Operator<'_>,
    ) -> Result<Operation, OperationError> {
        let id = self.next_stamp(by.at);
        let room = self
            .rooms
            .get_mut(name)
            .ok_or(OperationError::UnknownRoom)?;
        let (from, clicked) = (room.score.value, room.clicked());
        for device in room.devices.values_mut() {
            device.reset(id, by.deadline_now);
        }
        let until = by.deadline_now.saturating_add(UNDO_MS);
        let last = LastReset {
            id,
            at: by.at,
            by: by.name.to_owned(),
            from,
            to: given,
            undone: false,
        };
        room.reset = RoomReset {
            stamp: id,
            newest: id,
            given,
            taken: room.reset.taken.saturating_add(clicked),
            last: Some(last),
            undo: Some(RoomUndo {
                given: room.reset.given,
                taken: clicked,
                until,
            }),
        };
        room.score.rate = latchbus_core::clicks::Rate::default();
        room.recount();
        Ok(Operation {
            id,
            room: name.to_owned(),
            device: None,
            from,
            to: given,
            devices: sorted(room.devices.keys().cloned().collect()),
            status: None,
        })
    }

    /// Removes a device with its clicks. It is shown again with the first click that it has more.
    pub(crate) fn remove_device(
        &mut self,
        (room_name, name): (&str, &str),
        status: Option<String>,
        by: Operator<'_>,
    ) -> Result<Operation, OperationError> {
        let id = self.next_stamp(by.at);
        let room = (self.rooms.get_mut(room_name)).ok_or(OperationError::UnknownRoom)?;
        let device = (room.devices.get_mut(name))
            .filter(|device| !device.is_hidden())
            .ok_or(OperationError::UnknownDevice)?;
        let from = device.value();
        device.reset(id, by.deadline_now).status = status;
        (device.zero.removed, device.zero.returned) = (true, false);
        room.reset.taken = room.reset.taken.saturating_add(from);
        room.reset.newest = id;
        room.recount();
        Ok(Operation {
            id,
            room: room_name.to_owned(),
            device: Some(name.to_owned()),
            from,
            to: Counter::ZERO,
            devices: vec![name.to_owned()],
            status: None,
        })
    }

    /// Undoes an operation, unless a later one has taken its place.
    pub(crate) fn undo(&mut self, id: u64, by: Operator<'_>) -> Result<Operation, OperationError> {
        let stamp = self.next_stamp(by.at);
        for (name, room) in &mut self.rooms {
            if room.reset.stamp == id && room.reset.undo.is_some() {
                return room.undo_reset((name, id), stamp, by);
            }
            let removed = (room.devices.iter_mut())
                .find(|(_, device)| device.zero.counts.stamp() == id)
                .filter(|_| room.reset.stamp != id);
            let Some((of, device)) = removed else {
                continue;
            };
            let undo = device.zero.undo.as_ref();
            let undo = undo.cloned().ok_or(OperationError::UnknownOperation)?;
            if by.deadline_now >= undo.until {
                return Err(OperationError::TooLate);
            }
            let from = device.value();
            device.give_back(&undo, stamp);
            let operation = Operation {
                id: stamp,
                room: name.clone(),
                device: Some(of.clone()),
                from,
                to: device.value(),
                devices: vec![of.clone()],
                status: undo.status,
            };
            let back = (undo.counts.value()).saturating_add(undo.pressed.value());
            room.reset.taken = room.reset.taken.since(back);
            room.reset.newest = stamp;
            room.recount();
            return Ok(operation);
        }
        Err(OperationError::UnknownOperation)
    }

    /// Operations have ids in their order, also when the clock does not go on.
    fn next_stamp(&mut self, at: u64) -> u64 {
        self.last_stamp = at.max(self.last_stamp + 1).min(MAX_STAMP);
        self.last_stamp
    }
}

impl Room {
    fn undo_reset(
        &mut self,
        (name, id): (&str, u64),
        stamp: u64,
        by: Operator<'_>,
    ) -> Result<Operation, OperationError> {
        let undo = (self.reset.undo.clone()).ok_or(OperationError::UnknownOperation)?;
        let mut devices = self.devices.values();
        if devices.any(|device| device.zero.counts.stamp() > id) {
            return Err(OperationError::UnknownOperation);
        }
        if by.deadline_now >= undo.until {
            return Err(OperationError::TooLate);
        }
        let from = self.score.value;
        let mut changed = Vec::new();
        for (name, device) in &mut self.devices {
            let of_this = device.zero.counts.stamp() == id;
            if of_this && let Some(undo) = device.zero.undo.take() {
                device.give_back(&undo, stamp);
                changed.push(name.clone());
            }
        }
        let last = self.reset.last.take();
        self.reset = RoomReset {
            stamp,
            newest: stamp,
            given: undo.given,
            taken: self.reset.taken.since(undo.taken),
            last: last.map(|last| LastReset {
                undone: true,
                ..last
            }),
            undo: None,
        };
        self.recount();
        Ok(Operation {
            id: stamp,
            room: name.to_owned(),
            device: None,
            from,
            to: self.score.value,
            devices: sorted(changed),
            status: None,
        })
    }
}

/// Their topics get the same revisions each time.
fn sorted(mut devices: Vec<String>) -> Vec<String> {
    devices.sort_unstable();
    devices
}

/// What `clicks/<room>/reset` shows, as JSON.
impl Display for RoomReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        if let Some(last) = &self.last {
            let LastReset {
                id,
                at,
                by,
                from,
                to,
                undone,
            } = last;
            let by = quoted(by);
            write!(
                f,
                r#""id":"{id}","at":{at},"by":{by},"from":{from},"to":{to},"undone":{undone},"#
            )?;
        }
        let Self { given, taken, .. } = self;
        write!(f, r#""given":{given},"taken":{taken}}}"#)
    }
}

/// What `clicks/<room>/<device>/zero` shows, as JSON: the count from which each of its incarnations counts, and whether
/// it was removed.
impl Display for DeviceZero {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let removed = self.removed;
        write!(f, r#"{{"removed":{removed},"counts":{{"#)?;
        for (n, (incarnation, counter)) in self.counts.entries().iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, r#"{comma}"{incarnation}":{counter}"#)?;
        }
        f.write_str("}}")
    }
}
