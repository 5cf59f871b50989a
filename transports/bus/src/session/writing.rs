//! The half of a session that sends what its subscriptions have, in turn.

use core::{cmp::Reverse, future::poll_fn, mem, task::Poll};
use std::collections::BinaryHeap;

use latchbus_core::hub::{Step, SubscriptionId};
use tokio::{
    task::{coop, yield_now},
    time::Instant,
};

use super::Session;
use crate::Delivery;
use crate::alarm::Alarm;
use crate::link::{Event, LinkSender};
use crate::outbox::Outbox;
use crate::shared::{Batch, InOrder};
use crate::wake::lock;

/// Steps that are taken from the hub under one lock.
const BATCH: usize = 64;

/// Vectors that a busy session keeps from one turn to the next; longer ones are given back.
const KEPT: usize = 16;

/// What the write loop has to do next. Its lists are bounded by the number of subscriptions.
#[derive(Debug)]
struct Work {
    /// The time at which this turn began.
    now: Instant,
    /// When something was last given to the link.
    sent_at: Instant,
    /// Bytes of payloads that were given to the link in this turn.
    sent_bytes: u64,
    alarm: Alarm,
    /// Subscriptions that may have news, and take turns.
    ready: Vec<u64>,
    /// Those whose messages go out in one order.
    in_order: InOrder,
    /// Whether these come first in the next turn: every other time.
    order_first: bool,
    /// Whether news are on their way to some of them: nothing newer is to go out before.
    announcing: bool,
    /// Whether the bus is closing, and, if so, whether all was sent.
    closing: bool,
    drained: bool,
    /// Places in groups that have no news, until the link is flushed: who cannot send is to take no turn.
    idle: Vec<u64>,
    /// Whether a turn in a group was taken: the others are to come in between.
    took_turn: bool,
    /// Subscriptions that have news and are paced.
    paused: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Subscriptions whose news were taken out of the mailbox: empty between two turns, as are the next three.
    fresh: Vec<u64>,
    /// Subscriptions in one order that have all there is, or have ended.
    done: Vec<(u64, SubscriptionId)>,
    /// Subscriptions that have more than the link took.
    unfinished: Vec<u64>,
    /// What was taken, at most [`BATCH`], with the key of its subscription.
    steps: Vec<(u64, Step<Delivery>)>,
}

