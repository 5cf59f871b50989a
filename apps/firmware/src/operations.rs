//! What the image `hub-model` is asked to do with its hub, and what it answers: postcard, in link frames. The tests on the
//! host include this file.

use latchbus_core::hub::{Cursor, Mode};
use serde::{Deserialize, Serialize};

/// The bounds of its hub: kept values, tombstones, recent publishes, subscriptions, bytes of a topic and of a payload.
pub const BOUNDS: [usize; 6] = [3, 2, 4, 4, 8, 4];

/// The epoch of its hub.
pub const EPOCH: u64 = 7;

/// No operation and no answer is longer, in bytes.
pub const MAX_BYTES: usize = 64;

/// An operation. Subscriptions are known by the number that subscribing has given.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Operation<'a> {
    /// A new hub.
    Begin,
    /// Publishes, and keeps so many values.
    Publish {
        /// Where to.
        topic: &'a str,
        /// What.
        payload: &'a [u8],
        /// None: an event.
        keep: Option<u16>,
        /// When.
        at: u64,
    },
    /// Clears a topic.
    Clear {
        /// Which.
        topic: &'a str,
        /// When.
        at: u64,
    },
    /// Begins a subscription.
    Subscribe {
        /// Which topics.
        filter: &'a str,
        /// How it catches up.
        mode: Mode,
        /// Where it begins: `Ok` resumes, `Err(true)` is live, `Err(false)` the snapshot.
        start: Result<Cursor, bool>,
    },
    /// Ends one.
    Unsubscribe(u8),
    /// Begins its snapshot again.
    Rewind(u8),
    /// Takes its next step.
    Next(u8),
    /// What happened to what matched it.
    Counts(u8),
    /// The newest value of a topic.
    Last(&'a str),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// A bound has refused it.
    Refused,
    /// It is done, or there is nothing.
    Nothing,
    /// The revision that it was given.
    Revision(u64),
    /// The number of the subscription.
    Subscribed(u8),
    /// A step.
    Reset,
    /// A step.
    Gap(u64),
    /// A step.
    Synced(Cursor),
    /// A step, or the newest value of a topic.
    Entry {
        /// Its revision.
        rev: u64,
        /// When it was published.
        at: u64,
        /// 0 state, 1 event, 2 cleared.
        kind: u8,
        /// Where.
        topic: &'a str,
        /// What.
        payload: &'a [u8],
        /// Whether it belongs to the snapshot.
        retained: bool,
    },
    /// Taken, conflated, skipped.
    Counts([u64; 3]),
}
