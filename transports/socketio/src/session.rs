//! One Engine.IO session: what its HTTP requests, its WebSocket and its task share.

use core::task::{Context, Poll};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::task::AtomicWaker;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use latchbus_bus::{Client, Hold, Identity, Wake};
use latchbus_ws::flow::Probe;
use latchbus_ws::frame::FrameReader;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::machine::{Common, Fault, Machine};

/// A connection that has become a WebSocket.
pub(crate) type Stream = TokioIo<Upgraded>;

/// The body that answers a poll.
pub(crate) type Body = String;

/// Why the server ends a session, besides faults of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    /// The client has sent a packet that breaks the protocol.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A poll came while another one waited.
    #[error("a second poll came while one waited")]
    SecondPoll,
    /// A body came while another one was not taken yet.
    #[error("a second body came while one was not taken yet")]
    SecondBody,
    /// A poll was cancelled.
    #[error("a poll was cancelled")]
    PollCancelled,
    /// A body was longer than the bound, or came too slowly.
    #[error("a body was too long, or came too slowly")]
    Body,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) sid: String,
    pub(crate) common: Arc<Common>,
    /// Whose it is.
    pub(crate) client: Client,
    /// Whether the request that began it has proved whose it is. If not, whoever has its ID may act for it from anywhere.
    pub(crate) is_proved: bool,
    /// Makes the writing look again.
    pub(crate) wake: Wake,
    reader: AtomicWaker,
    machine: Mutex<Machine>,
    state: Mutex<State>,
}

/// What changes of a session.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) carrier: Carrier,
    /// Answers the poll that waits.
    pub(crate) poll: Option<oneshot::Sender<Body>>,
    pub(crate) inbox: Option<Inbox>,
    /// A WebSocket is on its way to take the session over.
    pub(crate) upgrading: bool,
    /// The halves of the WebSocket, until each side has taken its own.
    pub(crate) read_half: Option<(ReadHalf<Stream>, FrameReader)>,
    pub(crate) write_half: Option<WriteHalf<Stream>>,
    /// Why a request has ended the session.
    pub(crate) cause: Option<Cause>,
    /// A ping is to be sent.
    pub(crate) ping: bool,
    /// When the session is over unless a pong comes.
    pub(crate) silent_at: Instant,
    /// What the WebSocket's reader wants its writer to send.
    pub(crate) pong: Option<Vec<u8>>,
    pub(crate) answer: Option<(Probe, Instant)>,
    pub(crate) close: Option<u16>,
    /// The client has ended the session itself.
    pub(crate) left: bool,
}

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Polling,
    WebSocket,
    /// Nothing any more.
    Closed,
}

/// A body that was posted, of which packets are taken.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) body: String,
    pub(crate) _hold: Hold,
    /// Dropped when all was taken.
    pub(crate) _taken: oneshot::Sender<()>,
}

impl Shared {
    pub(crate) fn new(
        common: Arc<Common>,
        carrier: Carrier,
        client: Client,
        wake: Wake,
        silent_at: Instant,
    ) -> Self {
        let identity = &client.principal().identity;
        let is_proved = !matches!(identity, Identity::Guest | Identity::Anonymous);
        let id = common.ids.id();
        let node = &common.config.node;
        let sid = match node.as_str() {
            "" => id,
            node => format!("{node}.{id}"),
        };
        Self {
            sid,
            machine: Mutex::new(Machine::new(Arc::clone(&common))),
            common,
            client,
            is_proved,
            wake,
            reader: AtomicWaker::new(),
            state: Mutex::new(State {
                carrier,
                poll: None,
                inbox: None,
                upgrading: false,
                read_half: None,
                write_half: None,
                cause: None,
                ping: false,
                silent_at,
                pong: None,
                answer: None,
                close: None,
                left: false,
            }),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the reading look again.
    pub(crate) fn wake_reader(&self) {
        self.reader.wake();
    }

    /// Registers the reading, and gives what it is to take next.
    pub(crate) fn poll_state<T>(
        &self,
        cx: &Context<'_>,
        take: impl FnOnce(&mut State) -> Option<T>,
    ) -> Poll<T> {
        self.reader.register(cx.waker());
        match take(&mut self.state()) {
            Some(taken) => Poll::Ready(taken),
            None => Poll::Pending,
        }
    }

    /// Ends the session for what a request has done.
    pub(crate) fn fail(&self, cause: Cause) {
        let mut state = self.state();
        state.cause.get_or_insert(cause);
        state.end_polling("1");
        drop(state);
        self.wake_reader();
    }
}

impl State {
    /// Whether requests of the session are answered no more.
    pub(crate) fn is_over(&self) -> bool {
        self.carrier == Carrier::Closed || self.silent_at <= Instant::now()
    }

    /// Leaves a WebSocket for the two sides to be taken.
    pub(crate) fn hand_over(
        &mut self,
        read: ReadHalf<Stream>,
        write: WriteHalf<Stream>,
        frames: FrameReader,
    ) {
        self.read_half = Some((read, frames));
        self.write_half = Some(write);
    }

    /// Ends polling: the poll that waits is answered with this, others with an error.
    pub(crate) fn end_polling(&mut self, last: &str) {
        self.carrier = Carrier::Closed;
        self.inbox = None;
        if let Some(poll) = self.poll.take() {
            // Who waits no more needs no answer.
            let _ = poll.send(last.to_owned());
        }
    }
}
