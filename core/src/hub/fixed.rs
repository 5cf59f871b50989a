//! The hub in fixed tables: no allocator, every bound a parameter, orders found by scanning.

use heapless::Vec;

use super::cursor::{Counts, Found, Mode, Source, Start, Step, Totals, Walk};
use super::{
    BorrowedEntry, Entry, HubCounts, Kind, PublishError, Retain, SubscribeError, SubscriptionId,
    UnknownSubscription,
};
use crate::topic::{TopicFilter, TopicName};

/// The type of a [`FixedHub`], with a word for each of its bounds.
///
/// ```
/// use latchbus_core::fixed_hub;
///
/// const SENSORS: usize = 8;
///
/// type Hub = fixed_hub! {
///     retained: SENSORS,
///     tombstones: 2,
///     recent: 4,
///     subscriptions: 2,
///     topic_bytes: 32,
///     payload_bytes: 24,
/// };
/// let hub = Hub::new(1);
/// # let _ = hub;
/// ```
#[macro_export]
macro_rules! fixed_hub {
    {
        retained: $retained:expr,
        tombstones: $tombstones:expr,
        recent: $recent:expr,
        subscriptions: $subscriptions:expr,
        topic_bytes: $topic_bytes:expr,
        payload_bytes: $payload_bytes:expr $(,)?
    } => {
        $crate::hub::FixedHub<
            { $retained },
            { $tombstones },
            { $recent },
            { $subscriptions },
            { $topic_bytes },
            { $payload_bytes },
        >
    };
}

/// A hub whose every table has a fixed size, for microcontrollers.
///
/// | parameter | bounds | at the bound |
/// |---|---|---|
/// | `PLACES` | kept values, over all topics | [`PublishError::Full`] |
/// | `TOMBSTONES`, at least 1 | cleared topics remembered | the oldest is forgotten; subscribers behind it are reset |
/// | `RECENT`, at least 1 | publishes in the recent ring | the oldest leaves |
/// | `SUBSCRIPTIONS` | subscriptions | [`SubscribeError::Full`] |
/// | `TOPIC` | bytes of a topic or filter | [`PublishError::TopicTooLong`], [`SubscribeError::FilterTooLong`] |
/// | `PAYLOAD` | bytes of a payload | [`PublishError::PayloadTooLarge`] |
///
/// A publish and a take cost a scan of the tables. See [the module](super) for what it promises.
///
/// [`fixed_hub!`](crate::fixed_hub) names the type with a word for each number.
#[derive(Debug)]
pub struct FixedHub<
    const PLACES: usize,
    const TOMBSTONES: usize,
    const RECENT: usize,
    const SUBSCRIPTIONS: usize,
    const TOPIC: usize,
    const PAYLOAD: usize,
> {
    epoch: u64,
    revision: u64,
    forgotten: u64,
    generation: u32,
    counts: HubCounts,
    values: Vec<Slot<TOPIC, PAYLOAD>, PLACES>,
    // The tables are in no order: the oldest is found by its revision, so that nothing is ever moved.
    tombstones: Vec<Slot<TOPIC, 0>, TOMBSTONES>,
    recent: Vec<Slot<TOPIC, PAYLOAD>, RECENT>,
    subscriptions: Vec<Option<Subscription<TOPIC>>, SUBSCRIPTIONS>,
}

/// A text of up to `N` bytes. Its length takes two bytes where `usize` would take four.
type String<const N: usize> = heapless::String<N, u16>;

#[derive(Debug, Clone)]
struct Slot<const TOPIC: usize, const PAYLOAD: usize> {
    rev: u64,
    at: u64,
    kind: Kind,
    topic: TopicName<String<TOPIC>>,
    payload: Vec<u8, PAYLOAD, u16>,
}

#[derive(Debug)]
struct Subscription<const TOPIC: usize> {
    generation: u32,
    filter: TopicFilter<String<TOPIC>>,
    totals: Totals,
    forgotten: u64,
    replaced: u64,
    walk: Walk,
}

impl<
    const PL: usize,
    const TO: usize,
    const RE: usize,
    const SU: usize,
    const T: usize,
    const P: usize,
