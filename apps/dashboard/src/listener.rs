//! Sockets that are bound first and listen later, so that a program that cannot start has taken no
//! connection.

use core::net::SocketAddr;
use std::io;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket};

use crate::settings::Listen;

/// Connections that wait to be accepted; the system may allow fewer. All dashboards come back at once when
/// a server has been restarted.
const BACKLOG: u32 = 4_096;

/// A port that is taken, on which nothing listens yet.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: TcpSocket,
    address: SocketAddr,
}

impl Bound {
    /// Takes a port; none where the setting is `off`.
    pub(crate) fn bind(listen: Listen, what: &str) -> anyhow::Result<Option<Self>> {
        let Listen::At(address) = listen else {
            return Ok(None);
        };
        let bind = || -> io::Result<Self> {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // A port whose last connections have just ended can be taken again at once. On Windows the
            // option means that a port may be taken twice.
            #[cfg(not(windows))]
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(Self { socket, address })
        };
        bind()
            .map(Some)
            .with_context(|| cannot_listen(what, address))
    }

    /// Listens. Also gives the address, with its actual port.
    pub(crate) fn listen(self, what: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
        let Self { socket, address } = self;
        let listen = || -> io::Result<_> {
            let listener = socket.listen(BACKLOG)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        listen().with_context(|| cannot_listen(what, address))
    }
}

fn cannot_listen(what: &str, address: SocketAddr) -> String {
    format!("{what} cannot listen on {address}")
}
