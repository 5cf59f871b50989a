//! What survives a restart.
//!
//! Everything that a subscriber may be given again is stored with the revision that it has in the hub, so that a
//! restarted hub goes on with its epoch, and cursors go on with their hub. The log gives the revisions, by the
//! [`position`] of each record: the hub numbers what needs no record behind those of the newest one, and goes no further
//! than the end of its position. Each start takes a position of its own, behind all that may have been used before.

mod check;
mod disk;
mod file;
mod log;
#[cfg(any(test, feature = "simulation"))]
mod memory;
pub(crate) mod position;
mod redb;
mod repair;

#[cfg(any(test, feature = "simulation"))]
pub use self::disk::StoreFile;
pub use self::disk::create_directory;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use self::log::LogLimits;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use self::memory::MemoryStore;
pub use self::repair::{Repaired, repair};
pub(crate) use self::{disk::Disk, file::FileStore, log::Sync};

use core::{fmt, num::NonZeroU64};
use std::{borrow::Cow, io};

use latchbus_core::hub::EarlierLife;
use serde::{Deserialize, Serialize};

use crate::Properties;
use crate::holdings::Holder;
use crate::rooms::{DeviceZero, Record, RoomReset};

/// What survives a restart, and how it is changed. Loading stands beside it: each form is opened in its own
/// way.
pub(crate) trait Store: fmt::Debug + Send {
    /// Makes all changes, or none: durable before it returns, or later where [`Commit::sync`] says so.
    ///
    /// # Errors
    /// When it cannot say that they are durable. A later call begins anew, and may then find that they were.
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError>;

    /// Makes the commits durable that were to be so later.
    ///
    /// # Errors
    /// When it cannot say that they are.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// What is stored after the last commit.
    fn sizes(&self) -> Sizes;
}

/// Changes that become durable together. Records of the log are made of it: a field or a variant that is added
/// comes last, and makes a new format.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Commit<'a> {
    #[serde(borrow)]
    pub(crate) changes: Vec<Change<'a>>,
    /// The newest revision that anything has when they are made.
    pub(crate) revision: u64,
    /// The last of this life: the revision of its newest event, which may be one that is not stored.
    pub(crate) stops: Option<u64>,
    /// Whether they have to be durable at once.
    #[serde(skip)]
    pub(crate) sync: Sync,
}

/// One change of what is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Change<'a> {
    /// The topic keeps this value; `history` of them in all.
    Keep {
        topic: &'a str,
        rev: u64,
        value: StoredValue,
        history: u16,
    },
    /// The next starts of the hub have higher numbers than this.
    Start(u32),
    /// The topic keeps nothing; if it did, that it was cleared is remembered.
    Clear {
        topic: &'a str,
        rev: u64,
        at: u64,
        /// Nobody has cleared it: its time was over.
        expired: bool,
    },
    /// An event that a durable subscription is owed.
    Event {
        topic: &'a str,
        rev: u64,
        value: StoredValue,
    },
    /// Events are owed no longer: up to `confirmed` they were taken, up to `left` there is no room for them.
    Trim { confirmed: u64, left: u64 },
    /// What is known of a device's clicks.
    Device {
        room: &'a str,
        device: &'a str,
        record: Cow<'a, Record>,
    },
    /// A press id was counted.
    PressId {
        room: &'a str,
        device: &'a str,
        /// How many ids of the device were counted before.
        order: u64,
        id: &'a str,
    },
    /// What a transport remembers of a client; without a value it forgets that part, without a part all.
    Note {
        owner: &'a str,
        client: &'a str,
        part: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    },
    /// What operations have left of a device, beside what is known of its clicks.
    Zero {
        room: &'a str,
        device: &'a str,
        zero: Cow<'a, DeviceZero>,
    },
    /// What operations have left of a room.
    Reset {
        room: &'a str,
        reset: Cow<'a, RoomReset>,
    },
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredValue {
    /// Milliseconds since the Unix epoch.
    pub(crate) at: u64,
    pub(crate) qos: u8,
    /// By [`Clock::deadline_ms`](crate::Clock::deadline_ms).
    pub(crate) expires_at: Option<NonZeroU64>,
    pub(crate) said: Said,
    pub(crate) payload: Vec<u8>,
}

/// What goes with a stored payload. The first two are stored as an `Option<Properties>`, which is what earlier versions wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    Nothing,
    Properties(Properties),
    /// With the [origin](crate::Payload::origin).
    By(u64, Option<Properties>),
    /// With the origin, and who holds it. Format 5 and those before it have none.
    Held(u64, Option<Properties>, Holder),
}

impl Said {
    pub(crate) fn new(origin: u64, properties: Option<Properties>, holder: Option<Holder>) -> Self {
        match (origin, properties, holder) {
            (origin, properties, Some(holder)) => Self::Held(origin, properties, holder),
            (0, None, None) => Self::Nothing,
            (0, Some(properties), None) => Self::Properties(properties),
            (origin, properties, None) => Self::By(origin, properties),
        }
    }

    pub(crate) fn into_parts(self) -> (u64, Option<Properties>, Option<Holder>) {
        match self {
            Self::Nothing => (0, None, None),
            Self::Properties(properties) => (0, Some(properties), None),
            Self::By(origin, properties) => (origin, properties, None),
            Self::Held(origin, properties, holder) => (origin, properties, Some(holder)),
        }
    }
}

