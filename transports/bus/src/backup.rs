//! What a bus keeps, record by record: for backups, and to move it to another machine.
//!
//! [`Client::export`](crate::Client::export) takes a snapshot; [`Client::import`](crate::Client::import) merges
//! one record into what a bus knows. Merging takes nothing away but what was reset, and merging the same record again
//! changes nothing:
//!
//! - A [`Kept`] value takes the place of the topic's own when it is newer (`at`). Values as old as the newest
//!   one are added if they are not there yet, as a topic with a history has them; older ones are left out.
//! - Of [`DeviceClicks`] the larger counts stay. Where the two sides have folded different boots, the lower one
//!   is folded up to the other's floor first, so that no count falls. What two hubs have each folded can't be
//!   told apart any more: the larger sum stays, and nothing is counted twice.
//! - Of a device or a room that an administrator has reset (see [`Operate`](crate::Operate)) the later reset counts:
//!   what an export from before it holds does not come back. Such a record may take clicks away, so only an
//!   administrator may merge it.
//!
//! What the hub derives itself (`values`, `share`, floors, `$SYS`) is no record: it follows from these.

use core::num::NonZeroU64;
use std::{sync::Arc, vec};

use bytes::Bytes;
use latchbus_core::clicks::{
    ClickTopic, Clicks, Counter, FloorRecord, GrowingLive, Incarnation, MAX_ID_BYTES, Zero, is_name,
};
use latchbus_core::topic::TopicName;

use crate::access::Reader;
use crate::holdings::Holder;
use crate::rooms::{MAX_STAMP, PRESS_IDS, RoomReset};
use crate::{Clock, Delivery, Properties, PublishRefused};

/// One thing that a bus keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A value of a topic.
    Value(Kept),
    /// The clicks of a device.
    Device(DeviceClicks),
    /// What an administrator has made of a room.
    Room(RoomClicks),
}

impl Record {
    /// The bytes of its payload.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Value(value) => value.payload.len(),
            Self::Device(_) | Self::Room(_) => 0,
        }
    }

    /// Where a peer that may merge this must be allowed to publish.
    pub(crate) fn topic(&self) -> String {
        match self {
            Self::Value(value) => value.topic.as_str().to_owned(),
            Self::Device(DeviceClicks { room, device, .. }) => {
                ClickTopic::Press { room, device }.to_string()
            }
            Self::Room(RoomClicks { room, .. }) => ClickTopic::Values { room }.to_string(),
        }
    }

    /// Whether it may take clicks away: what only an administrator may merge.
    pub(crate) fn resets(&self) -> bool {
        match self {
            Self::Value(_) => false,
            Self::Device(device) => device.counts.zero.stamp().max(device.pressed.zero.stamp()) > 0,
            Self::Room(_) => true,
        }
    }
}

/// A value that a topic keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its topic.
    pub topic: TopicName<String>,
    /// The bytes, as they were published.
    pub payload: Bytes,
    /// Its revision in the hub that it comes from, which gives it another when it is merged.
    pub rev: u64,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The quality of service of its publisher, 0 to 2.
    pub qos: u8,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at: Option<NonZeroU64>,
    /// What its publisher said beside the payload.
    pub properties: Option<Arc<Properties>>,
    /// How many values the topic keeps, this one among them. The bus that it is merged into keeps as many
    /// until the next publish, whatever its own rules.
    pub history: u16,
    /// Who has published it, where what users hold is bounded. A bus takes it from an administrator; who else merges a value
    /// holds it themselves.
    pub holder: Option<Arc<Holder>>,
}

/// All that is known of a device's clicks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceClicks {
    /// Where it counts.
    pub room: String,
    /// Its name.
    pub device: String,
    /// What it has reported itself.
    pub counts: Ledger,
    /// What the hub has counted on its behalf, an incarnation for each start of the hub.
    pub pressed: Ledger,
    /// The last press ids, oldest first: presses that come again under one of these are not counted.
    pub press_ids: Vec<String>,
    /// The last reset of its clicks has removed it: it is not shown until it has a click more.
    pub removed: bool,
}

