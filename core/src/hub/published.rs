//! How many publishes there were between two revisions.

use alloc::collections::VecDeque;

/// Runs of revisions without a gap that are remembered.
const MAX_RUNS: usize = 1_024;

/// Counts the publishes of a hub by revision. Where revisions have gaps, each run between two gaps is remembered; of
/// what lies before the oldest of them nothing is known.
#[derive(Debug, Default)]
pub(super) struct Published {
    runs: VecDeque<Run>,
    /// The newest revision.
    newest: u64,
    count: u64,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    first: u64,
    /// The publishes before it.
    before: u64,
}

impl Published {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Counts a publish, which is newer than all before.
    pub(super) fn add(&mut self, rev: u64) {
        if rev != self.newest + 1 || self.runs.is_empty() {
            if self.runs.len() == MAX_RUNS {
                self.runs.pop_front();
            }
            self.runs.push_back(Run {
                first: rev,
                before: self.count,
            });
        }
        self.newest = rev;
        self.count += 1;
    }

    /// The publishes after one revision, up to another, as far as they are known.
    pub(super) fn between(&self, after: u64, to: u64) -> u64 {
        self.up_to(to).saturating_sub(self.up_to(after))
    }

    fn up_to(&self, rev: u64) -> u64 {
        let next = self.runs.partition_point(|run| run.first <= rev);
        let before = |place| self.runs.get(place).map(|run: &Run| run.before);
        let Some(run) = next.checked_sub(1).and_then(|run| self.runs.get(run)) else {
            return before(0).unwrap_or(self.count);
        };
        let end = before(next).unwrap_or(self.count);
        end.min(run.before + (rev - run.first) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_not_counted() {
        let mut published = Published::new();
        assert_eq!(published.between(0, u64::MAX), 0);
        let revs = [1, 2, 5, 6, 7, 100];
        for rev in revs {
            published.add(rev);
        }
        for after in 0..110 {
            for to in after..110 {
                let count = revs.iter().filter(|rev| **rev > after && **rev <= to);
                assert_eq!(published.between(after, to), count.count() as u64);
            }
        }
    }

    #[test]
    fn of_what_is_older_than_the_oldest_run_nothing_is_known() {
        let mut published = Published::new();
        let newest = MAX_RUNS as u64 + 10;
        (1..=newest).for_each(|n| published.add(n * 10));
        assert_eq!(
            published.between(0, 110),
            1,
            "the oldest run that is remembered"
        );
        assert_eq!(published.between(0, 100), 0);
        assert_eq!(published.between(0, u64::MAX), MAX_RUNS as u64);
    }
}
