//! What the client is told.

use core::fmt::Write as _;

use std::sync::Arc;

use bytes::Bytes;
use latchbus_bus::frames::json::{self, PayloadForm, write_text};
use latchbus_bus::{Delivery, Encoding, Event, SubscribeRefused};
use latchbus_core::hub::Kind;
use latchbus_core::wire::ErrorCode;

use super::incoming::prefix;
use super::{Machine, Message, Pending, Sink, Subscription, SubscriptionKind, quoted};

use crate::config::Namespace;

/// The most packets that one message of a subscription becomes.
pub(crate) const PACKETS_A_MESSAGE: usize = 2;

/// What stands for the bytes that follow.
const PLACEHOLDER: &str = "{\"_placeholder\":true,\"num\":0}";

/// The argument that a payload is, made once for all subscribers: its kind and its JSON.
const ARGUMENT: Encoding = Encoding::new("socketio argument");

/// The same with the topic before it and most of what a client is told of the message behind it.
const MESSAGE: Encoding = Encoding::new("socketio message");

/// What precedes the JSON of an encoding: whether the packet is text, or bytes follow.
const TEXT: u8 = 0;
const BYTES: u8 = 1;

/// How the events of a namespace begin, as a packet of text and as one that bytes follow.
#[derive(Debug)]
pub(crate) struct Heads {
    outputs: Vec<[String; 2]>,
    message: [String; 2],
}

impl Heads {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let prefix = prefix(&namespace.name);
        let head =
            |event: &str| ["42", "451-"].map(|kind| format!("{kind}{prefix}[{},", quoted(event)));
        Self {
            outputs: (namespace.outputs.iter())
                .map(|output| head(&output.event))
                .collect(),
            message: head("message"),
        }
    }
}

/// A payload as an argument: JSON as it was published, other text as a string, bytes as what stands for them.
fn write_argument(out: &mut Vec<u8>, delivery: &Delivery) -> u8 {
    let bytes = delivery.payload.bytes();
    let form = match delivery.kind {
        Kind::Cleared => PayloadForm::Json("null"),
        Kind::State | Kind::Event => PayloadForm::of(bytes),
    };
    match form {
        PayloadForm::Json(text) => out.extend_from_slice(text.as_bytes()),
        PayloadForm::Text(text) => write_text(out, text),
        PayloadForm::Bytes(_) => {
            out.extend_from_slice(PLACEHOLDER.as_bytes());
            return BYTES;
        }
    }
    TEXT
}

fn argument(delivery: &Delivery) -> &Bytes {
    delivery.payload.encoded(ARGUMENT, || {
        let mut out = vec![TEXT];
        let kind = write_argument(&mut out, delivery);
        with_kind(out, kind)
    })
}

/// `"topic",payload,{"rev":…,"at":…`, without the end of the object.
fn message(delivery: &Delivery) -> &Bytes {
    delivery.payload.encoded(MESSAGE, || {
        let mut out = vec![TEXT];
        write_text(&mut out, delivery.topic.as_str());
        out.push(b',');
        let begin = out.len();
        let kind = write_argument(&mut out, delivery);
        let argument = out.get(begin..).unwrap_or_default();
        let published = delivery.payload.bytes().trim_ascii_start();
        let is_json_string =
            published.starts_with(b"\"") && argument.trim_ascii_start() == published;
        let meta = format!(",{{\"rev\":{},\"at\":{}", delivery.rev, delivery.at);
        out.extend_from_slice(meta.as_bytes());
        out.extend_from_slice(match delivery.kind {
            Kind::State => b"",
            Kind::Event => b",\"event\":true",
            Kind::Cleared => b",\"cleared\":true",
        });
        if is_json_string {
            out.extend_from_slice(b",\"json\":true");
        }
        with_kind(out, kind)
    })
}

fn with_kind(mut out: Vec<u8>, kind: u8) -> Bytes {
    if let Some(first) = out.first_mut() {
        *first = kind;
    }
    out.into()
}

