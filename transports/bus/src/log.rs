//! Log lines: the targets by which a filter names them, and what peers may put into them.
//!
//! | target | what |
//! |---|---|
//! | `mqtt` | MQTT connections, over TCP and WebSocket |
//! | `websocket` | connections of `/ws` |
//! | `socketio` | sessions of `/socket.io/` |
//! | `http` | HTTP: listeners, connections, requests that were refused |
//! | `serial` | byte links to microcontrollers |
//! | `store` | the disk |
//! | `server` | start, stop, settings |
//! | `access` | users, tokens and rules |
//! | `bus` | everything else |

use core::fmt;
use core::net::SocketAddr;

use tracing::field::{DisplayValue, display};

/// Where a client has connected from, as a field of a line.
pub type Place = DisplayValue<Address>;

/// An address, or a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Of TCP.
    Tcp(SocketAddr),
    /// None: what came over a Unix socket, or another stream without addresses.
    Unix,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Where a client of a transport has connected from: its address, or `unix`. None within the process and on byte links.
pub fn place(transport: &str, address: Option<SocketAddr>) -> Option<Place> {
    match (address, transport) {
        (Some(address), _) => Some(display(Address::Tcp(address))),
        (None, "mqtt" | "ws" | "http" | "page" | "socketio") => Some(display(Address::Unix)),
        (None, _) => None,
    }
}

/// Characters of a name or a topic that a line shows.
const SHOWN_CHARS: usize = 128;

/// A line of a transport, under its target.
macro_rules! warn_of {
    ($transport:expr, $($line:tt)+) => {
        match $transport {
            "mqtt" => tracing::warn!(target: "mqtt", $($line)+),
            "ws" => tracing::warn!(target: "websocket", $($line)+),
            "socketio" => tracing::warn!(target: "socketio", $($line)+),
            "http" => tracing::warn!(target: "http", $($line)+),
            "serial" => tracing::warn!(target: "serial", $($line)+),
            _ => tracing::warn!(target: "bus", $($line)+),
        }
    };
}
pub(crate) use warn_of;

/// The beginning of a name or topic that a peer has chosen.
pub fn shown(text: &str) -> &str {
    let end = text.char_indices().nth(SHOWN_CHARS);
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}
