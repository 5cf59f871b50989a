//! The subscriptions of a session, as the bus looks at them too.

use core::sync::atomic::AtomicU64;
use core::task::{Context, Poll};
use std::sync::{Arc, Mutex};

use futures_util::task::AtomicWaker;
use latchbus_core::hub::{Counts, Mode, SubscriptionId};

use crate::access::Reader;
use crate::bus::{Behind, Client};
use crate::pacing::Pacing;
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
    pub(super) pacing: Pacing,
    /// It stands on the hub's waiting list, once, and comes back through the mailbox. Else its key is in
    /// the mailbox or in the work of the write loop, once.
    pub(super) waiting: bool,
}

impl Subscriptions {
    pub(super) fn new(client: Client) -> Self {
        Self {
            rules: AtomicU64::new(client.rules()),
            client,
            entries: Mutex::default(),
            task: AtomicWaker::new(),
        }
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

    /// The bus is closing, or the rules have changed.
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
