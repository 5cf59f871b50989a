//! What may be read, and the memory of what was looked up.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::{fmt, mem};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use latchbus_core::hub::{Scope, SharedScope};
use latchbus_core::topic::{TopicFilter, TopicName};

/// Topics whose verdicts a [`Reader`] remembers. When there are more it begins anew.
const MAX_REMEMBERED: usize = 16_384;

/// Topics whose verdicts all readers of the process remember together. Rules that name the client give each client a reader of its
/// own: they share it, and whoever finds no room looks up each time.
const MAX_REMEMBERED_BY_ALL: usize = 131_072;

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

    /// A reader that says the same of everything that matches this filter, and that other principals have, too: the hub looks at
    /// a message once for all their subscriptions. When in doubt: none.
    fn common(&self, _filter: TopicFilter<&str>) -> Option<Reader> {
        None
    }
}

/// [Rules](ReadRules) for reading, together with what they have said of each topic. Clones are handles to one.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    id: u64,
    rules: Box<dyn ReadRules>,
    verdicts: RwLock<HashMap<Box<str>, bool>>,
    all: &'static All,
}

/// What readers share of memory.
#[derive(Debug)]
struct All {
    /// How many there are.
    readers: AtomicUsize,
    /// Topics that they remember, together.
    remembered: AtomicUsize,
    most: usize,
}

impl All {
    const fn new(most: usize) -> Self {
        Self {
            readers: AtomicUsize::new(0),
            remembered: AtomicUsize::new(0),
            most,
        }
    }

    /// Topics that each may remember.
    fn share(&self) -> usize {
        let readers = self.readers.load(Ordering::Relaxed).max(1);
        (self.most / readers).clamp(1, MAX_REMEMBERED)
    }

    /// Takes room for one more topic, if there is any.
    fn take(&self) -> bool {
        let more = |remembered| (remembered < self.most).then_some(remembered + 1);
        let order = Ordering::Relaxed;
        self.remembered.fetch_update(order, order, more).is_ok()
    }

    fn give_back(&self, topics: usize) {
        self.remembered.fetch_sub(topics, Ordering::Relaxed);
    }
}

/// Those of this process.
static ALL: All = All::new(MAX_REMEMBERED_BY_ALL);

impl Reader {
    /// A reader that asks these rules.
    pub fn new(rules: impl ReadRules) -> Self {
        Self::among(&ALL, rules)
    }

    /// The one that may read nothing.
    pub(crate) fn of_nothing() -> Self {
        static NOTHING: LazyLock<Reader> = LazyLock::new(|| Reader::new(Nothing));
        NOTHING.clone()
    }

    /// Whether it is [that one](Self::of_nothing).
    pub(crate) fn is_of_nothing(&self) -> bool {
        self.id() == Self::of_nothing().id()
    }

    fn among(all: &'static All, rules: impl ReadRules) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        all.readers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            rules: Box::new(rules),
            verdicts: RwLock::default(),
            all,
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

    /// One that says the same of everything that matches this filter, and that other principals have, too.
    pub fn common(&self, filter: TopicFilter<&str>) -> Option<Self> {
        self.0.rules.common(filter)
    }

    /// As the hub asks it.
    pub(crate) fn scope(&self) -> SharedScope {
        let inner: Arc<Inner> = Arc::clone(&self.0);
        inner
    }
}

#[derive(Debug)]
struct Nothing;

impl ReadRules for Nothing {
    fn may_read(&self, _: TopicName<&str>) -> bool {
        false
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
            if verdicts.contains_key(topic.as_str()) {
                // Somebody else has looked it up meanwhile.
                return verdict;
            }
            if verdicts.len() >= self.all.share() {
                // Its memory too: the share may have become smaller.
                self.all.give_back(mem::take(&mut *verdicts).len());
            }
            if self.all.take() {
                verdicts.insert(topic.as_str().into(), verdict);
            }
        }
        verdict
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let verdicts = self.verdicts.get_mut();
        let verdicts = verdicts.unwrap_or_else(PoisonError::into_inner);
        self.all.give_back(verdicts.len());
        self.all.readers.fetch_sub(1, Ordering::Relaxed);
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

    #[test]
    fn all_readers_together_are_bounded_and_answer_the_same_without_room() {
        let all: &'static All = Box::leak(Box::new(All::new(64)));
        let asked = Arc::new(AtomicUsize::new(0));
        let reader = || Reader::among(all, Counting(Arc::clone(&asked)));
        let known = |reader: &Reader| reader.0.verdicts.read().unwrap().len();
        let look_up = |reader: &Reader| {
            for n in 0..64 {
                assert!(reader.may_read(topic(&format!("lab/{n}"))));
                assert!(!reader.may_read(topic(&format!("den/{n}"))));
            }
        };
        // Alone it has all the room there is.
        let first = reader();
        for n in 0..64 {
            assert!(first.may_read(topic(&format!("lab/{n}"))));
        }
        assert_eq!(known(&first), 64);
        let mut others: Vec<_> = (0..15).map(|_| reader()).collect();
        for _ in 0..2 {
            for reader in others.iter().chain([&first]) {
                look_up(reader);
                let sum: usize = others.iter().chain([&first]).map(known).sum();
                assert_eq!(all.remembered.load(Ordering::Relaxed), sum);
                assert!(sum <= 64, "{sum}");
            }
        }
        // Each has its share then.
        assert!(
            others
                .iter()
                .chain([&first])
                .all(|reader| (1..=4).contains(&known(reader)))
        );
        // More readers than room.
        others.extend((0..100).map(|_| reader()));
        others.iter().for_each(look_up);
        assert!(all.remembered.load(Ordering::Relaxed) <= 64);
        drop((first, others));
        assert_eq!(all.remembered.load(Ordering::Relaxed), 0);
        assert_eq!(all.readers.load(Ordering::Relaxed), 0);
    }
}
