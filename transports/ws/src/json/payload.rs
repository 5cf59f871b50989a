//! In which of its three keys a payload goes.

use core::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The standard alphabet with padding; what comes in may lack the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(crate) fn base64_bytes(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    BASE64.decode(text)
}

/// Appends `"payload":…`, `"text":…` or `"base64":…`.
pub(super) fn write_payload(out: &mut Vec<u8>, bytes: &[u8]) {
    match core::str::from_utf8(bytes) {
        Ok(text) if is_plain_json(text) => {
            out.extend_from_slice(b"\"payload\":");
            out.extend_from_slice(bytes);
        }
        Ok(text) => {
            out.extend_from_slice(b"\"text\":");
            write_text(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"\"base64\":\"");
            out.extend_from_slice(BASE64.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
}

/// A publish's `"payload":…`, `"text":…` or `"base64":…`, whichever is allowed and shorter.
pub(crate) fn payload_key(bytes: &[u8]) -> String {
    match core::str::from_utf8(bytes) {
        // The server takes white space around a value for the message's own.
        Ok(text) if text.trim_matches(SPACE) == text && is_plain_json(text) => {
            format!("\"payload\":{text}")
        }
        Ok(text) => {
            let quoted = quoted(text);
            let as_base64 = base64::encoded_len(bytes.len(), true);
            // A server takes no message much longer than its payload; a short text stays readable.
            if as_base64.is_some_and(|length| quoted.len() > 64.max(length + 2)) {
                format!("\"base64\":\"{}\"", BASE64.encode(bytes))
            } else {
                format!("\"text\":{quoted}")
            }
        }
        Err(_) => format!("\"base64\":\"{}\"", BASE64.encode(bytes)),
    }
}

/// The white space of JSON.
const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// A value of this frame of a server's with the white space around it, which was published with it: the server
/// writes none of its own.
pub(crate) fn with_space<'a>(frame: &'a str, value: &'a RawValue) -> &'a str {
    let value = value.get();
    let around = || {
        let begin = value.as_ptr().addr().checked_sub(frame.as_ptr().addr())?;
        let (before, rest) = frame.split_at_checked(begin)?;
        let after = rest.get(value.len()..)?;
        let begin = before.trim_end_matches(SPACE).len();
        let end = frame.len() - after.trim_start_matches(SPACE).len();
        frame.get(begin..end)
    };
    around().unwrap_or(value)
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    // Serialising a string cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

/// Appends a JSON string.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
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
        let mut out = Vec::new();
        write_payload(&mut out, bytes);
        String::from_utf8(out).unwrap()
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
