//! What the client sends.

use core::time::Duration;

use bytes::Bytes;
use latchbus_bus::{Publish, Request, Subscribe, frames};
use latchbus_core::clicks::Color;
use latchbus_core::hub::{Mode, Start};
use latchbus_core::topic::TopicName;
use latchbus_core::wire::ErrorCode;
use serde_json::value::RawValue;

use super::{
    Fault, General, Joined, Machine, Message, Partial, PartialEvent, Pending, SubscribeOptions,
    Subscription, SubscriptionKind, Taken, argument, bytes, quoted, text,
};
use crate::config::Action;
use crate::offset::{MAX_NAMED, Offset};
use crate::packet::{self, Event, Kind, PacketError};
use crate::{config, engine};

/// What is asked of the bus, or why it is not.
type Asked = Result<Request, (ErrorCode, String)>;

/// An event, and where it came.
struct Arrived<'a> {
    turn: u64,
    index: usize,
    ack: Option<u64>,
    arguments: Vec<&'a RawValue>,
    attachments: &'a [Bytes],
}

/// The options of `publish`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct PublishOptions {
    retain: bool,
    /// Whether a string is published as JSON, with its quotes.
    json: bool,
}

/// The options of `history`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct HistoryOptions {
    before: Option<u64>,
    limit: Option<u64>,
}

impl Machine {
    /// Takes a packet.
    pub(crate) fn take(&mut self, packet: engine::Packet<'_>) -> Result<Taken, Fault> {
        use engine::Packet;

        match packet {
            Packet::Message(text) if self.common.config.echo_messages => {
                let message = Pending::Message(Message::Text(text.to_owned()));
                Ok(Taken::Request(self.later(message)))
            }
            Packet::Binary(bytes) if self.common.config.echo_messages => {
                let message = Pending::Message(Message::Bytes(bytes.into()));
                Ok(Taken::Request(self.later(message)))
            }
            Packet::Message(text) => self.message(text),
            Packet::Binary(bytes) => self.attachment(bytes.into()),
            Packet::Close => Ok(Taken::Close),
            Packet::Noop => Ok(Taken::Nothing),
            // Pongs are the link's; the rest is for servers, or for another time.
            Packet::Pong(_) | Packet::Open(_) | Packet::Ping(_) | Packet::Upgrade => {
                Err(Fault::OutOfPlace)
            }
        }
    }

    fn message(&mut self, text: &str) -> Result<Taken, Fault> {
        if self.partial.is_some() {
            return Err(PacketError::OutOfPlace.into());
        }
        let packet::Packet { namespace, kind } = packet::Packet::decode(text)?;
        let (event, missing) = match kind {
            Kind::Connect(auth) => return self.connect(namespace, auth),
            Kind::Disconnect => return self.disconnect(namespace),
            Kind::Event(event) if event.attachments == 0 => {
                return self.event(namespace, &event, &[]);
            }
            Kind::Event(Event {
                ack,
                attachments,
                json,
            }) => {
                let json = json.to_owned();
                (Some(PartialEvent { ack, json }), attachments)
            }
            Kind::Ack { attachments } => (None, attachments),
        };
        if self.joined_named(namespace).is_none() {
            return Err(Fault::NotJoined);
        }
        if missing > 0 {
            self.partial = Some(Box::new(Partial {
                namespace: namespace.to_owned(),
                bytes: text.len(),
                event,
                missing,
                attachments: Vec::new(),
            }));
        }
        Ok(Taken::Nothing)
    }

    fn attachment(&mut self, bytes: Bytes) -> Result<Taken, Fault> {
        let limit = self.common.max_message_bytes;
        let mut partial = self.partial.take().ok_or(PacketError::OutOfPlace)?;
        partial.bytes += bytes.len();
        if partial.bytes > limit {
            return Err(Fault::AttachmentsTooLarge { limit });
        }
        partial.attachments.push(bytes);
        partial.missing -= 1;
        if partial.missing > 0 {
            self.partial = Some(partial);
            return Ok(Taken::Nothing);
        }
        let Some(event) = &partial.event else {
            return Ok(Taken::Nothing);
        };
        let event = Event {
            ack: event.ack,
            attachments: partial.attachments.len(),
            json: &event.json,
        };
        self.event(&partial.namespace, &event, &partial.attachments)
    }

