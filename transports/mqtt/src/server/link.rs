//! The connection's two halves: they move bytes between a stream and the state machine.

use core::future::poll_fn;
use core::mem::MaybeUninit;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use latchbus_bus::{
    Alarm, BudgetExceeded, Bus, Client, Close, Confirmations, Event, Hold, LinkReceiver,
    LinkSender, PublishRefused, Request, SignedOut, Traffic, Wake,
};
use latchbus_core::hub::Hub;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use super::disk::{Disk, Storing};
use super::logging;
use super::tally::Tally;
use crate::connection::{Connection, Progress, Remains};
use crate::record::Note;
use crate::{Reason, Violation};

/// What is taken from the stream in one go. It lies on the stack, so that a connection which waits for its
/// client holds no buffer, and a value that is kept holds no more than its packet.
const READ_BYTES: usize = 16 << 10;
/// An idle connection keeps no more than this of a write buffer.
const KEPT_WRITE_BYTES: usize = 256;
/// How long a peer may take to accept the goodbye.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// How long a peer may go on sending after a goodbye, and how much of that is read.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The stream broke.
    #[error("connection lost")]
    Io(#[from] io::Error),
    /// The client closed the stream without a DISCONNECT.
    #[error("closed without DISCONNECT")]
    Eof,
    /// The client broke the protocol, or was silent too long.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// It began with a header of the PROXY protocol, and is no trusted proxy.
    #[error("a PROXY header from an address that trusted_proxies does not name")]
    ProxyHeader,
}

/// The state machine, and how its halves tell each other.
#[derive(Debug)]
pub(crate) struct Shared {
    connection: Mutex<Connection>,
    /// Who holds back reading until output has been written.
    drained: AtomicWaker,
    /// Whether an answer of the bus ends the connection, and who reads meanwhile.
    ending: AtomicBool,
    ends: AtomicWaker,
}

impl Shared {
    pub(crate) fn new(connection: Connection) -> Arc<Self> {
        Arc::new(Self {
            connection: Mutex::new(connection),
            drained: AtomicWaker::new(),
            ending: AtomicBool::new(false),
            ends: AtomicWaker::new(),
        })
    }

    /// Never held over an await.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when the client takes its answers.
    fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        self.drained.register(cx.waker());
        match self.lock().is_clogged() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    /// Ready when an answer of the bus ends the connection.
    fn poll_ending(&self, cx: &Context<'_>) -> Poll<()> {
        self.ends.register(cx.waker());
        match self.ending.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// What the bus answers after the link has ended.
    pub(crate) fn answered(&self, event: Event) {
        self.lock().handle_event(event);
    }

    /// See [`Connection::is_owed`].
    pub(crate) fn is_owed(&self) -> bool {
        self.lock().is_owed()
    }

    /// What is left, when both halves are gone.
    pub(crate) fn end(self: Arc<Self>) -> Option<Remains> {
        let connection = Arc::into_inner(self)?.connection;
        Some(
            connection
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .end(),
        )
    }
}

/// A stream's reading half with the bytes that are not taken yet.
#[derive(Debug)]
pub(crate) struct Input<R> {
    reader: R,
    pub(crate) bytes: BytesMut,
    bus: Bus,
    tally: Tally,
    /// What of them counts for the memory that all connections share.
    hold: Hold,
}

impl<R: AsyncRead + Unpin + Send> Input<R> {
    pub(crate) fn new(reader: R, bus: Bus) -> Self {
        Self {
            reader,
            bytes: BytesMut::new(),
            hold: bus.incoming().hold(),
            bus,
            tally: Tally::default(),
        }
    }

    /// Takes note of how much is buffered.
    fn account(&mut self) -> Result<(), Violation> {
        let held = self.hold.set(self.bytes.len());
        held.map_err(|BudgetExceeded { limit }| Violation::Budget { limit })
    }

