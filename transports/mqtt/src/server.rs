//! The MQTT server: accepts connections and gives each a session of the bus.

mod disk;
mod entering;
mod leaving;
mod link;
mod logging;
mod refusing;
mod registry;
mod restoring;
mod sessions;
mod tally;
mod words;

use core::mem;
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::{Arc, Weak};

use futures_util::{FutureExt, future::BoxFuture};
use latchbus_bus::accept::{Acceptor, Connection};
use latchbus_bus::proxy::Networks;
use latchbus_bus::{Bus, Counter, Credentials, Farewell, Gauge};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::entering::Entered;
use self::registry::{LastWords, Registry};
use self::restoring::restore_all;
use self::words::{say_all, say_before_the_end};
use crate::connection::Bounds;

pub use self::link::{Activity, LinkError};
pub use self::sessions::SessionAway;

/// How often sessions that have expired and wills that are due are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long the wills of connected clients may take when the server stops.
const FAREWELL_TIME: Duration = Duration::from_secs(1);
/// After a failed accept: most often too many open files, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The bounds of each connection.
    pub bounds: Bounds,
    /// Connections at a time; one more is told that there is no room. Default 20,000.
    pub max_connections: usize,
    /// Sessions that are kept while their clients are away; one more drops the one that is away longest.
    /// Default 10,000. Those of clients that were connected when the server was killed come on top of that, as
    /// many as [`max_connections`](Self::max_connections), until these return.
    pub max_sessions_away: usize,
    /// How long a client may take from connecting to the end of its CONNECT. Default 10 s.
    pub connect_timeout: Duration,
    /// How long a client whose connection ended because the server was killed may take to return, before its
    /// will is published; longer where the will has a longer delay. Default 30 s.
    pub will_grace: Duration,
    /// Proxies that may say in a header of the PROXY protocol who has connected. Default: none.
    pub trusted_proxies: Networks,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bounds: Bounds::default(),
            max_connections: 20_000,
            max_sessions_away: 10_000,
            connect_timeout: Duration::from_secs(10),
            will_grace: Duration::from_secs(30),
            trusted_proxies: Networks::default(),
        }
    }
}

/// What the server counts, beside the [bus's counts](latchbus_bus::Metrics).
#[derive(Debug, Default)]
pub struct Metrics {
    /// Sessions that are kept while their clients are away.
    pub sessions_away: Arc<Gauge>,
    /// Sessions that ended because their clients stayed away.
    pub sessions_expired: Arc<Counter>,
    /// Sessions of an earlier life of the server that were there again at its start.
    pub sessions_restored: Counter,
    /// Sessions that were dropped because there were too many.
    pub sessions_dropped: Counter,
    /// Connections that another one with the same client identifier has ended.
    pub takeovers: Counter,
    /// Connections that were told that there is no room. Where even for that there were too many, they are
    /// closed, and counted among [`connections_refused`](latchbus_bus::Metrics::connections_refused) alone.
    pub turned_away: Counter,
    /// Connections that ended because no CONNECT came in time.
    pub connect_timeouts: Counter,
    /// Connections that ended because the client broke the protocol or was silent too long.
    pub violations: Counter,
    /// Connections of 3.1.1 that ended because a publish was rejected, which that version cannot be told.
    pub rejected_publish_disconnects: Counter,
    /// Messages that were not sent because they are larger than the client accepts.
    pub messages_too_large: Counter,
}

/// An MQTT server in front of a bus: 3.1.1 and 5, over any byte stream. Clones are handles to one
/// server.
///
/// Its state is the bus's; what it adds is sessions, which it keeps while their clients are away: where the bus
/// has a store over a restart too, and then the first server of a bus puts them back.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bus: Bus,
    config: Config,
    /// Those of the configuration, shared by the connections.
    bounds: Arc<Bounds>,
    registry: Arc<Registry>,
    connections: Arc<Semaphore>,
    turning_away: Semaphore,
    metrics: Arc<Metrics>,
}

impl Server {
    /// A server without connections. Call it inside a tokio runtime.
    pub fn new(bus: Bus, config: Config) -> Self {
        // The bus tells of sessions in `$SYS`.
        let metrics = Arc::new(Metrics {
            sessions_away: Arc::clone(&bus.metrics().sessions_away),
            sessions_expired: Arc::clone(&bus.metrics().sessions_expired),
            ..Metrics::default()
        });
        let registry = Registry::new(
            config.max_sessions_away,
            config.max_connections,
            Arc::clone(&metrics),
        );
        let connections = config.max_connections.min(Semaphore::MAX_PERMITS);
        let registry = Arc::new(registry);
        let ended = restore_all(&bus, &registry, config.will_grace);
        tokio::spawn(keep_house(
            Arc::downgrade(&registry),
            bus.rule_changes(),
            (bus.closing(), bus.farewell()),
            (ended, bus.is_stored()),
        ));
        Self(Arc::new(Inner {
            bus,
            bounds: Arc::new(config.bounds.clone()),
            config,
            registry,
            connections: Arc::new(Semaphore::new(connections)),
            turning_away: Semaphore::new(refusing::MAX_TURNED_AWAY),
            metrics,
        }))
    }

