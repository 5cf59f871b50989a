//! What HTTP counts, beside the counts of the bus.

use axum::http::StatusCode;
use latchbus_bus::{Counter, Gauge};

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Connections that are open and have not become WebSockets.
    pub(super) connections: Gauge,
    /// Connections that a bound refused.
    pub(super) connections_refused: Counter,
    /// Answers by the first digit of their status, from 1.
    answers: [Counter; 5],
}

impl Counts {
    pub(super) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.answers.get(class) {
            counter.add(1);
        }
    }

    /// The answers of each class: its first digit, and how many.
    pub(super) fn answers(&self) -> impl Iterator<Item = (usize, u64)> {
        (1..).zip(self.answers.iter().map(Counter::get))
    }
}
