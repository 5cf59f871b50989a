use core::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::color::{Color, members_bytes, write_members};
use super::json::{self, JsonError, Scanner};
use super::{MAX_PAYLOAD_BYTES, varint};

/// The largest count of a colour, 2^53 − 1: the largest whole number that every JSON reader
/// represents exactly (RFC 8259 §6). Sums saturate here.
pub const MAX_COUNT: u64 = (1 << 53) - 1;

/// The digits of [`MAX_COUNT`].
const MAX_DIGITS: usize = MAX_COUNT.ilog10() as usize + 1;

/// First byte of the postcard form.
const POSTCARD: u8 = 0x01;

/// Clicks of each colour, each at most [`MAX_COUNT`].
///
/// `Display` writes the JSON form, `{"red":12,"blue":7}`. So does serde where people read the format, and takes nothing
/// else; in other formats a counter is its counts in the order of [`Color::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counter {
    /// By the number of the colour.
    counts: [u64; Color::COUNT],
}

impl Counter {
    /// No clicks.
    pub const ZERO: Self = Self {
        counts: [0; Color::COUNT],
    };

    /// The most bytes of the JSON form.
    pub const MAX_JSON_BYTES: usize = 2 + members_bytes(MAX_DIGITS);

    /// The most bytes that [`Self::encode_postcard`] writes.
    pub const MAX_POSTCARD_BYTES: usize = 1 + Color::COUNT * varint::MAX_VARINT_BYTES;

    /// A counter with these counts, each saturated at [`MAX_COUNT`], and none of other colours.
    #[must_use]
    pub const fn new(red: u64, blue: u64) -> Self {
        let mut counter = Self::ZERO;
        counter.add(Color::Red, red);
        counter.add(Color::Blue, blue);
        counter
    }

    /// A counter with these counts, in the order of [`Color::ALL`].
    ///
    /// # Errors
    /// When one is above [`MAX_COUNT`].
    pub fn from_counts(counts: [u64; Color::COUNT]) -> Result<Self, CounterTooLarge> {
        match counts.iter().all(|count| *count <= MAX_COUNT) {
            true => Ok(Self { counts }),
            false => Err(CounterTooLarge),
        }
    }

    /// The counts in the order of [`Color::ALL`].
    #[must_use]
    pub const fn counts(self) -> [u64; Color::COUNT] {
        self.counts
    }

    /// Clicks on red.
    #[must_use]
    pub const fn red(self) -> u64 {
        self.of(Color::Red)
    }

    /// Clicks on blue.
    #[must_use]
    pub const fn blue(self) -> u64 {
        self.of(Color::Blue)
    }

    /// Clicks on this colour.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "the number of a colour is below their count"
    )]
    pub const fn of(self, color: Color) -> u64 {
        self.counts[color as usize]
    }

    /// Clicks on all colours, saturated at [`MAX_COUNT`].
    #[must_use]
    pub fn total(self) -> u64 {
        // Some thousand colours would fit.
        saturated(self.counts.iter().sum())
    }

    /// Whether no click was counted.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// Whether this has at least the clicks of `other`, of each colour.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.join(other) == self
    }

    /// The merge of two reports of the same incarnation: the larger count of each colour.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        self.with(other, u64::max)
    }

    /// The sum of two counters that have no click in common, saturated.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        self.with(other, |ours, theirs| saturated(ours + theirs))
    }

    /// What was clicked between `earlier` and this; zero where `earlier` is the larger.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }

    /// Counts `n` more clicks on `color`, saturated.
    #[expect(
        clippy::indexing_slicing,
        reason = "the number of a colour is below their count"
    )]
    pub const fn add(&mut self, color: Color, n: u64) {
        let count = &mut self.counts[color as usize];
        *count = saturated(count.saturating_add(n));
    }

    fn with(mut self, other: Self, each: impl Fn(u64, u64) -> u64) -> Self {
        for (ours, theirs) in self.counts.iter_mut().zip(other.counts) {
            *ours = each(*ours, theirs);
        }
        self
    }

    /// Reads a count payload: JSON, or the postcard form. The first byte tells which.
    ///
    /// JSON is `{"red":12,"blue":7}`: the keys of all colours, in any order, with JSON's whitespace after the
    /// brace. The postcard form is the byte `0x01`, a varint for each colour in the order
    /// of [`Color::ALL`], nothing after, and each varint in its shortest form.
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
        for count in self.counts {
            varint::put(count, &mut slots)?;
        }
        let written = size - slots.len();
        out.get(..written)
    }

    fn parse_json(payload: &[u8]) -> Result<Self, ReportError> {
        let mut counts = PartialCounts::default();
        json::object(payload, |key, value| counts.read(key, value))?;
        Ok(Self::from_counts(counts.all()?)?)
    }

    fn parse_postcard(varints: &[u8]) -> Result<Self, ReportError> {
        let mut counter = Self::ZERO;
        let mut rest = varints;
        for count in &mut counter.counts {
            (*count, rest) = varint::take(rest)?;
        }
        if !rest.is_empty() {
            return Err(ReportError::Trailing);
        }
        Ok(counter)
    }
}

