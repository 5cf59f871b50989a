use serde::{Deserialize, Serialize, Serializer};

use super::code::ErrorCode;
use crate::hub::{Cursor, Mode};

/// What a client asks of a server. Every `id` is a number of the client's choice.
///
/// The order of variants and fields is the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClientFrame<'a> {
    /// Deliver what matches a filter: the retained values, then [`ServerFrame::Synced`], then what
    /// is published from there on.
    Subscribe {
        /// Names the subscription in everything that is delivered for it.
        id: u64,
        /// A topic filter. Not checked here.
        filter: &'a str,
        /// What happens to a subscriber that falls behind.
        mode: Mode,
        /// The most frames a second a topic. Not checked here: it may be zero, negative or no number.
        max_rate: Option<f32>,
        /// Where an earlier subscription ended: deliver only what changed since.
        since: Option<Cursor>,
    },
    /// End a subscription.
    Unsubscribe {
        /// The subscription's.
        id: u64,
    },
    /// Publish a payload.
    Publish {
        /// Asks for [`ServerFrame::Ack`]. Without it only errors are answered.
        id: Option<u64>,
        /// A topic name. Not checked here.
        topic: &'a str,
        /// Any bytes. Empty and retained clears the topic.
        #[serde(serialize_with = "bytes")]
        payload: &'a [u8],
        /// State of the topic if set, an event otherwise.
        retain: bool,
    },
    /// Ask for [`ServerFrame::Pong`].
    Ping {
        /// Comes back in the answer.
        id: u64,
    },
}

/// What a server answers and delivers.
///
/// The order of variants and fields is the wire format. `id` comes first in what is delivered to
/// subscriptions, so that the rest can be encoded once for all: see [`MessageTail`](super::MessageTail).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFrame<'a> {
    /// The first frame of a connection.
    Welcome {
        /// Name and version, for example `latchbus/0.1.0`.
        server: &'a str,
        /// In which epoch the server's revisions count.
        epoch: u64,
        /// What the server accepts on this connection.
        limits: Limits,
    },
    /// A payload was published.
    Message {
        /// The subscription's.
        id: u64,
        /// Where it was published.
        topic: &'a str,
        /// What was published.
        #[serde(serialize_with = "bytes")]
        payload: &'a [u8],
        /// Its revision.
        rev: u64,
        /// When it was accepted, in Unix milliseconds.
        at: u64,
    },
    /// A topic's retained value was removed.
    Cleared {
        /// The subscription's.
        id: u64,
        /// Which topic.
        topic: &'a str,
        /// The revision of the removal.
        rev: u64,
        /// When it was accepted, in Unix milliseconds.
        at: u64,
    },
    /// The snapshot is complete; what follows is live.
    Synced {
        /// The subscription's.
        id: u64,
        /// Up to where the subscriber is now complete.
        cursor: Cursor,
    },
    /// Events were lost to this subscription.
    Gap {
        /// The subscription's.
        id: u64,
        /// How many.
        missed: u64,
    },
    /// The named cursor is too old or of another epoch: forget all topics of this subscription. A
    /// whole snapshot follows.
    Reset {
        /// The subscription's.
        id: u64,
    },
    /// A publish was accepted.
    Ack {
        /// The publish's.
        id: u64,
        /// The revision it was given.
        rev: u64,
    },
    /// A request was refused and changed nothing.
    Error {
        /// The request's, if it had one and it could be read.
        id: Option<u64>,
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: &'a str,
    },
    /// The answer to [`ClientFrame::Ping`].
    Pong {
        /// The ping's.
        id: u64,
    },
}

/// What a server accepts on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// The longest payload, in bytes.
    pub payload_bytes: u32,
    /// The longest topic or filter, in bytes.
    pub topic_bytes: u32,
    /// The most subscriptions at a time.
    pub subscriptions: u32,
    /// The most publishes that may wait for their ack.
    pub in_flight: u32,
}

/// A [`ClientFrame`] or a [`ServerFrame`]: what may follow the version byte.
pub trait Frame: Serialize + sealed::Sealed {}

impl Frame for ClientFrame<'_> {}
impl Frame for ServerFrame<'_> {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ClientFrame<'_> {}
    impl Sealed for super::ServerFrame<'_> {}
}

/// The same bytes as serde's own way for `&[u8]`, which goes through them one at a time.
pub(super) fn bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}
