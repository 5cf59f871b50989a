//! One open port: the two halves that a session drives.

use core::time::Duration;
use std::io;

use latchbus_bus::frames::{Bad, decode_postcard};
use latchbus_bus::{BatchEstimate, Bus, Close, Event, LinkReceiver, LinkSender, Request};
use latchbus_core::wire::{
    ErrorCode, LINK_CHECKSUM_BYTES, LinkCounts, LinkDecoder, ServerFrame, max_link_bytes,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::outgoing;

/// The longest message in either direction, version byte included. A longer one from a device is skipped; a longer one
/// to a device is not sent, and the device gets an error that names the topic.
pub const MAX_MESSAGE_BYTES: usize = 8 << 10;

/// What is taken from the port in one go.
const READ_BYTES: usize = 1 << 10;

/// A sender that has buffered this much takes no more messages until it is flushed: a tenth of a second at
/// 115,200 baud.
const BATCH_BYTES: usize = 1 << 10;

/// So many complaints about unreadable input are answered at once, and then one each [`COMPLAINT_EVERY`].
/// Were each answered, a line whose far end echoes would go round for ever.
const COMPLAINTS: u32 = 8;
const COMPLAINT_EVERY: Duration = Duration::from_millis(100);

/// Makes the two halves of a link.
pub(crate) fn link<S: AsyncRead + AsyncWrite>(
    stream: S,
    bus: &Bus,
    name: &str,
) -> (Receiver<S>, Sender<S>) {
    let (read, write) = tokio::io::split(stream);
    let receiver = Receiver {
        stream: read,
        decoder: Box::default(),
        input: Box::new([0; READ_BYTES]),
        begin: 0,
        end: 0,
        seen: LinkCounts::default(),
        held: None,
        bus: bus.clone(),
        complaints: Complaints {
            left: COMPLAINTS,
            since: Instant::now(),
        },
    };
    let sender = Sender {
        stream: write,
        // Ends whatever the device has half read.
        buffer: vec![0],
        sent: 0,
        frames: 0,
        bus: bus.clone(),
        name: name.to_owned(),
        batch: BatchEstimate::new(BATCH_BYTES),
    };
    (receiver, sender)
}

/// The half that reads requests. The link ends with its port, and at nothing that comes through it.
#[derive(Debug)]
pub(crate) struct Receiver<S> {
    stream: ReadHalf<S>,
    decoder: Box<LinkDecoder<{ MAX_MESSAGE_BYTES + LINK_CHECKSUM_BYTES }>>,
    /// What was read last; of it, `begin..end` is not decoded yet.
    input: Box<[u8; READ_BYTES]>,
    begin: usize,
    end: usize,
    /// The decoder's counts when they were last looked at.
    seen: LinkCounts,
    /// What comes behind a complaint.
    held: Option<Request>,
    bus: Bus,
    complaints: Complaints,
}

impl<S> Receiver<S> {
    /// Intact messages, and frames that were skipped.
    pub(crate) fn counts(&self) -> LinkCounts {
        self.decoder.counts()
    }
}

// By reference, so that its counts can be read after the session has ended.
impl<S: AsyncRead + Send> LinkReceiver for &mut Receiver<S> {
    type Error = io::Error;

    async fn recv(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some(request) = self.held.take().or_else(|| self.decode()) {
                return Ok(Some(request));
            }
            if self.begin == self.end {
                self.end = self.stream.read(&mut self.input[..]).await?;
                self.begin = 0;
                self.bus.metrics().bytes_received.add(self.end as u64);
                if self.end == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

impl<S> Receiver<S> {
    /// The next request in what was read, if there is a whole one.
    fn decode(&mut self) -> Option<Request> {
        let input = self.input.get(self.begin..self.end)?;
        let (message, rest) = self.decoder.feed(input);
        self.begin = self.end - rest.len();
        if message.is_some() {
            self.bus.metrics().packets_received.add(1);
        }
        let request = message.map(|message| decode_postcard(message).unwrap_or_else(Request::from));
        let before = core::mem::replace(&mut self.seen, self.decoder.counts());
        let complaint = if self.seen.oversized != before.oversized {
            let reason = format!("a frame of more than {MAX_MESSAGE_BYTES} bytes");
            Some(Bad::new(None, ErrorCode::TooLarge, reason).into())
        } else if self.seen.corrupt != before.corrupt {
            Some(Bad::message(None, "a damaged frame").into())
        } else {
            None
        };
        let complaint = complaint.filter(|_| self.complaints.may());
        let request = match request {
            Some(Request::Bad { .. }) if !self.complaints.may() => None,
            request => request,
        };
        match complaint {
            Some(complaint) => {
                self.held = request;
                Some(complaint)
            }
            None => request,
        }
    }
}

/// How many complaints may still be answered.
#[derive(Debug)]
struct Complaints {
    left: u32,
    since: Instant,
}

impl Complaints {
    fn may(&mut self) -> bool {
        let earned = self.since.elapsed().as_millis() / COMPLAINT_EVERY.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(COMPLAINTS);
            self.since = Instant::now();
        }
        let may = self.left > 0;
        self.left -= u32::from(may);
        may
    }
}

/// The half that writes events. A port that takes nothing, because nobody reads at its other end, holds up
/// this one device and costs it one batch.
#[derive(Debug)]
pub(crate) struct Sender<S> {
    stream: WriteHalf<S>,
    /// Whole frames.
    buffer: Vec<u8>,
    /// How much of the buffer is sent.
    sent: usize,
    /// Frames in the buffer.
    frames: u64,
    bus: Bus,
    /// What the log knows the device by.
    name: String,
    batch: BatchEstimate,
}

impl<S> Sender<S> {
    /// Buffers a frame.
    pub(crate) fn push_frame(&mut self, frame: &ServerFrame<'_>) {
        outgoing::write(&mut self.buffer, frame);
        self.frames += 1;
    }

    /// A message was too long for a device.
    fn left_out(&self, topic: &str, bytes: usize) {
        self.bus.metrics().serial_messages_too_large.add(1);
        let key = format!("too large serial {}", self.name);
        if let Some(left_out) = self.bus.log_limit().allow(&key) {
            tracing::warn!(
                target: "serial",
                device = self.name,
                topic,
                bytes,
                limit = MAX_MESSAGE_BYTES,
                left_out,
                "message not sent: too long for a device"
            );
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send> LinkSender for Sender<S> {
    type Error = io::Error;

    fn credit(&mut self) -> usize {
        if self.buffer.is_empty() {
            // One message always fits, however long.
            return self.batch.fit(BATCH_BYTES);
        }
        (self.batch).fit_strictly(BATCH_BYTES.saturating_sub(self.buffer.len()))
    }

    fn push(&mut self, event: Event) -> io::Result<()> {
        let before = self.buffer.len();
        let too_large = outgoing::write_event(&mut self.buffer, &event, MAX_MESSAGE_BYTES);
        if let (Some(bytes), Event::Message { delivery, .. }) = (too_large, &event) {
            self.left_out(delivery.topic.as_str(), bytes);
        }
        self.frames += u64::from(self.buffer.len() > before);
        if matches!(event, Event::Message { .. }) {
            self.batch.push(self.buffer.len() - before);
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        while let Some(rest @ [_, ..]) = self.buffer.get(self.sent..) {
            let sent = self.stream.write(rest).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent += sent;
        }
        let metrics = self.bus.metrics();
        metrics.bytes_sent.add(self.sent as u64);
        metrics.packets_sent.add(core::mem::take(&mut self.frames));
        self.sent = 0;
        self.batch.flushed();
        self.buffer.clear();
        self.buffer.shrink_to(max_link_bytes(BATCH_BYTES));
        self.stream.flush().await
    }

    async fn close(&mut self, _close: Close) {
        // A byte link has no goodbye; where there is a connection, its end says so. Whether the far end still
        // listens makes no difference.
        let _ = self.stream.shutdown().await;
    }
}
