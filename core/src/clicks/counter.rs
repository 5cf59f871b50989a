use core::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::color::Color;
use super::json::{self, JsonError};
use super::{MAX_PAYLOAD_BYTES, varint};

/// The largest count of a colour, 2^53 − 1: the largest whole number that every JSON reader
/// represents exactly (RFC 8259 §6). Sums saturate here.
pub const MAX_COUNT: u64 = (1 << 53) - 1;

/// First byte of the postcard form.
const POSTCARD: u8 = 0x01;

/// Clicks of each colour, each at most [`MAX_COUNT`].
///
/// `Display` writes the JSON form, `{"red":12,"blue":7}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Counter {
    red: u64,
    blue: u64,
}

impl Counter {
    /// No clicks.
    pub const ZERO: Self = Self { red: 0, blue: 0 };

    /// The most bytes of the JSON form.
    pub const MAX_JSON_BYTES: usize = 48;

    /// The most bytes that [`Self::encode_postcard`] writes.
    pub const MAX_POSTCARD_BYTES: usize = 1 + 2 * varint::MAX_VARINT_BYTES;

    /// A counter with these counts, each saturated at [`MAX_COUNT`].
    #[must_use]
    pub const fn new(red: u64, blue: u64) -> Self {
        Self {
            red: saturated(red),
            blue: saturated(blue),
        }
    }

    /// Clicks on red.
    #[must_use]
    pub const fn red(self) -> u64 {
        self.red
    }

    /// Clicks on blue.
    #[must_use]
    pub const fn blue(self) -> u64 {
        self.blue
    }

    /// Clicks on this colour.
    #[must_use]
    pub const fn of(self, color: Color) -> u64 {
        match color {
            Color::Red => self.red,
            Color::Blue => self.blue,
        }
    }

    /// Clicks on both colours, saturated at [`MAX_COUNT`].
    #[must_use]
    pub const fn total(self) -> u64 {
        saturated(self.red + self.blue)
    }

    /// Whether no click was counted.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.red == 0 && self.blue == 0
    }

    /// The merge of two reports of the same incarnation: the larger count of each colour.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            red: self.red.max(other.red),
            blue: self.blue.max(other.blue),
        }
    }

    /// The sum of two counters that have no click in common, saturated.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self::new(self.red + other.red, self.blue + other.blue)
    }

    /// What was clicked between `earlier` and this; zero where `earlier` is the larger.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            red: self.red.saturating_sub(earlier.red),
            blue: self.blue.saturating_sub(earlier.blue),
        }
    }

    /// Counts `n` more clicks on `color`, saturated.
    pub const fn add(&mut self, color: Color, n: u64) {
        let count = match color {
            Color::Red => &mut self.red,
            Color::Blue => &mut self.blue,
        };
        *count = saturated(count.saturating_add(n));
    }

    /// Reads a count payload: JSON, or the postcard form. The first byte tells which.
    ///
    /// JSON is `{"red":12,"blue":7}`: both keys, in any order, with JSON's whitespace after the
    /// brace. The postcard form is the byte `0x01`, varint red, varint blue, nothing after, and each
    /// varint in its shortest form.
    ///
    /// # Errors
    /// Whatever is not exactly one of these two forms: see [`ReportError`].
    pub fn parse(payload: &[u8]) -> Result<Self, ReportError> {
        match payload {
            _ if payload.len() > MAX_PAYLOAD_BYTES => Err(ReportError::TooLong),
            [] => Err(ReportError::Empty),
            [b'{', ..] => Self::parse_json(payload),
            [POSTCARD, varints @ ..] => Self::parse_postcard(varints),
            _ => Err(ReportError::unknown_form(payload)),
        }
    }

    /// Writes the JSON form, `{"red":12,"blue":7}`.
    ///
    /// # Errors
    /// Only the writer's own, for example because it is full.
    pub fn write_json(&self, out: &mut impl fmt::Write) -> fmt::Result {
        write!(out, "{self}")
    }

    /// Writes the postcard form to the front of `out` and returns it. `None` if it does not fit;
    /// [`Self::MAX_POSTCARD_BYTES`] always do.
    #[must_use]
    pub fn encode_postcard<'b>(&self, out: &'b mut [u8]) -> Option<&'b [u8]> {
        let size = out.len();
        let mut slots = out.iter_mut();
        *slots.next()? = POSTCARD;
        varint::put(self.red, &mut slots)?;
        varint::put(self.blue, &mut slots)?;
        let written = size - slots.len();
        out.get(..written)
    }

    fn parse_json(payload: &[u8]) -> Result<Self, ReportError> {
        let (mut red, mut blue) = (None, None);
        json::object(payload, |key, value| {
            let count = match key {
                "red" => &mut red,
                "blue" => &mut blue,
                _ => return Err(JsonError::UnknownKey),
            };
            json::set(count, value.number()?)
        })?;
        let (Some(red), Some(blue)) = (red, blue) else {
            return Err(JsonError::MissingKey.into());
        };
        Self::checked(red, blue)
    }

    fn parse_postcard(varints: &[u8]) -> Result<Self, ReportError> {
        let (red, rest) = varint::take(varints)?;
        let (blue, rest) = varint::take(rest)?;
        if !rest.is_empty() {
            return Err(ReportError::Trailing);
        }
        Self::checked(red, blue)
    }

    pub(super) const fn checked(red: u64, blue: u64) -> Result<Self, ReportError> {
        if red > MAX_COUNT || blue > MAX_COUNT {
            return Err(ReportError::TooLarge);
        }
        Ok(Self { red, blue })
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"{{"red":{},"blue":{}}}"#, self.red, self.blue)
    }
}

