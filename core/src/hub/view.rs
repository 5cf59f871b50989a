//! What all subscriptions with one filter share.

use alloc::{collections::VecDeque, sync::Arc};

use super::cursor::{Ahead, Found, Source, Totals};
use super::published::Published;
use super::rev_log::RevLog;
use super::scope::SharedScope;
use super::{Kind, SharedEntry};
use crate::topic::{TopicFilter, TopicName};

/// The view that all subscriptions with the same filter, and the same scope, share. A view id may be given to another
/// filter after the last of its subscriptions has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub(super) u32);

impl ViewId {
    /// A small number, for tables that stand beside the hub's.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The matching part of the log and of the ring, in revision order.
#[derive(Debug)]
pub(super) struct View<P> {
    pub(super) filter: TopicFilter<Arc<str>>,
    pub(super) scope: Option<SharedScope>,
    pub(super) subscriptions: usize,
    pub(super) values: RevLog<SharedEntry<P>>,
    pub(super) tombstones: RevLog<SharedEntry<P>>,
    pub(super) forgotten: u64,
    /// The newest publish or clear that took the place of a value or a tombstone.
    pub(super) replaced: u64,
    /// Revisions of the matching publishes in the ring, and of the events among them. Those that have
    /// left the ring are dropped at the next chance.
    recent: VecDeque<u64>,
    recent_events: VecDeque<u64>,
    /// The revision from which on `recent` is complete.
    recent_since: u64,
    totals: Totals,
    /// The revisions of the last matching publish and of the one before; those of the time before the view are
    /// taken for its first.
    newest: (u64, u64),
}

impl<P> View<P> {
    pub(super) fn new(
        filter: TopicFilter<Arc<str>>,
        scope: Option<SharedScope>,
        revision: u64,
    ) -> Self {
        Self {
            filter,
            scope,
            subscriptions: 0,
            values: RevLog::new(),
            tombstones: RevLog::new(),
            forgotten: 0,
            replaced: 0,
            recent: VecDeque::new(),
            recent_events: VecDeque::new(),
            recent_since: revision + 1,
            totals: Totals::default(),
            newest: (revision, revision),
        }
    }

    pub(super) fn is_in_scope(&self, topic: TopicName<&str>) -> bool {
        (self.scope.as_ref()).is_none_or(|scope| scope.has(topic))
    }

    /// Takes note of a matching publish. `recent_from` is the oldest revision in the ring.
    pub(super) fn note(&mut self, rev: u64, kind: Kind, recent_from: u64) {
        drop_before(&mut self.recent, recent_from);
        drop_before(&mut self.recent_events, recent_from);
        self.newest = (rev, self.newest.0);
        let in_ring = rev >= recent_from;
        self.recent.extend(in_ring.then_some(rev));
        if kind == Kind::Event {
            self.totals.events += 1;
            self.recent_events.extend(in_ring.then_some(rev));
        } else {
            self.totals.state += 1;
        }
    }

    /// The oldest value or tombstone, each up to a revision, of a topic that another scope does not have.
    pub(super) fn oldest_outside(
        &self,
        scope: &SharedScope,
        values_to: u64,
        tombstones_to: u64,
    ) -> Option<u64> {
        let oldest = |log: &RevLog<SharedEntry<P>>, to| {
            let mut entries = log.iter().take_while(|(rev, _)| *rev <= to);
            let found = entries.find(|(_, entry)| !scope.has(entry.topic.borrowed()));
            found.map(|(rev, _)| rev)
        };
        let value = oldest(&self.values, values_to);
        let tombstone = oldest(&self.tombstones, tombstones_to);
        value.into_iter().chain(tombstone).min()
    }

    /// How many matching publishes of the ring have come after a revision.
    pub(super) fn recent_after(&self, rev: u64) -> u64 {
        count_from(&self.recent, rev + 1)
    }

    /// Makes the view see what was in the ring before the view began: a subscription that resumes
    /// needs it.
    pub(super) fn see_ring(&mut self, ring: &VecDeque<SharedEntry<P>>) {
        let unseen = ring
            .iter()
            .take_while(|entry| entry.rev < self.recent_since);
        let matching = unseen.filter(|entry| {
            self.filter.matches(&entry.topic) && self.is_in_scope(entry.topic.borrowed())
        });
        let (mut recent, mut events) = (VecDeque::new(), VecDeque::new());
        for entry in matching {
            recent.push_back(entry.rev);
            events.extend((entry.kind == Kind::Event).then_some(entry.rev));
        }
        recent.append(&mut self.recent);
        events.append(&mut self.recent_events);
        (self.recent, self.recent_events, self.recent_since) = (recent, events, 0);
    }
}

fn drop_before(revisions: &mut VecDeque<u64>, recent_from: u64) {
    while revisions.front().is_some_and(|rev| *rev < recent_from) {
        revisions.pop_front();
    }
}

fn count_from(revisions: &VecDeque<u64>, rev: u64) -> u64 {
    (revisions.len() - revisions.partition_point(|slot| *slot < rev)) as u64
}

/// A view together with what it needs of its hub.
pub(super) struct Seen<'a, P> {
    pub(super) view: &'a View<P>,
    pub(super) epoch: u64,
    pub(super) revision: u64,
    pub(super) forgotten: u64,
    pub(super) recent: &'a VecDeque<SharedEntry<P>>,
    /// By place in the ring: the revision that followed on a value or clear in its topic; 0: none so far.
    pub(super) followed: &'a VecDeque<u64>,
    /// The newest revision that has left the ring.
    pub(super) left: u64,
    /// See [`Source::restored`].
    pub(super) restored: u64,
    pub(super) published: &'a Published,
    /// See [`Source::lost`].
    pub(super) lost: &'a [(u64, u64)],
    /// What the subscription has taken already of the state that it goes through again: up to a revision, what was in a scope.
    pub(super) had: Option<(&'a SharedScope, u64)>,
}

impl<P> Seen<'_, P> {
    /// The oldest entry of a log after a revision that was not taken already.
    fn not_had(&self, log: &RevLog<SharedEntry<P>>, after: u64) -> Option<Found<SharedEntry<P>>> {
        let mut next = log.after(after)?;
        if let Some((scope, to)) = self.had {
            while next.0 <= to && scope.has(next.1.topic.borrowed()) {
                next = log.after(next.0)?;
            }
        }
        Some(found(next))
    }
}

