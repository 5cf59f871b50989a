#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use core::time::Duration;

use latchbus_bus::memory::{self, Cut, MemoryPeer};
use latchbus_bus::{
    Bus, Delivery, Ended, Event, Options, Principal, Publish, Request, Session, SessionLimits,
    StoreKind, Subscribe,
};
use latchbus_core::hub::{Limits, Mode, Start};
use latchbus_core::topic::{TopicFilter, TopicName};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

#[path = "../../../../tests/deadline.rs"]
mod deadline;
pub use deadline::DEADLINE;

/// Small enough to be reached.
pub const LIMITS: Limits = Limits {
    places: 1_000,
    tombstones: 8,
    recent: 32,
    recent_bytes: 64 << 10,
    subscriptions: 16,
    topic_bytes: 128,
    payload_bytes: 1_024,
};

pub fn open() -> Bus {
    Bus::open(Options {
        limits: LIMITS,
        // A report is longer than so small a ring.
        sys_every: None,
        ..Options::default()
    })
    .unwrap()
}

pub fn open_in(directory: &std::path::Path) -> Bus {
    Bus::open(Options {
        limits: LIMITS,
        // A report is longer than so small a ring.
        sys_every: None,
        store: StoreKind::Directory(directory.to_owned()),
        ..Options::default()
    })
    .unwrap()
}

pub fn open_with(session: SessionLimits) -> Bus {
    Bus::open(Options {
        limits: LIMITS,
        // A report is longer than so small a ring.
        sys_every: None,
        session,
        ..Options::default()
    })
    .unwrap()
}

pub fn name(topic: &str) -> TopicName<String> {
    TopicName::parse(topic.to_owned()).unwrap()
}

pub fn state(topic: &str, payload: impl Into<String>) -> Publish {
    Publish::state(name(topic), payload.into())
}

pub fn event(topic: &str, payload: impl Into<String>) -> Publish {
    Publish::event(name(topic), payload.into())
}

pub fn filter(filter: &str) -> TopicFilter<String> {
    TopicFilter::parse(filter.to_owned()).unwrap()
}

pub fn last(bus: &Bus, topic: &str) -> Option<String> {
    let delivery = bus.last(TopicName::parse(topic).unwrap())?;
    Some(text(&delivery))
}

pub fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.payload.bytes().to_vec()).unwrap()
}

pub fn subscribe(id: u64, topics: &str, mode: Mode) -> Request {
    paced(id, topics, mode, None)
}

pub fn paced(id: u64, topics: &str, mode: Mode, pace: Option<Duration>) -> Request {
    let subscriptions = vec![Subscribe {
        id,
        filter: filter(topics),
        mode,
        start: Start::Snapshot,
        pace,
        group: None,
        durable: false,
        waits: false,
    }];
    Request::Subscribe { id, subscriptions }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap()
}

pub async fn recv(peer: &mut MemoryPeer) -> Event {
    within(peer.events.recv()).await.unwrap()
}

/// The next message's payload; confirmations are passed over.
pub async fn message(peer: &mut MemoryPeer) -> Delivery {
    loop {
        match recv(peer).await {
            Event::Message { delivery, .. } => return delivery,
            Event::Subscribed { .. } | Event::Synced { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

pub fn session(bus: &Bus) -> Session {
    Session::new(bus.client(Principal::process()).unwrap())
}

type Run = JoinHandle<(Session, Ended<Cut, Cut>)>;

/// Runs a session over a new link until one side ends it, and gives it back.
pub fn run(mut session: Session, capacity: usize, stop: CancellationToken) -> (MemoryPeer, Run) {
    let (mut link, peer) = memory::link(capacity);
    let run = tokio::spawn(async move {
        let ended = session
            .run(link.receiver, &mut link.sender, stop.cancelled_owned())
            .await;
        (session, ended)
    });
    (peer, run)
}

pub fn connect(bus: &Bus) -> MemoryPeer {
    run(session(bus), 16, CancellationToken::new()).0
}