    fn disconnect(&mut self, namespace: &str) -> Result<Taken, Fault> {
        let joined = self.joined_named(namespace).ok_or(Fault::NotJoined)?;
        let turn = joined.turn;
        if let Some(joined) = self.joined(turn) {
            // Who leaves does not come back.
            self.common.records.forget(&joined.pid);
        }
        self.joined.retain(|joined| joined.turn != turn);
        let keys = self.subscriptions.iter();
        let keys = keys.filter(|(_, subscription)| subscription.turn == turn);
        let subscriptions: Vec<u64> = keys.map(|(key, _)| key).collect();
        for key in &subscriptions {
            self.subscriptions.remove(*key);
        }
        let id = self.id();
        Ok(match subscriptions.is_empty() {
            true => Taken::Nothing,
            false => Taken::Request(Request::Unsubscribe { id, subscriptions }),
        })
    }

    fn event(
        &mut self,
        namespace: &str,
        event: &Event<'_>,
        attachments: &[Bytes],
    ) -> Result<Taken, Fault> {
        let Joined { turn, index, .. } = *self.joined_named(namespace).ok_or(Fault::NotJoined)?;
        self.events += 1;
        let (name, arguments) = event.parts();
        let arrived = Arrived {
            turn,
            index,
            ack: event.ack,
            arguments,
            attachments,
        };
        let common = std::sync::Arc::clone(&self.common);
        let Some(namespace) = common.config.namespaces.get(index) else {
            return Err(Fault::NotJoined);
        };
        let mapped = namespace.inputs.iter().find(|input| input.event == name);
        let asked = match mapped.map(|input| &input.action) {
            Some(Action::Press { topic, color }) => self.press(&arrived, topic, *color),
            Some(Action::Publish { topic, retain }) => self.publish_first(&arrived, topic, *retain),
            Some(Action::Echo(event)) => Ok(self.echo(&arrived, Some(event))),
            Some(Action::EchoAck) => Ok(self.echo(&arrived, None)),
            None if namespace.general => match name.as_str() {
                "subscribe" => self.subscribe(&arrived),
                "unsubscribe" => self.unsubscribe(&arrived),
                "publish" => self.publish(&arrived),
                "history" => self.history(&arrived),
                _ => Err((
                    ErrorCode::BadMessage,
                    format!("no event `{name}` is known here"),
                )),
            },
            None => Err((
                ErrorCode::BadMessage,
                format!("no event `{name}` is known here"),
            )),
        };
        Ok(match asked {
            Ok(request) => Taken::Request(request),
            Err((code, message)) => match arrived.ack {
                // Nobody would be told.
                None => Taken::Nothing,
                Some(ack) => {
                    let id = self.id();
                    self.pending.push_back((id, Pending::Ack { turn, ack }));
                    let id = Some(id);
                    Taken::Request(Request::Bad { id, code, message })
                }
            },
        })
    }

