//! `latchbus-device` over TLS, and what it signs in with.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Stdio;

use latchbus_tests::program::{Server, built, device};
use latchbus_tests::within;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;

async fn make(directory: &Path, arguments: &[&str]) {
    let mut command = Command::new(built("latchbus"));
    command.arg("cert").arg(directory).args(arguments);
    let made = within("the certificate", command.output()).await.unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// A device with three clicks to tell.
fn clicking(id: &str, url: &str, directory: &Path) -> Command {
    let mut device = device(id, url, &directory.join(format!("{id}.json")));
    device.args(["--simulate", "1000", "--count", "3", "--seed", "1"]);
    device.stderr(Stdio::piped());
    device
}

#[tokio::test]
async fn devices_count_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = directory.path().join("tls");
    make(&certificates, &["localhost", "127.0.0.1"]).await;
    make(&certificates, &["--client", "k1"]).await;
    let stranger = directory.path().join("stranger");
    make(&stranger, &["127.0.0.1"]).await;
    let file = |name: &str| certificates.join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
    let tls = ["--http-tls", "127.0.0.1:0", "--mqtt-tls", "127.0.0.1:0"];
    let files = [
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
    ];
    let server = Server::start(&[&["--ephemeral"], &tls[..], &files[..]].concat()).await;
    let (https, mqtts) = server.tls.unwrap();
    let (shown, shown_key) = (file("client-k1.pem"), file("client-k1.key"));
    let shows = ["--cert", &shown, "--key", &shown_key];
    let other_ca = stranger.join("ca.pem");
    let other_ca = other_ca.to_str().unwrap();
    for (number, (scheme, to)) in [
        ("mqtts", format!("127.0.0.1:{}", mqtts.port())),
        ("mqtts", format!("localhost:{}", mqtts.port())),
        ("wss", format!("127.0.0.1:{}/ws", https.port())),
        ("wss", format!("localhost:{}/ws", https.port())),
    ]
    .into_iter()
    .enumerate()
    {
        let url = format!("{scheme}://{to}");
        let id = format!("k{number}");
        // Wrong first: clicks wait in the state file, and the right start sends them.
        let wrong = [
            (vec!["--ca", other_ca], "not trusted"),
            (vec!["--ca", &ca], "certificate"),
        ];
        // Each takes its second, so once for each scheme.
        for (arguments, words) in wrong.into_iter().filter(|_| number % 2 == 0) {
            let mut device = clicking(&id, &url, directory.path());
            device.args(arguments).args(["--timeout", "1s"]);
            let ended = within("the device ends", device.output()).await.unwrap();
            let said = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(1), "{said}");
            assert!(said.contains(words), "{url}: {said}");
        }
        let mut device = clicking(&id, &url, directory.path());
        device.args(["--ca", &ca]).args(shows);
        let ended = within("the device ends", device.output()).await.unwrap();
        assert_eq!(ended.status.code(), Some(0), "{url}: {ended:?}");
    }
    // The plain port is named as what it is.
    let url = format!("mqtts://{}", server.mqtt);
    let mut device = clicking("plain", &url, directory.path());
    device.args(["--ca", &ca, "--timeout", "1s"]);
    let ended = within("the device ends", device.output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(server.stop().await.code(), Some(0));
}

/// What a device sends first.
async fn first_bytes(scheme: &str, path: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://{}{path}", listener.local_addr().unwrap());
    let mut device = clicking("k1", &url, directory.path());
    device
        .args(["--user", "anna"])
        .env("LATCHBUS_PASSWORD", "sesame");
    let _device = device.kill_on_drop(true).spawn().unwrap();
    let (mut stream, _) = within("a connection", listener.accept()).await.unwrap();
    let mut bytes = vec![0; 4_096];
    let n = within("bytes", stream.read(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

#[tokio::test]
async fn devices_sign_in_with_a_user_and_a_password() {
    // User name and password are the last fields of a CONNECT (MQTT 3.1.1 §3.1.3).
    let connect = first_bytes("mqtt", "").await;
    assert!(connect.ends_with("\0\u{4}anna\0\u{6}sesame"), "{connect:?}");
    let request = first_bytes("ws", "/ws").await.to_lowercase();
    assert!(
        request.contains("authorization: basic yw5uytpzzxnhbwu=\r\n"),
        "{request}"
    );
}
