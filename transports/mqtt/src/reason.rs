//! The codes by which a server says how it went.

use core::fmt;

use latchbus_bus::{PublishRefused, SignInRefused, SubscribeRefused};
use latchbus_core::hub::{PublishError, SubscribeError};

use crate::Version;
use crate::property::Place;

/// A reason code of MQTT 5 (§2.4). From 0x80 on it says that something went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u8);

impl Reason {
    /// Success, or a normal disconnection.
    pub const SUCCESS: Self = Self(0x00);
    /// A client leaves and wants its will to be published.
    pub const DISCONNECT_WITH_WILL: Self = Self(0x04);
    /// There was no such subscription to end.
    pub const NO_SUBSCRIPTION_EXISTED: Self = Self(0x11);
    /// A client proves anew who it is.
    pub const REAUTHENTICATE: Self = Self(0x19);
    /// None of the others.
    pub const UNSPECIFIED: Self = Self(0x80);
    /// The packet cannot be read.
    pub const MALFORMED_PACKET: Self = Self(0x81);
    /// The packet can be read but must not be there.
    pub const PROTOCOL_ERROR: Self = Self(0x82);
    /// Valid, but not accepted by this server.
    pub const IMPLEMENTATION_SPECIFIC: Self = Self(0x83);
    /// The version of the protocol is not spoken here.
    pub const UNSUPPORTED_VERSION: Self = Self(0x84);
    /// The client identifier cannot be used.
    pub const CLIENT_IDENTIFIER_NOT_VALID: Self = Self(0x85);
    /// A rule forbids it.
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    /// The server cannot serve now.
    pub const SERVER_UNAVAILABLE: Self = Self(0x88);
    /// The user, the password or the token is wrong.
    pub const BAD_USER_NAME_OR_PASSWORD: Self = Self(0x86);
    /// The server stops.
    pub const SERVER_SHUTTING_DOWN: Self = Self(0x8B);
    /// Too much is going on to do it now.
    pub const SERVER_BUSY: Self = Self(0x89);
    /// An authentication method that is not known here, or not the one that the connection began with.
    pub const BAD_AUTHENTICATION_METHOD: Self = Self(0x8C);
    /// The client was silent for longer than it had promised.
    pub const KEEP_ALIVE_TIMEOUT: Self = Self(0x8D);
    /// Another connection uses the client identifier.
    pub const SESSION_TAKEN_OVER: Self = Self(0x8E);
    /// Not a topic filter.
    pub const TOPIC_FILTER_INVALID: Self = Self(0x8F);
    /// Not a topic name.
    pub const TOPIC_NAME_INVALID: Self = Self(0x90);
    /// No message in flight has this packet identifier.
    pub const PACKET_IDENTIFIER_NOT_FOUND: Self = Self(0x92);
    /// More messages in flight than the receiver allows.
    pub const RECEIVE_MAXIMUM_EXCEEDED: Self = Self(0x93);
    /// A topic alias that was not allowed.
    pub const TOPIC_ALIAS_INVALID: Self = Self(0x94);
    /// The packet is larger than the receiver accepts.
    pub const PACKET_TOO_LARGE: Self = Self(0x95);
    /// The client publishes faster than it may.
    pub const MESSAGE_RATE_TOO_HIGH: Self = Self(0x96);
    /// A bound of the server.
    pub const QUOTA_EXCEEDED: Self = Self(0x97);
    /// An administrator has ended the connection.
    pub const ADMINISTRATIVE_ACTION: Self = Self(0x98);
    /// The payload is not what the topic requires.
    pub const PAYLOAD_FORMAT_INVALID: Self = Self(0x99);
    /// No shared subscriptions here.
    pub const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: Self = Self(0x9E);

