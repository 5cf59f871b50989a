//! Where the connections of a server come from.
//!
//! HTTP and MQTT serve what any [`Acceptor`] accepts: a TCP listener, a Unix socket, [`memory`](memory()) in a test, or what a
//! program brings, TLS for instance, whose handshake is the [`begin`](Connection::begin) of its connections.

use core::future::Future;
use core::net::SocketAddr;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::either::Either;

use crate::Certificate;
use crate::proxy::{self, Networks};
use crate::tcp;

/// Accepts connections.
pub trait Acceptor: Send + 'static {
    /// What it accepts.
    type Connection: Connection;

    /// The next connection. Cancel-safe. After an error a server calls it again, a little later; what takes time (a
    /// handshake) is for [`Connection::begin`], so that nobody waits for somebody else's.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

/// Whether an error of [`Connection::begin`] is no news: the peer has gone away before it has sent anything, as health checks
/// and port scans do.
pub fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
    )
}

/// A connection that was just accepted.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The half that reads.
    type Reader: AsyncRead + Unpin + Send + 'static;
    /// The half that writes.
    type Writer: AsyncWrite + Unpin + Send + 'static;

    /// Where it comes from; none where there are no addresses.
    fn peer(&self) -> Option<SocketAddr>;

    /// The port at which it has arrived; none where there are no ports.
    fn local_port(&self) -> Option<u16> {
        None
    }

    /// Whatever precedes the first byte of the protocol, in the task of the connection; its result is the address of the
    /// client, which the proxies of `trusted` may name. Bounded in time.
    ///
    /// # Errors
    /// When the connection is to be closed: what it says is shown in the log.
    fn begin(
        &mut self,
        trusted: &Networks,
    ) -> impl Future<Output = io::Result<Option<SocketAddr>>> + Send {
        let _ = trusted;
        let peer = self.peer();
        async move { Ok(peer) }
    }

    /// Whether nobody between the two ends can read or change it: TLS.
    fn is_secure(&self) -> bool {
        false
    }

    /// The certificate that the client has shown and that was verified. Known once it has begun.
    fn certificate(&self) -> Option<Arc<Certificate>> {
        None
    }

    /// Its halves, for whoever reads and writes apart.
    fn into_split(self) -> (Self::Reader, Self::Writer);
}

impl Acceptor for TcpListener {
    type Connection = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        // Answers are small and somebody waits for them. Without these options it works too.
        if let Err(error) = tcp::prepare(&stream) {
            tracing::debug!(target: "bus", %error, "TCP options");
        }
        Ok(stream)
    }
}

impl Connection for TcpStream {
    type Reader = OwnedReadHalf;
    type Writer = OwnedWriteHalf;

    fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    fn local_port(&self) -> Option<u16> {
        self.local_addr().ok().map(|local| local.port())
    }

    /// Reads the header of the PROXY protocol, where a trusted proxy sends one.
    async fn begin(&mut self, trusted: &Networks) -> io::Result<Option<SocketAddr>> {
        let Ok(peer) = self.peer_addr() else {
            // It is gone already, as its first read will say.
            return Ok(None);
        };
        proxy::client(self, peer, trusted).await.map(Some)
    }

    fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        self.into_split()
    }
}

#[cfg(unix)]
impl Acceptor for tokio::net::UnixListener {
    type Connection = tokio::net::UnixStream;

    async fn accept(&mut self) -> io::Result<tokio::net::UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

#[cfg(unix)]
impl Connection for tokio::net::UnixStream {
    type Reader = tokio::net::unix::OwnedReadHalf;
    type Writer = tokio::net::unix::OwnedWriteHalf;

    fn peer(&self) -> Option<SocketAddr> {
        None
    }

    fn into_split(self) -> (Self::Reader, Self::Writer) {
        self.into_split()
    }
}

impl Connection for DuplexStream {
    type Reader = ReadHalf<Self>;
    type Writer = WriteHalf<Self>;

