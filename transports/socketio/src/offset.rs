//! Where a client stands in a namespace: the cursor that ends each event, with which it comes back after a cut.
//!
//! `<epoch>:<revision>` holds for each subscription of the namespace; `;<key>:<revision>` behind it names one that stands
//! elsewhere, because its snapshot is not complete or because it is paced. `;g` at the end: the client has subscriptions of its own,
//! and who does not know them any more cannot bring it what it missed.

use core::fmt;
use core::str::FromStr;

use latchbus_core::hub::Cursor;

/// The most subscriptions that an offset names.
pub(crate) const MAX_NAMED: usize = 8;

/// A place in the order of a hub, for each subscription of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offset {
    pub(crate) base: Cursor,
    /// Key and revision of those that stand elsewhere; at most [`MAX_NAMED`].
    pub(crate) others: Vec<(u64, u64)>,
    /// Whether the client has subscriptions of its own.
    pub(crate) general: bool,
}

/// The text is no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an offset is a cursor, and perhaps others behind it")]
pub(crate) struct OffsetError;

impl Offset {
    /// Whether the subscription of this key stands elsewhere than the others.
    pub(crate) fn names(&self, key: u64) -> bool {
        self.others.iter().any(|(other, _)| *other == key)
    }

    /// Where the subscription of this key goes on.
    pub(crate) fn of(&self, key: u64) -> Cursor {
        let other = self.others.iter().find(|(other, _)| *other == key);
        Cursor {
            rev: other.map_or(self.base.rev, |(_, rev)| *rev),
            ..self.base
        }
    }

    /// The newest of all.
    pub(crate) fn newest(&self) -> Cursor {
        let others = self.others.iter().map(|(_, rev)| *rev);
        Cursor {
            rev: others.fold(self.base.rev, u64::max),
            ..self.base
        }
    }

    /// The oldest of all: from here on nothing is missing, whatever the subscription.
    pub(crate) fn oldest(&self) -> Cursor {
        let others = self.others.iter().map(|(_, rev)| *rev);
        Cursor {
            rev: others.fold(self.base.rev, u64::min),
            ..self.base
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base)?;
        self.others
            .iter()
            .try_for_each(|(key, rev)| write!(f, ";{key}:{rev}"))?;
        f.write_str(if self.general { ";g" } else { "" })
    }
}

impl FromStr for Offset {
    type Err = OffsetError;

    fn from_str(text: &str) -> Result<Self, OffsetError> {
        let (text, general) = match text.strip_suffix(";g") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let mut parts = text.split(';');
        let base = parts.next().unwrap_or_default();
        let base = base.parse().map_err(|_| OffsetError)?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        let mut others = Vec::new();
        for part in parts {
            let (key, rev) = part.split_once(':').ok_or(OffsetError)?;
            let other = number(key).zip(number(rev)).ok_or(OffsetError)?;
            if others.len() == MAX_NAMED {
                return Err(OffsetError);
            }
            others.push(other);
        }
        Ok(Self {
            base,
            others,
            general,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_place_or_several() {
        let offset: Offset = "9f3c:1042;3:7;18446744073709551615:0".parse().unwrap();
        let at = |rev| Cursor { epoch: 0x9f3c, rev };
        assert_eq!(offset.of(1), at(1042));
        assert_eq!(offset.of(3), at(7));
        assert_eq!(offset.oldest(), at(0));
        assert_eq!("9f3c:1042".parse::<Offset>().unwrap().oldest(), at(1042));
    }

    #[test]
    fn what_is_no_offset() {
        let many = format!("1:1{}", ";1:1".repeat(MAX_NAMED + 1));
        for text in [
            "", "hello", "1:1;", "1:1;1", "1:1;a:1", "1:1;1:+1", "1:1;:1", "1:1;g;g", "g", &many,
        ] {
            assert_eq!(text.parse::<Offset>(), Err(OffsetError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(epoch: u64, rev: u64, others in proptest::collection::vec(any::<(u64, u64)>(), 0..=MAX_NAMED), general: bool) {
            let offset = Offset { base: Cursor { epoch, rev }, others, general };
            prop_assert_eq!(offset.to_string().parse(), Ok(offset));
        }
    }
}
