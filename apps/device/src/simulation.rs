//! Clicks that nobody makes: a steady rate, colours by seed.

use core::time::Duration;

use latchbus_core::clicks::Color;
use serde::{Deserialize, Serialize};

/// The fastest simulation, in clicks a second.
pub const MAX_RATE: f64 = 1_000_000.0;

/// What takes the numbers of neighbouring positions far apart: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// How far a simulation has come. It is stored with the counts that it made, in the same write, so that
/// one that is killed goes on where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Where the colours come from.
    seed: u64,
    /// How many clicks in all; without, it has no end.
    count: Option<u64>,
    /// How many of them are made.
    made: u64,
}

impl Run {
    /// The run that a start with these flags goes on with: the stored one where it was made for the same
    /// flags, otherwise a new one. A start without a seed goes on with whatever seed was stored.
    pub fn resume(
        stored: Option<Self>,
        count: Option<u64>,
        seed: Option<u64>,
        draw: impl FnOnce() -> u64,
    ) -> Self {
        match stored {
            Some(run) if run.count == count && seed.is_none_or(|seed| seed == run.seed) => run,
            _ => Self {
                seed: seed.unwrap_or_else(draw),
                count,
                made: 0,
            },
        }
    }

    /// Whether what was stored is a run of more clicks than it was to have: nobody has written that.
    pub fn is_sound(self) -> bool {
        self.count.is_none_or(|count| self.made <= count)
    }

    /// Whether there is nothing left to make.
    pub fn is_complete(self) -> bool {
        self.count.is_some_and(|count| self.made >= count)
    }

    /// The colour of the next click, which is then made. `None` when the run is complete.
    pub fn click(&mut self) -> Option<Color> {
        if self.is_complete() {
            return None;
        }
        let color = color(self.seed, self.made);
        self.made = self.made.saturating_add(1);
        Some(color)
    }
}

/// The colour at a position depends on seed and position alone, so that a run that goes on after a
/// restart makes the colours that it would have made.
fn color(seed: u64, position: u64) -> Color {
    let seed = seed ^ position.wrapping_mul(SPREAD);
    let random = fastrand::Rng::with_seed(seed).u8(..);
    let n = usize::from(random) % Color::COUNT;
    // There is one at each position.
    Color::ALL.get(n).copied().unwrap_or(Color::Red)
}

/// When clicks are due.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_second: f64,
}

impl Pace {
    /// `None` unless the rate is above zero and at most [`MAX_RATE`].
    pub fn new(per_second: f64) -> Option<Self> {
        (per_second > 0.0 && per_second <= MAX_RATE).then_some(Self { per_second })
    }

    /// How many clicks are due after this long.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and rounding down is meant"
    )]
    pub fn due(self, elapsed: Duration) -> u64 {
        (elapsed.as_secs_f64() * self.per_second) as u64
    }

    /// After how long that many clicks are due. A little late rather than early: [`Self::due`] at that
    /// time counts them.
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact for 285 years at the largest rate"
    )]
    pub fn after(self, clicks: u64) -> Duration {
        let seconds = clicks as f64 / self.per_second;
        let length = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        length.saturating_add(Duration::from_micros(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colors(run: &mut Run, n: usize) -> Vec<Color> {
        core::iter::from_fn(|| run.click()).take(n).collect()
    }

    fn start(count: Option<u64>, seed: u64) -> Run {
        Run::resume(None, count, Some(seed), || unreachable!())
    }

    /// A run that was begun by a version with a coin for two colours goes on with the colours that it would have made.
    #[test]
    fn the_colors_of_a_seed_stay() {
        let coin = |position: u64| {
            let random = fastrand::Rng::with_seed(7 ^ position.wrapping_mul(SPREAD)).bool();
            if random { Color::Red } else { Color::Blue }
        };
        assert!((0..1_000).all(|position| color(7, position) == coin(position)));
    }

    #[test]
    fn a_run_in_pieces_makes_the_colours_of_the_whole() {
        let mut whole = start(Some(500), 7);
        let all = colors(&mut whole, 1_000);
        assert_eq!(all.len(), 500);
        assert!(whole.is_complete());

        let mut pieces = Vec::new();
        let mut run = start(Some(500), 7);
        while !run.is_complete() {
            pieces.extend(colors(&mut run, 37));
            run = Run::resume(Some(run), Some(500), Some(7), || unreachable!());
        }
        assert_eq!(pieces, all);
        assert_ne!(colors(&mut start(Some(500), 8), 500), all);
    }

    #[test]
    fn both_colours_come_up() {
        for seed in [0, 1, 7, u64::MAX] {
            let colors = colors(&mut start(None, seed), 10_000);
            let red = colors.iter().filter(|c| **c == Color::Red).count();
            assert!((4_800..5_200).contains(&red), "{red} of seed {seed}");
        }
    }

    #[test]
    fn other_flags_are_another_run() {
        let mut stored = start(Some(10), 7);
        stored.click();
        let resume = |count, seed| Run::resume(Some(stored), count, seed, || 99);
        assert_eq!(resume(Some(10), Some(7)), stored);
        assert_eq!(resume(Some(10), None), stored);
        assert_eq!(resume(Some(10), Some(8)), start(Some(10), 8));
        assert_eq!(resume(Some(11), None), start(Some(11), 99));
        assert_eq!(resume(None, Some(7)), start(None, 7));
    }

    #[test]
    fn what_is_due_matches_when_it_is_due() {
        for rate in [0.3, 1.0, 50.0, 333.3, MAX_RATE] {
            let pace = Pace::new(rate).unwrap();
            assert_eq!(pace.due(Duration::ZERO), 0);
            for clicks in [1, 2, 499, 123_456] {
                let at = pace.after(clicks);
                assert!(pace.due(at) >= clicks, "{clicks} at {rate}");
                let early = at.mul_f64(0.99).saturating_sub(Duration::from_micros(1));
                assert!(pace.due(early) < clicks, "{clicks} at {rate}");
            }
        }
        assert!(Pace::new(1e-300).unwrap().after(1) > Duration::from_secs(1 << 40));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, MAX_RATE * 1.1] {
            assert!(Pace::new(rate).is_none(), "{rate}");
        }
    }
}
