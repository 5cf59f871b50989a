//! Connections that begin with a handshake.

use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io::{self, IoSlice};
use std::sync::Arc;

use latchbus_bus::Certificate;
use latchbus_bus::accept::{Acceptor, Connection};
use latchbus_bus::proxy::Networks;
use rustls::{AlertDescription, Error, PeerIncompatible};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf,
    split,
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use crate::first_bytes::{Peeked, Plain};
use crate::server::{Protocol, Server};
use crate::subject::names;

/// Of a request in plain text, so much is read before its connection is closed, so that the answer arrives.
const PLAIN_REQUEST_BYTES: u64 = 64 << 10;
/// and for so long.
const PLAIN_REQUEST_TIME: Duration = Duration::from_secs(1);

/// To anyone else: a fatal alert, unexpected_message (RFC 8446 §6.2), by which a client can tell that TLS is spoken here.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];

/// To a browser or a program that speaks HTTP where HTTPS is spoken.
const PLAIN_HTTP: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 58\r\n\
                          Connection: close\r\n\r\nThis port speaks TLS: the address begins with https://...\n";

/// Why a handshake has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The client does not speak TLS.
    #[error("plain {0} on the TLS listener")]
    Plain(&'static str),
    /// A proxy that is not trusted has sent its header.
    #[error("a PROXY header on the TLS listener, of a proxy that is not in trusted_proxies")]
    UntrustedProxy,
    /// It took too long.
    #[error("the TLS handshake was not complete within {0:?}")]
    Slow(Duration),
    /// As many as may wait are waiting for a handshake already.
    #[error("{0} connections wait for a TLS handshake already")]
    Crowded(usize),
    /// The client has gone away within it.
    #[error("the client has ended the TLS handshake")]
    Ended,
    /// The client offers only older versions.
    #[error("the client offers neither TLS 1.2 nor TLS 1.3")]
    Version,
    /// The client names other protocols alone (ALPN).
    #[error("the client does not offer the protocol {0} (ALPN)")]
    Protocol(&'static str),
    /// The client does not trust the server.
    #[error("the client does not accept the server's certificate ({0:?})")]
    NotTrusted(AlertDescription),
    /// The client has no certificate.
    #[error("the client shows no certificate, and one is required")]
    NoCertificate,
    /// The client's certificate is not one of the named authorities, or its time is over.
    #[error("the client's certificate is not valid: {0}")]
    Certificate(#[source] Error),
    /// Anything else.
    #[error("the TLS handshake has failed: {0}")]
    Other(#[source] Error),
}

impl HandshakeError {
    fn of(error: io::Error, protocol: Protocol) -> io::Error {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Ended.into();
        }
        let Some(inner) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>())
        else {
            return error;
        };
        match inner.clone() {
            Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // Which came with TLS 1.2, and is looked at first.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
            ) => Self::Version,
            Error::NoApplicationProtocol => Self::Protocol(protocol.alpn()),
            Error::NoCertificatesPresented => Self::NoCertificate,
            error @ Error::InvalidCertificate(_) => Self::Certificate(error),
            Error::AlertReceived(
                alert @ (AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRevoked),
            ) => Self::NotTrusted(alert),
            error => Self::Other(error),
        }
        .into()
    }
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        let kind = match error {
            HandshakeError::Slow(_) => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Accepts what another acceptor does, with TLS over it.
#[derive(Debug)]
pub struct TlsAcceptor<A> {
    inner: A,
    server: Server,
    protocol: Protocol,
}

impl<A> TlsAcceptor<A> {
    /// TLS over this acceptor.
    pub const fn new(inner: A, server: Server, protocol: Protocol) -> Self {
        Self {
            inner,
            server,
            protocol,
        }
    }
}

impl<A: Acceptor> Acceptor for TlsAcceptor<A> {
    type Connection = TlsConnection<A::Connection>;

    async fn accept(&mut self) -> io::Result<Self::Connection> {
        let connection = self.inner.accept().await?;
        let server = self.server.clone();
        Ok(TlsConnection::new(connection, server, self.protocol))
    }
}

/// A connection with TLS. [`begin`](Connection::begin) is its handshake, after what the connection below it begins with;
/// before that it can be neither read nor written.
#[derive(Debug)]
pub struct TlsConnection<C> {
    stage: Stage<C>,
    server: Server,
    protocol: Protocol,
    peer: Option<SocketAddr>,
    local_port: Option<u16>,
    certificate: Option<Arc<Certificate>>,
}

#[derive(Debug)]
enum Stage<C> {
    Accepted(C),
    Open(Box<TlsStream<Peeked<C>>>),
    Closed,
}

impl<C: Connection> TlsConnection<C> {
    /// A connection that was just accepted.
    pub fn new(connection: C, server: Server, protocol: Protocol) -> Self {
        Self {
            peer: connection.peer(),
            local_port: connection.local_port(),
            stage: Stage::Accepted(connection),
            server,
            protocol,
            certificate: None,
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TlsStream<Peeked<C>>>> {
        match &mut self.stage {
            Stage::Open(stream) => Ok(Pin::new(stream.as_mut())),
            Stage::Accepted(_) | Stage::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

async fn handshake<C: Connection>(
    server: &Server,
    protocol: Protocol,
    connection: C,
) -> io::Result<TlsStream<Peeked<C>>> {
    let limits = server.limits();
    let began = Instant::now();
    let deadline = began + limits.timeout;
    let place = timeout_at(deadline, server.handshakes().enter()).await;
    let place = place.map_err(|_| HandshakeError::Slow(limits.timeout))?;
    let place = place.ok_or(HandshakeError::Crowded(limits.waiting))?;
    let shakes = async {
        let stream = Peeked::peek(connection).await?;
        if let Some(plain) = stream.plain() {
            return Err(refuse(stream.stream, plain, protocol).await);
        }
        let config = server.config(protocol);
        let accept = tokio_rustls::TlsAcceptor::from(config).accept(stream);
        let accepted = server.threads().run(accept).await;
        accepted.map_err(|error| HandshakeError::of(error, protocol))
    };
    tokio::select! {
        done = shakes => done,
        () = place.expires(deadline) => {
            let cut_at = if Instant::now() < deadline { limits.crowded_timeout } else { limits.timeout };
            Err(HandshakeError::Slow(cut_at).into())
        }
    }
}

async fn refuse<C: Connection>(mut stream: C, plain: Plain, protocol: Protocol) -> io::Error {
    let answer = match (plain, protocol) {
        (Plain::Http, Protocol::Http) => PLAIN_HTTP.as_bytes(),
        _ => &ALERT,
    };
    // If the client is gone, there is nobody to be told.
    let _told = timeout(PLAIN_REQUEST_TIME, async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut rest = (&mut stream).take(PLAIN_REQUEST_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    })
    .await;
    match plain {
        Plain::Http => HandshakeError::Plain("HTTP"),
        Plain::Mqtt => HandshakeError::Plain("MQTT"),
        Plain::Proxy => HandshakeError::UntrustedProxy,
        Plain::Unknown => HandshakeError::Plain(match protocol.name() {
            "HTTP" => "bytes that are not HTTPS",
            _ => "bytes that are not MQTT over TLS",
        }),
    }
    .into()
}

impl<C: Connection> Connection for TlsConnection<C> {
    type Reader = ReadHalf<Self>;
    type Writer = WriteHalf<Self>;

    fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    fn local_port(&self) -> Option<u16> {
        self.local_port
    }

    async fn begin(&mut self, trusted: &Networks) -> io::Result<Option<SocketAddr>> {
        let accepted = core::mem::replace(&mut self.stage, Stage::Closed);
        let Stage::Accepted(mut connection) = accepted else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let address = connection.begin(trusted).await?;
        let stream = handshake(&self.server, self.protocol, connection).await?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates().and_then(|shown| shown.first());
        self.certificate = shown.and_then(names).map(Arc::new);
        self.stage = Stage::Open(Box::new(stream));
        Ok(address)
    }

    fn is_secure(&self) -> bool {
        true
    }

    fn certificate(&self) -> Option<Arc<Certificate>> {
        self.certificate.clone()
    }

    fn into_split(self) -> (Self::Reader, Self::Writer) {
        split(self)
    }
}

impl<C: Connection> AsyncRead for TlsConnection<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl<C: Connection> AsyncWrite for TlsConnection<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stage {
            Stage::Open(stream) => stream.is_write_vectored(),
            Stage::Accepted(_) | Stage::Closed => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}
