//! Latchbus over WebSocket.
//!
//! | module | what it holds |
//! |---|---|
//! | [`server`] | takes the connections of an axum application and gives each to a session of the bus |
//! | [`client`] | a connection that comes back by itself |
//! | [`origin`] | which web pages may connect; also for an application's own HTTP requests |
//! | [`handshake`] | the opening handshake, for whatever else an application speaks over WebSocket |
//! | [`frame`] | WebSocket frames without I/O |
//! | [`flow`] | how much may be under way to a peer |
//!
//! ```
//! use latchbus_bus::{Bus, Options};
//! use latchbus_core::topic::TopicName;
//! use latchbus_ws::client::{self, Client};
//! use latchbus_ws::{Config, Server};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let bus = Bus::open(Options::default())?;
//! let server = Server::new(bus.clone(), Config::default());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let url = format!("ws://{}/ws", listener.local_addr()?);
//! let serving = tokio::spawn(axum::serve(listener, server.router()).into_future());
//!
//! let client = Client::connect(&url, client::Options::default())?;
//! let topic = TopicName::parse("lab/temp".to_owned())?;
//! let rev = client.publish(topic.clone(), "21.5", true).await?;
//! assert_eq!(bus.last(topic.borrowed()).map(|last| last.rev), Some(rev));
//!
//! client.close().await;
//! serving.abort();
//! bus.close().await;
//! server.closed().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//! - What comes from a socket is bounded before it is stored, and none of it panics.
//! - A connection that waits holds no buffer; one whose peer reads slowly holds one batch of frames.
//! - What is under way to a peer is bounded by a window of a few tens of kilobytes, up to a megabyte for one
//!   that keeps up; so a peer that has stopped reading finds the newest values close behind.
//! - A message is encoded once in each form, however many subscribers it has.

pub mod client;
pub mod flow;
pub mod frame;
pub mod handshake;
mod link;
mod logging;
pub mod origin;
mod outgoing;
mod protocol;
pub mod server;
pub mod sign_in;

pub use latchbus_bus::frames::Bad;
pub use origin::{Guard, OriginPolicy, Refusal};
pub use protocol::Protocol;
pub use server::{Config, Server};
