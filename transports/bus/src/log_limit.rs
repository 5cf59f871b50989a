//! How often one peer may make the log say something.

use core::time::Duration;
use std::{collections::HashMap, sync::Mutex, time::Instant};

use crate::wake::lock;

/// Lines of one key that are written at once; after them one in each [`REFILL`].
const BURST: u32 = 5;
/// After so long a key may have one more line.
const REFILL: Duration = Duration::from_secs(10);
/// Keys that are told apart. Those beyond share the lines of one.
const KEYS: usize = 4_096;

/// Bounds the log lines that peers cause: for each key (a client with what it did, say) a few at once, then one in
/// ten seconds, which says how many it stands for. So one client that is refused again and again is in the log, and
/// does not fill it.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    keys: HashMap<Box<str>, Lines>,
    others: Option<Lines>,
}

#[derive(Debug, Clone, Copy)]
struct Lines {
    left: u32,
    since: Instant,
    left_out: u64,
}

impl Lines {
    const fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
            left_out: 0,
        }
    }

    fn refill(&mut self, now: Instant) {
        let periods = now.saturating_duration_since(self.since).as_secs() / REFILL.as_secs();
        if let Ok(periods @ 1..) = u32::try_from(periods) {
            self.left = self.left.saturating_add(periods).min(BURST);
            self.since = now;
        }
    }

    /// How many were left out, if a line may say so.
    fn take_left_out(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        self.left = self.left.checked_sub(1)?;
        Some(core::mem::take(&mut self.left_out))
    }

    fn take(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        if self.left == BURST {
            self.since = now;
        }
        self.left -= 1;
        Some(core::mem::take(&mut self.left_out))
    }
}

impl LogLimit {
    /// Whether a line may be written now: if so, how many of the same key were left out since the last one.
    pub fn allow(&self, key: &str) -> Option<u64> {
        self.allow_at(key, Instant::now())
    }

    /// The keys that begin so whose lines were left out until their flood was over, so that one may be written now; and how many.
    pub fn take_left_out(&self, begin: &str) -> Vec<(Box<str>, u64)> {
        self.take_left_out_at(begin, Instant::now())
    }

    fn take_left_out_at(&self, begin: &str, now: Instant) -> Vec<(Box<str>, u64)> {
        let state = &mut *lock(&self.0);
        let keys = state.keys.iter_mut();
        let keys = keys.filter(|(key, lines)| lines.left_out > 0 && key.starts_with(begin));
        let taken = keys.filter_map(|(key, lines)| Some((key.clone(), lines.take_left_out(now)?)));
        taken.collect()
    }

    fn allow_at(&self, key: &str, now: Instant) -> Option<u64> {
        let state = &mut *lock(&self.0);
        if let Some(lines) = state.keys.get_mut(key) {
            return lines.take(now);
        }
        if state.keys.len() >= KEYS {
            let mut left_out = 0;
            state.keys.retain(|_, lines| {
                lines.refill(now);
                let is_busy = lines.left < BURST;
                left_out += if is_busy { 0 } else { lines.left_out };
                is_busy
            });
            // What nobody has said of those that are forgotten, the others' next line says.
            if left_out > 0 {
                let others = state.others.get_or_insert(Lines::new(now));
                others.left_out += left_out;
            }
        }
        if state.keys.len() >= KEYS {
            return state.others.get_or_insert(Lines::new(now)).take(now);
        }
        state
            .keys
            .entry(key.into())
            .or_insert(Lines::new(now))
            .take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_few_lines_at_once_and_then_one_in_ten_seconds() {
        let limit = LogLimit::default();
        let start = Instant::now();
        let written = (0..100).filter_map(|_| limit.allow_at("a", start));
        assert_eq!(written.collect::<Vec<_>>(), [0; BURST as usize]);
        assert_eq!(limit.allow_at("b", start), Some(0));
        let later = start + REFILL;
        assert_eq!(limit.allow_at("a", later), Some(95));
        assert_eq!(limit.allow_at("a", later), None);
        assert_eq!(limit.allow_at("a", later + 100 * REFILL), Some(1));
    }

    #[test]
    fn what_was_left_out_is_told_when_the_flood_is_over() {
        let limit = LogLimit::default();
        let start = Instant::now();
        for key in ["a 1", "b 1"] {
            for _ in 0..100 {
                limit.allow_at(key, start);
            }
        }
        assert_eq!(limit.take_left_out_at("a", start), []);
        let later = start + REFILL;
        assert_eq!(limit.take_left_out_at("a", later), [("a 1".into(), 95)]);
        assert_eq!(limit.take_left_out_at("a", later + REFILL), []);
        // Once: a line that came meanwhile has told it.
        assert_eq!(limit.allow_at("b 1", later), Some(95));
        assert_eq!(limit.take_left_out_at("b", later + REFILL), []);
    }

    #[test]
    fn keys_are_bounded_and_the_rest_share_their_lines() {
        let limit = LogLimit::default();
        let start = Instant::now();
        for key in 0..KEYS {
            assert_eq!(limit.allow_at(&key.to_string(), start), Some(0));
        }
        let written = (0..100).filter_map(|n| limit.allow_at(&format!("x{n}"), start));
        assert_eq!(written.count(), BURST as usize);
        assert_eq!(lock(&limit.0).keys.len(), KEYS);
        // Those that were quiet give up their places.
        assert_eq!(limit.allow_at("new", start + 10 * REFILL), Some(0));
        assert_eq!(lock(&limit.0).keys.len(), 1);
    }

    /// Clients that were left out and never came again do not keep their places.
    #[test]
    fn keys_that_are_quiet_for_long_make_room() {
        let limit = LogLimit::default();
        let start = Instant::now();
        for key in 0..KEYS {
            for _ in 0..=BURST {
                limit.allow_at(&key.to_string(), start);
            }
        }
        let later = start + BURST * REFILL;
        for key in ["new", "newer"] {
            let written = (0..BURST).filter_map(|_| limit.allow_at(key, later));
            assert_eq!(written.count(), BURST as usize, "{key}");
        }
    }
}
