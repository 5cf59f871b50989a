//! TLS for the listeners and the clients of Latchbus: rustls with `ring`, versions 1.2 and 1.3.
//!
//! | module | what |
//! |---|---|
//! | [`server`] | certificate and key of a server, which certificates it asks of clients, and their reload |
//! | [`accept`] | an [`Acceptor`](latchbus_bus::accept::Acceptor) whose connections begin with a handshake |
//! | [`client`] | whom a client trusts, and the certificate that it shows |
//! | [`files`] | PEM files, and what can be wrong with them |
//!
//! - Handshakes are bounded in time and in number ([`server::Limits`]), and threads of their own do them
//!   ([`latchbus_bus::threads`]): those that serve connections do not wait for a signature.
//! - A new certificate is used from the next handshake on. Open connections stay as they are, and a pair of files that
//!   cannot be used changes nothing.
//! - Nothing here reads a byte of the protocol inside.
//!
//! ```no_run
//! use latchbus_tls::accept::TlsAcceptor;
//! use latchbus_tls::server::{Options, Protocol, Server};
//!
//! # async fn example(mqtt: impl AsyncFn(TlsAcceptor<tokio::net::TcpListener>)) -> Result<(), Box<dyn std::error::Error>> {
//! let tls = Server::open(Options::new("server.pem", "server.key"))?;
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:8883").await?;
//! // Any server that takes an `Acceptor`, as that of `latchbus_mqtt`.
//! mqtt(TlsAcceptor::new(listener, tls, Protocol::Mqtt)).await;
//! # Ok(())
//! # }
//! ```

pub mod accept;
pub mod client;
pub mod files;
mod first_bytes;
mod handshakes;
pub mod server;
mod subject;

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, ring};

/// Newest first.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
