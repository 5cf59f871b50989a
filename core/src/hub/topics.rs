//! What every topic keeps, and which topics were cleared.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::{mem, ops::Bound};

use super::SharedEntry;
use crate::topic::{TopicFilter, TopicName};

/// The kept values and the tombstones of all topics, by topic.
#[derive(Debug)]
pub(super) struct Topics<P> {
    topics: BTreeMap<Arc<str>, Kept<P>>,
    /// Kept values, over all topics.
    places_taken: usize,
    /// Clears in their order; those whose topics live again are swept out now and then.
    tombstones: VecDeque<(u64, Arc<str>)>,
    tombstones_live: usize,
}

#[derive(Debug)]
enum Kept<P> {
    One(SharedEntry<P>),
    Several(VecDeque<SharedEntry<P>>),
    Cleared(SharedEntry<P>),
}

/// What a new value has replaced.
#[derive(Debug)]
pub(super) struct Replaced<P> {
    /// The value that its topic has no place for any more.
    value: Option<SharedEntry<P>>,
    /// More of them, where the topic is to keep fewer than it did.
    more: Vec<SharedEntry<P>>,
    /// The clear that came before it.
    pub(super) tombstone: Option<SharedEntry<P>>,
    /// The revision of its topic's newest value or clear before it; 0: there was none.
    pub(super) newest: u64,
}

/// Outdated places in the order of tombstones that are tolerated whatever their number.
const SPARE_TOMBSTONES: usize = 32;

impl<P> Topics<P> {
    pub(super) const fn new() -> Self {
        Self {
            topics: BTreeMap::new(),
            places_taken: 0,
            tombstones: VecDeque::new(),
            tombstones_live: 0,
        }
    }

    pub(super) fn places_taken(&self) -> usize {
        self.places_taken
    }

    pub(super) fn tombstones(&self) -> usize {
        self.tombstones_live
    }

    /// The text of a topic that is known, to be shared.
    pub(super) fn known(&self, topic: TopicName<&str>) -> Option<Arc<str>> {
        let (text, _) = self.topics.get_key_value(topic.as_str())?;
        Some(Arc::clone(text))
    }

    /// The newest value that a topic keeps.
    pub(super) fn last(&self, topic: TopicName<&str>) -> Option<&SharedEntry<P>> {
        self.topics.get(topic.as_str())?.values().next_back()
    }

    /// Up to `limit` values that a topic keeps from before a revision, the newest first.
    pub(super) fn before(
        &self,
        topic: TopicName<&str>,
        rev: u64,
        limit: usize,
    ) -> impl Iterator<Item = &SharedEntry<P>> {
        let kept = self.topics.get(topic.as_str());
        let values = kept.into_iter().flat_map(|kept| kept.values().rev());
        values.skip_while(move |value| value.rev >= rev).take(limit)
    }

    /// How many values a topic keeps.
    pub(super) fn kept(&self, topic: TopicName<&str>) -> usize {
        self.topics
            .get(topic.as_str())
            .map_or(0, |kept| kept.values().count())
    }

    /// Every kept value, by topic, oldest first.
    pub(super) fn values(&self) -> impl Iterator<Item = &SharedEntry<P>> {
        self.topics.values().flat_map(Kept::values)
    }

    /// Every kept value of the topics that match, by topic, oldest first.
    pub(super) fn values_of<'a>(&'a self, filter: TopicFilter<&'a str>) -> Vec<&'a SharedEntry<P>> {
        self.matching(filter)
            .flat_map(|(_, kept)| kept.values())
            .collect()
    }

