//! When the batches of a subscription begin and end.

use core::time::Duration;

use latchbus_core::hub::{Mode, Step};
use tokio::time::Instant;

use crate::shared::Batch;
use crate::{Delivery, SessionLimits};

/// In each batch of a subscription in mode `latest` or `state` a topic comes once, and from the beginning of one to that of the next
/// its interval passes. What comes after a quiet time goes at once.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    min_interval: Option<Duration>,
    /// When the next batch may begin.
    not_before: Option<Instant>,
    /// The hub's revision when the batch began: what is newer belongs to the next one.
    batch_to: Option<u64>,
    synced: bool,
}

impl Pacing {
    /// The interval of a subscription that names this one, or none; zero is none.
    pub(crate) fn interval(
        mode: Mode,
        named: Option<Duration>,
        limits: &SessionLimits,
    ) -> Option<Duration> {
        match mode {
            Mode::Latest | Mode::State => {
                Some(named.unwrap_or(limits.pace)).filter(|it| !it.is_zero())
            }
            Mode::Every => named,
        }
    }

    pub(crate) fn new(min_interval: Option<Duration>) -> Self {
        Self {
            min_interval,
            ..Self::default()
        }
    }

    pub(crate) const fn is_paced(&self) -> bool {
        self.min_interval.is_some()
    }

    /// The snapshot comes once more.
    pub(crate) fn rewind(&mut self, min_interval: Option<Duration>) {
        (self.min_interval, self.synced, self.not_before) = (min_interval, false, None);
    }

    /// Until when nothing is to be taken.
    pub(crate) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|until| *until > now)
    }

    /// Up to which revision is to be taken now.
    pub(crate) fn batch_to(&self) -> Option<u64> {
        self.min_interval.and(self.batch_to)
    }

    /// A step was taken; `newest` is the newest revision of this turn, 0 before the first.
    pub(crate) fn took(&mut self, step: &Step<Delivery>, newest: &mut u64) {
        match step {
            Step::Entry { entry, .. } => *newest = entry.rev,
            Step::Synced { .. } => self.synced = true,
            Step::Reset => self.synced = false,
            Step::Gap { .. } => {}
        }
    }

    /// A turn that began at `now` has ended in this way, when the hub was at this revision. Whether the batch has, and
    /// until when the next one waits.
    pub(crate) fn turn_ended(
        &mut self,
        (batch, newest): (Batch, u64),
        revision: u64,
        now: Instant,
        is_closing: bool,
    ) -> (bool, Option<Instant>) {
        let batch_to = *self.batch_to.get_or_insert(revision);
        let complete = matches!(batch, Batch::Waiting | Batch::Complete) || newest > batch_to;
        if complete {
            self.batch_to = None;
            // A snapshot is not paced: it has each topic once anyway.
            let is_paced = self.synced && newest > 0 && !is_closing;
            let interval = self.min_interval.filter(|_| is_paced);
            self.not_before = interval.map(|interval| now + interval);
        }
        (complete, self.not_before)
    }
}
