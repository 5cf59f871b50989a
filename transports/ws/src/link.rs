//! One connection of the server: the two halves that a session drives.

use core::{future::poll_fn, mem, mem::MaybeUninit, pin::Pin, task::Poll, time::Duration};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use latchbus_bus::frames::{Bad, decode_postcard, json};
use latchbus_bus::{
    Alarm, BatchEstimate, BudgetExceeded, Bus, Close, Event, Hold, Identity, LinkReceiver,
    LinkSender, Request, SignedOut, Wake,
};
use latchbus_core::wire::ServerFrame;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout};

use crate::flow::{Flow, Probe};
use crate::frame::{FrameError, FrameReader, Incoming, Opcode, write_frame};
use crate::{Protocol, outgoing};

/// What is taken from the socket in one go. It lies on the stack, so that a connection which waits for
/// its peer holds no buffer.
const READ_BYTES: usize = 8 << 10;

/// A sender that has buffered this much takes no more messages until it is flushed.
const BATCH_BYTES: usize = 32 << 10;

/// The most messages between two flushes, however small.
const BATCH_MESSAGES: usize = 64;

/// Longer buffers are given back when they are flushed; the others, when a connection has been quiet.
const KEPT_BYTES: usize = 4 << 10;

/// The code of a peer that said nothing for too long (RFC 6455 §7.4.1: policy violation).
const SILENT: u16 = 1008;

/// The code of a peer whose connection an administrator has ended: policy violation.
const DISMISSED: u16 = 1008;

/// The code of a peer that may not be here any more (IANA: unauthorized).
const UNAUTHORIZED: u16 = 3000;

/// The code of a peer for whose messages there is no memory now (IANA: try again later).
const TRY_AGAIN_LATER: u16 = 1013;

/// The times and bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) max_message_bytes: usize,
    pub(crate) ping_every: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) close_timeout: Duration,
}

/// Makes the two halves of a connection.
pub(crate) fn link<S: AsyncRead + AsyncWrite>(
    stream: S,
    protocol: Protocol,
    bounds: Bounds,
    wake: Wake,
    bus: Bus,
) -> (Receiver<S>, Sender<S>) {
    let (read, write) = tokio::io::split(stream);
    let hold = bus.incoming().hold();
    let control = Arc::new(Control {
        wake,
        owed: Mutex::default(),
        bus,
    });
    let receiver = Receiver {
        stream: read,
        frames: FrameReader::new(bounds.max_message_bytes),
        hold,
        protocol,
        bounds,
        taken: 0,
        heard: Instant::now(),
        silence: Alarm::default(),
        control: Arc::clone(&control),
    };
    let sender = Sender {
        stream: write,
        protocol,
        bounds,
        buffer: Vec::new(),
        sent: 0,
        frames: 0,
        batch: BatchEstimate::new(BATCH_MESSAGES),
        flow: Flow::new(),
        control,
    };
    (receiver, sender)
}

/// What the receiver wants the sender to send.
#[derive(Debug)]
struct Control {
    wake: Wake,
    owed: Mutex<Owed>,
    /// Counts what goes through.
    bus: Bus,
}

#[derive(Debug, Default)]
struct Owed {
    /// Only the last ping needs an answer (RFC 6455 §5.5.3).
    pong: Option<Vec<u8>>,
    /// The peer's last answer to a probe, and when it came.
    answer: Option<(Probe, Instant)>,
    /// The code to close with, if the peer still listens.
    close: Option<u16>,
}

impl Control {
    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a peer's connection has ended otherwise than by its close frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
    #[error("the connection was cut")]
    Cut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The half that reads requests.
#[derive(Debug)]
pub(crate) struct Receiver<S> {
    stream: ReadHalf<S>,
    frames: FrameReader,
    /// What of them counts for the memory that all connections share.
    hold: Hold,
    protocol: Protocol,
    bounds: Bounds,
    /// Messages since the last read.
    taken: u64,
    heard: Instant,
    silence: Alarm,
    control: Arc<Control>,
}

// By reference, so that the connection can be read to its end after the session has ended.
impl<S: AsyncRead + Send> LinkReceiver for &mut Receiver<S> {
    type Error = ReceiveError;

