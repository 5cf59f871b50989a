//! The subscriptions of a session, as the bus looks at them too.

use core::sync::atomic::AtomicU64;
use core::task::{Context, Poll};
use std::sync::{Arc, Mutex};

use futures_util::task::AtomicWaker;
use latchbus_core::hub::{Counts, Mode, SubscriptionId};

use super::presence::Presence;
use crate::access::{Principal, Reader};
use crate::bus::{Behind, Client, Connected, Subscribed};
use crate::pacing::Pacing;
use crate::quota::Seat;
use crate::vec_map::VecMap;
use crate::wake::lock;

/// Confirms what the durable subscriptions of a [`Session`](super::Session) have brought.
#[derive(Debug, Clone)]
pub struct Confirmations(Arc<Subscriptions>);

impl Confirmations {
    pub(super) fn new(subscriptions: &Arc<Subscriptions>) -> Self {
        Self(Arc::clone(subscriptions))
    }

    /// See [`Session::confirm`](super::Session::confirm).
    pub fn confirm(&self, subscription: u64, rev: u64) {
        self.0.confirm(subscription, rev);
    }
}

/// A session's subscriptions, which the bus looks at too.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    client: Client,
    pub(super) entries: Mutex<VecMap<Entry>>,
    /// The task that serves its link, for when the bus closes or the rules change.
    task: AtomicWaker,
    /// The rules by which all of it was checked last: see [`Client::rules`].
    pub(super) rules: AtomicU64,
    pub(super) presence: Presence,
}

/// A subscription of a session.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: SubscriptionId,
    /// Whether it is a place in a group.
    pub(super) grouped: bool,
    /// Whether others of the group come first.
    pub(super) had_turn: bool,
    pub(super) durable: bool,
    pub(super) mode: Mode,
    /// What its client may read of it; none: everything.
    pub(super) reader: Option<Reader>,
    /// Whether it began without what is retained.
    pub(super) live: bool,
    pub(super) pacing: Pacing,
    /// Its place among the subscriptions of its user, where these are bounded.
    pub(super) seat: Option<Seat>,
    /// It stands on the hub's waiting list, once, and comes back through the mailbox. Else its key is in
    /// the mailbox or in the work of the write loop, once.
    pub(super) waiting: bool,
}

impl Entry {
    /// What is known here of a subscription, and its place in the hub.
    fn listed(&self, id: u64) -> (Subscribed, SubscriptionId) {
        let subscribed = Subscribed {
            id,
            filter: String::new(),
            group: None,
            mode: self.mode,
            is_durable: self.durable,
            pending: 0,
            conflated: 0,
            skipped: 0,
        };
        (subscribed, self.id)
    }
}

impl Subscriptions {
    pub(super) fn new(client: Client) -> Self {
        Self {
            rules: AtomicU64::new(client.rules()),
            client,
            entries: Mutex::default(),
            task: AtomicWaker::new(),
            presence: Presence::default(),
        }
    }

    /// The connection of its client has ended.
    pub(super) fn connection_ended(&self) {
        self.client.stand_up();
    }

    /// Whether somebody has asked that the connection of its client ends.
    pub(super) fn is_dismissed(&self) -> bool {
        self.presence.is_dismissed()
    }

    /// Has the connection of its client end; false when it has none.
    pub(crate) fn dismiss(&self) -> bool {
        let is_connected = self.presence.dismiss();
        if is_connected {
            self.wake_task();
        }
        is_connected
    }

    /// Whose it is.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.presence.since().is_some()
    }

    /// Its client, if it is connected.
    pub(crate) fn connected(&self) -> Option<Connected> {
        let since = self.presence.since()?;
        let counts = self.counts(usize::MAX);
        let (subscriptions, pending) = self.pending();
        Some(Connected {
            id: self.client.id(),
            principal: self.client.principal(),
            address: self.client.address(),
            since,
            keep_alive: self.presence.keep_alive(),
            subscriptions,
            pending,
            in_flight: self.presence.in_flight(),
            conflated: counts.conflated,
            skipped: counts.skipped,
        })
    }

    /// How many subscriptions there are, and what waits for them; what waits for a group is nobody's in particular.
    pub(crate) fn pending(&self) -> (usize, u64) {
        let entries = lock(&self.entries);
        let own = entries.iter().filter(|(_, entry)| !entry.grouped);
        let pending = self.client.bus().read(|hub| {
            own.filter_map(|(_, entry)| hub.pending(entry.id).ok())
                .sum()
        });
        (entries.len(), pending)
    }

    /// Its subscriptions from this number on, at most so many.
    pub(crate) fn subscribed(&self, from: u64, most: usize) -> Vec<Subscribed> {
        let entries = lock(&self.entries);
        let listed = entries.iter().filter(|(key, _)| *key >= from).take(most);
        let listed: Vec<_> = listed.map(|(key, entry)| entry.listed(key)).collect();
        drop(entries);
        let shared = self.client.bus().shared();
        let subscribed = listed.into_iter();
        subscribed
            .filter_map(|(subscribed, id)| shared.describe(id, subscribed))
            .collect()
    }

    /// Ready when the bus is closing. One task at a time may wait.
    pub(super) fn poll_closing(&self, cx: &Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        match self.client.bus().is_closed() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// [`Client::id`] of its client.
    pub(crate) fn client_id(&self) -> u64 {
        self.client.id()
    }

    /// Whether it is a connection of the same user with the same client identifier.
    pub(crate) fn is_replaced_by(&self, principal: &Principal) -> bool {
        !principal.client_id.is_empty()
            && self.presence.since().is_some()
            && self.is_named(principal.transport, &principal.client_id)
            && self.client.principal().identity == principal.identity
    }

    pub(crate) fn is_named(&self, transport: &str, client_id: &str) -> bool {
        let principal = self.client.principal();
        principal.transport == transport && principal.client_id == client_id
    }

    /// The bus is closing, or the rules have changed, or its client is to go.
    pub(crate) fn wake_task(&self) {
        self.task.wake();
    }

    pub(super) fn confirm(&self, subscription: u64, rev: u64) {
        let id = lock(&self.entries).get(subscription).map(|entry| entry.id);
        if let Some(id) = id {
            self.client.bus().shared().confirm(id, rev);
        }
    }

    /// What its client has lost. What a group has lost was nobody's in particular.
    pub(crate) fn behind(&self) -> Behind {
        let counts = self.counts(usize::MAX);
        Behind {
            principal: self.client.principal().as_ref().clone(),
            conflated: counts.conflated,
            skipped: counts.skipped,
        }
    }

    /// What became of the messages of up to so many of its subscriptions, in sum.
    pub(super) fn counts(&self, most: usize) -> Counts {
        let entries = lock(&self.entries);
        let own = entries
            .iter()
            .filter(|(_, entry)| !entry.grouped)
            .take(most);
        self.client.bus().read(|hub| {
            let counts = own.filter_map(|(_, entry)| hub.subscription_counts(entry.id).ok());
            counts.fold(Counts::default(), |sum, counts| Counts {
                taken: sum.taken + counts.taken,
                conflated: sum.conflated + counts.conflated,
                skipped: sum.skipped + counts.skipped,
            })
        })
    }
}
