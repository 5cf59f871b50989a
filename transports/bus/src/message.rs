//! What is published, and what is delivered: shared by every subscriber, encoded at most once a form.

use core::num::NonZeroU64;
use core::time::Duration;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use latchbus_core::hub::SharedEntry;
use latchbus_core::topic::TopicName;
use serde::{Deserialize, Serialize};

use crate::Note;
use crate::holdings::{Holder, Source};

/// A message on its way into the bus.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where it goes.
    pub topic: TopicName<String>,
    /// What it says. Empty with `retain`: the topic is cleared.
    pub payload: Bytes,
    /// Whether it is state, whose last value the bus keeps, or an event.
    pub retain: bool,
    /// The quality of service of an MQTT publisher, 0 to 2; it caps that of MQTT subscribers. Others
    /// publish with [`Publish::STATE_QOS`].
    pub qos: u8,
    /// What goes with the payload.
    pub properties: Option<Arc<Properties>>,
    /// After so long nobody is given it any more, and a topic that keeps it is cleared.
    pub expires_in: Option<Duration>,
    /// It is refused where the value that its topic retains is another.
    pub expected: Option<Box<Expected>>,
    /// What the transport remembers or forgets with it, in one commit: also where the message itself changes
    /// nothing, because it came before, and never where it is refused.
    pub notes: Box<[Note]>,
}

/// What a publisher takes for granted of the value that a topic retains, so that nobody overwrites what he has not seen:
/// compare and set. All that was accepted before counts, whether it was shown already or not.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use latchbus_bus::{Bus, Expected, Publish, PublishRefused};
/// use latchbus_bus::topic::TopicName;
///
/// let bus = Bus::builder().open()?;
/// let lamp = |value| Publish::state(TopicName::parse("lamp".to_owned()).unwrap(), value);
/// let seen = bus.publish(lamp("off")).await?.rev;
/// bus.publish(lamp("broken")).await?;
///
/// let on = lamp("on").expecting(Expected::OneOf(vec![seen]));
/// assert!(matches!(bus.publish(on).await, Err(PublishRefused::Raced(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// It has one of these revisions.
    OneOf(Vec<u64>),
    /// It has none of these revisions, or there is no value.
    NoneOf(Vec<u64>),
}

/// What a topic retains, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Cleared,
    /// A value of this revision; none for what was accepted and is still to be numbered, and which nobody can have seen.
    Kept(Option<u64>),
}

impl Expected {
    /// Whether a topic is as expected.
    pub(crate) fn holds(&self, standing: Standing) -> bool {
        let is_one_of = |revs: &[u64]| match standing {
            Standing::Kept(Some(rev)) => revs.contains(&rev),
            Standing::Kept(None) | Standing::Cleared => false,
        };
        match self {
            Self::Absent => standing == Standing::Cleared,
            Self::Present => standing != Standing::Cleared,
            Self::OneOf(revs) => is_one_of(revs),
            Self::NoneOf(revs) => !is_one_of(revs),
        }
    }
}

/// What a publisher of MQTT 5 may say beside the payload (§3.3.2.3). The bus keeps it with the message and
/// passes it on; it understands none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// What the publisher says of the form of the payload.
    pub payload_format: PayloadFormat,
    /// Of what kind the payload is.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// What an answer is to carry.
    pub correlation_data: Option<Vec<u8>>,
    /// Whatever else, in the publisher's order.
    pub user: Vec<(String, String)>,
}

/// The Payload Format Indicator of MQTT 5 (§3.3.2.3.2). As it is stored, the first two are what a `bool` was that said
/// whether the payload is UTF-8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayloadFormat {
    /// The publisher does not say.
    #[default]
    Unstated,
    /// 1: UTF-8. The bus does not check it.
    Text,
    /// 0: bytes of any kind.
    Bytes,
}

impl Properties {
    /// The most bytes of all of them together; the publish of more is refused.
    pub const MAX_BYTES: usize = 8 << 10;

