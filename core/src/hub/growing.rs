//! The hub that grows with its topics and shares its values between subscribers.

use super::cursor::{Counts, Cursor, Entered, Mode, Start, Step, Walk, is_known};
use super::filter_tree::FilterTree;
use super::published::Published;
use super::scope::{ScopedViews, SharedScope};
use super::topics::Topics;
use super::view::{self, Seen, View, ViewId};
use super::{
    Entry, HubCounts, Kind, PublishError, Retain, SharedEntry, SubscribeError, SubscriptionId,
    UnknownSubscription,
};
use crate::topic::{TopicFilter, TopicName};
use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

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
            payload_bytes: 1 << 20,
        }
    }
}

/// What lies before a subscription: see [`Hub::next_up_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upcoming<E> {
    /// It was taken.
    Step(Step<E>),
    /// It stands at this revision, and was not taken.
    Later(u64),
    /// The subscription has all there is.
    Nothing,
}

impl<E> From<Result<Option<Step<E>>, u64>> for Upcoming<E> {
    fn from(next: Result<Option<Step<E>>, u64>) -> Self {
        match next {
            Ok(Some(step)) => Self::Step(step),
            Ok(None) => Self::Nothing,
            Err(rev) => Self::Later(rev),
        }
    }
}

/// What a hub that was restored knows of its earlier life, besides what was put back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EarlierLife {
    /// The newest revision that anything may have had: the hub goes on behind it.
    pub revision: u64,
    /// The newest event that may have been, whether it was put back or not: a cursor from there on has missed none.
    pub events: u64,
    /// The newest clear that was forgotten: a cursor before it is reset.
    pub forgotten: u64,
    /// The newest revision that had left the recent ring.
    pub left: u64,
    /// Revisions whose values may have been taken in this or an earlier life, and were lost: after the first, up to
    /// the second of each pair. A cursor from there is reset.
    pub lost: Vec<(u64, u64)>,
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
    topics: Topics<P>,
    recent: VecDeque<SharedEntry<P>>,
    /// See [`Seen::followed`].
    followed: VecDeque<u64>,
    recent_bytes: usize,
    /// Of the payloads of the kept values.
    kept_bytes: usize,
    /// The newest revision that has left the ring.
    left: u64,
    newest_event: u64,
    /// See [`EarlierLife::events`].
    restored: u64,
    published: Published,
    /// See [`Source::lost`].
    lost: Vec<(u64, u64)>,
    pub(super) filters: FilterTree,
    pub(super) scoped: ScopedViews,
    views: Vec<Option<View<P>>>,
    free_views: Vec<ViewId>,
    subscriptions: Vec<Option<Subscription>>,
    free_subscriptions: Vec<u32>,
    subscriptions_live: usize,
    generation: u32,
    matched: Vec<ViewId>,
}

