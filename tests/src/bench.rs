//! A bus behind a transport, for the length of one test.

use latchbus_bus::{Bus, Options, Publish};
use latchbus_core::hub::{Cursor, Limits, Mode};
use latchbus_core::topic::TopicName;

use crate::deadline::{until, within};
use crate::transport::{Connect, Incoming, Message, Peer, Subscribe, Transport};

/// A bus and the transport in front of it.
#[derive(Debug)]
pub struct Bench<T> {
    /// The bus, for what happens on the other side of it.
    pub bus: Bus,
    transport: T,
}

/// Bounds that a test can reach: a recent ring of 256 publishes, 16 tombstones.
pub const LIMITS: Limits = Limits {
    places: 20_000,
    tombstones: 16,
    recent: 256,
    recent_bytes: 1 << 20,
    subscriptions: 64,
    topic_bytes: 256,
    payload_bytes: 4 << 10,
};

/// What a subscription brings up to where it is live.
#[derive(Debug)]
pub struct Snapshot {
    /// In the order in which they came.
    pub messages: Vec<Message>,
    /// What to name to resume, where the protocol tells.
    pub cursor: Option<Cursor>,
    /// How often it began again.
    pub resets: usize,
    /// How many events it missed.
    pub missed: u64,
}

impl<T: Transport> Bench<T> {
    /// A bus in memory with [`LIMITS`].
    pub async fn new() -> Self {
        let options = Options {
            limits: LIMITS,
            ..Options::default()
        };
        Self::with(options).await
    }

    /// A bus of these options.
    pub async fn with(options: Options) -> Self {
        let bus = Bus::open(T::options(options)).unwrap();
        let transport = T::serve(bus.clone()).await;
        Self { bus, transport }
    }

    /// A peer without a past.
    pub async fn peer(&self, name: &str) -> T::Peer {
        self.connect(Connect::named(name)).await
    }

    /// A peer.
    pub async fn connect(&self, connect: Connect<'_>) -> T::Peer {
        within("connect", self.transport.connect(connect)).await
    }

    /// Publishes state from inside the process.
    pub async fn state(&self, topic: &str, payload: impl Into<bytes::Bytes>) -> u64 {
        let publish = Publish::state(topic_name(topic), payload);
        self.bus.publish(publish).await.unwrap().rev
    }

    /// Publishes an event from inside the process.
    pub async fn event(&self, topic: &str, payload: impl Into<bytes::Bytes>) -> u64 {
        let publish = Publish::event(topic_name(topic), payload);
        self.bus.publish(publish).await.unwrap().rev
    }

    /// Clears a topic from inside the process.
    pub async fn clear(&self, topic: &str) -> u64 {
        self.state(topic, "").await
    }

    /// The value that a topic keeps, as text.
    pub fn last(&self, topic: &str) -> Option<String> {
        let topic = TopicName::parse(topic).unwrap();
        let last = self.bus.last(topic)?;
        Some(String::from_utf8_lossy(last.payload.bytes()).into_owned())
    }

    /// Subscribes and takes what comes up to `synced`. A protocol without it is sent the event `marker`,
    /// which the filter must match and which is the first live message.
    pub async fn snapshot(
        &self,
        peer: &mut T::Peer,
        subscribe: Subscribe<'_>,
        marker: &str,
    ) -> Snapshot {
        peer.subscribe(subscribe).await;
        if !T::WORDS.synced {
            wait(peer, Incoming::Subscribed(subscribe.id)).await;
        }
        self.caught_up(peer, subscribe.id, marker).await
    }

    /// Takes what comes up to the next `synced` or, where there is none, up to the event `marker`.
    pub async fn caught_up(&self, peer: &mut T::Peer, id: u64, marker: &str) -> Snapshot {
        // Not to be taken for an earlier marker that comes again.
        let own = fastrand::u64(..).to_string();
        if !T::WORDS.synced {
            self.event(marker, own.clone()).await;
        }
        let mut snapshot = Snapshot {
            messages: Vec::new(),
            cursor: None,
            resets: 0,
            missed: 0,
        };
        loop {
            match recv(peer).await {
                Incoming::Message(message) if message.topic == marker => {
                    if message.payload == own {
                        return snapshot;
                    }
                }
                Incoming::Message(message) => snapshot.messages.push(message),
                Incoming::Reset(_) => snapshot.resets += 1,
                Incoming::Gap(_, missed) => snapshot.missed += missed,
                Incoming::Synced(synced, cursor) if synced == id => {
                    snapshot.cursor = Some(cursor);
                    return snapshot;
                }
                Incoming::Subscribed(_) => {}
                other => panic!("within a snapshot: {other:?}"),
            }
        }
    }

    /// Waits until the server has noticed that every peer is gone.
    pub async fn nobody_connected(&self) {
        let open = || (self.bus.metrics().connections.get() == 0).then_some(());
        until("no connection is counted as open", open).await;
    }

    /// Closes the bus. Everything ends in time, and no connection stays.
    pub async fn close(self) {
        let Self { bus, transport } = self;
        within("the bus closes", bus.close()).await;
        within("connections end", transport.ended()).await;
        assert_eq!(bus.metrics().connections.get(), 0);
    }
}

/// A valid topic.
pub fn topic_name(topic: &str) -> TopicName<String> {
    TopicName::parse(topic.to_owned()).unwrap()
}

/// What a peer is told next, before the deadline.
pub async fn recv(peer: &mut impl Peer) -> Incoming {
    within("something is received", peer.recv()).await
}

/// The next message. Acknowledgements of subscriptions are passed over.
pub async fn message(peer: &mut impl Peer) -> Message {
    loop {
        match recv(peer).await {
            Incoming::Message(message) => return message,
            Incoming::Subscribed(_) | Incoming::Unsubscribed(_) | Incoming::Synced(..) => {}
            other => panic!("instead of a message: {other:?}"),
        }
    }
}

/// Takes messages up to the one with this topic and payload.
pub async fn messages_to(peer: &mut impl Peer, topic: &str, payload: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let message = message(peer).await;
        let last = message.topic == topic && message.payload == payload;
        messages.push(message);
        if last {
            return messages;
        }
    }
}

/// Waits for exactly this; messages and confirmations of subscriptions before it are passed over.
pub async fn wait(peer: &mut impl Peer, expected: Incoming) {
    loop {
        match recv(peer).await {
            incoming if incoming == expected => return,
            Incoming::Message(_) | Incoming::Subscribed(_) | Incoming::Synced(..) => {}
            other => panic!("instead of {expected:?}: {other:?}"),
        }
    }
}

/// Every mode that a transport can choose.
pub fn modes<T: Transport>() -> &'static [Mode] {
    match T::WORDS.modes {
        true => &[Mode::Latest, Mode::Every, Mode::State],
        false => &[Mode::Every],
    }
}