/// Why a count or floor payload was refused. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReportError {
    /// No bytes. On a count topic that means "no information", never zero.
    #[error("empty payload")]
    Empty,
    /// More than [`MAX_PAYLOAD_BYTES`].
    #[error("payload of more than {MAX_PAYLOAD_BYTES} bytes")]
    TooLong,
    /// The first byte begins no form that this payload has.
    #[error("unknown form, expected JSON or byte 0x01")]
    UnknownForm,
    /// White space before JSON: the first byte tells the form.
    #[error("white space before `{{`: JSON begins with the first byte")]
    Space,
    /// Wrong JSON, or JSON of the wrong shape.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A number above its bound: [`MAX_COUNT`] for a count, `u32::MAX` for a floor.
    #[error("number out of range")]
    TooLarge,
    /// The postcard form ends within a number.
    #[error("truncated postcard form")]
    Truncated,
    /// A varint that is not in its shortest form, or longer than any count.
    #[error("overlong varint")]
    Varint,
    /// Bytes follow the postcard form.
    #[error("bytes after the postcard form")]
    Trailing,
}

impl ReportError {
    pub(super) fn unknown_form(payload: &[u8]) -> Self {
        if payload.trim_ascii_start().starts_with(b"{") {
            Self::Space
        } else {
            Self::UnknownForm
        }
    }
}

/// Stored or sent counts beyond [`MAX_COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("count above 2^53 - 1")]
pub struct CounterTooLarge;

#[derive(Deserialize)]
struct Unchecked {
    red: u64,
    blue: u64,
}

impl TryFrom<Unchecked> for Counter {
    type Error = CounterTooLarge;

    fn try_from(counts: Unchecked) -> Result<Self, CounterTooLarge> {
        Self::checked(counts.red, counts.blue).map_err(|_| CounterTooLarge)
    }
}