    /// Whether it says that something went wrong.
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// Why a CONNECT is refused, for the log.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::UNSUPPORTED_VERSION => "unsupported version of the protocol",
            Self::CLIENT_IDENTIFIER_NOT_VALID => "client identifier not valid",
            Self::BAD_AUTHENTICATION_METHOD => "unknown authentication method",
            _ => "see the code",
        }
    }

    /// A code that a client sends in a packet of MQTT 5.
    pub(crate) fn from_client(place: Place, code: u8) -> Result<Self, Violation> {
        match FROM_CLIENTS.iter().find(|(known, _)| *known == code) {
            None => Err(Violation::Malformed("a reason code that there is not")),
            Some((_, places)) if places.contains(&place) => Ok(Self(code)),
            Some(_) => Err(Violation::Protocol("a reason code of another packet")),
        }
    }

    /// Why a re-authentication is refused: DISCONNECT has fewer codes for that than CONNACK (MQTT 5 §3.14.2.1).
    pub(crate) const fn of_reauthentication(refused: &SignInRefused) -> Self {
        match refused {
            SignInRefused::TooManyAttempts { .. } | SignInRefused::TooManyConnections { .. } => {
                Self::QUOTA_EXCEEDED
            }
            SignInRefused::Unavailable => Self::SERVER_BUSY,
            _ => Self::NOT_AUTHORIZED,
        }
    }

    /// The code of a CONNACK in a version: 3.1.1 has five ways to refuse (§3.2.2.3).
    pub(crate) const fn in_connack(self, version: Version) -> u8 {
        match (version, self) {
            (Version::V5, _) | (_, Self::SUCCESS) => self.0,
            (_, Self::UNSUPPORTED_VERSION) => 1,
            (_, Self::CLIENT_IDENTIFIER_NOT_VALID) => 2,
            (_, Self::BAD_USER_NAME_OR_PASSWORD) => 4,
            (_, Self::NOT_AUTHORIZED) => 5,
            _ => 3,
        }
    }
}

/// The reason codes of MQTT 5 (§2.4), and in which packets a client sends them (§3.4.2.1, §3.5.2.1, §3.6.2.1,
/// §3.7.2.1, §3.14.2.1, §3.15.2.1).
#[rustfmt::skip]
const FROM_CLIENTS: [(u8, &[Place]); 43] = {
    use Place::*;
    [
        (0x00, &[Puback, Pubrec, Pubrel, Pubcomp, Disconnect]),
        (0x01, &[]), (0x02, &[]),
        (0x04, &[Disconnect]),
        (0x10, &[Puback, Pubrec]),
        (0x11, &[]),
        (0x18, &[Auth]), (0x19, &[Auth]),
        (0x80, &[Puback, Pubrec, Disconnect]),
        (0x81, &[Disconnect]), (0x82, &[Disconnect]),
        (0x83, &[Puback, Pubrec, Disconnect]),
        (0x84, &[]), (0x85, &[]), (0x86, &[]),
        (0x87, &[Puback, Pubrec]),
        (0x88, &[]), (0x89, &[]), (0x8A, &[]), (0x8B, &[]), (0x8C, &[]), (0x8D, &[]), (0x8E, &[]), (0x8F, &[]),
        (0x90, &[Puback, Pubrec, Disconnect]),
        (0x91, &[Puback, Pubrec]),
        (0x92, &[Pubrel, Pubcomp]),
        (0x93, &[Disconnect]), (0x94, &[Disconnect]), (0x95, &[Disconnect]), (0x96, &[Disconnect]),
        (0x97, &[Puback, Pubrec, Disconnect]),
        (0x98, &[Disconnect]),
        (0x99, &[Puback, Pubrec, Disconnect]),
        (0x9A, &[]), (0x9B, &[]), (0x9C, &[]), (0x9D, &[]), (0x9E, &[]), (0x9F, &[]), (0xA0, &[]), (0xA1, &[]), (0xA2, &[]),
    ]
};

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reason({:#04x})", self.0)
    }
}

impl From<&PublishRefused> for Reason {
    fn from(refused: &PublishRefused) -> Self {
        match refused {
            PublishRefused::NotAllowed(..) => Self::NOT_AUTHORIZED,
            PublishRefused::Malformed { .. } => Self::PAYLOAD_FORMAT_INVALID,
            PublishRefused::Hub(PublishError::TopicTooLong { .. }) => Self::TOPIC_NAME_INVALID,
            PublishRefused::PropertiesTooLarge { .. } => Self::PACKET_TOO_LARGE,
            PublishRefused::Hub(_) => Self::QUOTA_EXCEEDED,
            refused if refused.is_full() => Self::QUOTA_EXCEEDED,
            _ => Self::UNSPECIFIED,
        }
    }
}

