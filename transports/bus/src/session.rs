//! One peer's subscriptions, and the loop that serves them over a link.

use core::{cmp::Reverse, future::poll_fn, mem, pin::pin, task::Poll, time::Duration};
use std::{
    collections::{BinaryHeap, HashMap},
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt, future::BoxFuture};
use latchbus_core::hub::{Counts, Cursor, Mode, Start, Step, SubscriptionId};
use tokio::{
    select,
    task::{coop, yield_now},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::bell::OnBell;
use crate::bus::{Behind, Client, Receipt, SessionLimits};
use crate::link::{Close, Event, LinkReceiver, LinkSender, Request, Subscribe};
use crate::outbox::{Answer, Outbox, Place};
use crate::refusal::SubscribeRefused;
use crate::shared::{Batch, Shared};
use crate::wake::{Wake, lock};
use crate::{Delivery, Peer};

/// Steps that are taken from the hub under one lock.
const BATCH: usize = 64;

/// Subscriptions whose counts a pong sums up: a ping must cost the others little.
const COUNTED: usize = 64;

/// How long a link that ends waits for the answers to what its peer has published.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a link may take to send its last answers and say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The subscriptions of one peer. They outlive its links: run the session again over another link, and
/// each subscription goes on where it was, as far as the hub's ring and log reach.
///
/// Dropping a session ends its subscriptions.
#[derive(Debug)]
pub struct Session {
    client: Client,
    wake: Wake,
    subscriptions: Arc<Subscriptions>,
    /// What the last link was not answered in time.
    late: Option<Outbox>,
}

/// Confirms what the durable subscriptions of a [`Session`] have brought.
#[derive(Debug, Clone)]
pub struct Confirmations(Arc<Subscriptions>);

impl Confirmations {
    /// See [`Session::confirm`].
    pub fn confirm(&self, subscription: u64, rev: u64) {
        self.0.confirm(subscription, rev);
    }
}

/// A session's subscriptions, which the bus looks at too.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    peer: Peer,
    shared: Arc<Shared>,
    entries: Mutex<HashMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    id: SubscriptionId,
    /// Whether it is a place in a group.
    grouped: bool,
    /// Whether others of the group come first.
    had_turn: bool,
    durable: bool,
    mode: Mode,
    pace: Option<Duration>,
    /// It stands on the hub's waiting list, once, and comes back through the mailbox. Else its key is in
    /// the mailbox or in the work of the write loop, once.
    waiting: bool,
    /// When its next batch may begin.
    not_before: Option<Instant>,
    /// The hub's revision when its batch began: what is newer belongs to the next one.
    batch_to: Option<u64>,
    synced: bool,
}

/// Why a run of a session has ended.
#[derive(Debug)]
pub enum Ended<R, S> {
    /// The peer has left as its protocol provides.
    Left,
    /// The receiving half broke.
    Receiver(R),
    /// The sending half broke.
    Sender(S),
    /// The caller has stopped the run.
    Stopped,
    /// The bus closes.
    Closing,
}

/// Vectors that a busy session keeps from one turn to the next; longer ones are given back.
const KEPT: usize = 16;

/// What the write loop has to do next. Its lists are bounded by the number of subscriptions.
#[derive(Debug)]
struct Work {
    /// The time at which this turn began.
    now: Instant,
    /// When something was last given to the link.
    sent_at: Instant,
    alarm: Alarm,
    /// Subscriptions that may have news.
    ready: Vec<u64>,
    /// Places in groups that have no news, until the link is flushed: who cannot send is to take no turn.
    idle: Vec<u64>,
    /// Whether a turn in a group was taken: the others are to come in between.
    took_turn: bool,
    /// Subscriptions that have news and are paced.
    paused: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Subscriptions whose news were taken out of the mailbox: empty between two turns, as are the next two.
    fresh: Vec<u64>,
    /// Subscriptions that have more than the link took.
    unfinished: Vec<u64>,
    /// What was taken of one subscription, at most [`BATCH`].
    steps: Vec<Step<Delivery>>,
}

impl Session {
    /// A session without subscriptions.
    pub fn new(client: Client) -> Self {
        let bus = client.bus();
        let subscriptions = Arc::new(Subscriptions {
            peer: client.peer().clone(),
            shared: bus.share(),
            entries: Mutex::default(),
        });
        bus.note_session(&subscriptions);
        Self {
            client,
            wake: Wake::default(),
            subscriptions,
            late: None,
        }
    }

