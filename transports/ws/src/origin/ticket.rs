//! Tickets: what only a page of the same origin can read, and then shows.

use core::hash::{BuildHasher as _, Hasher as _};
use core::time::Duration;
use std::hash::RandomState;
use std::time::Instant;

/// How long a ticket can be shown.
pub(super) const LIFETIME: Duration = Duration::from_secs(60);

/// Issues tickets and knows them again. A ticket is the time at which it ends and a code over that, under keys that the
/// system has drawn for this process.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: [RandomState; 2],
    began: Instant,
}

impl Default for Tickets {
    fn default() -> Self {
        Self {
            keys: [RandomState::new(), RandomState::new()],
            began: Instant::now(),
        }
    }
}

impl Tickets {
    pub(super) fn issue(&self, now: Instant) -> String {
        let ends = self.millis(now + LIFETIME);
        format!("{ends:x}-{}", self.code(ends))
    }

    pub(super) fn is_valid(&self, ticket: &str, now: Instant) -> bool {
        let Some((ends, code)) = ticket.split_once('-') else {
            return false;
        };
        let Ok(ends) = u64::from_str_radix(ends, 16) else {
            return false;
        };
        let ours = self.code(ends);
        // Every byte is looked at, so that the time taken tells nothing.
        let differ = ours
            .bytes()
            .zip(code.bytes())
            .fold(0, |d, (a, b)| d | (a ^ b));
        ours.len() == code.len() && differ == 0 && self.millis(now) < ends
    }

    fn millis(&self, at: Instant) -> u64 {
        let millis = at.saturating_duration_since(self.began).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }

    fn code(&self, ends: u64) -> String {
        let [high, low] = self.keys.each_ref().map(|key| {
            let mut hasher = key.build_hasher();
            hasher.write(b"latchbus ticket");
            hasher.write_u64(ends);
            hasher.finish()
        });
        format!("{high:016x}{low:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_end_and_cannot_be_made() {
        let (ours, other) = (Tickets::default(), Tickets::default());
        let now = Instant::now();
        let ticket = ours.issue(now);
        assert!(ours.is_valid(&ticket, now));
        assert!(!ours.is_valid(&ticket, now + LIFETIME + Duration::from_millis(1)));
        assert!(!other.is_valid(&ticket, now));
        let (ends, code) = ticket.split_once('-').unwrap();
        for wrong in [
            String::new(),
            "-".to_owned(),
            format!("f{ends}-{code}"),
            format!("{ends}-{}", &code[1..]),
            format!("{ends}-"),
            format!("{ends}-0{}", &code[1..]),
        ] {
            assert!(wrong == ticket || !ours.is_valid(&wrong, now), "{wrong}");
        }
    }
}
