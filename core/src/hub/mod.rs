//! The hub: a compacted log, and subscriptions that are cursors into it.
//!
//! Every accepted publish takes the next **revision** of the hub's **epoch**. What is then kept of it:
//!
//! - **State** ([`Retain::Last`]) stays in the log until its topic has been given as many newer values as
//!   the topic keeps. A new value goes to the log's end; the topic's oldest leaves.
//! - An **event** ([`Retain::No`]) is not part of the log and never reaches a later subscription.
//! - A **clear** removes a topic from the log and leaves a tombstone in its order, until the bound on
//!   tombstones forgets the oldest.
//! - The last publishes of every kind stay in the **recent ring**, in revision order.
//!
//! A **subscription** is a filter, a [`Mode`] and the last revision it has taken. `next` gives the oldest
//! entry behind that cursor. So a late joiner walks every kept value and is live after it, a client that
//! comes back walks what changed meanwhile, and a slow reader finds what it missed compacted away and the
//! newest value next. Its cost is the cursor, whatever it missed.
//!
//! # What `next` promises
//! - Revisions strictly increase between two [`Step::Reset`]s.
//! - [`Step::Synced`] comes once after each start. Before it, each topic that had a value at the start has come, in
//!   that version or a newer one, or as cleared, however slowly the subscription is read. Everything after it is
//!   newer than its cursor.
//! - In mode [`Mode::Latest`] state comes from the log, so each topic's values are the newest it keeps; events
//!   come from the ring. Mode [`Mode::State`] is the same without the events, which are not counted either.
//!   A reader that takes batches in several turns asks for [`Hub::next_in_batch`], so that no topic is left out however
//!   often it changes.
//! - In mode [`Mode::Every`] each publish comes, as long as the cursor lies inside the ring. A cursor that has
//!   fallen out gets a [`Step::Gap`], the state that changed (conflated), and goes on in the ring.
//! - A cursor older than a tombstone that was forgotten gets [`Step::Reset`] and a full walk, so that a
//!   cleared topic can't live on at a subscriber.
//! - What is not delivered is counted: see [`Counts`].
//!
//! # A hub that is restored
//! A hub of the growing form can go on with an earlier life: what that kept is put back with its revisions,
//! and [`Hub::restored`] says where they go on. Cursors of that life then resume as if nothing had been. Events
//! that were not put back may have been lost to them: a resume over the restart in mode [`Mode::Every`] gets a
//! [`Step::Gap`], unless [`Hub::owe_events`] says that they were.
//!
//! Full tables are errors that come back to the caller, are counted, and change nothing.
//!
//! There are two forms of one behaviour, checked against one model: [`FixedHub`] for microcontrollers scans
//! fixed tables; `Hub` (feature `alloc`) shares its values and keeps an order for every distinct filter, so
//! that a publish costs by the number of matching filters and not by the number of subscriptions.

mod cursor;
#[cfg(feature = "alloc")]
mod filter_tree;
mod fixed;
#[cfg(feature = "alloc")]
mod growing;
#[cfg(feature = "alloc")]
mod published;
#[cfg(feature = "alloc")]
mod rev_log;
#[cfg(feature = "alloc")]
mod scope;
#[cfg(feature = "alloc")]
mod topics;
#[cfg(feature = "alloc")]
mod view;

pub use cursor::{Counts, Cursor, CursorError, Mode, Start, Step};
pub use fixed::FixedHub;
#[cfg(feature = "alloc")]
pub use growing::{EarlierLife, Hub, Limits, Upcoming};
#[cfg(feature = "alloc")]
pub use scope::{Scope, SharedScope};
#[cfg(feature = "alloc")]
pub use view::ViewId;

use crate::topic::TopicName;

/// What a hub keeps of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retain {
    /// An event: delivered to those who are subscribed, then gone.
    No,
    /// State: the topic keeps its last `n` values. 0 counts as 1.
    Last(u16),
}

impl Retain {
    /// State whose newest value alone is kept.
    pub const LAST: Self = Self::Last(1);
}

/// What an [`Entry`] is to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value of a topic that keeps its last value.
    State,
    /// A value that is not kept.
    Event,
    /// The topic was cleared: there is no value, and the payload is empty.
    Cleared,
}

/// One accepted publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<T, P> {
    /// Its place in the hub's order, from 1, strictly increasing within an epoch.
    pub rev: u64,
    /// When it was accepted, in the caller's milliseconds.
    pub at: u64,
    /// State, event or clear.
    pub kind: Kind,
    /// The topic it was published to.
    pub topic: TopicName<T>,
    /// The bytes; empty for a clear.
    pub payload: P,
}

/// An entry as [`FixedHub`] lends it.
pub type BorrowedEntry<'a> = Entry<&'a str, &'a [u8]>;

/// An entry as [`Hub`] shares it with all subscribers.
#[cfg(feature = "alloc")]
pub type SharedEntry<P> = alloc::sync::Arc<Entry<alloc::sync::Arc<str>, P>>;

/// A subscription of one hub. It stays unknown after [`unsubscribe`](FixedHub::unsubscribe), also
/// when its place is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId {
    slot: u32,
    generation: u32,
}

/// Counts of one hub since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubCounts {
    /// Publishes and clears that were accepted.
    pub accepted: u64,
    /// Publishes that a bound refused.
    pub dropped: u64,
    /// Subscriptions that a bound refused.
    pub subscriptions_refused: u64,
}

/// Why a publish was not accepted. The hub is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Every place for a kept value is taken.
    #[error("the hub keeps {places} values already")]
    Full {
        /// How many values the hub can keep.
        places: usize,
    },
    /// The topic is longer than this hub accepts.
    #[error("topic of {bytes} bytes is longer than {limit}")]
    TopicTooLong {
        /// The topic's length.
        bytes: usize,
        /// The longest topic this hub accepts.
        limit: usize,
    },
    /// The payload is larger than this hub accepts.
    #[error("payload of {bytes} bytes is larger than {limit}")]
    PayloadTooLarge {
        /// The payload's size.
        bytes: usize,
        /// The largest payload this hub accepts.
        limit: usize,
    },
}

/// Why a subscription was not accepted. The hub is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// Every place for a subscription is taken.
    #[error("the hub has {limit} subscriptions already")]
    Full {
        /// How many subscriptions the hub can have.
        limit: usize,
    },
    /// The filter is longer than this hub accepts.
    #[error("filter of {bytes} bytes is longer than {limit}")]
    FilterTooLong {
        /// The filter's length.
        bytes: usize,
        /// The longest filter this hub accepts.
        limit: usize,
    },
}

/// The subscription does not exist, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown subscription")]
pub struct UnknownSubscription;
