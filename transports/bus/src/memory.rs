//! A link inside the process: whole requests and events over bounded channels, and nothing encoded. The
//! simplest transport, and the one that tests of the bus itself use.
//!
//! ```
//! use core::future::pending;
//!
//! use latchbus_bus::{Bus, Event, Options, Principal, Publish, Request, Session, memory};
//! use latchbus_core::topic::TopicName;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let bus = Bus::open(Options::default())?;
//! let mut session = Session::new(bus.client(Principal::process())?);
//! let (mut link, mut peer) = memory::link(16);
//! tokio::spawn(async move {
//!     session.run(link.receiver, &mut link.sender, pending()).await
//! });
//!
//! let topic = TopicName::parse("lab/temp".to_owned())?;
//! let publish = Publish::state(topic, "21.5");
//! peer.requests.send(Request::Publish { id: Some(1), publish }).await?;
//! assert!(matches!(peer.events.recv().await?, Event::Published { id: 1, .. }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::link::{Close, Event, LinkReceiver, LinkSender, Request};

/// Makes a link and its peer's end. Each direction holds up to `capacity` (at least one) on the way; who sends
/// more waits. The sending half buffers as many messages again, besides answers.
pub fn link(capacity: usize) -> (MemoryLink, MemoryPeer) {
    let capacity = capacity.max(1);
    let (requests, incoming) = mpsc::channel(capacity);
    let (outgoing, events) = mpsc::channel(capacity);
    let link = MemoryLink {
        receiver: MemoryReceiver(incoming),
        sender: MemorySender {
            buffer: VecDeque::new(),
            messages: 0,
            capacity,
            outgoing,
        },
    };
    let peer = MemoryPeer {
        requests: MemoryRequests(requests),
        events: MemoryEvents(events),
    };
    (link, peer)
}

/// The halves that a [`Session`](crate::Session) runs.
#[derive(Debug)]
pub struct MemoryLink {
    /// The half that receives.
    pub receiver: MemoryReceiver,
    /// The half that sends.
    pub sender: MemorySender,
}

/// The other end. Dropping it cuts the link; [`MemoryRequests::leave`] ends it properly.
#[derive(Debug)]
pub struct MemoryPeer {
    /// What the peer asks for.
    pub requests: MemoryRequests,
    /// What it is told.
    pub events: MemoryEvents,
}

/// The other end has gone without a goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the link was cut")]
pub struct Cut;

/// The bus has ended the link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the link has ended: {0:?}")]
pub struct Closed(
    /// What the bus said to it; nothing when the link broke.
    pub Option<Close>,
);

#[derive(Debug)]
enum Incoming {
    Request(Request),
    Leave,
}

#[derive(Debug)]
enum Outgoing {
    Event(Event),
    Close(Close),
}

/// The half that receives requests.
#[derive(Debug)]
pub struct MemoryReceiver(mpsc::Receiver<Incoming>);

impl LinkReceiver for MemoryReceiver {
    type Error = Cut;

    async fn recv(&mut self) -> Result<Option<Request>, Cut> {
        match self.0.recv().await {
            Some(Incoming::Request(request)) => Ok(Some(request)),
            Some(Incoming::Leave) => Ok(None),
            None => Err(Cut),
        }
    }
}

/// The half that sends events.
#[derive(Debug)]
pub struct MemorySender {
    /// Up to `capacity` messages, and the answers that the session has.
    buffer: VecDeque<Event>,
    /// Messages in the buffer.
    messages: usize,
    capacity: usize,
    outgoing: mpsc::Sender<Outgoing>,
}

impl LinkSender for MemorySender {
    type Error = Cut;

    fn credit(&mut self) -> usize {
        self.capacity.saturating_sub(self.messages)
    }

    fn push(&mut self, event: Event) -> Result<(), Cut> {
        self.messages += usize::from(matches!(event, Event::Message { .. }));
        self.buffer.push_back(event);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Cut> {
        while !self.buffer.is_empty() {
            let room = self.outgoing.reserve().await.map_err(|_| Cut)?;
            if let Some(event) = self.buffer.pop_front() {
                self.messages -= usize::from(matches!(event, Event::Message { .. }));
                room.send(Outgoing::Event(event));
            }
        }
        Ok(())
    }

    async fn close(&mut self, close: Close) {
        // A peer that has left does not want to know.
        let _left = self.outgoing.send(Outgoing::Close(close)).await;
    }
}

/// The peer's requests.
#[derive(Debug)]
pub struct MemoryRequests(mpsc::Sender<Incoming>);

impl MemoryRequests {
    /// Sends a request. Waits while the link is full. Cancel-safe: dropped, it has sent nothing.
    ///
    /// # Errors
    /// When the bus has ended the link; [`MemoryEvents::recv`] says how.
    pub async fn send(&self, request: Request) -> Result<(), Cut> {
        let sent = self.0.send(Incoming::Request(request)).await;
        sent.map_err(|_| Cut)
    }

    /// Leaves as this link provides: the session ends with [`Ended::Left`](crate::Ended::Left).
    pub async fn leave(self) {
        // A bus that has ended the link does not have to be told.
        let _ended = self.0.send(Incoming::Leave).await;
    }
}

/// What the peer is told.
#[derive(Debug)]
pub struct MemoryEvents(mpsc::Receiver<Outgoing>);

impl MemoryEvents {
    /// The next event. Cancel-safe.
    ///
    /// # Errors
    /// When the bus has ended the link.
    pub async fn recv(&mut self) -> Result<Event, Closed> {
        match self.0.recv().await {
            Some(Outgoing::Event(event)) => Ok(event),
            Some(Outgoing::Close(close)) => Err(Closed(Some(close))),
            None => Err(Closed(None)),
        }
    }
}
