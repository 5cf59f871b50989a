//! One client's namespaces and subscriptions: what it sends becomes requests to the bus, and what the bus answers becomes packets. A state
//! machine without I/O.

mod incoming;
mod outgoing;
mod place;
mod recovery;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use latchbus_bus::{Bus, Request, VecMap};
use latchbus_core::hub::Mode;
use latchbus_core::wire::ErrorCode;
use serde_json::value::RawValue;

use crate::config::{Config, Namespace};
use crate::ids::Ids;
use crate::packet::PacketError;
use crate::{engine, packet};

pub(crate) use outgoing::{Heads, PACKETS_A_MESSAGE};
pub(crate) use recovery::{Join, Records};

/// Takes the packets for the client.
pub(crate) trait Sink {
    /// The text of an Engine.IO message, in pieces.
    fn text(&mut self, pieces: &[&[u8]]);
    /// An Engine.IO message of bytes.
    fn bytes(&mut self, bytes: &Bytes);
}

/// What a packet of the client asks for.
#[derive(Debug)]
pub(crate) enum Taken {
    /// This, of the bus.
    Request(Request),
    /// A namespace, for which it signs in first.
    Join(Join),
    /// Nothing that others are to know of.
    Nothing,
    /// The end of the session.
    Close,
}

/// The client broke the protocol; its session has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Engine.IO.
    #[error(transparent)]
    Engine(#[from] engine::PacketError),
    /// Socket.IO.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// A packet that clients do not send, or not now.
    #[error("a packet that has no place here")]
    OutOfPlace,
    /// A packet for a namespace that the client has not joined.
    #[error("a packet for a namespace that was not joined")]
    NotJoined,
    /// An event whose attachments together are too long.
    #[error("attachments of more than {limit} bytes")]
    AttachmentsTooLarge {
        /// The bound.
        limit: usize,
    },
}

/// What all connections of a server share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) bus: Bus,
    pub(crate) config: Config,
    /// How the events of each namespace begin.
    pub(crate) heads: Vec<Heads>,
    pub(crate) ids: Ids,
    pub(crate) records: Records,
    pub(crate) max_message_bytes: usize,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Machine {
    common: Arc<Common>,
    /// The namespaces that it has joined, in no order.
    joined: Vec<Joined>,
    subscriptions: VecMap<Subscription>,
    /// What requests that are not answered yet were for, in their order. Bounded by the requests of a session that wait for
    /// their answers.
    pending: VecDeque<(u64, Pending)>,
    /// Requests of the machine's own making.
    own: VecDeque<Request>,
    /// The next id of a request, and of a subscription.
    next_id: u64,
    /// Events that came: names presses that have no id.
    events: u64,
    /// What presses without an id are named after. Nobody is told.
    name: String,
    /// An event whose attachments are not complete.
    partial: Option<Box<Partial>>,
    /// Whether it has ever joined a namespace.
    has_joined: bool,
}

/// A namespace that the client has joined.
#[derive(Debug)]
struct Joined {
    /// Which of the configuration.
    index: usize,
    /// Tells this time from others at which the client was here.
    turn: u64,
    /// By which the client can come back.
    pid: String,
    /// The newest revision of a subscription whose messages come in one order with the others.
    base: u64,
    /// Subscriptions that may stand elsewhere, and how many have completed their snapshots since they were looked through.
    elsewhere: Vec<u64>,
    completed: usize,
    /// How many subscriptions there are, and how many of them are outputs.
    subscriptions: usize,
    outputs: usize,
    /// The last offset that was given.
    offset: String,
}

/// A subscription of a namespace.
#[derive(Debug)]
struct Subscription {
    turn: u64,
    kind: SubscriptionKind,
    /// How offsets name it: for outputs their place in the table, for others a number behind those.
    name: u64,
    /// The newest revision that was sent, or that need not be.
    position: u64,
    synced: bool,
    paced: bool,
}

#[derive(Debug)]
enum SubscriptionKind {
    /// An output of the namespace: its place in the table.
    Output(usize),
    /// One that the client asked for.
    General(Box<General>),
}

/// A subscription that a client asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct General {
    filter: String,
    options: SubscribeOptions,
    /// The revision of the hub when it began: an offset from before says nothing of it.
    began: u64,
}

