//! A server for the test suites of the two protocols, which `socketio/engine.io-protocol` and `socketio/socket.io-protocol` publish:
//! Engine.IO alone at `/engine.io/`, where each message comes back, and Socket.IO at `/socket.io/` with the namespaces `/` and `/custom`.
//!
//! ```text
//! cargo run -p latchbus-socketio --example protocol_suites -- 127.0.0.1:3000
//! ```

use core::error::Error;
use core::time::Duration;

use latchbus_bus::{Bus, Options};
use latchbus_socketio::{Config, Namespace, Server};
use latchbus_ws::{Guard, OriginPolicy};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:3000");
    let bus = Bus::open(Options::default())?;
    let guard = Guard::new(&OriginPolicy::default());
    let config = Config {
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        namespaces: ["/", "/custom"].map(Namespace::protocol_suite).to_vec(),
        ..Config::default()
    };
    let engine = Config {
        echo_messages: true,
        ..config.clone()
    };
    let engine = Server::new(bus.clone(), guard.clone(), engine);
    let socket = Server::new(bus, guard, config);
    let router = engine
        .router("/engine.io/")
        .merge(socket.router("/socket.io/"));
    let listener = TcpListener::bind(address).await?;
    println!("ready http={}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}
