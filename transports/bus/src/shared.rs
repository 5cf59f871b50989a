//! The hub behind its lock, and who waits for news of it.

mod taking;

use core::{
    mem,
    sync::atomic::{AtomicUsize, Ordering},
};
use std::sync::{Arc, Mutex};

use latchbus_core::hub::{
    Counts, EarlierLife, Hub, HubCounts, Kind, Limits, Mode, PublishError, Retain, Start, Step,
    SubscribeError, SubscriptionId, Upcoming, ViewId,
};
use latchbus_core::topic::{TopicFilter, TopicName};

use crate::access::Reader;
use crate::bus::{ClickLimits, Subscribed};
use crate::capacity::with_own_places;
use crate::clock::Clock;
use crate::durable::Durables;
use crate::group::Groups;
use crate::holdings::{self, Bounds, Held, Holder, Holdings, Value};
use crate::store::position;
use crate::wake::{Wake, lock};
use crate::{Delivery, Payload};

pub(crate) use self::taking::InOrder;

/// The hub that all clients share. Its lock is held for a few operations at a time, never over an
/// await.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Changes whose waiters are being woken. It grows under the lock of the state.
    announcing: AtomicUsize,
    /// The list of those whom the last change woke, empty: its memory becomes the next waiting list.
    spare: Mutex<Vec<Waiter>>,
    pub(crate) epoch: u64,
    /// What peers may fill.
    pub(crate) limits: Limits,
    /// What one user may hold of it.
    pub(crate) held_limits: Option<Bounds>,
    pub(crate) clock: Clock,
}

#[derive(Debug)]
struct State {
    hub: Hub<Payload>,
    /// Who holds how much of it, where that is bounded.
    holdings: Option<Holdings>,
    /// By view: the subscriptions that have taken all there was. A publish empties the lists of the views
    /// that it matches, so each waiter is woken once however many messages come before it runs.
    waiting: Vec<Vec<Waiter>>,
    groups: Groups,
    durables: Durables,
    /// Whether a log gives the revisions: the hub then goes on by itself within the position where it stands.
    logged: bool,
    /// The hub goes no further.
    stopped: bool,
    expired: u64,
    /// While changes are announced: up to here they all are.
    announced: u64,
}

/// A session's subscription that has taken all there was.
#[derive(Debug)]
pub(crate) struct Waiter {
    wake: Wake,
    key: u64,
    id: SubscriptionId,
}

/// A run of changes under one lock, and whom they wake after it.
pub(crate) struct Changes<'a> {
    state: &'a mut State,
    woken: &'a mut Vec<Waiter>,
}

/// What a batch of steps ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Batch {
    /// There may be more.
    More,
    /// What comes next is newer than was asked for.
    Complete,
    /// The subscription has all there is and waits to be woken.
    Waiting,
    /// It has all there is, and is to wait for its turn: see [`Shared::wait_for_turn`].
    Idle,
    /// There is no such subscription any more.
    Ended,
}

/// Steps that one turn in a group looks at under one lock.
const LOOKED_AT: usize = 64;

fn wake_all(waiters: impl IntoIterator<Item = Waiter>) {
    for waiter in waiters {
        waiter.wake.ready(waiter.key);
    }
}

impl Shared {
    pub(crate) fn new(
        epoch: u64,
        (limits, clicks): (Limits, ClickLimits),
        held_limits: Option<Bounds>,
        clock: Clock,
    ) -> Self {
        let of_hub = with_own_places(limits, clicks);
        Self {
            state: Mutex::new(State {
                hub: Hub::new(epoch, of_hub),
                holdings: held_limits.map(|_| Holdings::default()),
                waiting: Vec::new(),
                groups: Groups::default(),
                durables: Durables::default(),
                logged: false,
                stopped: false,
                expired: 0,
                announced: 0,
            }),
            announcing: AtomicUsize::new(0),
            spare: Mutex::default(),
            epoch,
            limits,
            held_limits,
            clock,
        }
    }

