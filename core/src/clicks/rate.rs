use core::fmt;

use super::color::{Color, write_members};
use super::counter::Counter;
use super::shares::Tenths;

/// Over how long [`Rate`] looks back, in milliseconds.
pub const RATE_WINDOW_MS: u64 = 10_000;

/// Half a second a bucket: the window then covers between 9.5 and 10 s, for 320 bytes a room.
const BUCKETS: usize = 20;
const BUCKET_MS: u64 = RATE_WINDOW_MS / BUCKETS as u64;

/// Clicks per second over the last ten seconds, in fixed memory.
///
/// Times are milliseconds of any clock, given by the caller. A clock that goes back by less than
/// the window stands still here until it has caught up; one that goes back further begins anew, and
/// one that jumps ahead empties the window. So no click is shown for longer than twice the window.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    buckets: [Counter; BUCKETS],
    /// The number of the newest bucket, counted from the clock's zero.
    newest: u64,
}

impl Rate {
    /// Counts `delta` clicks as made at `now_ms`.
    pub fn record(&mut self, now_ms: u64, delta: Counter) {
        let mut now = now_ms / BUCKET_MS;
        if now < self.newest {
            if self.is_before_window(now) {
                self.buckets = Default::default();
            } else {
                now = self.newest;
            }
        }
        for number in (self.newest + 1..=now).rev().take(BUCKETS) {
            if let Some(bucket) = self.bucket(number) {
                *bucket = Counter::ZERO;
            }
        }
        self.newest = now;
        if let Some(bucket) = self.bucket(now) {
            *bucket = bucket.saturating_add(delta);
        }
    }

    /// The rate at `now_ms`.
    #[must_use]
    pub fn per_second(&self, now_ms: u64) -> PerSecond {
        let now = now_ms / BUCKET_MS;
        let mut sum = Counter::ZERO;
        if !self.is_before_window(now) {
            // Of the buckets in memory, which end with the newest, those that are still inside.
            let past = usize::try_from(now.saturating_sub(self.newest)).unwrap_or(BUCKETS);
            let newest = self.newest % BUCKETS as u64;
            for (index, bucket) in (0_u64..).zip(&self.buckets) {
                let age = (newest + BUCKETS as u64 - index) % BUCKETS as u64;
                if age as usize + past < BUCKETS {
                    sum = sum.saturating_add(*bucket);
                }
            }
        }
        PerSecond { window: sum }
    }

    fn is_before_window(&self, number: u64) -> bool {
        number.saturating_add(BUCKETS as u64) <= self.newest
    }

    fn bucket(&mut self, number: u64) -> Option<&mut Counter> {
        self.buckets.get_mut((number % BUCKETS as u64) as usize)
    }
}

/// Clicks per second of each colour. `Display` writes the payload of a rate topic,
/// `{"red":0.4,"blue":1.2}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PerSecond {
    /// Clicks in ten seconds, which is tenths of clicks in one.
    window: Counter,
}

impl PerSecond {
    /// Clicks on this colour, in tenths per second.
    #[must_use]
    pub const fn tenths(self, color: Color) -> u64 {
        self.window.of(color)
    }

    /// Whether nobody clicked within the window.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.window.is_zero()
    }
}

impl fmt::Display for PerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        write_members(f, |color| Tenths(self.tenths(color)))?;
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    const RED: Counter = Counter::new(1, 0);

    #[test]
    fn the_window_slides() {
        let mut rate = Rate::default();
        let start = 1_732_305_000_000;
        assert_eq!(
            rate.per_second(start).to_string(),
            r#"{"red":0.0,"blue":0.0}"#
        );
        rate.record(start, Counter::new(4, 0));
        rate.record(start + 3_000, Counter::new(0, 12));
        assert_eq!(
            rate.per_second(start + 3_000).to_string(),
            r#"{"red":0.4,"blue":1.2}"#
        );
        assert_eq!(rate.per_second(start + 9_999).tenths(Color::Red), 4);
        assert_eq!(
            rate.per_second(start + 10_000).to_string(),
            r#"{"red":0.0,"blue":1.2}"#
        );
        rate.record(start + 11_000, RED);
        assert_eq!(
            rate.per_second(start + 12_999).to_string(),
            r#"{"red":0.1,"blue":1.2}"#
        );
        assert_eq!(
            rate.per_second(start + 13_000).to_string(),
            r#"{"red":0.1,"blue":0.0}"#
        );
        assert!(rate.per_second(start + 21_000).is_zero());
    }

    #[test]
    fn steady_clicks_show_their_rate() {
        let mut rate = Rate::default();
        for tick in 0..1_000 {
            rate.record(tick * 100, RED);
            let shown = rate.per_second(tick * 100).tenths(Color::Red);
            // Ten a second; the bucket that is being filled holds between one and five of them.
            let expected = (tick + 1).min(95)..=(tick + 1).min(100);
            assert!(expected.contains(&shown), "tick {tick}: {shown}");
        }
    }

    #[test]
    fn a_jump_ahead_empties_the_window() {
        let mut rate = Rate::default();
        rate.record(1_000, RED);
        assert!(rate.per_second(u64::MAX).is_zero());
        rate.record(u64::MAX, Counter::new(0, 1));
        assert_eq!(
            rate.per_second(u64::MAX).to_string(),
            r#"{"red":0.0,"blue":0.1}"#
        );
    }

    #[test]
    fn a_clock_that_goes_back_neither_loses_nor_keeps_clicks() {
        let mut rate = Rate::default();
        rate.record(100_000, RED);
        rate.record(97_000, RED);
        assert_eq!(rate.per_second(97_000).tenths(Color::Red), 2);
        assert_eq!(rate.per_second(109_499).tenths(Color::Red), 2);
        assert!(rate.per_second(110_000).is_zero());
        // Further back than the window: what was recorded under the other clock is gone.
        assert!(rate.per_second(5_000).is_zero());
        rate.record(5_000, RED);
        assert_eq!(rate.per_second(5_000).tenths(Color::Red), 1);
        assert!(rate.per_second(15_000).is_zero());
    }

    #[test]
    fn counts_saturate() {
        let mut rate = Rate::default();
        for _ in 0..3 {
            rate.record(0, Counter::new(u64::MAX, 1));
            rate.record(600, Counter::new(u64::MAX, 1));
        }
        assert_eq!(
            rate.per_second(600).tenths(Color::Red),
            super::super::MAX_COUNT
        );
        assert_eq!(rate.per_second(600).tenths(Color::Blue), 6);
    }
}