    fn press(&mut self, arrived: &Arrived<'_>, topic: &TopicName<String>, color: Color) -> Asked {
        // The client's `retries` send an event again, perhaps over another connection: then only its own id tells.
        let id = text(argument(&arrived.arguments, 0)).filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| format!("{}:{}", self.name, self.events));
        let payload = format!("{{\"color\":\"{color}\",\"id\":{}}}", quoted(&id));
        Ok(self.publishing(arrived, Publish::event(topic.clone(), payload)))
    }

    fn publish_first(
        &mut self,
        arrived: &Arrived<'_>,
        topic: &TopicName<String>,
        retain: bool,
    ) -> Asked {
        let payload = payload(arrived, 0, false)?;
        let publish = Publish {
            retain,
            ..Publish::event(topic.clone(), payload)
        };
        Ok(self.publishing(arrived, publish))
    }

    fn publish(&mut self, arrived: &Arrived<'_>) -> Asked {
        let topic = text(argument(&arrived.arguments, 0))
            .ok_or_else(|| bad("the first argument of publish is a topic"))?;
        let topic = TopicName::parse(topic)
            .map_err(|error| (ErrorCode::InvalidTopic, error.to_string()))?;
        let PublishOptions { retain, json } = options(argument(&arrived.arguments, 2))?;
        let payload = payload(arrived, 1, json)?;
        let publish = Publish {
            retain,
            ..Publish::event(topic, payload)
        };
        Ok(self.publishing(arrived, publish))
    }

    /// `history(topic, {before, limit}, ack)`; without an acknowledgement nobody would get the page.
    fn history(&mut self, arrived: &Arrived<'_>) -> Asked {
        let topic = text(argument(&arrived.arguments, 0))
            .ok_or_else(|| bad("the first argument of history is a topic"))?;
        let HistoryOptions { before, limit } = options(argument(&arrived.arguments, 1))?;
        let (turn, id) = (arrived.turn, self.id());
        let request = frames::history(id, &topic, before, limit)
            .map_err(|refused| (refused.code, refused.message))?;
        let pending = match arrived.ack {
            Some(ack) => Pending::Ack { turn, ack },
            None => Pending::Nothing,
        };
        self.pending.push_back((id, pending));
        Ok(request)
    }

    fn publishing(&mut self, arrived: &Arrived<'_>, publish: Publish) -> Request {
        let turn = arrived.turn;
        let id = arrived.ack.map(|ack| {
            let id = self.id();
            self.pending.push_back((id, Pending::Ack { turn, ack }));
            id
        });
        Request::Publish { id, publish }
    }

    fn subscribe(&mut self, arrived: &Arrived<'_>) -> Asked {
        let filter = text(argument(&arrived.arguments, 0))
            .ok_or_else(|| bad("the first argument of subscribe is a filter"))?;
        let options: SubscribeOptions = options(argument(&arrived.arguments, 1))?;
        let turn = arrived.turn;
        let known = self.general_key(turn, &filter);
        let key = known.unwrap_or_else(|| self.id());
        let mut subscribe = general_subscription(key, &filter, &options)?;
        // Only so many may stand elsewhere than the others.
        if subscribe.mode != Mode::Every
            && self
                .joined(turn)
                .is_some_and(|joined| joined.elsewhere.len() >= MAX_NAMED)
        {
            subscribe.pace.get_or_insert(Duration::ZERO);
        }
        let general = General {
            filter,
            options,
            began: self.common.bus.read(|hub| hub.revision()),
        };
        self.begin(turn, key, general, &subscribe);
        let id = self.id();
        let ack = arrived.ack;
        self.pending
            .push_back((id, Pending::Subscribe { turn, ack, key }));
        self.remember(turn);
        Ok(Request::Subscribe {
            id,
            subscriptions: vec![subscribe],
        })
    }

    /// Notes a subscription that begins.
    fn begin(&mut self, turn: u64, key: u64, general: General, subscribe: &Subscribe) {
        let outputs = self.joined(turn).map_or(0, |joined| joined.outputs);
        let kind = SubscriptionKind::General(Box::new(general));
        self.note(turn, key, (outputs as u64 + key, kind), subscribe);
    }

    /// The same under the name that it has in offsets.
    pub(super) fn note(
        &mut self,
        turn: u64,
        key: u64,
        (name, kind): (u64, SubscriptionKind),
        subscribe: &Subscribe,
    ) {
        let subscription = Subscription {
            turn,
            kind,
            name,
            position: match subscribe.start {
                Start::Resume(cursor) => cursor.rev,
                Start::Snapshot | Start::Live => 0,
            },
            synced: false,
            paced: is_paced(subscribe, &self.common),
        };
        if self.subscriptions.insert(key, subscription).is_none()
            && let Some(joined) = self.joined_mut(turn)
        {
            joined.subscriptions += 1;
        }
        self.stands_elsewhere(turn, key);
    }

    fn unsubscribe(&mut self, arrived: &Arrived<'_>) -> Asked {
        let filter = text(argument(&arrived.arguments, 0))
            .ok_or_else(|| bad("the first argument of unsubscribe is a filter"))?;
        let key = self
            .general_key(arrived.turn, &filter)
            .ok_or_else(|| bad("no such subscription"))?;
        self.end(key);
        self.remember(arrived.turn);
        let (id, turn) = (self.id(), arrived.turn);
        let pending = arrived
            .ack
            .map_or(Pending::Nothing, |ack| Pending::Ack { turn, ack });
        self.pending.push_back((id, pending));
        Ok(Request::Unsubscribe {
            id,
            subscriptions: vec![key],
        })
    }

    /// Forgets a subscription.
    pub(super) fn end(&mut self, key: u64) {
        if let Some(ended) = self.subscriptions.remove(key)
            && let Some(joined) = self.joined_mut(ended.turn)
        {
            joined.subscriptions -= 1;
            joined.elsewhere.retain(|other| *other != key);
        }
    }

    fn general_key(&self, turn: u64, wanted: &str) -> Option<u64> {
        let mut all = self.subscriptions.iter();
        let found = all.find(|(_, subscription)| {
            subscription.turn == turn
                && matches!(&subscription.kind, SubscriptionKind::General(general) if general.filter == wanted)
        });
        found.map(|(key, _)| key)
    }

    fn echo(&mut self, arrived: &Arrived<'_>, event: Option<&str>) -> Request {
        let namespace = self.namespace(arrived.index).map_or("/", |it| &it.name);
        let prefix = prefix(namespace);
        let arguments: Vec<&str> = arrived.arguments.iter().map(|it| it.get()).collect();
        let arguments = arguments.join(",");
        let attachments = arrived.attachments;
        let count = match attachments.len() {
            0 => String::new(),
            some => format!("{some}-"),
        };
        let text = match (event, arrived.ack) {
            (Some(event), _) => {
                let kind = if attachments.is_empty() { '2' } else { '5' };
                let comma = if arguments.is_empty() { "" } else { "," };
                format!(
                    "4{kind}{count}{prefix}[{}{comma}{arguments}]",
                    quoted(event)
                )
            }
            (None, Some(ack)) => {
                let kind = if attachments.is_empty() { '3' } else { '6' };
                format!("4{kind}{count}{prefix}{ack}[{arguments}]")
            }
            (None, None) => return self.later(Pending::Nothing),
        };
        let attachments = attachments.to_vec();
        self.later(Pending::Echo { text, attachments })
    }
}