    /// The bytes of what they say, each with two bytes or more for its length.
    pub fn bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, |text| 3 + text.len());
        let user = (self.user.iter()).map(|(name, value)| 5 + name.len() + value.len());
        2 * usize::from(self.payload_format != PayloadFormat::Unstated)
            + length(&self.content_type)
            + length(&self.response_topic)
            + (self.correlation_data.as_ref()).map_or(0, |data| 3 + data.len())
            + user.sum::<usize>()
    }
}

impl Publish {
    /// What counts for the rate of its publisher.
    pub(crate) fn counted_bytes(&self) -> usize {
        self.topic.as_str().len() + self.payload.len()
    }

    /// The quality of service of a publisher that has none: it caps nobody.
    pub const STATE_QOS: u8 = 2;

    /// State: the bus keeps it as the topic's last value.
    pub fn state(topic: TopicName<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            retain: true,
            qos: Self::STATE_QOS,
            properties: None,
            expires_in: None,
            expected: None,
            notes: Box::default(),
        }
    }

    /// The same where its topic retains the expected value; elsewhere it is refused as [raced](crate::PublishRefused::Raced).
    #[must_use]
    pub fn expecting(self, expected: Expected) -> Self {
        Self {
            expected: Some(Box::new(expected)),
            ..self
        }
    }

    /// An event: delivered to those who are subscribed, then gone.
    pub fn event(topic: TopicName<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            retain: false,
            ..Self::state(topic, payload)
        }
    }
}

/// One accepted message: topic, payload, revision and time behind one pointer.
pub type Delivery = SharedEntry<Payload>;

/// The bytes of a message, with the encodings that transports made of it.
#[derive(Debug)]
pub struct Payload {
    bytes: Bytes,
    qos: u8,
    /// See [`is_clear`](Self::is_clear).
    clears: bool,
    /// The client that published it; 0: none that there is now.
    origin: u64,
    expires_at: Option<NonZeroU64>,
    properties: Option<Arc<Properties>>,
    /// Who holds it while it is retained. None where nothing was bounded, and of the hub itself.
    holder: Option<Arc<Holder>>,
    encodings: OnceLock<Box<Encoded>>,
}

/// The forms that were asked for, one behind the other: there are few, most often one.
#[derive(Debug)]
struct Encoded {
    form: Encoding,
    bytes: Bytes,
    next: OnceLock<Box<Self>>,
}

/// The name of a form in which a message goes out, made once and shared by all subscribers of that form. A transport
/// names its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding(&'static str);

impl Encoding {
    /// A form of this name. Two of the same name are the same form.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }
}

impl Payload {
    pub(crate) fn new(bytes: Bytes, qos: u8) -> Self {
        Self {
            bytes,
            qos,
            clears: false,
            origin: 0,
            expires_at: None,
            properties: None,
            holder: None,
            encodings: OnceLock::new(),
        }
    }

    /// The payload of a message that arrives at `now`, by [`Clock::deadline_ms`](crate::Clock::deadline_ms), and its topic.
    pub(crate) fn arrive(publish: Publish, source: Source, now: u64) -> (TopicName<String>, Self) {
        let payload = Self {
            origin: source.origin,
            holder: source.holder,
            expires_at: publish.expires_in.and_then(|after| {
                let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                NonZeroU64::new(now.saturating_add(after))
            }),
            properties: publish.properties,
            ..Self::new(publish.payload, publish.qos)
        };
        (publish.topic, payload)
    }

    /// A payload that was stored, of a client that is not known any more.
    pub fn restore(
        bytes: Bytes,
        qos: u8,
        expires_at: Option<NonZeroU64>,
        properties: Option<Arc<Properties>>,
    ) -> Self {
        Self {
            expires_at,
            properties,
            ..Self::new(bytes, qos)
        }
    }

    pub(crate) const fn with_origin(mut self, origin: u64) -> Self {
        self.origin = origin;
        self
    }

    pub(crate) fn with_holder(self, holder: Option<Arc<Holder>>) -> Self {
        Self { holder, ..self }
    }

