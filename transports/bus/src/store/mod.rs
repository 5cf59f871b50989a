//! What survives a restart.

mod disk;
#[cfg(any(test, feature = "simulation"))]
mod memory;
mod redb;

#[cfg(any(test, feature = "simulation"))]
pub(crate) use self::memory::MemoryStore;
pub(crate) use self::{disk::Disk, redb::RedbStore};

use core::{fmt, num::NonZeroU64};
use std::io;

use serde::{Deserialize, Serialize};

use crate::Properties;
use crate::rooms::Record;

/// What survives a restart, and how it is changed. Loading stands beside it: each form is opened in its own
/// way.
pub(crate) trait Store: fmt::Debug + Send {
    /// Makes all changes durable, or none.
    ///
    /// # Errors
    /// When it cannot say that they are durable. A later call begins anew, and may then find that they were.
    fn commit(&mut self, changes: &[Change<'_>]) -> Result<(), StoreError>;
}

/// One change of what is stored.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    /// The topic keeps this value; `history` of them in all.
    Keep {
        topic: &'a str,
        value: StoredValue,
        history: u16,
    },
    /// The topic keeps nothing.
    Clear { topic: &'a str },
    /// The next starts of the hub have higher numbers than this.
    Start(u32),
    /// What is known of a device's clicks.
    Device {
        room: &'a str,
        device: &'a str,
        record: &'a Record,
    },
    /// A press id was counted.
    PressId {
        room: &'a str,
        device: &'a str,
        /// How many ids of the device were counted before.
        order: u64,
        id: &'a str,
    },
}

/// A kept value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredValue {
    /// Milliseconds since the Unix epoch.
    pub(crate) at: u64,
    pub(crate) qos: u8,
    /// Milliseconds since the Unix epoch.
    pub(crate) expires_at: Option<NonZeroU64>,
    pub(crate) properties: Option<Properties>,
    pub(crate) payload: Vec<u8>,
}

/// Everything that was stored, as it is loaded at the start.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// The number of this start of the hub, from 1.
    pub(crate) start: u32,
    /// Kept values in the order in which they were stored.
    pub(crate) values: Vec<(String, u16, StoredValue)>,
    pub(crate) devices: Vec<(String, String, Record)>,
    /// Room, device and id, oldest first.
    pub(crate) press_ids: Vec<(String, String, String)>,
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
    /// The store was closed.
    #[error("it is closed")]
    Closed,
    /// The database failed.
    #[error(transparent)]
    Database(Box<::redb::Error>),
}
