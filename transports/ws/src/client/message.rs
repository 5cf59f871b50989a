//! What goes over the connection, in either form, as the client sees it.

use std::borrow::Cow;

use bytes::Bytes;
use latchbus_bus::frames::json::{self, PayloadError, PayloadForm, payload_bytes};
use latchbus_core::hub::{Cursor, Mode};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::{self, ClientFrame, ErrorCode, Limits, ServerFrame};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::Protocol;

/// One publish that a subscription brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub topic: String,
    /// What was published, byte for byte in either subprotocol.
    pub payload: Bytes,
    /// Its revision.
    pub rev: u64,
    /// When the server accepted it, in Unix milliseconds.
    pub at: u64,
}

/// A server's refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refused {
    /// Why, for programs.
    pub code: ErrorCode,
    /// The same for people.
    pub message: String,
}

/// What the client sends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outgoing {
    Subscribe {
        id: u64,
        filter: TopicFilter<String>,
        mode: Mode,
        since: Option<Cursor>,
    },
    Unsubscribe {
        id: u64,
    },
    Publish {
        id: u64,
        topic: TopicName<String>,
        payload: Bytes,
        retain: bool,
    },
}

/// What the server sends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Incoming {
    Welcome {
        epoch: u64,
        limits: Limits,
    },
    Message {
        id: u64,
        message: Message,
    },
    Cleared {
        id: u64,
        topic: String,
        rev: u64,
        at: u64,
    },
    Synced {
        id: u64,
        cursor: Cursor,
    },
    Gap {
        id: u64,
        missed: u64,
    },
    Reset {
        id: u64,
    },
    Ack {
        id: u64,
        rev: u64,
    },
    Error {
        id: Option<u64>,
        refused: Refused,
    },
    /// A pong, or what only a later client knows.
    Other,
}

