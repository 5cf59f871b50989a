//! Where a device is.

use core::{fmt, str::FromStr, time::Duration};
use std::io;

use serial2_tokio::SerialPort;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// The speed of a port that names none, in baud.
pub const DEFAULT_BAUD: u32 = 115_200;

/// What the kernel may hold of what is sent to a TCP peer, in bytes (it doubles the number). A serial line behind
/// it is slow: what waits in buffers is not conflated any more.
const SEND_BUFFER_BYTES: usize = 8 << 10;

/// How long a TCP peer may be silent before the kernel asks whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A serial port or a TCP socket.
///
/// Written `/dev/ttyUSB0@115200` (or any other path, for example of a pty; without a speed it is
/// [`DEFAULT_BAUD`]) or `tcp:HOST:PORT`.
///
/// ```
/// use latchbus_serial::Address;
///
/// let port: Address = "/dev/ttyACM0".parse()?;
/// assert_eq!(port.to_string(), "/dev/ttyACM0@115200");
/// let socket: Address = "tcp:bench.local:4000".parse()?;
/// assert_eq!(socket, Address::Tcp { host: "bench.local".into(), port: 4000 });
/// # Ok::<(), latchbus_serial::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A serial port or a pty.
    Port {
        /// The device's path, or its name on Windows.
        path: String,
        /// Its speed.
        baud: u32,
    },
    /// A TCP server that passes bytes on to a device.
    Tcp {
        /// A name or an IP address.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// The text is not an [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No path or no host.
    #[error("a serial address is PATH, PATH@BAUD or tcp:HOST:PORT")]
    Form,
    /// The speed is not a number from 1.
    #[error("the speed is not a number of baud")]
    Baud,
    /// The port is not a number from 1 to 65535.
    #[error("the TCP port is not a number from 1 to 65535")]
    Port,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(socket) = text.strip_prefix("tcp:") {
            let (host, port) = socket.rsplit_once(':').ok_or(AddressError::Form)?;
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let host = bare.unwrap_or(host);
            if host.is_empty() {
                return Err(AddressError::Form);
            }
            let port = number(port).ok_or(AddressError::Port)?;
            let host = host.to_owned();
            return Ok(Self::Tcp { host, port });
        }
        let (path, baud) = match text.rsplit_once('@') {
            Some((path, baud)) => (path, number(baud).ok_or(AddressError::Baud)?),
            None => (text, DEFAULT_BAUD),
        };
        if path.is_empty() {
            return Err(AddressError::Form);
        }
        let path = path.to_owned();
        Ok(Self::Port { path, baud })
    }
}

fn number<N: FromStr + PartialEq + From<u8>>(digits: &str) -> Option<N> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse().ok().filter(|n| *n != N::from(0));
    number.filter(|_| plain)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { path, baud } => write!(f, "{path}@{baud}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

/// An open address.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

impl Address {
    /// Opens the port, or connects.
    pub(crate) async fn open(&self) -> io::Result<Box<dyn Stream + Unpin>> {
        match self {
            Self::Port { path, baud } => {
                let (path, baud) = (path.clone(), *baud);
                // The serial driver may wait for the line's state. It binds the port to the reactor, so it needs
                // the runtime that a blocking task has too.
                let opened = tokio::task::spawn_blocking(move || SerialPort::open(path, baud));
                let port = opened.await.map_err(io::Error::other)??;
                // A sender that was here before may have left bytes behind: they are noise, and skipped.
                Ok(Box::new(port))
            }
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
                socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                Ok(Box::new(stream))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, written) in [
            ("/dev/ttyUSB0@115200", "/dev/ttyUSB0@115200"),
            ("/dev/ttyUSB0", "/dev/ttyUSB0@115200"),
            ("/dev/a@b@9600", "/dev/a@b@9600"),
            ("COM3@1000000", "COM3@1000000"),
            ("tcp:127.0.0.1:4000", "tcp:127.0.0.1:4000"),
            ("tcp:[::1]:4000", "tcp:[::1]:4000"),
            ("tcp:board.local:1", "tcp:board.local:1"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), written);
            assert_eq!(written.parse::<Address>(), text.parse());
        }
        for (text, error) in [
            ("", AddressError::Form),
            ("@9600", AddressError::Form),
            ("tcp:", AddressError::Form),
            ("tcp::1", AddressError::Form),
            ("tcp:localhost", AddressError::Form),
            ("tcp:localhost:", AddressError::Port),
            ("tcp:localhost:0", AddressError::Port),
            ("tcp:localhost:65536", AddressError::Port),
            ("tcp:localhost:+1", AddressError::Port),
            ("/dev/ttyUSB0@", AddressError::Baud),
            ("/dev/ttyUSB0@0", AddressError::Baud),
            ("/dev/ttyUSB0@fast", AddressError::Baud),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
