//! A delivery in two pieces: a short head for each subscription, and a tail that all of them share.

use serde::Serialize;

use super::frame::bytes;
use super::{VERSION, WireError};

/// The longest head: version, variant and a varint of 64 bits.
pub const MAX_HEAD_BYTES: usize = 1 + 1 + 10;

/// What precedes a tail: the version, the variant and the subscription's id.
pub type Head = heapless::Vec<u8, MAX_HEAD_BYTES>;

/// The head of [`ServerFrame::Message`](super::ServerFrame::Message) for this subscription. With an
/// encoded [`MessageTail`] behind it, it is the whole message.
#[must_use]
pub fn message_head(id: u64) -> Head {
    head(1, id)
}

/// The head of [`ServerFrame::Cleared`](super::ServerFrame::Cleared) for this subscription. With an
/// encoded [`ClearedTail`] behind it, it is the whole message.
#[must_use]
pub fn cleared_head(id: u64) -> Head {
    head(2, id)
}

/// [`ServerFrame::Message`](super::ServerFrame::Message) without its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MessageTail<'a> {
    /// Where it was published.
    pub topic: &'a str,
    /// What was published.
    #[serde(serialize_with = "bytes")]
    pub payload: &'a [u8],
    /// Its revision.
    pub rev: u64,
    /// When it was accepted, in Unix milliseconds.
    pub at: u64,
}

/// [`ServerFrame::Cleared`](super::ServerFrame::Cleared) without its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClearedTail<'a> {
    /// Which topic.
    pub topic: &'a str,
    /// The revision of the removal.
    pub rev: u64,
    /// When it was accepted, in Unix milliseconds.
    pub at: u64,
}

impl MessageTail<'_> {
    /// Writes the tail to the front of `out` and returns it.
    ///
    /// # Errors
    /// [`WireError::BufferFull`] when it does not fit.
    pub fn encode<'b>(&self, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
        Ok(postcard::to_slice(self, out)?)
    }

    /// The tail in memory of its own.
    ///
    /// # Errors
    /// None that the tail causes, as in [`encode_vec`](super::encode_vec).
    #[cfg(feature = "alloc")]
    pub fn encode_vec(&self) -> Result<alloc::vec::Vec<u8>, WireError> {
        Ok(postcard::to_extend(self, alloc::vec::Vec::new())?)
    }
}

impl ClearedTail<'_> {
    /// Writes the tail to the front of `out` and returns it.
    ///
    /// # Errors
    /// [`WireError::BufferFull`] when it does not fit.
    pub fn encode<'b>(&self, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
        Ok(postcard::to_slice(self, out)?)
    }

    /// The tail in memory of its own.
    ///
    /// # Errors
    /// None that the tail causes, as in [`encode_vec`](super::encode_vec).
    #[cfg(feature = "alloc")]
    pub fn encode_vec(&self) -> Result<alloc::vec::Vec<u8>, WireError> {
        Ok(postcard::to_extend(self, alloc::vec::Vec::new())?)
    }
}

fn head(variant: u8, id: u64) -> Head {
    // A varint of 64 bits takes at most ten bytes, so the head never exceeds its capacity.
    let mut head = Head::new();
    head.extend([VERSION, variant]);
    let mut id = id;
    while id >= 0x80 {
        head.extend([(id & 0x7f) as u8 | 0x80]);
        id >>= 7;
    }
    head.extend([id as u8]);
    head
}
