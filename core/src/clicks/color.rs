use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Everything that depends on which colours there are follows from this one list: counters and their forms, floors,
/// shares, rates, presses, state files and backups. Only what shows the colours to people has to learn a further one.
macro_rules! colors {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// One of the buttons.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Color {
            $($(#[$doc])* #[serde(rename = $text)] $name,)+
        }

        impl Color {
            /// All of them, in the order of every payload.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$name),+];

            /// The name in payloads.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

colors! {
    /// Written `red`.
    Red = "red",
    /// Written `blue`.
    Blue = "blue",
}

impl Color {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The names for people, `red or blue`.
    pub const NAMES: ColorNames = ColorNames(());
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Color {
    type Err = UnknownColor;

    fn from_str(name: &str) -> Result<Self, UnknownColor> {
        Self::named(name.as_bytes()).ok_or(UnknownColor)
    }
}

impl Color {
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|color| color.as_str().as_bytes() == name)
    }
}

/// The names of all colours for people: see [`Color::NAMES`].
#[derive(Clone, Copy, Debug)]
pub struct ColorNames(());

impl fmt::Display for ColorNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, color) in Color::ALL.into_iter().enumerate() {
            let between = match n {
                0 => "",
                _ if n + 1 == Color::COUNT => " or ",
                _ => ", ",
            };
            f.write_str(between)?;
            f.write_str(color.as_str())?;
        }
        Ok(())
    }
}

/// Writes something of each colour as members of a JSON object, `"red":12,"blue":7`.
pub(super) fn write_members<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    value: impl Fn(Color) -> T,
) -> fmt::Result {
    for (n, color) in Color::ALL.into_iter().enumerate() {
        let between = if n == 0 { "" } else { "," };
        write!(f, r#"{between}"{color}":{}"#, value(color))?;
    }
    Ok(())
}

/// The most bytes of [`write_members`], where no value is longer than `value_bytes`.
pub(super) const fn members_bytes(value_bytes: usize) -> usize {
    let mut bytes = 0;
    let mut colors = Color::ALL.as_slice();
    while let [color, rest @ ..] = colors {
        // Two quotes, a colon and a comma, which the last one lacks.
        bytes += color.as_str().len() + 4 + value_bytes;
        colors = rest;
    }
    bytes - 1
}

/// The name of no colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unknown colour, expected {}", Color::NAMES)]
pub struct UnknownColor;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn every_color_has_its_place_and_its_name() {
        for (n, color) in Color::ALL.into_iter().enumerate() {
            assert_eq!(color as usize, n);
            assert_eq!(color.as_str().parse(), Ok(color));
        }
        assert_eq!("Red".parse::<Color>(), Err(UnknownColor));
        assert_eq!(
            UnknownColor.to_string(),
            "unknown colour, expected red or blue"
        );
    }
}
