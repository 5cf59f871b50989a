//! What clients send.

use std::borrow::Cow;

use bytes::Bytes;
use latchbus_core::hub::{Cursor, Mode};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::payload::{PayloadError, payload_bytes};
use crate::frames::{self, Bad};
use crate::{Credentials, Request};

/// Reads one message of the subprotocol `latchbus.v1.json`.
///
/// # Errors
/// [`Bad`], which answers it: no JSON, an unknown or a repeated key, a key that the op does not have or that
/// is missing, a value of the wrong type, anything but one object. `null` stands for an absent key, except in `payload`.
pub fn decode(text: &str) -> Result<Request, Bad> {
    // Serde would read an array as the keys' values in their order.
    if !text.trim_start().starts_with('{') {
        return Err(Bad::message(None, "a message is one JSON object"));
    }
    let frame: Frame<'_> = serde_json::from_str(text).map_err(|error| {
        let id = serde_json::from_str::<OnlyId>(text).map_or(None, |frame| frame.id);
        Bad::message(id, error)
    })?;
    let id = frame.id;
    frame.read().map_err(|mut bad| {
        bad.id = id;
        bad
    })
}

const NOT_ONE: &str = "not exactly one of payload, text, base64 and cleared";

/// Every key of every op.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    filter: Option<Cow<'a, str>>,
    #[serde(borrow)]
    mode: Option<Cow<'a, str>>,
    max_rate: Option<f64>,
    #[serde(borrow)]
    since: Option<Cow<'a, str>>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "raw_or_null")]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
    cleared: Option<bool>,
    retain: Option<bool>,
    before: Option<u64>,
    limit: Option<u64>,
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    password: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct OnlyId {
    id: Option<u64>,
}

/// For `#[serde(deserialize_with)]` of the key `payload`: an `Option` alone would take `null` for absent.
///
/// # Errors
/// Those of the deserializer.
pub fn raw_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

impl Frame<'_> {
    /// The errors come without an id.
    fn read(self) -> Result<Request, Bad> {
        let op: &str = &self.op;
        let for_subscribe = self.filter.is_some()
            || self.mode.is_some()
            || self.max_rate.is_some()
            || self.since.is_some();
        let for_history = self.before.is_some() || self.limit.is_some();
        let for_publish = self.payload.is_some()
            || self.text.is_some()
            || self.base64.is_some()
            || self.cleared.is_some()
            || self.retain.is_some();
        let for_auth = self.token.is_some() || self.user.is_some() || self.password.is_some();
        let (subscribes, publishes, pages) = match op {
            "subscribe" => (true, false, false),
            "publish" => (false, true, false),
            "history" => (false, false, true),
            "unsubscribe" | "ping" | "auth" => (false, false, false),
            _ => return Err(bad("unknown op")),
        };
        let is_foreign = (for_subscribe && !subscribes)
            || (for_publish && !publishes)
            || (for_history && !pages)
            || (for_auth && op != "auth")
            || (self.topic.is_some() && !(publishes || pages));
        if is_foreign {
            return Err(bad("a key that this op does not have"));
        }
        if publishes {
            return self.publish();
        }
        if op == "auth" {
            return self.auth();
        }
        let id = self.id.ok_or_else(|| bad("missing id"))?;
        match op {
            "subscribe" => self.subscribe(id),
            "unsubscribe" => Ok(frames::unsubscribe(id)),
            "history" => {
                let topic = self.topic.ok_or_else(|| bad("missing topic"))?;
                frames::history(id, &topic, self.before, self.limit)
            }
            _ => Ok(Request::Ping { id }),
        }
    }

    fn auth(self) -> Result<Request, Bad> {
        let text = |text: Cow<'_, str>| text.into_owned();
        let credentials = match (self.token, self.user, self.password) {
            (Some(token), None, None) => Credentials::token(text(token)),
            (None, Some(user), Some(password)) => Credentials::password(text(user), text(password)),
            _ => return Err(bad("not either a token or user and password")),
        };
        Ok(Request::SignIn {
            id: self.id,
            credentials,
        })
    }

    fn subscribe(self, id: u64) -> Result<Request, Bad> {
        let filter = self.filter.ok_or_else(|| bad("missing filter"))?;
        let mode = self.mode.as_deref().map_or(Some(Mode::Latest), Mode::named);
        let mode = mode.ok_or_else(|| bad("mode is none of latest, every and state"))?;
        let since = self.since.map(|since| since.parse::<Cursor>());
        let since = since.transpose().map_err(bad)?;
        frames::subscribe(id, &filter, mode, self.max_rate, since)
    }

    fn publish(self) -> Result<Request, Bad> {
        let topic = self.topic.ok_or_else(|| bad("missing topic"))?;
        let retain = self.retain.unwrap_or(false);
        let cleared = self.cleared.unwrap_or(false);
        let payload = match (self.payload, self.text, self.base64, cleared) {
            (None, None, None, true) if retain => Bytes::new(),
            (None, None, None, true) => return Err(bad("cleared needs retain")),
            (json, text, base64, false) => {
                payload_bytes(json.map(RawValue::get), text, base64.as_deref()).map_err(
                    |error| match error {
                        PayloadError::NotOne => bad(NOT_ONE),
                        error => bad(error),
                    },
                )?
            }
            _ => return Err(bad(NOT_ONE)),
        };
        frames::publish(self.id, &topic, payload, retain)
    }
}

