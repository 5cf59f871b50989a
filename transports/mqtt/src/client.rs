//! An MQTT 3.1.1 client that keeps a server informed, through cuts and restarts.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use latchbus_core::topic::{TopicFilter, TopicName};
//! use latchbus_mqtt::client::{Client, Options};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Options::new("lamp-1", "127.0.0.1", 1883));
//! // The server hears of it now, or when it is back: the newest value of each topic.
//! client.set(TopicName::parse("lamp/1/state")?, "on", true)?;
//! let mut commands = client.subscribe(TopicFilter::parse("lamp/1/command")?);
//! while let Some(command) = commands.next().await {
//!     println!("{:?}", command.payload);
//! }
//! # Ok(())
//! # }
//! ```

mod error;
mod messages;
mod model;

use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use latchbus_bus::{Backoff, Credentials};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_tls::server::Protocol;
use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

pub use self::error::ConnectError;
use self::messages::Inbox;
pub use self::messages::{Message, Messages};
pub use self::model::Full;
use self::model::{Command, Model};

/// Requests between the client and its event loop. More wait in the client, newest wins.
const REQUESTS: usize = 64;
/// What a PUBLISH takes beside topic and payload: header, lengths, packet identifier.
const PACKET_OVERHEAD_BYTES: usize = 9;
/// A connection that has lived so long was a good one: the next wait is short again.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Where a client connects to, and its bounds.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who it is.
    pub client_id: String,
    /// Where the server is: a name or an address.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// TLS; none: plain TCP.
    pub tls: Option<latchbus_tls::client::Client>,
    /// Who signs in: a user with a password, which has to be UTF-8, or a token, which takes the place of the password. Without TLS
    /// everybody on the way can read them.
    pub credentials: Credentials,
    /// How often it shows that it lives; at least one second. Default 30 s.
    pub keep_alive: Duration,
    /// Whether the server is to forget it when it leaves. With false, which needs a client id, QoS 1 messages
    /// wait for it there. Default true.
    pub clean_session: bool,
    /// What the server publishes when the client does not leave by itself.
    pub will: Option<Will>,
    /// The largest packet in both directions, in bytes. Default 256 KiB.
    pub max_packet_bytes: usize,
    /// Topics whose state it keeps. Default 10,000.
    pub max_topics: usize,
    /// Events that wait to be sent. Default 1,024.
    pub max_events: usize,
    /// Messages that wait in a [`Messages`] stream. Default 1,024.
    pub max_messages: usize,
    /// How often marked state is published again. Default 60 s.
    pub repeat_every: Duration,
    /// How long the server may take to accept a connection, in whole seconds. Default 5 s.
    pub connect_timeout: Duration,
    /// The bounds of the waits between attempts to connect. Default 250 ms and 15 s.
    pub backoff: (Duration, Duration),
}

/// A client's last word.
#[derive(Debug, Clone)]
pub struct Will {
    /// Where it is published.
    pub topic: TopicName<String>,
    /// What it says.
    pub payload: Bytes,
    /// Whether it is state.
    pub retain: bool,
}

impl Options {
    /// The defaults, for one client and server.
    pub fn new(client_id: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        Self {
            client_id: client_id.into(),
            host: host.into(),
            port,
            tls: None,
            credentials: Credentials::default(),
            keep_alive: Duration::from_secs(30),
            clean_session: true,
            will: None,
            max_packet_bytes: 256 << 10,
            max_topics: 10_000,
            max_events: 1_024,
            max_messages: 1_024,
            repeat_every: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            backoff: (Duration::from_millis(250), Duration::from_secs(15)),
        }
    }

    fn for_rumqttc(&self) -> MqttOptions {
        let mut options = MqttOptions::new(&self.client_id, &self.host, self.port);
        options.set_keep_alive(self.keep_alive.max(Duration::from_secs(1)));
        options.set_clean_session(self.clean_session || self.client_id.is_empty());
        options.set_max_packet_size(self.max_packet_bytes, self.max_packet_bytes);
        if let Some(tls) = &self.tls {
            let config = TlsConfiguration::Rustls(tls.config(Protocol::Mqtt));
            options.set_transport(Transport::tls_with_config(config));
        }
        let Credentials {
            user,
            password,
            token,
            ..
        } = &self.credentials;
        let password = password.as_deref().map(String::from_utf8_lossy);
        let secret = token.as_deref().or(password.as_deref());
        if user.is_some() || secret.is_some() {
            let user = user.as_deref().unwrap_or_default();
            options.set_credentials(user, secret.unwrap_or_default());
        }
        if let Some(will) = &self.will {
            let payload = will.payload.to_vec();
            options.set_last_will(LastWill::new(
                will.topic.as_str(),
                payload,
                QoS::AtLeastOnce,
                will.retain,
            ));
        }
        options
    }
}

/// Whether the client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It is trying to connect.
    Offline,
    /// The server has accepted it.
    Online,
    /// It was closed.
    Closed,
}