impl From<&SignInRefused> for Reason {
    fn from(refused: &SignInRefused) -> Self {
        match refused {
            SignInRefused::BadCredentials
            | SignInRefused::BadToken(_)
            | SignInRefused::NamelessCertificate
            | SignInRefused::Expired => Self::BAD_USER_NAME_OR_PASSWORD,
            SignInRefused::TooManyAttempts { .. } | SignInRefused::TooManyConnections { .. } => {
                Self::QUOTA_EXCEEDED
            }
            SignInRefused::Unavailable => Self::SERVER_UNAVAILABLE,
            _ => Self::NOT_AUTHORIZED,
        }
    }
}

impl From<&SubscribeRefused> for Reason {
    fn from(refused: &SubscribeRefused) -> Self {
        match refused {
            SubscribeRefused::NotAllowed(_) => Self::NOT_AUTHORIZED,
            SubscribeRefused::Hub(SubscribeError::FilterTooLong { .. })
            | SubscribeRefused::Shared(_) => Self::TOPIC_FILTER_INVALID,
            SubscribeRefused::Hub(_)
            | SubscribeRefused::SessionFull { .. }
            | SubscribeRefused::UserFull { .. }
            | SubscribeRefused::Closed => Self::QUOTA_EXCEEDED,
            _ => Self::UNSPECIFIED,
        }
    }
}

/// What a peer did wrong. It ends that peer's connection and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A packet that cannot be read.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// A packet that must not be there.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// A publish or a will to what is not a topic name.
    #[error("not a topic name")]
    TopicName,
    /// A topic alias that the server had not allowed.
    #[error("topic alias 0, or above the announced maximum")]
    TopicAlias,
    /// A packet larger than the server accepts.
    #[error("packet of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// Its size, as its header says.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A request whose answer is larger than the client accepts.
    #[error("answer of {bytes} bytes is larger than the client's maximum packet size of {limit}")]
    AnswerTooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// More unacknowledged publishes than the server had announced.
    #[error("more publishes in flight than the receive maximum of {0}")]
    ReceiveMaximum(u16),
    /// There is no memory left for what is half received, over all connections.
    #[error("no memory for unfinished packets: all connections hold {limit} bytes of them")]
    Budget {
        /// The bound.
        limit: usize,
    },
    /// A publish of a client of 3.1.1 that the bus has rejected, for which that version has no answer.
    #[error("publish rejected: {0}")]
    PublishRejected(&'static str),
    /// It proves anew who it is by another method than that of its CONNECT (MQTT-4.12.1-1), or had none there.
    #[error("re-authentication by another method than that of the CONNECT")]
    AuthenticationMethod,
    /// It was refused when it proved anew who it is (MQTT-4.12.1-2).
    #[error("re-authentication refused: {1}")]
    NotSignedIn(Reason, SignInRefused),
    /// The client publishes faster than it may.
    #[error("publishes faster than allowed")]
    RateLimited,
    /// No packet for one and a half times the keep-alive interval (MQTT 3.1.1 §3.1.2.10).
    #[error("keep-alive timeout")]
    KeepAlive,
}

impl Violation {
    /// The code for a DISCONNECT.
    pub const fn reason(&self) -> Reason {
        match self {
            // Topic Name invalid (0x90) is for names that are well-formed (MQTT 5 §3.14.2.1).
            Self::Malformed(_) | Self::TopicName => Reason::MALFORMED_PACKET,
            Self::Protocol(_) => Reason::PROTOCOL_ERROR,
            Self::TopicAlias => Reason::TOPIC_ALIAS_INVALID,
            Self::TooLarge { .. } | Self::AnswerTooLarge { .. } => Reason::PACKET_TOO_LARGE,
            Self::ReceiveMaximum(_) => Reason::RECEIVE_MAXIMUM_EXCEEDED,
            Self::Budget { .. } => Reason::QUOTA_EXCEEDED,
            Self::PublishRejected(_) => Reason::IMPLEMENTATION_SPECIFIC,
            Self::AuthenticationMethod => Reason::BAD_AUTHENTICATION_METHOD,
            Self::NotSignedIn(reason, _) => *reason,
            Self::RateLimited => Reason::MESSAGE_RATE_TOO_HIGH,
            Self::KeepAlive => Reason::KEEP_ALIVE_TIMEOUT,
        }
    }
}
