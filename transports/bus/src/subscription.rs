//! A subscription in process: a stream that begins with the last values.

use core::{
    pin::Pin,
    task::{Context, Poll},
};
use std::collections::VecDeque;

use futures_util::Stream;
use latchbus_core::hub::{Counts, Step, SubscriptionId};

use crate::shared::Batch;
use crate::wake::Wake;
use crate::{Bus, Delivery};

/// What one filter brings, as a stream of [`Step`]s: first the snapshot, then
/// [`Step::Synced`], then what is live. It ends when the bus has closed.
///
/// It holds up to 64 steps, which it takes from the hub in one go; whatever else is published waits in
/// the hub, where newer state replaces older.
#[derive(Debug)]
pub struct Subscription {
    bus: Bus,
    id: SubscriptionId,
    wake: Wake,
    taken: VecDeque<Step<Delivery>>,
    waiting: bool,
    /// What the mailbox held: swapped with it, so that neither allocates again. Empty between two polls.
    news: Vec<u64>,
}

/// Steps that are taken under one lock.
const BATCH: usize = 64;

impl Subscription {
    pub(crate) fn new(bus: Bus, id: SubscriptionId) -> Self {
        let wake = Wake::default();
        bus.on_close(&wake);
        Self {
            bus,
            id,
            wake,
            taken: VecDeque::new(),
            waiting: false,
            news: Vec::new(),
        }
    }

    /// What happened to the publishes that matched.
    pub fn counts(&self) -> Counts {
        let counts = |hub: &latchbus_core::hub::Hub<_>| hub.subscription_counts(self.id);
        self.bus.shared().read(counts).unwrap_or_default()
    }
}

impl Stream for Subscription {
    type Item = Step<Delivery>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(step) = this.taken.pop_front() {
                return Poll::Ready(Some(step));
            }
            if this.waiting {
                if this.bus.is_closed() {
                    return Poll::Ready(None);
                }
                if this.wake.poll_woken(cx).is_pending() {
                    return Poll::Pending;
                }
                this.wake.take_ready(&mut this.news);
                if this.news.is_empty() {
                    continue;
                }
                this.news.clear();
            }
            let taken = &mut this.taken;
            let (batch, _) =
                this.bus
                    .shared()
                    .take(this.id, (BATCH, None), (&this.wake, 0), |step| {
                        taken.push_back(step)
                    });
            this.waiting = batch == Batch::Waiting;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let counts = self.bus.shared().unsubscribe(self.id);
        self.bus.metrics().ended(counts);
    }
}
