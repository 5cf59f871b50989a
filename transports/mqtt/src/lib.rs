//! MQTT 3.1.1 and 5 for the Latchbus hub: a server in front of it, and a client to this and other servers.
//!
//! - [`server`]: [`Server`](server::Server) accepts TCP connections, or serves any stream of bytes, and gives
//!   each client a session of the bus. The retained messages and the routing are the hub's.
//! - [`Connection`], over a [`Session`]: the protocol, as a state machine without I/O or a clock. Bytes and
//!   events in, requests and bytes out. [`opening`] reads the CONNECT before it.
//! - [`client`]: [`Client`](client::Client) keeps state on a server, through cuts and restarts.
//!
//! ```
//! use latchbus_bus::{Bus, Options};
//! use latchbus_mqtt::server::{Config, Server};
//! use tokio::net::TcpListener;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let bus = Bus::open(Options::default())?;
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let server = Server::new(bus.clone(), Config::default());
//! let serving = tokio::spawn(async move { server.serve(listener).await });
//! // … until the bus closes:
//! bus.close().await;
//! serving.await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//! - PUBACK and PUBREC go out when the bus has accepted the message and, where it has a store, written it.
//! - A QoS 2 message is handed to the bus once, and taken by a subscriber once, over any number of cuts of
//!   a persistent session.
//! - Where the bus has a store, a session that outlives its connection outlives the server: what a client is told
//!   of it (SUBACK, PUBCOMP, PUBREL, a QoS 2 PUBLISH) is on disk before. The state machine says what to store, as
//!   [`Note`]s, and holds back what depends on it.
//! - A snapshot of retained messages is never cut short: it waits for the client's acknowledgements in the
//!   hub, as a cursor.
//! - What a client sends can end its own connection, and nothing else. Buffers, windows, sessions and
//!   connections are bounded: see [`Bounds`] and [`server::Config`].
//! - What a publisher of MQTT 5 says beside the payload reaches the subscribers of MQTT 5, and stays with a
//!   retained message. Nobody is given a message whose time is over.
//! - Of enhanced authentication there is one method, [`TOKEN_METHOD`], whose data is a bearer token; any other is refused with the
//!   code for it.
//!
//! # The age of a message
//! A SUBSCRIBE of MQTT 5 with a user property `latchbus-rev` (of any value) asks for a user property of that
//! name on each message of its subscriptions: `<epoch in hex>:<revision>`, the place of the message in the
//! hub's order. `latchbus-at` likewise: when the bus accepted the message, in milliseconds since the Unix
//! epoch.

pub mod client;
pub mod connection;
mod decode;
mod encode;
#[doc(hidden)]
pub mod fuzz;
mod ledger;
mod message;
mod opening;
mod outgoing;
mod packet;
mod properties;
mod property;
mod reader;
mod reason;
mod record;
pub mod restore;
pub mod server;
mod session;

pub use connection::{Bounds, Connection, Progress, Remains};
pub use encode::refusal;
pub use opening::{Opening, opening};
pub use packet::{Connect, TOKEN_METHOD, Version, Will};
pub use reason::{Reason, Violation};
pub use record::Note;
pub use session::Session;