/// The options of `subscribe`.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(default)]
pub(crate) struct SubscribeOptions {
    mode: Option<Mode>,
    max_rate: Option<f64>,
    #[serde(skip_serializing)]
    since: Option<String>,
    /// Comes back with each message, as `id`.
    id: Option<u64>,
}

/// What the answer to a request is to become.
#[derive(Debug)]
enum Pending {
    /// An Engine.IO message, sent back.
    Message(Message),
    /// The client joins a namespace.
    Connect {
        turn: u64,
        /// What came with CONNECT, as JSON.
        auth: Box<str>,
    },
    /// It cannot.
    ConnectError {
        namespace: String,
        message: String,
        code: Option<ErrorCode>,
    },
    /// An event is sent back, or acknowledged with its arguments.
    Echo {
        text: String,
        attachments: Vec<Bytes>,
    },
    /// An acknowledgement, of which kind the answer says.
    Ack { turn: u64, ack: u64 },
    /// A subscription begins.
    Subscribe {
        turn: u64,
        ack: Option<u64>,
        key: u64,
    },
    /// Nobody waits for it.
    Nothing,
}

#[derive(Debug)]
enum Message {
    Text(String),
    Bytes(Bytes),
}

/// A packet whose attachments are not complete.
#[derive(Debug)]
struct Partial {
    namespace: String,
    /// None: the client acknowledges something.
    event: Option<PartialEvent>,
    missing: usize,
    bytes: usize,
    attachments: Vec<Bytes>,
}

#[derive(Debug)]
struct PartialEvent {
    ack: Option<u64>,
    json: String,
}

impl Machine {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        Self {
            name: common.ids.id(),
            common,
            joined: Vec::new(),
            subscriptions: VecMap::default(),
            pending: VecDeque::new(),
            own: VecDeque::new(),
            next_id: 1,
            events: 0,
            partial: None,
            has_joined: false,
        }
    }

    /// Whether it has ever joined a namespace, or needs none.
    pub(crate) fn has_joined(&self) -> bool {
        self.has_joined || self.common.config.echo_messages
    }

    /// Bytes of attachments whose event is not complete.
    pub(crate) fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.bytes)
    }

    /// A request of its own making.
    pub(crate) fn next_request(&mut self) -> Option<Request> {
        self.own.pop_front()
    }

    /// Whether there is one.
    pub(crate) fn has_request(&self) -> bool {
        !self.own.is_empty()
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn namespace(&self, index: usize) -> Option<&Namespace> {
        self.common.config.namespaces.get(index)
    }

    fn joined(&self, turn: u64) -> Option<&Joined> {
        self.joined.iter().find(|joined| joined.turn == turn)
    }

    fn joined_mut(&mut self, turn: u64) -> Option<&mut Joined> {
        self.joined.iter_mut().find(|joined| joined.turn == turn)
    }

    /// The place of a namespace that the client has joined.
    fn joined_named(&self, name: &str) -> Option<&Joined> {
        self.joined.iter().find(|joined| {
            self.namespace(joined.index)
                .is_some_and(|namespace| namespace.name == name)
        })
    }

    /// A request that only keeps its place in the order of the answers.
    fn later(&mut self, pending: Pending) -> Request {
        let id = self.id();
        self.pending.push_back((id, pending));
        Request::Ping { id }
    }

    fn take_pending(&mut self, id: u64) -> Option<Pending> {
        let place = self.pending.iter().position(|(other, _)| *other == id)?;
        let (_, pending) = self.pending.remove(place)?;
        if self.pending.is_empty() {
            // An idle client holds no memory.
            self.pending = VecDeque::new();
        }
        Some(pending)
    }
}

/// An argument, by its place.
fn argument<'a>(arguments: &[&'a RawValue], at: usize) -> Option<&'a RawValue> {
    arguments.get(at).copied()
}

/// Its text, if it is a string.
fn text(argument: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(argument?.get()).ok()
}

/// The attachment that an argument stands for, if it stands for one.
fn bytes(argument: &RawValue, attachments: &[Bytes]) -> Option<Bytes> {
    let number = packet::placeholder(argument)?;
    attachments.get(number).cloned()
}

/// A JSON string.
fn quoted(text: &str) -> String {
    // Serialising a string cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}
