//! The hub that grows with its topics and shares its values between subscribers.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::ops::Bound;

use super::cursor::{Counts, Mode, Start, Step, Walk};
use super::filter_tree::FilterTree;
use super::view::{Seen, View, ViewId};
use super::{
    Entry, HubCounts, Kind, PublishError, Retain, SharedEntry, SubscribeError, SubscriptionId,
    UnknownSubscription,
};
use crate::topic::{TopicFilter, TopicName};

/// The bounds of a [`Hub`]. What happens at each is said at [`FixedHub`](super::FixedHub).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Kept values, over all topics.
    pub places: usize,
    /// Cleared topics remembered.
    pub tombstones: usize,
    /// Publishes in the recent ring.
    pub recent: usize,
    /// Bytes in the recent ring: topics and payloads.
    pub recent_bytes: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Bytes of a topic or of a filter.
    pub topic_bytes: usize,
    /// Bytes of a payload.
    pub payload_bytes: usize,
}

impl Default for Limits {
    /// Room for a server: a million values, 16 MiB of recent publishes.
    fn default() -> Self {
        Self {
            places: 1_000_000,
            tombstones: 65_536,
            recent: 16_384,
            recent_bytes: 16 << 20,
            subscriptions: 1_000_000,
            topic_bytes: 1_024,
            payload_bytes: 64 << 10,
        }
    }
}

/// A hub for servers. `P` is the payload as the server shares it, for example bytes together with
/// the encodings made of them.
///
/// A publish costs O(matching views · log topics), a take O(log topics). See [the module](super) for
/// what it promises.
#[derive(Debug)]
pub struct Hub<P> {
    epoch: u64,
    revision: u64,
    forgotten: u64,
    limits: Limits,
    counts: HubCounts,
    topics: BTreeMap<Arc<str>, Kept<P>>,
    places_taken: usize,
    tombstones: VecDeque<(u64, Arc<str>)>,
    tombstones_live: usize,
    recent: VecDeque<SharedEntry<P>>,
    recent_bytes: usize,
    filters: FilterTree,
    views: Vec<Option<View<P>>>,
    free_views: Vec<ViewId>,
    subscriptions: Vec<Option<Subscription>>,
    free_subscriptions: Vec<u32>,
    subscriptions_live: usize,
    generation: u32,
    matched: Vec<ViewId>,
}

#[derive(Debug)]
enum Kept<P> {
    One(SharedEntry<P>),
    Several(VecDeque<SharedEntry<P>>),
    Cleared(SharedEntry<P>),
}

#[derive(Debug)]
struct Subscription {
    generation: u32,
    view: ViewId,
    walk: Walk,
}

impl<P: AsRef<[u8]> + Default> Hub<P> {
    /// An empty hub. The epoch tells this life of the hub from every other: clients that come back
    /// with a cursor of another epoch are reset.
    pub fn new(epoch: u64, limits: Limits) -> Self {
        Self {
            epoch,
            revision: 0,
            forgotten: 0,
            limits,
            counts: HubCounts::default(),
            topics: BTreeMap::new(),
            places_taken: 0,
            tombstones: VecDeque::new(),
            tombstones_live: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            filters: FilterTree::new(),
            views: Vec::new(),
            free_views: Vec::new(),
            subscriptions: Vec::new(),
            free_subscriptions: Vec::new(),
            subscriptions_live: 0,
            generation: 0,
            matched: Vec::new(),
        }
    }

    /// The epoch given at the start.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The revision of the newest publish; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The bounds given at the start.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What was accepted and refused so far.
    pub fn counts(&self) -> HubCounts {
        self.counts
    }

    /// How many values are kept, over all topics.
    pub fn places_taken(&self) -> usize {
        self.places_taken
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions_live
    }

    /// The newest kept value of `topic`.
    pub fn last(&self, topic: TopicName<&str>) -> Option<SharedEntry<P>> {
        match self.topics.get(topic.as_str())? {
            Kept::One(entry) => Some(Arc::clone(entry)),
            Kept::Several(entries) => entries.back().map(Arc::clone),
            Kept::Cleared(_) => None,
        }
    }

