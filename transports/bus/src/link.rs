//! The seam between the bus and its transports: whole typed messages, a half that receives requests and a
//! half that sends events. [`Session::run`](crate::Session::run) drives every link in the same way.

use core::{future::Future, time::Duration};

use latchbus_core::hub::{Counts, Cursor, Mode, Start};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::ErrorCode;

use crate::{
    Credentials, Delivery, HistoryPage, Publish, PublishRefused, SignInRefused, SignedOut,
    SubscribeRefused,
};

/// What a peer asks for.
#[derive(Debug, Clone)]
pub enum Request {
    /// Begin subscriptions, or replace those with the same ids. Answered by one [`Event::Subscribed`].
    Subscribe {
        /// The request's own id, given back in the answer.
        id: u64,
        /// What to subscribe to.
        subscriptions: Vec<Subscribe>,
    },
    /// End subscriptions. Answered by one [`Event::Unsubscribed`].
    Unsubscribe {
        /// The request's own id, given back in the answer.
        id: u64,
        /// The ids of the subscriptions.
        subscriptions: Vec<u64>,
    },
    /// Publish a message. With an id it is answered, in the order of the requests, by
    /// [`Event::Published`] or [`Event::Refused`]; without one, by the latter alone.
    Publish {
        /// The request's own id, given back in the answer.
        id: Option<u64>,
        /// The message.
        publish: Publish,
    },
    /// Read a page of what a topic retains. Answered by one [`Event::History`]. The next is begun when that is on its way.
    History {
        /// The request's own id, given back in the answer.
        id: u64,
        /// Which topic.
        topic: TopicName<String>,
        /// Older than this revision.
        before: Option<u64>,
        /// At most so many messages.
        limit: usize,
    },
    /// Prove anew who the peer is. Answered by [`Event::SignedIn`]. Nothing that comes behind it is done before.
    SignIn {
        /// The request's own id.
        id: Option<u64>,
        /// What the peer brings; nothing: it has signed in already, if it needs to.
        credentials: Credentials,
    },
    /// Answered by [`Event::Pong`].
    Ping {
        /// Given back in the answer.
        id: u64,
    },
    /// The peer sent something that its transport could read but not accept. Answered by
    /// [`Event::Bad`]; the link goes on.
    Bad {
        /// The id of what it sent, if it could be read.
        id: Option<u64>,
        /// What was wrong.
        code: ErrorCode,
        /// The same in words.
        message: String,
    },
}

/// One subscription that a peer asks for.
#[derive(Debug, Clone)]
pub struct Subscribe {
    /// Names the subscription on this link, and in the events that it brings.
    pub id: u64,
    /// Which topics.
    pub filter: TopicFilter<String>,
    /// How it catches up.
    pub mode: Mode,
    /// Where it begins.
    pub start: Start,
    /// At least this much time between two batches, in each of which a topic comes once; none names that of
    /// the bus ([`SessionLimits::pace`](crate::SessionLimits::pace)), zero turns it off. What comes after a
    /// quiet time goes at once. Not in mode [`Mode::Every`].
    pub pace: Option<Duration>,
    /// Takes turns with all other subscriptions to `filter` in the group of this name: each message goes
    /// to one of them, none of which gets a snapshot (MQTT 5 §4.8.2). What nobody takes waits for the
    /// group as long as it has a member.
    pub group: Option<String>,
    /// Whether it goes on after a restart ([`Session::subscribe`](crate::Session::subscribe)): events that were
    /// published at QoS 1 or 2 are stored for it until they are
    /// [confirmed](crate::Session::confirm), as long as the recent ring has room for them. Not in a group.
    pub durable: bool,
    /// Whether it is accepted also where the rules refuse it, and brings nothing until they allow it.
    pub waits: bool,
}