    /// Reads more bytes. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Result<(), LinkError> {
        poll_fn(|cx| match self.poll_read(cx) {
            Ok(polled) => polled.map(Ok),
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, LinkError> {
        let mut read = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut read);
        if Pin::new(&mut self.reader)
            .poll_read(cx, &mut read)?
            .is_pending()
        {
            if self.bytes.is_empty() {
                self.bytes = BytesMut::new();
            }
            return Ok(Poll::Pending);
        }
        if read.filled().is_empty() {
            return Err(LinkError::Eof);
        }
        self.bytes.extend_from_slice(read.filled());
        let metrics = self.bus.metrics();
        metrics.bytes_received.add(read.filled().len() as u64);
        metrics
            .packets_received
            .add(self.tally.count(read.filled()));
        self.account()?;
        Ok(Poll::Ready(()))
    }

    /// Reads what the peer had still sent and forgets it, until it closes too. To close on bytes that were
    /// not read resets the connection, and the goodbye may be lost with it (RFC 1122 §4.2.2.13).
    pub(crate) async fn linger(&mut self) {
        self.bytes = BytesMut::new();
        // That there is less is no error.
        let _less = self.account();
        let reading = async {
            let mut read = 0;
            while read < LINGER_BYTES && self.read().await.is_ok() {
                read += self.bytes.len();
                self.bytes.clear();
            }
        };
        let _still_sending = timeout(LINGER_TIME, reading).await;
    }
}

/// The half that receives.
#[derive(Debug)]
pub(crate) struct Receiver<R> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) input: Input<R>,
    pub(crate) wake: Wake,
    /// Where the session is kept, if it is.
    pub(crate) disk: Option<Disk>,
    pub(crate) confirmations: Confirmations,
    pub(crate) bus: Bus,
    pub(crate) client: Client,
    pub(crate) traffic: Traffic,
    /// Whether it is read more slowly where it publishes too fast.
    pub(crate) is_paced: bool,
    /// For the deadline of the connection.
    pub(crate) alarm: Alarm,
    pub(crate) activity: Option<Activity>,
}

/// Says that bytes of a packet are coming in below a stream that gives them out only when there are more of them: a
/// WebSocket, say. They count as life of the client. Clones are handles to one.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<AtomicBool>);

impl Activity {
    /// Some bytes have come.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether any have since the last time.
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// What the receiving half does next.
enum Next {
    Request(Request),
    Left,
    Read,
    /// The client does not take its answers: reading on would buffer more of them.
    WaitForDrain,
}

impl<R: AsyncRead + Unpin + Send> Receiver<R> {
    /// Takes from the bytes that are there, and says until when to wait for more. `heard` says that some have come.
    fn take(&mut self, heard: bool) -> Result<(Next, Option<Instant>), Violation> {
        let now = Instant::now().into_std();
        let mut connection = self.shared.lock();
        if heard {
            connection.hear(now);
        }
        if connection.is_durable() {
            connection.set_revision(self.bus.read(Hub::revision));
            for (subscription, rev) in connection.take_marks() {
                self.confirmations.confirm(subscription, rev);
            }
        }
        let deadline = connection.deadline().map(Instant::from_std);
        if connection.is_clogged() && !connection.is_ending() {
            return Ok((Next::WaitForDrain, deadline));
        }
        let credit = connection.credit();
        let progress = connection.poll_request(&mut self.input.bytes, now);
        if let Some(filter) = connection.take_refused_filter() {
            logging::refused_filter(&self.client, &filter);
        }
        if let Some(reason) = connection.take_refused_message() {
            logging::refused_message(&self.client, reason);
        }
        self.input.account()?;
        self.traffic.set_in_flight(connection.unacknowledged());
        if connection.has_output() || connection.has_notes() || connection.credit() > credit {
            self.wake.wake();
        }
        let next = match progress? {
            Progress::Request(mut request) => {
                if let (Request::Publish { id, publish }, Some(disk)) = (&mut request, &self.disk) {
                    let notes = connection.notes_of(*id).into_iter();
                    publish.notes = notes.map(|note| disk.note(note)).collect();
                }
                Next::Request(request)
            }
            Progress::Left => Next::Left,
            Progress::NeedsBytes if connection.is_clogged() => Next::WaitForDrain,
            Progress::NeedsBytes => Next::Read,
        };
        Ok((next, connection.deadline().map(Instant::from_std)))
    }
}

impl<R: AsyncRead + Unpin + Send> LinkReceiver for &mut Receiver<R> {
    type Error = LinkError;

    fn waits_for_its_rate(&self) -> bool {
        self.is_paced
    }