    fn peer(&self) -> Option<SocketAddr> {
        None
    }

    fn into_split(self) -> (Self::Reader, Self::Writer) {
        split(self)
    }
}

/// One or the other, for a server that accepts both.
impl<L: Connection, R: Connection> Connection for Either<L, R> {
    type Reader = Either<L::Reader, R::Reader>;
    type Writer = Either<L::Writer, R::Writer>;

    fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Left(left) => left.peer(),
            Self::Right(right) => right.peer(),
        }
    }

    fn local_port(&self) -> Option<u16> {
        match self {
            Self::Left(left) => left.local_port(),
            Self::Right(right) => right.local_port(),
        }
    }

    async fn begin(&mut self, trusted: &Networks) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Left(left) => left.begin(trusted).await,
            Self::Right(right) => right.begin(trusted).await,
        }
    }

    fn is_secure(&self) -> bool {
        match self {
            Self::Left(left) => left.is_secure(),
            Self::Right(right) => right.is_secure(),
        }
    }

    fn certificate(&self) -> Option<Arc<Certificate>> {
        match self {
            Self::Left(left) => left.certificate(),
            Self::Right(right) => right.certificate(),
        }
    }

    fn into_split(self) -> (Self::Reader, Self::Writer) {
        match self {
            Self::Left(left) => {
                let (reader, writer) = left.into_split();
                (Either::Left(reader), Either::Left(writer))
            }
            Self::Right(right) => {
                let (reader, writer) = right.into_split();
                (Either::Right(reader), Either::Right(writer))
            }
        }
    }
}

/// A large connection among small ones: what it needs to begin is on the heap, too.
impl<C: Connection> Connection for Box<C> {
    type Reader = C::Reader;
    type Writer = C::Writer;

    fn peer(&self) -> Option<SocketAddr> {
        (**self).peer()
    }

    fn local_port(&self) -> Option<u16> {
        (**self).local_port()
    }

    async fn begin(&mut self, trusted: &Networks) -> io::Result<Option<SocketAddr>> {
        Box::pin((**self).begin(trusted)).await
    }

    fn is_secure(&self) -> bool {
        (**self).is_secure()
    }

    fn certificate(&self) -> Option<Arc<Certificate>> {
        (**self).certificate()
    }

    fn into_split(self) -> (Self::Reader, Self::Writer) {
        (*self).into_split()
    }
}

/// An acceptor in memory, and what connects to it. Each direction of a connection holds up to `bytes` on the way.
pub fn memory(bytes: usize) -> (MemoryAcceptor, MemoryConnector) {
    let (sender, connections) = mpsc::channel(MEMORY_BACKLOG);
    let connector = MemoryConnector {
        bytes,
        acceptor: sender,
    };
    (MemoryAcceptor(connections), connector)
}

/// Connections in memory that wait to be accepted.
const MEMORY_BACKLOG: usize = 16;

/// Accepts connections in memory: see [`memory`](memory()).
#[derive(Debug)]
pub struct MemoryAcceptor(mpsc::Receiver<DuplexStream>);

/// Makes connections in memory. Without any the acceptor waits for ever.
#[derive(Debug, Clone)]
pub struct MemoryConnector {
    bytes: usize,
    acceptor: mpsc::Sender<DuplexStream>,
}

impl MemoryConnector {
    /// Connects. Waits while 16 connections have not been accepted.
    ///
    /// # Errors
    /// When the acceptor is gone.
    pub async fn connect(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = duplex(self.bytes);
        let sent = self.acceptor.send(theirs).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(ours)
    }
}

impl Acceptor for MemoryAcceptor {
    type Connection = DuplexStream;

    async fn accept(&mut self) -> io::Result<DuplexStream> {
        match self.0.recv().await {
            Some(connection) => Ok(connection),
            None => core::future::pending().await,
        }
    }
}