    /// Makes the loop look again at the link's credit and buffer.
    pub fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// The peer that it belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The ids of its subscriptions, in no order.
    pub fn subscription_ids(&self) -> Vec<u64> {
        lock(&self.subscriptions.entries).keys().copied().collect()
    }

    /// Gives messages that a place in a group has taken, and that its peer will not finish, to the other
    /// members of the group (MQTT 5 §4.8.2): for a session that is about to end. Those of other
    /// subscriptions were meant for this session alone, and are dropped.
    pub fn give_back(&self, subscription: u64, deliveries: Vec<Delivery>) {
        let entries = lock(&self.subscriptions.entries);
        if let Some(entry) = entries.get(&subscription).filter(|entry| entry.grouped) {
            let bus = self.client.bus();
            let lost = bus.shared().give_back(entry.id, deliveries);
            bus.metrics().skipped.add(lost as u64);
        }
    }

    /// Begins subscriptions while there is no link: those of a session that outlived a restart, say, with
    /// [`Start::Resume`] and the cursors that were stored for them. The next link serves them. A result for each,
    /// in their order.
    pub fn restore(&self, subscriptions: Vec<Subscribe>) -> Vec<Result<(), SubscribeRefused>> {
        let mut begun = Vec::new();
        subscriptions
            .into_iter()
            .map(|subscribe| self.subscribe(subscribe, &mut begun))
            .collect()
    }

    /// Where a subscription stands: the newest revision that was taken from it for the link, with all before
    /// that were for it. None when it is not there, or a place in a group.
    pub fn cursor(&self, subscription: u64) -> Option<Cursor> {
        let id = {
            let subscriptions = lock(&self.subscriptions.entries);
            subscriptions
                .get(&subscription)
                .filter(|it| !it.grouped)?
                .id
        };
        let bus = self.client.bus();
        let rev = bus.read(|hub| hub.taken(id)).ok()?;
        let epoch = bus.epoch();
        Some(Cursor { epoch, rev })
    }

    /// What a durable subscription has brought up to `rev` is acknowledged, and needs no storing for it any
    /// more. A lower number than before changes nothing.
    pub fn confirm(&self, subscription: u64, rev: u64) {
        self.subscriptions.confirm(subscription, rev);
    }

    /// A handle that [confirms](Self::confirm) while a link is being served.
    pub fn confirmations(&self) -> Confirmations {
        Confirmations(Arc::clone(&self.subscriptions))
    }

    /// Serves a link until one side ends it: see [`Ended`]. Reading and writing run side by side in this
    /// one task. What can be sent within two seconds is sent, and then [`LinkSender::close`] is
    /// called, in each case but a failure to send.
    pub async fn run<R: LinkReceiver, S: LinkSender>(
        &mut self,
        mut receiver: R,
        sender: &mut S,
        stop: CancellationToken,
    ) -> Ended<R::Error, S::Error> {
        let closing = self.client.bus().closing();
        let in_flight = self.client.bus().session_limits().in_flight;
        let outbox = Outbox::new(in_flight);
        self.late = None;
        let ended = {
            let signal = pin!(async {
                select! {
                    biased;
                    () = stop.cancelled() => Ended::Stopped,
                    () = closing.cancelled() => Ended::Closing,
                }
            });
            let read = pin!(self.read(&mut receiver, &outbox));
            let (mut signal, mut read) = (OnBell::new(signal), OnBell::new(read));
            let (mut write, mut reads_first) = (pin!(self.write(sender, &outbox)), false);
            select! {
                biased;
                ended = &mut signal => ended,
                // Each is first every other time: a peer that never stops sending must not keep the writing from its
                // turn, and an order of chance would make no two runs of a simulation the same.
                ended = poll_fn(|cx| {
                    reads_first = !reads_first;
                    for reads in [reads_first, !reads_first] {
                        if reads && let Poll::Ready(ended) = read.poll_unpin(cx) {
                            return Poll::Ready(match ended {
                                Ok(()) => Ended::Left,
                                Err(error) => Ended::Receiver(error),
                            });
                        }
                        if !reads && let Poll::Ready(error) = write.poll_unpin(cx) {
                            return Poll::Ready(Ended::Sender(error));
                        }
                    }
                    Poll::Pending
                }) => ended,
            }
        };
        outbox.end();
        self.skip_turns();
        let close = match ended {
            Ended::Sender(_) => None,
            Ended::Left | Ended::Receiver(_) => Some(Close::ReceiverEnded),
            Ended::Stopped => Some(Close::TakenOver),
            Ended::Closing => Some(Close::GoingAway),
        };
        // A sender that has failed still learns which publishes were answered. A store that is stuck
        // does not answer any more, and the peer is still told goodbye.
        let answers = async {
            while let Some(event) = outbox.next().await {
                if sender.push(event).is_err() {
                    return;
                }
            }
        };
        let answered = timeout(ANSWER_TIMEOUT, answers).await;
        self.late = answered.is_err().then_some(outbox);
        if let Some(close) = close {
            // A peer that reads too slowly for this hears nothing more.
            let _too_slow = timeout(CLOSE_TIMEOUT, async {
                if sender.flush().await.is_ok() {
                    sender.close(close).await;
                }
            })
            .await;
        }
        ended
    }