    /// Every kept value that matches, by topic, and by revision within one.
    pub fn kept(&self, filter: TopicFilter<&str>) -> Vec<SharedEntry<P>> {
        let mut kept = Vec::new();
        for (_, of_topic) in self.topics_matching(filter) {
            match of_topic {
                Kept::One(entry) => kept.push(Arc::clone(entry)),
                Kept::Several(entries) => kept.extend(entries.iter().map(Arc::clone)),
                Kept::Cleared(_) => {}
            }
        }
        kept
    }

    /// Whether a publish would find room: what `publish` would say, without publishing.
    ///
    /// # Errors
    /// What [`publish`](Self::publish) would return.
    pub fn check(
        &self,
        topic: TopicName<&str>,
        payload_bytes: usize,
        retain: Retain,
    ) -> Result<(), PublishError> {
        self.check_sizes(topic, payload_bytes)?;
        let Retain::Last(n) = retain else {
            return Ok(());
        };
        let leaving = (self.kept_of(topic) + 1).saturating_sub(usize::from(n.max(1)));
        if self.places_taken - leaving >= self.limits.places {
            return Err(PublishError::Full {
                places: self.limits.places,
            });
        }
        Ok(())
    }

    /// Publishes `payload` and returns the entry with its revision. `at` is the time in milliseconds.
    /// Afterwards [`matched`](Self::matched) tells the views that have news.
    ///
    /// # Errors
    /// When a bound refuses it; the hub is then as it was, but for [`HubCounts::dropped`].
    pub fn publish(
        &mut self,
        topic: TopicName<&str>,
        payload: P,
        retain: Retain,
        at: u64,
    ) -> Result<SharedEntry<P>, PublishError> {
        self.matched.clear();
        self.check(topic, payload.as_ref().len(), retain)
            .inspect_err(|_| self.counts.dropped += 1)?;
        let kind = match retain {
            Retain::No => Kind::Event,
            Retain::Last(_) => Kind::State,
        };
        let entry = self.accept(topic, payload, kind, at);
        if let Retain::Last(n) = retain {
            self.keep(&entry, usize::from(n.max(1)));
        }
        self.note(&entry);
        Ok(entry)
    }

    /// Removes what `topic` keeps and returns the clear; `None` when it kept nothing, which changes
    /// nothing.
    ///
    /// # Errors
    /// When the topic is longer than this hub accepts.
    pub fn clear(
        &mut self,
        topic: TopicName<&str>,
        at: u64,
    ) -> Result<Option<SharedEntry<P>>, PublishError> {
        self.matched.clear();
        self.check_sizes(topic, 0)?;
        if self.kept_of(topic) == 0 {
            return Ok(None);
        }
        if self.tombstones_live >= self.limits.tombstones {
            self.forget_oldest_tombstone();
        }
        let entry = self.accept(topic, P::default(), Kind::Cleared, at);
        let key = Arc::clone(entry.topic.inner());
        let cleared = Kept::Cleared(Arc::clone(&entry));
        if let Some(before) = self.topics.insert(key, cleared) {
            self.remove_from_views(before);
        }
        if self.limits.tombstones == 0 {
            self.topics.remove(topic.as_str());
            self.forget(entry.rev);
        } else {
            self.tombstones
                .push_back((entry.rev, Arc::clone(entry.topic.inner())));
            self.tombstones_live += 1;
            for_each(&mut self.views, &self.matched, |view| {
                view.tombstones.push(entry.rev, Arc::clone(&entry));
            });
        }
        self.note(&entry);
        Ok(Some(entry))
    }

    /// The views that the last `publish` or `clear` has news for.
    pub fn matched(&self) -> &[ViewId] {
        &self.matched
    }

