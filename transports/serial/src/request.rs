//! What a device's message asks for.

use core::time::Duration;

use bytes::Bytes;
use latchbus_bus::{Publish, Request, Subscribe};
use latchbus_core::hub::{Cursor, Mode, Start};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::{self, ClientFrame, ErrorCode};

/// Reads one message. What cannot be understood becomes [`Request::Bad`], which answers it.
pub(crate) fn decode(message: &[u8]) -> Request {
    match wire::decode_client(message) {
        Ok(frame) => request(frame).unwrap_or_else(|bad| bad),
        Err(error) => bad(None, ErrorCode::BadMessage, &error),
    }
}

pub(crate) fn bad(id: Option<u64>, code: ErrorCode, reason: &dyn ToString) -> Request {
    let message = reason.to_string();
    Request::Bad { id, code, message }
}

fn request(frame: ClientFrame<'_>) -> Result<Request, Request> {
    match frame {
        ClientFrame::Subscribe {
            id,
            filter,
            mode,
            max_rate,
            since,
        } => subscribe(id, filter, mode, max_rate, since),
        ClientFrame::Unsubscribe { id } => Ok(Request::Unsubscribe {
            id,
            subscriptions: vec![id],
        }),
        ClientFrame::Publish {
            id,
            topic,
            payload,
            retain,
        } => {
            let topic = TopicName::parse(topic.to_owned())
                .map_err(|error| bad(id, ErrorCode::InvalidTopic, &error))?;
            let publish = Publish {
                retain,
                ..Publish::event(topic, Bytes::copy_from_slice(payload))
            };
            Ok(Request::Publish { id, publish })
        }
        ClientFrame::Ping { id } => Ok(Request::Ping { id }),
    }
}

fn subscribe(
    id: u64,
    filter: &str,
    mode: Mode,
    max_rate: Option<f32>,
    since: Option<Cursor>,
) -> Result<Request, Request> {
    let filter = TopicFilter::parse(filter.to_owned())
        .map_err(|error| bad(Some(id), ErrorCode::InvalidFilter, &error))?;
    let pace = max_rate.map(pace).transpose();
    let pace = pace.map_err(|reason| bad(Some(id), ErrorCode::BadMessage, &reason))?;
    if pace.is_some() && mode == Mode::Every {
        let reason = &"max_rate needs mode latest";
        return Err(bad(Some(id), ErrorCode::BadMessage, reason));
    }
    let start = since.map_or(Start::Snapshot, Start::Resume);
    let subscription = Subscribe {
        id,
        filter,
        mode,
        start,
        pace,
        group: None,
        durable: false,
    };
    Ok(Request::Subscribe {
        id,
        subscriptions: vec![subscription],
    })
}

/// Slower than one message an hour is one message an hour.
const LONGEST_PACE: Duration = Duration::from_secs(3600);

fn pace(max_rate: f32) -> Result<Duration, &'static str> {
    if !max_rate.is_finite() || max_rate <= 0.0 {
        return Err("max_rate is not a positive number");
    }
    let pace = Duration::try_from_secs_f64(f64::from(max_rate).recip()).unwrap_or(LONGEST_PACE);
    Ok(pace.min(LONGEST_PACE))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(frame: &ClientFrame<'_>) -> (Option<u64>, ErrorCode) {
        match decode(&wire::encode_vec(frame).unwrap()) {
            Request::Bad { id, code, .. } => (id, code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_accepted_is_told() {
        let subscribe = |filter, mode, max_rate| ClientFrame::Subscribe {
            id: 4,
            filter,
            mode,
            max_rate,
            since: None,
        };
        let invalid = subscribe("a#", Mode::Latest, None);
        assert_eq!(code(&invalid), (Some(4), ErrorCode::InvalidFilter));
        for (mode, rate) in [
            (Mode::Latest, f32::NAN),
            (Mode::Latest, -1.0),
            (Mode::Every, 1.0),
        ] {
            let wrong = subscribe("a", mode, Some(rate));
            assert_eq!(code(&wrong), (Some(4), ErrorCode::BadMessage));
        }
        let publish = ClientFrame::Publish {
            id: None,
            topic: "a/+",
            payload: b"",
            retain: false,
        };
        assert_eq!(code(&publish), (None, ErrorCode::InvalidTopic));
    }

    #[test]
    fn a_resumed_subscription_keeps_its_cursor_and_pace() {
        let cursor = Cursor { epoch: 9, rev: 1 };
        let frame = ClientFrame::Subscribe {
            id: 4,
            filter: "a/#",
            mode: Mode::Latest,
            max_rate: Some(2.0),
            since: Some(cursor),
        };
        match decode(&wire::encode_vec(&frame).unwrap()) {
            Request::Subscribe {
                id: 4,
                subscriptions,
            } => {
                let [one] = &subscriptions[..] else {
                    panic!("{subscriptions:?}")
                };
                assert_eq!(one.start, Start::Resume(cursor));
                assert_eq!(one.pace, Some(Duration::from_millis(500)));
            }
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn no_message_panics(message in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&message);
        }
    }
}