const fn saturated(count: u64) -> u64 {
    if count > MAX_COUNT { MAX_COUNT } else { count }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn both_forms_are_read() {
        let counter = Counter::new(12, 7);
        assert_eq!(Counter::parse(br#"{"red":12,"blue":7}"#), Ok(counter));
        assert_eq!(
            Counter::parse(b"{ \"blue\" : 7 ,\n\"red\":12 }\r\n"),
            Ok(counter)
        );
        assert_eq!(Counter::parse(&[1, 12, 7]), Ok(counter));
        assert_eq!(counter.to_string(), r#"{"red":12,"blue":7}"#);
    }

    #[test]
    fn the_largest_counter_has_both_forms() {
        let most = Counter::new(MAX_COUNT, MAX_COUNT);
        let mut out = [0; Counter::MAX_POSTCARD_BYTES];
        let bytes = most.encode_postcard(&mut out).unwrap();
        assert_eq!(bytes, {
            let mut golden = [0xff; 17];
            golden[0] = 1;
            golden[8] = 0x0f;
            golden[16] = 0x0f;
            golden
        });
        assert_eq!(Counter::parse(bytes), Ok(most));
        assert_eq!(most.to_string().len(), Counter::MAX_JSON_BYTES);
        assert_eq!(Counter::parse(most.to_string().as_bytes()), Ok(most));
    }

    #[test]
    fn a_buffer_too_small_is_none() {
        let counter = Counter::new(200, 3);
        let mut out = [0; 4];
        assert_eq!(
            counter.encode_postcard(&mut out),
            Some(&[1, 0xc8, 1, 3][..])
        );
        for size in 0..4 {
            assert_eq!(counter.encode_postcard(&mut out[..size]), None);
        }
    }

    #[test]
    fn what_is_neither_form_is_refused() {
        use ReportError::{
            Empty, Json, Space, TooLarge, TooLong, Trailing, Truncated, UnknownForm, Varint,
        };
        let spaced = |spaces: usize| {
            let mut payload = std::vec![b' '; spaces];
            payload.splice(0..0, *br#"{"red":1,"blue":2}"#);
            payload
        };
        assert_eq!(Counter::parse(&spaced(256 - 18)), Ok(Counter::new(1, 2)));
        assert_eq!(Counter::parse(&spaced(256 - 17)), Err(TooLong));
        for (payload, error) in [
            (&b""[..], Empty),
            (b"12", UnknownForm),
            (br#" {"red":12,"blue":7}"#, Space),
            (b"\r\n\t{", Space),
            (b"[12,7]", UnknownForm),
            (&[0, 12, 7], UnknownForm),
            (&[2, 12, 7], UnknownForm),
            (br#"{"red":1}"#, Json(JsonError::MissingKey)),
            (
                br#"{"red":1,"blue":2,"green":3}"#,
                Json(JsonError::UnknownKey),
            ),
            (
                br#"{"red":1,"blue":2,"red":1}"#,
                Json(JsonError::DuplicateKey),
            ),
            (br#"{"red":1,"blue":-2}"#, Json(JsonError::Number)),
            (br#"{"red":9007199254740992,"blue":2}"#, TooLarge),
            (br#"{"red":1,"blue":99999999999999999999}"#, TooLarge),
            (&[1], Truncated),
            (&[1, 12], Truncated),
            (&[1, 12, 0x87], Truncated),
            (&[1, 12, 7, 0], Trailing),
            (&[1, 0x8c, 0, 7], Varint),
            (&[1, 12, 0x80, 0x80, 0], Varint),
            // 2^53, and a number of more than eight groups.
            (
                &[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 0],
                TooLarge,
            ),
            (
                &[
                    1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0,
                ],
                Varint,
            ),
        ] {
            assert_eq!(
                Counter::parse(payload),
                Err(error),
                "{}",
                payload.escape_ascii()
            );
        }
    }

    #[test]
    fn sums_saturate() {
        let most = Counter::new(u64::MAX, MAX_COUNT - 1);
        assert_eq!(most, Counter::new(MAX_COUNT, MAX_COUNT - 1));
        assert_eq!(most.total(), MAX_COUNT);
        assert_eq!(
            most.saturating_add(Counter::new(1, 5)),
            Counter::new(MAX_COUNT, MAX_COUNT)
        );
        let mut counter = Counter::ZERO;
        counter.add(Color::Blue, 3);
        counter.add(Color::Red, u64::MAX);
        counter.add(Color::Red, u64::MAX);
        assert_eq!(counter, Counter::new(MAX_COUNT, 3));
        assert_eq!(
            Counter::new(5, 1).since(Counter::new(2, 3)),
            Counter::new(3, 0)
        );
    }

    #[test]
    fn stored_counts_are_checked() {
        let read = serde_json::from_str::<Counter>;
        assert_eq!(
            read(r#"{"red":9007199254740991,"blue":0}"#).unwrap().red(),
            MAX_COUNT
        );
        assert!(read(r#"{"red":9007199254740992,"blue":0}"#).is_err());
    }
}
