//! The first bytes of a connection: whether they are TLS at all.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::{self, IoSlice};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Enough to tell one protocol from another.
const BYTES: usize = 8;
/// The type of a TLS record in a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// What a client that does not speak TLS seems to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    Http,
    Mqtt,
    /// A header of the PROXY protocol, of a peer that is no trusted proxy.
    Proxy,
    Unknown,
}

/// A stream of which a few bytes were read: they are read again.
#[derive(Debug)]
pub(crate) struct Peeked<S> {
    pub(crate) stream: S,
    bytes: [u8; BYTES],
    start: u8,
    end: u8,
}

impl<S: AsyncRead + Unpin> Peeked<S> {
    /// Waits for the first bytes.
    ///
    /// # Errors
    /// When the stream fails, or ends before the first.
    pub(crate) async fn peek(mut stream: S) -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        let end = stream.read(&mut bytes).await?;
        if end == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self {
            stream,
            bytes,
            start: 0,
            end: end as u8,
        })
    }
}

impl<S> Peeked<S> {
    fn unread(&self) -> &[u8] {
        let range = usize::from(self.start)..usize::from(self.end);
        self.bytes.get(range).unwrap_or_default()
    }

    /// What it speaks, if that is not TLS.
    pub(crate) fn plain(&self) -> Option<Plain> {
        const METHODS: [&[u8]; 9] = [
            b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI ",
        ];
        let bytes = self.unread();
        let begins = |words: &[u8]| bytes.iter().zip(words).all(|(a, b)| a == b);
        match bytes {
            [HANDSHAKE, ..] => None,
            [0x10, ..] => Some(Plain::Mqtt),
            _ if begins(b"PROXY ") || begins(b"\r\n\r\n\0\r\nQUIT\n") => Some(Plain::Proxy),
            _ if METHODS.iter().any(|method| begins(method)) => Some(Plain::Http),
            _ => Some(Plain::Unknown),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Peeked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let unread = self.unread();
        if unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = unread.len().min(buf.remaining());
        buf.put_slice(unread.get(..n).unwrap_or_default());
        self.start += n as u8;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Peeked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn peek(bytes: &[u8]) -> Option<Plain> {
        let mut peeked = Peeked::peek(bytes).await.unwrap();
        let plain = peeked.plain();
        let mut all = Vec::new();
        peeked.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, bytes);
        plain
    }

    #[tokio::test]
    async fn protocols_are_told_apart_and_nothing_is_lost() {
        assert_eq!(peek(&[22, 3, 1, 0, 5, 1, 2, 3, 4, 5, 6]).await, None);
        assert_eq!(peek(&[22]).await, None);
        for (bytes, plain) in [
            (&b"\x10\x0e\x00\x04MQTT"[..], Plain::Mqtt),
            (b"GET / HTTP/1.1\r\n", Plain::Http),
            (b"G", Plain::Http),
            (b"OPTIONS * HTTP/1.1\r\n", Plain::Http),
            (b"PRI * HTTP/2.0\r\n", Plain::Http),
            (b"PROXY TCP4 1.2.3.4", Plain::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Plain::Proxy),
            (b"\x80\x2e\x01", Plain::Unknown),
            (b"SSH-2.0-OpenSSH", Plain::Unknown),
            (b"\0", Plain::Unknown),
        ] {
            assert_eq!(peek(bytes).await, Some(plain), "{bytes:?}");
        }
        assert!(Peeked::peek(&b""[..]).await.is_err());
    }
}
