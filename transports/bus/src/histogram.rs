//! How long something takes, as Prometheus counts it.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

/// Durations by size: how many there were up to each of [`Histogram::BOUNDS`], and their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By bound, the last for those beyond all. Each duration is in one.
    buckets: [AtomicU64; Self::BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// From what a fast disk needs for a commit to what a failing one does.
    pub const BOUNDS: [Duration; 14] = [
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_millis(2_500),
        Duration::from_secs(5),
        Duration::from_secs(10),
    ];

    pub(crate) fn record(&self, duration: Duration) {
        let bucket = Self::BOUNDS.partition_point(|bound| *bound < duration);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many took at most so long, for each bound.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let buckets = self.buckets.iter();
        let counts = buckets.scan(0, |sum, bucket| {
            *sum += bucket.load(Ordering::Relaxed);
            Some(*sum)
        });
        Self::BOUNDS.into_iter().zip(counts)
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        let buckets = self.buckets.iter();
        buckets.map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// All together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_from_its_bound_on() {
        let histogram = Histogram::default();
        for millis in [1, 2, 400, 60_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let counts: Vec<_> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [0, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
        assert_eq!(histogram.count(), 4);
        assert_eq!(histogram.sum(), Duration::from_millis(60_403));
    }
}
