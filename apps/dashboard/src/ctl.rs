//! `latchbus ctl`: what an administrator asks of a running server.

mod table;

use anyhow::Context as _;
use axum::body::Body;
use axum::http::Method;
use clap::Subcommand;
use latchbus_core::clicks::{Counter, MAX_COUNT};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::backup::server;
use crate::remote::{Remote, Server};
use crate::settings::Room;

/// Entries that are asked for at a time.
const PAGE: usize = 200;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Action {
    /// Reset a room to zero, or to the counts that are given
    ///
    /// What its devices have reported so far no longer counts; what they report beyond that does. It can be undone within
    /// a minute.
    ResetRoom {
        /// The room
        room: Room,
        /// The clicks on red that the room begins with
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = count, allow_negative_numbers = true)]
        red: u64,
        /// The clicks on blue
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = count, allow_negative_numbers = true)]
        blue: u64,
    },
    /// Remove a device with its clicks; it comes back with its next click
    ///
    /// It can be undone within a minute.
    RemoveDevice {
        /// Its room
        room: Room,
        /// The device
        device: String,
    },
    /// Undo one of these within a minute
    Undo {
        /// The `id` in its answer
        id: String,
    },
    /// List the clients that are connected
    Clients(Format),
    /// List the MQTT sessions whose clients are away
    Sessions(Format),
    /// List the subscriptions of a client, or of a session whose client is away
    Subscriptions {
        /// The ID in the list of clients or sessions
        #[arg(value_parser = id, allow_negative_numbers = true)]
        id: u64,
        /// How it is printed
        #[command(flatten)]
        format: Format,
    },
    /// End the connection of a client, which may connect again
    Disconnect {
        /// The ID in the list of clients
        #[arg(value_parser = id, allow_negative_numbers = true)]
        id: u64,
    },
    /// End an MQTT session with all that waits for it, and the connection of its client first
    EndSession {
        /// The client identifier
        client_id: String,
    },
}

fn count(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| *count <= MAX_COUNT);
    count.ok_or_else(|| format!("a count is a whole number from 0 to {MAX_COUNT}"))
}

fn id(text: &str) -> Result<u64, String> {
    (text.parse())
        .map_err(|_| "an ID is a number of the list that `latchbus ctl` prints".to_owned())
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct Format {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Asks a server, and gives what is to be printed: a table, or a line of JSON.
///
/// # Errors
/// When it cannot be reached, or refuses.
pub fn run(remote: &Remote, action: &Action) -> anyhow::Result<String> {
    let server = remote.open()?;
    let runtime = Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(ask(&server, action))
}

async fn ask(server: &Server, action: &Action) -> anyhow::Result<String> {
    let name = |name: &str| utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
    let (method, path, body) = match action {
        Action::ResetRoom { room, red, blue } => {
            let (path, counts) = (name(&room.0), Counter::new(*red, *blue));
            let path = format!("/api/v1/rooms/{path}/reset");
            (Method::POST, path, Body::from(counts.to_string()))
        }
        Action::RemoveDevice { room, device } => {
            let path = format!("/api/v1/rooms/{}/devices/{}", name(&room.0), name(device));
            (Method::DELETE, path, Body::empty())
        }
        Action::Undo { id } => {
            let path = format!("/api/v1/undo/{}", name(id));
            (Method::POST, path, Body::empty())
        }
        Action::Clients(format) => {
            return list(server, "/api/v1/clients", "clients", *format).await;
        }
        Action::Sessions(format) => {
            return list(server, "/api/v1/sessions", "sessions", *format).await;
        }
        Action::Subscriptions { id, format } => {
            let path = format!("/api/v1/clients/{id}/subscriptions");
            return list(server, &path, "subscriptions", *format).await;
        }
        Action::Disconnect { id } => {
            let path = format!("/api/v1/clients/{id}");
            (Method::DELETE, path, Body::empty())
        }
        Action::EndSession { client_id } => {
            let path = format!("/api/v1/sessions/{}", name(client_id));
            (Method::DELETE, path, Body::empty())
        }
    };
    let answer = server::call(server, method, &path, body).await?;
    String::from_utf8(answer).context("the server's answer is not known")
}

/// All pages of a list.
async fn list(server: &Server, path: &str, name: &str, format: Format) -> anyhow::Result<String> {
    let unknown = "the server's answer is not known";
    let (mut entries, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("{path}?limit={PAGE}{after}");
        let answer = server::call(server, Method::GET, &path, Body::empty()).await?;
        let mut answer: Value = serde_json::from_slice(&answer).context(unknown)?;
        let page = answer.get_mut(name).and_then(Value::as_array_mut);
        entries.append(page.context(unknown)?);
        let next = match answer.get("next") {
            None => break,
            Some(Value::String(next)) => next.clone(),
            Some(next) => next.to_string(),
        };
        let next = utf8_percent_encode(&next, NON_ALPHANUMERIC);
        after = format!("&after={next}");
    }
    Ok(match format.json {
        true => format!("{}\n", serde_json::json!({ name: entries })),
        false => table::table(name, &entries),
    })
}
