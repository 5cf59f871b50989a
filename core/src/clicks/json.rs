//! The subset of JSON that click payloads use: one flat object of whole numbers and plain strings.
//!
//! A general parser would accept what the click model refuses (fractions, duplicate keys) and would
//! need a heap for strings with escapes.

use thiserror::Error;

/// Why a JSON payload was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// Not one flat JSON object (RFC 8259), or cut off.
    #[error("not a flat JSON object")]
    Syntax,
    /// Bytes follow the object.
    #[error("bytes after the JSON object")]
    Trailing,
    /// A key that this payload does not have, with those that it has.
    #[error("unknown key, expected {0}")]
    UnknownKey(&'static str),
    /// The same key twice.
    #[error("duplicate key")]
    DuplicateKey,
    /// A key that this payload must have is not there.
    #[error("missing key: {0}")]
    MissingKey(&'static str),
    /// Anything but a whole number in plain digits: a sign, a fraction, an exponent, a leading
    /// zero, or no number at all.
    #[error("not a whole number in plain digits")]
    Number,
    /// A string with a backslash. Strings here are borrowed from the payload, so none is unescaped.
    #[error("escapes in strings are not supported")]
    Escape,
    /// A string that is not UTF-8 or has a control character in it, or no string at all.
    #[error("not a plain string")]
    String,
}

/// Reads exactly one object and calls `member` for each key, with the scanner before its value.
pub(super) fn object<'a, E: From<JsonError>>(
    bytes: &'a [u8],
    mut member: impl FnMut(&'a str, &mut Scanner<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut scanner = Scanner { rest: bytes };
    scanner.symbol(b'{')?;
    if !scanner.accept(b'}') {
        loop {
            let key = scanner.string()?;
            scanner.symbol(b':')?;
            member(key, &mut scanner)?;
            if !scanner.accept(b',') {
                break;
            }
        }
        scanner.symbol(b'}')?;
    }
    scanner.skip_whitespace();
    if scanner.rest.is_empty() {
        Ok(())
    } else {
        Err(JsonError::Trailing.into())
    }
}

/// Puts a member's value in its place.
pub(super) fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), JsonError> {
    if slot.replace(value).is_some() {
        return Err(JsonError::DuplicateKey);
    }
    Ok(())
}

/// A cursor over the bytes of a payload.
pub(super) struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    /// A whole number. One too large for a `u64` comes back as `u64::MAX`, which every caller's
    /// bound refuses.
    pub(super) fn number(&mut self) -> Result<u64, JsonError> {
        self.skip_whitespace();
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = self
            .rest
            .split_at_checked(digits)
            .ok_or(JsonError::Number)?;
        // A value ends at whitespace, a comma or the brace; whatever else follows the digits was
        // meant to be part of the number.
        let ended = rest.first().is_none_or(|b| b" \t\r\n,}".contains(b));
        self.rest = rest;
        if !ended {
            return Err(JsonError::Number);
        }
        whole(number).ok_or(JsonError::Number)
    }

    /// A string without escapes.
    pub(super) fn string(&mut self) -> Result<&'a str, JsonError> {
        if !self.accept(b'"') {
            // A value of another kind is no string; a missing key is no object.
            return Err(match self.rest.first() {
                None | Some(b'}' | b',' | b':') => JsonError::Syntax,
                Some(_) => JsonError::String,
            });
        }
        let end = self
            .rest
            .iter()
            .position(|b| *b == b'"' || *b == b'\\' || *b < b' ')
            .ok_or(JsonError::Syntax)?;
        let (text, rest) = self.rest.split_at_checked(end).ok_or(JsonError::Syntax)?;
        match rest.split_first() {
            Some((b'"', rest)) => self.rest = rest,
            Some((b'\\', _)) => return Err(JsonError::Escape),
            _ => return Err(JsonError::String),
        }
        core::str::from_utf8(text).map_err(|_| JsonError::String)
    }

    fn symbol(&mut self, expected: u8) -> Result<(), JsonError> {
        if self.accept(expected) {
            Ok(())
        } else {
            Err(JsonError::Syntax)
        }
    }

    fn accept(&mut self, expected: u8) -> bool {
        self.skip_whitespace();
        match self.rest.split_first() {
            Some((first, rest)) if *first == expected => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn skip_whitespace(&mut self) {
        while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }
}

/// Plain digits without a leading zero; saturates at `u64::MAX`.
pub(super) fn whole(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || (digits.len() > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        digit.is_ascii_digit().then(|| {
            value
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(bytes: &[u8]) -> Result<Option<u64>, JsonError> {
        let mut n = None;
        object(bytes, |key, scanner| match key {
            "n" => set(&mut n, scanner.number()?),
            _ => Err(JsonError::UnknownKey("n")),
        })?;
        Ok(n)
    }

    #[test]
    fn numbers_are_plain_whole_and_bounded() {
        assert_eq!(one(br#"{"n":0}"#), Ok(Some(0)));
        assert_eq!(
            one(b" {\t\"n\" :\r 18446744073709551615\n} "),
            Ok(Some(u64::MAX))
        );
        assert_eq!(one(br#"{"n":99999999999999999999999}"#), Ok(Some(u64::MAX)));
        for wrong in [
            &br#"{"n":-1}"#[..],
            br#"{"n":+1}"#,
            br#"{"n":1.0}"#,
            br#"{"n":1e3}"#,
            br#"{"n":01}"#,
            br#"{"n":00}"#,
            br#"{"n":"1"}"#,
            br#"{"n":null}"#,
            br#"{"n":[1]}"#,
            br#"{"n":}"#,
        ] {
            assert_eq!(
                one(wrong),
                Err(JsonError::Number),
                "{}",
                wrong.escape_ascii()
            );
        }
    }

    #[test]
    fn objects_are_flat_and_whole() {
        assert_eq!(one(b"{}"), Ok(None));
        assert_eq!(one(br#"{"n":1,"n":1}"#), Err(JsonError::DuplicateKey));
        assert_eq!(one(br#"{"m":1}"#), Err(JsonError::UnknownKey("n")));
        assert_eq!(one(br#"{"n":1}{"n":1}"#), Err(JsonError::Trailing));
        assert_eq!(one(br#"{"\u006e":1}"#), Err(JsonError::Escape));
        assert_eq!(one(b"{\"n\n\":1}"), Err(JsonError::String));
        assert_eq!(one(b"{\"\xff\":1}"), Err(JsonError::String));
        assert_eq!(one(b"{n:1}"), Err(JsonError::String));
        for wrong in [
            &b""[..],
            b"{",
            b"[]",
            b"1",
            br#"{"n""#,
            br#"{"n":1"#,
            br#"{"n":1,"#,
            br#"{"n":1,}"#,
            br#"{,"n":1}"#,
            br#"{"n" 1}"#,
            br#"{"n":1 "n":1}"#,
        ] {
            assert_eq!(
                one(wrong),
                Err(JsonError::Syntax),
                "{}",
                wrong.escape_ascii()
            );
        }
    }
}