    /// Begins a subscription.
    ///
    /// # Errors
    /// When a bound refuses it.
    pub fn subscribe(
        &mut self,
        filter: TopicFilter<&str>,
        mode: Mode,
        start: Start,
    ) -> Result<SubscriptionId, SubscribeError> {
        let (bytes, limit) = (filter.as_str().len(), self.limits.topic_bytes);
        if bytes > limit {
            self.counts.subscriptions_refused += 1;
            return Err(SubscribeError::FilterTooLong { bytes, limit });
        }
        if self.subscriptions_live >= self.limits.subscriptions {
            self.counts.subscriptions_refused += 1;
            return Err(SubscribeError::Full {
                limit: self.limits.subscriptions,
            });
        }
        let view = match self.filters.find(filter) {
            Some(view) => view,
            None => self.add_view(filter),
        };
        if let Some(Some(seen)) = self.views.get_mut(view.index()) {
            seen.subscriptions += 1;
            if matches!(start, Start::Resume(_)) {
                seen.see_ring(&self.recent);
            }
        }
        self.generation = self.generation.wrapping_add(1);
        let subscription = self.seen(view).map(|seen| Subscription {
            generation: self.generation,
            view,
            walk: Walk::new(mode, start, &seen),
        });
        self.subscriptions_live += 1;
        let slot = match self.free_subscriptions.pop() {
            Some(slot) => slot,
            None => {
                self.subscriptions.push(None);
                (self.subscriptions.len() - 1) as u32
            }
        };
        if let Some(place) = self.subscriptions.get_mut(slot as usize) {
            *place = subscription;
        }
        Ok(SubscriptionId {
            slot,
            generation: self.generation,
        })
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> Result<(), UnknownSubscription> {
        let place = self
            .subscriptions
            .get_mut(id.slot as usize)
            .ok_or(UnknownSubscription)?;
        let ended = place
            .take_if(|subscription| subscription.generation == id.generation)
            .ok_or(UnknownSubscription)?;
        self.free_subscriptions.push(id.slot);
        self.subscriptions_live -= 1;
        if let Some(place) = self.views.get_mut(ended.view.index())
            && let Some(view) = place
        {
            view.subscriptions -= 1;
            if view.subscriptions == 0 {
                self.filters.remove(view.filter.borrowed());
                self.free_views.push(ended.view);
                *place = None;
            }
        }
        Ok(())
    }

    /// Takes the next step of a subscription; `None` when it has all there is.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn next(
        &mut self,
        id: SubscriptionId,
    ) -> Result<Option<Step<SharedEntry<P>>>, UnknownSubscription> {
        let Some(Some(subscription)) = self.subscriptions.get_mut(id.slot as usize) else {
            return Err(UnknownSubscription);
        };
        if subscription.generation != id.generation {
            return Err(UnknownSubscription);
        }
        let Some(Some(view)) = self.views.get(subscription.view.index()) else {
            return Err(UnknownSubscription);
        };
        Ok(subscription.walk.step(&Seen {
            view,
            epoch: self.epoch,
            revision: self.revision,
            forgotten: self.forgotten,
            recent: &self.recent,
        }))
    }

