use thiserror::Error;

use super::MAX_PAYLOAD_BYTES;
use super::color::Color;
use super::json::{self, JsonError, whole};

/// The most clicks that one press may stand for. A counter saturates at 2^53 − 1 and never goes
/// down again, so without this bound one mistaken message would spoil a room for good; with it, that
/// takes nine billion messages. No button that is pressed by hand comes near it.
pub const MAX_PRESS: u64 = 1_000_000;

/// The longest id of a press, in bytes.
pub const MAX_ID_BYTES: usize = 64;

/// Clicks of a publisher that has no counter of its own; the hub counts on its behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Press<'a> {
    /// What was pressed.
    pub color: Color,
    /// How often, 1 to [`MAX_PRESS`].
    pub n: u64,
    /// Names this press, 1 to [`MAX_ID_BYTES`] bytes: a press that arrives again under the same id
    /// is the same press.
    pub id: Option<&'a str>,
}

impl<'a> Press<'a> {
    /// Reads a press payload: `red`, `red 3`, or `{"color":"red","n":3,"id":"a1"}`, where `n` and
    /// `id` may be left out. A payload that begins with `{` is JSON.
    ///
    /// The text form may end with one line break, since shells like to add one.
    ///
    /// # Errors
    /// Whatever is none of these forms: see [`PressError`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, PressError> {
        match payload {
            _ if payload.len() > MAX_PAYLOAD_BYTES => Err(PressError::TooLong),
            [] => Err(PressError::Empty),
            [b'{', ..] => Self::parse_json(payload),
            _ => Self::parse_text(payload).map_err(|error| explained(payload, error)),
        }
    }

    fn parse_text(payload: &[u8]) -> Result<Self, PressError> {
        let line = payload.strip_suffix(b"\n").unwrap_or(payload);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.splitn(2, |b| *b == b' ');
        let color = words.next().and_then(Color::named);
        let color = color.ok_or(PressError::Color)?;
        let n = match words.next() {
            None => 1,
            Some(digits) => bounded(whole(digits).ok_or(PressError::Count)?)?,
        };
        Ok(Self { color, n, id: None })
    }

    fn parse_json(payload: &'a [u8]) -> Result<Self, PressError> {
        let (mut color, mut n, mut id) = (None, None, None);
        json::object(payload, |key, value| {
            match key {
                "color" => json::set(
                    &mut color,
                    value.string()?.parse().map_err(|_| PressError::Color)?,
                )?,
                "n" => json::set(&mut n, bounded(value.number()?)?)?,
                "id" => json::set(&mut id, checked_id(value.string()?)?)?,
                _ => return Err(JsonError::UnknownKey("color, n or id").into()),
            }
            Ok::<(), PressError>(())
        })?;
        Ok(Self {
            color: color.ok_or(JsonError::MissingKey("color"))?,
            n: n.unwrap_or(1),
            id,
        })
    }
}

/// Why a press was refused. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PressError {
    /// No bytes.
    #[error("empty payload")]
    Empty,
    /// More than [`MAX_PAYLOAD_BYTES`].
    #[error("payload of more than {MAX_PAYLOAD_BYTES} bytes")]
    TooLong,
    /// The name of no colour.
    #[error("unknown colour, expected {} in lower case", Color::NAMES)]
    Color,
    /// White space before a press, behind it, or more than one blank in it.
    #[error(
        "white space in the wrong place: a press is `red`, `red 3` or JSON that begins with `{{`"
    )]
    Space,
    /// Quotes around a press that would be one without them.
    #[error("quotes around the press: send the bytes red, not \"red\"")]
    Quotes,
    /// Bytes that say how a text is encoded.
    #[error("a byte order mark before the press: send UTF-8 without one")]
    ByteOrderMark,
    /// A number that is not between 1 and [`MAX_PRESS`].
    #[error("number of clicks not between 1 and {MAX_PRESS}")]
    Count,
    /// An id that is empty or longer than [`MAX_ID_BYTES`].
    #[error("id not between 1 and {MAX_ID_BYTES} bytes")]
    Id,
    /// Wrong JSON, or JSON of the wrong shape.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// A better reason for what is nearly a press: it is read by whoever sets a device up.
fn explained(payload: &[u8], error: PressError) -> PressError {
    if let [0xEF, 0xBB, 0xBF, ..] | [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] = payload {
        return PressError::ByteOrderMark;
    }
    let trimmed = payload.trim_ascii();
    if let [open @ (b'"' | b'\''), inner @ .., close] = trimmed
        && open == close
        && (Press::parse_text(inner).is_ok() || Press::parse_json(inner).is_ok())
    {
        return PressError::Quotes;
    }
    let mut words = trimmed
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let is_color = words.next().and_then(Color::named).is_some();
    let is_count = |digits| whole(digits).is_some_and(|n| bounded(n).is_ok());
    let is_text = is_color && words.next().is_none_or(is_count) && words.next().is_none();
    if is_text || trimmed.starts_with(b"{") {
        return PressError::Space;
    }
    error
}