/// What a peer is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// The answer to [`Request::Subscribe`]: a result for each subscription, in its order.
    Subscribed {
        /// The request's id.
        id: u64,
        /// The ids of the subscriptions, and whether each was accepted.
        results: Vec<(u64, Result<(), SubscribeRefused>)>,
    },
    /// The answer to [`Request::Unsubscribe`]: whether each subscription was there, in its order.
    Unsubscribed {
        /// The request's id.
        id: u64,
        /// Whether each was there.
        existed: Vec<bool>,
    },
    /// A publish was accepted; where it is to be durable, it is on disk.
    Published {
        /// The request's id.
        id: u64,
        /// Its revision, or that of the value it left unchanged.
        rev: u64,
    },
    /// A publish was refused and changed nothing.
    Refused {
        /// The request's id, if it had one.
        id: Option<u64>,
        /// Why.
        refused: PublishRefused,
    },
    /// The answer to [`Request::History`].
    History {
        /// The request's id.
        id: u64,
        /// The page.
        result: Result<HistoryPage, SubscribeRefused>,
    },
    /// The answer to [`Request::Ping`].
    Pong {
        /// The request's id.
        id: u64,
        /// What the session's subscriptions have taken and lost since they began, in sum. Of a session with
        /// more than 64 it is the sum of 64.
        counts: Counts,
    },
    /// The answer to [`Request::SignIn`].
    SignedIn {
        /// The request's id.
        id: Option<u64>,
        /// Whether the peer is who it says. If not, it is who it was before; one that was nobody yet has to go.
        result: Result<(), SignInRefused>,
    },
    /// The answer to [`Request::Bad`].
    Bad {
        /// The id of what was sent, if it could be read.
        id: Option<u64>,
        /// What was wrong.
        code: ErrorCode,
        /// The same in words.
        message: String,
    },
    /// A subscription brings a message.
    Message {
        /// The subscription's id.
        subscription: u64,
        /// The message.
        delivery: Delivery,
        /// Whether it is part of the snapshot at the subscription's start.
        retained: bool,
    },
    /// The snapshot of a subscription is complete; what follows is live.
    Synced {
        /// The subscription's id.
        subscription: u64,
        /// What to name to resume.
        cursor: Cursor,
    },
    /// A subscription has missed events.
    Gap {
        /// The subscription's id.
        subscription: u64,
        /// How many.
        missed: u64,
    },
    /// What a subscription has delivered is to be forgotten; a full snapshot follows.
    Reset {
        /// The subscription's id.
        subscription: u64,
    },
}

/// Why the bus ends a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Close {
    /// The server stops.
    GoingAway,
    /// Another connection has taken over this peer's session.
    TakenOver,
    /// The peer may not be here any more.
    SignedOut(SignedOut),
    /// The receiving half has ended: the peer left, broke the protocol or was silent too long. A sender
    /// knows from its own transport what to say.
    ReceiverEnded,
}

/// The half of a link that receives.
pub trait LinkReceiver: Send {
    /// Why the link broke.
    type Error: core::error::Error + Send + Sync + 'static;

    /// The peer's next request; `None` when it has left as its protocol provides. A peer that is silent
    /// for too long is an error of the link. The session reads no further while the bus cannot keep up.
    fn recv(&mut self) -> impl Future<Output = Result<Option<Request>, Self::Error>> + Send;

    /// Whether a peer that publishes more than it may ([`Quotas`](crate::Quotas)) is read more slowly, because it cannot be told
    /// that a publish was refused.
    fn waits_for_its_rate(&self) -> bool {
        false
    }
}

/// The half of a link that sends.
pub trait LinkSender: Send {
    /// Why the link broke.
    type Error: core::error::Error + Send + Sync + 'static;

    /// How many more messages this link takes before it is flushed: bounds its buffer, and what a
    /// transport may have unacknowledged. At 0 after a flush, the session waits until the link's
    /// [`Wake`](crate::Wake) is called.
    fn credit(&mut self) -> usize;

    /// Encodes an event into the link's buffer, without I/O. After a failure to send it may be called
    /// once more with the answers that are still due, for what the link remembers of its peer.
    ///
    /// # Errors
    /// When the link cannot go on.
    fn push(&mut self, event: Event) -> Result<(), Self::Error>;

    /// Sends all that is buffered. Cancel-safe: a later call goes on where this one was dropped.
    fn flush(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Says goodbye as the transport provides, as far as the peer still listens.
    fn close(&mut self, close: Close) -> impl Future<Output = ()> + Send;

    /// Whether a flush has left something that the peer may still get: what waits for a disk, say. A closing bus
    /// waits for it, as long as the session is woken in time.
    fn has_unsent(&mut self) -> bool {
        false
    }

    /// How long the link may send nothing before the session calls [`keep_alive`](Self::keep_alive).
    fn quiet_limit(&self) -> Option<Duration> {
        None
    }

    /// Buffers something that shows the peer, and whatever stands between, that the link lives.
    ///
    /// # Errors
    /// When the link cannot go on.
    fn keep_alive(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