> FixedHub<PL, TO, RE, SU, T, P>
{
    /// An empty hub. The epoch tells this life of the hub from every other: clients that come back
    /// with a cursor of another epoch are reset.
    pub const fn new(epoch: u64) -> Self {
        Self {
            epoch,
            revision: 0,
            forgotten: 0,
            generation: 0,
            counts: HubCounts {
                accepted: 0,
                dropped: 0,
                subscriptions_refused: 0,
            },
            values: Vec::new(),
            tombstones: Vec::new(),
            recent: Vec::new(),
            subscriptions: Vec::new(),
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

    /// What was accepted and refused so far.
    pub fn counts(&self) -> HubCounts {
        self.counts
    }

    /// The newest kept value of `topic`.
    pub fn last(&self, topic: TopicName<&str>) -> Option<BorrowedEntry<'_>> {
        let of_topic = self.values.iter().filter(|slot| slot.is_of(topic));
        of_topic.max_by_key(|slot| slot.rev).map(Slot::entry)
    }

    /// Publishes `payload` and returns its revision. `at` is the time in milliseconds.
    ///
    /// # Errors
    /// When a bound refuses it; the hub is then as it was, but for [`HubCounts::dropped`].
    pub fn publish(
        &mut self,
        topic: TopicName<&str>,
        payload: &[u8],
        retain: Retain,
        at: u64,
    ) -> Result<u64, PublishError> {
        let kind = match retain {
            Retain::No => Kind::Event,
            Retain::Last(_) => Kind::State,
        };
        let slot = self
            .slot(topic, payload, kind, at)
            .inspect_err(|_| self.counts.dropped += 1)?;
        let mut replaces = false;
        if let Retain::Last(n) = retain {
            let kept = self.values.iter().filter(|slot| slot.is_of(topic)).count();
            let leaving = (kept + 1).saturating_sub(usize::from(n.max(1)));
            if self.values.len() - leaving == PL {
                self.counts.dropped += 1;
                return Err(PublishError::Full { places: PL });
            }
            replaces = kept > 0;
            for _ in 0..leaving {
                self.remove_oldest(topic);
            }
            // There is at most one of a topic, since it is cleared only with values.
            if let Some(place) = self.tombstones.iter().position(|slot| slot.is_of(topic)) {
                self.tombstones.swap_remove(place);
                replaces = true;
            }
            let _has_room = self.values.push(slot.clone());
        }
        Ok(self.accept(slot, replaces))
    }

    /// Removes what `topic` keeps and returns the revision of the clear; `None` when it kept nothing,
    /// which changes nothing.
    ///
    /// # Errors
    /// When the topic is longer than this hub accepts.
    pub fn clear(&mut self, topic: TopicName<&str>, at: u64) -> Result<Option<u64>, PublishError> {
        let slot = self.slot(topic, &[], Kind::Cleared, at)?;
        let before = self.values.len();
        self.values.retain(|slot| !slot.is_of(topic));
        if self.values.len() == before {
            return Ok(None);
        }
        if self.tombstones.is_full()
            && let Some(place) = oldest(&self.tombstones, |_| true)
        {
            let oldest = self.tombstones.swap_remove(place);
            self.forget(oldest.rev, oldest.topic.borrowed());
        }
        let tombstone = Slot {
            rev: slot.rev,
            at,
            kind: Kind::Cleared,
            topic: slot.topic.clone(),
            payload: Vec::new(),
        };
        if self.tombstones.push(tombstone).is_err() {
            self.forget(slot.rev, topic);
        }
        Ok(Some(self.accept(slot, true)))
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
        let Ok(text) = String::try_from(filter.as_str()) else {
            self.counts.subscriptions_refused += 1;
            return Err(SubscribeError::FilterTooLong {
                bytes: filter.as_str().len(),
                limit: T,
            });
        };
        let free = self.subscriptions.iter().position(Option::is_none);
        if free.is_none() && self.subscriptions.is_full() {
            self.counts.subscriptions_refused += 1;
            return Err(SubscribeError::Full { limit: SU });
        }
        let filter = filter.map(|_| text);
        let source = Scan {
            hub: self,
            filter: &filter,
            totals: Totals::default(),
            forgotten: 0,
            replaced: 0,
        };
        let walk = Walk::new(mode, start, &source);
        self.generation = self.generation.wrapping_add(1);
        let subscription = Subscription {
            generation: self.generation,
            filter,
            totals: Totals::default(),
            forgotten: 0,
            replaced: 0,
            walk,
        };
        let slot = free.unwrap_or(self.subscriptions.len());
        match self.subscriptions.get_mut(slot) {
            Some(place) => *place = Some(subscription),
            None => {
                let _has_room = self.subscriptions.push(Some(subscription));
            }
        }
        Ok(SubscriptionId {
            slot: slot as u32,
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
        place
            .take_if(|subscription| subscription.generation == id.generation)
            .map(drop)
            .ok_or(UnknownSubscription)
    }

    /// Begins the snapshot of a subscription again, as if it had just begun; events and clears that it has
    /// not taken still come.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn rewind(&mut self, id: SubscriptionId) -> Result<(), UnknownSubscription> {
        self.walk(id, |walk, source| walk.rewind(source))
    }

    /// Takes the next step of a subscription; `None` when it has all there is.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn next(
        &mut self,
        id: SubscriptionId,
    ) -> Result<Option<Step<BorrowedEntry<'_>>>, UnknownSubscription> {
        let step = self.walk(id, |walk, source| walk.step(source))?;
        Ok(step.and_then(|step| self.fetch(step)))
    }

    /// What happened to the publishes that matched a subscription.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn subscription_counts(&self, id: SubscriptionId) -> Result<Counts, UnknownSubscription> {
        self.subscriptions
            .get(id.slot as usize)
            .and_then(Option::as_ref)
            .filter(|subscription| subscription.generation == id.generation)
            .map(|subscription| subscription.walk.counts())
            .ok_or(UnknownSubscription)
    }

    /// Lets a subscription look at the tables: it leaves its place while it does.
    fn walk<R>(
        &mut self,
        id: SubscriptionId,
        walk: impl FnOnce(&mut Walk, &Scan<'_, Self, T>) -> R,
    ) -> Result<R, UnknownSubscription> {
        let place = self
            .subscriptions
            .get_mut(id.slot as usize)
            .ok_or(UnknownSubscription)?;
        let mut subscription = place
            .take_if(|subscription| subscription.generation == id.generation)
            .ok_or(UnknownSubscription)?;
        let source = Scan {
            hub: self,
            filter: &subscription.filter,
            totals: subscription.totals,
            forgotten: subscription.forgotten,
            replaced: subscription.replaced,
        };
        let result = walk(&mut subscription.walk, &source);
        if let Some(place) = self.subscriptions.get_mut(id.slot as usize) {
            *place = Some(subscription);
        }
        Ok(result)
    }

    fn slot(
        &self,
        topic: TopicName<&str>,
        payload: &[u8],
        kind: Kind,
        at: u64,
    ) -> Result<Slot<T, P>, PublishError> {
        let name = String::try_from(topic.as_str()).map_err(|_| PublishError::TopicTooLong {
            bytes: topic.as_str().len(),
            limit: T,
        })?;
        let bytes = Vec::from_slice(payload).map_err(|_| PublishError::PayloadTooLarge {
            bytes: payload.len(),
            limit: P,
        })?;
        Ok(Slot {
            rev: self.revision + 1,
            at,
            kind,
            topic: topic.map(|_| name),
            payload: bytes,
        })
    }

    /// `replaces`: whether its topic had a value or a tombstone.
    fn accept(&mut self, slot: Slot<T, P>, replaces: bool) -> u64 {
        self.revision = slot.rev;
        self.counts.accepted += 1;
        for subscription in self.subscriptions.iter_mut().flatten() {
            if subscription.filter.matches(&slot.topic) {
                match slot.kind {
                    Kind::Event => subscription.totals.events += 1,
                    Kind::State | Kind::Cleared => subscription.totals.state += 1,
                }
                if replaces {
                    subscription.replaced = slot.rev;
                }
            }
        }
        if self.recent.is_full()
            && let Some(place) = oldest(&self.recent, |_| true)
        {
            self.recent.swap_remove(place);
        }
        // A ring without places keeps nothing.
        let _kept = self.recent.push(slot);
        self.revision
    }

    fn remove_oldest(&mut self, topic: TopicName<&str>) {
        if let Some(place) = oldest(&self.values, |slot| slot.is_of(topic)) {
            self.values.swap_remove(place);
        }
    }

    fn forget(&mut self, rev: u64, topic: TopicName<&str>) {
        self.forgotten = self.forgotten.max(rev);
        for subscription in self.subscriptions.iter_mut().flatten() {
            if subscription.filter.matches(&topic) {
                subscription.forgotten = subscription.forgotten.max(rev);
            }
        }
    }

    fn fetch(&self, step: Step<Place>) -> Option<Step<BorrowedEntry<'_>>> {
        Some(match step {
            Step::Reset => Step::Reset,
            Step::Gap { missed } => Step::Gap { missed },
            Step::Synced { cursor } => Step::Synced { cursor },
            Step::Entry { entry, retained } => {
                let entry = match entry {
                    Place::Value(index) => self.values.get(index)?.entry(),
                    Place::Tombstone(index) => self.tombstones.get(index)?.entry(),
                    Place::Recent(index) => self.recent.get(index)?.entry(),
                };
                Step::Entry { entry, retained }
            }
        })
    }
}

