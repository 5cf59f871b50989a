use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a request was refused. The same codes go over the JSON subprotocol, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// `bad_message`: the message could not be understood.
    BadMessage,
    /// `invalid_topic`: the topic of a publish is not a topic name.
    InvalidTopic,
    /// `invalid_filter`: the filter of a subscription is not a topic filter.
    InvalidFilter,
    /// `too_large`: topic or payload exceed the [`Limits`](super::Limits).
    TooLarge,
    /// `not_allowed`: the topic is not this client's to write.
    NotAllowed,
    /// `rate_limited`: too many requests; try again later.
    RateLimited,
    /// `full`: a table of the server has no room.
    Full,
    /// `unauthorized`: the client has to sign in, or what it brought to do so was refused.
    Unauthorized,
}

impl ErrorCode {
    /// Every code, in the order of the wire.
    pub const ALL: [Self; 8] = [
        Self::BadMessage,
        Self::InvalidTopic,
        Self::InvalidFilter,
        Self::TooLarge,
        Self::NotAllowed,
        Self::RateLimited,
        Self::Full,
        Self::Unauthorized,
    ];

    /// The name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadMessage => "bad_message",
            Self::InvalidTopic => "invalid_topic",
            Self::InvalidFilter => "invalid_filter",
            Self::TooLarge => "too_large",
            Self::NotAllowed => "not_allowed",
            Self::RateLimited => "rate_limited",
            Self::Full => "full",
            Self::Unauthorized => "unauthorized",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorCode {
    type Err = UnknownErrorCode;

    fn from_str(name: &str) -> Result<Self, UnknownErrorCode> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == name)
            .ok_or(UnknownErrorCode)
    }
}

/// Not the name of an [`ErrorCode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unknown error code")]
pub struct UnknownErrorCode;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn names_are_the_same_everywhere() {
        for code in ErrorCode::ALL {
            assert_eq!(code.to_string().parse(), Ok(code));
            assert_eq!(
                serde_json::to_string(&code).unwrap(),
                std::format!("\"{code}\"")
            );
        }
        for name in ["", "Full", "full ", "bad message"] {
            assert_eq!(name.parse::<ErrorCode>(), Err(UnknownErrorCode));
        }
    }
}