/// What an administrator has made of a room: see [`Operate`](crate::Operate).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomClicks {
    /// Its name.
    pub room: String,
    /// Of its last reset, or of the undoing of that: the later one has the larger stamp.
    pub stamp: u64,
    /// What it begins with, and no device has clicked.
    pub given: Counter,
    /// The clicks that operations have taken.
    pub taken: Counter,
}

impl RoomClicks {
    /// The topic that says what it says.
    fn topic(&self) -> String {
        format!("clicks/{}/reset", self.room)
    }

    pub(crate) fn of(room: &str, reset: &RoomReset) -> Self {
        Self {
            room: room.to_owned(),
            stamp: reset.stamp,
            given: reset.given,
            taken: reset.taken,
        }
    }

    pub(crate) fn to_reset(&self) -> RoomReset {
        RoomReset {
            stamp: self.stamp,
            newest: self.stamp,
            given: self.given,
            taken: self.taken,
            ..RoomReset::default()
        }
    }

    /// Whether a hub could have made this.
    pub(crate) fn check(&self) -> Result<(), PublishRefused> {
        match is_name(&self.room) && self.stamp < MAX_STAMP {
            true => Ok(()),
            false => Err(PublishRefused::Malformed {
                kind: "room",
                reason: "its name is none, or its reset lies too far ahead".to_owned(),
            }),
        }
    }
}

/// Clicks by incarnation, and the sum of those that were folded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    folded: FloorRecord,
    live: Vec<(Incarnation, Counter)>,
    zero: Zero<GrowingLive>,
}

/// The incarnations of a ledger must ascend, and lie above its floor; their counts cover those of its zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "incarnations must ascend, their boots lie above the floor, and their counts cover the zero"
)]
pub struct LedgerError;

impl Ledger {
    /// A ledger of these parts.
    ///
    /// # Errors
    /// When they are in no order that a hub leaves.
    pub fn new(
        folded: FloorRecord,
        live: Vec<(Incarnation, Counter)>,
    ) -> Result<Self, LedgerError> {
        let above = live.iter().all(|(run, _)| run.boot() > folded.floor);
        match above && live.is_sorted_by(|(a, _), (b, _)| a < b) {
            true => Ok(Self {
                folded,
                live,
                zero: Zero::default(),
            }),
            false => Err(LedgerError),
        }
    }

    /// The same after a reset: what it had in each incarnation by then.
    ///
    /// # Errors
    /// When no reset could have been so.
    pub fn with_zero(
        self,
        stamp: u64,
        entries: &[(Incarnation, Counter)],
    ) -> Result<Self, LedgerError> {
        let covered = entries.iter().all(|(run, zero)| {
            let mut live = self.live.iter();
            live.any(|(live, counter)| live == run && counter.covers(*zero))
        });
        match Zero::from_entries(stamp, entries) {
            Some(zero) if covered && (stamp > 0 || entries.is_empty()) => Ok(Self { zero, ..self }),
            _ => Err(LedgerError),
        }
    }

    /// What each incarnation had at the last reset.
    pub const fn zero(&self) -> &Zero<GrowingLive> {
        &self.zero
    }

    /// What was folded: the boots up to a floor, and their sum.
    pub const fn folded(&self) -> FloorRecord {
        self.folded
    }

    /// The counts of the boots above the floor, ascending.
    pub fn live(&self) -> &[(Incarnation, Counter)] {
        &self.live
    }

    pub(crate) fn clicks(&self) -> Clicks<GrowingLive> {
        let mut clicks = Clicks::from(self.folded);
        for (run, counter) in &self.live {
            // They lie above the floor and there is no bound: nothing is refused.
            let _raised = clicks.report(*run, *counter, usize::MAX);
        }
        clicks
    }

    pub(crate) fn of(clicks: &Clicks<GrowingLive>, zero: &Zero<GrowingLive>) -> Self {
        Self {
            folded: clicks.floor_record(),
            live: clicks.entries().to_vec(),
            zero: zero.clone(),
        }
    }
}

