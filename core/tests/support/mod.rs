//! A hub that is simple enough to be right, and one driver interface for it and the real ones.

pub(crate) mod model;

use latchbus_core::hub::{Counts, Entry, FixedHub, Hub, Kind, Limits, Mode, Retain, Start, Step};
use latchbus_core::topic::{TopicFilter, TopicName};

/// An entry that owns its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) rev: u64,
    pub(crate) at: u64,
    pub(crate) kind: Kind,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

impl<T: AsRef<str>, P: AsRef<[u8]>> From<&Entry<T, P>> for Taken {
    fn from(entry: &Entry<T, P>) -> Self {
        Self {
            rev: entry.rev,
            at: entry.at,
            kind: entry.kind,
            topic: entry.topic.as_str().into(),
            payload: entry.payload.as_ref().into(),
        }
    }
}

/// What every hub does, by plain values. `None` stands for a refusal.
pub(crate) trait Driver {
    type Id: Copy;
    fn publish(&mut self, topic: &str, payload: &[u8], retain: Retain, at: u64) -> Option<u64>;
    fn clear(&mut self, topic: &str, at: u64) -> Option<Option<u64>>;
    fn subscribe(&mut self, filter: &str, mode: Mode, start: Start) -> Option<Self::Id>;
    fn unsubscribe(&mut self, id: Self::Id);
    fn rewind(&mut self, id: Self::Id);
    fn next(&mut self, id: Self::Id) -> Option<Step<Taken>>;
    fn counts(&self, id: Self::Id) -> Counts;
    fn last(&self, topic: &str) -> Option<Taken>;
    /// Leaves out revisions, if this form of the hub can.
    #[allow(dead_code)] // not every test that includes this has one
    fn skip(&mut self, by: u64) -> bool;
}

fn owned<E>(step: Step<E>, own: impl Fn(&E) -> Taken) -> Step<Taken> {
    match step {
        Step::Reset => Step::Reset,
        Step::Gap { missed } => Step::Gap { missed },
        Step::Synced { cursor } => Step::Synced { cursor },
        Step::Entry { entry, retained } => Step::Entry {
            entry: own(&entry),
            retained,
        },
    }
}

pub(crate) fn name(topic: &str) -> TopicName<&str> {
    TopicName::parse(topic).expect("a valid topic")
}

pub(crate) fn filter(filter: &str) -> TopicFilter<&str> {
    TopicFilter::parse(filter).expect("a valid filter")
}

macro_rules! drive {
    ([$($generics:tt)*] $hub:ty, $rev:expr, $own:expr, $skip:expr) => {
        impl<$($generics)*> Driver for $hub {
            type Id = latchbus_core::hub::SubscriptionId;
            fn publish(&mut self, topic: &str, payload: &[u8], retain: Retain, at: u64) -> Option<u64> {
                Self::publish(self, name(topic), payload.into(), retain, at).ok().map($rev)
            }
            fn clear(&mut self, topic: &str, at: u64) -> Option<Option<u64>> {
                Self::clear(self, name(topic), at).ok().map(|cleared| cleared.map($rev))
            }
            fn subscribe(&mut self, text: &str, mode: Mode, start: Start) -> Option<Self::Id> {
                Self::subscribe(self, filter(text), mode, start).ok()
            }
            fn unsubscribe(&mut self, id: Self::Id) {
                Self::unsubscribe(self, id).expect("a live subscription");
            }
            fn rewind(&mut self, id: Self::Id) {
                Self::rewind(self, id).expect("a live subscription");
            }
            fn next(&mut self, id: Self::Id) -> Option<Step<Taken>> {
                Self::next(self, id).expect("a live subscription").map(|step| owned(step, $own))
            }
            fn counts(&self, id: Self::Id) -> Counts {
                self.subscription_counts(id).expect("a live subscription")
            }
            fn last(&self, topic: &str) -> Option<Taken> {
                Self::last(self, name(topic)).map(|entry| $own(&entry))
            }
            fn skip(&mut self, by: u64) -> bool {
                $skip(self, by)
            }
        }
    };
}

drive!(
    [const A: usize, const B: usize, const C: usize, const D: usize, const E: usize, const F: usize]
    FixedHub<A, B, C, D, E, F>, |rev| rev, |entry: &Entry<&str, &[u8]>| Taken::from(entry),
    |_: &mut Self, _| false
);
drive!(
    [] Hub<Vec<u8>>,
    |entry| entry.rev,
    |entry: &std::sync::Arc<Entry<std::sync::Arc<str>, Vec<u8>>>| Taken::from(&**entry),
    |hub: &mut Self, by| {
        hub.skip_to(hub.revision() + by);
        true
    }
);

/// Bounds that hold for a hub under test.
pub(crate) const fn limits(
    places: usize,
    tombstones: usize,
    recent: usize,
    subscriptions: usize,
) -> Limits {
    Limits {
        places,
        tombstones,
        recent,
        recent_bytes: usize::MAX,
        subscriptions,
        topic_bytes: 8,
        payload_bytes: 4,
    }
}