/// Why something was not accepted for sending. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// A bound of the client.
    #[error(transparent)]
    Full(#[from] Full),
    /// The message does not fit a packet.
    #[error("a packet of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// How large the packet would be.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
}

/// A handle to a client. Clones share it; it leaves, without a DISCONNECT, when the last is dropped.
#[derive(Debug, Clone)]
pub struct Client(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    polling: Mutex<Option<JoinHandle<()>>>,
    repeating: JoinHandle<()>,
}

struct Shared {
    model: Mutex<Model>,
    requests: AsyncClient,
    link: watch::Sender<Link>,
    /// Why there is no connection, since there is none.
    error: Mutex<Option<ConnectError>>,
    /// Changes whenever an acknowledgement has come.
    progress: watch::Sender<()>,
    max_packet_bytes: usize,
    max_messages: usize,
}

impl Client {
    /// Begins to connect, and connects again whenever the connection is lost, after a wait with full
    /// jitter. Call it inside a tokio runtime.
    pub fn connect(options: Options) -> Self {
        let (requests, mut events) = AsyncClient::new(options.for_rumqttc(), REQUESTS);
        events
            .network_options
            .set_connection_timeout(options.connect_timeout.as_secs().max(1));
        let shared = Arc::new(Shared {
            model: Mutex::new(Model::new(options.max_topics, options.max_events)),
            requests,
            link: watch::Sender::new(Link::Offline),
            error: Mutex::default(),
            progress: watch::Sender::new(()),
            max_packet_bytes: options.max_packet_bytes,
            max_messages: options.max_messages,
        });
        let backoff = Backoff::new(options.backoff.0, options.backoff.1);
        let repeating = tokio::spawn(repeat(Arc::clone(&shared), options.repeat_every));
        let polling = tokio::spawn(poll(Arc::clone(&shared), events, backoff, options));
        Self(Arc::new(Handle {
            shared,
            polling: Mutex::new(Some(polling)),
            repeating,
        }))
    }

    /// Sets the state of a topic: published retained, with QoS 1, one at a time, the newest first; again
    /// when the server has forgotten the client, and from time to time where `repeat` says so.
    ///
    /// # Errors
    /// When it does not fit a packet, or the client keeps as many topics as it may.
    pub fn set(
        &self,
        topic: TopicName<&str>,
        payload: impl Into<Bytes>,
        repeat: bool,
    ) -> Result<(), SendError> {
        let payload = payload.into();
        let shared = &self.0.shared;
        shared.check(topic, &payload)?;
        let mut model = shared.lock();
        model.set(&topic, payload, repeat)?;
        shared.hand_over(&mut model);
        Ok(())
    }

    /// The last value of a topic that the server has acknowledged; `None` for a topic that was never
    /// [`set`](Self::set).
    pub fn confirmed(&self, topic: TopicName<&str>) -> Option<watch::Receiver<Option<Bytes>>> {
        self.0.shared.lock().confirmed(&topic)
    }

    /// Publishes an event, with QoS 1 and not retained. It waits while the client is offline, and may
    /// come twice after a cut.
    ///
    /// # Errors
    /// When it does not fit a packet, or as many are waiting as may.
    pub fn publish(
        &self,
        topic: TopicName<&str>,
        payload: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        let payload = payload.into();
        let shared = &self.0.shared;
        shared.check(topic, &payload)?;
        let mut model = shared.lock();
        model.event(&topic, payload)?;
        shared.hand_over(&mut model);
        Ok(())
    }

    /// Subscribes, with QoS 1: the retained messages first, and again after a reconnect to a server that
    /// has forgotten the client. A message that several filters match may come more than once.
    pub fn subscribe(&self, filter: TopicFilter<&str>) -> Messages {
        let shared = &self.0.shared;
        let inbox = Arc::new(Inbox::new(shared.max_messages));
        let mut model = shared.lock();
        if *shared.link.borrow() == Link::Closed {
            inbox.end(false);
        } else {
            model.subscribe(&filter, Arc::downgrade(&inbox));
            shared.hand_over(&mut model);
        }
        Messages::new(inbox)
    }