    /// The next answer to what came over the last link, when [`run`](Self::run) has stopped waiting for it: what
    /// was published may still be accepted, and a peer that is to repeat what was not can be told apart from
    /// one that is not. None when there are no more. Cancel-safe.
    pub async fn late_answer(&mut self) -> Option<Event> {
        match &self.late {
            Some(outbox) => outbox.next().await,
            None => None,
        }
    }

    async fn read<R: LinkReceiver>(
        &self,
        receiver: &mut R,
        outbox: &Outbox,
    ) -> Result<(), R::Error> {
        loop {
            let Some(request) = receiver.recv().await? else {
                return Ok(());
            };
            // The place for its answer comes first: a publish that was made is always answered, as far as
            // the sender's state machine is concerned.
            let place = outbox.reserve().await;
            if let Err(full) = self.answer(request, place) {
                full.publish().await;
            }
            // A peer that never stops sending must not keep the other connections from their turns.
            coop::consume_budget().await;
        }
    }

    /// Does what is asked, and puts the answer, or the promise of it, into its place.
    fn answer<'a>(&'a self, request: Request, place: Place<'a>) -> Result<(), Full<'a>> {
        let answer = match request {
            Request::Publish { id, publish } => {
                return match self.client.begin_publish(publish) {
                    Ok(receipt) => {
                        place.promise(id, receipt);
                        Ok(())
                    }
                    Err(room) => Err(Full { id, room, place }),
                };
            }
            Request::Subscribe { id, subscriptions } => {
                let mut begun = Vec::new();
                let results = subscriptions
                    .into_iter()
                    .map(|subscribe| (subscribe.id, self.subscribe(subscribe, &mut begun)))
                    .collect();
                place.send(Answer::Event(Event::Subscribed { id, results }));
                // Only now, so that the answer goes out before the first message.
                begun.into_iter().for_each(|key| self.wake.ready(key));
                return Ok(());
            }
            Request::Unsubscribe { id, subscriptions } => {
                let existed = subscriptions.into_iter().map(|key| self.unsubscribe(key));
                let existed = existed.collect();
                Event::Unsubscribed { id, existed }
            }
            Request::Ping { id } => {
                let counts = self.subscriptions.counts(COUNTED);
                Event::Pong { id, counts }
            }
            Request::Bad { id, code, message } => Event::Bad { id, code, message },
        };
        place.send(Answer::Event(answer));
        Ok(())
    }

    /// Begins a subscription, or begins it again. Its key is added to `begun` unless it is on its way
    /// to the write loop already.
    fn subscribe(
        &self,
        subscribe: Subscribe,
        begun: &mut Vec<u64>,
    ) -> Result<(), SubscribeRefused> {
        let bus = self.client.bus();
        let filter = subscribe.filter.borrowed();
        bus.check_subscribe(self.client.peer(), filter)?;
        let mut subscriptions = lock(&self.subscriptions.entries);
        let SessionLimits {
            subscriptions: limit,
            pace,
            ..
        } = bus.session_limits();
        let pace = match subscribe.mode {
            Mode::Latest => Some(subscribe.pace.unwrap_or(pace)).filter(|pace| !pace.is_zero()),
            Mode::Every => subscribe.pace,
        };
        if subscriptions.len() >= limit && !subscriptions.contains_key(&subscribe.id) {
            return Err(SubscribeRefused::SessionFull { limit });
        }
        if let Some(entry) = subscriptions.get_mut(&subscribe.id)
            && !entry.grouped
            && subscribe.group.is_none()
            && (entry.mode, Start::Snapshot, entry.durable)
                == (subscribe.mode, subscribe.start, subscribe.durable)
            && bus.shared().rewind(entry.id, filter)
        {
            // The same again: the snapshot comes once more, and the flow of events is not
            // interrupted (MQTT 3.1.1 §3.8.4).
            (entry.pace, entry.synced, entry.not_before) = (pace, false, None);
            if mem::take(&mut entry.waiting) {
                begun.push(subscribe.id);
            }
            return Ok(());
        }
        let grouped = subscribe.group.is_some();
        let id = match subscribe.group {
            Some(group) => bus.shared().join(group, filter, subscribe.mode)?,
            None => {
                let (mode, start) = (subscribe.mode, subscribe.start);
                match subscribe.durable {
                    true => bus.shared().subscribe_durably(filter, mode, start)?,
                    false => bus.shared().subscribe(filter, mode, start)?,
                }
            }
        };
        let entry = Entry {
            id,
            grouped,
            had_turn: true,
            durable: subscribe.durable,
            mode: subscribe.mode,
            pace,
            waiting: false,
            not_before: None,
            batch_to: None,
            synced: false,
        };
        let replaced = subscriptions.insert(subscribe.id, entry);
        if replaced.as_ref().is_none_or(|replaced| replaced.waiting) {
            begun.push(subscribe.id);
        }
        if let Some(replaced) = replaced {
            self.end(&replaced);
        }
        Ok(())
    }

