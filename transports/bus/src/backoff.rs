//! How long to wait before the next attempt.

use core::time::Duration;

/// Exponential back-off with full jitter: each wait is drawn evenly from zero to a bound that doubles with
/// each attempt, so that the clients of a server that comes back do not all come back at once
/// (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    bound: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// The first wait is at most `base`, none is longer than `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self::with_random(base, cap, fastrand::Rng::new())
    }

    /// The same with a generator of the caller's, for waits that can be repeated.
    pub fn with_random(base: Duration, cap: Duration, random: fastrand::Rng) -> Self {
        Self {
            base,
            cap,
            bound: base,
            random,
        }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self.bound.min(self.cap);
        self.bound = bound.saturating_mul(2);
        bound.mul_f64(self.random.f64())
    }

    /// Begins again with the shortest wait: the attempt has succeeded.
    pub fn reset(&mut self) {
        self.bound = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_fill_their_range() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut longest = [Duration::ZERO; 10];
        let mut shortest = [Duration::MAX; 10];
        for seed in 0..500 {
            let mut backoff = Backoff::with_random(base, cap, fastrand::Rng::with_seed(seed));
            for (longest, shortest) in longest.iter_mut().zip(&mut shortest) {
                let wait = backoff.next_wait();
                *longest = wait.max(*longest);
                *shortest = wait.min(*shortest);
            }
            backoff.reset();
            assert!(backoff.next_wait() <= base);
        }
        for (attempt, (longest, shortest)) in longest.iter().zip(shortest).enumerate() {
            let bound = (base * 2_u32.pow(attempt as u32)).min(cap);
            assert!(*longest <= bound && *longest > bound * 9 / 10);
            assert!(shortest < bound / 10);
        }
    }
}
