//! The connections of the HTTP listener.

use core::net::SocketAddr;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use core::task::{Context, Poll};
use core::time::Duration;
use std::io::{self, IoSlice};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use latchbus_bus::accept::{self, Acceptor, Connection};
use latchbus_bus::log::place;
use latchbus_bus::proxy;
use latchbus_ws::origin::{LocalPort, Secure};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tracing::field;

use super::{App, base};

/// After a failed accept: most often too many open files, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest head of a request, besides the topic in its address.
const HEAD_BYTES: usize = 64 << 10;

/// Accepts connections and lets the router answer them.
#[derive(Debug)]
pub(super) struct Connections {
    app: App,
    router: Router,
    permits: Arc<Semaphore>,
}

impl Connections {
    pub(super) fn new(app: &App, router: Router) -> Self {
        let permits = app.0.config.max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            app: app.clone(),
            router,
            permits: Arc::new(Semaphore::new(permits)),
        }
    }

    /// Accepts until the bus begins to close; ends after the connections have. An error of the listener
    /// or of a connection ends nothing else.
    pub(super) async fn accept(self, mut listener: impl Acceptor) {
        let this = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = this.app.0.closing.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(connection) => {
                        let Ok(permit) = Arc::clone(&this.permits).try_acquire_owned() else {
                            this.app.0.counts.connections_refused.add(1);
                            this.no_room(connection.peer());
                            continue;
                        };
                        connections.spawn(Arc::clone(&this).serve(connection, permit));
                    }
                    Err(error) => {
                        tracing::warn!(target: "http", %error, "cannot accept an HTTP connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// A connection that ends before its first byte of HTTP.
    fn not_begun(&self, address: Option<SocketAddr>, error: &io::Error) {
        let shown = place("http", address);
        if accept::is_gone(error) {
            tracing::debug!(target: "http", address = shown, %error, "HTTP connection ended");
            return;
        }
        let key = format!("no request {:?}", address.map(|address| address.ip()));
        if let Some(left_out) = self.app.0.bus.log_limit().allow(&key) {
            tracing::warn!(target: "http", address = shown, left_out, "connection closed: {error}");
        }
    }

    fn no_room(&self, address: Option<SocketAddr>) {
        let Some(left_out) = self.app.0.bus.log_limit().allow("connections http") else {
            return;
        };
        let limit = self.app.0.config.max_connections;
        tracing::warn!(
            target: "http",
            address = place("http", address),
            limit,
            setting = "limits.connections",
            left_out,
            "connection refused: too many connections"
        );
    }

    /// A header of the PROXY protocol that a trusted proxy has not sent as it should.
    fn broken_header(&self, proxy: Option<SocketAddr>, error: &io::Error) {
        let key = format!("proxy http {:?}", proxy.map(|proxy| proxy.ip()));
        if let Some(left_out) = self.app.0.bus.log_limit().allow(&key) {
            let proxy = proxy.map(field::display);
            tracing::warn!(target: "http", proxy, left_out, %error, "closed the connection of a proxy");
        }
    }

    /// One from an address that may not send it. It was answered as the request that it is not.
    fn header_of_a_stranger(&self, address: Option<SocketAddr>) {
        let key = format!("proxy http {:?}", address.map(|address| address.ip()));
        if let Some(left_out) = self.app.0.bus.log_limit().allow(&key) {
            let address = place("http", address);
            tracing::warn!(
                target: "http",
                address,
                setting = "trusted_proxies",
                left_out,
                "connection closed: a PROXY header from an address that trusted_proxies does not name"
            );
        }
    }

    /// Serves one connection until it ends, stalls, or becomes a WebSocket.
    async fn serve(self: Arc<Self>, mut stream: impl Connection, permit: OwnedSemaphorePermit) {
        let _open = Open::new(&self.app, permit);
        let trusted = &self.app.0.config.origin.trusted_proxies;
        // Of a connection that was reset it is not known any more.
        let peer = stream.peer();
        let address = match stream.begin(trusted).await {
            Ok(address) => address,
            Err(error) => {
                match peer {
                    Some(peer) if trusted.contains(peer.ip()) => {
                        self.broken_header(Some(peer), &error);
                    }
                    peer => self.not_begun(peer, &error),
                }
                return;
            }
        };
        let local_port = stream.local_port().map(LocalPort);
        let is_secure = stream.is_secure();
        let certificate = stream.certificate();
        let moved = Arc::new(Moved::default());
        let stream = Watched {
            stream,
            moved: Arc::clone(&moved),
        };
        let router = TowerToHyperService::new(self.router.clone());
        let app = self.app.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            if let Some(address) = address {
                request.extensions_mut().insert(ConnectInfo(address));
            }
            if let Some(local_port) = local_port {
                request.extensions_mut().insert(local_port);
            }
            if is_secure {
                request.extensions_mut().insert(Secure);
            }
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(Arc::clone(certificate));
            }
            base::take(&mut request, &app.0.config.base_path, &app.0.guard);
            base::take_dashboard(&mut request);
            base::take_slash(&mut request);
            router.call(request)
        });
        let config = &self.app.0.config;
        // In an address each byte of a topic may take three.
        let head_bytes = HEAD_BYTES + 3 * self.app.0.bus.limits().topic_bytes;
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(config.head_timeout)
                .max_buf_size(head_bytes)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
        );
        let mut ending = false;
        let mut look = interval(config.stall_timeout);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if moved.begins_with(Moved::HEADER) {
                        self.header_of_a_stranger(address);
                    } else if let Err(error) = ended {
                        if moved.begins_with(Moved::TLS) {
                            self.not_begun(address, &io::Error::other("TLS on the plain HTTP listener"));
                        } else if moved.begins_with(Moved::MQTT) {
                            self.not_begun(address, &io::Error::other("MQTT on an HTTP listener"));
                        }
                        tracing::debug!(target: "http", ?address, %error, "HTTP connection ended");
                    }
                    return;
                }
                () = self.app.0.closing.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = look.tick() => {
                    if !moved.take() {
                        tracing::debug!(target: "http", ?address, "HTTP connection stalled");
                        return;
                    }
                }
            }
        }
    }
}

