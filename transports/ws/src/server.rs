//! The server: takes HTTP requests for `/ws` and gives each connection to a session of the bus.

use core::future::{Future, pending};
use core::mem;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use latchbus_bus::{Bus, Client, Ended, LinkSender, Session, SignIn};
use latchbus_core::wire::{Limits, ServerFrame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::handshake::{self, Handshake};
use crate::link::{Bounds, link};
use crate::{Guard, OriginPolicy, Protocol, logging, sign_in};

/// How a [`Server`] is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which web pages may connect.
    pub origin: OriginPolicy,
    /// Connections at a time. Beyond it the answer is HTTP 503.
    pub max_connections: usize,
    /// The longest message from a client, in bytes; a longer one closes its connection with 1009. None: twice
    /// the bus's longest payload (base64 and escapes make it longer) and 4 KiB, besides the longest topic.
    pub max_message_bytes: Option<usize>,
    /// How long a connection sends nothing before it sends a ping.
    pub ping_every: Duration,
    /// How long a client may send nothing, not even a pong, before its connection is closed with 1008; and
    /// how long it may take none of what waits for it, before the connection is cut.
    pub idle_timeout: Duration,
    /// How long a connection that ends waits for its last frames to be sent, and then for the client to
    /// end it too.
    pub close_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origin: OriginPolicy::default(),
            max_connections: 20_000,
            max_message_bytes: None,
            ping_every: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(1),
        }
    }
}

/// WebSocket connections to one bus. Clones are handles to one server.
///
/// ```no_run
/// use latchbus_bus::{Bus, Options};
/// use latchbus_ws::server::{Config, Server};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::open(Options::default())?;
/// let server = Server::new(bus.clone(), Config::default());
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// axum::serve(listener, server.router()).await?;
///
/// bus.close().await;
/// server.closed().await;
/// # Ok(())
/// # }
/// ```
///
/// Whoever accepts the connections sets `TCP_NODELAY` on them: every flush is meant to leave at once.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bus: Bus,
    guard: Guard,
    bounds: Bounds,
    connections: Arc<Semaphore>,
    max_connections: usize,
    tasks: TaskTracker,
}

/// The name and version in `welcome`.
const NAME: &str = concat!("latchbus/", env!("CARGO_PKG_VERSION"));

/// What a message may need besides its topic and its payload.
const HEADROOM_BYTES: usize = 4 << 10;