/// A message that no server sends.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("the server sent a malformed message")]
    Postcard(#[from] wire::WireError),
    #[error("the server sent a malformed message")]
    Json(#[from] serde_json::Error),
    #[error("the server sent a message without `{0}`")]
    Missing(&'static str),
    #[error("the server sent a message of the other subprotocol")]
    WrongForm,
}

impl Outgoing {
    pub(super) fn encode(&self, protocol: Protocol) -> Result<WsMessage, wire::WireError> {
        match protocol {
            Protocol::Json => Ok(WsMessage::text(self.json())),
            Protocol::Postcard => Ok(WsMessage::binary(wire::encode_vec(&self.frame())?)),
        }
    }

    fn frame(&self) -> ClientFrame<'_> {
        match self {
            Self::Subscribe {
                id,
                filter,
                mode,
                since,
            } => ClientFrame::Subscribe {
                id: *id,
                filter: filter.as_str(),
                mode: *mode,
                max_rate: None,
                since: *since,
            },
            Self::Unsubscribe { id } => ClientFrame::Unsubscribe { id: *id },
            Self::Publish {
                id,
                topic,
                payload,
                retain,
            } => ClientFrame::Publish {
                id: Some(*id),
                topic: topic.as_str(),
                payload,
                retain: *retain,
            },
        }
    }

    fn json(&self) -> String {
        match self {
            Self::Subscribe {
                id,
                filter,
                mode,
                since,
            } => {
                let mode = mode.name();
                let filter = json::quoted(filter.as_str());
                let since = since.map(|since| format!(r#","since":"{since}""#));
                let since = since.unwrap_or_default();
                format!(
                    r#"{{"op":"subscribe","id":{id},"filter":{filter},"mode":"{mode}"{since}}}"#
                )
            }
            Self::Unsubscribe { id } => format!(r#"{{"op":"unsubscribe","id":{id}}}"#),
            Self::Publish {
                id,
                topic,
                payload,
                retain,
            } => {
                let topic = json::quoted(topic.as_str());
                let payload = PayloadForm::unspaced(payload).shortest();
                format!(
                    r#"{{"op":"publish","id":{id},"topic":{topic},{payload},"retain":{retain}}}"#
                )
            }
        }
    }
}

impl Incoming {
    /// `None` for what is no data: pings, pongs and the like.
    pub(super) fn decode(
        protocol: Protocol,
        message: &WsMessage,
    ) -> Result<Option<Self>, DecodeError> {
        match (protocol, message) {
            (Protocol::Json, WsMessage::Text(text)) => Self::from_json(text).map(Some),
            (Protocol::Postcard, WsMessage::Binary(bytes)) => {
                Ok(Some(wire::decode_server(bytes)?.into()))
            }
            (_, WsMessage::Text(_) | WsMessage::Binary(_)) => Err(DecodeError::WrongForm),
            _ => Ok(None),
        }
    }

    fn from_json(text: &str) -> Result<Self, DecodeError> {
        let frame: JsonFrame<'_> = serde_json::from_str(text)?;
        let missing = DecodeError::Missing;
        let id = || frame.id.ok_or(missing("id"));
        let rev = || frame.rev.ok_or(missing("rev"));
        Ok(match &*frame.op {
            "welcome" => {
                let epoch = frame.epoch.ok_or(missing("epoch"))?;
                Self::Welcome {
                    epoch: u64::from_str_radix(&epoch, 16).map_err(|_| missing("epoch"))?,
                    limits: frame.limits.ok_or(missing("limits"))?,
                }
            }
            "message" => {
                let (id, rev) = (id()?, rev()?);
                let at = frame.at.ok_or(missing("at"))?;
                let topic = frame.topic.ok_or(missing("topic"))?.into_owned();
                if frame.cleared {
                    return Ok(Self::Cleared { id, topic, rev, at });
                }
                let json = frame.payload.map(|json| with_space(text, json));
                let payload = payload_bytes(json, frame.text, frame.base64.as_deref());
                let payload = payload.map_err(|error| match error {
                    PayloadError::Base64(_) => missing("base64"),
                    _ => missing("payload"),
                })?;
                let message = Message {
                    topic,
                    payload,
                    rev,
                    at,
                };
                Self::Message { id, message }
            }
            "synced" => {
                let cursor = frame.cursor.and_then(|cursor| cursor.parse().ok());
                let cursor = cursor.ok_or(missing("cursor"))?;
                Self::Synced { id: id()?, cursor }
            }
            "gap" => Self::Gap {
                id: id()?,
                missed: frame.missed.ok_or(missing("missed"))?,
            },
            "reset" => Self::Reset { id: id()? },
            "ack" => Self::Ack {
                id: id()?,
                rev: rev()?,
            },
            "error" => Self::Error {
                id: frame.id,
                refused: Refused {
                    code: frame.code.ok_or(missing("code"))?,
                    message: frame.message.unwrap_or_default().into_owned(),
                },
            },
            _ => Self::Other,
        })
    }
}

impl From<ServerFrame<'_>> for Incoming {
    fn from(frame: ServerFrame<'_>) -> Self {
        match frame {
            ServerFrame::Welcome { epoch, limits, .. } => Self::Welcome { epoch, limits },
            ServerFrame::Message {
                id,
                topic,
                payload,
                rev,
                at,
            } => Self::Message {
                id,
                message: Message {
                    topic: topic.to_owned(),
                    payload: Bytes::copy_from_slice(payload),
                    rev,
                    at,
                },
            },
            ServerFrame::Cleared { id, topic, rev, at } => Self::Cleared {
                id,
                topic: topic.to_owned(),
                rev,
                at,
            },
            ServerFrame::Synced { id, cursor } => Self::Synced { id, cursor },
            ServerFrame::Gap { id, missed } => Self::Gap { id, missed },
            ServerFrame::Reset { id } => Self::Reset { id },
            ServerFrame::Ack { id, rev } => Self::Ack { id, rev },
            ServerFrame::Error { id, code, message } => Self::Error {
                id,
                refused: Refused {
                    code,
                    message: message.to_owned(),
                },
            },
            ServerFrame::Pong { .. } => Self::Other,
        }
    }
}

/// A value of this frame of a server's with the white space around it, which was published with it: the server
/// writes none of its own.
fn with_space<'a>(frame: &'a str, value: &'a RawValue) -> &'a str {
    let value = value.get();
    let around = || {
        let begin = value.as_ptr().addr().checked_sub(frame.as_ptr().addr())?;
        let (before, rest) = frame.split_at_checked(begin)?;
        let after = rest.get(value.len()..)?;
        let begin = before.trim_end_matches(json::SPACE).len();
        let end = frame.len() - after.trim_start_matches(json::SPACE).len();
        frame.get(begin..end)
    };
    around().unwrap_or(value)
}

/// Every key of every op. Unknown keys are of a later server, and of no concern.
#[derive(Deserialize)]
struct JsonFrame<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    epoch: Option<Cow<'a, str>>,
    limits: Option<Limits>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::raw_or_null")]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
    #[serde(default)]
    cleared: bool,
    rev: Option<u64>,
    at: Option<u64>,
    #[serde(borrow)]
    cursor: Option<Cow<'a, str>>,
    missed: Option<u64>,
    code: Option<ErrorCode>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use latchbus_bus::Request;
    use latchbus_core::hub::Start;

    use super::*;

    /// What a peer that goes by values, and not by what was published, changes.
    const HOSTILE: [&[u8]; 9] = [
        b"9007199254740993",
        b" {\n\t\"a\" : [ 1.0 , -0 ]\r\n}\r\n",
        b"-0",
        b"0.1000",
        b"1e400",
        b"123456789012345678901234567890.5",
        b"{\"b\":1,\"2\":3,\"1\":4,\"b\":5}",
        b"[\"caf\\u00e9\",\"\\/\",\"\\\",\\\"payload\\\": \"]",
        b"\"\\ud800\"",
    ];

    fn both(outgoing: &Outgoing) -> [Request; 2] {
        Protocol::ALL.map(|protocol| match outgoing.encode(protocol).unwrap() {
            WsMessage::Text(text) => json::decode(&text).unwrap(),
            WsMessage::Binary(bytes) => latchbus_bus::frames::decode_postcard(&bytes).unwrap(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_server_reads_what_the_client_writes() {
        let cursor = Cursor {
            epoch: 0xab,
            rev: 7,
        };
        for (mode, since) in [(Mode::Latest, None), (Mode::Every, Some(cursor))] {
            let filter = TopicFilter::parse("a\"/#".to_owned()).unwrap();
            let outgoing = Outgoing::Subscribe {
                id: 5,
                filter: filter.clone(),
                mode,
                since,
            };
            for request in both(&outgoing) {
                let Request::Subscribe {
                    id: 5,
                    subscriptions,
                } = request
                else {
                    panic!("{request:?}")
                };
                assert_eq!(subscriptions[0].filter, filter);
                assert_eq!(subscriptions[0].mode, mode);
                let start = since.map_or(Start::Snapshot, Start::Resume);
                assert_eq!(subscriptions[0].start, start);
            }
        }
        for request in both(&Outgoing::Unsubscribe { id: 6 }) {
            assert!(matches!(request, Request::Unsubscribe { id: 6, .. }));
        }
        for payload in [&b"{\"a\": 1}"[..], b"", b"red", b"\xff", &[1; 999]]
            .into_iter()
            .chain(HOSTILE)
        {
            let outgoing = Outgoing::Publish {
                id: 7,
                topic: TopicName::parse("\u{e9}".to_owned()).unwrap(),
                payload: Bytes::copy_from_slice(payload),
                retain: true,
            };
            // Control characters take six bytes each as text: base64 is shorter.
            assert!(outgoing.encode(Protocol::Json).unwrap().len() < 2 * payload.len() + 99);
            for request in both(&outgoing) {
                let Request::Publish {
                    id: Some(7),
                    publish,
                } = request
                else {
                    panic!("{request:?}")
                };
                assert_eq!(publish.topic.as_str(), "\u{e9}");
                assert_eq!(publish.payload, payload);
                assert!(publish.retain);
            }
        }
    }

    #[test]
    fn the_client_reads_what_the_server_writes() {
        let limits = Limits {
            payload_bytes: 1,
            topic_bytes: 2,
            subscriptions: 3,
            in_flight: 4,
        };
        let (id, rev, at, topic) = (1, 2, 3, "a\"b");
        let cursor = Cursor { epoch: 255, rev };
        let message = |payload| ServerFrame::Message {
            id,
            topic,
            payload,
            rev,
            at,
        };
        let error = |id| ServerFrame::Error {
            id,
            code: ErrorCode::Full,
            message: "\n",
        };
        for frame in [
            ServerFrame::Welcome {
                server: "x",
                epoch: 255,
                limits,
            },
            message(b"null"),
            message(b"[1, 2]"),
            message(b""),
            message(b"\"red"),
            message(b"\xff\xff"),
            message(b" \t[1.0, 2]\r\n"),
            ServerFrame::Cleared { id, topic, rev, at },
            ServerFrame::Synced { id, cursor },
            ServerFrame::Gap { id, missed: 9 },
            ServerFrame::Reset { id },
            ServerFrame::Ack { id, rev },
            error(None),
            error(Some(id)),
            ServerFrame::Pong { id },
        ] {
            let text = String::from_utf8(json::encode(&frame)).unwrap();
            let from_json = Incoming::decode(Protocol::Json, &WsMessage::text(text));
            let bytes = wire::encode_vec(&frame).unwrap();
            let from_postcard = Incoming::decode(Protocol::Postcard, &WsMessage::binary(bytes));
            assert_eq!(from_json.unwrap(), from_postcard.unwrap());
        }
    }

    #[test]
    fn payloads_come_byte_for_byte() {
        for payload in HOSTILE {
            let frame = ServerFrame::Message {
                id: 1,
                topic: "a\",\"payload\": 1 ,\"b",
                payload,
                rev: 2,
                at: 3,
            };
            let text = String::from_utf8(json::encode(&frame)).unwrap();
            match Incoming::decode(Protocol::Json, &WsMessage::text(text)).unwrap() {
                Some(Incoming::Message { message, .. }) => assert_eq!(message.payload, payload),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn other_servers() {
        let json = |text: &str| Incoming::decode(Protocol::Json, &WsMessage::text(text));
        assert_eq!(
            json(r#"{"op":"new","x":1}"#).unwrap(),
            Some(Incoming::Other)
        );
        assert!(json("{}").is_err());
        assert!(json(r#"{"op":"ack","id":1}"#).is_err());
        assert!(Incoming::decode(Protocol::Json, &WsMessage::binary("x")).is_err());
        assert!(Incoming::decode(Protocol::Postcard, &WsMessage::binary("x")).is_err());
        let ping = WsMessage::Ping(Bytes::new());
        assert_eq!(Incoming::decode(Protocol::Json, &ping).unwrap(), None);
    }
}
