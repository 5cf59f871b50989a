//! The half of a session that does what its peer asks.

use core::mem;
use std::sync::Arc;

use futures_util::{FutureExt as _, future::BoxFuture};
use latchbus_core::hub::Start;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::coop;
use tokio::time::sleep;

use super::Session;
use super::entries::Entry;
use crate::access::{Credentials, Reader, SignInRefused};
use crate::bus::{Allowed, HistoryPage, Rate, Receipt};
use crate::link::{Event, LinkReceiver, Request, Subscribe};
use crate::outbox::{Answer, Outbox, Place};
use crate::pacing::Pacing;
use crate::refusal::SubscribeRefused;
use crate::wake::lock;

/// Subscriptions whose counts a pong sums up: a ping must cost the others little.
const COUNTED: usize = 64;

impl Session {
    /// Takes what is asked, until the peer leaves.
    pub(super) async fn read<R: LinkReceiver>(
        &self,
        receiver: &mut R,
        outbox: &Outbox,
    ) -> Result<(), R::Error> {
        // One page at a time: the memory for a slow reader's answers is bounded.
        let pages = Arc::new(Semaphore::new(1));
        loop {
            let Some(request) = receiver.recv().await? else {
                return Ok(());
            };
            let turn = match request {
                Request::History { .. } => Arc::clone(&pages).acquire_owned().await.ok(),
                _ => None,
            };
            // The place for its answer comes first: a publish that was made is always answered, as far as
            // the sender's state machine is concerned.
            let place = outbox.reserve().await;
            let rate = match &request {
                Request::Publish { publish, .. } if receiver.waits_for_its_rate() => {
                    let early = self.client.charge(publish);
                    if !early.is_zero() {
                        self.client.bus().metrics().publishes_delayed.add(1);
                        sleep(early).boxed().await;
                    }
                    Rate::Paid
                }
                _ => Rate::Checked,
            };
            let request = match request {
                Request::SignIn { id, credentials } => {
                    let result = self.sign_in(credentials).await;
                    place.send(Answer::Event(Event::SignedIn { id, result }));
                    continue;
                }
                request => request,
            };
            if let Err(full) = self.answer(request, rate, turn, place) {
                full.publish().await;
            }
            // A peer that never stops sending must not keep the other connections from their turns.
            coop::consume_budget().await;
        }
    }

    /// On the heap while it lasts: within the task, as is a sleep, it would be held by all connections that only wait.
    fn sign_in(&self, credentials: Credentials) -> BoxFuture<'_, Result<(), SignInRefused>> {
        self.client.sign_in_again(credentials).boxed()
    }

    /// Does what is asked, and puts the answer, or the promise of it, into its place.
    fn answer<'a>(
        &'a self,
        request: Request,
        rate: Rate,
        turn: Option<OwnedSemaphorePermit>,
        place: Place<'a>,
    ) -> Result<(), Full<'a>> {
        let answer = match request {
            Request::Publish { id, publish } => {
                return match self.client.begin_publish(publish, rate) {
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
                    .map(|subscribe| (subscribe.id, self.begin(subscribe, &mut begun)))
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
            Request::History {
                id,
                topic,
                before,
                limit,
            } => {
                let page = self.client.history(topic.borrowed(), before, limit);
                let result = page.map(|page| HistoryPage {
                    _turn: turn.map(Arc::new),
                    ..page
                });
                Event::History { id, result }
            }
            Request::Ping { id } => {
                let counts = self.subscriptions.counts(COUNTED);
                Event::Pong { id, counts }
            }
            // Answered before.
            Request::SignIn { id, .. } => Event::SignedIn { id, result: Ok(()) },
            Request::Bad { id, code, message } => Event::Bad { id, code, message },
        };
        place.send(Answer::Event(answer));
        Ok(())
    }

    /// Begins a subscription, or begins it again. Its key is added to `begun` unless it is on its way
    /// to the write loop already.
    pub(super) fn begin(
        &self,
        subscribe: Subscribe,
        begun: &mut Vec<u64>,
    ) -> Result<(), SubscribeRefused> {
        let filter = subscribe.filter.clone();
        let begins = self.begin_subscription(subscribe, begun);
        begins.inspect_err(|refused| self.client.log_refused(refused, filter.as_str()))
    }

    fn begin_subscription(
        &self,
        subscribe: Subscribe,
        begun: &mut Vec<u64>,
    ) -> Result<(), SubscribeRefused> {
        let bus = self.client.bus();
        let filter = subscribe.filter.borrowed();
        let reader = match bus.check_subscribe(&self.client.principal(), filter) {
            Ok(Allowed { reader, .. }) => reader,
            Err(refused @ SubscribeRefused::NotAllowed(_)) if subscribe.waits => {
                self.client.log_refused(&refused, filter.as_str());
                Some(Reader::of_nothing())
            }
            Err(refused) => return Err(refused),
        };
        let mut subscriptions = lock(&self.subscriptions.entries);
        let limits = bus.session_limits();
        let limit = limits.subscriptions;
        let min_interval = Pacing::interval(subscribe.mode, subscribe.pace, &limits);
        if subscriptions.len() >= limit && !subscriptions.contains(subscribe.id) {
            return Err(SubscribeRefused::SessionFull { limit });
        }
        if let Some(entry) = subscriptions.get_mut(subscribe.id)
            && !entry.grouped
            && subscribe.group.is_none()
            && (entry.mode, Start::Snapshot, entry.durable)
                == (subscribe.mode, subscribe.start, subscribe.durable)
            && entry.reader.as_ref().map(Reader::id) == reader.as_ref().map(Reader::id)
            && bus.shared().rewind(entry.id, filter)
        {
            // The same again: the snapshot comes once more, and the flow of events is not
            // interrupted (MQTT 3.1.1 §3.8.4).
            entry.pacing.rewind(min_interval);
            if mem::take(&mut entry.waiting) {
                begun.push(subscribe.id);
            }
            return Ok(());
        }
        let seat = match subscriptions.get_mut(subscribe.id) {
            Some(entry) => entry.seat.take(),
            None => self.client.seat_subscription()?,
        };
        let grouped = subscribe.group.is_some();
        let (shared, reads) = (bus.shared(), reader.as_ref());
        let id = match subscribe.group {
            Some(group) => shared.join(group, filter, reads, subscribe.mode)?,
            None => {
                let (mode, start) = (subscribe.mode, subscribe.start);
                match subscribe.durable {
                    true => shared.subscribe_durably(filter, reads, mode, start)?,
                    false => shared.subscribe(filter, reads, mode, start)?,
                }
            }
        };
        let entry = Entry {
            id,
            grouped,
            had_turn: true,
            durable: subscribe.durable,
            mode: subscribe.mode,
            reader,
            live: subscribe.start == Start::Live,
            pacing: Pacing::new(min_interval),
            seat,
            waiting: false,
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
        let ended = lock(&self.subscriptions.entries).remove(key);
        ended.inspect(|entry| self.end(entry)).is_some()
    }

    pub(super) fn end(&self, entry: &Entry) {
        let bus = self.client.bus();
        bus.metrics().ended(match entry.grouped {
            true => bus
                .shared()
                .leave(entry.id, entry.reader.as_ref(), &self.wake),
            false => bus.shared().unsubscribe(entry.id),
        });
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
