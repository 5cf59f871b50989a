//! A link that goes wrong, by seed: around any other, it loses, doubles, reorders and delays what passes,
//! and cuts the link. Waits are on tokio's clock, so that a test with paused time runs at full speed, and
//! on one thread the same seed gives the same run.
//!
//! What is lost here is what no real transport loses while its connection stands. A promise that holds
//! over this link rests on nothing but the messages themselves.

use core::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use std::{collections::VecDeque, sync::Arc};

use tokio::{
    select,
    time::{Instant, sleep_until},
};

use crate::link::{Close, Event, LinkReceiver, LinkSender, Request};

/// How often what happens, each as a probability between 0 and 1 for each message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// It is lost.
    pub drop: f64,
    /// It comes twice, the second time out of order.
    pub duplicate: f64,
    /// It is late alone: what is behind it overtakes it.
    pub reorder: f64,
    /// It is late, and everything behind it waits.
    pub delay: f64,
    /// The link ends at this message without a goodbye. What is on its way is lost.
    pub cut: f64,
    /// The longest that a message is late.
    pub latest: Duration,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        drop: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        delay: 0.0,
        cut: 0.0,
        latest: Duration::ZERO,
    };
}

/// Puts faults between a bus and both halves of a link. `receiver.recv()` must be cancel-safe.
pub fn link<R: LinkReceiver, S: LinkSender>(
    receiver: R,
    sender: S,
    faults: Faults,
    seed: u64,
) -> (FaultyReceiver<R>, FaultySender<S>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let cut = Arc::new(AtomicBool::new(false));
    let receiver = FaultyReceiver {
        inner: Some(receiver),
        way: Way::new(faults, random.fork(), &cut),
        left: false,
    };
    let sender = FaultySender {
        inner: sender,
        way: Way::new(faults, random, &cut),
        sent: Instant::now(),
    };
    (receiver, sender)
}

/// Why a faulty link broke.
#[derive(Debug, thiserror::Error)]
pub enum Broken<E> {
    /// The fault injector has cut it.
    #[error("cut on purpose")]
    Cut,
    /// The link inside broke by itself.
    #[error(transparent)]
    Inner(E),
}

/// The half that receives.
#[derive(Debug)]
pub struct FaultyReceiver<R> {
    /// Gone when the link is cut, so that the peer sees it.
    inner: Option<R>,
    way: Way<Request>,
    /// The peer has left; what is on its way still comes.
    left: bool,
}

impl<R: LinkReceiver> LinkReceiver for FaultyReceiver<R> {
    type Error = Broken<R::Error>;

    async fn recv(&mut self) -> Result<Option<Request>, Self::Error> {
        loop {
            if self.way.is_cut() {
                self.inner = None;
                return Err(Broken::Cut);
            }
            if let Some(request) = self.way.take_due() {
                return Ok(Some(request));
            }
            let due = self.way.next_due();
            if self.left && due.is_none() {
                return Ok(None);
            }
            let Some(inner) = self.inner.as_mut() else {
                return Err(Broken::Cut);
            };
            let room = self.way.held.len() < MOST_HELD && !self.left;
            select! {
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                received = inner.recv(), if room => match received.map_err(Broken::Inner)? {
                    Some(request) => self.way.enter(request),
                    None => self.left = true,
                },
            }
        }
    }
}

/// The half that sends.
#[derive(Debug)]
pub struct FaultySender<S> {
    inner: S,
    way: Way<Event>,
    /// When the inner link last had something to send.
    sent: Instant,
}

impl<S: LinkSender> LinkSender for FaultySender<S> {
    type Error = Broken<S::Error>;

    fn credit(&mut self) -> usize {
        let room = MOST_HELD.min(self.inner.credit());
        room.saturating_sub(self.way.held.len())
    }

    fn push(&mut self, event: Event) -> Result<(), Self::Error> {
        self.way.enter(event);
        self.check()
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.check()?;
        while let Some(event) = self.way.take_due() {
            self.inner.push(event).map_err(Broken::Inner)?;
            self.sent = Instant::now();
        }
        self.inner.flush().await.map_err(Broken::Inner)
    }

    async fn close(&mut self, close: Close) {
        if self.check().is_ok() {
            self.inner.close(close).await;
        }
    }

    /// The session looks after the link when something held is due.
    fn quiet_limit(&self) -> Option<Duration> {
        let due = self.way.next_due();
        let due = due.map(|due| due.saturating_duration_since(Instant::now()));
        match (due, self.inner.quiet_limit()) {
            (Some(due), Some(limit)) => Some(due.min(limit)),
            (due, limit) => due.or(limit),
        }
    }

    fn keep_alive(&mut self) -> Result<(), Self::Error> {
        let limit = self.inner.quiet_limit();
        if limit.is_some_and(|limit| self.sent.elapsed() >= limit) {
            self.sent = Instant::now();
            self.inner.keep_alive().map_err(Broken::Inner)?;
        }
        Ok(())
    }
}

impl<S: LinkSender> FaultySender<S> {
    fn check(&self) -> Result<(), Broken<S::Error>> {
        match self.way.is_cut() {
            true => Err(Broken::Cut),
            false => Ok(()),
        }
    }
}

/// Messages on their way in one direction. Beyond it the receiving half reads no further and the sending
/// half has no credit.
const MOST_HELD: usize = 1_024;

/// One direction of a link.
#[derive(Debug)]
struct Way<M> {
    faults: Faults,
    random: fastrand::Rng,
    /// By the time at which they arrive.
    held: VecDeque<(Instant, M)>,
    /// What is late in order arrives here at the earliest.
    in_order_from: Instant,
    cut: Arc<AtomicBool>,
}

impl<M: Clone> Way<M> {
    fn new(faults: Faults, random: fastrand::Rng, cut: &Arc<AtomicBool>) -> Self {
        Self {
            faults,
            random,
            held: VecDeque::new(),
            in_order_from: Instant::now(),
            cut: Arc::clone(cut),
        }
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    fn enter(&mut self, message: M) {
        let faults = self.faults;
        if self.happens(faults.cut) {
            self.cut.store(true, Ordering::Relaxed);
            self.held.clear();
            return;
        }
        if self.happens(faults.drop) {
            return;
        }
        let now = Instant::now();
        if self.happens(faults.duplicate) {
            let at = now + self.lateness();
            self.hold(at, message.clone());
        }
        let at = if self.happens(faults.reorder) {
            now + self.lateness()
        } else {
            let late = match self.happens(faults.delay) {
                true => self.lateness(),
                false => Duration::ZERO,
            };
            self.in_order_from = self.in_order_from.max(now + late);
            self.in_order_from
        };
        self.hold(at, message);
    }

    /// The draw is made whatever the probability, so that one fault's does not change when others happen.
    fn happens(&mut self, probability: f64) -> bool {
        self.random.f64() < probability
    }

    fn lateness(&mut self) -> Duration {
        self.faults.latest.mul_f64(self.random.f64())
    }

    /// Behind what arrives at the same time.
    fn hold(&mut self, at: Instant, message: M) {
        let place = self.held.partition_point(|(due, _)| *due <= at);
        self.held.insert(place, (at, message));
    }

    fn next_due(&self) -> Option<Instant> {
        self.held.front().map(|(due, _)| *due)
    }

    fn take_due(&mut self) -> Option<M> {
        self.next_due().filter(|due| *due <= Instant::now())?;
        self.held.pop_front().map(|(_, message)| message)
    }
}
