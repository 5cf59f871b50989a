//! What is remembered of a client beyond the life of the server: parts, each stored and forgotten for itself.
//!
//! | part | what it says |
//! |---|---|
//! | `s` | how long the session outlives its connection, and when it ends if the client is away |
//! | `u` | whose session and will it is: who had signed in; without it, nobody in particular |
//! | `w` | the will, and when it is due if the client is away |
//! | `f` number | a subscription |
//! | `m` number | all of a subscription's messages up to this revision are finished |
//! | `d` number, revision | a message beyond the mark that is finished too, and its quality of service |
//! | `i` identifier | a QoS 2 message of the client's that the bus has and that is not released |
//! | `o` identifier | a QoS 2 message on its way to the client |
//! | `p` identifier | a QoS 1 message on its way to the client |
//!
//! Numbers are big-endian; a value is its format's number and then postcard.

use core::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use latchbus_bus::{Delivery, Identity, Payload, Properties, Publish};
use latchbus_core::hub::{Entry, Kind};
use latchbus_core::topic::TopicName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::packet::{Options, Retained, Will};

/// The number of the format of all values.
const FORMAT: u8 = 1;

/// A change of what is remembered of a client. Later ones go before earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Remember a part, in place of what it was.
    Keep {
        /// Its name among the client's.
        part: Bytes,
        /// What it says.
        value: Bytes,
    },
    /// Forget a part.
    Forget {
        /// Its name.
        part: Bytes,
    },
    /// Forget everything of the client.
    ForgetAll,
}

/// The name of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Session,
    Owner,
    Will,
    Subscription(u64),
    Mark(u64),
    Done(u64, u64),
    Incoming(NonZeroU16),
    Outgoing(NonZeroU16),
    OutgoingOnce(NonZeroU16),
}

impl Part {
    fn name(self) -> Bytes {
        let mut name = Vec::with_capacity(17);
        match self {
            Self::Session => name.push(b's'),
            Self::Owner => name.push(b'u'),
            Self::Will => name.push(b'w'),
            Self::Subscription(number) | Self::Mark(number) => {
                let tag = if matches!(self, Self::Mark(_)) {
                    b'm'
                } else {
                    b'f'
                };
                name.push(tag);
                name.extend(number.to_be_bytes());
            }
            Self::Done(number, rev) => {
                name.push(b'd');
                name.extend(number.to_be_bytes());
                name.extend(rev.to_be_bytes());
            }
            Self::Incoming(id) | Self::Outgoing(id) | Self::OutgoingOnce(id) => {
                name.push(match self {
                    Self::Incoming(_) => b'i',
                    Self::OutgoingOnce(_) => b'p',
                    _ => b'o',
                });
                name.extend(id.get().to_be_bytes());
            }
        }
        name.into()
    }

    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let (tag, rest) = name.split_first()?;
        let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        let id = || NonZeroU16::new(u16::from_be_bytes(rest.try_into().ok()?));
        match tag {
            b's' => Some(Self::Session),
            b'u' => Some(Self::Owner),
            b'w' => Some(Self::Will),
            b'f' => Some(Self::Subscription(number(rest)?)),
            b'm' => Some(Self::Mark(number(rest)?)),
            b'd' => {
                let (first, second) = rest.split_at_checked(8)?;
                Some(Self::Done(number(first)?, number(second)?))
            }
            b'i' => Some(Self::Incoming(id()?)),
            b'o' => Some(Self::Outgoing(id()?)),
            b'p' => Some(Self::OutgoingOnce(id()?)),
            _ => None,
        }
    }

    pub(crate) fn keep(self, value: &impl Serialize) -> Note {
        let mut bytes = vec![FORMAT];
        // What is written here has no maps or lengths that postcard could not know.
        bytes.extend(postcard::to_allocvec(value).unwrap_or_default());
        Note::Keep {
            part: self.name(),
            value: bytes.into(),
        }
    }

    pub(crate) fn forget(self) -> Note {
        Note::Forget { part: self.name() }
    }
}

/// Reads a value; `None` when it is of another format.
pub(crate) fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    let (format, value) = value.split_first()?;
    postcard::from_bytes(value)
        .ok()
        .filter(|_| *format == FORMAT)
}

/// `s`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) expiry_secs: u64,
    /// By the deadlines of the bus's clock, in milliseconds; none while the client is connected.
    pub(crate) ends_at: Option<u64>,
}

/// `u`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OwnerRecord {
    User(String),
    Token(String),
    Certificate(String),
}

impl OwnerRecord {
    /// None for those who have not signed in.
    pub(crate) fn of(identity: &Identity) -> Option<Self> {
        match identity {
            Identity::User(name) => Some(Self::User(name.clone())),
            Identity::Token { subject } => Some(Self::Token(subject.clone())),
            Identity::Certificate { subject } => Some(Self::Certificate(subject.clone())),
            _ => None,
        }
    }

