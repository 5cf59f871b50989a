//! Latchbus over Engine.IO 4 and Socket.IO 5: polling, WebSocket, and the upgrade between them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`server`] | answers the requests of an axum application and gives each session to a session of the bus |
//! | [`config`] | what the events of each namespace mean |
//! | [`engine`] | Engine.IO packets without I/O |
//! | [`packet`] | Socket.IO packets without I/O |
//!
//! ```no_run
//! use latchbus_bus::{Bus, Options};
//! use latchbus_socketio::{Config, Server};
//! use latchbus_ws::{Guard, OriginPolicy};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Bus::open(Options::default())?;
//! let guard = Guard::new(&OriginPolicy::default());
//! let server = Server::new(bus.clone(), guard, Config::default());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! axum::serve(listener, server.router("/socket.io/")).await?;
//!
//! bus.close().await;
//! server.closed().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! - What a client sends is bounded before it is stored, and none of it panics.
//! - Nothing waits for a client that does not read: between two polls, and beyond what is known to be read of a WebSocket, what is
//!   new stays in the hub, where newer values replace older ones.
//! - A poll is answered with at most 16 packets.
//! - An event that may be recovered ends with the offset from which it is.
//!
//! The frames, the handshake and the flow control of WebSocket are those of [`latchbus_ws`].

pub mod config;
pub mod engine;
mod ids;
mod logging;
mod machine;
mod metrics;
mod offset;
pub mod packet;
mod polling;
mod query;
mod receiver;
mod sender;
pub mod server;
mod session;
mod upgrade;

pub use config::{Action, Config, Input, Namespace, Output};
pub use metrics::Metrics;
pub use server::Server;
