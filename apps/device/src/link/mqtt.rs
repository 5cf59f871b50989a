//! The link over MQTT: presence has a will.

use futures_util::StreamExt;
use latchbus_core::topic::TopicName;
use latchbus_mqtt::client::{Client, Link as State, Messages, Options, SendError, Will};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::{
    Change, Identity, LinkError, OFFLINE, ONLINE, Topics, acknowledged, count_topic, score,
};
use crate::access::Access;
use crate::device::Report;

#[derive(Debug)]
pub(crate) struct Mqtt {
    client: Client,
    state: watch::Receiver<State>,
    topics: Topics,
    own: Messages,
    score: Option<Messages>,
    /// The topic of the report that was set last, and what the server has acknowledged there.
    reported: Option<(TopicName<String>, watch::Receiver<Option<bytes::Bytes>>)>,
}

impl Mqtt {
    pub(super) fn connect(
        (host, port): (&str, u16),
        access: Access,
        identity: &Identity<'_>,
        topics: Topics,
    ) -> Result<Self, LinkError> {
        let client_id = format!("{}-{:08x}", identity.id, identity.nonce);
        let mut options = Options::new(client_id, host, port);
        options.tls = access.tls;
        options.credentials = access.credentials;
        options.will = Some(Will {
            topic: topics.status.clone(),
            payload: OFFLINE.into(),
            retain: true,
        });
        let client = Client::connect(options);
        let own = client.subscribe(topics.own.borrowed());
        let score = topics.score.as_ref();
        let score = score.map(|filter| client.subscribe(filter.borrowed()));
        // The client says it again after each reconnect.
        client
            .set(topics.status.borrowed(), ONLINE, false)
            .map_err(failed)?;
        let mut state = client.link();
        // That it is not connected yet is no news.
        if *state.borrow() == State::Online {
            state.mark_changed();
        }
        Ok(Self {
            client,
            state,
            topics,
            own,
            score,
            reported: None,
        })
    }

    pub(super) async fn next(&mut self) -> Result<Change, LinkError> {
        loop {
            select! {
                changed = self.state.changed() => {
                    changed.map_err(|_| LinkError::Closed)?;
                    return match *self.state.borrow_and_update() {
                        State::Online => Ok(Change::Online),
                        State::Offline => {
                            let why = self.client.error().map(|error| error.to_string());
                            Ok(Change::Offline(why))
                        }
                        State::Closed => Err(LinkError::Closed),
                    };
                }
                message = self.own.next() => {
                    let message = message.ok_or(LinkError::Ended)?;
                    // Of one subscription the retained messages come first. The device has said that it is
                    // online behind the subscription: when that comes back, they have all come.
                    let own_words = !message.retained
                        && message.topic == self.topics.status
                        && message.payload == ONLINE;
                    if own_words && *self.state.borrow() == State::Online {
                        return Ok(Change::Told);
                    }
                    if let Some(heard) = self.topics.heard(message.topic.as_str(), &message.payload) {
                        return Ok(heard);
                    }
                }
                message = next_of(&mut self.score) => {
                    let message = message.ok_or(LinkError::Ended)?;
                    if let Some(score) = score(&message.payload) {
                        return Ok(score);
                    }
                }
                payload = acknowledgement(&mut self.reported) => {
                    if let Some(change) = payload.as_ref().and_then(acknowledged) {
                        return Ok(change);
                    }
                }
            }
        }
    }

    pub(super) fn report(&mut self, report: &Report) -> Result<(), LinkError> {
        let topic = count_topic(report)?;
        let payload = report.counter.to_string();
        self.client
            .set(topic.borrowed(), payload, false)
            .map_err(failed)?;
        if self
            .reported
            .as_ref()
            .is_none_or(|(last, _)| *last != topic)
        {
            let confirmed = self.client.confirmed(topic.borrowed());
            self.reported = confirmed.map(|confirmed| (topic, confirmed));
        }
        Ok(())
    }

    pub(super) fn say(&mut self, status: &'static str) -> Result<(), LinkError> {
        self.client
            .set(self.topics.status.borrowed(), status, false)
            .map_err(failed)
    }

    pub(super) async fn leave(mut self, deadline: Instant) {
        let status = self.topics.status.clone();
        if self.say(OFFLINE).is_ok()
            && let Some(mut said) = self.client.confirmed(status.borrowed())
        {
            let said = said.wait_for(|said| said.as_ref().is_some_and(|said| said == OFFLINE));
            if !matches!(timeout_at(deadline, said).await, Ok(Ok(_))) {
                // Without a goodbye the server publishes the will, which says the same.
                return;
            }
        }
        self.client.close().await;
    }
}

async fn next_of(messages: &mut Option<Messages>) -> Option<latchbus_mqtt::client::Message> {
    match messages {
        Some(messages) => messages.next().await,
        None => core::future::pending().await,
    }
}

/// What has been acknowledged, when that changes.
async fn acknowledgement(
    reported: &mut Option<(TopicName<String>, watch::Receiver<Option<bytes::Bytes>>)>,
) -> Option<bytes::Bytes> {
    if let Some((_, confirmed)) = reported
        && confirmed.changed().await.is_ok()
    {
        return confirmed.borrow_and_update().clone();
    }
    core::future::pending().await
}

fn failed(error: SendError) -> LinkError {
    LinkError::Send(Box::new(error))
}