fn bounded(n: u64) -> Result<u64, PressError> {
    if (1..=MAX_PRESS).contains(&n) {
        Ok(n)
    } else {
        Err(PressError::Count)
    }
}

fn checked_id(id: &str) -> Result<&str, PressError> {
    if (1..=MAX_ID_BYTES).contains(&id.len()) {
        Ok(id)
    } else {
        Err(PressError::Id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(color: Color, n: u64, id: Option<&str>) -> Result<Press<'_>, PressError> {
        Ok(Press { color, n, id })
    }

    #[test]
    fn every_form_is_read() {
        for (payload, expected) in [
            (&b"red"[..], press(Color::Red, 1, None)),
            (b"blue\n", press(Color::Blue, 1, None)),
            (b"red 3", press(Color::Red, 3, None)),
            (b"blue 1000000\r\n", press(Color::Blue, MAX_PRESS, None)),
            (br#"{"color":"red"}"#, press(Color::Red, 1, None)),
            (
                br#"{"color":"red","n":3,"id":"a1"}"#,
                press(Color::Red, 3, Some("a1")),
            ),
            (
                "{ \"id\" : \"\u{e9} 1\", \"color\":\"blue\" }\n".as_bytes(),
                press(Color::Blue, 1, Some("\u{e9} 1")),
            ),
        ] {
            assert_eq!(
                Press::parse(payload),
                expected,
                "{}",
                payload.escape_ascii()
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        use PressError::{ByteOrderMark, Count, Empty, Id, Json, Quotes, Space, TooLong};
        for (payload, error) in [
            (&b""[..], Empty),
            (&[b' '; 257], TooLong),
            (b"green", PressError::Color),
            (b"Red", PressError::Color),
            (b"red3", PressError::Color),
            (b" red", Space),
            (b"\tblue", Space),
            (b"red\n\n", Space),
            (b"red ", Space),
            (b"red  3", Space),
            (b"red\t3", Space),
            (b"red 3 ", Space),
            (br#" {"color":"red"}"#, Space),
            (b"\n{", Space),
            (br#""red""#, Quotes),
            (b"'red 3'\n", Quotes),
            (br#"'{"color":"red"}'"#, Quotes),
            (br#""green""#, PressError::Color),
            (b"\xef\xbb\xbfred", ByteOrderMark),
            (b"\xff\xfer\0e\0d\0", ByteOrderMark),
            (b"  red 0", PressError::Color),
            (b"red 0", Count),
            (b"red 03", Count),
            (b"red -1", Count),
            (b"red 1.5", Count),
            (b"red 3 4", Count),
            (b"red 1000001", Count),
            (b"red 99999999999999999999999", Count),
            (br#"{"color":"green"}"#, PressError::Color),
            (br#"{"color":"red","n":0}"#, Count),
            (br#"{"color":"red","n":1000001}"#, Count),
            (br#"{"color":"red","id":""}"#, Id),
            (br#"{"color":"red","n":1.0}"#, Json(JsonError::Number)),
            (br#"{"color":"red","id":7}"#, Json(JsonError::String)),
            (br#"{"color":"red","id":"\n"}"#, Json(JsonError::Escape)),
            (br#"{"color":"red","id":null}"#, Json(JsonError::String)),
            (br#"{"n":3}"#, Json(JsonError::MissingKey("color"))),
            (
                br#"{"color":"red","color":"red"}"#,
                Json(JsonError::DuplicateKey),
            ),
            (
                br#"{"color":"red","extra":1}"#,
                Json(JsonError::UnknownKey("color, n or id")),
            ),
            (br#"{"color":"red"} {}"#, Json(JsonError::Trailing)),
        ] {
            assert_eq!(
                Press::parse(payload),
                Err(error),
                "{}",
                payload.escape_ascii()
            );
        }
    }

    #[test]
    fn ids_are_bounded() {
        let id = |length: usize| {
            let id = "x".repeat(length);
            Press::parse(std::format!(r#"{{"color":"red","id":"{id}"}}"#).as_bytes()).err()
        };
        assert_eq!(id(1), None);
        assert_eq!(id(MAX_ID_BYTES), None);
        assert_eq!(id(MAX_ID_BYTES + 1), Some(PressError::Id));
    }
}
