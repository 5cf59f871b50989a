use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One of the two buttons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// Written `red`.
    Red,
    /// Written `blue`.
    Blue,
}

impl Color {
    /// Both, red first as in every payload.
    pub const ALL: [Self; 2] = [Self::Red, Self::Blue];

    /// The name in payloads: `red` or `blue`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Blue => "blue",
        }
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Color {
    type Err = UnknownColor;

    fn from_str(name: &str) -> Result<Self, UnknownColor> {
        match name {
            "red" => Ok(Self::Red),
            "blue" => Ok(Self::Blue),
            _ => Err(UnknownColor),
        }
    }
}

/// The name is neither `red` nor `blue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unknown colour, expected red or blue")]
pub struct UnknownColor;
