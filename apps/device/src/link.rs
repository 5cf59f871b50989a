//! The connection to the server, over either transport, as the device sees it.

mod mqtt;
mod ws;

use bytes::Bytes;
use latchbus_core::clicks::{ClickTopic, Counter, FloorRecord};
use latchbus_core::topic::{TopicError, TopicFilter, TopicName};
use latchbus_ws::client::SubscriptionError;
use thiserror::Error;
use tokio::time::Instant;

use crate::access::Access;
use crate::address::Address;
use crate::device::{Heard, Report};

/// What a status topic says of a device that is there, and of one that is not.
const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

/// Who connects, and where.
#[derive(Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) room: &'a str,
    pub(crate) id: &'a str,
    /// Tells apart devices with the same id, and is the same after a restart: a server then lets the new
    /// connection take the place of the old one, whose will it publishes first.
    pub(crate) nonce: u32,
}

/// What the link tells.
#[derive(Debug)]
pub(crate) enum Change {
    /// There is a connection.
    Online,
    /// There is none; it is being made anew. Why, where that is known.
    Offline(Option<String>),
    /// All that the server knew of the device when the connection was made has been told.
    Told,
    /// The server knows this of the device.
    Heard(Heard),
    /// The device's status says that it is offline.
    SaidOffline,
    /// The room's score.
    Score(Counter),
    /// The server has acknowledged this counter of the report that was set last.
    Acknowledged(Counter),
    /// The server has refused the report that was set last.
    Refused(String),
}

/// Why there is no link, or no more.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("cannot connect")]
    Connect(#[from] latchbus_ws::client::ConnectError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    #[error("the client has ended a subscription")]
    Ended,
    #[error("the client cannot send this")]
    Send(#[source] Box<dyn core::error::Error + Send + Sync>),
    #[error("the client has closed the connection")]
    Closed,
}

/// A connection that comes back by itself.
#[derive(Debug)]
pub(crate) enum Link {
    Mqtt(mqtt::Mqtt),
    Ws(ws::Ws),
}

impl Link {
    /// Begins to connect. With `watch`, the room's score is told too.
    ///
    /// # Errors
    /// When the address can never work.
    pub(crate) fn connect(
        address: &Address,
        access: Access,
        identity: &Identity<'_>,
        watch: bool,
    ) -> Result<Self, LinkError> {
        let topics = Topics::new(identity, watch)?;
        Ok(match address {
            Address::Mqtt { host, port, .. } => {
                let server = (host.as_str(), *port);
                Self::Mqtt(mqtt::Mqtt::connect(server, access, identity, topics)?)
            }
            Address::Ws { url, .. } => Self::Ws(ws::Ws::connect(url, access, topics)?),
        })
    }

    /// The next change. Cancel-safe.
    ///
    /// # Errors
    /// When nothing more will come.
    pub(crate) async fn next(&mut self) -> Result<Change, LinkError> {
        match self {
            Self::Mqtt(link) => link.next().await,
            Self::Ws(link) => link.next().await,
        }
    }

    /// Publishes a report, retained and with QoS 1: as soon as there is a connection, at most one at a time,
    /// the newest first. Again if it is the same.
    ///
    /// # Errors
    /// When the client keeps as many topics as it may.
    pub(crate) fn report(&mut self, report: &Report) -> Result<(), LinkError> {
        match self {
            Self::Mqtt(link) => link.report(report),
            Self::Ws(link) => link.report(report),
        }
    }

    /// Says that the device is there.
    ///
    /// # Errors
    /// As for [`Self::report`].
    pub(crate) fn say_online(&mut self) -> Result<(), LinkError> {
        match self {
            Self::Mqtt(link) => link.say(ONLINE),
            Self::Ws(link) => link.say(ONLINE),
        }
    }

    /// Says that the device is gone, until the deadline, and ends the connection.
    pub(crate) async fn leave(self, deadline: Instant) {
        match self {
            Self::Mqtt(link) => link.leave(deadline).await,
            Self::Ws(link) => link.leave(deadline).await,
        }
    }
}

/// What a link subscribes and publishes to.
#[derive(Debug)]
struct Topics {
    /// All that concerns the device.
    own: TopicFilter<String>,
    status: TopicName<String>,
    /// The room's score, where it is asked for.
    score: Option<TopicFilter<String>>,
}

impl Topics {
    fn new(identity: &Identity<'_>, watch: bool) -> Result<Self, TopicError> {
        let Identity {
            room, id: device, ..
        } = *identity;
        let score = watch.then(|| TopicFilter::parse(ClickTopic::Values { room }.to_string()));
        Ok(Self {
            own: TopicFilter::parse(format!("clicks/{room}/{device}/#"))?,
            status: TopicName::parse(ClickTopic::Status { room, device }.to_string())?,
            score: score.transpose()?,
        })
    }

    /// What a message of the device's subscription tells. A malformed one tells nothing.
    fn heard(&self, topic: &str, payload: &[u8]) -> Option<Change> {
        match ClickTopic::recognise(topic)? {
            ClickTopic::Count { incarnation, .. } => {
                let counter = Counter::parse(payload).ok()?;
                Some(Change::Heard(Heard::Count(incarnation, counter)))
            }
            ClickTopic::Floor { .. } => {
                let record = FloorRecord::parse(payload).ok()?;
                Some(Change::Heard(Heard::Floor(record.floor)))
            }
            ClickTopic::Status { .. } => {
                (payload == OFFLINE.as_bytes()).then_some(Change::SaidOffline)
            }
            _ => None,
        }
    }
}

/// What a message of the score's subscription tells.
fn score(payload: &[u8]) -> Option<Change> {
    match Counter::parse(payload) {
        Ok(counter) => Some(Change::Score(counter)),
        Err(error) => {
            tracing::warn!(target: "device", %error, "the room's score cannot be read");
            None
        }
    }
}

/// What the acknowledgement of a report's payload tells.
fn acknowledged(payload: &Bytes) -> Option<Change> {
    Counter::parse(payload).ok().map(Change::Acknowledged)
}

fn count_topic(report: &Report) -> Result<TopicName<String>, LinkError> {
    Ok(TopicName::parse(report.topic.clone())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_well_formed_is_heard() {
        let identity = Identity {
            room: "main",
            id: "k1",
            nonce: 7,
        };
        let topics = Topics::new(&identity, true).unwrap();
        let heard = |topic: &str, payload: &str| topics.heard(topic, payload.as_bytes());
        let count = "clicks/main/k1/count/3-0badcafe";
        assert!(matches!(
            heard(count, r#"{"red":1,"blue":2}"#),
            Some(Change::Heard(Heard::Count(incarnation, counter)))
                if incarnation.boot() == 3 && counter == Counter::new(1, 2)
        ));
        assert!(matches!(
            heard("clicks/main/k1/floor", r#"{"floor":5,"red":1,"blue":2}"#),
            Some(Change::Heard(Heard::Floor(5)))
        ));
        assert!(matches!(
            heard("clicks/main/k1/status", "offline"),
            Some(Change::SaidOffline)
        ));
        for (topic, payload) in [
            (count, ""),
            (count, r#"{"red":-1,"blue":2}"#),
            ("clicks/main/k1/count/0-0badcafe", r#"{"red":1,"blue":2}"#),
            ("clicks/main/k1/floor", "5"),
            ("clicks/main/k1/status", "online"),
            ("clicks/main/k1/press", "red"),
            ("clicks/main/k1", "red"),
        ] {
            assert!(heard(topic, payload).is_none(), "{topic} {payload}");
        }
    }
}
