//! Which refusals were logged lately, so that nobody can fill the log.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How often the same name is logged.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Names that are logged within that time, over all; what comes beyond is counted.
const MAX_NAMES: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Warned(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    at: HashMap<String, Instant>,
    suppressed: u64,
}

impl Warned {
    /// Whether to log a refusal of this name now: how many were not logged since the last that was.
    pub(super) fn is_due(&self, name: &str, now: Instant) -> Option<u64> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { at, suppressed } = &mut *inner;
        at.retain(|_, at| now.saturating_duration_since(*at) < AGAIN_AFTER);
        if at.contains_key(name) || at.len() >= MAX_NAMES {
            *suppressed = suppressed.saturating_add(1);
            return None;
        }
        at.insert(name.to_owned(), now);
        Some(core::mem::take(suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_logged_once_a_minute() {
        let warned = Warned::default();
        let now = Instant::now();
        assert_eq!(warned.is_due("a", now), Some(0));
        assert_eq!(warned.is_due("a", now), None);
        assert_eq!(warned.is_due("b", now), Some(1));
        assert_eq!(warned.is_due("a", now + AGAIN_AFTER), Some(0));
        let named = (0..100).filter(|n| warned.is_due(&n.to_string(), now).is_some());
        assert!(named.count() <= MAX_NAMES);
    }
}