impl<const T: usize, const P: usize> Slot<T, P> {
    fn is_of(&self, topic: TopicName<&str>) -> bool {
        self.topic.borrowed() == topic
    }

    fn entry(&self) -> BorrowedEntry<'_> {
        Entry {
            rev: self.rev,
            at: self.at,
            kind: self.kind,
            topic: self.topic.borrowed(),
            payload: &self.payload,
        }
    }
}

/// Where an entry stands, by index.
enum Place {
    Value(usize),
    Tombstone(usize),
    Recent(usize),
}

/// What one filter sees of the tables, found by scanning them.
struct Scan<'a, H, const T: usize> {
    hub: &'a H,
    filter: &'a TopicFilter<String<T>>,
    totals: Totals,
    forgotten: u64,
    replaced: u64,
}

impl<
    const PL: usize,
    const TO: usize,
    const RE: usize,
    const SU: usize,
    const T: usize,
    const P: usize,
> Source for Scan<'_, FixedHub<PL, TO, RE, SU, T, P>, T>
{
    type Item = Place;

    fn epoch(&self) -> u64 {
        self.hub.epoch
    }

    fn revision(&self) -> u64 {
        self.hub.revision
    }

    fn recent_from(&self) -> u64 {
        let oldest =
            oldest(&self.hub.recent, |_| true).and_then(|place| self.hub.recent.get(place));
        oldest.map_or(self.hub.revision + 1, |slot| slot.rev)
    }

    fn forgotten_ever(&self) -> u64 {
        self.hub.forgotten
    }

    fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn totals(&self) -> Totals {
        self.totals
    }

    fn recent_totals(&self, rev: u64) -> Totals {
        let mut totals = Totals::default();
        let after = self.hub.recent.iter().filter(|slot| slot.rev > rev);
        for slot in after.filter(|slot| self.filter.matches(&slot.topic)) {
            match slot.kind {
                Kind::Event => totals.events += 1,
                Kind::State | Kind::Cleared => totals.state += 1,
            }
        }
        totals
    }

    fn replaced(&self) -> u64 {
        self.replaced
    }

    fn standing(&self, rev: u64, to: u64, at: u64) -> Option<Found<Place>> {
        let ring = &self.hub.recent;
        self.oldest_after(rev, ring, Place::Recent, &|slot| {
            let replaced = |other: &Slot<T, P>| {
                other.kind != Kind::Event
                    && other.rev > slot.rev
                    && other.rev <= at
                    && other.is_of(slot.topic.borrowed())
            };
            slot.kind != Kind::Event && slot.rev <= to && !ring.iter().any(replaced)
        })
    }

    fn value_after(&self, rev: u64) -> Option<Found<Place>> {
        self.oldest_after(rev, &self.hub.values, Place::Value, &|_| true)
    }

    fn tombstone_after(&self, rev: u64) -> Option<Found<Place>> {
        self.oldest_after(rev, &self.hub.tombstones, Place::Tombstone, &|_| true)
    }

    fn recent_after(&self, rev: u64, events_only: bool) -> Option<Found<Place>> {
        self.oldest_after(rev, &self.hub.recent, Place::Recent, &|slot| {
            !events_only || slot.kind == Kind::Event
        })
    }
}

