//! Whether a session's client is connected, and what its transport says of the connection.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use super::entries::Subscriptions;

/// A connection as operators see it.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// In Unix milliseconds; 0: it is not connected.
    since: AtomicU64,
    /// In seconds; 0: none is known.
    keep_alive: AtomicU32,
    in_flight: AtomicU32,
    dismissed: AtomicBool,
}

impl Presence {
    pub(super) fn since(&self) -> Option<u64> {
        let since = self.since.load(Ordering::Acquire);
        (since != 0).then_some(since)
    }

    pub(super) fn keep_alive(&self) -> Option<Duration> {
        let secs = self.keep_alive.load(Ordering::Relaxed);
        (secs != 0).then(|| Duration::from_secs(secs.into()))
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed).into()
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Acquire)
    }

    /// False when it is not connected.
    pub(super) fn dismiss(&self) -> bool {
        let is_connected = self.since().is_some();
        self.dismissed.store(is_connected, Ordering::Release);
        is_connected
    }
}

/// Says that a client is connected, until it is dropped.
#[derive(Debug)]
pub(super) struct Present(Arc<Subscriptions>);

impl Present {
    /// From this time on, in Unix milliseconds.
    pub(super) fn new(subscriptions: &Arc<Subscriptions>, since: u64) -> Self {
        let presence = &subscriptions.presence;
        presence.dismissed.store(false, Ordering::Release);
        presence.since.store(since.max(1), Ordering::Release);
        Self(Arc::clone(subscriptions))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.presence.since.store(0, Ordering::Release);
        self.0.connection_ended();
    }
}

/// What a transport says of a connection to those who list the clients ([`Client::clients`](crate::Client::clients)). Clones are
/// handles to one.
#[derive(Debug, Clone)]
pub struct Traffic(Arc<Subscriptions>);

impl Traffic {
    pub(super) fn new(subscriptions: &Arc<Subscriptions>) -> Self {
        Self(Arc::clone(subscriptions))
    }

    /// The longest that the client has promised to be silent; none: it has promised nothing.
    pub fn set_keep_alive(&self, keep_alive: Option<Duration>) {
        let secs = keep_alive.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        self.0.presence.keep_alive.store(secs, Ordering::Relaxed);
    }

    /// How many messages have been sent to the client that it has not acknowledged.
    pub fn set_in_flight(&self, messages: usize) {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        self.0.presence.in_flight.store(messages, Ordering::Relaxed);
    }
}
