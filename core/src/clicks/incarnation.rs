use core::fmt;
use core::num::NonZeroU32;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::json::whole;

/// One run of one device, from boot to boot. Written `<boot>-<nonce>`, for example `3-0badcafe`.
///
/// Ordered by boot, then by nonce. The nonce is random at each boot and keeps apart two runs that
/// believe to be the same boot: clones of a device, or one that read a stale boot number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    boot: NonZeroU32,
    nonce: u32,
}

impl Incarnation {
    /// The most bytes of the written form.
    pub const MAX_BYTES: usize = 10 + 1 + NONCE_DIGITS;

    /// The run of this boot and nonce. `None` for boot 0: boots count from 1.
    #[must_use]
    pub const fn new(boot: u32, nonce: u32) -> Option<Self> {
        match NonZeroU32::new(boot) {
            Some(boot) => Some(Self { boot, nonce }),
            None => None,
        }
    }

    /// The number of this boot, from 1.
    #[must_use]
    pub const fn boot(self) -> u32 {
        self.boot.get()
    }

    /// What the device drew at random when it booted.
    #[must_use]
    pub const fn nonce(self) -> u32 {
        self.nonce
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.boot, self.nonce)
    }
}

impl FromStr for Incarnation {
    type Err = InvalidIncarnation;

    /// Reads the one written form: a decimal boot from 1 without leading zeros or sign, and a nonce
    /// of exactly eight lower-case hex digits. Another spelling would be another topic.
    fn from_str(text: &str) -> Result<Self, InvalidIncarnation> {
        let (boot, nonce) = text.split_once('-').ok_or(InvalidIncarnation)?;
        let boot = whole(boot.as_bytes())
            .and_then(|boot| u32::try_from(boot).ok())
            .ok_or(InvalidIncarnation)?;
        let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if nonce.len() != NONCE_DIGITS || !nonce.bytes().all(lower_hex) {
            return Err(InvalidIncarnation);
        }
        let nonce = u32::from_str_radix(nonce, 16).map_err(|_| InvalidIncarnation)?;
        Self::new(boot, nonce).ok_or(InvalidIncarnation)
    }
}

/// Not `<boot>-<nonce>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a boot from 1, a hyphen and eight lower-case hex digits")]
pub struct InvalidIncarnation;

const NONCE_DIGITS: usize = 8;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn the_written_form_is_the_only_one() {
        for text in ["1-00000000", "3-0badcafe", "4294967295-ffffffff"] {
            assert_eq!(text.parse::<Incarnation>().unwrap().to_string(), text);
            assert!(text.len() <= Incarnation::MAX_BYTES);
        }
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-0badcafe",
            "0-0badcafe",
            "01-0badcafe",
            "+1-0badcafe",
            "-1-0badcafe",
            "1-badcafe",
            "1-00badcafe",
            "1-0BADCAFE",
            "1-+badcafe",
            "1-0badcaf\u{e9}",
            "1--badcafe",
            "4294967296-0badcafe",
            "99999999999999999999999-0badcafe",
            "1-0badcafe ",
        ] {
            assert_eq!(
                text.parse::<Incarnation>(),
                Err(InvalidIncarnation),
                "{text}"
            );
        }
    }

    #[test]
    fn order_is_boot_then_nonce() {
        let new = |boot, nonce| Incarnation::new(boot, nonce).unwrap();
        assert!(new(2, 0) > new(1, u32::MAX));
        assert!(new(10, 0) > new(9, 0));
        assert!(new(1, 1) > new(1, 0));
    }
}