impl Machine {
    /// Gives the packets that tell the client of an event.
    pub(crate) fn push(&mut self, event: Event, sink: &mut impl Sink) {
        match event {
            Event::Message {
                subscription,
                delivery,
                ..
            } => self.deliver(subscription, &delivery, sink),
            Event::Synced {
                subscription,
                cursor,
            } => self.synced(subscription, cursor, sink),
            Event::Gap {
                subscription,
                missed,
            } => self.say(subscription, "gap", &format!(",{missed}"), sink),
            Event::Reset { subscription } => self.say(subscription, "reset", "", sink),
            Event::Subscribed { id, results } => self.subscribed(id, &results, sink),
            Event::Unsubscribed { id, .. } => self.answer(id, "{}", sink),
            Event::History { id, result } => {
                let json = match &result {
                    Ok(page) => String::from_utf8(json::page(page)).unwrap_or_default(),
                    Err(refused) => error(refused.code(), &refused.to_string()),
                };
                self.answer(id, &json, sink);
            }
            Event::Published { id, rev } => self.answer(id, &format!("{{\"rev\":{rev}}}"), sink),
            Event::Refused { id, refused } => {
                let error = error(refused.code(), &refused.to_string());
                if let Some(id) = id {
                    self.answer(id, &error, sink);
                }
            }
            Event::Bad { id, code, message } => {
                if let Some(id) = id {
                    self.answer(id, &error(code, &message), sink);
                }
            }
            Event::Pong { id, .. } => self.answer(id, "{}", sink),
            // Nobody signs in by a request.
            Event::SignedIn { .. } => {}
        }
    }

    fn answer(&mut self, id: u64, json: &str, sink: &mut impl Sink) {
        match self.take_pending(id) {
            Some(Pending::Ack { turn, ack }) => self.acknowledge(turn, ack, json, sink),
            Some(Pending::Message(Message::Text(text))) => sink.text(&[b"4", text.as_bytes()]),
            Some(Pending::Message(Message::Bytes(bytes))) => sink.bytes(&bytes),
            Some(Pending::ConnectError {
                namespace,
                message,
                code,
            }) => connect_error(&prefix(&namespace), &message, code, sink),
            Some(Pending::Echo { text, attachments }) => {
                sink.text(&[text.as_bytes()]);
                attachments.iter().for_each(|bytes| sink.bytes(bytes));
            }
            Some(Pending::Connect { turn, auth }) => self.connected(turn, &auth, sink),
            Some(Pending::Subscribe { .. } | Pending::Nothing) | None => {}
        }
    }

    fn acknowledge(&self, turn: u64, ack: u64, json: &str, sink: &mut impl Sink) {
        // Who has left meanwhile waits for nothing.
        if let Some(prefix) = self.prefix(turn) {
            let text = format!("43{prefix}{ack}[{json}]");
            sink.text(&[text.as_bytes()]);
        }
    }

    fn prefix(&self, turn: u64) -> Option<String> {
        let joined = self.joined(turn)?;
        Some(prefix(&self.namespace(joined.index)?.name))
    }

    fn connected(&mut self, turn: u64, auth: &str, sink: &mut impl Sink) {
        let (Some(prefix), Some(joined)) = (self.prefix(turn), self.joined(turn)) else {
            return;
        };
        let Some(namespace) = self.namespace(joined.index) else {
            return;
        };
        // The name that everybody may know is none that opens anything.
        let mut text = format!("40{prefix}{{\"sid\":\"{}\"", self.common.ids.id());
        if namespace.recovery {
            // Writing to a string cannot fail.
            let _ = write!(text, ",\"pid\":{}", quoted(&joined.pid));
        }
        text.push('}');
        sink.text(&[text.as_bytes()]);
        if let Some(event) = &namespace.auth_event {
            let event = format!("42{prefix}[{},{auth}]", quoted(event));
            sink.text(&[event.as_bytes()]);
        }
    }

    fn subscribed(
        &mut self,
        id: u64,
        results: &[(u64, Result<(), SubscribeRefused>)],
        sink: &mut impl Sink,
    ) {
        let refused = results.iter().find_map(|(_, result)| result.as_ref().err());
        match self.take_pending(id) {
            Some(Pending::Connect { turn, auth }) => match refused {
                None => self.connected(turn, &auth, sink),
                Some(refused) => {
                    self.refuse(turn, &refused.to_string(), refused.code(), sink);
                }
            },
            Some(Pending::Subscribe { turn, ack, key }) => {
                let json = match refused {
                    None => "{}".to_owned(),
                    Some(refused) => {
                        self.end(key);
                        self.remember(turn);
                        error(refused.code(), &refused.to_string())
                    }
                };
                if let Some(ack) = ack {
                    self.acknowledge(turn, ack, &json, sink);
                }
            }
            _ => {}
        }
    }