    fn unsubscribe(&self, key: u64) -> bool {
        let ended = lock(&self.subscriptions.entries).remove(&key);
        ended.inspect(|entry| self.end(entry)).is_some()
    }

    fn end(&self, entry: &Entry) {
        let bus = self.client.bus();
        bus.metrics().ended(match entry.grouped {
            true => bus.shared().leave(entry.id, &self.wake),
            false => bus.shared().unsubscribe(entry.id),
        });
    }

    /// Sends answers and messages until the link breaks.
    async fn write<S: LinkSender>(&self, sender: &mut S, outbox: &Outbox) -> S::Error {
        let mut work = self.unfinished();
        loop {
            match self.write_once(sender, outbox, &mut work).await {
                Ok(()) if mem::take(&mut work.took_turn) => yield_now().await,
                Ok(()) => coop::consume_budget().await,
                Err(error) => return error,
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
            alarm: Alarm::default(),
            ready: running.map(|(key, _)| *key).collect(),
            idle: Vec::new(),
            took_turn: false,
            paused: BinaryHeap::new(),
            fresh: Vec::new(),
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
        while let Some(event) = outbox.try_next() {
            work.sent_at = work.now;
            sender.push(event)?;
        }
        self.collect_ready(work);
        self.deliver(sender, work)?;
        let quiet_until = sender.quiet_limit().map(|limit| work.sent_at + limit);
        if quiet_until.is_some_and(|until| until <= work.now) {
            work.sent_at = work.now;
            sender.keep_alive()?;
        }
        sender.flush().await?;
        self.await_turns(work);
        if !work.ready.is_empty() && sender.credit() > 0 {
            return Ok(());
        }
        let resume_at = work.paused.peek().map(|Reverse((at, _))| *at);
        let look_at = [quiet_until, resume_at].into_iter().flatten().min();
        select! {
            biased;
            Some(event) = outbox.next() => {
                work.sent_at = work.now;
                sender.push(event)?;
            }
            () = self.wake.woken() => {}
            () = work.alarm.ring(look_at) => {}
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
            let Some(entry) = subscriptions.get_mut(&key).filter(|entry| !entry.waiting) else {
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
    fn skip_turns(&self) {
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
            if let Some(entry) = subscriptions.get(key).filter(|entry| entry.grouped) {
                self.client.bus().shared().pass_turn(entry.id);
            }
        }
    }

    fn collect_ready(&self, work: &mut Work) {
        self.wake.take_ready(&mut work.fresh);
        if !work.fresh.is_empty() {
            let mut subscriptions = lock(&self.subscriptions.entries);
            for key in work.fresh.drain(..) {
                if let Some(entry) = subscriptions.get_mut(&key) {
                    entry.waiting = false;
                    work.ready.push(key);
                }
            }
        }
        while let Some(Reverse((at, key))) = work.paused.peek().copied() {
            if at > work.now {
                break;
            }
            work.paused.pop();
            work.ready.push(key);
        }
    }

    /// Gives the link what the ready subscriptions have, in turn, as far as its credit goes.
    fn deliver<S: LinkSender>(&self, sender: &mut S, work: &mut Work) -> Result<(), S::Error> {
        let mut sent = 0;
        while let Some(key) = work.ready.pop() {
            let credit = sender.credit();
            if credit == 0 {
                work.unfinished.push(key);
                break;
            }
            match self.take(key, credit.min(BATCH), work.now, &mut work.steps) {
                Next::Waits => {}
                Next::Idle => work.idle.push(key),
                Next::Ready => work.unfinished.push(key),
                Next::Turn => {
                    work.took_turn = true;
                    work.unfinished.push(key);
                }
                Next::Paused(until) => work.paused.push(Reverse((until, key))),
            }
            for step in work.steps.drain(..) {
                work.sent_at = work.now;
                sent += u64::from(matches!(step, Step::Entry { .. }));
                sender.push(event(key, step))?;
            }
        }
        // Those that had their turn go behind those that had none.
        work.unfinished.append(&mut work.ready);
        mem::swap(&mut work.ready, &mut work.unfinished);
        if work.steps.capacity() > KEPT {
            work.steps = Vec::new();
        }
        if sender.credit() == 0 {
            self.pass_turns(&work.ready);
        }
        if sent > 0 {
            self.client.bus().metrics().messages_sent.add(sent);
        }
        Ok(())
    }

    /// Takes a batch of one subscription.
    fn take(&self, key: u64, most: usize, now: Instant, steps: &mut Vec<Step<Delivery>>) -> Next {
        let mut subscriptions = lock(&self.subscriptions.entries);
        let Some(entry) = subscriptions.get_mut(&key).filter(|entry| !entry.waiting) else {
            return Next::Waits;
        };
        if entry.grouped {
            let turn = self
                .client
                .bus()
                .shared()
                .take_turn(entry.id, |step| steps.push(step));
            return match turn.0 {
                Batch::More => {
                    entry.had_turn = true;
                    Next::Turn
                }
                Batch::Idle => Next::Idle,
                Batch::Complete | Batch::Waiting | Batch::Ended => Next::Waits,
            };
        }
        if let Some(until) = entry.not_before.filter(|until| *until > now) {
            return Next::Paused(until);
        }
        let (mut newest, mut synced) = (0, entry.synced);
        let until = entry.pace.and(entry.batch_to);
        let (batch, revision) =
            self.client
                .bus()
                .shared()
                .take(entry.id, (most, until), (&self.wake, key), |step| {
                    match &step {
                        Step::Entry { entry, .. } => newest = entry.rev,
                        Step::Synced { .. } => synced = true,
                        Step::Reset => synced = false,
                        Step::Gap { .. } => {}
                    }
                    steps.push(step);
                });
        entry.synced = synced;
        let batch_to = *entry.batch_to.get_or_insert(revision);
        let complete = matches!(batch, Batch::Waiting | Batch::Complete) || newest > batch_to;
        if complete {
            entry.batch_to = None;
            // A snapshot is not paced: it has each topic once anyway.
            entry.not_before = entry
                .pace
                .filter(|_| synced && newest > 0)
                .map(|pace| now + pace);
        }
        match (batch, entry.not_before) {
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

impl Drop for Session {
    fn drop(&mut self) {
        let entries = mem::take(&mut *lock(&self.subscriptions.entries));
        for entry in entries.values() {
            self.end(entry);
        }
    }
}

impl Subscriptions {
    fn confirm(&self, subscription: u64, rev: u64) {
        let id = lock(&self.entries).get(&subscription).map(|entry| entry.id);
        if let Some(id) = id {
            self.shared.confirm(id, rev);
        }
    }

    /// What its client has lost. What a group has lost was nobody's in particular.
    pub(crate) fn behind(&self) -> Behind {
        let counts = self.counts(usize::MAX);
        Behind {
            peer: self.peer.clone(),
            conflated: counts.conflated,
            skipped: counts.skipped,
        }
    }

    /// What became of the messages of up to so many of its subscriptions, in sum.
    fn counts(&self, most: usize) -> Counts {
        let entries = lock(&self.entries);
        let own = entries.values().filter(|entry| !entry.grouped).take(most);
        self.shared.read(|hub| {
            let counts = own.filter_map(|entry| hub.subscription_counts(entry.id).ok());
            counts.fold(Counts::default(), |sum, counts| Counts {
                taken: sum.taken + counts.taken,
                conflated: sum.conflated + counts.conflated,
                skipped: sum.skipped + counts.skipped,
            })
        })
    }
}

/// A publish for which the store's queue has no room yet.
struct Full<'a> {
    id: Option<u64>,
    room: BoxFuture<'a, Receipt>,
    place: Place<'a>,
}

impl Full<'_> {
    async fn publish(self) {
        let Self { id, room, place } = self;
        place.promise(id, room.await);
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
