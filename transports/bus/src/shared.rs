//! The hub behind its lock, and who waits for news of it.

use std::sync::Mutex;

use latchbus_core::hub::{
    Counts, Hub, HubCounts, Limits, Mode, PublishError, Retain, Start, Step, SubscribeError,
    SubscriptionId, ViewId,
};
use latchbus_core::topic::{TopicFilter, TopicName};

use crate::wake::{Wake, lock};
use crate::{Delivery, Payload};

/// The hub that all clients share. Its lock is held for a few operations at a time, never over an
/// await.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) epoch: u64,
    pub(crate) limits: Limits,
}

#[derive(Debug)]
struct State {
    hub: Hub<Payload>,
    /// By view: the subscriptions that have taken all there was. A publish empties the lists of the views
    /// that it matches, so each waiter is woken once however many messages come before it runs.
    waiting: Vec<Vec<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
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
    /// The subscription has all there is and waits to be woken.
    Waiting,
    /// There is no such subscription any more.
    Ended,
}

impl Shared {
    pub(crate) fn new(epoch: u64, limits: Limits) -> Self {
        Self {
            state: Mutex::new(State {
                hub: Hub::new(epoch, limits),
                waiting: Vec::new(),
            }),
            epoch,
            limits,
        }
    }

    /// Makes changes under one lock and wakes whoever they concern after it.
    pub(crate) fn change<T>(&self, changes: impl FnOnce(&mut Changes<'_>) -> T) -> T {
        let mut woken = Vec::new();
        let result = {
            let mut state = lock(&self.state);
            changes(&mut Changes {
                state: &mut state,
                woken: &mut woken,
            })
        };
        for waiter in woken {
            waiter.wake.ready(waiter.key);
        }
        result
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Hub<Payload>) -> T) -> T {
        read(&lock(&self.state).hub)
    }

    pub(crate) fn hub_counts(&self) -> HubCounts {
        self.read(Hub::counts)
    }

    pub(crate) fn subscribe(
        &self,
        filter: TopicFilter<&str>,
        mode: Mode,
        start: Start,
    ) -> Result<SubscriptionId, SubscribeError> {
        lock(&self.state).hub.subscribe(filter, mode, start)
    }

    /// Begins the snapshot of a subscription again if it has this filter; false if it has another.
    pub(crate) fn rewind(&self, id: SubscriptionId, filter: TopicFilter<&str>) -> bool {
        let hub = &mut lock(&self.state).hub;
        hub.filter_of(id) == Ok(filter) && hub.rewind(id).is_ok()
    }

    /// Ends a subscription and says what became of its messages.
    pub(crate) fn unsubscribe(&self, id: SubscriptionId) -> Counts {
        let mut state = lock(&self.state);
        let counts = state.hub.subscription_counts(id).unwrap_or_default();
        let view = state.hub.view_of(id);
        if state.hub.unsubscribe(id).is_ok()
            && let Ok(view) = view
            && let Some(waiting) = state.waiting.get_mut(view.index())
            && let Some(place) = waiting.iter().position(|waiter| waiter.id == id)
        {
            waiting.swap_remove(place);
        }
        counts
    }

    /// Takes up to `most` steps of a subscription under one lock. When it has taken all there is, it is
    /// put on the waiting list in the same moment, so that no publish can slip between. Also returns the
    /// hub's revision.
    pub(crate) fn take(
        &self,
        id: SubscriptionId,
        most: usize,
        (wake, key): (&Wake, u64),
        mut taken: impl FnMut(Step<Delivery>),
    ) -> (Batch, u64) {
        let mut state = lock(&self.state);
        let revision = state.hub.revision();
        for _ in 0..most {
            match state.hub.next(id) {
                Ok(Some(step)) => taken(step),
                Ok(None) => {
                    if let Ok(view) = state.hub.view_of(id) {
                        state.wait(view, wake, key, id);
                    }
                    return (Batch::Waiting, revision);
                }
                Err(_) => return (Batch::Ended, revision),
            }
        }
        (Batch::More, revision)
    }
}

impl State {
    fn wait(&mut self, view: ViewId, wake: &Wake, key: u64, id: SubscriptionId) {
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
        let entry = self.state.hub.publish(topic, payload, retain, at)?;
        self.collect_waiters();
        Ok(entry)
    }

    pub(crate) fn clear(
        &mut self,
        topic: TopicName<&str>,
        at: u64,
    ) -> Result<Option<Delivery>, PublishError> {
        let cleared = self.state.hub.clear(topic, at)?;
        self.collect_waiters();
        Ok(cleared)
    }

    pub(crate) fn hub(&self) -> &Hub<Payload> {
        &self.state.hub
    }

    fn collect_waiters(&mut self) {
        for view in self.state.hub.matched() {
            if let Some(waiting) = self.state.waiting.get_mut(view.index()) {
                self.woken.append(waiting);
            }
        }
    }
}
