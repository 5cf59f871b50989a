//! A list in revision order from which entries leave anywhere.

use alloc::collections::VecDeque;

/// Entries by revision: appended at the end, removed anywhere, found by binary search.
///
/// A removed entry leaves a hole; the list is compacted when holes outnumber entries, so that
/// appending and removing cost O(log n) amortised and nothing is allocated at a steady size.
#[derive(Debug)]
pub(super) struct RevLog<T> {
    slots: VecDeque<(u64, Option<T>)>,
    live: usize,
}

/// Holes that are tolerated whatever the number of entries.
const SPARE_HOLES: usize = 32;

impl<T> RevLog<T> {
    pub(super) const fn new() -> Self {
        Self {
            slots: VecDeque::new(),
            live: 0,
        }
    }

    /// Appends an entry; `rev` is greater than all before it.
    pub(super) fn push(&mut self, rev: u64, item: T) {
        debug_assert!(self.slots.back().is_none_or(|(last, _)| *last < rev));
        self.slots.push_back((rev, Some(item)));
        self.live += 1;
    }

    pub(super) fn remove(&mut self, rev: u64) -> Option<T> {
        let index = self
            .slots
            .binary_search_by_key(&rev, |(rev, _)| *rev)
            .ok()?;
        let item = self.slots.get_mut(index)?.1.take()?;
        self.live -= 1;
        while self.slots.front().is_some_and(|(_, item)| item.is_none()) {
            self.slots.pop_front();
        }
        if self.slots.len() > 2 * self.live + SPARE_HOLES {
            self.slots.retain(|(_, item)| item.is_some());
        }
        Some(item)
    }

    /// All entries, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let slots = self.slots.iter();
        slots.filter_map(|(rev, item)| Some((*rev, item.as_ref()?)))
    }

    /// The oldest entry after `rev`.
    pub(super) fn after(&self, rev: u64) -> Option<(u64, &T)> {
        // Who has all there is asks most often.
        if self.slots.back().is_none_or(|(last, _)| *last <= rev) {
            return None;
        }
        let from = self.slots.partition_point(|(slot, _)| *slot <= rev);
        let found = self.slots.range(from..).find(|(_, item)| item.is_some())?;
        found.1.as_ref().map(|item| (found.0, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_an_ordered_map(operations in proptest::collection::vec((0..3u8, 0..200u64), 0..400)) {
            let mut log = RevLog::new();
            let mut model = BTreeMap::new();
            let mut next = 1;
            for (operation, n) in operations {
                match operation {
                    0 | 1 => {
                        next += n % 3 + 1;
                        log.push(next, n);
                        model.insert(next, n);
                    }
                    _ => prop_assert_eq!(log.remove(n), model.remove(&n)),
                }
                prop_assert_eq!(log.live, model.len());
                let expected = model.range(n + 1..).next().map(|(rev, item)| (*rev, item));
                prop_assert_eq!(log.after(n), expected);
                prop_assert!(log.iter().eq(model.iter().map(|(rev, item)| (*rev, item))));
                prop_assert!(log.slots.len() <= 2 * log.live + SPARE_HOLES + 1);
            }
        }
    }
}