/// What stands between a packet's type and the rest for a namespace.
pub(super) fn prefix(namespace: &str) -> String {
    match namespace {
        "/" => String::new(),
        other => format!("{other},"),
    }
}

fn bad(message: &str) -> (ErrorCode, String) {
    (ErrorCode::BadMessage, message.to_owned())
}

/// Options may be left out, and be null.
fn options<T: Default + serde::de::DeserializeOwned>(
    argument: Option<&RawValue>,
) -> Result<T, (ErrorCode, String)> {
    let text = argument.map_or("null", RawValue::get);
    let options: Option<T> = serde_json::from_str(text).map_err(|error| bad(&error.to_string()))?;
    Ok(options.unwrap_or_default())
}

/// The bytes that an argument is published as: bytes as they are, a string as its text, all else as its JSON.
fn payload(arrived: &Arrived<'_>, at: usize, json: bool) -> Result<Bytes, (ErrorCode, String)> {
    let payload = argument(&arrived.arguments, at).ok_or_else(|| bad("there is no payload"))?;
    if let Some(bytes) = bytes(payload, arrived.attachments) {
        return Ok(bytes);
    }
    if !arrived.attachments.is_empty() {
        return Err(bad("bytes are the whole payload, or none of it"));
    }
    let raw = payload.get();
    match raw.starts_with('"') && !json {
        true => text(Some(payload))
            .map(Bytes::from)
            .ok_or_else(|| bad("no text")),
        false => Ok(Bytes::copy_from_slice(raw.as_bytes())),
    }
}

/// The subscription that these ask for.
pub(super) fn general_subscription(
    key: u64,
    filter: &str,
    options: &SubscribeOptions,
) -> Result<Subscribe, (ErrorCode, String)> {
    let mode = options.mode.unwrap_or_default();
    let since = options.since.as_deref().map(str::parse::<Offset>);
    let since = since.transpose().map_err(|error| bad(&error.to_string()))?;
    let since = since.map(|offset| offset.oldest());
    let request = frames::subscribe(key, filter, mode, options.max_rate, since);
    match request.map_err(|bad| (bad.code, bad.message))? {
        Request::Subscribe { subscriptions, .. } => subscriptions
            .into_iter()
            .next()
            .ok_or_else(|| bad("no filter")),
        _ => Err(bad("no filter")),
    }
}

/// Whether its messages come later than those of others: then its place is named apart.
pub(super) fn is_paced(subscribe: &Subscribe, common: &super::Common) -> bool {
    match subscribe.mode {
        Mode::Latest | Mode::State => {
            let pace = subscribe.pace.unwrap_or(common.bus.session_limits().pace);
            !pace.is_zero()
        }
        Mode::Every => subscribe.pace.is_some(),
    }
}

impl config::Output {
    /// The subscription that this is.
    pub(super) fn subscription(&self, key: u64, start: Start) -> Subscribe {
        Subscribe {
            id: key,
            filter: self.filter.clone(),
            mode: self.mode,
            start,
            pace: None,
            group: None,
            durable: false,
            waits: false,
        }
    }
}
