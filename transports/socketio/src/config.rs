//! How a server is set up, and what the events of each namespace mean.

use core::time::Duration;

use latchbus_core::clicks::{ClickTopic, Color};
use latchbus_core::hub::Mode;
use latchbus_core::topic::{TopicFilter, TopicName};

/// How a [`Server`](crate::Server) is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long after the handshake, and after each pong, a ping is sent.
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping; a session whose client does not is closed.
    pub ping_timeout: Duration,
    /// The most bytes of a body that a client is sent, and is told to send.
    pub max_payload: usize,
    /// The longest frame or body that is read; a longer one ends its session (WebSocket: 1009, HTTP: 413). None: twice the
    /// bus's longest payload and 4 KiB, besides the longest topic. Never less than `max_payload`.
    pub max_message_bytes: Option<usize>,
    /// How long a session may be without a namespace after its handshake before it is closed.
    pub connect_timeout: Duration,
    /// How long the upgrade to WebSocket may take.
    pub upgrade_timeout: Duration,
    /// How long a body may take to come.
    pub body_timeout: Duration,
    /// Sessions at a time. Beyond it the answer is HTTP 503.
    pub max_sessions: usize,
    /// Which of several nodes this is: session ids begin with it and a dot, so that a proxy can route by them. Letters, digits, `-`
    /// and `_`; empty: none.
    pub node: String,
    /// The namespaces; others are answered with `connect_error`.
    pub namespaces: Vec<Namespace>,
    /// Each Engine.IO message is sent back and no Socket.IO is spoken: what the test suite of the Engine.IO protocol asks of a
    /// server. For tests alone.
    pub echo_messages: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            max_payload: 1_000_000,
            max_message_bytes: None,
            connect_timeout: Duration::from_secs(45),
            upgrade_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            max_sessions: 20_000,
            node: String::new(),
            namespaces: vec![Namespace::tutorial()],
            echo_messages: false,
        }
    }
}

/// A namespace and its events.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Its name; begins with a slash.
    pub name: String,
    /// Events to the client.
    pub outputs: Vec<Output>,
    /// Events from the client.
    pub inputs: Vec<Input>,
    /// Whether the general events are understood: `subscribe`, `unsubscribe`, `publish`.
    pub general: bool,
    /// Whether clients are told where they are, so that they can go on there after a cut: the last argument of each event is
    /// then the cursor, and the answer to CONNECT has a `pid`.
    pub recovery: bool,
    /// An event that the client is sent when it has joined, with its `auth`. For tests.
    pub auth_event: Option<String>,
}

/// An event to the client: the newest value of each topic, when it joins and whenever it changes.
#[derive(Debug, Clone)]
pub struct Output {
    /// The name of the event.
    pub event: String,
    /// Of which topics.
    pub filter: TopicFilter<String>,
    /// How a client that falls behind catches up.
    pub mode: Mode,
}

/// An event from the client.
#[derive(Debug, Clone)]
pub struct Input {
    /// The name of the event.
    pub event: String,
    /// What it does.
    pub action: Action,
}

/// What an event from the client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A press. Its first argument is its id if it is a string: a press that comes again under one id counts once.
    Press {
        /// Where the press goes.
        topic: TopicName<String>,
        /// What is pressed.
        color: Color,
    },
    /// Publishes the first argument.
    Publish {
        /// Where to.
        topic: TopicName<String>,
        /// As state, or as an event.
        retain: bool,
    },
    /// The client is sent an event of this name with the same arguments. For tests.
    Echo(String),
    /// The event is acknowledged with its arguments. For tests.
    EchoAck,
}

/// The device on whose behalf the presses of all clients count: as one, for the devices of a room are bounded.
pub const DEVICE: &str = "socketio";

impl Namespace {
    /// A namespace without events.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            general: false,
            recovery: true,
            auth_event: None,
        }
    }

    /// The namespace `/` with the events of the click tutorial, and the general ones.
    pub fn tutorial() -> Self {
        let values = ClickTopic::Values { room: "main" }.to_string();
        // Names of this crate's own are names.
        let outputs = TopicFilter::parse(values).map(|filter| Output {
            event: "clickValues".to_owned(),
            filter,
            mode: Mode::Latest,
        });
        let press = |(event, color): (&str, Color)| {
            Some(Input {
                event: event.to_owned(),
                action: Action::press("main", color)?,
            })
        };
        Self {
            outputs: outputs.into_iter().collect(),
            inputs: [("blueClicked", Color::Blue), ("redClicked", Color::Red)]
                .into_iter()
                .filter_map(press)
                .collect(),
            general: true,
            ..Self::new("/")
        }
    }

    /// What the test suite of the Socket.IO protocol asks of a namespace: `message` comes back as `message-back`,
    /// `message-with-ack` is acknowledged with its arguments, and `auth` tells the client what it came with.
    pub fn protocol_suite(name: &str) -> Self {
        let input = |event: &str, action| Input {
            event: event.to_owned(),
            action,
        };
        Self {
            inputs: vec![
                input("message", Action::Echo("message-back".to_owned())),
                input("message-with-ack", Action::EchoAck),
            ],
            recovery: false,
            auth_event: Some("auth".to_owned()),
            ..Self::new(name)
        }
    }

    /// What tells two tables of outputs apart: a place in one is none in another.
    pub(crate) fn fingerprint(&self) -> u32 {
        let parts = self.outputs.iter().flat_map(|output| {
            let mode = match output.mode {
                Mode::Latest => "l",
                Mode::Every => "e",
                Mode::State => "s",
            };
            [&output.event, output.filter.as_str(), mode]
        });
        fnv1a(parts)
    }
}

/// FNV-1a: the same for every build, as it goes into what clients keep over a restart.
pub(crate) fn fnv1a<'a>(parts: impl Iterator<Item = &'a str>) -> u32 {
    let bytes = parts.flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

impl Action {
    /// A press in this room; none where that is no name of a room.
    pub fn press(room: &str, color: Color) -> Option<Self> {
        let topic = ClickTopic::Press {
            room,
            device: DEVICE,
        };
        let topic = TopicName::parse(topic.to_string()).ok()?;
        latchbus_core::clicks::is_name(room).then_some(Self::Press { topic, color })
    }
}
