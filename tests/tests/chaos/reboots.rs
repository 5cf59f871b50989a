//! A device that boots again and again, each time under a new incarnation, through the real server and its store:
//! it costs a bounded number of topics and bytes, and no click.

use std::path::Path;

use latchbus_core::clicks::{Counter, FOLD_WINDOW_BOOTS};
use latchbus_tests::bench::recv;
use latchbus_tests::http;
use latchbus_tests::program::Server;
use latchbus_tests::transport::{Connect, Incoming, Peer, Publish};
use latchbus_tests::transports::MqttPeer;

const REBOOTS: u64 = 10_000;

/// Cleared topics that the hub remembers, for all devices together: reached within the first of the reboots.
const TOMBSTONES: u64 = 500;
const FIRST: u64 = 1_000;

/// Reports that are on their way.
const IN_FLIGHT: u64 = 50;

/// Boots `from` to `to`, with a click of each colour each time.
async fn boot(kiosk: &mut MqttPeer<4>, from: u64, to: u64) {
    let mut acknowledged = from;
    for boot in from..to {
        let topic = format!("clicks/main/kiosk-1/count/{boot}-{boot:08x}");
        let count = Publish::state(boot, &topic, br#"{"red":1,"blue":1}"#);
        kiosk.publish(count).await;
        while boot - acknowledged >= IN_FLIGHT {
            assert_eq!(recv(kiosk).await, Incoming::Acked(acknowledged));
            acknowledged += 1;
        }
    }
    while acknowledged < to {
        assert_eq!(recv(kiosk).await, Incoming::Acked(acknowledged));
        acknowledged += 1;
    }
}

/// A log of so many bytes is folded into the database. Its file stays as it is.
const LOG_BYTES: u64 = 8 << 20;

fn bytes(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

#[tokio::test]
async fn ten_thousand_reboots_cost_a_bounded_number_of_topics_and_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (config, data) = (
        directory.path().join("latchbus.toml"),
        directory.path().join("data"),
    );
    std::fs::write(&config, format!("[limits]\ntombstones = {TOMBSTONES}\n")).unwrap();
    let [config, data_dir] = [&config, &data].map(|path| path.to_str().unwrap());
    let arguments = ["--config", config, "--data-dir", data_dir];
    let server = Server::start(&arguments).await;
    let mut kiosk = MqttPeer::<4>::open(server.mqtt, Connect::named("kiosk-1")).await;
    boot(&mut kiosk, 1, FIRST).await;
    assert_eq!(server.stop().await.code(), Some(0));
    // Where an orderly stop has folded the log in.
    let begun = bytes(&data);
    let server = Server::start(&arguments).await;
    let mut kiosk = MqttPeer::<4>::open(server.mqtt, Connect::named("kiosk-1")).await;
    boot(&mut kiosk, FIRST, REBOOTS + 1).await;

    let topics = http::kept(server.http, "clicks/main/kiosk-1/#")
        .await
        .unwrap();
    // The counts above the floor, and the floor.
    assert_eq!(topics.len(), FOLD_WINDOW_BOOTS as usize + 1, "{topics:?}");
    let values = http::last(server.http, "clicks/main/values").await.unwrap();
    assert_eq!(
        Counter::parse(values.as_bytes()),
        Ok(Counter::new(REBOOTS, REBOOTS))
    );
    server.kill().await;

    let server = Server::start(&arguments).await;
    let values = http::last(server.http, "clicks/main/values").await.unwrap();
    assert_eq!(
        Counter::parse(values.as_bytes()),
        Ok(Counter::new(REBOOTS, REBOOTS))
    );
    let again = http::kept(server.http, "clicks/main/kiosk-1/#")
        .await
        .unwrap();
    assert_eq!(again.len(), topics.len());
    assert_eq!(server.stop().await.code(), Some(0));
    let grown = bytes(&data);
    eprintln!(
        "{} topics, {begun} bytes after {FIRST} reboots, {grown} after {REBOOTS}",
        topics.len()
    );
    // A database grows by doubling, and no more often than once for the same content; the log stays below 8 MiB.
    assert!(
        grown <= 2 * begun + LOG_BYTES,
        "{begun} bytes, then {grown}"
    );
}
