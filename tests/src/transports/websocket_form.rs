//! The two forms of WebSocket messages, from the client's side.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use latchbus_core::hub::{Cursor, Mode};
use latchbus_core::wire::{self, ClientFrame, ErrorCode, ServerFrame};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::transport::{Incoming, Message, Publish, Subscribe, Verdict};

/// One form.
pub trait Form: Send + Sync + 'static {
    /// Its name in the handshake.
    const SUBPROTOCOL: &'static str;
    /// The opcode of its frames (RFC 6455 §5.2).
    const OPCODE: u8;
    /// A message that can be read and says nothing sensible.
    const SENSELESS: &'static [u8];
    /// A message with a text that is not UTF-8.
    const NO_TEXT: &'static [u8];
    /// What becomes of its sender.
    const NO_TEXT_VERDICT: Verdict;

    /// A subscribe.
    fn subscribe(subscribe: Subscribe<'_>) -> Frame;
    /// An unsubscribe.
    fn unsubscribe(id: u64) -> Frame;
    /// A publish.
    fn publish(publish: Publish<'_>) -> Frame;
    /// What the server sends; nothing for `welcome`.
    fn incoming(frame: &Frame) -> Option<Incoming>;
}

/// `latchbus.v1.json`.
#[derive(Debug)]
pub struct Json;

/// `latchbus.v1.postcard`.
#[derive(Debug)]
pub struct Postcard;

impl Form for Json {
    const SUBPROTOCOL: &'static str = "latchbus.v1.json";
    const OPCODE: u8 = 1;
    const SENSELESS: &'static [u8] = br#"{"op":"dance"}"#;
    const NO_TEXT: &'static [u8] = b"{\"op\":\"\xff\"}";
    const NO_TEXT_VERDICT: Verdict = Verdict::Ended(crate::transport::End::Fault(1007));

    fn subscribe(subscribe: Subscribe<'_>) -> Frame {
        let mut object = json!({"op": "subscribe", "id": subscribe.id, "filter": subscribe.filter});
        if subscribe.mode != Mode::Latest {
            object["mode"] = subscribe.mode.name().into();
        }
        if let Some(since) = subscribe.since {
            object["since"] = since.to_string().into();
        }
        Frame::text(object.to_string())
    }

    fn unsubscribe(id: u64) -> Frame {
        Frame::text(json!({"op": "unsubscribe", "id": id}).to_string())
    }

    fn publish(publish: Publish<'_>) -> Frame {
        let mut head = json!({"op": "publish", "topic": publish.topic, "retain": publish.retain});
        if let Some(id) = publish.id {
            head["id"] = id.into();
        }
        let text = core::str::from_utf8(publish.payload);
        let json = text.map(serde_json::from_str::<&RawValue>);
        let body = match (json, text) {
            _ if publish.retain && publish.payload.is_empty() => r#""cleared":true"#.to_owned(),
            // As it was written: parsed and printed again it would be other bytes.
            (Ok(Ok(json)), _) => format!(r#""payload":{json}"#),
            (_, Ok(text)) => format!(r#""text":{}"#, Value::from(text)),
            _ => format!(r#""base64":"{}""#, BASE64_STANDARD.encode(publish.payload)),
        };
        let head = head.to_string();
        Frame::text(format!("{},{body}}}", head.strip_suffix('}').unwrap()))
    }

    fn incoming(frame: &Frame) -> Option<Incoming> {
        let text = frame.to_text().unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        let id = value["id"].as_u64();
        Some(match value["op"].as_str().unwrap() {
            "welcome" => return None,
            "message" => Incoming::Message(json_message(text, &value)),
            "synced" => Incoming::Synced(id.unwrap(), cursor(&value)),
            "gap" => Incoming::Gap(id.unwrap(), value["missed"].as_u64().unwrap()),
            "reset" => Incoming::Reset(id.unwrap()),
            "ack" => Incoming::Acked(id.unwrap()),
            "error" => Incoming::Refused(id, code(&value)),
            op => panic!("op {op}"),
        })
    }
}

fn json_message(text: &str, value: &Value) -> Message {
    /// Keeps the payload's bytes as they came.
    #[derive(serde::Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let payload = if let Some(text) = value["text"].as_str() {
        text.as_bytes().to_vec()
    } else if let Some(base64) = value["base64"].as_str() {
        BASE64_STANDARD.decode(base64).unwrap()
    } else if value["cleared"] == true {
        Vec::new()
    } else {
        let raw: Raw<'_> = serde_json::from_str(text).unwrap();
        raw.payload.get().as_bytes().to_vec()
    };
    Message {
        subscription: value["id"].as_u64(),
        topic: value["topic"].as_str().unwrap().to_owned(),
        payload: payload.into(),
        cleared: value["cleared"] == true,
        rev: value["rev"].as_u64(),
        retained: None,
        again: false,
    }
}

fn cursor(value: &Value) -> Cursor {
    value["cursor"].as_str().unwrap().parse().unwrap()
}

fn code(value: &Value) -> ErrorCode {
    let text = value["code"].as_str().unwrap();
    let mut codes = ErrorCode::ALL.into_iter();
    codes.find(|code| code.as_str() == text).unwrap()
}

impl Form for Postcard {
    const SUBPROTOCOL: &'static str = "latchbus.v1.postcard";
    const OPCODE: u8 = 2;
    const SENSELESS: &'static [u8] = &[wire::VERSION, 0x7f];
    // An unacknowledged publish to a topic of two bytes.
    const NO_TEXT: &'static [u8] = &[wire::VERSION, 2, 0, 2, 0xff, 0xfe, 0, 1];
    const NO_TEXT_VERDICT: Verdict = Verdict::Told(ErrorCode::BadMessage);

    fn subscribe(subscribe: Subscribe<'_>) -> Frame {
        binary(&ClientFrame::Subscribe {
            id: subscribe.id,
            filter: subscribe.filter,
            mode: subscribe.mode,
            max_rate: None,
            since: subscribe.since,
        })
    }

    fn unsubscribe(id: u64) -> Frame {
        binary(&ClientFrame::Unsubscribe { id })
    }

    fn publish(publish: Publish<'_>) -> Frame {
        binary(&ClientFrame::Publish {
            id: publish.id,
            topic: publish.topic,
            payload: publish.payload,
            retain: publish.retain,
        })
    }

    fn incoming(frame: &Frame) -> Option<Incoming> {
        let Frame::Binary(bytes) = frame else {
            panic!("instead of a binary frame: {frame:?}");
        };
        let message = |id, topic: &str, payload: Option<&[u8]>, rev| {
            Incoming::Message(Message {
                subscription: Some(id),
                topic: topic.to_owned(),
                payload: Bytes::copy_from_slice(payload.unwrap_or_default()),
                cleared: payload.is_none(),
                rev: Some(rev),
                retained: None,
                again: false,
            })
        };
        Some(match wire::decode_server(bytes).unwrap() {
            ServerFrame::Welcome { .. } => return None,
            ServerFrame::Message {
                id,
                topic,
                payload,
                rev,
                ..
            } => message(id, topic, Some(payload), rev),
            ServerFrame::Cleared { id, topic, rev, .. } => message(id, topic, None, rev),
            ServerFrame::Synced { id, cursor } => Incoming::Synced(id, cursor),
            ServerFrame::Gap { id, missed } => Incoming::Gap(id, missed),
            ServerFrame::Reset { id } => Incoming::Reset(id),
            ServerFrame::Ack { id, .. } => Incoming::Acked(id),
            ServerFrame::Error { id, code, .. } => Incoming::Refused(id, code),
            ServerFrame::Pong { id } => panic!("nobody asked for pong {id}"),
        })
    }
}

fn binary(frame: &ClientFrame<'_>) -> Frame {
    Frame::binary(wire::encode_vec(frame).unwrap())
}