    async fn recv(&mut self) -> Result<Option<Request>, LinkError> {
        let mut heard = false;
        loop {
            let (reads, deadline) = match self.take(heard)? {
                (Next::Request(request), _) => return Ok(Some(request)),
                (Next::Left, _) => return Ok(None),
                (Next::Read, deadline) => (true, deadline),
                (Next::WaitForDrain, deadline) => (false, deadline),
            };
            let timed_out = poll_fn(|cx| {
                let ready = match reads {
                    true => self.input.poll_read(cx)?,
                    false => self.shared.poll_drained(cx),
                };
                if ready.is_ready() || self.shared.poll_ending(cx).is_ready() {
                    return Poll::Ready(Ok::<_, LinkError>(false));
                }
                self.alarm.poll_ring(deadline, cx).map(|()| Ok(true))
            });
            let timed_out = timed_out.await.inspect_err(|error| {
                if let LinkError::Violation(violation) = error {
                    self.shared.lock().break_off(violation.clone());
                }
            })?;
            heard = reads && !timed_out;
            if timed_out {
                let now = Instant::now().into_std();
                let mut connection = self.shared.lock();
                if self.activity.as_ref().is_some_and(Activity::take) {
                    connection.hear(now);
                }
                connection.handle_timeout(now)?;
                // It may have noted something.
                self.wake.wake();
            }
        }
    }
}

/// The half that sends.
#[derive(Debug)]
pub(crate) struct Sender<W> {
    pub(crate) shared: Arc<Shared>,
    writer: W,
    writing: BytesMut,
    disk: Option<Disk>,
    storing: Option<Storing>,
    wake: Wake,
    bus: Bus,
    tally: Tally,
    traffic: Traffic,
}

impl<W: AsyncWrite + Unpin + Send> Sender<W> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        writer: W,
        disk: Option<Disk>,
        wake: Wake,
        (bus, traffic): (Bus, Traffic),
    ) -> Self {
        Self {
            traffic,
            shared,
            writer,
            writing: BytesMut::new(),
            disk,
            storing: None,
            wake,
            bus,
            tally: Tally::default(),
        }
    }

    /// Hands the next notes to the disk, one batch at a time, and lets go what waited for the last.
    fn note(&mut self) {
        let Some(disk) = &self.disk else {
            return;
        };
        let mut connection = self.shared.lock();
        if let Some(storing) = &mut self.storing {
            match storing.outcome() {
                None => return,
                Some(Ok(())) => connection.notes_stored(),
                // The connection is about to end.
                Some(Err(PublishRefused::Closed)) => return,
                Some(Err(refused)) => {
                    logging::not_stored(disk.client(), &refused);
                    connection.give_up_disk();
                    self.storing = Some(disk.store(vec![Note::ForgetAll], self.wake.clone()));
                    self.disk = None;
                    return;
                }
            }
            self.storing = None;
        }
        let notes = connection.take_notes();
        if !notes.is_empty() {
            self.storing = Some(disk.store(notes, self.wake.clone()));
        }
    }

    /// What it shares with the receiver, and the stream's writing half, which is closed unless the link
    /// broke before.
    pub(crate) fn into_parts(self) -> (Arc<Shared>, W) {
        (self.shared, self.writer)
    }

    async fn close_within(&mut self, reason: Option<Reason>) {
        let goodbye = async {
            // A goodbye says nothing to whoever has no CONNACK.
            while self.shared.lock().is_opening()
                && let Some(storing) = &mut self.storing
                && storing.known().await
            {
                self.note();
            }
            self.shared.lock().close(reason);
            self.flush().await?;
            self.writer.shutdown().await?;
            Ok::<_, LinkError>(())
        };
        if !matches!(timeout(CLOSE_TIME, goodbye).await, Ok(Ok(()))) {
            tracing::debug!(target: "mqtt", "the peer did not take the goodbye");
        }
    }
}

impl<W: AsyncWrite + Unpin + Send> LinkSender for Sender<W> {
    type Error = LinkError;

    fn credit(&mut self) -> usize {
        self.shared.lock().credit()
    }

    fn push(&mut self, event: Event) -> Result<(), LinkError> {
        let mut connection = self.shared.lock();
        connection.handle_event(event);
        if connection.is_ending() {
            self.shared.ending.store(true, Ordering::Release);
            self.shared.ends.wake();
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.note();
        loop {
            if self.writing.is_empty() {
                if self.writing.capacity() > KEPT_WRITE_BYTES {
                    self.writing = BytesMut::new();
                }
                let mut connection = self.shared.lock();
                connection.take_output(&mut self.writing);
                self.traffic.set_in_flight(connection.unacknowledged());
                drop(connection);
                self.shared.drained.wake();
            }
            if self.writing.is_empty() {
                break;
            }
            // Once a packet, also where a write is cut short: the output is whole packets.
            let metrics = self.bus.metrics();
            metrics.packets_sent.add(self.tally.count(&self.writing));
            metrics.bytes_sent.add(self.writing.len() as u64);
            while self.writing.has_remaining() {
                let written = self.writer.write(&self.writing).await?;
                if written == 0 {
                    return Err(io::Error::from(io::ErrorKind::WriteZero).into());
                }
                self.writing.advance(written);
            }
        }
        Ok(self.writer.flush().await?)
    }

    fn has_unsent(&mut self) -> bool {
        self.storing.is_some() || self.shared.lock().has_unsent()
    }

    async fn close(&mut self, close: Close) {
        let reason = match close {
            Close::GoingAway => Some(Reason::SERVER_SHUTTING_DOWN),
            Close::TakenOver => Some(Reason::SESSION_TAKEN_OVER),
            Close::SignedOut(SignedOut::Dismissed) => Some(Reason::ADMINISTRATIVE_ACTION),
            Close::SignedOut(_) => Some(Reason::NOT_AUTHORIZED),
            Close::ReceiverEnded => None,
        };
        self.close_within(reason).await;
    }
}
