//! Subscriptions that several clients share: one cursor in the hub, whose messages they take in turn.

use std::collections::{HashMap, VecDeque};

use latchbus_core::hub::{SubscriptionId, ViewId};

use crate::Delivery;
use crate::shared::Waiter;

/// Messages that members have given back and nobody has taken yet; of more, the oldest is lost. A member's
/// window is smaller.
const MAX_GIVEN_BACK: usize = 4_096;

/// All groups of one hub. A group lives as long as it has members, so their number is bounded by that of
/// the subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// By name and filter.
    names: HashMap<(String, String), SubscriptionId>,
    groups: HashMap<SubscriptionId, Group>,
    /// By [`ViewId::index`].
    views: HashMap<usize, Vec<SubscriptionId>>,
}

#[derive(Debug)]
struct Group {
    name: (String, String),
    view: usize,
    members: usize,
    /// Members that have nothing to do; whoever took a message last is at the end.
    waiting: VecDeque<Waiter>,
    /// Whether there may be something to take.
    has_news: bool,
    /// What members have left unfinished; the next to be taken.
    given_back: VecDeque<Delivery>,
}

impl Groups {
    /// How many groups there are, and how many members they have together.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let members = self.groups.values().map(|group| group.members);
        (self.groups.len(), members.sum())
    }

    /// Another member, if the group is there.
    pub(crate) fn join(&mut self, name: &(String, String)) -> Option<SubscriptionId> {
        let id = *self.names.get(name)?;
        self.groups.get_mut(&id)?.members += 1;
        Some(id)
    }

    /// A new group with one member.
    pub(crate) fn found(&mut self, name: (String, String), id: SubscriptionId, view: ViewId) {
        self.names.insert(name.clone(), id);
        self.views.entry(view.index()).or_default().push(id);
        self.groups.insert(
            id,
            Group {
                name,
                view: view.index(),
                members: 1,
                waiting: VecDeque::new(),
                has_news: true,
                given_back: VecDeque::new(),
            },
        );
    }

    /// A member has left; true when it was the last.
    pub(crate) fn leave(&mut self, id: SubscriptionId) -> bool {
        let Some(group) = self.groups.get_mut(&id) else {
            return false;
        };
        group.members -= 1;
        if group.members > 0 {
            return false;
        }
        if let Some(group) = self.groups.remove(&id) {
            self.names.remove(&group.name);
            if let Some(ids) = self.views.get_mut(&group.view) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.views.remove(&group.view);
                }
            }
        }
        true
    }

    /// A message has come that matches a view: in each group, one member's turn.
    pub(crate) fn publish(&mut self, view: ViewId, woken: &mut Vec<Waiter>) {
        for id in self.views.get(&view.index()).into_iter().flatten() {
            if let Some(group) = self.groups.get_mut(id) {
                group.has_news = true;
                woken.extend(group.waiting.pop_front());
            }
        }
    }

    /// A member ends and has not finished these: they are another's. How many were lost at the bound.
    pub(crate) fn give_back(
        &mut self,
        id: SubscriptionId,
        deliveries: impl IntoIterator<Item = Delivery>,
    ) -> usize {
        let Some(group) = self.groups.get_mut(&id) else {
            return 0;
        };
        group.given_back.extend(deliveries);
        group.has_news |= !group.given_back.is_empty();
        let lost = group.given_back.len().saturating_sub(MAX_GIVEN_BACK);
        group.given_back.drain(..lost);
        lost
    }

    /// The oldest message that was given back.
    pub(crate) fn take_given_back(&mut self, id: SubscriptionId) -> Option<Delivery> {
        self.groups.get_mut(&id)?.given_back.pop_front()
    }

    /// Whether there is one.
    pub(crate) fn has_given_back(&self, id: SubscriptionId) -> bool {
        self.groups
            .get(&id)
            .is_some_and(|group| !group.given_back.is_empty())
    }

    /// Another member's turn: whose it was cannot take, or there is more.
    pub(crate) fn pass(&mut self, id: SubscriptionId) -> Option<Waiter> {
        let group = self.groups.get_mut(&id).filter(|group| group.has_news)?;
        group.waiting.pop_front()
    }

    /// The group has nothing more.
    pub(crate) fn exhausted(&mut self, id: SubscriptionId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.has_news = false;
        }
    }

    /// Waits for a turn: behind the others for whoever has had one; false when there may be something to
    /// take now.
    pub(crate) fn wait(&mut self, id: SubscriptionId, waiter: Waiter, had_turn: bool) -> bool {
        let Some(group) = self.groups.get_mut(&id) else {
            return true;
        };
        match (group.has_news, had_turn) {
            (true, _) => return false,
            (false, true) => group.waiting.push_back(waiter),
            (false, false) => group.waiting.push_front(waiter),
        }
        true
    }

    /// Waits no longer.
    pub(crate) fn forget(&mut self, id: SubscriptionId, is_it: impl Fn(&Waiter) -> bool) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.waiting.retain(|waiter| !is_it(waiter));
        }
    }
}