    /// Every tombstone of the topics that match.
    pub(super) fn tombstones_of<'a>(
        &'a self,
        filter: TopicFilter<&'a str>,
    ) -> Vec<&'a SharedEntry<P>> {
        self.matching(filter)
            .filter_map(|(_, kept)| kept.tombstone())
            .collect()
    }

    /// Gives a topic a new value, of which it keeps the last `history`.
    pub(super) fn keep(&mut self, entry: &SharedEntry<P>, history: usize) -> Replaced<P> {
        let mut replaced = Replaced {
            value: None,
            more: Vec::new(),
            tombstone: None,
            newest: 0,
        };
        let entry = Arc::clone(entry);
        match self.topics.get_mut(entry.topic.as_str()) {
            None => {
                let text = Arc::clone(entry.topic.inner());
                self.topics.insert(text, Kept::One(entry));
            }
            Some(Kept::One(before)) if history == 1 => {
                replaced.newest = before.rev;
                replaced.value = Some(mem::replace(before, entry));
            }
            Some(Kept::Several(values)) => {
                replaced.newest = values.back().map_or(0, |value| value.rev);
                values.push_back(entry);
                let leaving = values.len().saturating_sub(history);
                if leaving > 1 {
                    replaced.more.extend(values.drain(..leaving - 1));
                }
                replaced.value = values.pop_front_if(|_| leaving > 0);
            }
            Some(kept) => match mem::replace(kept, Kept::One(Arc::clone(&entry))) {
                Kept::Cleared(tombstone) => {
                    replaced.newest = tombstone.rev;
                    replaced.tombstone = Some(tombstone);
                    self.tombstones_live -= 1;
                }
                Kept::One(before) => {
                    replaced.newest = before.rev;
                    *kept = Kept::Several(VecDeque::from([before, entry]));
                }
                // Dealt with above.
                Kept::Several(_) => {}
            },
        }
        self.places_taken = self.places_taken + 1 - replaced.values().count();
        self.sweep_tombstones();
        replaced
    }

    /// Removes what a topic keeps, and remembers the clear.
    pub(super) fn clear(&mut self, entry: &SharedEntry<P>) -> VecDeque<SharedEntry<P>> {
        let text = entry.topic.inner();
        let cleared = Kept::Cleared(Arc::clone(entry));
        let values = match self.topics.insert(Arc::clone(text), cleared) {
            Some(Kept::One(value)) => VecDeque::from([value]),
            Some(Kept::Several(values)) => values,
            Some(Kept::Cleared(_)) | None => VecDeque::new(),
        };
        self.places_taken -= values.len();
        self.tombstones.push_back((entry.rev, Arc::clone(text)));
        self.tombstones_live += 1;
        values
    }

    /// Forgets the oldest clear and returns it.
    pub(super) fn forget_oldest(&mut self) -> Option<SharedEntry<P>> {
        while let Some((rev, topic)) = self.tombstones.pop_front() {
            if !is_tombstone(&self.topics, rev, &topic) {
                continue;
            }
            if let Some(Kept::Cleared(tombstone)) = self.topics.remove(&topic) {
                self.tombstones_live -= 1;
                return Some(tombstone);
            }
        }
        None
    }

    fn sweep_tombstones(&mut self) {
        if self.tombstones.len() > 2 * self.tombstones_live + SPARE_TOMBSTONES {
            let topics = &self.topics;
            self.tombstones
                .retain(|(rev, topic)| is_tombstone(topics, *rev, topic));
        }
    }

    /// The topics that match: looked up where the filter is exact, else scanned from the text before
    /// the first wildcard.
    fn matching<'a>(
        &'a self,
        filter: TopicFilter<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Kept<P>)> {
        let text = filter.into_inner();
        let (prefix, to) = match text.find(['+', '#']) {
            Some(wildcard) => {
                // `sport/#` matches `sport` too, so the last `/` does not count.
                let literal = text.split_at(wildcard).0;
                let prefix = literal.strip_suffix('/').unwrap_or(literal);
                (prefix, Bound::Unbounded)
            }
            None => (text, Bound::Included(text)),
        };
        let range = self.topics.range::<str, _>((Bound::Included(prefix), to));
        range
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .filter(move |(_, kept)| kept.any().is_some_and(|entry| filter.matches(&entry.topic)))
    }
}

impl<P> Replaced<P> {
    /// The values, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &SharedEntry<P>> {
        self.value.iter().chain(&self.more)
    }
}

impl<P> Kept<P> {
    fn values(&self) -> impl DoubleEndedIterator<Item = &SharedEntry<P>> {
        let (one, several) = match self {
            Self::One(value) => (Some(value), None),
            Self::Several(values) => (None, Some(values)),
            Self::Cleared(_) => (None, None),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    fn tombstone(&self) -> Option<&SharedEntry<P>> {
        match self {
            Self::Cleared(tombstone) => Some(tombstone),
            Self::One(_) | Self::Several(_) => None,
        }
    }

    fn any(&self) -> Option<&SharedEntry<P>> {
        self.values().next().or_else(|| self.tombstone())
    }
}

fn is_tombstone<P>(topics: &BTreeMap<Arc<str>, Kept<P>>, rev: u64, topic: &str) -> bool {
    let kept = topics.get(topic);
    kept.and_then(Kept::tombstone)
        .is_some_and(|tombstone| tombstone.rev == rev)
}
