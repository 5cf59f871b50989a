//! What a server counts besides what the bus does.

use std::io;

use latchbus_bus::{Counter, Ended, Gauge};

use crate::receiver::ReceiveError;
use crate::session::Cause;

/// Counts since the start of one server.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Sessions that there are.
    pub sessions: Gauge,
    /// Sessions that went over from polling to WebSocket.
    pub upgrades: Counter,
    /// Sessions that ended because no pong came in time.
    pub ping_timeouts: Counter,
    /// Sessions that ended because the client broke the protocol.
    pub violations: Counter,
}

impl Metrics {
    pub(crate) fn count(&self, ended: &Ended<ReceiveError, io::Error>) {
        let Ended::Receiver(error) = ended else {
            return;
        };
        match error {
            ReceiveError::Silent(_) => self.ping_timeouts.add(1),
            ReceiveError::Frame(_) | ReceiveError::Fault(_) => self.violations.add(1),
            ReceiveError::Cause(cause) => {
                self.violations
                    .add(u64::from(*cause != Cause::PollCancelled));
            }
            _ => {}
        }
    }
}
