//! A connection's bytes, with TLS over them where the server speaks it.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Type};

/// Connects. From another address of this machine, it is another client to the server. A receive buffer of some size makes
/// a reader whose slowness is felt.
///
/// # Errors
/// When the server does not answer in time.
pub(crate) fn connected(
    address: SocketAddr,
    from: Option<SocketAddr>,
    receive_bytes: Option<usize>,
    time: Duration,
) -> io::Result<TcpStream> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(from) = from {
        socket.bind(&from.into())?;
    }
    socket.connect_timeout(&address.into(), time)?;
    socket.set_tcp_nodelay(true)?;
    // Ended by a reset: ten thousand connections leave no TIME_WAIT behind.
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(socket.into())
}

/// The client's side of a handshake with what listens at an address.
///
/// # Errors
/// When the settings do not allow it.
pub(crate) fn client(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
) -> io::Result<ClientConnection> {
    let name = ServerName::from(address.ip());
    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)
}

/// A stream that does not block.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: mio::net::TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Socket {
    /// Begins with the handshake, if there is one.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn begin(
        mut stream: TcpStream,
        config: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let mut tls = match config {
            Some(config) => Some(Box::new(client(config, stream.peer_addr()?)?)),
            None => None,
        };
        if let Some(tls) = &mut tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut stream)?;
            }
        }
        stream.set_nonblocking(true)?;
        let stream = mio::net::TcpStream::from_std(stream);
        Ok(Self { stream, tls })
    }

    /// Whose readiness says that it can be read or written.
    pub(crate) const fn stream(&self) -> &mio::net::TcpStream {
        &self.stream
    }

    /// The same, to be registered.
    pub(crate) const fn source(&mut self) -> &mut mio::net::TcpStream {
        &mut self.stream
    }
}

impl Read for Socket {
    /// Reads until the room is full or nothing more is there.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.stream.read(room);
        };
        let mut filled = 0;
        loop {
            match tls
                .reader()
                .read(room.get_mut(filled..).unwrap_or_default())
            {
                Ok(0) => return Ok(filled),
                Ok(more) => {
                    filled += more;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match tls.read_tls(&mut self.stream) {
                Ok(_) => {
                    tls.process_new_packets().map_err(io::Error::other)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && filled > 0 => {
                    return Ok(filled);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Write for Socket {
    /// With TLS it takes all, and sends the rest with the next [`flush`](Write::flush).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.stream.write(bytes);
        };
        let taken = tls.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
        }
        Ok(())
    }
}