    /// Whether the client is connected, as it changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.0.shared.link.subscribe()
    }

    /// Why there is no connection: since the last one ended, or the first attempt failed. It is there before
    /// [`link`](Self::link) says so again, which it does after each attempt.
    pub fn error(&self) -> Option<ConnectError> {
        self.0.shared.lock_error().clone()
    }

    /// Waits until the server has acknowledged everything that was set and published, or the client was
    /// closed.
    pub async fn settled(&self) {
        let mut progress = self.0.shared.progress.subscribe();
        let mut link = self.0.shared.link.subscribe();
        loop {
            progress.mark_unchanged();
            if self.0.shared.lock().is_settled() || *link.borrow_and_update() == Link::Closed {
                return;
            }
            tokio::select! {
                _ = progress.changed() => {}
                _ = link.changed() => {}
            }
        }
    }

    /// Leaves as the protocol provides: the will is not published.
    pub async fn close(&self) {
        let polling = self.lock_polling().take();
        let Some(mut polling) = polling else {
            return;
        };
        let online = *self.0.shared.link.borrow() == Link::Online;
        let asked = online && self.0.shared.requests.disconnect().await.is_ok();
        if !asked || timeout(CLOSE_TIME, &mut polling).await.is_err() {
            polling.abort();
        }
        self.0.shared.end();
    }

    fn lock_polling(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.0
            .polling
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.repeating.abort();
        let polling = self
            .polling
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(polling) = polling.take() {
            polling.abort();
        }
        self.shared.end();
    }
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_error(&self) -> MutexGuard<'_, Option<ConnectError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, topic: TopicName<&str>, payload: &Bytes) -> Result<(), SendError> {
        let bytes = topic.as_str().len() + payload.len() + PACKET_OVERHEAD_BYTES;
        let limit = self.max_packet_bytes;
        if bytes > limit {
            return Err(SendError::TooLarge { bytes, limit });
        }
        Ok(())
    }

    /// Gives the event loop what it has room for. What it has no room for is given after its next event.
    fn hand_over(&self, model: &mut Model) {
        while let Some(command) = model.next() {
            let taken = match &command {
                Command::Subscribe(filter) => {
                    self.requests.try_subscribe(&**filter, QoS::AtLeastOnce)
                }
                Command::State(topic, payload) => {
                    self.requests
                        .try_publish(&**topic, QoS::AtLeastOnce, true, payload.to_vec())
                }
                Command::Event(topic, payload) => {
                    self.requests
                        .try_publish(&**topic, QoS::AtLeastOnce, false, payload.to_vec())
                }
            };
            if taken.is_err() {
                return;
            }
            model.handed(command);
        }
    }

    fn end(&self) {
        self.lock().end();
        self.link.send_replace(Link::Closed);
    }

    /// One event of the event loop.
    fn handle(&self, event: Event) {
        let mut model = self.lock();
        match event {
            Event::Incoming(Packet::ConnAck(ack)) => {
                model.connected(ack.session_present);
                *self.lock_error() = None;
                self.link.send_replace(Link::Online);
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                model.acknowledged(ack.pkid);
                self.progress.send_replace(());
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                let granted = !ack.return_codes.contains(&SubscribeReasonCode::Failure);
                model.answered(ack.pkid, granted);
            }
            Event::Incoming(Packet::Publish(publish)) => {
                if let Ok(topic) = TopicName::parse(publish.topic) {
                    let (payload, retained) = (publish.payload, publish.retain);
                    model.received(&Message {
                        topic,
                        payload,
                        retained,
                    });
                }
            }
            Event::Outgoing(Outgoing::Publish(id)) => model.publishing(id),
            Event::Outgoing(Outgoing::Subscribe(id)) => model.subscribing(id),
            _ => {}
        }
        for filter in model.abandoned() {
            // When there is no room, the server goes on sending what nobody takes.
            if self.requests.try_unsubscribe(&*filter).is_err() {
                tracing::debug!(target: "mqtt", %filter, "could not unsubscribe");
            }
        }
        self.hand_over(&mut model);
    }
}

/// Does nothing but poll: a poll that is dropped half-way loses packets.
async fn poll(shared: Arc<Shared>, mut events: EventLoop, mut backoff: Backoff, options: Options) {
    let mut connected_at = None;
    // What an attempt's error meant, once the server was asked. One that was connected to speaks MQTT.
    let mut asked: Option<(ConnectError, ConnectError)> = None;
    let mut was_connected = false;
    loop {
        match events.poll().await {
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(event) => {
                if matches!(event, Event::Incoming(Packet::ConnAck(_))) {
                    connected_at = Some(Instant::now());
                    was_connected = true;
                    asked = None;
                }
                shared.handle(event);
            }
            Err(error) => {
                tracing::debug!(target: "mqtt", %error, "MQTT connection lost");
                let why = error::of(&error, connected_at.is_some(), options.connect_timeout);
                {
                    let mut model = shared.lock();
                    // The model knows what is to be sent again, the newest of each topic; the event loop
                    // would send what is outdated.
                    events.clean();
                    events.pending.clear();
                    events.state.collision = None;
                    model.disconnected();
                }
                let told = match &asked {
                    Some((same, told)) if *same == why => told.clone(),
                    _ if was_connected => why.clone(),
                    _ => error::probe(why.clone(), &options).await,
                };
                *shared.lock_error() = Some(told.clone());
                asked = Some((why, told));
                shared.link.send_replace(Link::Offline);
                let good = |at: Instant| at.elapsed() >= GOOD_CONNECTION;
                if connected_at.take().is_some_and(good) {
                    backoff.reset();
                }
                sleep(backoff.next_wait()).await;
            }
        }
    }
}

/// Publishes marked state again from time to time.
async fn repeat(shared: Arc<Shared>, every: Duration) {
    let mut ticks = interval(every.max(Duration::from_secs(1)));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let mut model = shared.lock();
        model.repeat();
        shared.hand_over(&mut model);
    }
}