impl<P> Source for Seen<'_, P> {
    type Item = SharedEntry<P>;

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn recent_from(&self) -> u64 {
        self.left + 1
    }

    fn restored(&self) -> u64 {
        self.restored
    }

    fn published(&self, after: u64, to: u64) -> u64 {
        self.published.between(after, to)
    }

    fn lost(&self) -> &[(u64, u64)] {
        self.lost
    }

    fn forgotten_ever(&self) -> u64 {
        self.forgotten
    }

    fn forgotten(&self) -> u64 {
        self.view.forgotten
    }

    fn totals(&self) -> Totals {
        self.view.totals
    }

    fn recent_totals(&self, rev: u64) -> Totals {
        let from = self.recent_from().max(rev + 1);
        let events = count_from(&self.view.recent_events, from);
        Totals {
            state: count_from(&self.view.recent, from) - events,
            events,
        }
    }

    fn replaced(&self) -> u64 {
        self.view.replaced
    }

    fn standing(&self, rev: u64, to: u64, at: u64) -> Option<Found<SharedEntry<P>>> {
        let from = self.recent_from().max(rev + 1);
        let revisions = &self.view.recent;
        let first = revisions.partition_point(|slot| *slot < from);
        revisions
            .range(first..)
            .take_while(|rev| **rev <= to)
            .find_map(|rev| {
                let place = find(self.recent, *rev)?;
                let (entry, followed) = (self.recent.get(place)?, *self.followed.get(place)?);
                let stood = entry.kind != Kind::Event && (followed == 0 || followed > at);
                stood.then(|| found((*rev, entry)))
            })
    }

    fn value_after(&self, rev: u64) -> Option<Found<SharedEntry<P>>> {
        self.not_had(&self.view.values, rev)
    }

    fn tombstone_after(&self, rev: u64) -> Option<Found<SharedEntry<P>>> {
        self.not_had(&self.view.tombstones, rev)
    }

    fn recent_after(&self, rev: u64, events_only: bool) -> Option<Found<SharedEntry<P>>> {
        let recent_from = self.recent_from();
        let revisions = match events_only {
            true => &self.view.recent_events,
            false => &self.view.recent,
        };
        let from = recent_from.max(rev + 1);
        // Who keeps up has all, or all but the last.
        let last = *revisions.back().filter(|last| **last >= from)?;
        let before = revisions
            .len()
            .checked_sub(2)
            .and_then(|place| revisions.get(place));
        let rev = match before.is_none_or(|rev| *rev < from) {
            true => last,
            false => *revisions.get(revisions.partition_point(|slot| *slot < from))?,
        };
        let entry = entry_of(self.recent, rev)?;
        Some(Found {
            rev,
            kind: entry.kind,
            item: Arc::clone(entry),
        })
    }

    fn ahead(&self, rev: u64) -> Ahead<SharedEntry<P>> {
        let (newest, before) = self.view.newest;
        if newest <= rev {
            return Ahead::Nothing;
        }
        if before > rev {
            return Ahead::Unknown;
        }
        match entry_of(self.recent, newest) {
            // The tombstone of a clear may be forgotten already, which a walk has to see.
            Some(entry) if entry.kind != Kind::Cleared && newest >= self.recent_from() => {
                Ahead::One(found((newest, entry)))
            }
            _ => Ahead::Unknown,
        }
    }
}

fn entry_of<P>(ring: &VecDeque<SharedEntry<P>>, rev: u64) -> Option<&SharedEntry<P>> {
    ring.get(find(ring, rev)?)
}

/// Where the entry with this revision stands. Revisions have gaps only where a hub was restored or told to go on later, so
/// that it is nearly always where it would stand without any.
pub(super) fn find<P>(ring: &VecDeque<SharedEntry<P>>, rev: u64) -> Option<usize> {
    let (first, last) = (ring.front()?.rev, ring.back()?.rev);
    let from_front = rev.checked_sub(first)? as usize;
    let from_back = (ring.len() - 1).checked_sub(last.checked_sub(rev)? as usize);
    let is_it = |place: &usize| ring.get(*place).is_some_and(|entry| entry.rev == rev);
    let guessed = Some(from_front).filter(is_it);
    let guessed = guessed.or_else(|| from_back.filter(is_it));
    guessed.or_else(|| ring.binary_search_by_key(&rev, |entry| entry.rev).ok())
}

fn found<P>((rev, entry): (u64, &SharedEntry<P>)) -> Found<SharedEntry<P>> {
    Found {
        rev,
        kind: entry.kind,
        item: Arc::clone(entry),
    }
}
