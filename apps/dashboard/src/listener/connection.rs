//! A connection of whichever listener.

use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::{self, IoSlice};
use std::sync::Arc;

use latchbus_bus::Certificate;
use latchbus_bus::accept::Connection;
use latchbus_bus::proxy::Networks;
use latchbus_tls::accept::TlsConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// Plain TCP, a Unix socket, or TLS, which is boxed so that it makes the others no larger.
#[derive(Debug)]
pub(crate) enum AnyConnection {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Tls(Box<TlsConnection<TcpStream>>),
}

type HalvesOf<C> = (<C as Connection>::Reader, <C as Connection>::Writer);

/// Its half that reads.
#[derive(Debug)]
pub(crate) enum Reader {
    Tcp(<TcpStream as Connection>::Reader),
    #[cfg(unix)]
    Unix(<UnixStream as Connection>::Reader),
    Tls(<TlsConnection<TcpStream> as Connection>::Reader),
}

/// Its half that writes.
#[derive(Debug)]
pub(crate) enum Writer {
    Tcp(<TcpStream as Connection>::Writer),
    #[cfg(unix)]
    Unix(<UnixStream as Connection>::Writer),
    Tls(<TlsConnection<TcpStream> as Connection>::Writer),
}

impl Connection for AnyConnection {
    type Reader = Reader;
    type Writer = Writer;

    fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer(),
            #[cfg(unix)]
            Self::Unix(stream) => stream.peer(),
            Self::Tls(stream) => stream.peer(),
        }
    }

    fn local_port(&self) -> Option<u16> {
        match self {
            Self::Tcp(stream) => stream.local_port(),
            #[cfg(unix)]
            Self::Unix(stream) => stream.local_port(),
            Self::Tls(stream) => stream.local_port(),
        }
    }

    async fn begin(&mut self, trusted: &Networks) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(stream) => stream.begin(trusted).await,
            #[cfg(unix)]
            Self::Unix(stream) => stream.begin(trusted).await,
            // A handshake is large, and most connections have none.
            Self::Tls(stream) => Box::pin(stream.begin(trusted)).await,
        }
    }

    fn is_secure(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    fn certificate(&self) -> Option<Arc<Certificate>> {
        match self {
            Self::Tls(stream) => stream.certificate(),
            _ => None,
        }
    }

    fn into_split(self) -> (Reader, Writer) {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer): HalvesOf<TcpStream> = Connection::into_split(stream);
                (Reader::Tcp(reader), Writer::Tcp(writer))
            }
            #[cfg(unix)]
            Self::Unix(stream) => {
                let (reader, writer): HalvesOf<UnixStream> = Connection::into_split(stream);
                (Reader::Unix(reader), Writer::Unix(writer))
            }
            Self::Tls(stream) => {
                let (reader, writer) = (*stream).into_split();
                (Reader::Tls(reader), Writer::Tls(writer))
            }
        }
    }
}

impl AsyncRead for AnyConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for AnyConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(unix)]
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(reader) => Pin::new(reader).poll_read(cx, buf),
            #[cfg(unix)]
            Self::Unix(reader) => Pin::new(reader).poll_read(cx, buf),
            Self::Tls(reader) => Pin::new(reader).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(writer) => Pin::new(writer).poll_write(cx, buf),
            #[cfg(unix)]
            Self::Unix(writer) => Pin::new(writer).poll_write(cx, buf),
            Self::Tls(writer) => Pin::new(writer).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(writer) => Pin::new(writer).poll_write_vectored(cx, bufs),
            #[cfg(unix)]
            Self::Unix(writer) => Pin::new(writer).poll_write_vectored(cx, bufs),
            Self::Tls(writer) => Pin::new(writer).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(writer) => writer.is_write_vectored(),
            #[cfg(unix)]
            Self::Unix(writer) => writer.is_write_vectored(),
            Self::Tls(writer) => writer.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(writer) => Pin::new(writer).poll_flush(cx),
            #[cfg(unix)]
            Self::Unix(writer) => Pin::new(writer).poll_flush(cx),
            Self::Tls(writer) => Pin::new(writer).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(writer) => Pin::new(writer).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(writer) => Pin::new(writer).poll_shutdown(cx),
            Self::Tls(writer) => Pin::new(writer).poll_shutdown(cx),
        }
    }
}
