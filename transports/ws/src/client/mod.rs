//! The client: one connection to a server that comes back by itself.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use latchbus_core::hub::Mode;
//! use latchbus_core::topic::{TopicFilter, TopicName};
//! use latchbus_ws::client::{Client, Options, Update};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("ws://127.0.0.1:3000/ws", Options::default())?;
//! let topic = TopicName::parse("lab/temp".to_owned())?;
//! let rev = client.publish(topic, "21.5", true).await?;
//!
//! let mut lab = client.subscribe(TopicFilter::parse("lab/#".to_owned())?, Mode::Latest)?;
//! while let Some(update) = lab.next().await {
//!     if let Update::Message(message) = update? {
//!         println!("{} {:?}", message.topic, message.payload);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod connection;
mod error;
mod inbox;
mod machine;
mod message;
mod outbox;
mod subscription;

use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use latchbus_bus::Credentials;
use latchbus_core::hub::Mode;
use latchbus_core::topic::{TopicFilter, TopicName};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
use self::inbox::Inbox;
use self::machine::Machine;
pub use self::message::{Message, Refused};
use self::outbox::{Bounds, Outbox};
pub use self::subscription::{Subscription, SubscriptionError, Update};
use crate::Protocol;

/// How a [`Client`] behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it speaks.
    pub protocol: Protocol,
    /// For `wss` addresses, which need it.
    pub tls: Option<latchbus_tls::client::Client>,
    /// Who signs in: a user with a password (`Authorization: Basic`) or a token (`Authorization: Bearer`). Over `ws` everybody on
    /// the way can read them.
    pub credentials: Credentials,
    /// The first wait after a failure is at most the first of these, none is longer than the second.
    /// Between them the bound doubles and the wait is drawn from zero to the bound.
    pub backoff: (Duration, Duration),
    /// How long an attempt to connect may take, the server's welcome included.
    pub connect_timeout: Duration,
    /// How often it sends a ping, which the server answers.
    pub ping_every: Duration,
    /// How long the server may send nothing, not even a pong, before the connection is given up.
    pub idle_timeout: Duration,
    /// The longest message from the server, in bytes.
    pub max_message_bytes: usize,
    /// Topics whose state is set, published or watched at a time.
    pub max_topics: usize,
    /// Calls of [`Client::publish`] that wait at a time.
    pub max_waiting: usize,
    /// Publishes that are sent and not acknowledged; the server may allow fewer.
    pub max_in_flight: usize,
    /// Updates that a subscription holds for its reader. See [`Subscription`] for what happens beyond.
    pub max_queue: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            protocol: Protocol::Postcard,
            tls: None,
            credentials: Credentials::default(),
            backoff: (Duration::from_millis(250), Duration::from_secs(15)),
            connect_timeout: Duration::from_secs(10),
            ping_every: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(60),
            max_message_bytes: 16 << 20,
            max_topics: 10_000,
            max_waiting: 10_000,
            max_in_flight: 256,
            max_queue: 1_024,
        }
    }
}

/// Whether there is a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is being made.
    Connecting,
    /// There is one.
    Live,
    /// There is none.
    Offline {
        /// When the next attempt begins.
        next_attempt: Instant,
        /// Why, in words.
        reason: String,
    },
    /// There will be none: the client was closed.
    Closed,
}

/// What the server has said to the state of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// The last payload that it has acknowledged.
    pub payload: Option<Bytes>,
    /// At which revision.
    pub rev: Option<u64>,
    /// Why it has refused what was sent since then. Where that may pass (`full`, `rate_limited`), state
    /// that was [set](Client::set) is sent again.
    pub refused: Option<Refused>,
}

/// A URL that no connection can be made to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It is no URL.
    #[error("not a URL")]
    Url(#[from] tokio_tungstenite::tungstenite::http::uri::InvalidUri),
    /// It does not begin with `ws://` or `wss://` and a host.
    #[error("the URL is not ws://host:port/path or wss://host:port/path")]
    NotWs,
    /// It begins with `wss://`, and there is no [`Options::tls`].
    #[error("the URL begins with wss, and TLS is not set up")]
    NoTls,
    /// Those cannot stand in a header.
    #[error("a user name with a colon, or a token that is no ASCII text, cannot be sent")]
    Credentials,
}

