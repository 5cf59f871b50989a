//! Passwords that were right a moment ago, so that not each request of HTTP costs a hash.

use core::fmt;
use core::time::Duration;
use std::collections::HashMap;
use std::time::Instant;

use ring::hmac;
use ring::rand::SystemRandom;

/// How long a password counts as verified.
pub const CACHE_TIME: Duration = Duration::from_secs(300);

/// The most passwords that are remembered as verified. Beyond them, all that are too old are forgotten, else all.
pub const CACHE_ENTRIES: usize = 10_000;

/// What was verified lately. A password is stored as an HMAC with a random key that never leaves the process.
pub(super) struct Cache {
    /// None where the system gives no random numbers: then nothing is cached.
    key: Option<hmac::Key>,
    entries: HashMap<Proof, (u64, Instant)>,
}

/// A user and a password, unreadable.
pub(super) type Proof = [u8; 32];

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            entries: HashMap::new(),
        }
    }

    /// What stands for this user with this password.
    pub(super) fn proof(&self, name: &str, password: &[u8]) -> Option<Proof> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
        context.update(password);
        context.sign().as_ref().try_into().ok()
    }

    /// Whether it was verified lately, for the user's hash of this version.
    pub(super) fn contains(&self, proof: &Proof, version: u64, now: Instant) -> bool {
        let entry = self.entries.get(proof);
        entry.is_some_and(|(verified, at)| *verified == version && is_current(*at, now))
    }

    pub(super) fn insert(&mut self, proof: Proof, version: u64, now: Instant) {
        if self.entries.len() >= CACHE_ENTRIES {
            self.entries.retain(|_, (_, at)| is_current(*at, now));
        }
        if self.entries.len() >= CACHE_ENTRIES {
            self.entries.clear();
        }
        self.entries.insert(proof, (version, now));
    }
}

fn is_current(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < CACHE_TIME
}

/// Shows how many there are.
impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_of_one_user_one_password_one_version_and_for_a_while() {
        let (mut cache, now) = (Cache::new(), Instant::now());
        let proof = cache.proof("anna", b"b").unwrap();
        cache.insert(proof, 1, now);
        assert!(cache.contains(&proof, 1, now));
        assert!(!cache.contains(&proof, 2, now), "the password was changed");
        assert!(!cache.contains(&proof, 1, now + CACHE_TIME));
        for (name, password) in [
            ("annab", &b""[..]),
            ("ann", b"ab"),
            ("anna", b"c"),
            ("anne", b"b"),
        ] {
            let other = cache.proof(name, password).unwrap();
            assert!(!cache.contains(&other, 1, now));
        }
        assert_ne!(
            Cache::new().proof("anna", b"b"),
            Some(proof),
            "each has its own key"
        );
    }

    #[test]
    fn it_is_bounded() {
        let (mut cache, now) = (Cache::new(), Instant::now());
        for number in 0..CACHE_ENTRIES + 5 {
            let proof = cache.proof(&number.to_string(), b"").unwrap();
            cache.insert(proof, 1, now);
        }
        assert!(cache.entries.len() <= CACHE_ENTRIES);
    }
}