    pub(crate) fn identity(self) -> Identity {
        match self {
            Self::User(name) => Identity::User(name),
            Self::Token(subject) => Identity::Token { subject },
            Self::Certificate(subject) => Identity::Certificate { subject },
        }
    }
}

/// `f`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubscriptionRecord {
    pub(crate) filter: String,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    retained: u8,
    identifier: Option<NonZeroU32>,
    rev: bool,
    at: bool,
}

impl SubscriptionRecord {
    pub(crate) fn new(filter: &str, options: Options) -> Self {
        Self {
            filter: filter.to_owned(),
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retained: match options.retained {
                Retained::Always => 0,
                Retained::WhenNew => 1,
                Retained::Never => 2,
            },
            identifier: options.identifier,
            rev: options.rev,
            at: options.at,
        }
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            qos: self.qos.min(2),
            max_qos: 2,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retained: match self.retained {
                0 => Retained::Always,
                1 => Retained::WhenNew,
                _ => Retained::Never,
            },
            identifier: self.identifier,
            rev: self.rev,
            at: self.at,
        }
    }
}

/// `o`, `p`
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OutgoingRecord {
    pub(crate) subscription: u64,
    pub(crate) rev: u64,
    /// Its place among the others.
    pub(crate) order: u64,
    /// None when it was released.
    pub(crate) message: Option<MessageRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MessageRecord {
    at: u64,
    /// Whether it is an event.
    event: bool,
    pub(crate) retain: bool,
    said: Said,
}

/// What somebody published.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Said {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    properties: Option<Properties>,
    expires: Option<NonZeroU64>,
}

impl MessageRecord {
    pub(crate) fn new(delivery: &Delivery, retain: bool) -> Self {
        let payload = &delivery.payload;
        Self {
            at: delivery.at,
            event: delivery.kind == Kind::Event,
            retain,
            said: Said {
                topic: delivery.topic.as_str().to_owned(),
                payload: payload.bytes().to_vec(),
                qos: payload.qos(),
                properties: payload.properties().map(|said| Properties::clone(said)),
                expires: payload.expires_at(),
            },
        }
    }

    /// The message as the bus handed it out.
    pub(crate) fn delivery(self, rev: u64) -> Option<Delivery> {
        let said = self.said;
        Some(Arc::new(Entry {
            rev,
            at: self.at,
            kind: if self.event { Kind::Event } else { Kind::State },
            topic: TopicName::parse(said.topic.into()).ok()?,
            payload: Payload::restore(
                said.payload.into(),
                said.qos,
                said.expires,
                said.properties.map(Into::into),
            ),
        }))
    }
}

/// `w`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WillRecord {
    said: Said,
    retain: bool,
    pub(crate) delay_secs: u64,
    /// By the deadlines of the bus's clock, in milliseconds; none while the client is connected.
    pub(crate) due: Option<u64>,
}

impl WillRecord {
    pub(crate) fn new(will: &Will, due: Option<u64>) -> Self {
        let publish = &will.publish;
        let expires = publish.expires_in.map(|after| after.as_millis());
        Self {
            said: Said {
                topic: publish.topic.as_str().to_owned(),
                payload: publish.payload.to_vec(),
                qos: publish.qos,
                properties: publish.properties.as_deref().cloned(),
                // How long from its publication, here.
                expires: expires.and_then(|ms| NonZeroU64::new(u64::try_from(ms).ok()?)),
            },
            retain: publish.retain,
            delay_secs: will.delay.as_secs(),
            due,
        }
    }

    pub(crate) fn publish(self) -> Option<Publish> {
        let said = self.said;
        Some(Publish {
            qos: said.qos.min(2),
            retain: self.retain,
            properties: said.properties.map(Arc::new),
            expires_in: said.expires.map(|ms| Duration::from_millis(ms.get())),
            ..Publish::event(TopicName::parse(said.topic).ok()?, said.payload)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_read_as_they_are_written() {
        let id = NonZeroU16::MAX;
        for part in [
            Part::Session,
            Part::Owner,
            Part::Will,
            Part::Subscription(7),
            Part::Mark(u64::MAX),
            Part::Done(1, 2),
            Part::Incoming(id),
            Part::Outgoing(id),
            Part::OutgoingOnce(id),
        ] {
            assert_eq!(Part::parse(&part.name()), Some(part));
        }
        for name in [&b""[..], b"x", b"f123", b"d12345678", b"i\0\0", b"o1"] {
            assert_eq!(Part::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn values_of_another_format_are_not_read() {
        let record = SessionRecord {
            expiry_secs: 9,
            ends_at: Some(8),
        };
        let Note::Keep { value, .. } = Part::Session.keep(&record) else {
            unreachable!()
        };
        assert_eq!(read::<SessionRecord>(&value), Some(record));
        let mut other = value.to_vec();
        if let Some(format) = other.first_mut() {
            *format = 2;
        }
        assert_eq!(read::<SessionRecord>(&other), None);
        assert_eq!(read::<SessionRecord>(&value.slice(..1)), None);
    }
}
