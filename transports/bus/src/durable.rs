//! Subscriptions whose events survive a restart.

use std::collections::HashMap;

use latchbus_core::hub::{SubscriptionId, ViewId};

/// The durable subscriptions of one hub, bounded by its bound on subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Durables {
    /// The view, and up to where all was confirmed.
    subscriptions: HashMap<SubscriptionId, (ViewId, u64)>,
    /// How many there are by [`ViewId::index`].
    views: HashMap<usize, usize>,
    /// Whether subscriptions may be missing: those of the life before that are not restored yet, or, when
    /// the bus closes, those that have ended with their links. What they are owed is kept.
    incomplete: bool,
}

impl Durables {
    pub(crate) fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// A subscription whose messages up to `confirmed` need no keeping.
    pub(crate) fn begin(&mut self, id: SubscriptionId, view: ViewId, confirmed: u64) {
        if self.subscriptions.insert(id, (view, confirmed)).is_none() {
            *self.views.entry(view.index()).or_default() += 1;
        }
    }

    /// It goes on with another view.
    pub(crate) fn move_to(&mut self, id: SubscriptionId, view: ViewId) {
        if let Some((_, confirmed)) = self.subscriptions.get(&id).copied() {
            self.end(id);
            self.begin(id, view, confirmed);
        }
    }

    pub(crate) fn end(&mut self, id: SubscriptionId) {
        let Some((view, _)) = self.subscriptions.remove(&id) else {
            return;
        };
        if let Some(count) = self.views.get_mut(&view.index()) {
            *count -= 1;
            if *count == 0 {
                self.views.remove(&view.index());
            }
        }
    }

    /// All messages up to `rev` need no keeping any more.
    pub(crate) fn confirm(&mut self, id: SubscriptionId, rev: u64) {
        if let Some((_, confirmed)) = self.subscriptions.get_mut(&id) {
            *confirmed = rev.max(*confirmed);
        }
    }

    pub(crate) fn has(&self, view: ViewId) -> bool {
        self.views.contains_key(&view.index())
    }

    pub(crate) fn set_incomplete(&mut self, incomplete: bool) {
        self.incomplete = incomplete;
    }

    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Up to here nobody is owed anything, of what was published up to `revision`.
    pub(crate) fn confirmed(&self, revision: u64) -> u64 {
        if self.incomplete {
            return 0;
        }
        let confirmed = self.subscriptions.values().map(|(_, confirmed)| *confirmed);
        confirmed.min().unwrap_or(revision)
    }
}
