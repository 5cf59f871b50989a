//! What a run has done, and how it has ended.

use core::fmt;
use core::ops::AddAssign;
use core::sync::atomic::{AtomicU64, Ordering};

use latchbus_core::clicks::Counter;

/// A number that many tasks add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was done to devices, network and server.
#[derive(Debug, Default)]
pub struct Counts {
    /// Servers killed.
    pub server_kills: Count,
    /// Devices killed.
    pub device_kills: Count,
    /// Connections cut.
    pub cuts: Count,
    /// Times that a connection stayed open and passed nothing on.
    pub half_opens: Count,
    /// Times that a device was without a network.
    pub outages: Count,
    /// Publishes that were sent twice on their connection.
    pub duplicates: Count,
    /// Publishes that were said again on another connection, and acknowledged.
    pub replays: Count,
    /// Times that the disk was full, and that the server said so.
    pub full_disks: Count,
}

/// How one or many runs have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Runs.
    pub seeds: u64,
    /// See [`Counts`].
    pub server_kills: u64,
    /// See [`Counts`].
    pub device_kills: u64,
    /// See [`Counts`].
    pub cuts: u64,
    /// See [`Counts`].
    pub half_opens: u64,
    /// See [`Counts`].
    pub outages: u64,
    /// See [`Counts`].
    pub duplicates: u64,
    /// See [`Counts`].
    pub replays: u64,
    /// See [`Counts`].
    pub full_disks: u64,
    /// Values of the room that somebody was shown on the way.
    pub shown: u64,
    /// The clicks that the devices were given.
    pub fed: Counter,
    /// The clicks that the server shows at the end.
    pub counted: Counter,
}

impl Outcome {
    pub(super) fn new(counts: &Counts, shown: u64, fed: Counter, counted: Counter) -> Self {
        Self {
            seeds: 1,
            server_kills: counts.server_kills.total(),
            device_kills: counts.device_kills.total(),
            cuts: counts.cuts.total(),
            half_opens: counts.half_opens.total(),
            outages: counts.outages.total(),
            duplicates: counts.duplicates.total(),
            replays: counts.replays.total(),
            full_disks: counts.full_disks.total(),
            shown,
            fed,
            counted,
        }
    }

    /// Whether no click was lost and none counted twice.
    pub fn is_exact(&self) -> bool {
        self.fed == self.counted
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.server_kills += other.server_kills;
        self.device_kills += other.device_kills;
        self.cuts += other.cuts;
        self.half_opens += other.half_opens;
        self.outages += other.outages;
        self.duplicates += other.duplicates;
        self.replays += other.replays;
        self.full_disks += other.full_disks;
        self.shown += other.shown;
        self.fed = self.fed.saturating_add(other.fed);
        self.counted = self.counted.saturating_add(other.counted);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} seeds, {} kills of the server, {} kills of devices, {} cuts, {} half-open, {} outages, {} doubled, \
             {} replayed, {} full disks, {} values shown; clicks fed {}, clicks counted {}",
            self.seeds,
            self.server_kills,
            self.device_kills,
            self.cuts,
            self.half_opens,
            self.outages,
            self.duplicates,
            self.replays,
            self.full_disks,
            self.shown,
            self.fed.total(),
            self.counted.total(),
        )
    }
}