    /// Makes changes under one lock and wakes whoever they concern after it.
    pub(crate) fn change<T>(&self, changes: impl FnOnce(&mut Changes<'_>) -> T) -> T {
        let mut woken = mem::take(&mut *lock(&self.spare));
        let result = {
            let mut state = lock(&self.state);
            if self.announcing.fetch_add(1, Ordering::AcqRel) == 0 {
                state.announced = state.hub.revision();
            }
            changes(&mut Changes {
                state: &mut state,
                woken: &mut woken,
            })
        };
        wake_all(woken.drain(..));
        self.announcing.fetch_sub(1, Ordering::AcqRel);
        *lock(&self.spare) = woken;
        result
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Hub<Payload>) -> T) -> T {
        read(&lock(&self.state).hub)
    }

    /// The values that a topic retains, and what somebody holds of all that is retained.
    pub(crate) fn held(&self, topic: TopicName<&str>, holder: &Holder) -> (Vec<Value>, Held) {
        let state = lock(&self.state);
        let held = state.holdings.as_ref().map(|all| all.of(holder));
        (
            holdings::values(&state.hub, topic),
            held.unwrap_or_default(),
        )
    }

    /// What everybody holds: topics and bytes.
    #[cfg(feature = "simulation")]
    pub(crate) fn holdings(&self) -> Vec<(Holder, i64, i64)> {
        let state = lock(&self.state);
        let all = state.holdings.iter().flat_map(Holdings::all);
        all.map(|(holder, held)| (holder.clone(), held.topics, held.bytes))
            .collect()
    }

    pub(crate) fn hub_counts(&self) -> HubCounts {
        self.read(Hub::counts)
    }

    /// Begins a subscription to what the reader may read; None: to all that matches.
    pub(crate) fn subscribe(
        &self,
        filter: TopicFilter<&str>,
        reader: Option<&Reader>,
        mode: Mode,
        start: Start,
    ) -> Result<SubscriptionId, SubscribeError> {
        let scope = reader.map(Reader::scope);
        lock(&self.state)
            .hub
            .subscribe_within(filter, scope, mode, start)
    }

    /// Begins a subscription whose events are stored until they are confirmed. One that resumes was durable
    /// in the life of the hub that it resumes from.
    pub(crate) fn subscribe_durably(
        &self,
        filter: TopicFilter<&str>,
        reader: Option<&Reader>,
        mode: Mode,
        start: Start,
    ) -> Result<SubscriptionId, SubscribeError> {
        let state = &mut *lock(&self.state);
        let scope = reader.map(Reader::scope);
        let id = state.hub.subscribe_within(filter, scope, mode, start)?;
        let confirmed = match start {
            Start::Resume(cursor) => {
                // It has just begun.
                let _known = state.hub.owe_events(id);
                cursor.rev
            }
            Start::Snapshot | Start::Live => state.hub.revision(),
        };
        if let Ok(view) = state.hub.view_of(id) {
            state.durables.begin(id, view, confirmed);
        }
        Ok(id)
    }

    /// Lets a subscription go on with what this reader may read, `with_state` also with what is retained of it; it is on no
    /// waiting list afterwards.
    pub(crate) fn set_reader(&self, id: SubscriptionId, reader: Option<&Reader>, with_state: bool) {
        let state = &mut *lock(&self.state);
        if let Ok(view) = state.hub.view_of(id) {
            state.stop_waiting(view, id);
        }
        let scope = reader.map(Reader::scope);
        if state.hub.set_scope(id, scope, with_state).is_ok()
            && let Ok(view) = state.hub.view_of(id)
        {
            state.durables.move_to(id, view);
        }
    }

    /// The filter of a subscription, or of a group.
    pub(crate) fn filter_of(&self, id: SubscriptionId) -> Option<TopicFilter<String>> {
        self.read(|hub| Some(hub.filter_of(id).ok()?.map(str::to_owned)))
    }

    /// Adds what the hub knows of a subscription; none when it has ended.
    pub(crate) fn describe(&self, id: SubscriptionId, known: Subscribed) -> Option<Subscribed> {
        let state = lock(&self.state);
        let hub = &state.hub;
        let (filter, counts) = (hub.filter_of(id).ok()?, hub.subscription_counts(id).ok()?);
        Some(Subscribed {
            filter: filter.as_str().to_owned(),
            group: state.groups.name_of(id).map(str::to_owned),
            pending: hub.pending(id).ok()?,
            conflated: counts.conflated,
            skipped: counts.skipped,
            ..known
        })
    }

