//! The bus as most programs use it: topics and filters are text, a publish is one call, and what is watched is values.

use core::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::Stream;
use latchbus_core::hub::{Counts, Kind, Mode, Start, Step};
use latchbus_core::topic::{TopicFilter, TopicName};

use super::{Accepted, Bus, Client};
use crate::access::Principal;
use crate::pacing::Pacing;
use crate::refusal::{PublishRefused, SubscribeRefused};
use crate::{Delivery, Publish, Subscription};

impl Client {
    /// Publishes state: the topic keeps it as its last value. Resolves when it is accepted and, where there is a store, on
    /// disk. An empty payload [clears](Self::clear) the topic.
    ///
    /// # Errors
    /// When the topic is none, or rules or bounds refuse it. Nothing has changed.
    pub async fn publish_state(
        &self,
        topic: impl AsRef<str>,
        payload: impl Into<Bytes>,
    ) -> Result<Accepted, PublishRefused> {
        self.publish(Publish::state(name(topic.as_ref())?, payload))
            .await
    }

    /// Publishes an event: it is delivered to those who are subscribed, and gone.
    ///
    /// # Errors
    /// As for [`publish_state`](Self::publish_state).
    pub async fn publish_event(
        &self,
        topic: impl AsRef<str>,
        payload: impl Into<Bytes>,
    ) -> Result<Accepted, PublishRefused> {
        self.publish(Publish::event(name(topic.as_ref())?, payload))
            .await
    }

    /// Clears a topic: it has no value any more, and who watches it is told.
    ///
    /// # Errors
    /// As for [`publish_state`](Self::publish_state).
    pub async fn clear(&self, topic: impl AsRef<str>) -> Result<Accepted, PublishRefused> {
        self.publish_state(topic, Bytes::new()).await
    }

    /// The values of the topics that match, and what they change to: see [`Watch`].
    ///
    /// # Errors
    /// When the filter is none, or rules or bounds refuse it.
    pub fn watch(&self, filter: impl AsRef<str>) -> Result<Watch, SubscribeRefused> {
        Watch::new(self, filter.as_ref())
    }
}

impl Bus {
    /// [`Client::publish_state`] by the process itself.
    ///
    /// # Errors
    /// When the topic is none, or rules or bounds refuse it. Nothing has changed.
    pub async fn publish_state(
        &self,
        topic: impl AsRef<str>,
        payload: impl Into<Bytes>,
    ) -> Result<Accepted, PublishRefused> {
        self.publish(Publish::state(name(topic.as_ref())?, payload))
            .await
    }

    /// [`Client::publish_event`] by the process itself.
    ///
    /// # Errors
    /// As for [`publish_state`](Self::publish_state).
    pub async fn publish_event(
        &self,
        topic: impl AsRef<str>,
        payload: impl Into<Bytes>,
    ) -> Result<Accepted, PublishRefused> {
        self.publish(Publish::event(name(topic.as_ref())?, payload))
            .await
    }

    /// [`Client::clear`] by the process itself.
    ///
    /// # Errors
    /// As for [`publish_state`](Self::publish_state).
    pub async fn clear(&self, topic: impl AsRef<str>) -> Result<Accepted, PublishRefused> {
        self.publish_state(topic, Bytes::new()).await
    }

    /// The last value of a topic; none where it has none, or is no topic.
    pub fn value(&self, topic: impl AsRef<str>) -> Option<Value> {
        let topic = TopicName::parse(topic.as_ref()).ok()?;
        self.last(topic).map(Value)
    }

    /// [`Client::watch`] by the process itself.
    ///
    /// # Errors
    /// When the filter is none, or rules or bounds refuse it.
    pub fn watch(&self, filter: impl AsRef<str>) -> Result<Watch, SubscribeRefused> {
        let client = self
            .client(Principal::process())
            .map_err(|_| SubscribeRefused::NotAllowed(filter.as_ref().into()))?;
        client.watch(filter)
    }
}

fn name(topic: &str) -> Result<TopicName<String>, PublishRefused> {
    TopicName::parse(topic.to_owned()).map_err(|source| PublishRefused::InvalidTopic {
        topic: topic.to_owned(),
        source,
    })
}

/// The values of the topics that match a filter: a stream that begins with the last value of each and goes on with what
/// they change to, and with events. It ends when the bus closes.
///
/// It conflates: who reads slowly gets the newest value of each topic and skips those in between; and a topic comes at
/// most once in [`SessionLimits::pace`](super::SessionLimits::pace) (20 ms unless told otherwise), its newest value
/// always. Nothing is queued for it. For each publish, for the end of the snapshot and for gaps there is
/// [`Bus::subscribe`].
#[derive(Debug)]
pub struct Watch(Subscription);

impl Watch {
    fn new(client: &Client, text: &str) -> Result<Self, SubscribeRefused> {
        let filter =
            TopicFilter::parse(text).map_err(|source| SubscribeRefused::InvalidFilter {
                filter: text.to_owned(),
                source,
            })?;
        let subscription = client.subscribe(filter, Mode::Latest, Start::Snapshot)?;
        let interval = Pacing::interval(Mode::Latest, None, &client.bus().session_limits());
        Ok(Self(
            subscription.eager().paced(interval.unwrap_or_default()),
        ))
    }

    /// The next value; `None` when the bus has closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Value> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Lets at least this much time pass between two values of a topic; zero: none.
    #[must_use]
    pub fn paced(self, min_interval: Duration) -> Self {
        Self(self.0.paced(min_interval))
    }

    /// What happened to the publishes that matched.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

impl Stream for Watch {
    type Item = Value;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Value>> {
        loop {
            match Pin::new(&mut self.0).poll_next(cx) {
                Poll::Ready(Some(Step::Entry { entry, .. })) => {
                    return Poll::Ready(Some(Value(entry)));
                }
                Poll::Ready(Some(Step::Synced { .. } | Step::Gap { .. } | Step::Reset)) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What was published to a topic. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Value(Delivery);

impl From<Delivery> for Value {
    fn from(delivery: Delivery) -> Self {
        Self(delivery)
    }
}

impl Value {
    /// Where it was published.
    pub fn topic(&self) -> &str {
        self.0.topic.as_str()
    }

    /// What was published; empty where the topic was cleared.
    pub fn payload(&self) -> &Bytes {
        self.0.payload.bytes()
    }

    /// The same as text, where it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        core::str::from_utf8(self.payload()).ok()
    }

    /// Its revision: each is larger than those of all that was accepted before.
    pub fn revision(&self) -> u64 {
        self.0.rev
    }

    /// When it was accepted.
    pub fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.at)
    }

    /// Whether it says that the topic has no value any more.
    pub fn is_cleared(&self) -> bool {
        self.0.kind == Kind::Cleared
    }

    /// Whether it is an event, and not the topic's value.
    pub fn is_event(&self) -> bool {
        self.0.kind == Kind::Event
    }

    /// Everything that is known of it.
    pub const fn delivery(&self) -> &Delivery {
        &self.0
    }
}
