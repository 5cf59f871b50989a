//! Why the bus refuses something.

use core::time::Duration;

use latchbus_core::hub::{PublishError, SubscribeError};
use latchbus_core::topic::{TopicError, TopicName};
use latchbus_core::wire::ErrorCode;

/// What of a publish is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Forbidden {
    /// Whatever is published there.
    #[error("is not allowed")]
    Topic,
    /// The hub writes this topic, and nobody else: see [`is_reserved`](crate::clicks::is_reserved).
    #[error("is not allowed: the server itself writes this topic")]
    Reserved,
    /// That the topic keeps it: as an event it would be allowed.
    #[error("as state is not allowed")]
    State,
    /// That it has this quality of service: with 0 it would be allowed.
    #[error("at QoS {0} is not allowed")]
    Qos(u8),
    /// Both: as an event with 0 it would be allowed.
    #[error("as state at QoS {0} is not allowed")]
    StateAtQos(u8),
}

/// Why a publish was refused. It has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishRefused {
    /// The rules do not allow this peer to publish there.
    #[error("publishing to `{0}` {1}")]
    NotAllowed(String, Forbidden),
    /// It expects a value, and the rules do not allow this peer to read there.
    #[error("to expect a value of `{0}` without reading it is not allowed")]
    Unreadable(String),
    /// This peer has still to sign in.
    #[error("signing in is required")]
    SignInRequired,
    /// This peer publishes more than it may.
    #[error("published faster than allowed, try again in {} ms", retry_after.as_millis().max(1))]
    RateLimited {
        /// When it may try again.
        retry_after: Duration,
        /// The setting of the `latchbus` program that it was too fast for.
        setting: &'static str,
    },
    /// The topic's value is not the one that was [expected](crate::Expected).
    #[error("`{0}` has another value than expected")]
    Raced(String),
    /// The topic is none.
    #[error("`{topic}` is no topic")]
    InvalidTopic {
        /// What it was.
        topic: String,
        /// Why.
        #[source]
        source: TopicError,
    },
    /// A click topic whose name or payload is not as it must be.
    #[error("malformed {kind}: {reason}")]
    Malformed {
        /// What it should have been: `count`, `press` and so on.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A bound of the hub.
    #[error(transparent)]
    Hub(#[from] PublishError),
    /// What MQTT 5 lets a publisher say beside the payload.
    #[error("properties of {bytes} bytes are more than {limit}")]
    PropertiesTooLarge {
        /// Their size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// What a transport would remember with it.
    #[error("a note of {bytes} bytes is larger than {limit}")]
    NoteTooLarge {
        /// The size of the part that is too large.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// As many notes are kept as may be.
    #[error("{limit} notes are kept already")]
    NotesFull {
        /// The bound.
        limit: usize,
    },
    /// A bound of the click model.
    #[error("{what} is full: {limit}")]
    ClicksFull {
        /// Which bound.
        what: &'static str,
        /// Its value.
        limit: usize,
    },
    /// Its user has published the last value of as many topics as it may.
    #[error("the user holds {limit} retained topics already (limits.user_retained_topics)")]
    UserTopicsFull {
        /// The bound.
        limit: usize,
    },
    /// What is retained of its user would be more than it may be.
    #[error("the user may hold {limit} bytes of retained payloads (limits.user_retained_bytes)")]
    UserBytesFull {
        /// The bound.
        limit: usize,
    },
    /// The bus is closing, or its store has ended.
    #[error("the bus is closed")]
    Closed,
}

impl PublishRefused {
    /// Whether the publish was too large for a limit: the same message will not pass later either.
    pub const fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::Hub(PublishError::PayloadTooLarge { .. } | PublishError::TopicTooLong { .. })
                | Self::PropertiesTooLarge { .. }
                | Self::NoteTooLarge { .. }
        )
    }

    /// Whether a table is full: the same message may pass later.
    pub const fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Hub(PublishError::Full { .. }) | Self::ClicksFull { .. } | Self::NotesFull { .. }
        ) || self.is_over_quota()
    }

    /// Whether its user holds as much of what is retained as it may.
    pub const fn is_over_quota(&self) -> bool {
        matches!(
            self,
            Self::UserTopicsFull { .. } | Self::UserBytesFull { .. }
        )
    }

    /// One word for the cause, by which log lines are limited.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::NotAllowed(..) | Self::Unreadable(_) | Self::SignInRequired => "not allowed",
            Self::RateLimited { .. } => "rate limited",
            Self::Malformed { .. } | Self::InvalidTopic { .. } => "malformed",
            Self::Raced(_) => "raced",
            _ if self.is_too_large() => "too large",
            _ => "full",
        }
    }

    /// The limit that was reached, if it was one.
    pub const fn limit(&self) -> Option<usize> {
        Some(match self {
            Self::Hub(PublishError::Full { places }) => *places,
            Self::Hub(
                PublishError::PayloadTooLarge { limit, .. }
                | PublishError::TopicTooLong { limit, .. },
            )
            | Self::PropertiesTooLarge { limit, .. }
            | Self::NoteTooLarge { limit, .. }
            | Self::NotesFull { limit }
            | Self::ClicksFull { limit, .. }
            | Self::UserTopicsFull { limit }
            | Self::UserBytesFull { limit } => *limit,
            _ => return None,
        })
    }

    /// The setting of the `latchbus` program that changes the limit, if it was one and can be changed.
    pub fn setting(&self) -> Option<&'static str> {
        Some(match self {
            Self::RateLimited { setting, .. } => setting,
            Self::Hub(PublishError::Full { .. }) => "limits.kept_values",
            Self::Hub(PublishError::PayloadTooLarge { .. }) => "limits.payload_bytes",
            Self::Hub(PublishError::TopicTooLong { .. }) => "limits.topic_bytes",
            Self::UserTopicsFull { .. } => "limits.user_retained_topics",
            Self::UserBytesFull { .. } => "limits.user_retained_bytes",
            Self::ClicksFull { what, .. } => match *what {
                "rooms" => "limits.rooms",
                "devices of the room" => "limits.room_devices",
                _ => "limits.device_incarnations",
            },
            _ => return None,
        })
    }

    /// The code that WebSocket clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotAllowed(..) | Self::Unreadable(_) => ErrorCode::NotAllowed,
            Self::SignInRequired => ErrorCode::Unauthorized,
            Self::RateLimited { .. } => ErrorCode::RateLimited,
            // No frame says what it expects.
            Self::Malformed { .. } | Self::Raced(_) => ErrorCode::BadMessage,
            Self::Hub(PublishError::TopicTooLong { .. }) | Self::InvalidTopic { .. } => {
                ErrorCode::InvalidTopic
            }
            Self::Hub(PublishError::PayloadTooLarge { .. })
            | Self::PropertiesTooLarge { .. }
            | Self::NoteTooLarge { .. } => ErrorCode::TooLarge,
            Self::Hub(_)
            | Self::ClicksFull { .. }
            | Self::NotesFull { .. }
            | Self::UserTopicsFull { .. }
            | Self::UserBytesFull { .. }
            | Self::Closed => ErrorCode::Full,
        }
    }
}

