//! What the session understands of the packets of both versions.

use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;

use std::sync::Arc;

use bytes::Bytes;
use latchbus_bus::{Credentials, Properties};

use crate::Reason;

/// The version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.0.
    V5,
}

/// The authentication method whose data is a bearer token: the only one.
pub const TOKEN_METHOD: &str = "token";

/// A CONNECT.
#[derive(Debug, Clone)]
pub struct Connect {
    /// Which version the client speaks.
    pub version: Version,
    /// Whether it says that it is a bridge to another server, as those of 3.1.1 do with a bit of the protocol level:
    /// its subscriptions have no-local and retain as published.
    pub bridge: bool,
    /// Who it is; empty: the server is to choose.
    pub client_id: String,
    /// The user that it names, and its password.
    pub credentials: Credentials,
    /// Whether it wants to begin without what an earlier session left.
    pub clean_start: bool,
    /// Seconds; 0 is off.
    pub keep_alive_secs: u16,
    /// How long the session is to outlive the connection, in seconds; `u32::MAX` is for ever. None in
    /// MQTT 3.1.1, where `clean_start` alone says it.
    pub session_expiry_secs: Option<u32>,
    /// How many QoS 1 and 2 messages the client takes unacknowledged.
    pub receive_maximum: u16,
    /// The largest packet that it accepts, in bytes.
    pub maximum_packet_bytes: Option<usize>,
    /// How many topic aliases it takes; 0: none.
    pub topic_alias_maximum: u16,
    /// Whether it wants to be told in words why something was refused.
    pub problem_information: bool,
    /// Whether it signs in by [`TOKEN_METHOD`] (MQTT 5 §4.12), and may do so again.
    pub by_token: bool,
    /// What to publish when it does not leave by itself.
    pub will: Option<Will>,
}

/// A client's last word.
#[derive(Debug, Clone)]
pub struct Will {
    /// What to publish.
    pub publish: latchbus_bus::Publish,
    /// How long after the connection has ended; cancelled by a return of the session (MQTT 5 §3.1.3.2.2).
    pub delay: Duration,
}

/// What a client may send after its CONNECT.
#[derive(Debug)]
pub(crate) enum Packet {
    Publish(Publish),
    /// PUBACK: a QoS 1 message has arrived, or was refused.
    Acknowledged {
        id: NonZeroU16,
        reason: Reason,
    },
    /// PUBREC: a QoS 2 message has arrived, or was refused.
    Received {
        id: NonZeroU16,
        reason: Reason,
    },
    /// PUBREL: the client forgets a QoS 2 message.
    Release(NonZeroU16),
    /// PUBCOMP: the client has forgotten that it received a QoS 2 message.
    Complete(NonZeroU16),
    Subscribe {
        id: NonZeroU16,
        filters: Vec<(String, Options)>,
    },
    Unsubscribe {
        id: NonZeroU16,
        filters: Vec<String>,
    },
    Ping,
    /// AUTH with the code that asks for a re-authentication.
    Authenticate {
        method: String,
        data: Option<Bytes>,
    },
    Disconnect {
        goodbye: Goodbye,
        session_expiry_secs: Option<u32>,
    },
}

/// What a client says of why it leaves.
#[derive(Debug)]
pub struct Goodbye {
    /// The code of its DISCONNECT.
    pub reason: Reason,
    /// The beginning of its Reason String (MQTT 5 §3.14.2.2.3).
    pub words: Option<Box<str>>,
}

/// A PUBLISH from a client.
#[derive(Debug)]
pub(crate) struct Publish {
    /// Not parsed yet; empty where the alias stands for it.
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    pub(crate) service: Service,
    pub(crate) alias: Option<NonZeroU16>,
    pub(crate) properties: Option<Arc<Properties>>,
    pub(crate) expires_in: Option<Duration>,
}

/// The quality of service of a publish, with the packet identifier that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Zero,
    One(NonZeroU16),
    Two(NonZeroU16),
}

impl Service {
    pub(crate) const fn qos(self) -> u8 {
        match self {
            Self::Zero => 0,
            Self::One(_) => 1,
            Self::Two(_) => 2,
        }
    }

    pub(crate) const fn id(self) -> Option<NonZeroU16> {
        match self {
            Self::Zero => None,
            Self::One(id) | Self::Two(id) => Some(id),
        }
    }
}

/// What a client asks of a subscription (MQTT 5 §3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// The most it wants and was granted, 0 to 2.
    pub(crate) qos: u8,
    /// The most that the rules allow it now, 0 to 2. Not stored.
    pub(crate) max_qos: u8,
    pub(crate) no_local: bool,
    /// Whether the retain flag is to be forwarded as it was published.
    pub(crate) retain_as_published: bool,
    pub(crate) retained: Retained,
    /// Given back with each message.
    pub(crate) identifier: Option<NonZeroU32>,
    /// Whether it asked for the revision of each message, and for the time of its publication.
    pub(crate) rev: bool,
    pub(crate) at: bool,
}

impl Options {
    /// Those of a subscription of which nothing is known any more.
    pub(crate) const NONE: Self = Self {
        qos: 2,
        max_qos: 2,
        no_local: false,
        retain_as_published: false,
        retained: Retained::Always,
        identifier: None,
        rev: false,
        at: false,
    };
}

/// When a subscription brings the retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retained {
    Always,
    WhenNew,
    Never,
}