    /// What a durable subscription has been given up to `rev` need not be stored any more.
    pub(crate) fn confirm(&self, id: SubscriptionId, rev: u64) {
        lock(&self.state).durables.confirm(id, rev);
    }

    /// Says whether durable subscriptions may be missing: their events are kept.
    pub(crate) fn set_durables_incomplete(&self, incomplete: bool) {
        lock(&self.state).durables.set_incomplete(incomplete);
    }

    /// Whether an event has to be stored for a durable subscription.
    pub(crate) fn owes(&self, topic: TopicName<&str>, qos: u8) -> bool {
        lock(&self.state).owes(topic, qos)
    }

    /// Up to which revision events need not be stored: because all are confirmed, which is looked up when
    /// `confirmed` says so and else 0, and because they have left the ring.
    pub(crate) fn settled(&self, confirmed: bool) -> (u64, u64) {
        let state = lock(&self.state);
        let confirmed = match confirmed {
            true => state.durables.confirmed(state.hub.revision()),
            false => 0,
        };
        (confirmed, state.hub.left_ring())
    }

    /// From now on a log gives the revisions.
    pub(crate) fn begin_log(&self) {
        lock(&self.state).logged = true;
    }

    /// How many numbers the hub may give before the next record.
    pub(crate) fn numbers_left(&self) -> u64 {
        lock(&self.state).numbers_left()
    }

    /// Lets the hub go no further, and says how far it came.
    pub(crate) fn stop_here(&self) -> u64 {
        let mut state = lock(&self.state);
        state.stopped = true;
        state.hub.revision()
    }

    /// Joins the group of a filter, or founds it: messages from now on, one at a time.
    pub(crate) fn join(
        &self,
        group: String,
        filter: TopicFilter<&str>,
        reader: Option<&Reader>,
        mode: Mode,
    ) -> Result<SubscriptionId, SubscribeError> {
        let state = &mut *lock(&self.state);
        let name = (group, filter.as_str().to_owned());
        if let Some(id) = state.groups.join(&name, reader) {
            return Ok(id);
        }
        let id = state.hub.subscribe(filter, mode, Start::Live)?;
        if let Ok(view) = state.hub.view_of(id) {
            state.groups.found(name, id, view, reader);
        }
        Ok(id)
    }

    /// A member of a group may now read this.
    pub(crate) fn set_member_reader(
        &self,
        id: SubscriptionId,
        (old, new): (Option<&Reader>, Option<&Reader>),
    ) {
        let woken = lock(&self.state).groups.set_reader(id, old, new);
        wake_all(woken);
    }

