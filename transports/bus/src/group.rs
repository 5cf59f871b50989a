//! Subscriptions that several clients share: one cursor in the hub, whose messages they take in turn.

use core::mem;
use std::collections::{HashMap, VecDeque};

use latchbus_core::hub::{SubscriptionId, ViewId};

use crate::Delivery;
use crate::access::Reader;
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
    /// What members have left unfinished, or may not read; the next to be taken.
    given_back: VecDeque<Delivery>,
    /// What the members may read, and how many of them.
    readers: Vec<(Option<Reader>, usize)>,
}

impl Group {
    fn add_reader(&mut self, reader: Option<&Reader>) {
        let same = |(other, _): &&mut (Option<Reader>, usize)| is_same(other.as_ref(), reader);
        match self.readers.iter_mut().find(same) {
            Some((_, members)) => *members += 1,
            None => self.readers.push((reader.cloned(), 1)),
        }
    }

    /// What nobody is left to read is let go.
    fn remove_reader(&mut self, reader: Option<&Reader>) {
        let same = |(other, _): &(Option<Reader>, usize)| is_same(other.as_ref(), reader);
        let Some(place) = self.readers.iter().position(same) else {
            return;
        };
        if let Some((_, members)) = self.readers.get_mut(place) {
            *members -= 1;
            if *members == 0 {
                self.readers.swap_remove(place);
                let readers = &self.readers;
                (self.given_back).retain(|delivery| is_for_anyone(readers, delivery));
            }
        }
    }
}

fn is_same(a: Option<&Reader>, b: Option<&Reader>) -> bool {
    a.map(Reader::id) == b.map(Reader::id)
}

fn is_for(reader: Option<&Reader>, delivery: &Delivery) -> bool {
    reader.is_none_or(|reader| reader.may_read(delivery.topic.borrowed()))
}

fn is_for_anyone(readers: &[(Option<Reader>, usize)], delivery: &Delivery) -> bool {
    (readers.iter()).any(|(reader, _)| is_for(reader.as_ref(), delivery))
}

impl Groups {
    /// How many groups there are, and how many members they have together.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let members = self.groups.values().map(|group| group.members);
        (self.groups.len(), members.sum())
    }

    /// The name of a group.
    pub(crate) fn name_of(&self, id: SubscriptionId) -> Option<&str> {
        self.groups.get(&id).map(|group| group.name.0.as_str())
    }

    /// Another member, if the group is there.
    pub(crate) fn join(
        &mut self,
        name: &(String, String),
        reader: Option<&Reader>,
    ) -> Option<SubscriptionId> {
        let id = *self.names.get(name)?;
        let group = self.groups.get_mut(&id)?;
        group.members += 1;
        group.add_reader(reader);
        Some(id)
    }

    /// A member may now read something else: whoever waits looks again.
    pub(crate) fn set_reader(
        &mut self,
        id: SubscriptionId,
        old: Option<&Reader>,
        new: Option<&Reader>,
    ) -> VecDeque<Waiter> {
        let Some(group) = self.groups.get_mut(&id) else {
            return VecDeque::new();
        };
        group.add_reader(new);
        group.remove_reader(old);
        mem::take(&mut group.waiting)
    }

    /// A member may not read this: whoever may is to take it, and whoever waits looks. Without anybody it is gone. Also how
    /// many were lost at the bound, the oldest first.
    pub(crate) fn leave_to_others(
        &mut self,
        id: SubscriptionId,
        delivery: Delivery,
    ) -> (u64, VecDeque<Waiter>) {
        let Some(group) = self.groups.get_mut(&id) else {
            return (0, VecDeque::new());
        };
        if !is_for_anyone(&group.readers, &delivery) {
            return (0, VecDeque::new());
        }
        let is_full = group.given_back.len() >= MAX_GIVEN_BACK;
        let lost = is_full && group.given_back.pop_front().is_some();
        group.given_back.push_back(delivery);
        (lost.into(), mem::take(&mut group.waiting))
    }

    /// A new group with one member.
    pub(crate) fn found(
        &mut self,
        name: (String, String),
        id: SubscriptionId,
        view: ViewId,
        reader: Option<&Reader>,
    ) {
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
                readers: Vec::from([(reader.cloned(), 1)]),
            },
        );
    }

    /// A member has left; true when it was the last.
    pub(crate) fn leave(&mut self, id: SubscriptionId, reader: Option<&Reader>) -> bool {
        let Some(group) = self.groups.get_mut(&id) else {
            return false;
        };
        group.members -= 1;
        group.remove_reader(reader);
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
        let readers = &group.readers;
        let deliveries = deliveries.into_iter();
        (group.given_back).extend(deliveries.filter(|it| is_for_anyone(readers, it)));
        group.has_news |= !group.given_back.is_empty();
        let lost = group.given_back.len().saturating_sub(MAX_GIVEN_BACK);
        group.given_back.drain(..lost);
        lost
    }

    /// The oldest message that was given back and that this member may read.
    pub(crate) fn take_given_back(
        &mut self,
        id: SubscriptionId,
        reader: Option<&Reader>,
    ) -> Option<Delivery> {
        let given_back = &mut self.groups.get_mut(&id)?.given_back;
        let place = given_back.iter().position(|it| is_for(reader, it))?;
        given_back.remove(place)
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
