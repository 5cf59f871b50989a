//! The half of a session that writes packets: to the poll that waits, or to a WebSocket.
//!
//! Between two polls nothing is taken from the hub, and over WebSocket no more than the client is known to read: what waits is the
//! hub's, where newer values replace older ones.

use core::mem;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use latchbus_bus::{BatchEstimate, Close, Event, LinkSender, SignedOut};
use latchbus_ws::flow::Flow;
use latchbus_ws::frame::{Opcode, write_frame};
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::time::{Instant, timeout};

use crate::engine::{MAX_PACKETS, SEPARATOR, binary_len, encode_binary};
use crate::machine::{PACKETS_A_MESSAGE, Sink};
use crate::session::{Carrier, Shared, Stream};

/// A sender that has buffered this much takes no more messages until it is flushed.
const BATCH_BYTES: usize = 32 << 10;

/// The most messages between two flushes, however small.
const BATCH_MESSAGES: usize = 64;

/// Longer buffers are given back when they are flushed.
const KEPT_BYTES: usize = 4 << 10;

/// How long a goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The half that writes.
#[derive(Debug)]
pub(crate) struct Sender {
    shared: Arc<Shared>,
    out: Out,
    batch: BatchEstimate,
}

/// Where packets go.
#[derive(Debug)]
enum Out {
    /// They wait for a poll.
    Queue(Queue),
    Socket(Box<Socket>),
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<Queued>,
    bytes: usize,
}

#[derive(Debug)]
enum Queued {
    Text(String),
    Bytes(Bytes),
}

#[derive(Debug)]
struct Socket {
    stream: WriteHalf<Stream>,
    /// Whole frames.
    buffer: Vec<u8>,
    /// How much of them is sent.
    sent: usize,
    /// How many there are.
    frames: u64,
    flow: Flow,
}

impl Queued {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => binary_len(bytes.len()),
        }
    }
}

impl Queue {
    fn push(&mut self, packet: Queued) {
        self.bytes += packet.len() + 1;
        self.packets.push_back(packet);
    }

    /// A body of the oldest packets: at least one, if there is one.
    fn body(&mut self, max_bytes: usize, max_packets: usize) -> String {
        let mut body = String::new();
        for taken in 0..max_packets {
            let room = max_bytes.saturating_sub(body.len() + 1);
            let next = self
                .packets
                .pop_front_if(|next| taken == 0 || next.len() <= room);
            let Some(next) = next else {
                break;
            };
            self.bytes -= next.len() + 1;
            if taken > 0 {
                body.push(SEPARATOR);
            }
            match next {
                Queued::Text(text) if body.is_empty() => body = text,
                Queued::Text(text) => body.push_str(&text),
                Queued::Bytes(bytes) => encode_binary(&mut body, &bytes),
            }
        }
        if self.packets.is_empty() {
            self.packets = VecDeque::new();
        }
        body
    }
}

impl Sink for Out {
    fn text(&mut self, pieces: &[&[u8]]) {
        match self {
            Self::Queue(queue) => {
                // All of it was made of strings.
                let text = String::from_utf8(pieces.concat()).unwrap_or_default();
                queue.push(Queued::Text(text));
            }
            Self::Socket(socket) => socket.frame(Opcode::Text, pieces),
        }
    }

    fn bytes(&mut self, bytes: &Bytes) {
        match self {
            Self::Queue(queue) => queue.push(Queued::Bytes(bytes.clone())),
            Self::Socket(socket) => socket.frame(Opcode::Binary, &[bytes]),
        }
    }
}

impl Socket {
    fn new(stream: WriteHalf<Stream>) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            sent: 0,
            frames: 0,
            flow: Flow::new(),
        }
    }

    fn frame(&mut self, opcode: Opcode, pieces: &[&[u8]]) {
        let before = self.buffer.len();
        write_frame(&mut self.buffer, opcode, pieces);
        self.flow.produce(self.buffer.len() - before);
        self.frames += 1;
    }

    async fn write_all(&mut self, shared: &Shared) -> io::Result<()> {
        let config = &shared.common.config;
        let patience = config.ping_interval + config.ping_timeout;
        while let Some(rest @ [_, ..]) = self.buffer.get(self.sent..) {
            // Most often the socket takes it at once, and needs no timer.
            let sent = match self.stream.write(rest).now_or_never() {
                Some(sent) => sent?,
                None => timeout(patience, self.stream.write(rest))
                    .await
                    .map_err(|_| io::ErrorKind::TimedOut)??,
            };
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent += sent;
        }
        if self.sent > 0 {
            let metrics = shared.common.bus.metrics();
            metrics.bytes_sent.add(self.sent as u64);
            metrics.packets_sent.add(mem::take(&mut self.frames));
        }
        self.sent = 0;
        self.buffer.clear();
        if self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
        self.stream.flush().await
    }
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            out: Out::Queue(Queue::default()),
            batch: BatchEstimate::new(BATCH_MESSAGES),
        }
    }

    /// Buffers a packet of text.
    pub(crate) fn push_text(&mut self, text: &str) {
        self.adopt();
        self.out.text(&[text.as_bytes()]);
    }

    /// Goes over to the WebSocket, if there is one now, with what waited for a poll.
    fn adopt(&mut self) {
        let Out::Queue(queue) = &mut self.out else {
            return;
        };
        let Some(stream) = self.shared.state().write_half.take() else {
            return;
        };
        let mut socket = Box::new(Socket::new(stream));
        for packet in mem::take(&mut queue.packets) {
            match packet {
                Queued::Text(text) => socket.frame(Opcode::Text, &[text.as_bytes()]),
                Queued::Bytes(bytes) => socket.frame(Opcode::Binary, &[&bytes]),
            }
        }
        self.out = Out::Socket(socket);
    }

    fn ping_if_due(&mut self) {
        if mem::take(&mut self.shared.state().ping) {
            self.out.text(&[b"2"]);
        }
    }
}