fn bad(message: impl ToString) -> Bad {
    Bad::message(None, message)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use latchbus_core::hub::Start;
    use latchbus_core::wire::ErrorCode;
    use proptest::prelude::*;

    use super::*;
    use crate::{Publish, Subscribe};

    fn subscribe(text: &str) -> Subscribe {
        match decode(text).unwrap() {
            Request::Subscribe {
                id,
                mut subscriptions,
            } if subscriptions.len() == 1 => {
                let one = subscriptions.remove(0);
                assert_eq!(one.id, id);
                one
            }
            other => panic!("{other:?}"),
        }
    }

    fn publish(text: &str) -> (Option<u64>, Publish) {
        match decode(text).unwrap() {
            Request::Publish { id, publish } => (id, publish),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_array_is_no_message() {
        let positional = r#"["publish",3,null,null,null,null,"a/b",{"c":1},null,null,null,true]"#;
        for text in [positional, "[5]", "  [5]", "5", "\"ping\"", ""] {
            let bad = decode(text).unwrap_err();
            assert_eq!((bad.id, bad.code), (None, ErrorCode::BadMessage), "{text}");
        }
    }

    #[test]
    fn subscriptions() {
        let full = subscribe(
            r#"{"op":"subscribe","id":1,"filter":"clicks/main/#","mode":"latest","max_rate":20,"since":"9f3c:1042"}"#,
        );
        assert_eq!((full.id, full.filter.as_str()), (1, "clicks/main/#"));
        assert_eq!(full.mode, Mode::Latest);
        assert_eq!(full.pace, Some(Duration::from_millis(50)));
        let cursor = Cursor {
            epoch: 0x9f3c,
            rev: 1042,
        };
        assert_eq!(full.start, Start::Resume(cursor));

        let short = subscribe(r#"{"filter":"\u002b/b","since":null,"id":0,"op":"subscribe"}"#);
        assert_eq!(short.filter.as_str(), "+/b");
        assert_eq!((short.mode, short.pace), (Mode::Latest, None));
        assert_eq!(short.start, Start::Snapshot);

        let every = subscribe(r#"{"op":"subscribe","id":2,"filter":"a","mode":"every"}"#);
        assert_eq!(every.mode, Mode::Every);
    }

    #[test]
    fn the_other_ops() {
        match decode(r#"{"op":"unsubscribe","id":7}"#).unwrap() {
            Request::Unsubscribe {
                id: 7,
                subscriptions,
            } => assert_eq!(subscriptions, [7]),
            other => panic!("{other:?}"),
        }
        match decode(r#"{"op":"history","id":4,"topic":"chat/lobby","before":9,"limit":20}"#)
            .unwrap()
        {
            Request::History {
                id: 4,
                topic,
                before: Some(9),
                limit: 20,
            } => assert_eq!(topic.as_str(), "chat/lobby"),
            other => panic!("{other:?}"),
        }
        let short = decode(r#"{"op":"history","id":4,"topic":"a"}"#);
        assert!(matches!(
            short,
            Ok(Request::History {
                before: None,
                limit: 50,
                ..
            })
        ));
        for (wrong, code) in [
            (r#"{"op":"history","id":4}"#, ErrorCode::BadMessage),
            (r#"{"op":"history","topic":"a"}"#, ErrorCode::BadMessage),
            (
                r#"{"op":"history","id":4,"topic":"a/#"}"#,
                ErrorCode::InvalidTopic,
            ),
            (
                r#"{"op":"history","id":4,"topic":"a","limit":0}"#,
                ErrorCode::BadMessage,
            ),
            (
                r#"{"op":"history","id":4,"topic":"a","before":-1}"#,
                ErrorCode::BadMessage,
            ),
            (
                r#"{"op":"history","id":4,"topic":"a","retain":true}"#,
                ErrorCode::BadMessage,
            ),
            (
                r#"{"op":"history","id":4,"topic":"a","filter":"a"}"#,
                ErrorCode::BadMessage,
            ),
            (r#"{"op":"ping","id":4,"limit":1}"#, ErrorCode::BadMessage),
            (r#"{"op":"ping","id":4,"topic":"a"}"#, ErrorCode::BadMessage),
        ] {
            assert_eq!(decode(wrong).unwrap_err().code, code, "{wrong}");
        }
        let ping = decode(r#"{"op":"ping","id":18446744073709551615}"#);
        assert!(matches!(ping, Ok(Request::Ping { id: u64::MAX })));
    }

    #[test]
    fn publishes() {
        let (id, json) = publish(
            r#"{"op":"publish","id":2,"topic":"lab/temp","payload": {"c": 21.5} ,"retain":true}"#,
        );
        assert_eq!((id, json.topic.as_str()), (Some(2), "lab/temp"));
        assert_eq!(json.payload, r#"{"c": 21.5}"#);
        assert!(json.retain);
        assert_eq!(json.qos, 2);

        let (id, null) = publish(r#"{"op":"publish","topic":"a","payload":null}"#);
        assert_eq!(id, None);
        assert_eq!(null.payload, "null");
        assert!(!null.retain);

        let payload = |keys: &str| {
            publish(&format!(
                r#"{{"op":"publish","topic":"a","retain":true,{keys}}}"#
            ))
            .1
            .payload
        };
        assert_eq!(payload(r#""text":"\u00e9\n""#), "é\n");
        assert_eq!(payload(r#""base64":"//4=""#), &b"\xff\xfe"[..]);
        assert_eq!(payload(r#""cleared":true"#), "");
        assert_eq!(payload(r#""text":"""#), "");
        assert_eq!(payload(r#""cleared":false,"text":"x""#), "x");
    }

    #[test]
    fn what_is_refused() {
        use ErrorCode::{BadMessage, InvalidFilter, InvalidTopic};
        for (text, id, code) in [
            ("", None, BadMessage),
            ("x", None, BadMessage),
            ("[]", None, BadMessage),
            ("{}", None, BadMessage),
            (r#"{"id":3}"#, Some(3), BadMessage),
            (r#"{"op":"sing","id":3}"#, Some(3), BadMessage),
            (r#"{"op":"ping"}"#, None, BadMessage),
            (r#"{"op":"ping","id":-1}"#, None, BadMessage),
            (r#"{"op":"ping","id":1.5}"#, None, BadMessage),
            (r#"{"op":"ping","id":"1"}"#, None, BadMessage),
            (r#"{"op":"ping","id":1} x"#, None, BadMessage),
            (r#"{"op":"ping","id":1,"id":1}"#, None, BadMessage),
            (r#"{"op":"ping","id":3,"extra":0}"#, Some(3), BadMessage),
            (r#"{"op":"ping","id":3,"topic":"a"}"#, Some(3), BadMessage),
            (r#"{"op":"subscribe","id":3}"#, Some(3), BadMessage),
            (r#"{"op":"subscribe","filter":"a"}"#, None, BadMessage),
            (
                r#"{"op":"subscribe","id":3,"filter":"a#"}"#,
                Some(3),
                InvalidFilter,
            ),
            (
                r#"{"op":"subscribe","id":3,"filter":""}"#,
                Some(3),
                InvalidFilter,
            ),
            (
                r#"{"op":"subscribe","id":3,"filter":"a","mode":"all"}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"subscribe","id":3,"filter":"a","max_rate":0}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"subscribe","id":3,"filter":"a","max_rate":1,"mode":"every"}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"subscribe","id":3,"filter":"a","since":"9F:1"}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"subscribe","id":3,"filter":"a","retain":true}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"publish","id":3,"payload":1}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"publish","id":3,"topic":"a"}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"publish","id":3,"topic":"a/+","payload":1}"#,
                Some(3),
                InvalidTopic,
            ),
            (
                r#"{"op":"publish","topic":"","payload":1}"#,
                None,
                InvalidTopic,
            ),
            (
                r#"{"op":"publish","id":3,"topic":"a","payload":1,"text":"1"}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"publish","id":3,"topic":"a","base64":"_"}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"publish","id":3,"topic":"a","cleared":true}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"publish","id":3,"topic":"a","cleared":true,"retain":true,"text":""}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"publish","id":3,"topic":"a","payload":1,"mode":"every"}"#,
                Some(3),
                BadMessage,
            ),
            (
                r#"{"op":"publish","id":3,"topic":"a","payload":{"b":}}"#,
                None,
                BadMessage,
            ),
        ] {
            let bad = decode(text).unwrap_err();
            assert_eq!((bad.id, bad.code), (id, code), "{text}: {bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = decode(&text);
        }

        #[test]
        fn payloads_arrive(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let quoted = serde_json::to_string(&text).unwrap();
            let (_, as_text) = publish(&format!(r#"{{"op":"publish","topic":"a","text":{quoted}}}"#));
            prop_assert_eq!(as_text.payload, text.as_bytes());
            let (_, as_json) = publish(&format!(r#"{{"op":"publish","topic":"a","payload":{quoted}}}"#));
            prop_assert_eq!(as_json.payload, quoted.as_bytes());
            let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes);
            let (_, as_bytes) = publish(&format!(r#"{{"op":"publish","topic":"a","base64":"{encoded}"}}"#));
            prop_assert_eq!(as_bytes.payload, bytes);
        }
    }
}
