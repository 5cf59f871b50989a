//! An MQTT server with a hub in memory: `cargo run -p latchbus-mqtt --example serve [ADDRESS]`.

use latchbus_bus::{Bus, Options};
use latchbus_mqtt::server::{Config, Server};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn core::error::Error>> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    println!("mqtt={}", listener.local_addr()?);
    let bus = Bus::open(Options::default())?;
    let server = Server::new(bus.clone(), Config::default());
    let serving = tokio::spawn(async move { server.serve(listener).await });
    tokio::signal::ctrl_c().await?;
    bus.close().await;
    Ok(serving.await?)
}