    async fn recv(&mut self) -> Result<Option<Request>, ReceiveError> {
        let received = self.request().await;
        if let Err(error) = &received {
            self.control.owed().close = match error {
                ReceiveError::Frame(error) => Some(error.close_code()),
                ReceiveError::Silent(_) => Some(SILENT),
                ReceiveError::Budget(_) => Some(TRY_AGAIN_LATER),
                ReceiveError::Cut | ReceiveError::Io(_) => None,
            };
        }
        received
    }
}

impl<S: AsyncRead> Receiver<S> {
    async fn request(&mut self) -> Result<Option<Request>, ReceiveError> {
        loop {
            while let Some(incoming) = self.frames.next_incoming()? {
                self.taken +=
                    u64::from(matches!(incoming, Incoming::Text(_) | Incoming::Binary(_)));
                match incoming {
                    Incoming::Text(text) if self.protocol == Protocol::Json => {
                        return Ok(Some(json::decode(&text).unwrap_or_else(Request::from)));
                    }
                    Incoming::Binary(bytes) if self.protocol == Protocol::Postcard => {
                        return Ok(Some(decode_postcard(&bytes).unwrap_or_else(Request::from)));
                    }
                    Incoming::Text(_) => {
                        let bad = Bad::message(None, "this subprotocol uses binary frames");
                        return Ok(Some(bad.into()));
                    }
                    Incoming::Binary(_) => {
                        let bad = Bad::message(None, "this subprotocol uses text frames");
                        return Ok(Some(bad.into()));
                    }
                    Incoming::Ping(payload) => {
                        self.control.owed().pong = Some(payload);
                        self.control.wake.wake();
                    }
                    Incoming::Pong(payload) => {
                        // The pongs of keep-alive pings are empty.
                        if let Ok(probe) = payload.try_into() {
                            self.control.owed().answer = Some((probe, Instant::now()));
                            self.control.wake.wake();
                        }
                    }
                    Incoming::Close(code) => {
                        self.control.owed().close = Some(code.unwrap_or(1000));
                        return Ok(None);
                    }
                }
            }
            let taken = mem::take(&mut self.taken);
            self.control.bus.metrics().packets_received.add(taken);
            self.read().await?;
        }
    }

    /// Cancel-safe: what was read is in the frame reader at once.
    async fn read(&mut self) -> Result<(), ReceiveError> {
        let silent_at = self.heard + self.bounds.idle_timeout;
        let (stream, frames, silence) = (&mut self.stream, &mut self.frames, &mut self.silence);
        let read = poll_fn(|cx| {
            let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
            let mut bytes = ReadBuf::uninit(&mut bytes);
            if Pin::new(&mut *stream).poll_read(cx, &mut bytes)?.is_ready() {
                frames.feed(bytes.filled());
                return Poll::Ready(Ok(bytes.filled().len()));
            }
            let silent = silence.poll_ring(Some(silent_at), cx);
            silent.map(|()| Err(ReceiveError::Silent(self.bounds.idle_timeout)))
        });
        let read = read.await?;
        if read == 0 {
            return Err(ReceiveError::Cut);
        }
        self.control.bus.metrics().bytes_received.add(read as u64);
        self.heard = Instant::now();
        Ok(self.hold.set(self.frames.held_bytes())?)
    }

