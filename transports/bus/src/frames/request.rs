//! What a peer asks for.

use core::time::Duration;

use bytes::Bytes;
use latchbus_core::hub::{Cursor, Mode, Start};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::{self, ClientFrame, ErrorCode};

use crate::{HISTORY_PAGE, Publish, Request, Subscribe};

/// A message that could be read but not accepted. The connection goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Bad {
    /// The message's id, if it could be read.
    pub id: Option<u64>,
    /// What is wrong, for programs.
    pub code: ErrorCode,
    /// The same for people.
    pub message: String,
}

impl Bad {
    /// A message that cannot be understood.
    pub fn message(id: Option<u64>, message: impl ToString) -> Self {
        Self::new(id, ErrorCode::BadMessage, message)
    }

    /// A message that is wrong in this way.
    pub fn new(id: Option<u64>, code: ErrorCode, message: impl ToString) -> Self {
        Self {
            id,
            code,
            message: message.to_string(),
        }
    }
}

impl From<Bad> for Request {
    fn from(bad: Bad) -> Self {
        let Bad { id, code, message } = bad;
        Self::Bad { id, code, message }
    }
}

/// Reads one message in postcard form.
///
/// # Errors
/// [`Bad`], which answers it.
pub fn decode_postcard(message: &[u8]) -> Result<Request, Bad> {
    let frame = wire::decode_client(message).map_err(|error| Bad::message(None, error))?;
    match frame {
        ClientFrame::Subscribe {
            id,
            filter,
            mode,
            max_rate,
            since,
        } => subscribe(id, filter, mode, max_rate.map(f64::from), since),
        ClientFrame::Unsubscribe { id } => Ok(unsubscribe(id)),
        ClientFrame::Publish {
            id,
            topic,
            payload,
            retain,
        } => publish(id, topic, Bytes::copy_from_slice(payload), retain),
        ClientFrame::Ping { id } => Ok(Request::Ping { id }),
    }
}

/// A subscription that answers to `id`. `max_rate` is in frames a second for each topic.
///
/// # Errors
/// [`Bad`], which answers it.
pub fn subscribe(
    id: u64,
    filter: &str,
    mode: Mode,
    max_rate: Option<f64>,
    since: Option<Cursor>,
) -> Result<Request, Bad> {
    let filter = TopicFilter::parse(filter.to_owned())
        .map_err(|error| Bad::new(Some(id), ErrorCode::InvalidFilter, error))?;
    let pace = max_rate.map(pace).transpose();
    let pace = pace.map_err(|message| Bad::message(Some(id), message))?;
    if pace.is_some() && mode == Mode::Every {
        return Err(Bad::message(
            Some(id),
            "max_rate needs mode latest or state",
        ));
    }
    Ok(Request::Subscribe {
        id,
        subscriptions: vec![Subscribe {
            id,
            filter,
            mode,
            start: since.map_or(Start::Snapshot, Start::Resume),
            pace,
            group: None,
            durable: false,
            waits: false,
        }],
    })
}

/// A page of what a topic retains: older than `before`, at most `limit` messages.
///
/// # Errors
/// [`Bad`], which answers it.
pub fn history(
    id: u64,
    topic: &str,
    before: Option<u64>,
    limit: Option<u64>,
) -> Result<Request, Bad> {
    let topic = TopicName::parse(topic.to_owned())
        .map_err(|error| Bad::new(Some(id), ErrorCode::InvalidTopic, error))?;
    let limit = limit.map_or(HISTORY_PAGE, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    if limit == 0 {
        return Err(Bad::message(Some(id), "limit is 0"));
    }
    Ok(Request::History {
        id,
        topic,
        before,
        limit,
    })
}

/// The end of the subscription that answers to `id`.
pub fn unsubscribe(id: u64) -> Request {
    Request::Unsubscribe {
        id,
        subscriptions: vec![id],
    }
}

/// A message to be published.
///
/// # Errors
/// [`Bad`], which answers it.
pub fn publish(id: Option<u64>, topic: &str, payload: Bytes, retain: bool) -> Result<Request, Bad> {
    let topic = TopicName::parse(topic.to_owned())
        .map_err(|error| Bad::new(id, ErrorCode::InvalidTopic, error))?;
    let publish = Publish {
        retain,
        ..Publish::event(topic, payload)
    };
    Ok(Request::Publish { id, publish })
}

/// Slower than one frame an hour is one frame an hour.
const LONGEST_PACE: Duration = Duration::from_secs(3600);

/// The time between two frames at `max_rate` frames a second.
fn pace(max_rate: f64) -> Result<Duration, &'static str> {
    if !max_rate.is_finite() || max_rate <= 0.0 {
        return Err("max_rate is not a positive number");
    }
    let pace = Duration::try_from_secs_f64(max_rate.recip()).unwrap_or(LONGEST_PACE);
    Ok(pace.min(LONGEST_PACE))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates() {
        assert_eq!(pace(20.0), Ok(Duration::from_millis(50)));
        assert_eq!(pace(1e-30), Ok(LONGEST_PACE));
        assert_eq!(pace(f64::MIN_POSITIVE / 4.0), Ok(LONGEST_PACE));
        for rate in [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(pace(rate).is_err());
        }
    }

    #[test]
    fn postcard_requests() {
        let decode = |frame: ClientFrame<'_>| decode_postcard(&wire::encode_vec(&frame).unwrap());
        let subscribe = |filter, mode, max_rate| {
            decode(ClientFrame::Subscribe {
                id: 4,
                filter,
                mode,
                max_rate,
                since: Some(Cursor { epoch: 9, rev: 1 }),
            })
        };
        match subscribe("a/#", Mode::Latest, Some(2.0)).unwrap() {
            Request::Subscribe {
                id: 4,
                subscriptions,
            } => {
                let [one] = &subscriptions[..] else {
                    panic!("{subscriptions:?}")
                };
                assert_eq!(one.filter.as_str(), "a/#");
                assert_eq!(one.start, Start::Resume(Cursor { epoch: 9, rev: 1 }));
                assert_eq!(one.pace, Some(Duration::from_millis(500)));
            }
            other => panic!("{other:?}"),
        }
        let code = |result: Result<Request, Bad>| {
            let bad = result.unwrap_err();
            (bad.id, bad.code)
        };
        assert_eq!(
            code(subscribe("a#", Mode::Latest, None)),
            (Some(4), ErrorCode::InvalidFilter)
        );
        for (mode, rate) in [
            (Mode::Latest, f32::NAN),
            (Mode::Latest, -1.0),
            (Mode::Every, 1.0),
        ] {
            assert_eq!(
                code(subscribe("a", mode, Some(rate))),
                (Some(4), ErrorCode::BadMessage)
            );
        }
        let publish = ClientFrame::Publish {
            id: None,
            topic: "a/+",
            payload: b"",
            retain: false,
        };
        assert_eq!(code(decode(publish)), (None, ErrorCode::InvalidTopic));
        assert_eq!(code(decode_postcard(b"")), (None, ErrorCode::BadMessage));
        assert_eq!(
            code(decode_postcard(b"\x02\x01\x01")),
            (None, ErrorCode::BadMessage)
        );
    }

    proptest! {
        #[test]
        fn no_message_panics(message in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_postcard(&message);
        }
    }
}