    /// Takes at most one message of a group that this member may read; when there may be more, it is another's turn. What it
    /// may not read is kept for those members who may; also how many of these were lost, because nobody has taken them.
    pub(crate) fn take_turn(
        &self,
        id: SubscriptionId,
        reader: Option<&Reader>,
        mut taken: impl FnMut(Step<Delivery>),
    ) -> (Batch, u64) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let (mut for_others, mut lost) = (Vec::new(), 0);
        for _ in 0..LOOKED_AT {
            let entry = match state.groups.take_given_back(id, reader) {
                Some(entry) => entry,
                None => match state.hub.next(id) {
                    Ok(Some(Step::Entry {
                        entry,
                        retained: false,
                    })) => entry,
                    // What was kept when the walk was begun again is no message to the group.
                    Ok(Some(_)) => continue,
                    Ok(None) => {
                        state.groups.exhausted(id);
                        drop(guard);
                        wake_all(for_others);
                        return (Batch::Idle, lost);
                    }
                    Err(_) => return (Batch::Ended, lost),
                },
            };
            if state.drops_expired(&entry, &self.clock) {
                continue;
            }
            if reader.is_some_and(|reader| !reader.may_read(entry.topic.borrowed())) {
                let (more, woken) = state.groups.leave_to_others(id, entry);
                lost += more;
                for_others.extend(woken);
                continue;
            }
            taken(Step::Entry {
                entry,
                retained: false,
            });
            // Who is woken for nothing would miss its turn when the next message comes.
            let next = match state.has_more(id) {
                true => state.groups.pass(id),
                false => None,
            };
            drop(guard);
            wake_all(for_others);
            wake_all(next);
            return (Batch::More, lost);
        }
        drop(guard);
        wake_all(for_others);
        (Batch::More, lost)
    }

    /// Waits for a turn in a group; false when there may be something to take now.
    pub(crate) fn wait_for_turn(
        &self,
        id: SubscriptionId,
        (wake, key): (&Wake, u64),
        had_turn: bool,
    ) -> bool {
        let wake = wake.clone();
        let waiter = Waiter { wake, key, id };
        lock(&self.state).groups.wait(id, waiter, had_turn)
    }

    /// A member of a group cannot take its turn.
    pub(crate) fn pass_turn(&self, id: SubscriptionId) {
        let next = lock(&self.state).groups.pass(id);
        wake_all(next);
    }

    /// A member of a group takes no turns for now.
    pub(crate) fn skip_turns(&self, id: SubscriptionId, wake: &Wake) {
        let next = {
            let groups = &mut lock(&self.state).groups;
            groups.forget(id, |waiter| waiter.wake.is(wake));
            groups.pass(id)
        };
        wake_all(next);
    }

    /// A member of a group ends without having finished these messages: others take them. How many were
    /// lost because too many wait already.
    pub(crate) fn give_back(&self, id: SubscriptionId, deliveries: Vec<Delivery>) -> usize {
        let (lost, next) = {
            let groups = &mut lock(&self.state).groups;
            (groups.give_back(id, deliveries), groups.pass(id))
        };
        wake_all(next);
        lost
    }

    /// A member leaves its group for good, which ends with the last: what became of its messages.
    pub(crate) fn leave(&self, id: SubscriptionId, reader: Option<&Reader>, wake: &Wake) -> Counts {
        self.skip_turns(id, wake);
        let last = lock(&self.state).groups.leave(id, reader);
        match last {
            true => self.unsubscribe(id),
            false => Counts::default(),
        }
    }

    /// How many shared subscriptions there are, and how many members they have together.
    pub(crate) fn groups(&self) -> (usize, usize) {
        lock(&self.state).groups.counts()
    }

    /// Messages that were not delivered because their time was over.
    pub(crate) fn expired(&self) -> u64 {
        lock(&self.state).expired
    }

    /// Begins the snapshot of a subscription again if it has this filter; false if it has another.
    pub(crate) fn rewind(&self, id: SubscriptionId, filter: TopicFilter<&str>) -> bool {
        let mut state = lock(&self.state);
        if state.hub.filter_of(id) != Ok(filter) || state.hub.rewind(id).is_err() {
            return false;
        }
        if let Ok(view) = state.hub.view_of(id) {
            state.stop_waiting(view, id);
        }
        true
    }

    /// Ends a subscription and says what became of its messages.
    pub(crate) fn unsubscribe(&self, id: SubscriptionId) -> Counts {
        let mut state = lock(&self.state);
        let counts = state.hub.subscription_counts(id).unwrap_or_default();
        state.durables.end(id);
        let view = state.hub.view_of(id);
        if state.hub.unsubscribe(id).is_ok()
            && let Ok(view) = view
        {
            state.stop_waiting(view, id);
        }
        counts
    }
}

impl State {
    fn numbers_left(&self) -> u64 {
        let revision = self.hub.revision();
        match self.logged {
            true => position::last(revision) - revision,
            false => u64::MAX,
        }
    }

    /// Publishes what is retained, and counts who holds it.
    fn hold(
        &mut self,
        topic: TopicName<&str>,
        payload: Payload,
        retain: Retain,
        at: u64,
    ) -> Result<Delivery, PublishError> {
        let before = holdings::values(&self.hub, topic);
        let holder = payload.holder().map(|holder| {
            let known = self.holdings.as_ref().and_then(|all| all.shared(holder));
            known.unwrap_or_else(|| Arc::clone(holder))
        });
        let payload = payload.with_holder(holder);
        let entry = self.hub.publish(topic, payload, retain, at)?;
        if let Some(all) = &mut self.holdings {
            all.change(&before, &holdings::values(&self.hub, topic));
        }
        Ok(entry)
    }

    fn owes(&mut self, topic: TopicName<&str>, qos: u8) -> bool {
        if qos == 0 {
            return false;
        }
        if self.durables.is_incomplete() {
            // It may be for one of those that are missing. The next life forgets what nobody waits for.
            return true;
        }
        if self.durables.is_empty() {
            return false;
        }
        let (durables, mut owes) = (&self.durables, false);
        self.hub
            .views_matching(topic, |view| owes |= durables.has(view));
        owes
    }

