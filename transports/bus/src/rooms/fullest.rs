//! Which of many has the most.

use std::collections::BTreeMap;

/// How many things have how much. Its memory is bounded by how much one may have.
#[derive(Debug, Default)]
pub(super) struct Fullest(BTreeMap<usize, usize>);

impl Fullest {
    /// One thing has so much now. What has nothing is not counted.
    pub(super) fn change(&mut self, before: usize, after: usize) {
        if before == after {
            return;
        }
        if let Some(count) = self.0.get_mut(&before) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&before);
            }
        }
        if after > 0 {
            *self.0.entry(after).or_default() += 1;
        }
    }

    /// What the fullest has.
    pub(super) fn most(&self) -> usize {
        self.0.last_key_value().map_or(0, |(most, _)| *most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_is_known_when_another_was_emptied() {
        let mut fullest = Fullest::default();
        let mut seen = Vec::new();
        for (before, after) in [
            (0, 1),
            (0, 1),
            (1, 2),
            (2, 5),
            (5, 5),
            (5, 0),
            (1, 0),
            (0, 0),
        ] {
            fullest.change(before, after);
            seen.push(fullest.most());
        }
        assert_eq!(seen, [1, 1, 2, 5, 5, 1, 0, 0]);
        assert!(fullest.0.is_empty());
    }
}