    /// The client cannot join: what it would get there is refused.
    fn refuse(&mut self, turn: u64, message: &str, code: ErrorCode, sink: &mut impl Sink) {
        let prefix = self.prefix(turn).unwrap_or_default();
        connect_error(&prefix, message, Some(code), sink);
        self.joined.retain(|joined| joined.turn != turn);
        let keys = self.subscriptions.iter();
        let keys = keys.filter(|(_, subscription)| subscription.turn == turn);
        let subscriptions: Vec<u64> = keys.map(|(key, _)| key).collect();
        for key in &subscriptions {
            self.subscriptions.remove(*key);
        }
        let id = self.id();
        self.own
            .push_back(latchbus_bus::Request::Unsubscribe { id, subscriptions });
    }

    fn synced(&mut self, key: u64, cursor: latchbus_core::hub::Cursor, sink: &mut impl Sink) {
        let Some(subscription) = self.subscriptions.get_mut(key) else {
            return;
        };
        subscription.synced = true;
        let turn = subscription.turn;
        self.advance(key, cursor.rev, false);
        self.prune_many(turn);
        self.say(key, "synced", &format!(",\"{cursor}\""), sink);
    }

    /// Tells the client of one of its own subscriptions.
    fn say(&mut self, key: u64, event: &str, arguments: &str, sink: &mut impl Sink) {
        let Some(subscription) = self.subscriptions.get(key) else {
            return;
        };
        let SubscriptionKind::General(general) = &subscription.kind else {
            return;
        };
        let (turn, filter) = (subscription.turn, quoted(&general.filter));
        let Some(prefix) = self.prefix(turn) else {
            return;
        };
        let mut text = format!("42{prefix}[\"{event}\",{filter}{arguments}");
        self.end_event(turn, &mut text);
        sink.text(&[text.as_bytes()]);
    }

    /// Ends an event: the offset is the last argument.
    fn end_event(&mut self, turn: u64, text: &mut String) {
        self.update_offset(turn);
        let joined = self.joined(turn);
        let recovers = joined.and_then(|joined| {
            let namespace = self.namespace(joined.index)?;
            namespace.recovery.then_some(&joined.offset)
        });
        if let Some(offset) = recovers {
            text.push_str(",\"");
            text.push_str(offset);
            text.push('"');
        }
        text.push(']');
    }

    fn deliver(&mut self, key: u64, delivery: &Delivery, sink: &mut impl Sink) {
        self.advance(key, delivery.rev, true);
        let Some(Subscription { turn, kind, .. }) = self.subscriptions.get(key) else {
            return;
        };
        let turn = *turn;
        let Some(joined) = self.joined(turn) else {
            return;
        };
        let common = Arc::clone(&self.common);
        let Some(heads) = common.heads.get(joined.index) else {
            return;
        };
        let mut tail = String::new();
        let (heads, body) = match kind {
            SubscriptionKind::Output(place) => (heads.outputs.get(*place), argument(delivery)),
            SubscriptionKind::General(general) => {
                if let Some(id) = general.options.id {
                    // Writing to a string cannot fail.
                    let _ = write!(tail, ",\"id\":{id}");
                }
                tail.push('}');
                (Some(&heads.message), message(delivery))
            }
        };
        let (Some([text, bytes]), Some((kind, body))) = (heads, body.split_first()) else {
            return;
        };
        let head = if *kind == BYTES { bytes } else { text };
        self.end_event(turn, &mut tail);
        sink.text(&[head.as_bytes(), body, tail.as_bytes()]);
        if *kind == BYTES {
            sink.bytes(delivery.payload.bytes());
        }
    }
}

/// A client has not joined a namespace.
fn connect_error(prefix: &str, message: &str, code: Option<ErrorCode>, sink: &mut impl Sink) {
    let message = quoted(message);
    let data = code.map_or(String::new(), |code| {
        format!(",\"data\":{{\"code\":\"{}\"}}", code.as_str())
    });
    let text = format!("44{prefix}{{\"message\":{message}{data}}}");
    sink.text(&[text.as_bytes()]);
}

/// What acknowledges a request that was refused.
fn error(code: ErrorCode, message: &str) -> String {
    let (code, message) = (code.as_str(), quoted(message));
    format!("{{\"error\":{{\"code\":\"{code}\",\"message\":{message}}}}}")
}
