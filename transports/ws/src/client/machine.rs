//! What the client owes the server and its user: all of its logic, without I/O.
//!
//! The connection's task calls [`Machine::welcome`] when a connection is live, then sends what
//! [`Machine::next_outgoing`] gives, hands in what comes with [`Machine::handle`], and calls
//! [`Machine::disconnected`] when it has ended.

use std::collections::{HashMap, VecDeque};

use latchbus_core::topic::TopicFilter;
use latchbus_core::wire::{ErrorCode, Limits};
use tokio::time::Instant;

use super::Update;
use super::inbox::Inbox;
use super::message::{Incoming, Outgoing, Refused};
use super::outbox::{Outbox, too_long};

/// What the server has said at the beginning of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    pub(super) epoch: u64,
    pub(super) limits: Limits,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) outbox: Outbox,
    ids: Ids,
    live: Option<Live>,
    /// One for each [`Subscription`](super::Subscription) that the user holds.
    inboxes: HashMap<u64, Inbox>,
    /// Which inbox a subscription's messages go to, by the id on this connection.
    routes: HashMap<u64, u64>,
    /// Bounded by the subscriptions: each has one ask, and the end of each that was sent one more.
    asks: VecDeque<Ask>,
    /// Updates that an inbox holds.
    queue: usize,
}

/// Gives ids to subscriptions and publishes alike, so that an error's id names one thing.
#[derive(Debug, Default)]
pub(super) struct Ids(u64);

impl Ids {
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// Subscribe for this inbox.
    Subscribe(u64),
    /// End this subscription.
    Unsubscribe(u64),
}

impl Machine {
    /// `queue`: how many updates an inbox holds.
    pub(super) fn new(outbox: Outbox, queue: usize) -> Self {
        Self {
            outbox,
            ids: Ids::default(),
            live: None,
            inboxes: HashMap::new(),
            routes: HashMap::new(),
            asks: VecDeque::new(),
            queue: queue.max(1),
        }
    }

    /// Begins a subscription and gives its inbox's key.
    pub(super) fn subscribe(&mut self, inbox: Inbox) -> u64 {
        let key = self.ids.next();
        self.inboxes.insert(key, inbox);
        if self.live.is_some() {
            self.asks.push_back(Ask::Subscribe(key));
        }
        key
    }

    /// Ends it.
    pub(super) fn unsubscribe(&mut self, key: u64) {
        match self.inboxes.remove(&key).and_then(|inbox| inbox.id) {
            Some(id) => self.end_route(id),
            None => self.asks.retain(|ask| *ask != Ask::Subscribe(key)),
        }
    }

    /// The next update of a subscription. The second value: there is something to send now.
    pub(super) fn take(&mut self, key: u64) -> (Option<Update>, bool) {
        let Some(inbox) = self.inboxes.get_mut(&key) else {
            return (None, false);
        };
        let update = inbox.take();
        let resumes = inbox.parked && inbox.has_room(self.queue.div_ceil(2));
        if resumes {
            inbox.parked = false;
            if self.live.is_some() {
                self.asks.push_back(Ask::Subscribe(key));
            }
        }
        (update, resumes)
    }

    pub(super) fn inbox(&mut self, key: u64) -> Option<&mut Inbox> {
        self.inboxes.get_mut(&key)
    }

    /// A connection is live.
    pub(super) fn welcome(&mut self, live: Live) {
        self.live = Some(live);
        for (key, inbox) in &self.inboxes {
            if !inbox.parked && !inbox.ended {
                self.asks.push_back(Ask::Subscribe(*key));
            }
        }
        self.outbox.welcome(live.epoch);
    }

    /// The connection has ended.
    pub(super) fn disconnected(&mut self) {
        self.live = None;
        self.routes.clear();
        self.asks.clear();
        for inbox in self.inboxes.values_mut() {
            inbox.id = None;
        }
        self.outbox.disconnected();
    }

    /// There will be no more connections: what waits is told so.
    pub(super) fn close(&mut self) {
        self.disconnected();
        self.outbox.close();
        self.inboxes.values_mut().for_each(Inbox::end);
    }

