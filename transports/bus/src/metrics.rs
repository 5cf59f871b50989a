//! What the bus counts.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use latchbus_core::hub::Counts;

use crate::{Histogram, PublishRefused, SignInRefused};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Where it stands.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sign-ins that were refused, by cause.
#[derive(Debug, Default)]
pub struct SignInsRefused([Counter; SignInRefused::CAUSES.len()]);

impl SignInsRefused {
    pub(crate) fn add(&self, refused: &SignInRefused) {
        let cause = refused.cause();
        let mut counters = SignInRefused::CAUSES.iter().zip(&self.0);
        if let Some((_, counter)) = counters.find(|(known, _)| **known == cause) {
            counter.add(1);
        }
    }

    /// Each cause, and how often it was.
    pub fn by_cause(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counters = self.0.iter().map(Counter::get);
        SignInRefused::CAUSES.into_iter().zip(counters)
    }
}

/// Counts of one bus since its start. Counters of the hub itself are read from the hub.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections that are open, over all transports.
    pub connections: Gauge,
    /// Connections that were accepted.
    pub connections_accepted: Counter,
    /// Connections that a bound or a rule refused.
    pub connections_refused: Counter,
    /// Bytes that were read from connections.
    pub bytes_received: Counter,
    /// Bytes that were written to connections.
    pub bytes_sent: Counter,
    /// MQTT packets, WebSocket messages and serial frames that came, whatever they ask for.
    pub packets_received: Counter,
    /// The same of those that were sent.
    pub packets_sent: Counter,
    /// Messages that peers published.
    pub messages_received: Counter,
    /// Bytes of their payloads.
    pub payload_bytes_received: Counter,
    /// Messages that were given to links.
    pub messages_sent: Counter,
    /// Bytes of their payloads.
    pub payload_bytes_sent: Counter,
    /// Sessions that are kept while their clients are away.
    pub sessions_away: Arc<Gauge>,
    /// Sessions that ended because their clients stayed away.
    pub sessions_expired: Arc<Counter>,
    /// Sign-ins that were refused, by [cause](crate::SignInRefused::cause).
    pub sign_ins_refused: SignInsRefused,
    /// Publishes that rules, bounds or a wrong form refused.
    pub publishes_refused: Counter,
    /// Of these, publishes to topics that only the hub writes, or that a rule forbids.
    pub publishes_not_allowed: Counter,
    /// Of these, those that found a table full: values that may be retained, or rooms, devices and their
    /// incarnations.
    pub publishes_dropped: Counter,
    /// Of these, those that were larger than a limit: payload, topic, properties.
    pub publishes_too_large: Counter,
    /// Of these, those that came faster than their publisher may publish.
    pub publishes_rate_limited: Counter,
    /// Publishes that were read later, because they came faster and their publisher cannot be told so.
    pub publishes_delayed: Counter,
    /// Connections that were refused because their user, or their address, has as many as it may.
    pub connections_over_quota: Counter,
    /// Subscriptions that were refused because their user has as many as it may.
    pub subscriptions_over_quota: Counter,
    /// Of the publishes that found a table full, those whose user holds as much of what is retained as it may.
    pub publishes_over_quota: Counter,
    /// Messages that were not sent to a device over a serial link because they are too long for it.
    pub serial_messages_too_large: Counter,
    /// Click reports and presses that were malformed.
    pub clicks_malformed: Counter,
    /// Click reports of incarnations that were folded already.
    pub clicks_stale: Counter,
    /// Presses that had been counted before, by their id.
    pub presses_repeated: Counter,
    /// Rooms that are known.
    pub rooms: Gauge,
    /// Devices that are known, over all rooms.
    pub devices: Gauge,
    /// Devices of the room that has the most.
    pub room_devices: Gauge,
    /// Incarnations of the device that has the most.
    pub device_incarnations: Gauge,
    /// Values that subscriptions which have ended did not take because a newer one replaced them.
    pub conflated: Counter,
    /// Events that subscriptions which have ended did not take before they left the recent ring.
    pub skipped: Counter,
    /// Commits to the store.
    pub commits: Counter,
    /// Commits that failed and were tried again.
    pub commits_failed: Counter,
    /// How long commits took, those that failed too.
    pub commit_time: Histogram,
    /// Bytes of the store on disk.
    pub store_bytes: Gauge,
    /// Values, clears, events and devices that were loaded at the start.
    pub loaded: Gauge,
    /// Microseconds that loading took, until everything was in the hub.
    pub load_micros: Gauge,
}

impl Metrics {
    pub(crate) fn refused(&self, refused: &PublishRefused) {
        self.publishes_refused.add(1);
        self.publishes_dropped.add(u64::from(refused.is_full()));
        self.publishes_too_large
            .add(u64::from(refused.is_too_large()));
        self.publishes_over_quota
            .add(u64::from(refused.is_over_quota()));
        match refused {
            PublishRefused::NotAllowed(..) | PublishRefused::Unreadable(_) => {
                self.publishes_not_allowed.add(1)
            }
            PublishRefused::Malformed { .. } => self.clicks_malformed.add(1),
            PublishRefused::RateLimited { .. } => self.publishes_rate_limited.add(1),
            _ => {}
        }
    }

    pub(crate) fn ended(&self, counts: Counts) {
        self.conflated.add(counts.conflated);
        self.skipped.add(counts.skipped);
    }
}
