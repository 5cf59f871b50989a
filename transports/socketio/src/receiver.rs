//! The half of a session that reads packets, from bodies that are posted or from a WebSocket, and keeps its heartbeat.

use core::future::poll_fn;
use core::mem::MaybeUninit;
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use latchbus_bus::{Alarm, BudgetExceeded, Client, Hold, LinkReceiver, Request};
use latchbus_ws::frame::{FrameError, FrameReader, Incoming};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf, ReadHalf};
use tokio::time::{Instant, timeout};

use crate::engine::{Packet, SEPARATOR};
use crate::machine::{Fault, Taken};
use crate::session::{Carrier, Cause, Inbox, Shared, Stream};

/// What is taken from the socket in one go. It lies on the stack, so that a session that waits holds no buffer.
const READ_BYTES: usize = 8 << 10;

/// How long a WebSocket that ends waits for the client to end it too.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a session has ended otherwise than by its client's wish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    Cause(#[from] Cause),
    #[error("no pong came within {0:?}")]
    Silent(Duration),
    #[error("no namespace was joined within {0:?}")]
    NoConnect(Duration),
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
    #[error("the connection was cut")]
    Cut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ReceiveError {
    /// The code to close a WebSocket with (RFC 6455 §7.4.1), if it is there to be closed.
    const fn close_code(&self) -> Option<u16> {
        match self {
            Self::Frame(error) => Some(error.close_code()),
            Self::Fault(Fault::AttachmentsTooLarge { .. }) => Some(1009),
            Self::Fault(_) | Self::Cause(_) => Some(1002),
            Self::Silent(_) | Self::NoConnect(_) => Some(1008),
            Self::Budget(_) => Some(1013),
            Self::Cut | Self::Io(_) => None,
        }
    }
}

/// The half that reads.
#[derive(Debug)]
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    client: Client,
    socket: Option<Socket>,
    /// A body that was posted, and how much of it was taken.
    body: Option<(Inbox, usize)>,
    hold: Hold,
    alarm: Alarm,
    next_ping: Instant,
    /// When the pong to the last ping must be there.
    pong_by: Option<Instant>,
    /// When a namespace must have been joined.
    connect_by: Option<Instant>,
}

#[derive(Debug)]
struct Socket {
    stream: ReadHalf<Stream>,
    frames: FrameReader,
}

/// What there is to do.
enum Next {
    Inbox(Inbox),
    Socket(ReadHalf<Stream>, FrameReader),
    Own,
    Failed(Cause),
    Alarm,
    /// So many bytes were read.
    Read(usize),
}

impl Receiver {
    /// A receiver of a session of this client that begins at `began`.
    pub(crate) fn new(shared: Arc<Shared>, client: Client, began: Instant) -> Self {
        let config = &shared.common.config;
        Self {
            client,
            socket: None,
            body: None,
            hold: shared.common.bus.incoming().hold(),
            alarm: Alarm::default(),
            next_ping: began + config.ping_interval,
            pong_by: None,
            connect_by: Some(began + config.connect_timeout),
            shared,
        }
    }

    async fn request(&mut self) -> Result<Option<Request>, ReceiveError> {
        loop {
            if let Some(request) = self.shared.machine().next_request() {
                return Ok(Some(request));
            }
            match self.packet()? {
                Some(Taken::Request(request)) => return Ok(Some(request)),
                Some(Taken::Join(join)) => {
                    // What it can go on with depends on who it is.
                    let signed_in = self.client.try_sign_in(join.credentials()).await;
                    let principal = self.client.principal();
                    let request = self.shared.machine().join(join, signed_in, &principal);
                    return Ok(Some(request));
                }
                Some(Taken::Close) => {
                    self.shared.state().left = true;
                    return Ok(None);
                }
                Some(Taken::Nothing) => continue,
                None => {}
            }
            self.account()?;
            match self.next().await? {
                Next::Inbox(inbox) => self.body = Some((inbox, 0)),
                Next::Socket(stream, frames) => self.socket = Some(Socket { stream, frames }),
                Next::Own => {}
                Next::Failed(cause) => return Err(cause.into()),
                Next::Alarm => self.ring(Instant::now())?,
                Next::Read(0) => return Err(ReceiveError::Cut),
                Next::Read(bytes) => {
                    let metrics = self.shared.common.bus.metrics();
                    metrics.bytes_received.add(bytes as u64);
                }
            }
        }
    }

