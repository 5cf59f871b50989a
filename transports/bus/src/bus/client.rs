//! One peer of the bus, and what becomes of its publishes.

use core::{
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, ready},
};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use latchbus_core::topic::{TopicFilter, TopicName};
use tokio::sync::oneshot;
use tokio::task::coop;

use super::Bus;
use crate::access::Peer;
use crate::backup::{Export, Record};
use crate::refusal::{PublishRefused, SubscribeRefused};
use crate::wake::lock;
use crate::{Note, Publish, pipeline};

/// One peer of the bus. Clones are handles to one peer.
#[derive(Debug, Clone)]
pub struct Client(Arc<ClientInner>);

#[derive(Debug)]
struct ClientInner {
    bus: Bus,
    id: u64,
    peer: Peer,
    /// Messages of this client that wait for the store. While there are any, its events queue behind
    /// them, so that a client's messages keep their order.
    queued: Arc<AtomicUsize>,
}

/// A message was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its revision, or that of the value that it left unchanged.
    pub rev: u64,
}

impl Client {
    pub(super) fn new(bus: Bus, id: u64, peer: Peer) -> Self {
        Self(Arc::new(ClientInner {
            bus,
            id,
            peer,
            queued: Arc::default(),
        }))
    }

    /// A number that no other client of this bus has, from 1.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Who this is.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// Publishes a message. The wait is for room in the store's queue, no more; the receipt then
    /// resolves when the message is accepted and, where it is to be durable, on disk.
    pub async fn publish(&self, publish: Publish) -> Receipt {
        match self.begin_publish(publish) {
            Ok(receipt) => {
                if self.0.bus.is_stored() {
                    // Who never waits for receipts fills the queue, and must let the others run meanwhile.
                    coop::consume_budget().await;
                }
                receipt
            }
            Err(room) => room.await,
        }
    }

    /// The same as far as it goes without waiting. Where the store's queue is full, the wait for room.
    pub(crate) fn begin_publish(
        &self,
        publish: Publish,
    ) -> Result<Receipt, BoxFuture<'_, Receipt>> {
        let bus = &self.0.bus.0;
        bus.metrics.messages_received.add(1);
        if !bus
            .access
            .0
            .may_publish(&self.0.peer, publish.topic.borrowed())
        {
            bus.metrics.publishes_refused.add(1);
            bus.metrics.publishes_not_allowed.add(1);
            let topic = publish.topic.into_inner();
            return Ok(Receipt::known(Err(PublishRefused::NotAllowed(topic))));
        }
        let Some(writer) = &bus.writer else {
            let accepted = lock(&bus.pipeline).accept(publish, self.0.id);
            return Ok(Receipt::known(accepted));
        };
        let publish = match self.may_go_straight(&publish) {
            false => publish,
            true => {
                let (shared, metrics) = (&bus.shared, &bus.metrics);
                match pipeline::accept_event(shared, metrics, publish, self.0.id) {
                    Ok(accepted) => return Ok(Receipt::known(accepted)),
                    Err(publish) => publish,
                }
            }
        };
        writer.accept(publish, self.0.id, self.queued())
    }

    /// Remembers and forgets what a transport wants to know of its clients after a restart. The wait is for
    /// room in the store's queue, no more; the receipt then resolves when it is on disk, and where nothing is
    /// stored at once. Its revision says nothing.
    pub async fn remember(&self, notes: Vec<Note>) -> Receipt {
        let bus = &self.0.bus.0;
        match &bus.writer {
            Some(writer) => writer.remember(notes, self.queued()).await,
            None => Receipt::known(Ok(Accepted { rev: 0 })),
        }
    }

    /// A snapshot of everything that the bus keeps, which is on disk where there is a store: the wait is for
    /// what it is writing.
    ///
    /// # Errors
    /// When the rules do not let this peer see everything, or the bus closes.
    pub async fn export(&self) -> Result<Export, SubscribeRefused> {
        let bus = &self.0.bus;
        for filter in ["#", "$SYS/#"] {
            let filter =
                TopicFilter::parse(filter).unwrap_or_else(|_| unreachable!("both are filters"));
            bus.check_subscribe(&self.0.peer, filter)?;
        }
        match &bus.0.writer {
            None => Ok(lock(&bus.0.pipeline).export()),
            Some(writer) => writer.export().await.ok_or(SubscribeRefused::Closed),
        }
    }

    /// Merges a record of an export: see [`backup`](crate::backup). The wait is for room in the store's queue;
    /// the receipt resolves as that of a publish.
    pub async fn import(&self, record: Record) -> Receipt {
        let bus = &self.0.bus.0;
        let topic = record.topic();
        let allowed = TopicName::parse(topic.as_str())
            .is_ok_and(|topic| bus.access.0.may_publish(&self.0.peer, topic));
        if !allowed {
            bus.metrics.publishes_refused.add(1);
            bus.metrics.publishes_not_allowed.add(1);
            return Receipt::known(Err(PublishRefused::NotAllowed(topic)));
        }
        match &bus.writer {
            None => Receipt::known(lock(&bus.pipeline).accept_import(record)),
            Some(writer) => writer.import(record).await,
        }
    }

    fn queued(&self) -> Queued {
        self.0.queued.fetch_add(1, Ordering::Relaxed);
        Queued(Arc::clone(&self.0.queued))
    }

    /// An event that is not a click needs no store, unless a durable subscription waits for it: it does not wait
    /// for one either, unless earlier messages of the same client do.
    fn may_go_straight(&self, publish: &Publish) -> bool {
        !publish.retain
            && publish.notes.is_empty()
            && !publish.topic.as_str().starts_with("clicks/")
            && self.0.queued.load(Ordering::Relaxed) == 0
    }
}

/// Counts a client's message while it waits for the store.
#[derive(Debug)]
pub(crate) struct Queued(Arc<AtomicUsize>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What becomes of a publish: a future.
#[derive(Debug)]
pub struct Receipt(State);

#[derive(Debug)]
enum State {
    Known(Option<Result<Accepted, PublishRefused>>),
    /// Until the store has written.
    Queued(oneshot::Receiver<Result<Accepted, PublishRefused>>),
}

impl Receipt {
    pub(crate) fn known(result: Result<Accepted, PublishRefused>) -> Self {
        Self(State::Known(Some(result)))
    }

    pub(crate) fn queued(answer: oneshot::Receiver<Result<Accepted, PublishRefused>>) -> Self {
        Self(State::Queued(answer))
    }
}

impl Future for Receipt {
    type Output = Result<Accepted, PublishRefused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.0 {
            State::Known(result) => result.take().unwrap_or(Err(PublishRefused::Closed)),
            State::Queued(answer) => {
                ready!(Pin::new(answer).poll(cx)).unwrap_or(Err(PublishRefused::Closed))
            }
        })
    }
}
