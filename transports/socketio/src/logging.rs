//! What the log says of sessions, under the target `socketio`: who has connected, who has left and why.

use std::io;

use latchbus_bus::{BudgetExceeded, Bus, Client, Ended};
use latchbus_ws::frame::FrameError;
use tracing::{info, warn};

use crate::receiver::ReceiveError;
use crate::session::Carrier;

/// A session begins.
pub(crate) fn connected(client: &Client, carrier: Carrier) {
    let (principal, address) = (client.principal(), client.shown_address());
    let user = principal.shown_user();
    let connection = client.id();
    let transport = match carrier {
        Carrier::WebSocket => "websocket",
        Carrier::Polling | Carrier::Closed => "polling",
    };
    info!(target: "socketio", connection, user, address, transport, "client connected");
}

/// A session has ended. What a setting can change is a warning.
pub(crate) fn disconnected(client: &Client, ended: &Ended<ReceiveError, io::Error>) {
    let (principal, address) = (client.principal(), client.shown_address());
    let user = principal.shown_user();
    let connection = client.id();
    let reason: &dyn core::fmt::Display = match ended {
        Ended::Left => &"closed by the client",
        Ended::Closing => &"the server stops",
        Ended::Stopped => &"stopped",
        Ended::SignedOut(why) => why,
        Ended::Receiver(error) => error,
        Ended::Sender(error) => error,
    };
    let (limit, setting) = match ended {
        Ended::Receiver(ReceiveError::Frame(FrameError::TooLarge { limit })) => {
            (*limit, "limits.payload_bytes")
        }
        Ended::Receiver(ReceiveError::Budget(BudgetExceeded { limit })) => {
            (*limit, "limits.incoming_bytes")
        }
        _ => {
            info!(target: "socketio", connection, user, address, "client disconnected: {reason}");
            return;
        }
    };
    let key = principal.log_key(setting);
    if let Some(left_out) = client.bus().log_limit().allow(&key) {
        warn!(
            target: "socketio",
            connection,
            user,
            address,
            limit,
            setting,
            left_out,
            "client disconnected: {reason}"
        );
    }
}

/// A session for which there is no room.
pub(crate) fn no_room(bus: &Bus, limit: usize) {
    if let Some(left_out) = bus.log_limit().allow("connections socketio") {
        warn!(
            target: "socketio",
            limit,
            setting = "limits.connections",
            left_out,
            "session refused: too many sessions"
        );
    }
}
