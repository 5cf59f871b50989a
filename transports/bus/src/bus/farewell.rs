//! What transports still have to say before the connections end.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::{Arc, Weak};

use tokio::time::timeout;

use super::{Bus, Inner};
use crate::wake::lock;

/// How long connections are kept for the last words of transports when a bus closes.
pub(super) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Keeps the sessions of a closing bus from ending, so that what its owner publishes then, the wills of connected
/// clients say, still reaches them. To be dropped when that is in the hub. See [`Bus::farewell`].
#[derive(Debug)]
pub struct Farewell(Weak<Inner>);

impl Bus {
    /// Takes part in the end of the bus: when it [begins to close](Self::begin_close), sessions go on until what this
    /// returns is dropped, and then until they have delivered what there is, both for a second at most.
    #[must_use]
    pub fn farewell(&self) -> Farewell {
        self.0.farewells.fetch_add(1, Ordering::AcqRel);
        Farewell(Arc::downgrade(&self.0))
    }

    /// Ends the sessions when everybody has said goodbye.
    pub(super) async fn end_sessions_in_time(&self) {
        let said = self.0.sessions_end.cancelled();
        if timeout(FAREWELL_TIMEOUT, said).await.is_err() {
            self.end_sessions();
        }
    }

    pub(super) fn end_sessions(&self) {
        self.0.is_closing.store(true, Ordering::Release);
        self.0.sessions_end.cancel();
        for session in self.live_sessions() {
            session.wake_task();
        }
        for stream in lock(&self.0.streams).drain(..) {
            stream.wake();
        }
    }

    pub(super) fn end_sessions_if_all_is_said(&self) {
        if self.0.farewells.load(Ordering::Acquire) == 0 && self.0.closing.is_cancelled() {
            self.end_sessions();
        }
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(bus) = Bus::upgrade(&self.0) {
            bus.0.farewells.fetch_sub(1, Ordering::AcqRel);
            bus.end_sessions_if_all_is_said();
        }
    }
}
