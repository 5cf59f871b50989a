//! What the device says of a server that it cannot reach.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test, a panic is the report"
)]

mod support;

use support::{Kiosk, NOWHERE, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What the device says on its way, and at its end.
async fn says(url: &str) -> (Vec<String>, String) {
    let kiosk = Kiosk::new("k1", url);
    let output = run(kiosk.program(&["--timeout", "1s"]), "red\n").await;
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
    let unauthorized = answering(b"\x20\x02\x00\x05").await;
    for (url, reason) in [
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
        ("ws://127.0.0.1:1/ws".to_owned(), "refused"),
        (format!("ws://{http}/ws"), "400"),
    ] {
        let (lines, last) = says(&url).await;
        let said = lines.iter().filter(|line| line.contains("cannot connect"));
        let said: Vec<_> = said.collect();
        assert_eq!(said.len(), 1, "{url}: {lines:#?}");
        assert!(said[0].contains(reason), "{url}: {}", said[0]);
        assert!(
            last.contains("no connection") && last.contains(reason),
            "{url}: {last}"
        );
    }
}