impl DeviceClicks {
    /// Whether a hub could have made this: the names, and the ids of presses.
    pub(crate) fn check(&self) -> Result<(), PublishRefused> {
        let malformed = |reason: &str| {
            Err(PublishRefused::Malformed {
                kind: "device",
                reason: reason.to_owned(),
            })
        };
        if !is_name(&self.room) || !is_name(&self.device) {
            return malformed("the room or the device is not a name");
        }
        let is_id = |id: &String| !id.is_empty() && id.len() <= MAX_ID_BYTES;
        if self.press_ids.len() > PRESS_IDS || !self.press_ids.iter().all(is_id) {
            return malformed("the press ids are not as a hub keeps them");
        }
        if [&self.counts, &self.pressed].map(|ledger| ledger.zero.stamp() < MAX_STAMP) != [true; 2]
        {
            return malformed("its reset lies too far ahead");
        }
        Ok(())
    }
}

/// A snapshot of all that a bus keeps: first the values by revision, then the devices by name, then the rooms that were reset. It holds a
/// pointer to each value, and a copy of what is known of the devices.
#[derive(Debug)]
pub struct Export {
    epoch: u64,
    revision: u64,
    at: u64,
    clock: Clock,
    values: vec::IntoIter<(Delivery, u16)>,
    devices: vec::IntoIter<DeviceClicks>,
    rooms: vec::IntoIter<RoomClicks>,
    names_holders: bool,
}

impl DeviceClicks {
    /// The topic that says what it says.
    fn topic(&self) -> String {
        let (room, device) = (&self.room, &self.device);
        ClickTopic::Floor { room, device }.to_string()
    }
}

impl Export {
    /// The values need not be in order.
    pub(crate) fn new(
        (epoch, revision, at): (u64, u64, u64),
        clock: Clock,
        mut values: Vec<(Delivery, u16)>,
        (devices, rooms): (Vec<DeviceClicks>, Vec<RoomClicks>),
    ) -> Self {
        values.sort_unstable_by_key(|(value, _)| value.rev);
        Self {
            epoch,
            revision,
            at,
            clock,
            values: values.into_iter(),
            devices: devices.into_iter(),
            rooms: rooms.into_iter(),
            names_holders: true,
        }
    }

    /// The same without who has published what.
    pub(crate) fn without_holders(self) -> Self {
        Self {
            names_holders: false,
            ..self
        }
    }

    /// What of it somebody may read.
    pub(crate) fn readable_by(mut self, reader: &Reader) -> Self {
        let values = self
            .values
            .filter(|(value, _)| reader.may_read(value.topic.borrowed()));
        self.values = values.collect::<Vec<_>>().into_iter();
        // Who may read what the hub itself retains of a device may read what it exports of it.
        let devices = self.devices.filter(|device| {
            let topic = device.topic();
            TopicName::parse(topic.as_str()).is_ok_and(|topic| reader.may_read(topic))
        });
        self.devices = devices.collect::<Vec<_>>().into_iter();
        let rooms = self.rooms.filter(|room| {
            let topic = room.topic();
            TopicName::parse(topic.as_str()).is_ok_and(|topic| reader.may_read(topic))
        });
        self.rooms = rooms.collect::<Vec<_>>().into_iter();
        self
    }

    /// The epoch of the hub.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The hub's revision at the snapshot.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// When it was taken, in milliseconds since the Unix epoch.
    pub const fn at(&self) -> u64 {
        self.at
    }
}

impl Iterator for Export {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let Some((value, history)) = self.values.next() else {
            let device = self.devices.next().map(Record::Device);
            return device.or_else(|| self.rooms.next().map(Record::Room));
        };
        let topic = value.topic.as_str().to_owned();
        Some(Record::Value(Kept {
            topic: TopicName::parse(topic)
                .unwrap_or_else(|_| unreachable!("it was the name of a topic")),
            payload: value.payload.bytes().clone(),
            rev: value.rev,
            at: value.at,
            qos: value.payload.qos(),
            expires_at: (value.payload.expires_at())
                .and_then(|at| NonZeroU64::new(self.clock.to_unix(at.get()))),
            properties: value.payload.properties().cloned(),
            history,
            holder: (value.payload.holder().filter(|_| self.names_holders)).cloned(),
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.values.len() + self.devices.len() + self.rooms.len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for Export {}
