//! The wall clock, as the hub's timestamps need it.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a bus reads the time of day. Clones read one clock.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The machine's. The default.
    pub const fn system() -> Self {
        Self(None)
    }

    /// One that stands, in milliseconds since the Unix epoch, until it is [`set`](Self::set): for tests and
    /// simulations.
    pub fn manual(unix_ms: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(unix_ms))))
    }

    /// Sets a manual clock, forwards or back; false for the machine's, which it leaves alone.
    pub fn set(&self, unix_ms: u64) -> bool {
        let Some(clock) = &self.0 else {
            return false;
        };
        clock.store(unix_ms, Ordering::Relaxed);
        true
    }

    /// Milliseconds since the Unix epoch; 0 on a machine whose clock stands before it.
    pub fn unix_ms(&self) -> u64 {
        match &self.0 {
            Some(clock) => clock.load(Ordering::Relaxed),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
        }
    }
}
