//! A server that is killed while many connections publish counts at QoS 1 as fast as they are acknowledged: each
//! acknowledged count is there after the restart, and nobody was shown a value that is not.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;

use fastrand::Rng;
use latchbus_core::clicks::Counter;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::deadline::within;
use crate::http;
use crate::program::Server;
use crate::transport::{Connect, Incoming, Peer, Publish, Subscribe};
use crate::transports::{Json, MqttPeer, WebSocketPeer};

const VALUES: &str = "clicks/main/values";

/// Bounds that nobody reaches, so that what each address holds is counted and stored.
const LIMITS: &str = "[limits]\nuser_retained_topics = 1000000\nuser_retained_bytes = 1000000000\n";

/// When the kill comes, after every connection is open.
const KILLED_AFTER_MS: core::ops::Range<u64> = 50..800;

/// What a run of kills has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Servers killed.
    pub kills: u64,
    /// Connections that published at each.
    pub clients: u64,
    /// Counts that were acknowledged before a kill.
    pub acknowledged: u64,
    /// Counts that were sent, not acknowledged, and found after the restart.
    pub more: u64,
    /// Values that two observers were shown.
    pub shown: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills with {} clients each, {} counts acknowledged, {} more found, {} values shown; \
             0 acknowledged lost, 0 shown ahead of the disk",
            self.kills, self.clients, self.acknowledged, self.more, self.shown
        )
    }
}

/// One client's counter: what it has sent, and what was acknowledged.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    sent: u64,
    acknowledged: u64,
}

/// Kills a server so many times. `progress` is told after each.
///
/// # Panics
/// When an acknowledged count is missing, a count was never sent, or a value was shown that is not there after
/// the restart.
pub async fn run(
    kills: u64,
    clients: u64,
    seed: u64,
    mut progress: impl FnMut(&Outcome),
) -> Outcome {
    let mut random = Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let (config, data) = (
        directory.path().join("config.toml"),
        directory.path().join("data"),
    );
    fs::write(&config, LIMITS).unwrap();
    let arguments = [
        "--config",
        config.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let mut server = Server::start(&arguments).await;
    let (http, mqtt) = (server.http, server.mqtt);
    let mut told = vec![Told::default(); usize::try_from(clients).unwrap()];
    let mut outcome = Outcome {
        clients,
        ..Outcome::default()
    };
    for _ in 0..kills {
        let before: u64 = told.iter().map(|told| told.acknowledged).sum();
        let mut publishers = JoinSet::new();
        for (n, told) in told.iter().copied().enumerate() {
            let peer = MqttPeer::<4>::open(mqtt, Connect::named(&format!("client-{n}"))).await;
            publishers.spawn(publish(n, peer, told));
        }
        let mut observers = JoinSet::new();
        observers.spawn(observe(WebSocketPeer::<Json>::open(http, false).await));
        let observer = MqttPeer::<5>::open(mqtt, Connect::named("observer")).await;
        observers.spawn(observe(observer));
        sleep(Duration::from_millis(random.u64(KILLED_AFTER_MS))).await;
        server.kill().await;
        while let Some(ended) = within("the connections end", publishers.join_next()).await {
            let (n, client) = ended.unwrap();
            told[n] = client;
        }
        server = Server::start_on(http, mqtt, &arguments).await;

        let found = counts(http).await;
        let mut sum = 0;
        for (n, told) in told.iter_mut().enumerate() {
            let count = found.get(&topic(n)).map_or(0, |counter| counter.total());
            assert!(count >= told.acknowledged, "{n}: {told:?}, found {count}");
            assert!(count <= told.sent, "{n}: {told:?}, found {count}");
            outcome.more += count - told.acknowledged;
            // Whatever is on disk is as good as acknowledged from now on.
            *told = Told {
                sent: count,
                acknowledged: count,
            };
            sum += count;
        }
        let values = http::last(http, VALUES).await.unwrap();
        let value = Counter::parse(values.as_bytes()).unwrap();
        assert_eq!(
            value.total(),
            sum,
            "the room's value is the sum of its counts"
        );
        while let Some(ended) = within("the observers end", observers.join_next()).await {
            let (seen, shown) = ended.unwrap();
            assert_eq!(
                value.join(seen),
                value,
                "{seen} was shown, {value} is on disk"
            );
            outcome.shown += shown;
        }
        outcome.kills += 1;
        outcome.acknowledged = sum - outcome.more;
        assert!(sum >= before);
        progress(&outcome);
    }
    let status = within("the server stops", server.stop()).await;
    assert_eq!(status.code(), Some(0));
    outcome
}

/// Publishes one count after the other, until the connection ends.
async fn publish(n: usize, mut peer: MqttPeer<4>, mut told: Told) -> (usize, Told) {
    let topic = topic(n);
    loop {
        told.sent += 1;
        let count = Counter::new(told.sent, 0).to_string();
        let id = told.sent % 65_535 + 1;
        peer.publish(Publish::state(id, &topic, count.as_bytes()))
            .await;
        match within("an acknowledgement or the end", peer.recv()).await {
            Incoming::Acked(acked) => assert_eq!(acked, id),
            Incoming::Ended(_) => return (n, told),
            other => panic!("{other:?}"),
        }
        told.acknowledged = told.sent;
    }
}

/// The last value that is shown before the connection ends, and how many were.
async fn observe(mut peer: impl Peer) -> (Counter, u64) {
    peer.subscribe(Subscribe::to(1, VALUES)).await;
    let (mut last, mut shown) = (Counter::ZERO, 0);
    loop {
        match peer.recv().await {
            Incoming::Message(message) => {
                last = Counter::parse(&message.payload).unwrap();
                shown += 1;
            }
            Incoming::Ended(_) => return (last, shown),
            _ => {}
        }
    }
}

fn topic(n: usize) -> String {
    format!("clicks/main/client-{n}/count/1-{n:08x}")
}

/// Every count that the server keeps.
async fn counts(http: SocketAddr) -> BTreeMap<String, Counter> {
    let kept = http::kept(http, "clicks/main/+/count/+").await.unwrap();
    let counter = |payload: &str| Counter::parse(payload.as_bytes()).unwrap();
    let counts = kept
        .iter()
        .map(|(topic, payload)| (topic.clone(), counter(payload)));
    counts.collect()
}