    /// Reads what the peer still sends, up to the end of the connection or of the time: a socket that is
    /// dropped with unread bytes is reset, and the peer would never see why.
    pub(crate) async fn drain(mut self) {
        let end = async {
            // On the heap: within the task it would be held by every connection from its beginning.
            let mut bytes = vec![0; READ_BYTES];
            while let Ok(1..) = tokio::io::AsyncReadExt::read(&mut self.stream, &mut bytes).await {}
        };
        // Whether it came to its end in time makes no difference.
        let _ = timeout(self.bounds.close_timeout, end).await;
    }
}

/// The half that writes events.
#[derive(Debug)]
pub(crate) struct Sender<S> {
    stream: WriteHalf<S>,
    protocol: Protocol,
    bounds: Bounds,
    /// Whole frames.
    buffer: Vec<u8>,
    /// How much of the buffer is sent.
    sent: usize,
    /// Frames in the buffer that answer or bring something.
    frames: u64,
    batch: BatchEstimate,
    flow: Flow,
    control: Arc<Control>,
}

impl<S: AsyncWrite + Send> Sender<S> {
    /// Buffers the first frame. `time` is the server's, in Unix milliseconds.
    pub(crate) fn push_welcome(&mut self, frame: &ServerFrame<'_>, time: u64, identity: &Identity) {
        outgoing::write_welcome(&mut self.buffer, self.protocol, frame, time, identity);
        self.frames += 1;
    }

    async fn write_all(&mut self) -> io::Result<()> {
        while let Some(rest @ [_, ..]) = self.buffer.get(self.sent..) {
            // Most often the socket takes it at once, and needs no timer.
            let sent = match self.stream.write(rest).now_or_never() {
                Some(sent) => sent?,
                // A peer that takes nothing for so long is stuck, whatever it sends.
                None => timeout(self.bounds.idle_timeout, self.stream.write(rest))
                    .await
                    .map_err(|_| io::ErrorKind::TimedOut)??,
            };
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent += sent;
        }
        if self.sent > 0 {
            let metrics = self.control.bus.metrics();
            metrics.bytes_sent.add(self.sent as u64);
            metrics.packets_sent.add(mem::take(&mut self.frames));
        }
        self.sent = 0;
        self.buffer.clear();
        self.batch.flushed();
        if self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
        self.stream.flush().await
    }
}

impl<S: AsyncRead + AsyncWrite + Send> LinkSender for Sender<S> {
    type Error = io::Error;

    fn credit(&mut self) -> usize {
        if let Some((probe, at)) = self.control.owed().answer.take() {
            self.flow.answered(probe, at);
        }
        let room = BATCH_BYTES.saturating_sub(self.buffer.len());
        self.batch.fit(room.min(self.flow.room(Instant::now)))
    }

    fn push(&mut self, event: Event) -> io::Result<()> {
        let before = self.buffer.len();
        outgoing::write_event(&mut self.buffer, self.protocol, &event);
        let length = self.buffer.len() - before;
        self.flow.produce(length);
        self.frames += u64::from(length > 0);
        if matches!(event, Event::Message { .. }) {
            self.batch.push(length);
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        if let Some(pong) = self.control.owed().pong.take() {
            write_frame(&mut self.buffer, Opcode::Pong, &[&pong]);
        }
        if let Some(probe) = self.flow.probe(Instant::now) {
            write_frame(&mut self.buffer, Opcode::Ping, &[&probe]);
        }
        self.write_all().await
    }

    async fn close(&mut self, close: Close) {
        let code = match close {
            Close::GoingAway => Some(1001),
            Close::TakenOver => Some(1000),
            Close::SignedOut(SignedOut::Dismissed) => Some(DISMISSED),
            Close::SignedOut(_) => Some(UNAUTHORIZED),
            Close::ReceiverEnded => self.control.owed().close,
        };
        let reason = match close {
            Close::SignedOut(why) => why.to_string(),
            _ => String::new(),
        };
        let close_timeout = self.bounds.close_timeout;
        let goodbye = async {
            if let Some(code) = code {
                let code = code.to_be_bytes();
                let parts = [code.as_slice(), reason.as_bytes()];
                write_frame(&mut self.buffer, Opcode::Close, &parts);
                self.write_all().await?;
            }
            self.stream.shutdown().await
        };
        // A peer that does not listen any more needs no goodbye.
        let _ = timeout(close_timeout, goodbye).await;
    }

    fn quiet_limit(&self) -> Option<Duration> {
        Some(self.bounds.ping_every)
    }

    fn keep_alive(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
            write_frame(&mut self.buffer, Opcode::Ping, &[]);
        }
        Ok(())
    }
}