    /// Whether a group may have another message.
    fn has_more(&mut self, id: SubscriptionId) -> bool {
        // Resets and gaps, which come at once, are nothing to a group.
        self.groups.has_given_back(id)
            || !matches!(self.hub.next_up_to(id, 0), Ok(Upcoming::Nothing))
    }

    /// Whether the time of a message is over, which is counted.
    fn drops_expired(&mut self, entry: &Delivery, clock: &Clock) -> bool {
        let expires = entry.payload.expires_at().is_some() && entry.kind != Kind::Cleared;
        let expired = expires && entry.payload.has_expired(clock.deadline_ms());
        self.expired += u64::from(expired);
        expired
    }

    fn stop_waiting(&mut self, view: ViewId, id: SubscriptionId) {
        if let Some(waiting) = self.waiting.get_mut(view.index())
            && let Some(place) = waiting.iter().position(|waiter| waiter.id == id)
        {
            waiting.swap_remove(place);
        }
    }

    fn wait(&mut self, wake: &Wake, key: u64, id: SubscriptionId) {
        let Ok(view) = self.hub.view_of(id) else {
            return;
        };
        if self.waiting.len() <= view.index() {
            self.waiting.resize_with(view.index() + 1, Vec::new);
        }
        if let Some(waiting) = self.waiting.get_mut(view.index()) {
            waiting.push(Waiter {
                wake: wake.clone(),
                key,
                id,
            });
        }
    }
}

impl Changes<'_> {
    pub(crate) fn publish(
        &mut self,
        topic: TopicName<&str>,
        payload: Payload,
        retain: Retain,
        at: u64,
    ) -> Result<Delivery, PublishError> {
        let entry = match self.state.holdings.is_some() && retain != Retain::No {
            false => self.state.hub.publish(topic, payload, retain, at)?,
            true => self.state.hold(topic, payload, retain, at)?,
        };
        self.collect_waiters();
        Ok(entry)
    }

    pub(crate) fn clear(
        &mut self,
        topic: TopicName<&str>,
        payload: Payload,
        at: u64,
    ) -> Result<Option<Delivery>, PublishError> {
        let before = self.state.holdings.is_some();
        let before = before.then(|| holdings::values(&self.state.hub, topic));
        let cleared = self.state.hub.clear_with(topic, payload, at)?;
        if let Some((all, before)) = self.state.holdings.as_mut().zip(before) {
            all.change(&before, &[]);
        }
        self.collect_waiters();
        Ok(cleared)
    }

    pub(crate) fn hub(&self) -> &Hub<Payload> {
        &self.state.hub
    }

    /// Whether any subscription matches this topic.
    pub(crate) fn is_followed(&mut self, topic: TopicName<&str>) -> bool {
        self.state.hub.is_followed(topic)
    }

    /// Makes the next publish take a revision after this one.
    pub(crate) fn skip_to(&mut self, revision: u64) {
        self.state.hub.skip_to(revision);
    }

    pub(crate) fn restore_clear(
        &mut self,
        topic: TopicName<&str>,
        payload: Payload,
        at: u64,
    ) -> Result<(), PublishError> {
        self.state.hub.restore_clear(topic, payload, at)?;
        Ok(())
    }

    pub(crate) fn restored(&mut self, life: EarlierLife) {
        self.state.hub.restored(life);
    }

    /// Whether an event can be shown without the store.
    pub(crate) fn goes_straight(&mut self, topic: TopicName<&str>, qos: u8) -> bool {
        self.may_go_on() && !self.state.owes(topic, qos)
    }

    /// Whether the hub has a number for something that needs no record.
    pub(crate) fn may_go_on(&self) -> bool {
        !self.state.stopped && self.state.numbers_left() > 0
    }

    fn collect_waiters(&mut self) {
        for view in self.state.hub.matched() {
            if let Some(waiting) = self.state.waiting.get_mut(view.index()) {
                // However many wait, nothing is moved under the lock but for the second view of a change.
                if self.woken.is_empty() {
                    mem::swap(self.woken, waiting);
                } else {
                    self.woken.append(waiting);
                }
            }
            self.state.groups.publish(*view, self.woken);
        }
    }
}