/// Something that stands in the hub's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// One of the values that a topic keeps, and how many that are.
    Value(u16, StoredValue),
    Event(StoredValue),
    Cleared {
        at: u64,
        expired: bool,
    },
}

impl Item {
    /// When it was published or cleared, in milliseconds since the Unix epoch.
    pub(crate) const fn at(&self) -> u64 {
        match self {
            Self::Value(_, value) | Self::Event(value) => value.at,
            Self::Cleared { at, .. } => *at,
        }
    }
}

/// A part of what a transport remembers of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredNote {
    pub(crate) owner: String,
    pub(crate) client: String,
    pub(crate) part: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Everything that was stored, as it is loaded at the start.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// The number of this start of the hub, from 1.
    pub(crate) start: u32,
    /// What tells the revisions of this store from all others.
    pub(crate) epoch: u64,
    /// Where the hub left off, and begins.
    pub(crate) life: EarlierLife,
    /// Revision, topic and what stands there, in the order of revisions.
    pub(crate) items: Vec<(u64, String, Item)>,
    pub(crate) devices: Vec<(String, String, Record)>,
    /// Of some of them.
    pub(crate) zeros: Vec<(String, String, DeviceZero)>,
    pub(crate) resets: Vec<(String, RoomReset)>,
    /// Room, device and id, oldest first.
    pub(crate) press_ids: Vec<(String, String, String)>,
    /// By owner, client and part.
    pub(crate) notes: Vec<StoredNote>,
    /// Their number.
    pub(crate) notes_stored: u64,
}

/// How much is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// The oldest event that is owed.
    pub(crate) oldest_event: Option<u64>,
    pub(crate) notes: u64,
    /// Bytes on disk.
    pub(crate) bytes: u64,
}

/// Ranges of lost revisions that are remembered; beyond them the two oldest become one, with what lies between.
const LOST_RANGES: usize = 64;

impl Loaded {
    /// Begins a life behind those before: `newest` is the newest revision of these, and `events` that of their newest
    /// event if the last one ended in order. `lost` are the revisions that were lost before.
    pub(self) fn begin(&mut self, newest: u64, events: Option<u64>, lost: Vec<(u64, u64)>) {
        self.items.sort_by_key(|(rev, ..)| *rev);
        self.life.revision = position::start(newest, events.is_some());
        self.life.events = events.unwrap_or(position::last(newest));
        self.life.lost = lost;
        if events.is_none() {
            self.lose(position::last(newest), self.life.revision - 1);
        }
    }

    /// What had revisions after `after`, up to `to`, may have been seen, and is not here.
    fn lose(&mut self, after: u64, to: u64) {
        let lost = &mut self.life.lost;
        // A life that has stored nothing does not divide what was lost before it and in it.
        let stored_since = |lost_to: u64| {
            let newest = self.items.last().map_or(0, |(rev, ..)| *rev);
            newest > lost_to
        };
        match lost.last_mut().filter(|(_, to)| !stored_since(*to)) {
            Some((_, lost_to)) => *lost_to = to,
            None => lost.push((after, to)),
        }
        if lost.len() > LOST_RANGES {
            let (oldest, _) = lost.remove(0);
            if let Some((after, _)) = lost.first_mut() {
                *after = oldest;
            }
        }
    }
}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory could not be made or read.
    #[error("cannot make or read the directory")]
    Directory(#[source] io::Error),
    /// Another process has the store open.
    #[error("another process has it open")]
    Locked,
    /// The store was written by a version that this one does not know.
    #[error("format version {found}, and this program knows version {known}")]
    Version {
        /// What the store says.
        found: u64,
        /// What this program writes.
        known: u64,
    },
    /// The store holds something that cannot be read.
    #[error("damaged record in table `{table}`: {reason}")]
    Damaged {
        /// Where.
        table: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Bytes of the file have changed since they were written, or are missing. Nothing was changed.
    #[error("the file is damaged: {reason}")]
    Corrupted {
        /// What is wrong.
        reason: String,
    },
    /// While it could not be used, something else was put in its place.
    #[error("another store stands in its place")]
    Replaced,
    /// The log failed.
    #[error("the log cannot be read or written: {0}")]
    Log(io::Error),
    /// The store was closed.
    #[error("it is closed")]
    Closed,
    /// The database failed.
    #[error(transparent)]
    Database(Box<::redb::Error>),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores of versions that knew no origin are read as they were meant.
    #[test]
    fn what_goes_with_a_payload_is_stored_as_the_option_that_it_was() {
        for was in [None, Some(Properties::default())] {
            let stored = postcard::to_allocvec(&was).unwrap();
            let is = Said::new(0, was, None);
            assert_eq!(postcard::to_allocvec(&is), Ok(stored.clone()));
            assert_eq!(postcard::from_bytes::<Said>(&stored), Ok(is));
        }
        let holders = [
            None,
            Some(Holder::User("anna".into())),
            Some(Holder::Address([192, 0, 2, 1].into())),
        ];
        for properties in [None, Some(Properties::default())] {
            for holder in holders.clone() {
                let said = Said::new(7, properties.clone(), holder.clone());
                let stored = postcard::to_allocvec(&said).unwrap();
                let read: Said = postcard::from_bytes(&stored).unwrap();
                assert_eq!(read.into_parts(), (7, properties.clone(), holder));
            }
        }
    }
}