impl<H, const T: usize> Scan<'_, H, T> {
    fn oldest_after<const P: usize>(
        &self,
        rev: u64,
        slots: &[Slot<T, P>],
        place: fn(usize) -> Place,
        meant: &dyn Fn(&Slot<T, P>) -> bool,
    ) -> Option<Found<Place>> {
        let mut oldest: Option<Found<Place>> = None;
        for (index, slot) in slots.iter().enumerate() {
            if slot.rev > rev
                && oldest.as_ref().is_none_or(|found| slot.rev < found.rev)
                && self.filter.matches(&slot.topic)
                && meant(slot)
            {
                oldest = Some(Found {
                    rev: slot.rev,
                    kind: slot.kind,
                    item: place(index),
                });
            }
        }
        oldest
    }
}

/// Where the slot with the smallest revision stands, of those that are meant.
fn oldest<const T: usize, const P: usize>(
    slots: &[Slot<T, P>],
    meant: impl Fn(&Slot<T, P>) -> bool,
) -> Option<usize> {
    let (mut place, mut rev) = (None, u64::MAX);
    // A loop by hand: `min_by_key` divides by the size of a slot, for which a Cortex-M0 needs a routine of 400 bytes.
    for (index, slot) in slots.iter().enumerate() {
        if slot.rev < rev && meant(slot) {
            (place, rev) = (Some(index), slot.rev);
        }
    }
    place
}