/// The counts of a JSON object of which some members were read.
#[derive(Default)]
pub(super) struct PartialCounts {
    counts: [u64; Color::COUNT],
    read: [bool; Color::COUNT],
}

impl PartialCounts {
    /// Reads the member of a colour.
    pub(super) fn read(&mut self, key: &str, value: &mut Scanner<'_>) -> Result<(), JsonError> {
        let color = Color::named(key.as_bytes()).ok_or(JsonError::UnknownKey("red or blue"))?;
        self.set(color, value.number()?)
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the number of a colour is below their count"
    )]
    fn set(&mut self, color: Color, count: u64) -> Result<(), JsonError> {
        self.counts[color as usize] = count;
        match core::mem::replace(&mut self.read[color as usize], true) {
            true => Err(JsonError::DuplicateKey),
            false => Ok(()),
        }
    }

    /// The counts, if there was a member for each colour.
    pub(super) fn all(self) -> Result<[u64; Color::COUNT], JsonError> {
        match self.read == [true; Color::COUNT] {
            true => Ok(self.counts),
            false => Err(JsonError::MissingKey("red and blue are needed")),
        }
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        write_members(f, |color| self.of(color))?;
        f.write_str("}")
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_map(Color::ALL.map(|color| (color, self.of(color))))
        } else {
            self.counts.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Counter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_map(Members)
        } else {
            let counts = <[u64; Color::COUNT]>::deserialize(deserializer)?;
            Self::from_counts(counts).map_err(D::Error::custom)
        }
    }
}

/// Reads the counts of all colours, each once, and nothing else.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Counter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the count of each colour")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counter, A::Error> {
        let mut counts = PartialCounts::default();
        while let Some((color, count)) = map.next_entry()? {
            counts.set(color, count).map_err(A::Error::custom)?;
        }
        let counts = counts.all().map_err(A::Error::custom)?;
        Counter::from_counts(counts).map_err(A::Error::custom)
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

impl From<CounterTooLarge> for ReportError {
    fn from(_: CounterTooLarge) -> Self {
        Self::TooLarge
    }
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

    /// A rule that forgets a colour is found with any list of colours.
    #[test]
    fn every_color_counts() {
        for color in Color::ALL {
            let mut one = Counter::ZERO;
            assert!(one.is_zero());
            one.add(color, 3);
            assert!(!one.is_zero() && one.covers(Counter::ZERO) && !Counter::ZERO.covers(one));
            assert_eq!((one.of(color), one.total()), (3, 3));
            assert_eq!(one.join(Counter::ZERO), one);
            assert_eq!(one.saturating_add(one).of(color), 6);
            assert_eq!(one.since(Counter::ZERO), one);
            assert_eq!(Counter::parse(one.to_string().as_bytes()), Ok(one));
            let mut out = [0; Counter::MAX_POSTCARD_BYTES];
            assert_eq!(
                Counter::parse(one.encode_postcard(&mut out).unwrap()),
                Ok(one)
            );
        }
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
            (
                br#"{"red":1}"#,
                Json(JsonError::MissingKey("red and blue are needed")),
            ),
            (
                br#"{"red":1,"blue":2,"green":3}"#,
                Json(JsonError::UnknownKey("red or blue")),
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
