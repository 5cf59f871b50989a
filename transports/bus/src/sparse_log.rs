//! Log lines that peers cause.

use core::{fmt::Display, time::Duration};
use std::time::Instant;

use tracing::warn;

/// Between two log lines about malformed messages.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Warnings about what peers send wrongly: at most one in [`LOG_INTERVAL`], with the number of those
/// that it stands for.
#[derive(Debug, Default)]
pub(crate) struct SparseLog {
    last: Option<Instant>,
    left_out: u64,
}

impl SparseLog {
    pub(crate) fn warn(&mut self, kind: &str, topic: &str, reason: &dyn Display) {
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            self.left_out += 1;
            return;
        }
        warn!(
            target: "clicks",
            topic,
            left_out = self.left_out,
            "malformed {kind}: {reason}"
        );
        (self.last, self.left_out) = (Some(Instant::now()), 0);
    }
}