    /// The largest packet that is read, in bytes.
    pub fn max_packet_bytes(&self) -> usize {
        self.0.bounds.max_packet_bytes
    }

    /// What the server counts.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Serves what a listener accepts (TCP, a Unix socket: any [`Acceptor`]), until the bus begins to close; ends after the
    /// connections have. An error of the listener or of a connection ends nothing else.
    pub async fn serve(&self, mut listener: impl Acceptor) {
        let closing = self.0.bus.closing();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = closing.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(connection) => {
                        let begins = self.clone().accepted(connection).boxed();
                        connections.spawn(Self::whole(begins));
                    }
                    Err(error) => {
                        tracing::warn!(target: "mqtt", %error, "cannot accept an MQTT connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        if !self.0.bus.is_stored() {
            // Sessions end with the server, so their last words are due (MQTT 5 §3.1.2.5).
            say_all(self.0.registry.drain()).await;
        }
    }

    /// Begins a connection of the listener, once it is known who has connected.
    async fn accepted<C: Connection>(
        self,
        mut connection: C,
    ) -> Option<Entered<C::Reader, C::Writer>> {
        // Of a connection that was reset it is not known any more.
        let peer = connection.peer();
        match connection.begin(&self.0.config.trusted_proxies).await {
            Ok(address) => {
                let certificate = connection.certificate();
                let credentials = Credentials::default().with_certificate(certificate);
                let (reader, writer) = connection.into_split();
                self.enter(reader, writer, address, None, credentials).await
            }
            Err(error) => {
                match peer {
                    Some(peer) if self.0.config.trusted_proxies.contains(peer.ip()) => {
                        logging::broken_header(&self, Some(peer), &error);
                    }
                    peer => logging::not_begun_below(&self, peer, &error),
                }
                None
            }
        }
    }

    /// Serves one connection over any stream of bytes, to its end.
    pub async fn connection<S>(&self, stream: S, address: Option<SocketAddr>)
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        self.connection_with(stream, address, None, Credentials::default())
            .await;
    }

    /// The same over a stream that says in another way that bytes have come (see [`Activity`]), or whose client has brought
    /// credentials already, which count where its CONNECT has none.
    pub async fn connection_with<S>(
        &self,
        stream: S,
        address: Option<SocketAddr>,
        activity: Option<Activity>,
        credentials: Credentials,
    ) where
        S: AsyncRead + AsyncWrite + Send,
    {
        let (reader, writer) = tokio::io::split(stream);
        let begins = self
            .clone()
            .enter(reader, writer, address, activity, credentials);
        Self::whole(begins.boxed()).await;
    }

    /// A connection from its first byte to its last. How it begins and ends is kept on the heap while that
    /// lasts: within the task it would be held by all connections that only wait.
    async fn whole<R, W>(begins: BoxFuture<'_, Option<Entered<R, W>>>)
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let Some(mut entered) = begins.await else {
            return;
        };
        let ended = entered.serve().await;
        entered.leave(ended).boxed().await;
    }
}

/// Ends the sessions that have expired or whose users were removed, and publishes the wills that are due, until the bus closes or
/// the server is gone.
///
/// When the bus closes, the wills of those who are connected are published while everybody still is; so are those of
/// sessions that end with the server because there is no store.
async fn keep_house(
    registry: Weak<Registry>,
    mut changes: watch::Receiver<()>,
    (closing, farewell): (CancellationToken, Farewell),
    (ended, is_stored): (Vec<LastWords>, bool),
) {
    say_all(ended).await;
    let mut ticks = interval(HOUSEKEEPING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Since what was restored was stored.
    let mut have_changed = true;
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            _ = ticks.tick() => {}
            Ok(()) = changes.changed() => have_changed = true,
        }
        let Some(registry) = registry.upgrade() else {
            return;
        };
        if mem::take(&mut have_changed) {
            registry.end_of_removed(Instant::now());
        }
        say_all(registry.expire(Instant::now())).await;
    }
    if let Some(registry) = registry.upgrade() {
        let mut words = registry.take_wills();
        if !is_stored {
            words.extend(registry.drain());
        }
        // A store that is stuck has them at the next start.
        let _stuck = timeout(FAREWELL_TIME, say_before_the_end(words)).await;
    }
    drop(farewell);
}
