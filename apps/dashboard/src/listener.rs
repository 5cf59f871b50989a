//! The listeners of one protocol: TCP, Unix sockets and TLS as one [`Acceptor`].
//!
//! Sockets are bound first and listen later, so that a program that cannot start has taken no connection.

#[cfg(unix)]
mod unix;

use core::fmt;
use core::future::poll_fn;
use core::net::SocketAddr;
use core::task::{Context, Poll, ready};
use std::io;

use anyhow::Context as _;
use latchbus_bus::accept::Acceptor;
use latchbus_tls::accept::TlsConnection;
use latchbus_tls::server::{Protocol, Server};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::either::Either;

use crate::settings::{Addresses, Listen, UnixMode};

/// Connections that wait to be accepted; the system may allow fewer. All dashboards come back at once when
/// a server has been restarted.
const BACKLOG: u16 = 4_096;

/// TLS over a TCP listener.
pub(crate) type Tls = (Server, Protocol);

/// TCP, or a Unix socket.
#[cfg(unix)]
type Plain = Either<TcpStream, tokio::net::UnixStream>;

/// TCP.
#[cfg(not(unix))]
type Plain = TcpStream;

/// A connection of whichever listener. TLS is boxed, so that it makes the others no larger.
type AnyConnection = Either<Plain, Box<TlsConnection<TcpStream>>>;

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(std::path::PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Ports and names that are taken, on which nothing listens yet.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    tcp: Vec<(TcpSocket, SocketAddr, Option<Tls>)>,
    #[cfg(unix)]
    unix: Vec<unix::Bound>,
    /// In their order.
    addresses: Vec<Address>,
}

impl Bound {
    /// Takes what the setting names, and what more of it there is.
    pub(crate) fn bind(
        &mut self,
        listen: &Addresses,
        what: &str,
        mode: UnixMode,
        tls: Option<&Tls>,
    ) -> anyhow::Result<Addressed> {
        let first = self.addresses.len();
        for listen in &listen.0 {
            let bound = match listen {
                Listen::Off => Ok(()),
                Listen::At(address) => self.tcp(*address, tls),
                Listen::Name { addresses, .. } => self.name(addresses, tls),
                Listen::Unix(path) => self.unix(path, mode),
            };
            bound.with_context(|| format!("{what} cannot listen on {listen}"))?;
        }
        let found = self.addresses.get(first..).unwrap_or_default();
        Ok(Addressed(found.to_vec()))
    }

    fn tcp(&mut self, address: SocketAddr, tls: Option<&Tls>) -> io::Result<()> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A port whose last connections have just ended can be taken again at once. On Windows the
        // option means that a port may be taken twice.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let address = socket.local_addr()?;
        self.addresses.push(Address::Tcp(address));
        self.tcp.push((socket, address, tls.cloned()));
        Ok(())
    }

    /// All addresses of a name, at one port, but those of a kind that this machine does not have.
    fn name(&mut self, addresses: &[SocketAddr], tls: Option<&Tls>) -> io::Result<()> {
        let (mut port, mut missing) = (None, None);
        for address in addresses {
            let mut address = *address;
            address.set_port(port.unwrap_or(address.port()));
            match self.tcp(address, tls) {
                Ok(()) => port = self.tcp.last().map(|(_, address, _)| address.port()),
                Err(error) if is_not_here(&error) => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        match (port, missing) {
            (None, Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    #[cfg(unix)]
    fn unix(&mut self, path: &std::path::Path, mode: UnixMode) -> io::Result<()> {
        self.unix.push(unix::Bound::bind(path, mode)?);
        self.addresses.push(Address::Unix(path.to_owned()));
        Ok(())
    }

    #[cfg(not(unix))]
    fn unix(&mut self, _: &std::path::Path, _: UnixMode) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Listens; none where there is nothing to listen on.
    pub(crate) fn listen(self, what: &str) -> anyhow::Result<Option<Listeners>> {
        let mut sockets = Vec::with_capacity(self.addresses.len());
        for (socket, address, tls) in self.tcp {
            let listener = socket.listen(BACKLOG.into());
            let listener =
                listener.with_context(|| format!("{what} cannot listen on {address}"))?;
            sockets.push(Socket::Tcp(listener, tls));
        }
        #[cfg(unix)]
        for bound in self.unix {
            let path = bound.path().display().to_string();
            let listener = bound.listen(BACKLOG);
            let listener =
                listener.with_context(|| format!("{what} cannot listen on unix:{path}"))?;
            sockets.push(Socket::Unix(listener));
        }
        Ok((!sockets.is_empty()).then_some(Listeners { sockets, next: 0 }))
    }
}

fn is_not_here(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || cfg!(target_os = "linux") && error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// A kernel without IPv6.
const EAFNOSUPPORT: i32 = 97;

/// Where a protocol listens; shown as a list that is divided by commas, or `off`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addressed(Vec<Address>);

impl Addressed {
    pub(crate) fn is_off(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Addressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_off() {
            return f.write_str("off");
        }
        for (n, address) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            address.fmt(f)?;
        }
        Ok(())
    }
}

/// Listeners that are served as one.
#[derive(Debug)]
pub(crate) struct Listeners {
    sockets: Vec<Socket>,
    /// Which is asked first, so that none keeps the others waiting.
    next: usize,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, Option<Tls>),
    #[cfg(unix)]
    Unix(unix::Listener),
}

impl Socket {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<AnyConnection>> {
        match self {
            Self::Tcp(listener, tls) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                // Answers are small and somebody waits for them. Without these options it works too.
                if let Err(error) = latchbus_bus::tcp::prepare(&stream) {
                    tracing::debug!(target: "server", %error, "TCP options");
                }
                Poll::Ready(Ok(match tls {
                    #[cfg(unix)]
                    None => Either::Left(Either::Left(stream)),
                    #[cfg(not(unix))]
                    None => Either::Left(stream),
                    Some((server, protocol)) => {
                        let connection = TlsConnection::new(stream, server.clone(), *protocol);
                        Either::Right(Box::new(connection))
                    }
                }))
            }
            #[cfg(unix)]
            Self::Unix(listener) => listener
                .poll_accept(cx)
                .map(|accepted| accepted.map(|stream| Either::Left(Either::Right(stream)))),
        }
    }
}

impl Acceptor for Listeners {
    type Connection = AnyConnection;

    async fn accept(&mut self) -> io::Result<AnyConnection> {
        poll_fn(|cx| {
            let first = self.next % self.sockets.len().max(1);
            let (before, from) = self.sockets.split_at(first);
            for (passed, socket) in from.iter().chain(before).enumerate() {
                if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                    self.next = first + passed + 1;
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}
