//! In which of its three keys a payload goes.

use core::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::display::Base64Display;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The standard alphabet with padding; what comes in may lack the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The form in which a payload goes out, each under a key of its own. The same three keys serve for publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadForm<'a> {
    /// `payload`: JSON that every reader of a frame can read ([`is_plain_json`]), as it was published.
    Json(&'a str),
    /// `text`: other UTF-8.
    Text(&'a str),
    /// `base64`: anything else.
    Bytes(&'a [u8]),
}

impl<'a> PayloadForm<'a> {
    /// The form of this payload.
    pub fn of(payload: &'a [u8]) -> Self {
        match core::str::from_utf8(payload) {
            Ok(text) if is_plain_json(text) => Self::Json(text),
            Ok(text) => Self::Text(text),
            Err(_) => Self::Bytes(payload),
        }
    }

    /// The form of this payload where its reader takes white space around a value for the message's own, as servers
    /// do with what is published.
    pub fn unspaced(payload: &'a [u8]) -> Self {
        match Self::of(payload) {
            Self::Json(text) if text.trim_matches(SPACE) != text => Self::Text(text),
            form => form,
        }
    }

    /// The form of this payload in a file of one message a line.
    pub fn in_a_line(payload: &'a [u8]) -> Self {
        match Self::unspaced(payload) {
            Self::Json(text) if text.contains(['\n', '\r']) => Self::Text(text),
            form => form,
        }
    }

    /// The form of least bytes: a server takes no message much longer than its payload. A short text stays readable.
    #[must_use]
    pub fn shortest(self) -> Self {
        match self {
            Self::Text(text) => {
                let as_base64 = base64::encoded_len(text.len(), true);
                let longer =
                    as_base64.is_some_and(|length| quoted(text).len() > 64.max(length + 2));
                match longer {
                    true => Self::Bytes(text.as_bytes()),
                    false => self,
                }
            }
            form => form,
        }
    }
}

/// As a member of an object: `"payload":…`, `"text":…` or `"base64":…`.
impl fmt::Display for PayloadForm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Json(text) => {
                f.write_str("\"payload\":")?;
                f.write_str(text)
            }
            Self::Text(text) => write!(f, r#""text":{}"#, quoted(text)),
            Self::Bytes(bytes) => write!(f, r#""base64":"{}""#, Base64Display::new(bytes, &BASE64)),
        }
    }
}

/// Why the three keys do not hold a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// None of them is there, or more than one.
    #[error("not exactly one of payload, text and base64")]
    NotOne,
    /// `base64` is something else.
    #[error(transparent)]
    Base64(#[from] base64::DecodeError),
}

/// The payload that stands under one of the three keys, `payload` as the JSON text of its value.
///
/// # Errors
/// [`PayloadError`].
pub fn payload_bytes(
    payload: Option<&str>,
    text: Option<impl Into<String>>,
    base64: Option<&str>,
) -> Result<Bytes, PayloadError> {
    match (payload, text, base64) {
        (Some(json), None, None) => Ok(Bytes::copy_from_slice(json.as_bytes())),
        (None, Some(text), None) => Ok(text.into().into()),
        (None, None, Some(encoded)) => Ok(base64_bytes(encoded)?.into()),
        _ => Err(PayloadError::NotOne),
    }
}

/// The standard alphabet, padded.
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// The bytes of base64, whose padding may be missing.
///
/// # Errors
/// Where the text is something else.
pub fn base64_bytes(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    BASE64.decode(text)
}

/// The white space of JSON (RFC 8259 §2).
pub const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// A JSON string.
pub fn quoted(text: &str) -> String {
    // Serialising a string cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

/// Appends a JSON string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    // Writing to a vector and serialising a string both cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// The deepest payload that goes out as JSON. With the frame around it that makes 64, which is where the
/// strictest of the usual parsers stops by default (.NET's `System.Text.Json`).
const MAX_DEPTH: u8 = 63;

/// Whether every reader of a frame can read this in it: one publisher must not break the frames of all
/// subscribers. So it is stricter than the grammar: no number beyond a double, no half of a surrogate
/// pair, no nesting beyond 63 levels.
pub fn is_plain_json(text: &str) -> bool {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Value { depth: MAX_DEPTH };
    value.deserialize(&mut deserializer).is_ok() && deserializer.end().is_ok()
}

/// Reads a value and keeps nothing of it.
#[derive(Clone, Copy)]
struct Value {
    /// How many levels may follow.
    depth: u8,
}

impl Value {
    fn inner<E: Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while map.next_entry_seed(inner, inner)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(bytes: &[u8]) -> String {
        PayloadForm::of(bytes).to_string()
    }

    #[test]
    fn json_goes_raw() {
        for json in [
            "null",
            "-0.50",
            "\"\\u00e9\"",
            "{\"b\":1, \"a\":[true,false,[]]}",
            " {\n\"a\" : 1}\r\n",
            "{\"a\":1,\"a\":2}",
        ] {
            assert_eq!(written(json.as_bytes()), format!("\"payload\":{json}"));
        }
    }

    #[test]
    fn other_text_goes_as_text() {
        for (text, escaped) in [
            ("", ""),
            ("red", "red"),
            ("{", "{"),
            ("1 2", "1 2"),
            ("\u{feff}1", "\u{feff}1"),
            ("NaN", "NaN"),
            ("1e999", "1e999"),
            ("\"\\ud800\"", "\\\"\\\\ud800\\\""),
            ("say \"x\"\n", "say \\\"x\\\"\\n"),
        ] {
            assert_eq!(written(text.as_bytes()), format!("\"text\":\"{escaped}\""));
        }
    }

    #[test]
    fn other_bytes_go_as_base64() {
        assert_eq!(written(b"\xff\xfe"), "\"base64\":\"//4=\"");
        // Valid but for its bytes.
        assert_eq!(written(b"\"\xff\""), "\"base64\":\"Iv8i\"");
        assert_eq!(base64_bytes("//4=").unwrap(), b"\xff\xfe");
        assert_eq!(base64_bytes("//4").unwrap(), b"\xff\xfe");
        assert!(base64_bytes("_-4=").is_err());
    }

    #[test]
    fn where_white_space_is_the_messages_own() {
        use PayloadForm::{Bytes, Json, Text};
        for (payload, of, unspaced, in_a_line) in [
            ("1", Json("1"), Json("1"), Json("1")),
            (" 1", Json(" 1"), Text(" 1"), Text(" 1")),
            ("1\n", Json("1\n"), Text("1\n"), Text("1\n")),
            ("[\n]", Json("[\n]"), Json("[\n]"), Text("[\n]")),
            ("[\r]", Json("[\r]"), Json("[\r]"), Text("[\r]")),
            ("[\t]", Json("[\t]"), Json("[\t]"), Json("[\t]")),
            ("x", Text("x"), Text("x"), Text("x")),
        ] {
            let payload = payload.as_bytes();
            assert_eq!(PayloadForm::of(payload), of);
            assert_eq!(PayloadForm::unspaced(payload), unspaced);
            assert_eq!(PayloadForm::in_a_line(payload), in_a_line);
        }
        let controls = "\u{1}".repeat(30);
        let shortest = |text: &'static str| PayloadForm::of(text.as_bytes()).shortest();
        assert_eq!(shortest("\u{1}"), Text("\u{1}"));
        assert_eq!(
            shortest(controls.clone().leak()),
            Bytes(controls.as_bytes())
        );
    }

    #[test]
    fn a_payload_stands_under_one_key() {
        let none = None::<&str>;
        assert_eq!(payload_bytes(Some("1"), none, None).unwrap(), "1");
        assert_eq!(payload_bytes(None, Some("1"), None).unwrap(), "1");
        assert_eq!(payload_bytes(None, none, Some("MQ==")).unwrap(), "1");
        for keys in [
            payload_bytes(None, none, None),
            payload_bytes(Some("1"), Some("1"), None),
            payload_bytes(Some("1"), none, Some("MQ==")),
            payload_bytes(None, Some("1"), Some("MQ==")),
            payload_bytes(Some("1"), Some("1"), Some("MQ==")),
        ] {
            assert_eq!(keys, Err(PayloadError::NotOne));
        }
        let broken = payload_bytes(None, none, Some("*"));
        assert!(matches!(broken, Err(PayloadError::Base64(_))));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_plain_json(&nested(63)));
        assert!(!is_plain_json(&nested(64)));
        assert!(!is_plain_json(&"{\"a\":".repeat(100_000)));
    }

    proptest! {
        #[test]
        fn every_payload_is_readable_in_a_frame(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let frame = format!("{{{}}}", written(&bytes));
            let value: serde_json::Value = serde_json::from_str(&frame).unwrap();
            if let Some(text) = value.get("text") {
                prop_assert_eq!(text.as_str().unwrap().as_bytes(), &bytes[..]);
            } else if let Some(encoded) = value.get("base64") {
                prop_assert_eq!(base64_bytes(encoded.as_str().unwrap()).unwrap(), bytes);
            } else {
                prop_assert_eq!(&value["payload"], &serde_json::from_slice::<serde_json::Value>(&bytes).unwrap());
            }
        }

        #[test]
        fn jsonlike_text_is_readable_in_a_frame(text in "[\\[\\]{}:,0-9eE+.\"\\\\u\\-d8a tfn]{0,12}") {
            let frame = format!("{{{}}}", written(text.as_bytes()));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&frame).is_ok());
        }
    }
}