#[derive(Debug)]
struct Subscription {
    generation: u32,
    view: ViewId,
    walk: Walk,
    /// The scope of before, until the walk is behind what it [had](Walk::had_to).
    had: Option<SharedScope>,
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
            topics: Topics::new(),
            recent: VecDeque::new(),
            followed: VecDeque::new(),
            recent_bytes: 0,
            kept_bytes: 0,
            left: 0,
            newest_event: 0,
            restored: 0,
            published: Published::new(),
            lost: Vec::new(),
            filters: FilterTree::new(),
            scoped: ScopedViews::new(),
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
        self.topics.places_taken()
    }

    /// How many bytes the payloads of the kept values have.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions_live
    }

    /// Whether any subscription matches `topic`.
    pub fn is_followed(&mut self, topic: TopicName<&str>) -> bool {
        let mut is_followed = false;
        self.views_matching(topic, |_| is_followed = true);
        is_followed
    }

    /// The newest kept value of `topic`.
    pub fn last(&self, topic: TopicName<&str>) -> Option<SharedEntry<P>> {
        self.topics.last(topic).map(Arc::clone)
    }

    /// Up to `limit` values that a topic keeps from before revision `before`, the newest first.
    pub fn history(
        &self,
        topic: TopicName<&str>,
        before: u64,
        limit: usize,
    ) -> Vec<SharedEntry<P>> {
        let values = self.topics.before(topic, before, limit);
        values.map(Arc::clone).collect()
    }

    /// Every kept value that matches, by topic, and by revision within one.
    pub fn kept(&self, filter: TopicFilter<&str>) -> Vec<SharedEntry<P>> {
        self.topics
            .values_of(filter)
            .into_iter()
            .map(Arc::clone)
            .collect()
    }

    /// Every kept value, `$` topics among them, by topic, and by revision within one.
    pub fn all_kept(&self) -> impl Iterator<Item = &SharedEntry<P>> {
        self.topics.values()
    }

    /// How many values a topic keeps.
    pub fn values_kept(&self, topic: TopicName<&str>) -> usize {
        self.topics.kept(topic)
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
        let leaving = (self.topics.kept(topic) + 1).saturating_sub(usize::from(n.max(1)));
        if self.topics.places_taken() - leaving >= self.limits.places {
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
        self.clear_with(topic, P::default(), at)
    }

    /// The same, with what is to be delivered of the clear: a payload without bytes, that says who
    /// cleared the topic, for example.
    ///
    /// # Errors
    /// When the topic is longer than this hub accepts, or the payload larger.
    pub fn clear_with(
        &mut self,
        topic: TopicName<&str>,
        payload: P,
        at: u64,
    ) -> Result<Option<SharedEntry<P>>, PublishError> {
        self.matched.clear();
        self.check_sizes(topic, payload.as_ref().len())?;
        if self.topics.kept(topic) == 0 {
            return Ok(None);
        }
        Ok(Some(self.note_clear(topic, payload, at)))
    }

    fn note_clear(&mut self, topic: TopicName<&str>, payload: P, at: u64) -> SharedEntry<P> {
        if self.topics.tombstones() >= self.limits.tombstones {
            self.forget_oldest_tombstone();
        }
        let entry = self.accept(topic, payload, Kind::Cleared, at);
        let values = self.topics.clear(&entry);
        self.kept_bytes -= values.iter().map(payload_bytes).sum::<usize>();
        self.follow(values.back().map_or(0, |value| value.rev), entry.rev);
        for_each(&mut self.views, &self.matched, |view| {
            for value in &values {
                view.values.remove(value.rev);
            }
            view.tombstones.push(entry.rev, Arc::clone(&entry));
            view.replaced = entry.rev;
        });
        self.note(&entry);
        if self.limits.tombstones == 0 {
            let matched = core::mem::take(&mut self.matched);
            self.forget_oldest_tombstone();
            self.matched = matched;
        }
        entry
    }

    /// Makes the next publish take a revision after `revision`, if it would not anyway.
    pub fn skip_to(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Puts back a clear of an earlier life of the hub, whose value is not there any more. To be called,
    /// like [`publish`](Self::publish) for what was kept, in the order of that life and with
    /// [`skip_to`](Self::skip_to) between, so that everything takes the revision that it had.
    ///
    /// # Errors
    /// When the topic is longer than this hub accepts, or the payload larger.
    pub fn restore_clear(
        &mut self,
        topic: TopicName<&str>,
        payload: P,
        at: u64,
    ) -> Result<SharedEntry<P>, PublishError> {
        self.matched.clear();
        self.check_sizes(topic, payload.as_ref().len())?;
        Ok(self.note_clear(topic, payload, at))
    }

    /// Ends the restoring: from here on the hub goes on with its earlier life.
    pub fn restored(&mut self, life: EarlierLife) {
        let EarlierLife {
            revision,
            events,
            forgotten,
            left,
            lost,
        } = life;
        self.forgotten = self.forgotten.max(forgotten);
        self.left = self.left.max(left);
        self.lost = lost;
        self.skip_to(revision);
        self.restored = events;
    }

    /// Says that the events of an earlier life that are for this subscription were all put back, so that
    /// it does not have to take the restart for a loss of those that it has not taken.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn owe_events(&mut self, id: SubscriptionId) -> Result<(), UnknownSubscription> {
        self.walk(id, |walk, _| walk.owe())
    }

    /// The last revision that a subscription has dealt with: taken, conflated or skipped.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn taken(&self, id: SubscriptionId) -> Result<u64, UnknownSubscription> {
        self.subscription(id)
            .map(|subscription| subscription.walk.taken())
    }

    /// How many matching publishes of the recent ring a subscription has still to look at. Of values that replace each other
    /// meanwhile, a subscription in mode `latest` is given the last alone.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn pending(&self, id: SubscriptionId) -> Result<u64, UnknownSubscription> {
        let subscription = self.subscription(id)?;
        let view = self.views.get(subscription.view.index());
        let view = view.and_then(Option::as_ref).ok_or(UnknownSubscription)?;
        Ok(view.recent_after(subscription.walk.taken().max(self.left)))
    }

    /// The revision of the newest event; 0: none. In a hub that was restored, at least that of the earlier life.
    pub fn newest_event(&self) -> u64 {
        self.newest_event.max(self.restored)
    }

    /// The newest revision that has left the recent ring; 0: none.
    pub fn left_ring(&self) -> u64 {
        self.left
    }

    /// Whether a subscription that resumes at this cursor goes on there, without a [`Step::Reset`].
    pub fn can_resume(&self, cursor: Cursor) -> bool {
        cursor.epoch == self.epoch
            && is_known(cursor.rev, self.revision, self.forgotten, &self.lost)
    }

    /// The views that a publish to this topic would have news for.
    pub fn views_matching(&mut self, topic: TopicName<&str>, mut found: impl FnMut(ViewId)) {
        self.filters.matching(topic, &mut found);
        self.scoped.matching(topic, found);
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
        self.subscribe_within(filter, None, mode, start)
    }

    pub(super) fn check_subscribe(
        &mut self,
        filter: TopicFilter<&str>,
    ) -> Result<(), SubscribeError> {
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
        Ok(())
    }

    pub(super) fn begin(&mut self, view: ViewId, mode: Mode, start: Start) -> SubscriptionId {
        self.enter_view(view, matches!(start, Start::Resume(_)));
        self.generation = self.generation.wrapping_add(1);
        let subscription = self.seen(view).map(|seen| Subscription {
            generation: self.generation,
            view,
            walk: Walk::new(mode, start, &seen),
            had: None,
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
        SubscriptionId {
            slot,
            generation: self.generation,
        }
    }

    /// One more subscription of a view, which needs what was in the ring before if it resumes.
    pub(super) fn enter_view(&mut self, view: ViewId, resumes: bool) {
        if let Some(Some(seen)) = self.views.get_mut(view.index()) {
            seen.subscriptions += 1;
            if resumes {
                seen.see_ring(&self.recent);
            }
        }
    }

    /// One subscription of a view less; with the last it ends.
    pub(super) fn leave_view(&mut self, id: ViewId) {
        if let Some(place) = self.views.get_mut(id.index())
            && let Some(view) = place
        {
            view.subscriptions -= 1;
            if view.subscriptions == 0 {
                match view.scope {
                    Some(_) => self.scoped.remove(view.filter.borrowed(), id),
                    None => self.filters.remove(view.filter.borrowed()),
                }
                self.free_views.push(id);
                *place = None;
            }
        }
    }

    /// Lets a subscription go on with another view.
    pub(super) fn move_to(
        &mut self,
        id: SubscriptionId,
        view: ViewId,
        with_state: bool,
    ) -> Result<(), UnknownSubscription> {
        let (has_all, taken, cleared) = self.walk(id, |walk, source| {
            (walk.leave(source), walk.taken(), walk.clears_done())
        })?;
        let scope = |view: ViewId| self.views.get(view.index())?.as_ref()?.scope.clone();
        // Who had everything gets nothing new.
        let old = scope(self.view_of(id)?);
        let oldest = || {
            let view = self.views.get(view.index())?.as_ref()?;
            view.oldest_outside(old.as_ref()?, taken, cleared)
        };
        let entered = match with_state {
            true => oldest().map_or(Entered::Nothing, Entered::From),
            false => Entered::Withheld,
        };
        let place = self.subscriptions.get_mut(id.slot as usize);
        let subscription = place.and_then(Option::as_mut).ok_or(UnknownSubscription)?;
        subscription.view = view;
        subscription.had = old;
        self.walk(id, |walk, source| walk.move_to(source, has_all, entered))
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
        self.leave_view(ended.view);
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
        self.walk(id, |walk, source| walk.step(source))
    }

    /// Begins the snapshot of a subscription again, as if it had just begun; events and clears that it has
    /// not taken still come.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn rewind(&mut self, id: SubscriptionId) -> Result<(), UnknownSubscription> {
        self.walk(id, |walk, source| walk.rewind(source))
    }

    /// Takes the next step of a subscription if it does not stand after `to`, so that what several bring can be
    /// taken in the order of the hub: entries stand at their revisions, and [`Step::Synced`] at that of its cursor.
    /// Resets and gaps stand nowhere: they come at once.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn next_up_to(
        &mut self,
        id: SubscriptionId,
        to: u64,
    ) -> Result<Upcoming<SharedEntry<P>>, UnknownSubscription> {
        self.walk(id, |walk, source| Upcoming::from(walk.step_to(source, to)))
    }

    /// The same in a batch, which brings what has changed up to `to` and each topic once. It is for a reader that takes a batch
    /// in several turns in mode [`Mode::Latest`] or [`Mode::State`]: a topic that has changed again meanwhile comes with the
    /// value that it had at `to`, as long as the recent ring has that, and with the newest one in the next batch. In the
    /// hub's order alone a topic that changes all the time would come after all others, and a slow reader would never get there.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn next_in_batch(
        &mut self,
        id: SubscriptionId,
        to: u64,
    ) -> Result<Upcoming<SharedEntry<P>>, UnknownSubscription> {
        self.walk(id, |walk, source| {
            Upcoming::from(walk.step_in_batch(source, to))
        })
    }

    /// The filter of a subscription.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn filter_of(&self, id: SubscriptionId) -> Result<TopicFilter<&str>, UnknownSubscription> {
        let view = self.view_of(id)?;
        let view = self.views.get(view.index()).and_then(Option::as_ref);
        view.map(|view| view.filter.borrowed())
            .ok_or(UnknownSubscription)
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

    /// The same for all subscriptions that there are, in sum. Looks at each of them.
    pub fn all_subscription_counts(&self) -> Counts {
        let subscriptions = self.subscriptions.iter().flatten();
        subscriptions.fold(Counts::default(), |sum, subscription| {
            let counts = subscription.walk.counts();
            Counts {
                taken: sum.taken + counts.taken,
                conflated: sum.conflated + counts.conflated,
                skipped: sum.skipped + counts.skipped,
            }
        })
    }

    fn subscription(&self, id: SubscriptionId) -> Result<&Subscription, UnknownSubscription> {
        self.subscriptions
            .get(id.slot as usize)
            .and_then(Option::as_ref)
            .filter(|subscription| subscription.generation == id.generation)
            .ok_or(UnknownSubscription)
    }

    fn walk<R>(
        &mut self,
        id: SubscriptionId,
        walk: impl FnOnce(&mut Walk, &Seen<'_, P>) -> R,
    ) -> Result<R, UnknownSubscription> {
        let place = self.subscriptions.get_mut(id.slot as usize);
        let subscription = place
            .and_then(Option::as_mut)
            .filter(|subscription| subscription.generation == id.generation)
            .ok_or(UnknownSubscription)?;
        let had_to = subscription.walk.had_to();
        let view = self
            .views
            .get(subscription.view.index())
            .and_then(Option::as_ref);
        let source = Seen {
            view: view.ok_or(UnknownSubscription)?,
            epoch: self.epoch,
            revision: self.revision,
            forgotten: self.forgotten,
            recent: &self.recent,
            followed: &self.followed,
            left: self.left,
            restored: self.restored,
            published: &self.published,
            lost: &self.lost,
            had: subscription.had.as_ref().map(|scope| (scope, had_to)),
        };
        let result = walk(&mut subscription.walk, &source);
        if subscription.had.is_some() && subscription.walk.taken() >= subscription.walk.had_to() {
            subscription.had = None;
        }
        Ok(result)
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
        self.published.add(self.revision);
        if kind == Kind::Event {
            self.newest_event = self.revision;
        }
        let known = self.topics.known(topic);
        let entry = Entry {
            rev: self.revision,
            at,
            kind,
            topic: topic.map(|text| known.unwrap_or_else(|| Arc::from(text))),
            payload,
        };
        self.recent_bytes += ring_bytes(&entry);
        let entry = match self.make_room_in_ring() {
            // Once the ring is full, a message lives in the memory of the one that leaves.
            Some(mut oldest) => match Arc::get_mut(&mut oldest) {
                Some(place) => {
                    *place = entry;
                    oldest
                }
                None => Arc::new(entry),
            },
            None => Arc::new(entry),
        };
        // It may be larger than the ring.
        if self.recent_bytes <= self.limits.recent_bytes && self.limits.recent > 0 {
            self.recent.push_back(Arc::clone(&entry));
            self.followed.push_back(0);
        } else {
            self.recent_bytes -= ring_bytes(&entry);
            self.left = entry.rev;
        }
        self.match_views(topic);
        entry
    }

    /// Adds the views that match a topic to `matched`.
    fn match_views(&mut self, topic: TopicName<&str>) {
        let matched = &mut self.matched;
        self.filters.matching(topic, |view| matched.push(view));
        self.scoped.matching(topic, |view| matched.push(view));
    }

    /// Takes out what the ring has no place for beside one more entry, whose bytes are counted already; the
    /// last that was taken out.
    fn make_room_in_ring(&mut self) -> Option<SharedEntry<P>> {
        let mut left = None;
        while self.recent.len() >= self.limits.recent
            || self.recent_bytes > self.limits.recent_bytes
        {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.followed.pop_front();
            self.recent_bytes -= ring_bytes(&oldest);
            self.left = oldest.rev;
            left = Some(oldest);
        }
        left
    }

    /// Puts a value at the end of the log, and takes out what it replaces.
    fn keep(&mut self, entry: &SharedEntry<P>, history: usize) {
        let replaced = self.topics.keep(entry, history);
        let gone: usize = replaced.values().map(payload_bytes).sum();
        self.kept_bytes = self.kept_bytes + payload_bytes(entry) - gone;
        self.follow(replaced.newest, entry.rev);
        for_each(&mut self.views, &self.matched, |view| {
            if let Some(tombstone) = &replaced.tombstone {
                view.tombstones.remove(tombstone.rev);
            }
            for value in replaced.values() {
                view.values.remove(value.rev);
            }
            view.values.push(entry.rev, Arc::clone(entry));
            if replaced.newest > 0 {
                view.replaced = entry.rev;
            }
        });
    }

    /// A value or a clear follows on another one of its topic, which may be in the ring.
    fn follow(&mut self, before: u64, rev: u64) {
        if before > self.left
            && let Some(place) = view::find(&self.recent, before)
            && let Some(followed) = self.followed.get_mut(place)
        {
            *followed = rev;
        }
    }

    fn note(&mut self, entry: &SharedEntry<P>) {
        let recent_from = self.left + 1;
        for_each(&mut self.views, &self.matched, |view| {
            view.note(entry.rev, entry.kind, recent_from);
        });
    }

    /// A subscription behind a forgotten clear must be reset. Leaves no views in `matched`.
    fn forget_oldest_tombstone(&mut self) {
        if let Some(tombstone) = self.topics.forget_oldest() {
            self.forgotten = tombstone.rev;
            self.matched.clear();
            self.match_views(tombstone.topic.borrowed());
            for_each(&mut self.views, &self.matched, |view| {
                view.tombstones.remove(tombstone.rev);
                view.forgotten = tombstone.rev;
            });
            self.matched.clear();
        }
    }

    pub(super) fn add_view(
        &mut self,
        filter: TopicFilter<&str>,
        scope: Option<SharedScope>,
    ) -> ViewId {
        let mut view = View::new(filter.map(Arc::from), scope.clone(), self.revision);
        for value in in_order(self.topics.values_of(filter)) {
            if view.is_in_scope(value.topic.borrowed()) {
                view.values.push(value.rev, Arc::clone(value));
            }
        }
        for tombstone in in_order(self.topics.tombstones_of(filter)) {
            if view.is_in_scope(tombstone.topic.borrowed()) {
                view.tombstones.push(tombstone.rev, Arc::clone(tombstone));
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
        match scope {
            Some(scope) => self.scoped.insert(filter, scope, id),
            None => self.filters.insert(filter, id),
        }
        id
    }

    fn seen(&self, view: ViewId) -> Option<Seen<'_, P>> {
        Some(Seen {
            view: self.views.get(view.index())?.as_ref()?,
            epoch: self.epoch,
            revision: self.revision,
            forgotten: self.forgotten,
            recent: &self.recent,
            followed: &self.followed,
            left: self.left,
            restored: self.restored,
            published: &self.published,
            lost: &self.lost,
            had: None,
        })
    }
}

fn in_order<P>(mut entries: Vec<&SharedEntry<P>>) -> Vec<&SharedEntry<P>> {
    entries.sort_unstable_by_key(|entry| entry.rev);
    entries
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

fn payload_bytes<P: AsRef<[u8]>>(entry: &SharedEntry<P>) -> usize {
    entry.payload.as_ref().len()
}

fn ring_bytes<P: AsRef<[u8]>>(entry: &Entry<Arc<str>, P>) -> usize {
    entry.topic.as_str().len() + entry.payload.as_ref().len()
}
