//! What the device says of a server that it cannot reach.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test, a panic is the report"
)]

#[path = "../../../tests/doorman.rs"]
mod doorman;
mod support;

use doorman::Doorman;
use futures_util::future::join_all;
use support::{Kiosk, NOWHERE, Server, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What the device says on its way, and at its end.
async fn says(url: &str) -> (Vec<String>, String) {
    let kiosk = Kiosk::new("k1", url);
    let output = run(kiosk.program(&["--timeout", "3s"]), "red\n").await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let last = lines.pop().unwrap();
    (lines, last)
}

async fn answering(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let _ = peer.read(&mut request).await;
            let _ = peer.write_all(answer).await;
        }
    });
    address.to_string()
}

#[tokio::test]
async fn the_reason_is_said_once_on_the_way_and_at_the_end() {
    let http = answering(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
    let closed = answering(b"").await;
    let page = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let elsewhere = answering(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let refused = answering(
        b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 32\r\n\r\n\
          the Host is not in allow_hosts.\n",
    )
    .await;
    let full = answering(
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 8\r\n\r\ntoo many",
    )
    .await;
    // What OpenSSL says to bytes that are no TLS, and nginx.
    let tls = answering(b"\x15\x03\x01\x00\x02\x02\x46").await;
    let https = answering(
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/html\r\ncontent-length: 61\r\n\r\n\
          <title>400 The plain HTTP request was sent to HTTPS port</title>",
    )
    .await;
    let other = answering(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
          sec-websocket-accept: nothing\r\n\r\n",
    )
    .await;
    let server = Server::start().await;
    let (mqtt, ws) = (server.mqtt_url(), server.ws_url());
    let unauthorized = answering(b"\x20\x02\x00\x05").await;
    let unavailable = answering(b"\x20\x02\x00\x03").await;
    let cases = [
        (NOWHERE.to_owned(), "nothing listens on that port"),
        (
            "mqtt://no-such-host.invalid".to_owned(),
            "the host name cannot be found",
        ),
        (format!("mqtt://{http}"), "HTTP server"),
        (
            format!("mqtt://{closed}"),
            "closed the connection without an answer",
        ),
        (format!("mqtt://{unauthorized}"), "not authorized"),
        // The answer to right and wrong passwords alike, while the server delays sign-ins.
        (
            format!("mqtt://{unavailable}"),
            "delays sign-ins after wrong passwords",
        ),
        (
            "ws://127.0.0.1:1/ws".to_owned(),
            "nothing listens on that port",
        ),
        (
            "ws://no-such-host.invalid/ws".to_owned(),
            "the host name cannot be found",
        ),
        (
            format!("ws://{closed}/ws"),
            "closed the connection without an answer",
        ),
        (format!("ws://{http}/ws"), "does not open a WebSocket (400)"),
        (format!("ws://{page}/"), "an HTTP server and no WebSocket"),
        (format!("ws://{elsewhere}/ws"), "no WebSocket at this path"),
        (
            format!("ws://{unauthorized}/ws"),
            "an MQTT server, not HTTP",
        ),
        (format!("ws://{tls}/ws"), "wants TLS"),
        (format!("ws://{https}/ws"), "wants TLS"),
        (
            format!("ws://{refused}/ws"),
            "refuses this client (403): the Host is not in allow_hosts",
        ),
        (format!("ws://{full}/ws"), "no room (503): too many"),
        (format!("ws://{other}/ws"), "no Latchbus server"),
        // A server of our own, at its other port, at another path, and by a name of its address that is no address to it.
        (mqtt.replace("mqtt:", "ws:"), "an MQTT server, not HTTP"),
        (ws.replace("/ws", "/nowhere"), "no WebSocket at this path"),
        (
            ws.replace("127.0.0.1", "127.1"),
            "refuses this client (403): the Host",
        ),
        (format!("mqtt://{tls}"), "wants TLS"),
        (ws.replace("ws:", "mqtt:").replace("/ws", ""), "HTTP server"),
    ];
    let said = join_all(cases.iter().map(|(url, _)| says(url))).await;
    for ((url, reason), (lines, last)) in cases.iter().zip(said) {
        let said = lines.iter().filter(|line| line.contains("cannot connect"));
        let said: Vec<_> = said.collect();
        assert_eq!(said.len(), 1, "{url}: {lines:#?}");
        assert!(said[0].contains(reason), "{url}: {}", said[0]);
        assert!(
            last.contains("no connection") && last.contains(reason),
            "{url}: {last}"
        );
    }
    server.stop().await;

    // What accepts and never answers, before the attempt is given up.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    for url in [format!("mqtt://{address}"), format!("ws://{address}/ws")] {
        let (_, last) = says(&url).await;
        assert!(last.contains("no answer so far"), "{url}: {last}");
    }
}

/// A server lets a WebSocket in that has still to sign in, and refuses all that it asks for.
#[tokio::test]
async fn who_has_to_sign_in_is_told_so_and_tries_on() {
    let server = Server::start_of(Doorman::new().options()).await;
    let (lines, last) = says(&server.ws_url()).await;
    let reason = "the server says: not authorized: signing in is required";
    let [line] = &*lines else {
        panic!("{lines:#?}")
    };
    assert!(
        line.contains("cannot connect, trying on") && line.contains(reason),
        "{line}"
    );
    assert!(
        last.contains("no connection") && last.contains(reason),
        "{last}"
    );
    server.stop().await;
}
