//! What the log says of connections, under the target `websocket`: who has connected, who has left and why.

use core::net::SocketAddr;
use std::io;

use latchbus_bus::log::place;
use latchbus_bus::{BudgetExceeded, Bus, Client, Ended};
use tracing::{info, warn};

use crate::Protocol;
use crate::frame::FrameError;
use crate::link::ReceiveError;

/// A connection begins.
pub(crate) fn connected(client: &Client, protocol: Protocol) {
    let (principal, address) = (client.principal(), client.shown_address());
    let user = principal.shown_user();
    let (connection, protocol) = (client.id(), protocol.name());
    info!(target: "websocket", connection, user, address, protocol, "client connected");
}

/// A connection has ended. What a setting can change is a warning.
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
            info!(target: "websocket", connection, user, address, "client disconnected: {reason}");
            return;
        }
    };
    let key = principal.log_key(setting);
    if let Some(left_out) = client.bus().log_limit().allow(&key) {
        warn!(
            target: "websocket",
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

/// A connection for which there is no room.
pub(crate) fn no_room(bus: &Bus, address: Option<SocketAddr>, limit: usize) {
    if let Some(left_out) = bus.log_limit().allow("connections websocket") {
        warn!(
            target: "websocket",
            address = place("ws", address),
            limit,
            setting = "limits.connections",
            left_out,
            "connection refused: too many connections"
        );
    }
}

/// A connection that the rules do not allow.
pub(crate) fn refused(bus: &Bus, address: Option<SocketAddr>, cause: &dyn core::fmt::Display) {
    let key = format!("refused ws {:?}", address.map(|address| address.ip()));
    if let Some(left_out) = bus.log_limit().allow(&key) {
        let address = place("ws", address);
        warn!(target: "websocket", address, left_out, "connection refused: {cause}");
    }
}
