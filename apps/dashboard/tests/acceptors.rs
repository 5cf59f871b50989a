//! Both servers take their connections from any acceptor, with or without addresses.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use latchbus::http;
use latchbus_bus::Bus;
use latchbus_bus::accept::{self, Acceptor};
use latchbus_mqtt::server as mqtt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;

#[path = "../../../tests/deadline.rs"]
mod deadline;
use deadline::DEADLINE;

fn serve(
    bus: &Bus,
    http_from: impl Acceptor,
    mqtt_from: impl Acceptor,
) -> (JoinHandle<()>, JoinHandle<()>) {
    let mqtt = mqtt::Server::new(bus.clone(), mqtt::Config::default());
    let http = http::Http::new(bus.clone(), mqtt.clone(), http::Config::default());
    (
        tokio::spawn(http.serve(http_from)),
        tokio::spawn(async move { mqtt.serve(mqtt_from).await }),
    )
}

async fn put(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let request = "PUT /api/v1/topics/lab/temp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nConnection: close\r\n\r\n21.5";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Gets the value that was put.
async fn subscribe(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let connect = [16, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'a'];
    stream.write_all(&connect).await.unwrap();
    let subscribe = [&[0x82, 13, 0, 1, 0, 8][..], b"lab/temp", &[0]];
    stream.write_all(&subscribe.concat()).await.unwrap();
    let publish = [&[0x31, 14, 0, 8][..], b"lab/temp21.5"];
    let expected = [&[32, 2, 0, 0, 0x90, 3, 0, 1, 0][..], &publish.concat()].concat();
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, expected);
}

async fn ends(bus: Bus, servers: (JoinHandle<()>, JoinHandle<()>)) {
    bus.close().await;
    servers.0.await.unwrap();
    servers.1.await.unwrap();
}

#[tokio::test]
async fn connections_in_memory() {
    let whole = async {
        let bus = Bus::builder().open().unwrap();
        let (http_from, http) = accept::memory(4_096);
        let (mqtt_from, mqtt) = accept::memory(4_096);
        let servers = serve(&bus, http_from, mqtt_from);
        put(http.connect().await.unwrap()).await;
        subscribe(mqtt.connect().await.unwrap()).await;
        ends(bus, servers).await;
        let refused = http.connect().await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    };
    timeout(DEADLINE, whole).await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn connections_of_a_unix_socket() {
    use tokio::net::{UnixListener, UnixStream};

    let whole = async {
        let directory = tempfile::tempdir().unwrap();
        let [http, mqtt] = ["http", "mqtt"].map(|name| directory.path().join(name));
        let bus = Bus::builder().open().unwrap();
        let servers = serve(
            &bus,
            UnixListener::bind(&http).unwrap(),
            UnixListener::bind(&mqtt).unwrap(),
        );
        put(UnixStream::connect(&http).await.unwrap()).await;
        subscribe(UnixStream::connect(&mqtt).await.unwrap()).await;
        ends(bus, servers).await;
    };
    timeout(DEADLINE, whole).await.unwrap();
}
