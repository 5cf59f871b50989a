//! What survives a restart.
//!
//! Everything that a subscriber may be given again is stored with the revision that it has in the hub, so that a
//! restarted hub goes on with its epoch, and cursors go on with their hub. Revisions are given out under the
//! hub's lock and commits take time, so three numbers keep the two together:
//!
//! - A commit is made with the revisions that its values are to get. Events that need no store may overtake it:
//!   then it is made again with later ones before anything is shown.
//! - Until the next commit says otherwise, the last one is **in doubt**: a crash may have come before its values
//!   were shown, and after events were that took their revisions. What is in doubt at a start gets new
//!   revisions, and so comes (once more) to whoever resumes.
//! - The **ceiling** is a revision that the hub does not go beyond without a commit. A start goes on behind it, so
//!   that no revision is used twice, whatever was lost.

mod check;
mod disk;
mod file;
mod log;
#[cfg(any(test, feature = "simulation"))]
mod memory;
mod redb;
mod repair;

#[cfg(any(test, feature = "simulation"))]
pub use self::disk::StoreFile;
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
use crate::rooms::Record;

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
    /// The first and the last of the revisions that they are to get; they are in doubt until the next commit.
    /// None: what was in doubt is no longer.
    pub(crate) revisions: Option<(u64, u64)>,
    /// These changes were committed before, perhaps, with revisions from this one on and before those that they
    /// have now: those are void.
    pub(crate) again_from: Option<u64>,
    /// The new ceiling.
    pub(crate) ceiling: Option<u64>,
    /// The last of this life: the revision of its newest event, which may be one that is not stored.
    pub(crate) stops: Option<u64>,
    /// From here on commits of this life may be shown before they are durable.
    pub(crate) lossy: bool,
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
}

impl Change<'_> {
    /// Whether it puts something into the hub's order.
    pub(crate) fn has_revision(&self) -> bool {
        matches!(
            self,
            Self::Keep { .. } | Self::Clear { .. } | Self::Event { .. }
        )
    }
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
}

impl Said {
    pub(crate) fn new(origin: u64, properties: Option<Properties>) -> Self {
        match (origin, properties) {
            (0, None) => Self::Nothing,
            (0, Some(properties)) => Self::Properties(properties),
            (origin, properties) => Self::By(origin, properties),
        }
    }

    pub(crate) fn into_parts(self) -> (u64, Option<Properties>) {
        match self {
            Self::Nothing => (0, None),
            Self::Properties(properties) => (0, Some(properties)),
            Self::By(origin, properties) => (origin, properties),
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
    /// Where the hub left off.
    pub(crate) life: EarlierLife,
    /// The ceiling that is stored.
    pub(crate) ceiling: u64,
    /// Revision, topic and what stands there, in the order of revisions.
    pub(crate) items: Vec<(u64, String, Item)>,
    pub(crate) devices: Vec<(String, String, Record)>,
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

/// The hub may use so many revisions after those of a commit before the next has to raise the ceiling.
pub(crate) const HEADROOM: u64 = 1 << 24;

impl Loaded {
    /// The newest revision of all items.
    pub(self) fn newest(&self) -> u64 {
        self.items.last().map_or(0, |(rev, ..)| *rev)
    }

    /// Takes over which revisions were lost in earlier lives, and adds those of the last one where something of it may
    /// have been.
    pub(self) fn lose(&mut self, before: Vec<(u64, u64)>, lossy: bool) {
        self.life.lost = before;
        let lost = &mut self.life.lost;
        if lossy {
            // Where nothing has survived since, the loss before goes on.
            let (known, revision) = (self.life.known, self.life.revision);
            match lost.last_mut().filter(|(after, _)| *after == known) {
                Some((_, to)) => *to = revision,
                None => lost.push((known, revision)),
            }
        }
        if lost.len() > LOST_RANGES {
            let (oldest, _) = lost.remove(0);
            if let Some((after, _)) = lost.first_mut() {
                *after = oldest;
            }
        }
    }

    /// Gives what is in doubt new revisions behind all that were, and says which they are: the number of items
    /// at the end of the list. Then sets where the hub goes on.
    pub(self) fn settle(&mut self, doubt: u64, ceiling: u64) -> usize {
        self.items.sort_by_key(|(rev, ..)| *rev);
        let doubtful = match doubt {
            0 => self.items.len(),
            doubt => self.items.partition_point(|(rev, ..)| *rev < doubt),
        };
        let mut rev = ceiling;
        for (of_item, ..) in self.items.iter_mut().skip(doubtful) {
            rev += 1;
            *of_item = rev;
        }
        self.life.revision = ceiling;
        self.ceiling = rev + HEADROOM;
        self.items.len() - doubtful
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
            let is = Said::new(0, was);
            assert_eq!(postcard::to_allocvec(&is), Ok(stored.clone()));
            assert_eq!(postcard::from_bytes::<Said>(&stored), Ok(is));
        }
        for properties in [None, Some(Properties::default())] {
            let said = Said::new(7, properties.clone());
            let stored = postcard::to_allocvec(&said).unwrap();
            let read: Said = postcard::from_bytes(&stored).unwrap();
            assert_eq!(read.into_parts(), (7, properties));
        }
    }
}