    /// The view that a subscription shares.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn view_of(&self, id: SubscriptionId) -> Result<ViewId, UnknownSubscription> {
        self.subscription(id).map(|subscription| subscription.view)
    }

    /// What happened to the publishes that matched a subscription.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn subscription_counts(&self, id: SubscriptionId) -> Result<Counts, UnknownSubscription> {
        self.subscription(id)
            .map(|subscription| subscription.walk.counts())
    }

    fn subscription(&self, id: SubscriptionId) -> Result<&Subscription, UnknownSubscription> {
        self.subscriptions
            .get(id.slot as usize)
            .and_then(Option::as_ref)
            .filter(|subscription| subscription.generation == id.generation)
            .ok_or(UnknownSubscription)
    }

    fn check_sizes(&self, topic: TopicName<&str>, payload: usize) -> Result<(), PublishError> {
        let (bytes, limit) = (topic.as_str().len(), self.limits.topic_bytes);
        if bytes > limit {
            return Err(PublishError::TopicTooLong { bytes, limit });
        }
        let (bytes, limit) = (payload, self.limits.payload_bytes);
        if bytes > limit {
            return Err(PublishError::PayloadTooLarge { bytes, limit });
        }
        Ok(())
    }

    fn kept_of(&self, topic: TopicName<&str>) -> usize {
        match self.topics.get(topic.as_str()) {
            Some(Kept::One(_)) => 1,
            Some(Kept::Several(entries)) => entries.len(),
            Some(Kept::Cleared(_)) | None => 0,
        }
    }

    /// Gives the next revision, puts the entry into the ring and finds the matching views.
    fn accept(
        &mut self,
        topic: TopicName<&str>,
        payload: P,
        kind: Kind,
        at: u64,
    ) -> SharedEntry<P> {
        self.revision += 1;
        self.counts.accepted += 1;
        let known = self.topics.get_key_value(topic.as_str());
        let entry = Arc::new(Entry {
            rev: self.revision,
            at,
            kind,
            topic: topic
                .map(|text| known.map_or_else(|| Arc::from(text), |(key, _)| Arc::clone(key))),
            payload,
        });
        self.recent_bytes += ring_bytes(&entry);
        self.recent.push_back(Arc::clone(&entry));
        while self.recent.len() > self.limits.recent || self.recent_bytes > self.limits.recent_bytes
        {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes -= ring_bytes(&oldest);
        }
        self.filters.matching(topic, |view| self.matched.push(view));
        entry
    }

    /// Puts a value at the end of the log, and takes out what its topic has too many of.
    fn keep(&mut self, entry: &SharedEntry<P>, history: usize) {
        let key = Arc::clone(entry.topic.inner());
        let mut leaving = VecDeque::new();
        let kept = match self.topics.remove(&key) {
            None => Kept::One(Arc::clone(entry)),
            Some(Kept::Cleared(tombstone)) => {
                self.tombstones_live -= 1;
                for_each(&mut self.views, &self.matched, |view| {
                    view.tombstones.remove(tombstone.rev);
                });
                self.compact_tombstones();
                Kept::One(Arc::clone(entry))
            }
            Some(Kept::One(before)) if history == 1 => {
                leaving.push_back(before);
                Kept::One(Arc::clone(entry))
            }
            Some(Kept::One(before)) => Kept::Several(VecDeque::from([before, Arc::clone(entry)])),
            Some(Kept::Several(mut entries)) => {
                entries.push_back(Arc::clone(entry));
                leaving.extend(entries.drain(..entries.len().saturating_sub(history)));
                Kept::Several(entries)
            }
        };
        self.topics.insert(key, kept);
        self.places_taken = self.places_taken + 1 - leaving.len();
        for_each(&mut self.views, &self.matched, |view| {
            for before in &leaving {
                view.values.remove(before.rev);
            }
            view.values.push(entry.rev, Arc::clone(entry));
        });
    }

    fn remove_from_views(&mut self, kept: Kept<P>) {
        let entries = match kept {
            Kept::One(entry) => VecDeque::from([entry]),
            Kept::Several(entries) => entries,
            Kept::Cleared(_) => return,
        };
        self.places_taken -= entries.len();
        for_each(&mut self.views, &self.matched, |view| {
            for entry in &entries {
                view.values.remove(entry.rev);
            }
        });
    }

    fn note(&mut self, entry: &SharedEntry<P>) {
        let recent_from = self
            .recent
            .front()
            .map_or(self.revision + 1, |oldest| oldest.rev);
        for_each(&mut self.views, &self.matched, |view| {
            view.note(entry.rev, entry.kind, recent_from);
        });
    }

    /// Drops places in the order of tombstones whose topics live again.
    fn compact_tombstones(&mut self) {
        if self.tombstones.len() > 2 * self.tombstones_live + 32 {
            let topics = &self.topics;
            self.tombstones
                .retain(|(rev, topic)| is_tombstone(topics, *rev, topic));
        }
    }

    fn forget_oldest_tombstone(&mut self) {
        while let Some((rev, topic)) = self.tombstones.pop_front() {
            if is_tombstone(&self.topics, rev, &topic)
                && let Some((_, Kept::Cleared(tombstone))) = self.topics.remove_entry(&topic)
            {
                self.tombstones_live -= 1;
                self.filters
                    .matching(tombstone.topic.borrowed(), |view| self.matched.push(view));
                for_each(&mut self.views, &self.matched, |view| {
                    view.tombstones.remove(rev);
                });
                self.forget(rev);
                self.matched.clear();
                return;
            }
        }
    }

    /// Marks the matched views: a subscription behind `rev` must be reset.
    fn forget(&mut self, rev: u64) {
        self.forgotten = self.forgotten.max(rev);
        for_each(&mut self.views, &self.matched, |view| {
            view.forgotten = view.forgotten.max(rev);
        });
    }

    fn add_view(&mut self, filter: TopicFilter<&str>) -> ViewId {
        let mut view = View::new(filter.map(Arc::from), self.revision);
        let mut found: Vec<&SharedEntry<P>> = Vec::new();
        for (_, of_topic) in self.topics_matching(filter) {
            match of_topic {
                Kept::One(entry) | Kept::Cleared(entry) => found.push(entry),
                Kept::Several(entries) => found.extend(entries),
            }
        }
        found.sort_unstable_by_key(|entry| entry.rev);
        for entry in found {
            match entry.kind {
                Kind::Cleared => view.tombstones.push(entry.rev, Arc::clone(entry)),
                _ => view.values.push(entry.rev, Arc::clone(entry)),
            }
        }
        let id = match self.free_views.pop() {
            Some(id) => id,
            None => {
                self.views.push(None);
                ViewId((self.views.len() - 1) as u32)
            }
        };
        if let Some(place) = self.views.get_mut(id.index()) {
            *place = Some(view);
        }
        self.filters.insert(filter, id);
        id
    }

    fn seen(&self, view: ViewId) -> Option<Seen<'_, P>> {
        Some(Seen {
            view: self.views.get(view.index())?.as_ref()?,
            epoch: self.epoch,
            revision: self.revision,
            forgotten: self.forgotten,
            recent: &self.recent,
        })
    }

    /// The topics that match: looked up where the filter is exact, else scanned from the text before
    /// the first wildcard.
    fn topics_matching<'a>(
        &'a self,
        filter: TopicFilter<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Kept<P>)> {
        let text = filter.into_inner();
        let wildcard = text.find(['+', '#']);
        let literal = text.split_at(wildcard.unwrap_or(text.len())).0;
        // `sport/#` matches `sport` too, so the last `/` does not count.
        let prefix = literal.strip_suffix('/').unwrap_or(literal);
        let (prefix, to) = match wildcard {
            Some(_) => (prefix, Bound::Unbounded),
            None => (text, Bound::Included(text)),
        };
        self.topics
            .range::<str, _>((Bound::Included(prefix), to))
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .filter(move |(_, kept)| match kept {
                Kept::One(entry) | Kept::Cleared(entry) => filter.matches(&entry.topic),
                Kept::Several(entries) => entries
                    .front()
                    .is_some_and(|entry| filter.matches(&entry.topic)),
            })
    }
}

fn is_tombstone<P>(topics: &BTreeMap<Arc<str>, Kept<P>>, rev: u64, topic: &str) -> bool {
    matches!(topics.get(topic), Some(Kept::Cleared(entry)) if entry.rev == rev)
}

fn for_each<P>(
    views: &mut [Option<View<P>>],
    matched: &[ViewId],
    mut change: impl FnMut(&mut View<P>),
) {
    for id in matched {
        if let Some(Some(view)) = views.get_mut(id.index()) {
            change(view);
        }
    }
}

fn ring_bytes<P: AsRef<[u8]>>(entry: &Entry<Arc<str>, P>) -> usize {
    entry.topic.as_str().len() + entry.payload.as_ref().len()
}
