//! What has happened in a run, in order: a hash of it tells whether two runs were the same.

use core::fmt::Arguments;
use core::hash::Hasher;
use std::hash::DefaultHasher;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Collects what happens.
#[derive(Debug)]
pub(super) struct Trace {
    begun: Instant,
    hash: Mutex<DefaultHasher>,
    /// Prints it too: `LATCHBUS_TRACE=1`.
    prints: bool,
}

impl Trace {
    pub(super) fn begin() -> Self {
        Self {
            begun: Instant::now(),
            hash: Mutex::new(DefaultHasher::new()),
            prints: std::env::var_os("LATCHBUS_TRACE").is_some(),
        }
    }

    /// Takes note, with the virtual time.
    pub(super) fn note(&self, what: Arguments<'_>) {
        let at = self.begun.elapsed().as_micros();
        let line = format!("{at} {what}\n");
        if self.prints {
            eprint!("{line}");
        }
        let mut hash = self.hash.lock().unwrap_or_else(PoisonError::into_inner);
        hash.write(line.as_bytes());
    }

    /// The same for two runs in which the same happened at the same time.
    pub(super) fn hash(&self) -> u64 {
        let hash = self.hash.lock().unwrap_or_else(PoisonError::into_inner);
        hash.finish()
    }
}