    /// Whether it may have something to send.
    pub(super) fn has_work(&self) -> bool {
        !self.asks.is_empty() || self.outbox.has_work()
    }

    /// When [`next_outgoing`](Self::next_outgoing) is to be asked again though nothing has happened.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.outbox.retry_at()
    }

    /// What to send next.
    pub(super) fn next_outgoing(&mut self, now: Instant) -> Option<Outgoing> {
        let live = self.live?;
        while let Some(ask) = self.asks.pop_front() {
            match ask {
                Ask::Unsubscribe(id) => return Some(Outgoing::Unsubscribe { id }),
                Ask::Subscribe(key) => {
                    if let Some(outgoing) = self.begin(key, live) {
                        return Some(outgoing);
                    }
                }
            }
        }
        self.outbox.next_publish(live, &mut self.ids, now)
    }

    /// Takes what the server sent.
    pub(super) fn handle(&mut self, incoming: Incoming, now: Instant) {
        let Some(live) = self.live else { return };
        match incoming {
            Incoming::Message { id, message } => {
                let rev = message.rev;
                self.deliver(id, Some(rev), Update::Message(message));
            }
            Incoming::Cleared { id, topic, rev, at } => {
                self.deliver(id, Some(rev), Update::Cleared { topic, rev, at });
            }
            Incoming::Synced { id, cursor } => {
                self.deliver(id, Some(cursor.rev), Update::Synced { cursor });
            }
            Incoming::Gap { id, missed } => self.deliver(id, None, Update::Gap { missed }),
            Incoming::Reset { id } => {
                if let Some(inbox) = self.routed(id) {
                    inbox.cursor = None;
                }
                self.deliver(id, None, Update::Reset);
            }
            Incoming::Ack { id, rev } => self.outbox.answer(id, Ok(rev), live.epoch, now),
            Incoming::Error {
                id: Some(id),
                refused,
            } => match self.routed(id) {
                Some(inbox) => {
                    inbox.id = None;
                    inbox.refuse(refused);
                    self.routes.remove(&id);
                }
                None => self.outbox.answer(id, Err(refused), live.epoch, now),
            },
            Incoming::Error { id: None, refused } => {
                tracing::warn!(target: "websocket", %refused, "the server did not understand a message");
            }
            Incoming::Welcome { .. } | Incoming::Other => {}
        }
    }

    fn begin(&mut self, key: u64, live: Live) -> Option<Outgoing> {
        let inbox = self.inboxes.get_mut(&key)?;
        if inbox.id.is_some() || inbox.parked || inbox.ended {
            return None;
        }
        if too_long(inbox.filter.as_str().len(), live.limits.topic_bytes) {
            inbox.refuse(Refused {
                code: ErrorCode::InvalidFilter,
                message: "longer than the server takes".to_owned(),
            });
            return None;
        }
        let id = self.ids.next();
        inbox.id = Some(id);
        self.routes.insert(id, key);
        Some(Outgoing::Subscribe {
            id,
            filter: TopicFilter::clone(&inbox.filter),
            mode: inbox.mode,
            since: inbox.cursor,
        })
    }

    fn routed(&mut self, id: u64) -> Option<&mut Inbox> {
        let key = self.routes.get(&id)?;
        self.inboxes.get_mut(key)
    }

    fn end_route(&mut self, id: u64) {
        if self.routes.remove(&id).is_some() && self.live.is_some() {
            self.asks.push_back(Ask::Unsubscribe(id));
        }
    }

    fn deliver(&mut self, id: u64, rev: Option<u64>, update: Update) {
        let epoch = self.live.map_or(0, |live| live.epoch);
        let (queue, Some(inbox)) = (self.queue, self.routed(id)) else {
            return;
        };
        if let Some(rev) = rev {
            inbox.advance(epoch, rev);
        }
        inbox.put(update);
        if !inbox.has_room(queue) {
            // Its reader is slow: the server keeps the rest, conflated, until there is room.
            inbox.parked = true;
            inbox.id = None;
            self.end_route(id);
        }
    }
}
