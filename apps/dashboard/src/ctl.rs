//! `latchbus ctl`: what an administrator does with a running server.

use anyhow::Context as _;
use axum::body::Body;
use axum::http::Method;
use latchbus_core::clicks::Counter;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::runtime::Runtime;

use crate::backup::server;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Let a room begin anew.
    ResetRoom {
        /// Its name.
        room: String,
        /// With these counts.
        counts: Counter,
    },
    /// Remove a device with its clicks.
    RemoveDevice {
        /// Its room.
        room: String,
        /// Its name.
        device: String,
    },
    /// Undo one of these.
    Undo {
        /// What it has answered.
        id: String,
    },
}

/// Asks the server at this address, and gives its answer, a line of JSON.
///
/// # Errors
/// When it cannot be reached, or refuses.
pub fn run(url: &str, action: &Action) -> anyhow::Result<String> {
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let name = |name: &str| utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
    let (method, path, body) = match action {
        Action::ResetRoom { room, counts } => {
            let path = format!("/api/v1/rooms/{}/reset", name(room));
            (Method::POST, path, Body::from(counts.to_string()))
        }
        Action::RemoveDevice { room, device } => {
            let path = format!("/api/v1/rooms/{}/devices/{}", name(room), name(device));
            (Method::DELETE, path, Body::empty())
        }
        Action::Undo { id } => {
            let path = format!("/api/v1/undo/{}", name(id));
            (Method::POST, path, Body::empty())
        }
    };
    let answer = runtime.block_on(server::call(url, method, &path, body))?;
    String::from_utf8(answer).context("the server's answer is not known")
}
