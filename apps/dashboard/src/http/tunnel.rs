//! A stream of bytes within binary WebSocket messages, however they are cut.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;

use bytes::Bytes;
use latchbus_bus::{Alarm, Hold};
use latchbus_mqtt::server::Activity;
use latchbus_ws::frame::{FrameReader, Incoming, Opcode, write_frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The most bytes in one message to the client.
const MESSAGE_BYTES: usize = 32 << 10;

/// What is taken from the socket in one go.
const READ_BYTES: usize = 4 << 10;

/// Close codes (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const NOT_BINARY: u16 = 1003;
const SILENT: u16 = 1008;
const TRY_AGAIN_LATER: u16 = 1013;

/// A tunnel that has sent nothing for so long sends a ping: proxies close connections that are quiet.
const PING_EVERY: Duration = Duration::from_secs(20);

/// One from which nothing has come for so long, not even a pong, is at its end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The server's side of a WebSocket as a stream of bytes. It holds at most one message of each direction,
/// and what was read in one go.
#[derive(Debug)]
pub(super) struct Tunnel<S> {
    stream: S,
    frames: FrameReader,
    /// What is left of the last message.
    rest: Bytes,
    /// Whether the client sends no more.
    ended: bool,
    /// Whole frames, the first of which may have been sent in part.
    out: Vec<u8>,
    sent: usize,
    /// Only the last ping needs an answer (RFC 6455 §5.5.3).
    pong: Option<Vec<u8>>,
    /// The code to close with, if it is not that of a normal end.
    close: Option<u16>,
    close_written: bool,
    closing: CancellationToken,
    /// What counts for the memory that all connections share, and who is told that bytes come in.
    accounted: Option<(Hold, Activity)>,
    heard: Instant,
    sent_at: Instant,
    alarm: Alarm,
}

impl<S> Tunnel<S> {
    /// A tunnel whose handshake is done. Longer messages end it with 1009; once `closing` is cancelled, it
    /// says 1001 at its end.
    pub(super) fn new(stream: S, max_message_bytes: usize, closing: CancellationToken) -> Self {
        Self {
            stream,
            frames: FrameReader::new(max_message_bytes),
            rest: Bytes::new(),
            ended: false,
            out: Vec::new(),
            sent: 0,
            pong: None,
            close: None,
            close_written: false,
            closing,
            accounted: None,
            heard: Instant::now(),
            sent_at: Instant::now(),
            alarm: Alarm::default(),
        }
    }

    /// Counts what is half received, and tells of it.
    pub(super) fn accounted(mut self, hold: Hold, activity: Activity) -> Self {
        self.accounted = Some((hold, activity));
        self
    }

    /// Takes note of what is half received.
    fn account(&mut self) -> io::Result<()> {
        let Some((hold, activity)) = &mut self.accounted else {
            return Ok(());
        };
        let held = self.frames.held_bytes();
        if held > 0 {
            activity.note();
        }
        hold.set(held).map_err(|exceeded| {
            self.end(TRY_AGAIN_LATER);
            io::Error::new(io::ErrorKind::OutOfMemory, exceeded)
        })
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Takes the next message that is complete; false when there is none.
    fn take_message(&mut self) -> io::Result<bool> {
        match self.frames.next_incoming() {
            Ok(None) => return Ok(false),
            Ok(Some(Incoming::Binary(bytes))) => self.rest = bytes.into(),
            Ok(Some(Incoming::Ping(payload))) => self.pong = Some(payload),
            Ok(Some(Incoming::Pong(_))) => {}
            Ok(Some(Incoming::Close(code))) => self.end(code.unwrap_or(NORMAL)),
            Ok(Some(Incoming::Text(_))) => {
                self.end(NOT_BINARY);
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "text within MQTT",
                ));
            }
            Err(error) => {
                self.end(error.close_code());
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(true)
    }

    fn end(&mut self, code: u16) {
        self.ended = true;
        self.close = Some(code);
    }
}

impl<S: AsyncWrite + Unpin> Tunnel<S> {
    /// Ready when it was quiet for so long that a ping was put out, or a pong should have come.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let at = (self.sent_at + PING_EVERY).min(self.heard + IDLE_TIMEOUT);
        ready!(self.alarm.poll_ring(Some(at), cx));
        let now = Instant::now();
        if now >= self.heard + IDLE_TIMEOUT {
            self.end(SILENT);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if now >= self.sent_at + PING_EVERY {
            self.sent_at = now;
            if !self.close_written {
                write_frame(&mut self.out, Opcode::Ping, &[]);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is buffered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(pong) = self.pong.take().filter(|_| !self.close_written) {
            write_frame(&mut self.out, Opcode::Pong, &[&pong]);
        }
        while let Some(unsent @ [_, ..]) = self.out.get(self.sent..) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        // A connection that waits holds no buffer.
        self.out = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.rest.is_empty() {
                let taken = this.rest.len().min(buf.remaining());
                buf.put_slice(&this.rest.split_to(taken));
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if this.take_message()? {
                this.account()?;
                continue;
            }
            // Whoever reads need not write: what is owed goes out here. If it cannot yet, the next write
            // or read sends it.
            if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            let mut bytes = [0; READ_BYTES];
            let mut bytes = ReadBuf::new(&mut bytes);
            if Pin::new(&mut this.stream)
                .poll_read(cx, &mut bytes)?
                .is_pending()
            {
                ready!(this.poll_quiet(cx))?;
                continue;
            }
            if bytes.filled().is_empty() {
                this.ended = true;
            }
            this.heard = Instant::now();
            this.frames.feed(bytes.filled());
            this.account()?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let message = buf.get(..MESSAGE_BYTES).unwrap_or(buf);
        this.sent_at = Instant::now();
        write_frame(&mut this.out, Opcode::Binary, &[message]);
        // A writer to a socket need not flush.
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(message.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.close_written {
            this.close_written = true;
            let ours = if this.closing.is_cancelled() {
                GOING_AWAY
            } else {
                NORMAL
            };
            let code = this.close.unwrap_or(ours);
            write_frame(&mut this.out, Opcode::Close, &[&code.to_be_bytes()]);
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
