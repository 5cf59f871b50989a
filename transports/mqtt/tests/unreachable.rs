//! What the client says of a server that it cannot reach.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test, a panic is the report"
)]

use core::time::Duration;

use futures_util::future::join_all;
use latchbus_mqtt::client::{Client, ConnectError, Link, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// The first error of a client of this address.
async fn error(host: &str, port: u16) -> ConnectError {
    let mut options = Options::new("lamp-1", host, port);
    options.connect_timeout = Duration::from_secs(1);
    let client = Client::connect(options);
    let mut link = client.link();
    let known = async {
        loop {
            if let Some(error) = client.error() {
                return error;
            }
            link.changed().await.unwrap();
        }
    };
    let error = timeout(Duration::from_secs(30), known).await.unwrap();
    assert_eq!(*client.link().borrow(), Link::Offline);
    error
}

/// A server that reads something, gives this answer to every connection and then waits or hangs up.
async fn answering(answer: &'static [u8], hangs_up: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 512];
                let _ = peer.read(&mut request).await;
                let _ = peer.write_all(answer).await;
                while !hangs_up && peer.read(&mut request).await.is_ok_and(|n| n > 0) {}
            });
        }
    });
    port
}

#[tokio::test]
async fn each_cause_is_told() {
    let refused = error("127.0.0.1", 1).await;
    assert_eq!(refused, ConnectError::ConnectionRefused);
    let unknown = error("no-such-host.invalid", 1883).await;
    assert!(
        matches!(unknown, ConnectError::NameNotFound(_)),
        "{unknown}"
    );
    for (code, expected) in [
        (1, ConnectError::ProtocolVersion),
        (2, ConnectError::ClientId),
        (3, ConnectError::Unavailable),
        (4, ConnectError::BadCredentials),
        (5, ConnectError::NotAuthorized),
    ] {
        let answer: &'static [u8] = Vec::leak(vec![0x20, 2, 0, code]);
        assert_eq!(
            error("127.0.0.1", answering(answer, false).await).await,
            expected
        );
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_mqtt_is_told() {
    let cases = [
        (&b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"[..], true, ConnectError::Http),
        (b"HTTP/1.0 400 Bad request\r\nCache-Control: no-cache\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n<html></html>", true, ConnectError::Http),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false, ConnectError::Http),
        (b"<!DOCTYPE HTML><html lang=\"en\"><head><title>Error response</title>", true, ConnectError::Http),
        // A fatal alert: unexpected message.
        (b"\x15\x03\x01\x00\x02\x02\x0a", true, ConnectError::Tls),
        (b"\x15\x03\x03\x00\x02\x02\x32", false, ConnectError::Tls),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", false, ConnectError::NotMqtt),
        (b"220 mail.example.com ESMTP\r\n", false, ConnectError::NotMqtt),
        // A PINGRESP.
        (b"\xd0\x00", false, ConnectError::NotMqtt),
        (b"", true, ConnectError::HungUp),
        (b"", false, ConnectError::TimedOut(Duration::from_secs(1))),
    ];
    join_all(cases.map(async |(answer, hangs_up, expected)| {
        let port = answering(answer, hangs_up).await;
        let error = error("127.0.0.1", port).await;
        assert_eq!(error, expected, "{}", answer.escape_ascii());
    }))
    .await;
}