/// Counts a connection while it is open.
#[derive(Debug)]
struct Open {
    app: App,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(app: &App, permit: OwnedSemaphorePermit) -> Self {
        app.0.counts.connections.up();
        Self {
            app: app.clone(),
            _permit: permit,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.app.0.counts.connections.down();
    }
}

/// A stream that notes when bytes move: a client that neither sends nor reads must not keep its connection
/// for ever.
#[derive(Debug)]
struct Watched<S> {
    stream: S,
    moved: Arc<Moved>,
}

/// What is known of the bytes of a connection.
#[derive(Debug)]
struct Moved {
    /// Since the last look.
    lately: AtomicBool,
    /// What it begins with.
    first: AtomicU8,
}

impl Default for Moved {
    fn default() -> Self {
        Self {
            lately: AtomicBool::new(true),
            first: AtomicU8::new(Self::NOTHING),
        }
    }
}

impl Moved {
    const NOTHING: u8 = 0;
    const SOMETHING: u8 = 1;
    const TLS: u8 = 2;
    /// A header of the PROXY protocol, which was not to be there.
    const HEADER: u8 = 3;
    /// A CONNECT of MQTT.
    const MQTT: u8 = 4;

    fn take(&self) -> bool {
        self.lately.swap(false, Ordering::Relaxed)
    }

    fn came(&self, bytes: &[u8]) {
        /// The type of the record with which TLS begins (RFC 8446 §5.1).
        const HANDSHAKE: u8 = 22;
        /// The first byte of a CONNECT (MQTT 3.1.1 §3.1.1). No method of HTTP begins so.
        const CONNECT: u8 = 0x10;

        if self.first.load(Ordering::Relaxed) != Self::NOTHING {
            return;
        }
        let first = match bytes {
            [] => return,
            [HANDSHAKE, ..] => Self::TLS,
            [CONNECT, ..] => Self::MQTT,
            bytes if proxy::is_header(bytes) => Self::HEADER,
            _ => Self::SOMETHING,
        };
        self.first.store(first, Ordering::Relaxed);
    }

    fn begins_with(&self, kind: u8) -> bool {
        self.first.load(Ordering::Relaxed) == kind
    }
}

impl<S> Watched<S> {
    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        if polled.is_ready() {
            self.moved.lately.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        (self.moved).came(buf.filled().get(before..).unwrap_or_default());
        self.note(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
