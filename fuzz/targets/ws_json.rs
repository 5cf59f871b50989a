//! JSON messages of WebSocket clients. What is accepted means the same when it is written again in the plainest
//! form, and when it is said in postcard; what is refused names the message's own id.
//!
//! Input: the text of one frame.
#![no_main]

use core::fmt::Write as _;

use latchbus_bus::Request;
use latchbus_bus::frames::{self, json};
use latchbus_core::hub::{Mode, Start};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::{self, ClientFrame, ErrorCode};
use latchbus_ws::Bad;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    // Fails on more than the decoder does: numbers beyond a double, deep nesting.
    let value = serde_json::from_str::<Value>(text).ok();
    match json::decode(text) {
        Ok(request) => accepted(request, value.as_ref()),
        Err(bad) => refused(&bad, value.as_ref()),
    }
});

fn accepted(mut request: Request, value: Option<&Value>) {
    if let Some(value) = value {
        let op = match &request {
            Request::Subscribe { .. } => "subscribe",
            Request::Unsubscribe { .. } => "unsubscribe",
            Request::Publish { .. } => "publish",
            Request::History { .. } => "history",
            Request::SignIn { .. } => "auth",
            Request::Ping { .. } | Request::Bad { .. } => "ping",
        };
        assert_eq!(value["op"], op);
    }
    if let Request::Subscribe { subscriptions, .. } = &mut request {
        let [subscription] = &mut subscriptions[..] else {
            panic!("{subscriptions:?}");
        };
        let pace = subscription.pace.take();
        assert!(pace.is_none() || subscription.mode != Mode::Every);
    }
    let meaning = format!("{request:?}");
    if let Request::History {
        id,
        topic,
        before,
        limit,
    } = &request
    {
        let before = before.map_or("null".to_owned(), |rev| rev.to_string());
        let topic = quoted(topic.as_str());
        let plain = format!(
            r#"{{"op":"history","id":{id},"topic":{topic},"before":{before},"limit":{limit}}}"#
        );
        let again = json::decode(&plain).map(|request| format!("{request:?}"));
        assert_eq!(again, Ok(meaning), "{plain}");
        // It has no postcard form.
        return;
    }
    if let Request::SignIn { id, credentials } = &request {
        let number = id.map_or("null".to_owned(), |id| id.to_string());
        let text = |bytes: &[u8]| quoted(core::str::from_utf8(bytes).expect("it came as text"));
        let plain = match (&credentials.token, &credentials.user, &credentials.password) {
            (Some(token), None, None) => {
                format!(r#"{{"op":"auth","id":{number},"token":{}}}"#, quoted(token))
            }
            (None, Some(user), Some(password)) => format!(
                r#"{{"op":"auth","id":{number},"user":{},"password":{}}}"#,
                quoted(user),
                text(password)
            ),
            _ => panic!("{credentials:?}"),
        };
        // What is shown of a request hides secrets.
        let Ok(Request::SignIn {
            id: again,
            credentials: same,
        }) = json::decode(&plain)
        else {
            panic!("not the same");
        };
        assert_eq!((again, &same), (*id, credentials));
        // It has no postcard form.
        return;
    }
    let (plain, frame) = plainly(&request);
    assert_eq!(
        json::decode(&plain).map(|request| format!("{request:?}")),
        Ok(meaning.clone()),
        "{plain}"
    );
    let message = wire::encode_vec(&frame).expect("memory for what came in a frame");
    assert_eq!(
        frames::decode_postcard(&message).map(|request| format!("{request:?}")),
        Ok(meaning),
        "{plain}"
    );
}

fn refused(bad: &Bad, value: Option<&Value>) {
    let Some(value) = value else {
        assert_eq!(bad.code, ErrorCode::BadMessage);
        return;
    };
    assert!(
        bad.id.is_none() || value["id"].as_u64() == bad.id,
        "{bad:?}"
    );
    match bad.code {
        ErrorCode::BadMessage => {}
        ErrorCode::InvalidTopic => assert!(
            value["topic"]
                .as_str()
                .is_some_and(|topic| TopicName::parse(topic).is_err())
        ),
        ErrorCode::InvalidFilter => {
            assert!(
                value["filter"]
                    .as_str()
                    .is_some_and(|filter| TopicFilter::parse(filter).is_err())
            );
        }
        code => panic!("{code} is not the decoder's to say"),
    }
}

/// The same request in the plainest JSON, and in postcard.
fn plainly(request: &Request) -> (String, ClientFrame<'_>) {
    match request {
        Request::Subscribe { id, subscriptions } => {
            let subscription = &subscriptions[0];
            assert_eq!(subscription.id, *id);
            let filter = subscription.filter.as_str();
            let mode = subscription.mode.name();
            let mut plain = format!(
                r#"{{"op":"subscribe","id":{id},"filter":{},"mode":"{mode}""#,
                quoted(filter)
            );
            let since = match subscription.start {
                Start::Resume(cursor) => Some(cursor),
                Start::Snapshot => None,
                Start::Live => panic!("there is no way to ask for that"),
            };
            if let Some(cursor) = since {
                let _ = write!(plain, r#","since":"{cursor}""#);
            }
            let frame = ClientFrame::Subscribe {
                id: *id,
                filter,
                mode: subscription.mode,
                max_rate: None,
                since,
            };
            (plain + "}", frame)
        }
        Request::Unsubscribe { id, subscriptions } => {
            assert_eq!(subscriptions[..], [*id]);
            (
                format!(r#"{{"op":"unsubscribe","id":{id}}}"#),
                ClientFrame::Unsubscribe { id: *id },
            )
        }
        Request::Publish { id, publish } => {
            let (topic, payload, retain) =
                (publish.topic.as_str(), &publish.payload[..], publish.retain);
            let number = id.map_or("null".to_owned(), |id| id.to_string());
            let plain = format!(
                r#"{{"op":"publish","id":{number},"topic":{},"base64":"{}","retain":{retain}}}"#,
                quoted(topic),
                base64(payload)
            );
            (
                plain,
                ClientFrame::Publish {
                    id: *id,
                    topic,
                    payload,
                    retain,
                },
            )
        }
        Request::Ping { id } => (
            format!(r#"{{"op":"ping","id":{id}}}"#),
            ClientFrame::Ping { id: *id },
        ),
        Request::History { .. } | Request::SignIn { .. } => panic!("it has no postcard form"),
        Request::Bad { .. } => panic!("a refusal is an error"),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            text.push(if place <= chunk.len() {
                ALPHABET[bits >> (18 - 6 * place) & 63].into()
            } else {
                '='
            });
        }
    }
    text
}