impl Server {
    /// A server of this bus. Its connections end when the bus closes, with code 1001.
    pub fn new(bus: Bus, config: Config) -> Self {
        let Config {
            origin,
            max_connections,
            max_message_bytes,
            ping_every,
            idle_timeout,
            close_timeout,
        } = config;
        let limits = bus.limits();
        let longest = || 2 * limits.payload_bytes + limits.topic_bytes + HEADROOM_BYTES;
        Self(Arc::new(Inner {
            guard: Guard::new(&origin),
            bounds: Bounds {
                max_message_bytes: max_message_bytes.unwrap_or_else(longest),
                ping_every,
                idle_timeout,
                close_timeout,
            },
            max_connections,
            connections: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))),
            tasks: TaskTracker::new(),
            bus,
        }))
    }

    /// What judges its requests, for an application's own.
    pub fn guard(&self) -> &Guard {
        &self.0.guard
    }

    /// A router that answers `GET /ws`, to be merged into an application's own.
    pub fn router(&self) -> Router {
        let upgrade =
            |State(server): State<Self>, request| async move { server.upgrade(request).await };
        Router::new()
            .route("/ws", any(upgrade))
            .route("/ws/", any(upgrade))
            .with_state(self.clone())
    }

    /// Answers a request for a WebSocket, whatever its path. The peer's address is known when the
    /// service was made with connect info. Who brings no credentials, and needs some, may bring them in its first frame.
    pub async fn upgrade(&self, mut request: Request) -> Response {
        let metrics = self.0.bus.metrics();
        let names = Protocol::ALL.map(Protocol::name);
        let address = self.0.guard.client(&request);
        let accepted = handshake::accept(&mut request, &self.0.guard, &names);
        let (Handshake { response, upgrade }, name) = match accepted {
            Ok(accepted) => accepted,
            Err(refused) => {
                metrics.connections_refused.add(1);
                refused.log(&self.0.bus, "ws", address, request.headers());
                return refused.into_response();
            }
        };
        let Ok(permit) = Arc::clone(&self.0.connections).try_acquire_owned() else {
            metrics.connections_refused.add(1);
            logging::no_room(&self.0.bus, address, self.0.max_connections);
            let reason = "as many connections as this server takes\n";
            return (StatusCode::SERVICE_UNAVAILABLE, reason).into_response();
        };
        let sign_in = SignIn::new("ws")
            .with_address(address)
            .with_credentials(sign_in::credentials(&request));
        let head = mem::take(request.headers_mut());
        drop(request);
        let client = match self.0.bus.sign_in_or_wait(sign_in).await {
            Ok(client) => client,
            Err(refused) => {
                self.0.bus.metrics().connections_refused.add(1);
                logging::refused(&self.0.bus, address, &refused);
                return sign_in::refuse(&refused, &head);
            }
        };
        let protocol = name.and_then(Protocol::named).unwrap_or_default();
        let server = self.clone();
        let task = async move { server.upgraded(upgrade, protocol, client, permit).await };
        self.0.tasks.spawn(task);
        response
    }

    /// Serves one connection whose handshake is done, until it ends. For what comes by another way than
    /// HTTP on a socket; it counts for no bound.
    pub async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        protocol: Protocol,
        client: Client,
    ) {
        let metrics = self.0.bus.metrics();
        metrics.connections.up();
        metrics.connections_accepted.add(1);
        self.run(stream, protocol, client).await;
        self.0.bus.metrics().connections.down();
    }

    /// Waits until the bus is closing and every connection has ended.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let inner = Arc::clone(&self.0);
        async move {
            inner.bus.closing().cancelled().await;
            inner.tasks.close();
            inner.tasks.wait().await;
        }
    }

    async fn upgraded(
        &self,
        upgrade: OnUpgrade,
        protocol: Protocol,
        client: Client,
        permit: OwnedSemaphorePermit,
    ) {
        match upgrade.await {
            Ok(upgraded) => self.serve(TokioIo::new(upgraded), protocol, client).await,
            Err(error) => {
                tracing::debug!(target: "websocket", %error, "a connection ended within its handshake")
            }
        }
        drop(permit);
    }

    async fn run(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        protocol: Protocol,
        client: Client,
    ) {
        logging::connected(&client, protocol);
        let mut session = Session::new(client);
        let bounds = self.0.bounds;
        let (mut receiver, mut sender) =
            link(stream, protocol, bounds, session.wake(), self.0.bus.clone());
        let welcome = ServerFrame::Welcome {
            server: NAME,
            epoch: self.0.bus.epoch(),
            limits: self.limits(),
        };
        let identity = session.client().principal().identity.clone();
        sender.push_welcome(&welcome, self.0.bus.clock().unix_ms(), &identity);
        let welcomed = timeout(bounds.idle_timeout, sender.flush()).await;
        let unwelcome = match welcomed {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(io::ErrorKind::TimedOut.into()),
        };
        if let Some(error) = unwelcome {
            logging::disconnected(session.client(), &Ended::Sender(error));
            return;
        }
        // No other connection can take a WebSocket's session over.
        let ended = session.run(&mut receiver, &mut sender, pending()).await;
        logging::disconnected(session.client(), &ended);
        drop(session);
        drop(sender);
        receiver.drain().await;
    }

    fn limits(&self) -> Limits {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (hub, session) = (self.0.bus.limits(), self.0.bus.session_limits());
        Limits {
            payload_bytes: number(hub.payload_bytes),
            topic_bytes: number(hub.topic_bytes),
            subscriptions: number(session.subscriptions),
            in_flight: number(session.in_flight),
        }
    }
}