    /// What ends a value whose time is over: nobody has published it.
    pub(crate) fn expiry() -> Self {
        Self {
            expires_at: Some(NonZeroU64::MIN),
            ..Self::default()
        }
    }

    /// The clear of a topic that retains nothing.
    pub(crate) const fn clearing(mut self) -> Self {
        self.clears = true;
        self
    }

    /// The same message with other bytes.
    pub(crate) fn with_bytes(self, bytes: Bytes) -> Self {
        Self { bytes, ..self }
    }

    /// Whether it is an event that was published to clear its topic, where there was nothing to clear.
    pub fn is_clear(&self) -> bool {
        self.clears
    }

    /// The bytes as they were published.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The quality of service that the publisher used, 0 to 2.
    pub fn qos(&self) -> u8 {
        self.qos
    }

    /// Who published it: [`Client::origin`](crate::Client::origin); 0 where that is not known.
    pub fn origin(&self) -> u64 {
        self.origin
    }

    /// What the publisher said beside the payload.
    pub fn properties(&self) -> Option<&Arc<Properties>> {
        self.properties.as_ref()
    }

    pub(crate) const fn holder(&self) -> Option<&Arc<Holder>> {
        self.holder.as_ref()
    }

    /// When it expires, by [`Clock::deadline_ms`](crate::Clock::deadline_ms).
    pub fn expires_at(&self) -> Option<NonZeroU64> {
        self.expires_at
    }

    /// Whether its time is over at `now`, by [`Clock::deadline_ms`](crate::Clock::deadline_ms). The clear of a topic
    /// whose value has expired is, from its beginning.
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at.get() <= now)
    }

    /// Whether this is what the bus itself says when it clears a topic whose value has expired.
    pub fn is_expiry(&self) -> bool {
        self.expires_at == Some(NonZeroU64::MIN)
    }

    /// The message in a form, which `encode` makes if nobody has asked for it before. It must come out
    /// the same for whoever asks.
    pub fn encoded(&self, form: Encoding, encode: impl Fn() -> Bytes) -> &Bytes {
        let mut place = &self.encodings;
        loop {
            // Where two ask at once, for two forms, the second goes on behind the first.
            let encoded = place.get_or_init(|| {
                Box::new(Encoded {
                    form,
                    bytes: encode(),
                    next: OnceLock::new(),
                })
            });
            if encoded.form == form {
                return &encoded.bytes;
            }
            place = &encoded.next;
        }
    }
}

impl Default for Payload {
    /// What the hub makes for a clear: no bytes, and capping nobody's quality of service, so that a clear
    /// is no more lost than the value that it ends.
    fn default() -> Self {
        Self::new(Bytes::new(), Publish::STATE_QOS)
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transport that the bus does not know names a form of its own.
    #[test]
    fn any_form_is_made_once() {
        let payload = Payload::new("x".into(), 0);
        let names = ["a", "b", "c", "d"].map(Encoding::new);
        for form in names {
            assert_eq!(payload.encoded(form, || form.0.into()), form.0);
        }
        for form in names {
            assert_eq!(payload.encoded(form, || panic!("made twice")), form.0);
        }
        let payload = Payload::new("x".into(), 0);
        std::thread::scope(|scope| {
            for form in names.repeat(4) {
                let payload = &payload;
                scope.spawn(move || assert_eq!(payload.encoded(form, || form.0.into()), form.0));
            }
        });
    }

    /// Stores and session records of versions that knew a `bool` are read as they were meant.
    #[test]
    fn a_payload_format_is_stored_as_the_bool_that_it_was() {
        for (was, is) in [
            (false, PayloadFormat::Unstated),
            (true, PayloadFormat::Text),
        ] {
            let stored = postcard::to_allocvec(&was).unwrap();
            assert_eq!(postcard::from_bytes::<PayloadFormat>(&stored), Ok(is));
            assert_eq!(postcard::to_allocvec(&is), Ok(stored));
        }
    }
}
