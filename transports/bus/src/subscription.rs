//! A subscription in process: a stream that begins with the last values.

use core::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::collections::VecDeque;

use futures_util::Stream;
use latchbus_core::hub::{Counts, Start, Step, SubscriptionId};
use tokio::time::Instant;

use crate::access::Reader;
use crate::alarm::Alarm;
use crate::bus::Allowed;
use crate::pacing::Pacing;
use crate::shared::Batch;
use crate::wake::Wake;
use crate::{Bus, Client, Delivery};

/// What one filter brings, as a stream of [`Step`]s: first the snapshot, then
/// [`Step::Synced`], then what is live. It ends when the bus has closed, or its client may not have it
/// any more.
///
/// It holds up to 64 steps, which it takes from the hub in one go, unless it is [`eager`](Self::eager) for the newest;
/// whatever else is published waits in the hub, where newer state replaces older.
#[derive(Debug)]
pub struct Subscription {
    bus: Bus,
    client: Client,
    /// What its client may read of it; none: everything.
    reader: Option<Reader>,
    /// Whether it began without what is retained.
    live: bool,
    /// The rules by which that was found out: see [`Client::rules`].
    rules: u64,
    id: SubscriptionId,
    wake: Wake,
    taken: VecDeque<Step<Delivery>>,
    waiting: bool,
    /// What the mailbox held: swapped with it, so that neither allocates again. Empty between two polls.
    news: Vec<u64>,
    /// Steps that are taken under one lock.
    batch: usize,
    pacing: Pacing,
    alarm: Alarm,
    /// When the first turn of the batch began.
    began: Option<Instant>,
    /// The newest revision of the batch; 0: none.
    newest: u64,
}

/// Steps that are taken under one lock.
const BATCH: usize = 64;

impl Subscription {
    pub(crate) fn new(
        client: Client,
        id: SubscriptionId,
        reader: Option<Reader>,
        start: Start,
    ) -> Self {
        let bus = client.bus().clone();
        let wake = Wake::default();
        bus.on_close(&wake);
        Self {
            bus,
            rules: client.rules(),
            client,
            reader,
            live: start == Start::Live,
            id,
            wake,
            taken: VecDeque::new(),
            waiting: false,
            news: Vec::new(),
            batch: BATCH,
            pacing: Pacing::default(),
            alarm: Alarm::default(),
            began: None,
            newest: 0,
        }
    }

    /// Lets at least this much time pass from one batch to the next, in each of which a topic comes once, as sessions do:
    /// for mode `latest`. Zero: as they come. The snapshot is not paced, and what comes after a quiet time comes at once.
    #[must_use]
    pub fn paced(mut self, min_interval: Duration) -> Self {
        self.pacing = Pacing::new(Some(min_interval).filter(|it| !it.is_zero()));
        self
    }

    /// Takes each step from the hub when it is asked for, so that what a slow reader gets next is the newest value. Costs
    /// a lock of the hub for each.
    #[must_use]
    pub fn eager(mut self) -> Self {
        self.batch = 1;
        self
    }

    /// What happened to the publishes that matched.
    pub fn counts(&self) -> Counts {
        let counts = |hub: &latchbus_core::hub::Hub<_>| hub.subscription_counts(self.id);
        self.bus.shared().read(counts).unwrap_or_default()
    }

    /// The rules have changed: lets it bring what may be read now. False when it may not go on.
    fn check(&mut self) -> bool {
        let Some(filter) = self.bus.shared().filter_of(self.id) else {
            return false;
        };
        let allowed = (self.bus).check_subscribe(&self.client.principal(), filter.borrowed());
        let Ok(Allowed { reader, .. }) = allowed else {
            return false;
        };
        if self.client.why_signed_out().is_some() {
            return false;
        }
        if reader.as_ref().map(Reader::id) != self.reader.as_ref().map(Reader::id) {
            let with_state = !self.live;
            let shared = self.bus.shared();
            shared.set_reader(self.id, reader.as_ref(), with_state);
            self.waiting = false;
            if let Some(reader) = &reader {
                self.taken.retain(|step| match step {
                    Step::Entry { entry, .. } => reader.may_read(entry.topic.borrowed()),
                    _ => true,
                });
            }
            self.reader = reader;
        }
        true
    }

    /// Takes what there is, up to a batch.
    fn take(&mut self) {
        let now = *self.began.get_or_insert_with(Instant::now);
        let (taken, pacing, newest) = (&mut self.taken, &mut self.pacing, &mut self.newest);
        let wanted = (self.batch, pacing.batch_to());
        let (batch, revision) = self
            .bus
            .shared()
            .take(self.id, wanted, (&self.wake, 0), |step| {
                pacing.took(&step, newest);
                taken.push_back(step);
            });
        self.waiting = batch == Batch::Waiting;
        let is_closing = self.bus.is_closed();
        let (complete, _) = pacing.turn_ended((batch, *newest), revision, now, is_closing);
        if complete {
            (self.began, self.newest) = (None, 0);
        }
    }
}

impl Stream for Subscription {
    type Item = Step<Delivery>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let rules = this.client.rules();
            if rules != this.rules {
                if !this.check() {
                    return Poll::Ready(None);
                }
                this.rules = rules;
            }
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
                this.waiting = false;
            }
            let paused = this.pacing.paused_until(Instant::now());
            if paused.is_some() && !this.bus.is_closed() {
                // The end of the bus wakes it.
                if this.wake.poll_woken(cx).is_ready() {
                    continue;
                }
                if this.alarm.poll_ring(paused, cx).is_pending() {
                    return Poll::Pending;
                }
            }
            this.take();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let counts = self.bus.shared().unsubscribe(self.id);
        self.bus.metrics().ended(counts);
    }
}