    /// What was read and not taken yet. None: nothing.
    fn packet(&mut self) -> Result<Option<Taken>, ReceiveError> {
        if let Some((inbox, at)) = &mut self.body {
            let rest = inbox.body.get(*at..).unwrap_or_default();
            let packet = rest.split(SEPARATOR).next().unwrap_or_default();
            *at += packet.len() + 1;
            let packet = Packet::decode(packet, true).map_err(Fault::from)?;
            let taken = take(
                &self.shared,
                packet,
                (&mut self.next_ping, &mut self.pong_by),
            );
            if *at > inbox.body.len() || matches!(taken, Ok(Taken::Close)) {
                if matches!(taken, Ok(Taken::Close)) {
                    // Before the post is answered.
                    self.shared.state().end_polling("6");
                }
                self.body = None;
            }
            return Ok(Some(taken?));
        }
        let Some(socket) = &mut self.socket else {
            return Ok(None);
        };
        let Some(incoming) = socket.frames.next_incoming()? else {
            return Ok(None);
        };
        let shared = &self.shared;
        let heartbeat = (&mut self.next_ping, &mut self.pong_by);
        Ok(Some(match incoming {
            Incoming::Text(text) => {
                let packet = Packet::decode(&text, false).map_err(Fault::from)?;
                take(shared, packet, heartbeat)?
            }
            Incoming::Binary(bytes) => take(shared, Packet::Binary(bytes), heartbeat)?,
            Incoming::Ping(payload) => {
                shared.state().pong = Some(payload);
                shared.wake.wake();
                Taken::Nothing
            }
            Incoming::Pong(payload) => {
                if let Ok(probe) = payload.try_into() {
                    shared.state().answer = Some((probe, Instant::now()));
                    shared.wake.wake();
                }
                Taken::Nothing
            }
            Incoming::Close(code) => {
                shared.state().close = Some(code.unwrap_or(1000));
                Taken::Close
            }
        }))
    }

    /// Cancel-safe: what was read is in the frame reader at once.
    async fn next(&mut self) -> Result<Next, ReceiveError> {
        let connect_by = match self.connect_by {
            Some(_) if self.shared.machine().has_joined() => None,
            other => other,
        };
        self.connect_by = connect_by;
        let ring_at = self.pong_by.unwrap_or(self.next_ping);
        let ring_at = connect_by.map_or(ring_at, |by| by.min(ring_at));
        let Self {
            shared,
            socket,
            alarm,
            ..
        } = self;
        poll_fn(|cx| {
            let state = shared.poll_state(cx, |state| {
                if let Some(cause) = state.cause {
                    return Some(Next::Failed(cause));
                }
                if let Some((stream, frames)) = state.read_half.take() {
                    return Some(Next::Socket(stream, frames));
                }
                state.inbox.take().map(Next::Inbox)
            });
            if state.is_ready() {
                return state.map(Ok);
            }
            if shared.machine().has_request() {
                return Poll::Ready(Ok(Next::Own));
            }
            if let Some(socket) = socket {
                let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
                let mut bytes = ReadBuf::uninit(&mut bytes);
                if Pin::new(&mut socket.stream)
                    .poll_read(cx, &mut bytes)?
                    .is_ready()
                {
                    socket.frames.feed(bytes.filled());
                    return Poll::Ready(Ok(Next::Read(bytes.filled().len())));
                }
            }
            alarm.poll_ring(Some(ring_at), cx).map(|()| Ok(Next::Alarm))
        })
        .await
    }

    fn ring(&mut self, now: Instant) -> Result<(), ReceiveError> {
        let config = &self.shared.common.config;
        if self.connect_by.is_some_and(|by| by <= now) {
            return Err(ReceiveError::NoConnect(config.connect_timeout));
        }
        match self.pong_by {
            Some(by) if by <= now => Err(ReceiveError::Silent(config.ping_timeout)),
            None if self.next_ping <= now => {
                self.pong_by = Some(self.next_ping + config.ping_timeout);
                self.shared.state().ping = true;
                self.shared.wake.wake();
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What is held of what is incomplete.
    fn account(&mut self) -> Result<(), ReceiveError> {
        let frames = self.socket.as_ref();
        let frames = frames.map_or(0, |socket| socket.frames.held_bytes());
        let attachments = self.shared.machine().held_bytes();
        Ok(self.hold.set(frames + attachments)?)
    }

    /// Reads what the client still sends, up to the end of the connection or of the time: a socket that is dropped with unread
    /// bytes is reset, and the client would never see why.
    pub(crate) async fn drain(self) {
        let Some(mut socket) = self.socket else {
            return;
        };
        let end = async {
            let mut bytes = vec![0; READ_BYTES];
            while let Ok(1..) = socket.stream.read(&mut bytes).await {}
        };
        // Whether it came to its end in time makes no difference.
        let _ = timeout(DRAIN_TIMEOUT, end).await;
    }
}

/// Takes one packet.
fn take(
    shared: &Shared,
    packet: Packet<'_>,
    (next_ping, pong_by): (&mut Instant, &mut Option<Instant>),
) -> Result<Taken, Fault> {
    shared.common.bus.metrics().packets_received.add(1);
    if let Packet::Pong(_) = packet {
        let config = &shared.common.config;
        *next_ping = Instant::now() + config.ping_interval;
        *pong_by = None;
        shared.state().silent_at = *next_ping + config.ping_timeout;
        return Ok(Taken::Nothing);
    }
    shared.machine().take(packet)
}

impl LinkReceiver for &mut Receiver {
    type Error = ReceiveError;

    async fn recv(&mut self) -> Result<Option<Request>, ReceiveError> {
        let received = self.request().await;
        if let Err(error) = &received {
            let mut state = self.shared.state();
            state.close = error.close_code();
            if state.carrier == Carrier::Polling {
                state.end_polling("1");
            }
        }
        received
    }
}