/// A bound of the client is reached, named here; or the client is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for more {0}")]
pub struct Full(pub(crate) &'static str);

/// Why a publish was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The server has refused it; it changed nothing.
    #[error("the server refused it: {0}")]
    Refused(#[from] Refused),
    /// An event was sent, and the connection was lost before its acknowledgement: the server has it, or
    /// not. Events are not sent again, so that none is delivered twice.
    #[error("the connection was lost before the acknowledgement")]
    Unconfirmed,
    /// It was not sent.
    #[error(transparent)]
    Full(#[from] Full),
    /// The client was closed before it was acknowledged.
    #[error("the client is closed")]
    Closed,
}

/// A connection to a server, kept up by a task of its own. Clones are handles to one connection; when
/// the last handle and the last [`Subscription`] are gone, it is cut.
#[derive(Debug, Clone)]
pub struct Client(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What handles, streams and the task share. The lock is never held over an await.
#[derive(Debug)]
pub(crate) struct Shared {
    machine: Mutex<Machine>,
    /// There may be something to send.
    wake: Notify,
}

impl Shared {
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Begins to connect, and goes on trying until it is closed. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When the URL can never work; whatever else goes wrong shows in [`state`](Self::state).
    pub fn connect(url: &str, options: Options) -> Result<Self, ConnectError> {
        let uri: Uri = url.parse()?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(ConnectError::NotWs);
        }
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") if options.tls.is_some() => {}
            Some("wss") => return Err(ConnectError::NoTls),
            _ => return Err(ConnectError::NotWs),
        }
        let authorization = authorization(&options.credentials)?;
        let bounds = Bounds {
            topics: options.max_topics,
            waiting: options.max_waiting,
            in_flight: options.max_in_flight,
        };
        let outbox = Outbox::new(bounds, fastrand::Rng::new());
        let shared = Arc::new(Shared {
            machine: Mutex::new(Machine::new(outbox, options.max_queue)),
            wake: Notify::new(),
        });
        let (sender, state) = watch::channel(State::Connecting);
        let stop = CancellationToken::new();
        let connection = Connection {
            url: url.to_owned(),
            authorization,
            options,
            shared: Arc::clone(&shared),
            state: sender,
            stop: stop.clone(),
        };
        let task = tokio::spawn(connection.run());
        Ok(Self(Arc::new(Handle {
            shared,
            state,
            stop,
            task,
        })))
    }

    /// Whether there is a connection, and every change of it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.0.state.clone()
    }

    /// Sets the state of a topic that this client owns. It is published retained, at most one at a time a
    /// topic: of what is set while one is on its way, the newest is next. It is sent until the server has
    /// acknowledged it, and again to a server that has begun a new epoch. An empty payload clears the topic.
    ///
    /// # Errors
    /// When the client has [`Options::max_topics`] of them, or is closed.
    pub fn set(&self, topic: TopicName<String>, payload: impl Into<Bytes>) -> Result<(), Full> {
        self.0.shared.machine().outbox.set(topic, payload.into())?;
        self.0.shared.wake.notify_one();
        Ok(())
    }

    /// What the server has acknowledged of a topic's state, from now on.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub fn confirmed(&self, topic: &TopicName<String>) -> Result<watch::Receiver<Confirmed>, Full> {
        let mut machine = self.0.shared.machine();
        machine.outbox.confirmed(topic.as_str())
    }

    /// Publishes, waits until the server has acknowledged it, and gives its revision. Without a
    /// connection it waits for one.
    ///
    /// State (`retain`) is sent until it is acknowledged or refused; where newer state of the topic replaces
    /// it before it is sent, the newer one's acknowledgement counts. An event is sent at most once.
    /// Dropping the future does not take the message back.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(
        &self,
        topic: TopicName<String>,
        payload: impl Into<Bytes>,
        retain: bool,
    ) -> Result<u64, PublishError> {
        let (done, answer) = oneshot::channel();
        let payload = payload.into();
        self.0
            .shared
            .machine()
            .outbox
            .publish(topic, payload, retain, done)?;
        self.0.shared.wake.notify_one();
        answer.await.unwrap_or(Err(PublishError::Closed))
    }

    /// Subscribes, at once or as soon as there is a connection. See [`Subscription`].
    ///
    /// # Errors
    /// When the client is closed.
    pub fn subscribe(
        &self,
        filter: TopicFilter<String>,
        mode: Mode,
    ) -> Result<Subscription, PublishError> {
        let shared = &self.0.shared;
        let mut machine = shared.machine();
        if machine.outbox.is_closed() {
            return Err(PublishError::Closed);
        }
        let key = machine.subscribe(Inbox::new(filter, mode));
        drop(machine);
        shared.wake.notify_one();
        Ok(Subscription::new(Arc::clone(&self.0), key))
    }

    /// Says goodbye to the server and ends the connection, for all handles. What is not acknowledged by
    /// then fails with [`PublishError::Closed`]; subscriptions end.
    pub async fn close(&self) {
        self.0.stop.cancel();
        let mut state = self.0.state.clone();
        // An error means that the task has ended: that is what is waited for.
        let _ = state.wait_for(|state| *state == State::Closed).await;
    }
}

/// RFC 7617, RFC 6750.
fn authorization(credentials: &Credentials) -> Result<Option<HeaderValue>, ConnectError> {
    let text = match credentials {
        Credentials {
            token: Some(token), ..
        } => format!("Bearer {token}"),
        Credentials {
            user: Some(user),
            password,
            ..
        } if !user.contains(':') => {
            let password = password.as_deref().unwrap_or_default();
            let pair = [user.as_bytes(), b":", password].concat();
            format!("Basic {}", BASE64_STANDARD.encode(pair))
        }
        Credentials { user: Some(_), .. } => return Err(ConnectError::Credentials),
        _ => return Ok(None),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| ConnectError::Credentials)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
