//! What a transport brings to the suite: a server in front of a bus, and a peer that can misbehave.

use core::{fmt::Debug, future::Future};

use bytes::Bytes;
use latchbus_bus::{Bus, Options};
use latchbus_core::hub::{Cursor, Mode};
use latchbus_core::wire::ErrorCode;

/// A way to reach a bus.
pub trait Transport: Sized + Send + Sync + 'static {
    /// Its other end.
    type Peer: Peer;

    /// What its protocol can express.
    const WORDS: Words;

    /// What the bus has to be opened with so that its peers may do everything that the promises ask of them.
    fn options(options: Options) -> Options {
        options
    }

    /// Serves a bus until it closes.
    fn serve(bus: Bus) -> impl Future<Output = Self> + Send;

    /// Connects a peer.
    fn connect(&self, connect: Connect<'_>) -> impl Future<Output = Self::Peer> + Send;

    /// Waits until every connection has ended, after the bus has begun to close.
    fn ended(self) -> impl Future<Output = ()> + Send;

    /// What becomes of a peer that sends something wrong.
    fn verdict(wrong: Wrong) -> Verdict;
}

/// How a peer connects.
#[derive(Debug, Clone, Copy)]
pub struct Connect<'a> {
    /// What it calls itself, where the protocol knows names.
    pub name: &'a str,
    /// It wants to go on with the session that it had under this name, where the protocol knows sessions.
    pub resume: bool,
    /// It has little room for what it does not read.
    pub narrow: bool,
    /// The user as whom it signs in, with [`PASSWORD`](crate::users::PASSWORD). None: it does not.
    pub user: Option<&'a str>,
}

impl<'a> Connect<'a> {
    /// A peer without a past.
    pub const fn named(name: &'a str) -> Self {
        Self {
            name,
            resume: false,
            narrow: false,
            user: None,
        }
    }

    /// The same, signed in.
    #[must_use]
    pub const fn by(self, user: Option<&'a str>) -> Self {
        Self { user, ..self }
    }
}

/// What a protocol can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// A snapshot ends with `synced`, and a cursor resumes.
    pub synced: bool,
    /// The number of missed events is told, and resets.
    pub gap: bool,
    /// Messages carry their revision.
    pub revisions: bool,
    /// Modes can be chosen. Without: each publish comes as long as the peer keeps up.
    pub modes: bool,
    /// Messages name their subscription.
    pub subscriptions: bool,
    /// The publisher is told of a refusal. Without: its connection ends, and nothing is acknowledged.
    pub refusals: bool,
}

impl Words {
    /// Everything.
    pub const ALL: Self = Self {
        synced: true,
        gap: true,
        revisions: true,
        modes: true,
        subscriptions: true,
        refusals: true,
    };
}

/// Something wrong that a peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A well-formed frame with a message that says nothing sensible.
    Message,
    /// Bytes that are no frame.
    Frame,
    /// A frame whose bytes are no text where text must be.
    Text,
    /// A frame that is longer than any the server reads.
    LongFrame,
}

impl Wrong {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Message, Self::Frame, Self::Text, Self::LongFrame];
}

/// What becomes of a peer that has sent something wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is told, and goes on.
    Told(ErrorCode),
    /// Its connection ends.
    Ended(End),
    /// It is told, and then its connection ends.
    ToldAndEnded(ErrorCode, End),
}

/// How a connection was ended by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer was told that the server stops.
    GoingAway,
    /// The peer was told what it did wrong, in the code of its protocol.
    Fault(u16),
    /// Without a word.
    Silent,
}

/// One connected peer. It reads only in [`recv`](Self::recv): a peer that does not call it is one that has
/// stopped reading.
pub trait Peer: Send + 'static {
    /// Asks for a subscription.
    fn subscribe(&mut self, subscribe: Subscribe<'_>) -> impl Future<Output = ()> + Send;

    /// Ends a subscription.
    fn unsubscribe(&mut self, id: u64) -> impl Future<Output = ()> + Send;

    /// Publishes; with an id it asks for the acknowledgement.
    fn publish(&mut self, publish: Publish<'_>) -> impl Future<Output = ()> + Send;

    /// Sends something wrong. The server may end the connection before all of it is sent.
    fn send_wrong(&mut self, wrong: Wrong) -> impl Future<Output = ()> + Send;

    /// What it is told next. After [`Incoming::Ended`] there is nothing more. Cancel-safe.
    fn recv(&mut self) -> impl Future<Output = Incoming> + Send;

    /// Goes as its protocol provides.
    fn leave(self) -> impl Future<Output = ()> + Send;

    /// Goes without a word, as when a cable is pulled.
    fn cut(self);
}

/// A subscription that a peer asks for.
#[derive(Debug, Clone, Copy)]
pub struct Subscribe<'a> {
    /// Below 65,536.
    pub id: u64,
    /// Which topics.
    pub filter: &'a str,
    /// How it catches up, where the protocol can say so.
    pub mode: Mode,
    /// Where it left, where the protocol can say so.
    pub since: Option<Cursor>,
}

impl<'a> Subscribe<'a> {
    /// A subscription from the beginning, in mode `latest`.
    pub const fn to(id: u64, filter: &'a str) -> Self {
        Self {
            id,
            filter,
            mode: Mode::Latest,
            since: None,
        }
    }
}

/// What a peer publishes.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// Asks for an acknowledgement; from 1, below 65,536.
    pub id: Option<u64>,
    /// Where to.
    pub topic: &'a str,
    /// Empty with `retain`: clears the topic.
    pub payload: &'a [u8],
    /// State or event.
    pub retain: bool,
    /// Sent before, and perhaps arrived.
    pub again: bool,
}

impl<'a> Publish<'a> {
    /// State, acknowledged.
    pub const fn state(id: u64, topic: &'a str, payload: &'a [u8]) -> Self {
        Self {
            id: Some(id),
            topic,
            payload,
            retain: true,
            again: false,
        }
    }

    /// An event, acknowledged.
    pub const fn event(id: u64, topic: &'a str, payload: &'a [u8]) -> Self {
        Self {
            retain: false,
            ..Self::state(id, topic, payload)
        }
    }
}

/// What a peer is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A message.
    Message(Message),
    /// A subscription was accepted; not every protocol says so.
    Subscribed(u64),
    /// A subscription has ended; not every protocol says so.
    Unsubscribed(u64),
    /// A snapshot is complete.
    Synced(u64, Cursor),
    /// A subscription has missed so many events.
    Gap(u64, u64),
    /// A subscription begins again.
    Reset(u64),
    /// A publish was accepted.
    Acked(u64),
    /// A request was refused.
    Refused(Option<u64>, ErrorCode),
    /// The connection has ended.
    Ended(End),
}

/// A message as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// For which subscription, if that is known.
    pub subscription: Option<u64>,
    /// Where it was published.
    pub topic: String,
    /// What was published; empty for a clear.
    pub payload: Bytes,
    /// The topic was cleared. MQTT says so by an empty payload.
    pub cleared: bool,
    /// Its revision, where the protocol tells.
    pub rev: Option<u64>,
    /// Whether it is part of a snapshot, where the protocol tells.
    pub retained: Option<bool>,
    /// The server has sent it before, and does not know whether it arrived.
    pub again: bool,
}
