//! The in-memory link. Its messages are typed, so what can be wrong is less: a frame cannot be broken, only
//! missing, and the peer is gone.

use core::future::pending;

use bytes::Bytes;
use latchbus_bus::memory::{self, MemoryEvents, MemoryRequests};
use latchbus_bus::{
    Bus, Close, Credentials, Event, Publish as BusPublish, Request, Session, SignIn,
    Subscribe as BusSubscribe,
};
use latchbus_core::hub::{Kind, Start};
use latchbus_core::topic::TopicFilter;
use latchbus_core::wire::ErrorCode;
use tokio_util::task::TaskTracker;

use crate::bench::topic_name;
use crate::transport::{
    Connect, End, Incoming, Message, Peer, Publish, Subscribe, Transport, Verdict, Words, Wrong,
};
use crate::users::PASSWORD;

/// Messages on their way in one direction.
const CAPACITY: usize = 32;

/// Sessions over in-memory links.
#[derive(Debug)]
pub struct Memory {
    bus: Bus,
    sessions: TaskTracker,
}

/// The far end of one.
#[derive(Debug)]
pub struct MemoryPeer {
    /// None when the peer has broken its own link.
    requests: Option<MemoryRequests>,
    events: MemoryEvents,
    payload_bytes: usize,
}

impl Transport for Memory {
    type Peer = MemoryPeer;

    const WORDS: Words = Words::ALL;

    async fn serve(bus: Bus) -> Self {
        let sessions = TaskTracker::new();
        Self { bus, sessions }
    }

    async fn connect(&self, connect: Connect<'_>) -> MemoryPeer {
        let (mut link, peer) = memory::link(CAPACITY);
        let sign_in = SignIn::new("memory").with_client_id(connect.name);
        let client = self.bus.sign_in(match connect.user {
            Some(user) => sign_in.with_credentials(Credentials::password(user, PASSWORD)),
            None => sign_in,
        });
        let mut session = Session::new(client.await.unwrap());
        let bus = self.bus.clone();
        bus.metrics().connections.up();
        self.sessions.spawn(async move {
            session
                .run(link.receiver, &mut link.sender, pending())
                .await;
            bus.metrics().connections.down();
        });
        MemoryPeer {
            requests: Some(peer.requests),
            events: peer.events,
            payload_bytes: self.bus.limits().payload_bytes,
        }
    }

    async fn ended(self) {
        self.sessions.close();
        self.sessions.wait().await;
    }

    fn verdict(wrong: Wrong) -> Verdict {
        match wrong {
            Wrong::Message | Wrong::Text => Verdict::Told(ErrorCode::BadMessage),
            Wrong::Frame => Verdict::ToldAndEnded(ErrorCode::BadMessage, End::Silent),
            Wrong::LongFrame => Verdict::Told(ErrorCode::TooLarge),
        }
    }
}

impl MemoryPeer {
    async fn send(&mut self, request: Request) {
        if let Some(requests) = &self.requests {
            // That the link has ended is told by `recv`.
            let _ended = requests.send(request).await;
        }
    }
}

impl Peer for MemoryPeer {
    async fn subscribe(&mut self, subscribe: Subscribe<'_>) {
        let id = subscribe.id;
        let subscribe = BusSubscribe {
            id,
            filter: TopicFilter::parse(subscribe.filter.to_owned()).unwrap(),
            mode: subscribe.mode,
            start: subscribe.since.map_or(Start::Snapshot, Start::Resume),
            pace: None,
            group: None,
            durable: false,
            waits: false,
        };
        let subscriptions = vec![subscribe];
        self.send(Request::Subscribe { id, subscriptions }).await;
    }

    async fn unsubscribe(&mut self, id: u64) {
        let subscriptions = vec![id];
        self.send(Request::Unsubscribe { id, subscriptions }).await;
    }

    async fn publish(&mut self, publish: Publish<'_>) {
        let payload = Bytes::copy_from_slice(publish.payload);
        let message = BusPublish {
            retain: publish.retain,
            ..BusPublish::state(topic_name(publish.topic), payload)
        };
        let id = publish.id;
        self.send(Request::Publish {
            id,
            publish: message,
        })
        .await;
    }

    async fn send_wrong(&mut self, wrong: Wrong) {
        match wrong {
            Wrong::Message | Wrong::Text | Wrong::Frame => {
                let (code, message) = (ErrorCode::BadMessage, "cannot be read".into());
                self.send(Request::Bad {
                    id: None,
                    code,
                    message,
                })
                .await;
                if wrong == Wrong::Frame {
                    self.requests = None;
                }
            }
            Wrong::LongFrame => {
                let long = vec![b'x'; self.payload_bytes + 1];
                let publish = BusPublish::state(topic_name("harm/long"), long);
                self.send(Request::Publish { id: None, publish }).await;
            }
        }
    }

    async fn recv(&mut self) -> Incoming {
        match self.events.recv().await {
            Ok(event) => incoming(event),
            Err(memory::Closed(Some(Close::GoingAway))) => Incoming::Ended(End::GoingAway),
            Err(memory::Closed(_)) => Incoming::Ended(End::Silent),
        }
    }

    async fn leave(self) {
        if let Some(requests) = self.requests {
            requests.leave().await;
        }
    }

    fn cut(self) {}
}

fn incoming(event: Event) -> Incoming {
    match event {
        Event::Subscribed { id, results } => match &results[..] {
            [(_, Ok(()))] => Incoming::Subscribed(id),
            [(_, Err(refused))] => Incoming::Refused(Some(id), refused.code()),
            _ => panic!("one subscription, {} results", results.len()),
        },
        Event::Unsubscribed { id, .. } => Incoming::Unsubscribed(id),
        Event::Published { id, .. } => Incoming::Acked(id),
        Event::Refused { id, refused } => Incoming::Refused(id, refused.code()),
        Event::Bad { id, code, .. } => Incoming::Refused(id, code),
        Event::Message {
            subscription,
            delivery,
            retained,
        } => Incoming::Message(Message {
            subscription: Some(subscription),
            topic: delivery.topic.as_str().to_owned(),
            payload: delivery.payload.bytes().clone(),
            cleared: delivery.kind == Kind::Cleared,
            rev: Some(delivery.rev),
            retained: Some(retained),
            again: false,
        }),
        Event::Synced {
            subscription,
            cursor,
        } => Incoming::Synced(subscription, cursor),
        Event::Gap {
            subscription,
            missed,
        } => Incoming::Gap(subscription, missed),
        Event::Reset { subscription } => Incoming::Reset(subscription),
        Event::SignedIn { id, .. } => panic!("nobody has signed in: {id:?}"),
        Event::History { id, .. } => panic!("nobody asked for page {id}"),
        Event::Pong { id, .. } => panic!("nobody asked for pong {id}"),
    }
}
