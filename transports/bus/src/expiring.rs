//! When the values of topics expire.

use core::num::NonZeroU64;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The topics whose newest value expires, by time: at most one place for each topic that the hub keeps.
#[derive(Debug, Default)]
pub(crate) struct Expiring {
    by_time: BTreeSet<(NonZeroU64, Arc<str>)>,
    by_topic: HashMap<Arc<str>, NonZeroU64>,
}

impl Expiring {
    /// A topic has a new value, or none: when it expires, by the clock's deadlines.
    pub(crate) fn set(&mut self, topic: &str, at: Option<NonZeroU64>) {
        if let Some((topic, before)) = self.by_topic.remove_entry(topic) {
            self.by_time.remove(&(before, topic));
        }
        if let Some(at) = at {
            let topic: Arc<str> = topic.into();
            self.by_topic.insert(Arc::clone(&topic), at);
            self.by_time.insert((at, topic));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    /// Takes out the topics whose time is over at `now`.
    pub(crate) fn due(&mut self, now: u64) -> Vec<String> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.by_time.first()
            && at.get() <= now
            && let Some((_, topic)) = self.by_time.pop_first()
        {
            self.by_topic.remove(&topic);
            due.push(topic.as_ref().to_owned());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(ms)
    }

    #[test]
    fn only_the_newest_value_counts() {
        let mut expiring = Expiring::default();
        expiring.set("a", at(10));
        expiring.set("b", at(10));
        expiring.set("c", at(10));
        expiring.set("a", at(30));
        expiring.set("b", None);
        assert_eq!(expiring.due(9), [""; 0]);
        assert_eq!(expiring.due(20), ["c"]);
        assert_eq!(expiring.due(30), ["a"]);
        assert_eq!(expiring.due(u64::MAX), [""; 0]);
        assert!(expiring.by_topic.is_empty());
    }
}
