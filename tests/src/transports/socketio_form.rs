//! Socket.IO packets of general events, from the client's side.

use std::collections::HashMap;

use bytes::Bytes;
use latchbus_core::wire::ErrorCode;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::transport::{Incoming, Message, Publish, Subscribe};

/// Ids of acknowledgements: publishes have their own below these.
const SUBSCRIBES: u64 = 1 << 32;
const UNSUBSCRIBES: u64 = 2 << 32;
const SENSELESS: u64 = 3 << 32;

/// A packet on its way.
#[derive(Debug)]
pub(crate) enum Packet {
    Text(String),
    Bytes(Vec<u8>),
}

/// One client, without its connection.
#[derive(Debug, Default)]
pub(crate) struct Form {
    /// The subscriptions by their filters, and the other way round.
    ids: HashMap<String, u64>,
    filters: HashMap<u64, String>,
    /// An event whose bytes have not come yet.
    awaits: Option<String>,
}

impl Form {
    pub(crate) fn subscribe(&mut self, subscribe: Subscribe<'_>) -> Vec<Packet> {
        let Subscribe {
            id,
            filter,
            mode,
            since,
        } = subscribe;
        self.ids.insert(filter.to_owned(), id);
        self.filters.insert(id, filter.to_owned());
        let mut options = json!({"id": id, "mode": mode.name()});
        if let Some(since) = since {
            options["since"] = since.to_string().into();
        }
        let event = json!(["subscribe", filter, options]);
        vec![Packet::Text(format!("42{}{event}", SUBSCRIBES + id))]
    }

    pub(crate) fn unsubscribe(&mut self, id: u64) -> Vec<Packet> {
        let event = json!(["unsubscribe", self.filters[&id]]);
        vec![Packet::Text(format!("42{}{event}", UNSUBSCRIBES + id))]
    }

    pub(crate) fn publish(&self, publish: Publish<'_>) -> Vec<Packet> {
        let ack = publish.id.map_or(String::new(), |id| id.to_string());
        let (topic, options) = (json!(publish.topic), json!({"retain": publish.retain}));
        let text = core::str::from_utf8(publish.payload);
        let value = text.map(serde_json::from_str::<&RawValue>);
        let payload = match (value, text) {
            // As it was written: parsed and printed again it would be other bytes.
            (Ok(Ok(value)), Ok(text)) if value.get() == text && !text.starts_with('"') => {
                text.to_owned()
            }
            (_, Ok(text)) => json!(text).to_string(),
            _ => {
                let placeholder = "{\"_placeholder\":true,\"num\":0}";
                let text = format!("451-{ack}[\"publish\",{topic},{placeholder},{options}]");
                return vec![Packet::Text(text), Packet::Bytes(publish.payload.to_vec())];
            }
        };
        let text = format!("42{ack}[\"publish\",{topic},{payload},{options}]");
        vec![Packet::Text(text)]
    }

    /// A message that can be read and says nothing sensible.
    pub(crate) fn senseless() -> Packet {
        Packet::Text(format!("42{SENSELESS}[\"dance\"]"))
    }

    /// What a packet of text tells; nothing when its bytes are to come.
    pub(crate) fn text(&mut self, text: &str) -> Option<Incoming> {
        if let Some(ack) = text.strip_prefix("43") {
            return Some(acknowledged(ack));
        }
        if let Some(event) = text.strip_prefix("451-") {
            self.awaits = Some(event.to_owned());
            return None;
        }
        let event = text.strip_prefix("42").unwrap_or_else(|| panic!("{text}"));
        Some(self.event(event, None))
    }

    /// What the event tells whose bytes have come.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Incoming {
        let event = self.awaits.take().expect("bytes were announced");
        self.event(&event, Some(bytes))
    }

    fn event(&self, event: &str, bytes: Option<&[u8]>) -> Incoming {
        let parts: Vec<&RawValue> = serde_json::from_str(event).unwrap();
        let values: Vec<Value> = serde_json::from_str(event).unwrap();
        let id = || self.ids[values[1].as_str().unwrap()];
        match values[0].as_str().unwrap() {
            "message" => Incoming::Message(message(&parts, &values, bytes)),
            "synced" => Incoming::Synced(id(), values[2].as_str().unwrap().parse().unwrap()),
            "gap" => Incoming::Gap(id(), values[2].as_u64().unwrap()),
            "reset" => Incoming::Reset(id()),
            name => panic!("event {name}"),
        }
    }
}

fn message(parts: &[&RawValue], values: &[Value], bytes: Option<&[u8]>) -> Message {
    let (raw, meta) = (parts[2].get(), &values[3]);
    let cleared = meta["cleared"] == true;
    let payload = match (bytes, &values[2]) {
        (Some(bytes), _) => bytes.to_vec(),
        _ if cleared => Vec::new(),
        (None, Value::String(text)) if meta["json"] != true => text.as_bytes().to_vec(),
        (None, _) => raw.as_bytes().to_vec(),
    };
    // The offset of the namespace is the last argument.
    assert!(
        values[4]
            .as_str()
            .is_some_and(|offset| offset.contains(':'))
    );
    Message {
        subscription: meta["id"].as_u64(),
        topic: values[1].as_str().unwrap().to_owned(),
        payload: Bytes::from(payload),
        cleared,
        rev: meta["rev"].as_u64(),
        retained: None,
        again: false,
    }
}

fn acknowledged(ack: &str) -> Incoming {
    let at = ack.find('[').unwrap();
    let id: u64 = ack[..at].parse().unwrap();
    let [answer]: [Value; 1] = serde_json::from_str(&ack[at..]).unwrap();
    let own = id % SUBSCRIBES;
    if let Some(code) = answer["error"]["code"].as_str() {
        let mut codes = ErrorCode::ALL.into_iter();
        let code = codes.find(|it| it.as_str() == code).unwrap();
        return Incoming::Refused(Some(own), code);
    }
    match id / SUBSCRIBES {
        0 => {
            assert!(answer["rev"].is_u64());
            Incoming::Acked(own)
        }
        1 => Incoming::Subscribed(own),
        _ => Incoming::Unsubscribed(own),
    }
}