impl LinkSender for Sender {
    type Error = io::Error;

    fn credit(&mut self) -> usize {
        self.adopt();
        let Self { shared, out, batch } = self;
        match out {
            Out::Queue(queue) => {
                let state = shared.state();
                if state.poll.is_none() {
                    return 0;
                }
                let packets = MAX_PACKETS.saturating_sub(queue.packets.len()) / PACKETS_A_MESSAGE;
                let room = shared.common.config.max_payload.min(BATCH_BYTES);
                batch.fit(room.saturating_sub(queue.bytes)).min(packets)
            }
            Out::Socket(socket) => {
                if let Some((probe, at)) = shared.state().answer.take() {
                    socket.flow.answered(probe, at);
                }
                let room = BATCH_BYTES.saturating_sub(socket.buffer.len());
                batch.fit(room.min(socket.flow.room(Instant::now)))
            }
        }
    }

    fn push(&mut self, event: Event) -> io::Result<()> {
        self.adopt();
        let size = |out: &Out| match out {
            Out::Queue(queue) => queue.bytes,
            Out::Socket(socket) => socket.buffer.len(),
        };
        let before = size(&self.out);
        let is_message = matches!(event, Event::Message { .. });
        self.shared.machine().push(event, &mut self.out);
        if self.shared.machine().has_request() {
            self.shared.wake_reader();
        }
        if is_message {
            self.batch.push(size(&self.out) - before);
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.adopt();
        self.ping_if_due();
        let shared = &self.shared;
        match &mut self.out {
            Out::Queue(queue) => {
                let mut state = shared.state();
                if queue.packets.is_empty() {
                    return Ok(());
                }
                // The last answer of a server that stops says so: see `close`.
                let stops = shared.common.bus.closing().is_cancelled();
                if stops && queue.packets.len() < MAX_PACKETS {
                    return Ok(());
                }
                let Some(poll) = state.poll.take() else {
                    return Ok(());
                };
                let packets = queue.packets.len();
                let body = queue.body(shared.common.config.max_payload, MAX_PACKETS);
                let metrics = shared.common.bus.metrics();
                metrics.bytes_sent.add(body.len() as u64);
                let sent = packets - queue.packets.len();
                metrics.packets_sent.add(sent as u64);
                // A poll that waits no more has ended its session.
                let _ = poll.send(body);
            }
            Out::Socket(socket) => {
                if let Some(pong) = shared.state().pong.take() {
                    write_frame(&mut socket.buffer, Opcode::Pong, &[&pong]);
                }
                if let Some(probe) = socket.flow.probe(Instant::now) {
                    write_frame(&mut socket.buffer, Opcode::Ping, &[&probe]);
                }
                socket.write_all(shared).await?;
            }
        }
        self.batch.flushed();
        Ok(())
    }

    async fn close(&mut self, close: Close) {
        self.adopt();
        let shared = Arc::clone(&self.shared);
        match &mut self.out {
            Out::Queue(queue) => {
                let mut state = shared.state();
                let last = match state.left {
                    true => "6".to_owned(),
                    false => {
                        let max_payload = shared.common.config.max_payload;
                        let mut last = queue.body(max_payload, MAX_PACKETS - 1);
                        if !last.is_empty() {
                            last.push(SEPARATOR);
                        }
                        last.push('1');
                        last
                    }
                };
                state.end_polling(&last);
            }
            Out::Socket(socket) => {
                let code = {
                    let mut state = shared.state();
                    state.carrier = Carrier::Closed;
                    match close {
                        Close::GoingAway => Some(1001),
                        Close::TakenOver => Some(1000),
                        Close::SignedOut(SignedOut::Dismissed) => Some(1008),
                        Close::SignedOut(_) => Some(3000),
                        Close::ReceiverEnded if state.left => Some(state.close.unwrap_or(1000)),
                        Close::ReceiverEnded => state.close,
                    }
                };
                let goodbye = async {
                    if let Some(code) = code {
                        write_frame(&mut socket.buffer, Opcode::Close, &[&code.to_be_bytes()]);
                        socket.write_all(&shared).await?;
                    }
                    socket.stream.shutdown().await
                };
                // A client that does not listen any more needs no goodbye.
                let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
            }
        }
    }
}
