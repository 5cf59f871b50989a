//! The link over WebSocket: no will, so that a device that is cut off or killed stays `online`.

use futures_util::StreamExt;
use latchbus_core::hub::Mode;
use latchbus_core::topic::TopicName;
use latchbus_ws::client::{
    Client, Confirmed, Full, Options, PublishError, State, Subscription, Update,
};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::{Change, LinkError, OFFLINE, Topics, acknowledged, count_topic, score};
use crate::access::Access;
use crate::device::Report;

#[derive(Debug)]
pub(crate) struct Ws {
    client: Client,
    state: watch::Receiver<State>,
    topics: Topics,
    own: Subscription,
    score: Option<Subscription>,
    /// Whether the server has answered on this connection: before, it may still want a sign-in.
    answered: bool,
    /// What the first answer told.
    told: Option<Change>,
    /// The topic of the report that was set last, and what the server has said to it.
    reported: Option<(TopicName<String>, watch::Receiver<Confirmed>)>,
}

impl Ws {
    pub(super) fn connect(url: &str, access: Access, topics: Topics) -> Result<Self, LinkError> {
        let options = Options {
            tls: access.tls,
            credentials: access.credentials,
            ..Options::default()
        };
        let client = Client::connect(url, options)?;
        let subscribe = |filter| {
            client
                .subscribe(filter, Mode::Latest)
                .map_err(not_published)
        };
        let own = subscribe(topics.own.clone())?;
        let score = topics.score.clone().map(subscribe).transpose()?;
        let state = {
            let mut state = client.state();
            state.mark_changed();
            state
        };
        Ok(Self {
            client,
            state,
            topics,
            own,
            score,
            answered: false,
            told: None,
            reported: None,
        })
    }

    pub(super) async fn next(&mut self) -> Result<Change, LinkError> {
        if let Some(told) = self.told.take() {
            return Ok(told);
        }
        loop {
            select! {
                changed = self.state.changed() => {
                    changed.map_err(|_| LinkError::Closed)?;
                    match &*self.state.borrow_and_update() {
                        State::Connecting | State::Live => {}
                        State::Offline { reason, .. } => {
                            self.answered = false;
                            return Ok(Change::Offline(Some(reason.clone())));
                        }
                        State::Closed => return Err(LinkError::Closed),
                    }
                }
                update = self.own.next() => {
                    let update = update.ok_or(LinkError::Closed)?;
                    let change = self.heard(update?);
                    let is_live = *self.state.borrow() == State::Live;
                    if is_live && !self.answered {
                        (self.answered, self.told) = (true, change);
                        return Ok(Change::Online);
                    }
                    if let Some(change) = change {
                        return Ok(change);
                    }
                }
                update = next_of(&mut self.score) => match update {
                    Some(Ok(Update::Message(message))) => {
                        if let Some(score) = score(&message.payload) {
                            return Ok(score);
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(LinkError::Closed),
                },
                confirmed = answer(&mut self.reported) => {
                    if let Some(refused) = confirmed.refused {
                        return Ok(Change::Refused(refused.to_string()));
                    }
                    if let Some(change) = confirmed.payload.as_ref().and_then(acknowledged) {
                        return Ok(change);
                    }
                }
            }
        }
    }

    /// What an update of the device's own subscription tells.
    fn heard(&self, update: Update) -> Option<Change> {
        match update {
            Update::Message(message) => self.topics.heard(&message.topic, &message.payload),
            Update::Synced { .. } if *self.state.borrow() == State::Live => Some(Change::Told),
            _ => None,
        }
    }

    pub(super) fn report(&mut self, report: &Report) -> Result<(), LinkError> {
        let topic = count_topic(report)?;
        if self
            .reported
            .as_ref()
            .is_none_or(|(last, _)| *last != topic)
        {
            let confirmed = self.client.confirmed(&topic).map_err(failed)?;
            self.reported = Some((topic.clone(), confirmed));
        }
        let payload = report.counter.to_string();
        self.client.set(topic, payload).map_err(failed)
    }

    pub(super) fn say(&mut self, status: &'static str) -> Result<(), LinkError> {
        let topic = self.topics.status.clone();
        self.client.set(topic, status).map_err(failed)
    }

    pub(super) async fn leave(self, deadline: Instant) {
        // The last publish of this topic: whatever is acknowledged from now on, this is.
        let said = self
            .client
            .publish(self.topics.status.clone(), OFFLINE, true);
        match timeout_at(deadline, said).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(target: "device", %error, "could not say goodbye"),
            Err(_) => return,
        }
        self.client.close().await;
    }
}

async fn next_of(
    subscription: &mut Option<Subscription>,
) -> Option<Result<Update, latchbus_ws::client::SubscriptionError>> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => core::future::pending().await,
    }
}

/// What the server has said to the report, when that changes.
async fn answer(
    reported: &mut Option<(TopicName<String>, watch::Receiver<Confirmed>)>,
) -> Confirmed {
    if let Some((_, confirmed)) = reported
        && confirmed.changed().await.is_ok()
    {
        return confirmed.borrow_and_update().clone();
    }
    core::future::pending().await
}

fn not_published(error: PublishError) -> LinkError {
    LinkError::Send(Box::new(error))
}

fn failed(error: Full) -> LinkError {
    LinkError::Send(Box::new(error))
}
