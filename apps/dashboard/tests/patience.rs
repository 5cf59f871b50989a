//! Clients that never get on are left behind.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    reason = "the lints spare tests, and this is a part of them"
)]

#[path = "../../../tests/deadline.rs"]
mod deadline;

use core::future::Future;
use core::net::SocketAddr;
use core::time::Duration;

use deadline::DEADLINE;
use latchbus::http::{Config, Http};
use latchbus_bus::{Bus, Options, Publish};
use latchbus_core::topic::TopicName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(3600);

/// All of whose patience is without end.
fn patient() -> Config {
    Config {
        head_timeout: LONG,
        body_timeout: LONG,
        stall_timeout: LONG,
        ..Config::default()
    }
}

async fn serve(config: Config) -> (Bus, SocketAddr, JoinHandle<()>) {
    let bus = Bus::open(Options::default()).unwrap();
    let mqtt = latchbus_mqtt::server::Config::default();
    let mqtt = latchbus_mqtt::server::Server::new(bus.clone(), mqtt);
    let http = Http::new(bus.clone(), mqtt, config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (bus, address, tokio::spawn(http.serve(listener)))
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap()
}

/// What the server says after `text`, to the end of the connection.
async fn answer(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has ended as well.
    let _reset = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn who_sends_no_head() {
    let config = Config {
        head_timeout: SHORT,
        ..patient()
    };
    let (_bus, address, _server) = serve(config).await;
    answer(address, "").await;
    answer(address, "GET /healthz HTTP/1.1\r\nHost: ").await;
    let kept_open = answer(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(kept_open.starts_with("HTTP/1.1 200 OK"), "{kept_open}");
}

#[tokio::test]
async fn who_sends_no_body() {
    let config = Config {
        body_timeout: SHORT,
        head_timeout: SHORT,
        ..patient()
    };
    let (_bus, address, _server) = serve(config).await;
    let head = "PUT /api/v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n12";
    let late = answer(address, head).await;
    assert!(late.starts_with("HTTP/1.1 408"), "{late}");
}

#[tokio::test]
async fn who_reads_no_answer() {
    let config = Config {
        stall_timeout: SHORT,
        ..patient()
    };
    let (bus, address, server) = serve(config).await;
    // More than the buffers of both sockets hold.
    for n in 0..500 {
        let topic = TopicName::parse(format!("t/{n}")).unwrap();
        bus.publish(Publish::state(topic, vec![b'x'; 60_000]))
            .await
            .unwrap();
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"GET /api/v1/topics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(head).await.unwrap();
    // The connection is gone when its task is: nothing else is left to wait for at the end.
    let gone = async {
        loop {
            let metrics = answer(address, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
            if metrics.contains("latchbus_http_connections 1\n") {
                break;
            }
        }
    };
    soon(gone).await;
    bus.close().await;
    soon(server).await.unwrap();
}

#[tokio::test]
async fn one_connection_too_many() {
    let config = Config {
        max_connections: 1,
        ..patient()
    };
    let (_bus, address, _server) = serve(config).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    first.write_all(request.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    soon(first.read_exact(&mut begun)).await.unwrap();
    assert_eq!(answer(address, request).await, "");
    // The first is served on.
    first.write_all(request.as_bytes()).await.unwrap();
    soon(first.read_exact(&mut begun)).await.unwrap();
    drop(first);
    let request = "GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n";
    soon(async { while answer(address, request).await.is_empty() {} }).await;
}

#[tokio::test]
async fn who_is_half_through_when_the_bus_closes() {
    let (bus, address, server) = serve(patient()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "PUT /api/v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    soon(stream.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    bus.close().await;
    let mut answer = [0; 12];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    soon(server).await.unwrap();
}
