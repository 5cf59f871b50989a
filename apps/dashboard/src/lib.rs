//! The Latchbus server: one hub, and every way to it in one program.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`settings`] | the settings and their sources |
//! | [`server`] | from the settings to the ready line, and from a signal to the end |
//! | [`http`] | the dashboard, the API, health and metrics; gives WebSockets to their transports |
//! | [`access`] | `latchbus access`: which rule decides |
//! | [`backup`] | exports and imports |
//! | [`cert`] | certificates: `latchbus cert` |
//! | [`check`] | `latchbus check-config`: whether a server would start with a file |
//! | [`user`] | the users of a password file |
//! | [`failure`] | an error and its causes in one line |
//!
//! # Invariants
//! - Nothing is printed, accepted or published before every listener is bound and the store is open.
//! - The settings, the page and the API hold no state: everything is in the bus.
//! - Whoever publishes over HTTP goes through a [`Client`](latchbus_bus::Client) like every other peer.

pub mod access;
pub mod backup;
pub mod cert;
pub mod check;
pub mod cli;
pub mod ctl;
pub mod failure;
pub mod http;
mod listener;
pub mod log;
mod reload;
pub mod remote;
pub mod server;
pub mod settings;
mod sign_ins;
mod signals;
pub mod user;
