//! A stream of bytes within binary WebSocket messages, however they are cut.

use core::mem;
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

/// A tunnel sends a ping when it has sent nothing for so long, as proxies close connections that are quiet, and when nothing
/// has come for so long, as a client that only receives has nothing to say but pongs.
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
    /// Bytes have come since the last look for whole frames.
    fed: bool,
    heard: Instant,
    sent_at: Instant,
    pinged_at: Instant,
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
            fed: false,
            heard: Instant::now(),
            sent_at: Instant::now(),
            pinged_at: Instant::now(),
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
        let Some((hold, _)) = &mut self.accounted else {
            return Ok(());
        };
        hold.set(self.frames.held_bytes()).map_err(|exceeded| {
            self.end(TRY_AGAIN_LATER);
            io::Error::new(io::ErrorKind::OutOfMemory, exceeded)
        })
    }

    /// What is left when all whole frames were taken is a part of a message, which counts as life. Pings and pongs do
    /// not: a browser answers them by itself (MQTT 5 §3.1.2.10).
    fn note_activity(&mut self) {
        if mem::take(&mut self.fed)
            && self.frames.held_bytes() > 0
            && let Some((_, activity)) = &self.accounted
        {
            activity.note();
        }
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
        let quiet_since = self.sent_at.min(self.heard).max(self.pinged_at);
        let at = (quiet_since + PING_EVERY).min(self.heard + IDLE_TIMEOUT);
        ready!(self.alarm.poll_ring(Some(at), cx));
        let now = Instant::now();
        if now >= self.heard + IDLE_TIMEOUT {
            self.end(SILENT);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if now >= quiet_since + PING_EVERY {
            self.pinged_at = now;
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
            this.note_activity();
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
            this.fed = true;
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

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use latchbus_bus::{Bus, Options};
    use latchbus_mqtt::server::{Config, Server};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::sleep;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// The client's end of a connection, and the server of its MQTT.
    fn served(bus: Bus) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = duplex(4_096);
        let serving = tokio::spawn(async move {
            let (hold, activity) = (bus.incoming().hold(), Activity::default());
            let mut tunnel = Tunnel::new(far, 1 << 20, CancellationToken::new())
                .accounted(hold, activity.clone());
            let server = Server::new(bus, Config::default());
            server
                .connection_with(
                    &mut tunnel,
                    None,
                    Some(activity),
                    latchbus_bus::Credentials::default(),
                )
                .await;
            tunnel.shutdown().await.unwrap();
        });
        (near, serving)
    }

    /// A client's frame, whose mask is zero.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u16).to_be_bytes();
        [&[0x82, 0xFE], &length[..], &[0; 4], payload].concat()
    }

    fn connect(keep_alive: u8) -> Vec<u8> {
        let head = b"\x10\x0d\x00\x04MQTT\x04\x02\x00";
        frame(&[&head[..], &[keep_alive], b"\x00\x01c"].concat())
    }

    const CONNACK: &[u8] = b"\x82\x04\x20\x02\x00\x00";

    async fn connected(keep_alive: u8) -> (DuplexStream, JoinHandle<()>) {
        connected_to(Bus::open(Options::default()).unwrap(), keep_alive).await
    }

    async fn connected_to(bus: Bus, keep_alive: u8) -> (DuplexStream, JoinHandle<()>) {
        let (mut near, serving) = served(bus);
        near.write_all(&connect(keep_alive)).await.unwrap();
        let mut answer = [0; CONNACK.len()];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, CONNACK);
        (near, serving)
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_tunnel_is_pinged() {
        let (near, serving) = connected(0).await;
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let begin = Instant::now();
        for n in 1..=10 {
            // Reading answers the ping, which keeps the connection.
            let message = client.next().await.unwrap().unwrap();
            assert!(matches!(message, Message::Ping(_)), "{message:?}");
            let quiet = begin.elapsed().as_secs();
            assert!((20 * n..22 * n).contains(&quiet), "{quiet}");
        }
        assert!(!serving.is_finished());
    }

    /// A browser that shows what a busy bus publishes at QoS 0, and whose keep-alive is long or 0.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_only_receives_is_pinged() {
        let bus = Bus::open(Options::default()).unwrap();
        let (near, serving) = connected_to(bus.clone(), 0).await;
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let subscribe = &b"\x82\x06\x00\x01\x00\x01a\x00"[..];
        client.send(Message::binary(subscribe)).await.unwrap();
        let mut each_second = tokio::time::interval(Duration::from_secs(1));
        let (begin, mut pings) = (Instant::now(), 0);
        while begin.elapsed() < Duration::from_secs(205) {
            tokio::select! {
                _ = each_second.tick() => { bus.publish_state("a", "x").await.unwrap(); }
                message = client.next() => {
                    pings += u8::from(matches!(message.unwrap().unwrap(), Message::Ping(_)));
                }
            }
        }
        assert!(!serving.is_finished());
        assert!((9..=11).contains(&pings), "{pings}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_whose_client_does_not_answer_ends() {
        let (mut near, serving) = connected(0).await;
        let begin = Instant::now();
        serving.await.unwrap();
        let silent = begin.elapsed();
        assert!(silent >= Duration::from_secs(60) && silent < Duration::from_secs(65));
        let mut sent = Vec::new();
        near.read_to_end(&mut sent).await.unwrap();
        // Two pings, and a close frame of 1008.
        assert_eq!(sent, b"\x89\x00\x89\x00\x88\x02\x03\xf0");
    }

    /// A browser answers pings by itself, whatever has become of the MQTT client in it.
    #[tokio::test(start_paused = true)]
    async fn pings_and_pongs_are_no_life_of_the_mqtt_client() {
        let (mut near, serving) = connected(5).await;
        let begin = Instant::now();
        while !serving.is_finished() {
            for control in [b"\x89\x80\0\0\0\0", b"\x8a\x80\0\0\0\0"] {
                // It may have ended.
                let _ = near.write_all(control).await;
            }
            sleep(Duration::from_secs(1)).await;
        }
        let lived = begin.elapsed();
        assert!(lived >= Duration::from_secs(7) && lived < Duration::from_secs(10));
    }

    /// A frame that takes longer than the keep-alive: MQTT sees nothing of it before its end.
    #[tokio::test(start_paused = true)]
    async fn bytes_of_an_unfinished_frame_are_life_of_the_mqtt_client() {
        let (mut near, serving) = connected(5).await;
        let payload = [b'x'; 1_000];
        // At QoS 1; its length is 1,007 bytes.
        let publish = [b"\x32\xef\x07\x00\x03big\x00\x01", &payload[..]].concat();
        let frame = frame(&publish);
        for piece in frame.chunks(100) {
            sleep(Duration::from_secs(7)).await;
            near.write_all(piece).await.unwrap();
        }
        let mut answers = Vec::new();
        let puback = b"\x82\x04\x40\x02\x00\x01";
        while !answers.ends_with(puback) {
            assert_ne!(near.read_buf(&mut answers).await.unwrap(), 0);
        }

        // One that does not go on is silent.
        near.write_all(frame.get(..100).unwrap()).await.unwrap();
        let begin = Instant::now();
        serving.await.unwrap();
        let silent = begin.elapsed();
        assert!(silent >= Duration::from_secs(7) && silent < Duration::from_secs(16));
    }
}
