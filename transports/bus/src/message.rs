//! What is published, and what is delivered: shared by every subscriber, encoded at most once a form.

use std::sync::OnceLock;

use bytes::Bytes;
use latchbus_core::hub::SharedEntry;
use latchbus_core::topic::TopicName;

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
}

impl Publish {
    /// The quality of service of a publisher that has none: it caps nobody.
    pub const STATE_QOS: u8 = 2;

    /// State: the bus keeps it as the topic's last value.
    pub fn state(topic: TopicName<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            retain: true,
            qos: Self::STATE_QOS,
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
    encodings: OnceLock<Box<[OnceLock<Bytes>; Encoding::COUNT]>>,
}

/// A form in which a message goes out, made once and shared by all subscribers of that form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The part of a WebSocket JSON frame that is the same for all subscribers.
    Json,
    /// The part of a postcard frame that is the same for all subscribers.
    Postcard,
    /// The body of an MQTT 3.1.1 PUBLISH.
    Mqtt3,
    /// The body of an MQTT 5 PUBLISH.
    Mqtt5,
}

impl Encoding {
    const COUNT: usize = 4;
}

impl Payload {
    pub(crate) fn new(bytes: Bytes, qos: u8) -> Self {
        Self {
            bytes,
            qos,
            encodings: OnceLock::new(),
        }
    }

    /// The bytes as they were published.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The quality of service that the publisher used, 0 to 2.
    pub fn qos(&self) -> u8 {
        self.qos
    }

    /// The message in a form, which `encode` makes if nobody has asked for it before. It must come out
    /// the same for whoever asks.
    pub fn encoded(&self, form: Encoding, encode: impl FnOnce() -> Bytes) -> Bytes {
        let forms = self.encodings.get_or_init(Box::default);
        match forms.get(form as usize) {
            Some(slot) => slot.get_or_init(encode).clone(),
            None => encode(),
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
