//! What a transport remembers of its clients beyond a restart.

use std::sync::Arc;

use bytes::Bytes;

use crate::PublishRefused;
use crate::bus::Options;
use crate::message::Properties;
use crate::store::{Change, StoredNote};

/// One thing that a transport remembers of a client, or forgets. The bus stores it, and understands none of it.
///
/// Notes are made durable in the order in which they are given, together with whatever else waits for the
/// store: see [`Client::remember`](crate::Client::remember) and [`Publish::notes`](crate::Publish::notes). Where nothing is stored they are let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whose it is, and which of its clients it is about.
    pub(crate) owner: Arc<str>,
    pub(crate) client: Arc<str>,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Keep { part: Bytes, value: Bytes },
    Forget { part: Bytes },
    ForgetAll,
}

/// What was remembered, as it is given back at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The client that it is about.
    pub client: String,
    /// Which part of what is known of the client.
    pub part: Vec<u8>,
    /// What is known.
    pub value: Vec<u8>,
}

impl Note {
    /// The most bytes of the name of a part.
    pub const PART_BYTES: usize = 64;

    /// The most bytes of the names of an owner and a client together.
    pub const NAME_BYTES: usize = 65_600;

    /// The most notes of all clients together: beyond them, whatever would keep another is refused.
    pub const MOST: usize = 1 << 22;

    /// Room in a value besides a whole message.
    const SPARE_BYTES: usize = 4 << 10;

    /// Keeps `value` as one part of what is known of a client, in the place of what it was before.
    pub fn keep(
        owner: Arc<str>,
        client: Arc<str>,
        part: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Self {
        let (part, value) = (part.into(), value.into());
        let what = What::Keep { part, value };
        Self {
            owner,
            client,
            what,
        }
    }

    /// Forgets one part.
    pub fn forget(owner: Arc<str>, client: Arc<str>, part: impl Into<Bytes>) -> Self {
        let what = What::Forget { part: part.into() };
        Self {
            owner,
            client,
            what,
        }
    }

    /// Forgets a client altogether.
    pub fn forget_all(owner: Arc<str>, client: Arc<str>) -> Self {
        let what = What::ForgetAll;
        Self {
            owner,
            client,
            what,
        }
    }

    /// The most bytes of a value: a whole message of the greatest size, and 4 KiB.
    pub(crate) fn value_limit(options: &Options) -> usize {
        let limits = options.limits;
        limits.payload_bytes + limits.topic_bytes + Properties::MAX_BYTES + Self::SPARE_BYTES
    }

    /// Whether it is within the bounds.
    pub(crate) fn check(&self, value_limit: usize) -> Result<(), PublishRefused> {
        let (part, value) = match &self.what {
            What::Keep { part, value } => (part.len(), value.len()),
            What::Forget { part } => (part.len(), 0),
            What::ForgetAll => (0, 0),
        };
        let bounds = [
            (self.owner.len() + self.client.len(), Self::NAME_BYTES),
            (part, Self::PART_BYTES),
            (value, value_limit),
        ];
        match bounds.into_iter().find(|(bytes, limit)| bytes > limit) {
            Some((bytes, limit)) => Err(PublishRefused::NoteTooLarge { bytes, limit }),
            None => Ok(()),
        }
    }

    /// The bytes of its value.
    pub(crate) fn bytes(&self) -> usize {
        match &self.what {
            What::Keep { value, .. } => value.len(),
            What::Forget { .. } | What::ForgetAll => 0,
        }
    }

    pub(crate) fn keeps(&self) -> bool {
        matches!(self.what, What::Keep { .. })
    }

    pub(crate) fn change(&self) -> Change<'_> {
        let (part, value) = match &self.what {
            What::Keep { part, value } => (Some(&**part), Some(&**value)),
            What::Forget { part } => (Some(&**part), None),
            What::ForgetAll => (None, None),
        };
        Change::Note {
            owner: &self.owner,
            client: &self.client,
            part,
            value,
        }
    }
}

impl From<StoredNote> for Remembered {
    fn from(note: StoredNote) -> Self {
        Self {
            client: note.client,
            part: note.part,
            value: note.value,
        }
    }
}