impl Session {
    /// Sends answers and messages until the link breaks, or until all that there is was sent and the bus closes.
    pub(super) async fn write<S: LinkSender>(
        &self,
        sender: &mut S,
        outbox: &Outbox,
    ) -> Result<(), S::Error> {
        let mut work = self.unfinished();
        loop {
            match self.write_once(sender, outbox, &mut work).await {
                Ok(()) if work.drained => return Ok(()),
                Ok(()) if mem::take(&mut work.took_turn) || mem::take(&mut work.announcing) => {
                    yield_now().await;
                }
                Ok(()) => coop::consume_budget().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Subscriptions that an earlier run has left in the middle.
    fn unfinished(&self) -> Work {
        let subscriptions = lock(&self.subscriptions.entries);
        let running = subscriptions.iter().filter(|(_, entry)| !entry.waiting);
        let now = Instant::now();
        Work {
            now,
            sent_at: now,
            sent_bytes: 0,
            alarm: Alarm::default(),
            ready: running.map(|(key, _)| key).collect(),
            in_order: InOrder::new(),
            order_first: false,
            announcing: false,
            closing: false,
            drained: false,
            idle: Vec::new(),
            took_turn: false,
            paused: BinaryHeap::new(),
            fresh: Vec::new(),
            done: Vec::new(),
            unfinished: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Sends what there is, then waits until there may be more.
    async fn write_once<S: LinkSender>(
        &self,
        sender: &mut S,
        outbox: &Outbox,
        work: &mut Work,
    ) -> Result<(), S::Error> {
        work.now = Instant::now();
        // Before the mailbox is emptied, too.
        work.closing = self.client.bus().is_closed();
        while let Some(event) = outbox.try_next() {
            work.sent_at = work.now;
            sender.push(event)?;
        }
        // Before the mailbox is emptied.
        let announced = self.announced();
        self.collect_ready(work, announced.is_some());
        self.deliver(sender, work, announced.unwrap_or(u64::MAX))?;
        let quiet_until = sender.quiet_limit().map(|limit| work.sent_at + limit);
        if quiet_until.is_some_and(|until| until <= work.now) {
            work.sent_at = work.now;
            sender.keep_alive()?;
        }
        sender.flush().await?;
        self.await_turns(work);
        let has_more = !work.ready.is_empty() || !work.in_order.is_empty();
        if has_more && sender.credit() > 0 {
            return Ok(());
        }
        let is_idle = !has_more && work.paused.is_empty();
        if work.closing && is_idle && !sender.has_unsent() {
            work.drained = true;
            return Ok(());
        }
        let closing = work.closing;
        let resume_at = work.paused.peek().map(|Reverse((at, _))| *at);
        let look_at = [quiet_until, resume_at].into_iter().flatten().min();
        let answer = poll_fn(|cx| {
            if let Poll::Ready(Some(event)) = outbox.poll_next(cx) {
                return Poll::Ready(Some(event));
            }
            if !closing && self.client.bus().is_closed() {
                return Poll::Ready(None);
            }
            match self.wake.poll_woken(cx).is_ready()
                || work.alarm.poll_ring(look_at, cx).is_ready()
            {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        });
        if let Some(event) = answer.await {
            work.sent_at = work.now;
            sender.push(event)?;
        }
        Ok(())
    }

    /// The places in groups that had nothing wait for their turns.
    fn await_turns(&self, work: &mut Work) {
        if work.idle.is_empty() {
            return;
        }
        let mut subscriptions = lock(&self.subscriptions.entries);
        for key in work.idle.drain(..) {
            let Some(entry) = subscriptions.get_mut(key).filter(|entry| !entry.waiting) else {
                continue;
            };
            let shared = self.client.bus().shared();
            entry.waiting = shared.wait_for_turn(entry.id, (&self.wake, key), entry.had_turn);
            if entry.waiting {
                entry.had_turn = false;
            } else {
                work.ready.push(key);
            }
        }
    }

    /// Nobody sends what the places in groups would take: the other members are to.
    pub(super) fn skip_turns(&self) {
        for entry in lock(&self.subscriptions.entries).values_mut() {
            if entry.grouped {
                entry.waiting = false;
                self.client.bus().shared().skip_turns(entry.id, &self.wake);
            }
        }
    }

    fn pass_turns(&self, keys: &[u64]) {
        let subscriptions = lock(&self.subscriptions.entries);
        for key in keys {
            if let Some(entry) = subscriptions.get(*key).filter(|entry| entry.grouped) {
                self.client.bus().shared().pass_turn(entry.id);
            }
        }
    }

    /// Up to which revision the mailbox has all news, where messages of several subscriptions go out in one order.
    fn announced(&self) -> Option<u64> {
        let several = lock(&self.subscriptions.entries).len() > 1;
        several.then(|| self.client.bus().shared().announced())
    }

    /// Moves those with one order out of the others.
    fn put_in_order(&self, work: &mut Work) {
        let subscriptions = lock(&self.subscriptions.entries);
        let in_order = &mut work.in_order;
        work.ready.retain(|key| {
            let entry = subscriptions.get(*key);
            let entry = entry.filter(|entry| !entry.grouped && !entry.pacing.is_paced());
            let Some(entry) = entry.filter(|entry| !entry.waiting) else {
                return true;
            };
            in_order.push(Reverse((0, *key, entry.id)));
            false
        });
    }

    fn collect_ready(&self, work: &mut Work, several: bool) {
        self.wake.take_ready(&mut work.fresh);
        if !work.fresh.is_empty() {
            let mut subscriptions = lock(&self.subscriptions.entries);
            for key in work.fresh.drain(..) {
                if let Some(entry) = subscriptions.get_mut(key) {
                    entry.waiting = false;
                    work.ready.push(key);
                }
            }
        }
        while let Some(Reverse((at, key))) = work.paused.peek().copied() {
            if at > work.now && !work.closing {
                break;
            }
            work.paused.pop();
            work.ready.push(key);
        }
        if several && !work.ready.is_empty() {
            self.put_in_order(work);
        }
    }

    /// Gives the link what the ready subscriptions have, as far as its credit goes.
    fn deliver<S: LinkSender>(
        &self,
        sender: &mut S,
        work: &mut Work,
        announced: u64,
    ) -> Result<(), S::Error> {
        let mut sent = 0;
        work.order_first = !work.order_first;
        let order_first = work.order_first;
        for in_order in [order_first, !order_first] {
            sent += match in_order {
                true => self.deliver_in_order(sender, work, announced)?,
                false => self.deliver_in_turn(sender, work)?,
            };
        }
        if work.steps.capacity() > KEPT {
            work.steps = Vec::new();
        }
        if sender.credit() == 0 {
            self.pass_turns(&work.ready);
        }
        if sent > 0 {
            let metrics = self.client.bus().metrics();
            metrics.messages_sent.add(sent);
            metrics
                .payload_bytes_sent
                .add(mem::take(&mut work.sent_bytes));
        }
        Ok(())
    }

    /// What was taken goes to the link: how many messages.
    fn push<S: LinkSender>(&self, sender: &mut S, work: &mut Work) -> Result<u64, S::Error> {
        let mut sent = 0;
        for (key, step) in work.steps.drain(..) {
            work.sent_at = work.now;
            if let Step::Entry { entry, .. } = &step {
                sent += 1;
                work.sent_bytes += entry.payload.bytes().len() as u64;
            }
            if let Step::Gap { missed } = step {
                self.client.log_missed(missed);
            }
            sender.push(event(key, step))?;
        }
        Ok(sent)
    }

    fn deliver_in_turn<S: LinkSender>(
        &self,
        sender: &mut S,
        work: &mut Work,
    ) -> Result<u64, S::Error> {
        let mut sent = 0;
        while let Some(key) = work.ready.pop() {
            let credit = sender.credit();
            if credit == 0 {
                work.unfinished.push(key);
                break;
            }
            match self.take(key, credit.min(BATCH), work) {
                Next::Waits => {}
                Next::Idle => work.idle.push(key),
                Next::Ready => work.unfinished.push(key),
                Next::Turn => {
                    work.took_turn = true;
                    work.unfinished.push(key);
                }
                Next::Paused(until) => work.paused.push(Reverse((until, key))),
            }
            sent += self.push(sender, work)?;
        }
        // Those that had their turn go behind those that had none.
        work.unfinished.append(&mut work.ready);
        mem::swap(&mut work.ready, &mut work.unfinished);
        Ok(sent)
    }

    /// What the subscriptions without a pace have, in the order of the hub, whichever of them brings it.
    fn deliver_in_order<S: LinkSender>(
        &self,
        sender: &mut S,
        work: &mut Work,
        announced: u64,
    ) -> Result<u64, S::Error> {
        let credit = sender.credit();
        if work.in_order.is_empty() || credit == 0 {
            return Ok(0);
        }
        let mut subscriptions = lock(&self.subscriptions.entries);
        let steps = &mut work.steps;
        let mut done = mem::take(&mut work.done);
        self.client.bus().shared().take_in_order(
            &mut work.in_order,
            (credit.min(BATCH), announced),
            &self.wake,
            |key, step| steps.push((key, step)),
            |key, id| done.push((key, id)),
        );
        for (key, id) in done.drain(..) {
            match subscriptions.get_mut(key) {
                Some(entry) if entry.id == id => entry.waiting = true,
                // It was replaced while it had news.
                Some(_) => work.ready.push(key),
                None => {}
            }
        }
        work.done = done;
        drop(subscriptions);
        work.announcing = (work.in_order.peek()).is_some_and(|Reverse((at, ..))| *at > announced);
        self.push(sender, work)
    }

    /// Takes a batch of one subscription.
    fn take(&self, key: u64, most: usize, work: &mut Work) -> Next {
        let (now, steps) = (work.now, &mut work.steps);
        let mut subscriptions = lock(&self.subscriptions.entries);
        let Some(entry) = subscriptions.get_mut(key).filter(|entry| !entry.waiting) else {
            return Next::Waits;
        };
        if entry.grouped {
            let turn =
                self.client
                    .bus()
                    .shared()
                    .take_turn(entry.id, entry.reader.as_ref(), |step| {
                        steps.push((key, step));
                    });
            if turn.1 > 0 {
                self.client.bus().metrics().skipped.add(turn.1);
            }
            return match turn.0 {
                Batch::More => {
                    entry.had_turn = true;
                    Next::Turn
                }
                Batch::Idle => Next::Idle,
                Batch::Complete | Batch::Waiting | Batch::Ended => Next::Waits,
            };
        }
        let pacing = &mut entry.pacing;
        if let Some(until) = pacing.paused_until(now)
            && !work.closing
        {
            return Next::Paused(until);
        }
        let (mut newest, until) = (0, pacing.batch_to());
        let (batch, revision) =
            self.client
                .bus()
                .shared()
                .take(entry.id, (most, until), (&self.wake, key), |step| {
                    pacing.took(&step, &mut newest);
                    steps.push((key, step));
                });
        let (complete, not_before) =
            pacing.turn_ended((batch, newest), revision, now, work.closing);
        match (batch, not_before) {
            (Batch::Ended | Batch::Idle, _) => Next::Waits,
            (Batch::Waiting, _) => {
                entry.waiting = true;
                Next::Waits
            }
            (_, Some(until)) if complete => Next::Paused(until),
            (Batch::More | Batch::Complete, _) => Next::Ready,
        }
    }
}

/// What a subscription does after its turn.
enum Next {
    /// It has no news, or is gone.
    Waits,
    /// It is a place in a group that has no news.
    Idle,
    /// It has taken a turn in its group.
    Turn,
    Ready,
    Paused(Instant),
}

fn event(subscription: u64, step: Step<Delivery>) -> Event {
    match step {
        Step::Reset => Event::Reset { subscription },
        Step::Gap { missed } => Event::Gap {
            subscription,
            missed,
        },
        Step::Entry { entry, retained } => Event::Message {
            subscription,
            delivery: entry,
            retained,
        },
        Step::Synced { cursor } => Event::Synced {
            subscription,
            cursor,
        },
    }
}
