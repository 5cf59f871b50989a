//! Subscriptions that bring a part of what their filter matches.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use super::cursor::{Mode, Start};
use super::filter_tree::FilterTree;
use super::view::ViewId;
use super::{Hub, SubscribeError, SubscriptionId, UnknownSubscription};
use crate::topic::{TopicFilter, TopicName};

/// The topics that a subscription may bring, beside its filter: what its subscriber may read, for example. To its
/// subscriptions the others are not there: they are not delivered, not counted as missed, and cost no take.
///
/// It is asked once for each publish, and for what is kept when the first subscription of a filter begins. Its answers must
/// not change.
pub trait Scope: fmt::Debug + Send + Sync {
    /// A number that no other scope has: subscriptions of one filter and one scope share their view.
    fn id(&self) -> u64;

    /// Whether the topic is in it.
    fn has(&self, topic: TopicName<&str>) -> bool;
}

/// A scope as subscriptions share it.
pub type SharedScope = Arc<dyn Scope>;

/// The views that have a scope.
#[derive(Debug)]
pub(super) struct ScopedViews {
    /// Of each filter: where its views stand in `lists`.
    filters: FilterTree,
    lists: Vec<Vec<(SharedScope, ViewId)>>,
    free: Vec<ViewId>,
    live: usize,
}

impl ScopedViews {
    pub(super) fn new() -> Self {
        Self {
            filters: FilterTree::new(),
            lists: Vec::new(),
            free: Vec::new(),
            live: 0,
        }
    }

    pub(super) fn find(&self, filter: TopicFilter<&str>, scope: u64) -> Option<ViewId> {
        let list = self.lists.get(self.filters.find(filter)?.index())?;
        let found = list.iter().find(|(other, _)| other.id() == scope);
        found.map(|(_, view)| *view)
    }

    pub(super) fn insert(&mut self, filter: TopicFilter<&str>, scope: SharedScope, view: ViewId) {
        let place = match self.filters.find(filter) {
            Some(place) => place,
            None => {
                let place = self.free.pop().unwrap_or_else(|| {
                    self.lists.push(Vec::new());
                    ViewId((self.lists.len() - 1) as u32)
                });
                self.filters.insert(filter, place);
                place
            }
        };
        if let Some(list) = self.lists.get_mut(place.index()) {
            list.push((scope, view));
            self.live += 1;
        }
    }

    pub(super) fn remove(&mut self, filter: TopicFilter<&str>, view: ViewId) {
        let Some(place) = self.filters.find(filter) else {
            return;
        };
        if let Some(list) = self.lists.get_mut(place.index())
            && let Some(at) = list.iter().position(|(_, other)| *other == view)
        {
            list.swap_remove(at);
            self.live -= 1;
            if list.is_empty() {
                self.filters.remove(filter);
                self.free.push(place);
            }
        }
    }

    /// Calls `found` with every view whose filter matches and whose scope has the topic.
    pub(super) fn matching(&mut self, topic: TopicName<&str>, mut found: impl FnMut(ViewId)) {
        if self.live == 0 {
            return;
        }
        let lists = &self.lists;
        self.filters.matching(topic, |place| {
            for (scope, view) in lists.get(place.index()).into_iter().flatten() {
                if scope.has(topic) {
                    found(*view);
                }
            }
        });
    }
}

impl<P: AsRef<[u8]> + Default> Hub<P> {
    /// Begins a subscription that brings what is in a scope; None: all that matches its filter.
    ///
    /// # Errors
    /// When a bound refuses it.
    pub fn subscribe_within(
        &mut self,
        filter: TopicFilter<&str>,
        scope: Option<SharedScope>,
        mode: Mode,
        start: Start,
    ) -> Result<SubscriptionId, SubscribeError> {
        self.check_subscribe(filter)?;
        let view = self.view_within(filter, scope);
        Ok(self.begin(view, mode, start))
    }

    /// Gives a subscription another scope, from where it stands: what it has taken does not come again. Of what comes into its
    /// scope, what is retained comes `with_state`, as do clears, and what is published from now on. Events from before come
    /// to one that had not yet taken all of its old scope; to others they were not meant for it.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn set_scope(
        &mut self,
        id: SubscriptionId,
        scope: Option<SharedScope>,
        with_state: bool,
    ) -> Result<(), UnknownSubscription> {
        let old = self.view_of(id)?;
        let filter = self.filter_of(id)?.map(Arc::<str>::from);
        let view = self.view_within(filter.borrowed(), scope);
        if view != old {
            self.enter_view(view, true);
            self.move_to(id, view, with_state)?;
            self.leave_view(old);
        }
        Ok(())
    }

    fn view_within(&mut self, filter: TopicFilter<&str>, scope: Option<SharedScope>) -> ViewId {
        let known = match &scope {
            None => self.filters.find(filter),
            Some(scope) => self.scoped.find(filter, scope.id()),
        };
        known.unwrap_or_else(|| self.add_view(filter, scope))
    }
}