/// A publish that was refused, with what the log says of it.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) refused: PublishRefused,
    pub(crate) topic: Option<TopicName<String>>,
    pub(crate) bytes: usize,
}

/// Why a subscription was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeRefused {
    /// The rules do not allow this peer to subscribe to that.
    #[error("subscribing to `{0}` is not allowed")]
    NotAllowed(String),
    /// This peer has still to sign in.
    #[error("signing in is required")]
    SignInRequired,
    /// The filter is none.
    #[error("`{filter}` is no filter")]
    InvalidFilter {
        /// What it was.
        filter: String,
        /// Why.
        #[source]
        source: TopicError,
    },
    /// `$share/group/filter`, which only a transport with shared subscriptions takes apart: as an ordinary filter it would bring
    /// nothing.
    #[error("`{0}` is a shared subscription, which only MQTT has: leave out $share and the group")]
    Shared(String),
    /// A bound of the hub.
    #[error(transparent)]
    Hub(#[from] SubscribeError),
    /// The session has as many subscriptions as it may.
    #[error("the session has {limit} subscriptions already")]
    SessionFull {
        /// The bound.
        limit: usize,
    },
    /// Its user has as many subscriptions as it may, over all sessions.
    #[error("the user has {limit} subscriptions already")]
    UserFull {
        /// The bound.
        limit: usize,
    },
    /// The bus is closing, or its store has ended.
    #[error("the bus is closed")]
    Closed,
}

impl SubscribeRefused {
    /// The limit that was reached, if it was one.
    pub const fn limit(&self) -> Option<usize> {
        match self {
            Self::Hub(
                SubscribeError::Full { limit } | SubscribeError::FilterTooLong { limit, .. },
            )
            | Self::SessionFull { limit }
            | Self::UserFull { limit } => Some(*limit),
            Self::Hub(_)
            | Self::NotAllowed(_)
            | Self::SignInRequired
            | Self::InvalidFilter { .. }
            | Self::Shared(_)
            | Self::Closed => None,
        }
    }

    /// The setting of the `latchbus` program that changes the limit, if it was one and can be changed.
    pub const fn setting(&self) -> Option<&'static str> {
        Some(match self {
            Self::Hub(SubscribeError::Full { .. }) => "limits.subscriptions",
            Self::Hub(SubscribeError::FilterTooLong { .. }) => "limits.topic_bytes",
            Self::SessionFull { .. } => "limits.session_subscriptions",
            Self::UserFull { .. } => "limits.user_subscriptions",
            Self::Hub(_)
            | Self::NotAllowed(_)
            | Self::SignInRequired
            | Self::InvalidFilter { .. }
            | Self::Shared(_)
            | Self::Closed => return None,
        })
    }

    /// The code that WebSocket clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotAllowed(_) => ErrorCode::NotAllowed,
            Self::SignInRequired => ErrorCode::Unauthorized,
            Self::Hub(SubscribeError::FilterTooLong { .. })
            | Self::InvalidFilter { .. }
            | Self::Shared(_) => ErrorCode::InvalidFilter,
            Self::Hub(_) | Self::SessionFull { .. } | Self::UserFull { .. } | Self::Closed => {
                ErrorCode::Full
            }
        }
    }
}

/// The rules do not allow this peer to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connecting is not allowed")]
pub struct ConnectRefused;
