//! What may be read, and the memory of what was looked up.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use latchbus_core::hub::{Scope, SharedScope};
use latchbus_core::topic::{TopicFilter, TopicName};

/// Topics whose verdicts a [`Reader`] remembers. When there are more it begins anew.
const MAX_REMEMBERED: usize = 16_384;

/// Longer topics are looked up each time.
const MAX_REMEMBERED_BYTES: usize = 256;

/// What principals with the same rules may read.
///
/// It is asked while the hub is locked, once for a topic ([`Reader`] remembers): it answers from what it holds, and does not
/// call the bus. Its answer never changes: other rules are another reader, and
/// [`Authorizer::changes`](crate::Authorizer::changes) says that there is one.
pub trait ReadRules: Send + Sync + 'static {
    /// Whether what is published to this topic may be read.
    fn may_read(&self, topic: TopicName<&str>) -> bool;

    /// Whether everything that matches this filter may be read, so that its subscriptions need no check. When in doubt: false.
    fn may_read_all(&self, _filter: TopicFilter<&str>) -> bool {
        false
    }
}

/// [Rules](ReadRules) for reading, together with what they have said of each topic. Clones are handles to one.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    id: u64,
    rules: Box<dyn ReadRules>,
    verdicts: RwLock<HashMap<Box<str>, bool>>,
}

impl Reader {
    /// A reader that asks these rules.
    pub fn new(rules: impl ReadRules) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(Arc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            rules: Box::new(rules),
            verdicts: RwLock::default(),
        }))
    }

    /// A number that no other reader of this process has.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Whether what is published to this topic may be read.
    pub fn may_read(&self, topic: TopicName<&str>) -> bool {
        self.0.has(topic)
    }

    /// Whether everything that matches this filter may be read.
    pub fn may_read_all(&self, filter: TopicFilter<&str>) -> bool {
        self.0.rules.may_read_all(filter)
    }

    /// As the hub asks it.
    pub(crate) fn scope(&self) -> SharedScope {
        let inner: Arc<Inner> = Arc::clone(&self.0);
        inner
    }
}

impl Scope for Inner {
    fn id(&self) -> u64 {
        self.id
    }

    fn has(&self, topic: TopicName<&str>) -> bool {
        let known = {
            let verdicts = self.verdicts.read();
            let verdicts = verdicts.unwrap_or_else(PoisonError::into_inner);
            verdicts.get(topic.as_str()).copied()
        };
        known.unwrap_or_else(|| self.look_up(topic))
    }
}

impl Inner {
    fn look_up(&self, topic: TopicName<&str>) -> bool {
        let verdict = self.rules.may_read(topic);
        if topic.as_str().len() <= MAX_REMEMBERED_BYTES {
            let verdicts = self.verdicts.write();
            let mut verdicts = verdicts.unwrap_or_else(PoisonError::into_inner);
            if verdicts.len() >= MAX_REMEMBERED {
                verdicts.clear();
            }
            verdicts.insert(topic.as_str().into(), verdict);
        }
        verdict
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.id).finish()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicUsize;

    use super::*;

    struct Counting(Arc<AtomicUsize>);

    impl ReadRules for Counting {
        fn may_read(&self, topic: TopicName<&str>) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            topic.as_str().starts_with("lab/")
        }
    }

    fn topic(text: &str) -> TopicName<&str> {
        TopicName::parse(text).unwrap()
    }

    #[test]
    fn rules_are_asked_once_for_a_topic_and_what_is_remembered_is_bounded() {
        let asked = Arc::new(AtomicUsize::new(0));
        let reader = Reader::new(Counting(Arc::clone(&asked)));
        for _ in 0..3 {
            assert!(reader.may_read(topic("lab/a")));
            assert!(!reader.may_read(topic("den/a")));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        let long = format!("lab/{}", "x".repeat(MAX_REMEMBERED_BYTES));
        for _ in 0..2 {
            assert!(reader.may_read(topic(&long)));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        for n in 0..2 * MAX_REMEMBERED {
            let text = format!("lab/{n}");
            assert!(reader.may_read(topic(&text)));
            assert!(reader.0.verdicts.read().unwrap().len() <= MAX_REMEMBERED);
        }
    }
}
