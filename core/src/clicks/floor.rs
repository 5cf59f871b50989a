use core::fmt;

use super::MAX_PAYLOAD_BYTES;
use super::color::write_members;
use super::counter::{Counter, PartialCounts, ReportError};
use super::json::{self, JsonError};

/// The digits of the highest boot.
const MAX_DIGITS: usize = u32::MAX.ilog10() as usize + 1;

/// The payload of a floor topic: what remains of the incarnations that were folded away.
///
/// Every boot at or below `floor` is counted in `base` and in nothing else. `Display` writes the
/// JSON form, `{"floor":5,"red":40,"blue":2}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FloorRecord {
    /// The highest boot that was folded; 0 when none was.
    pub floor: u32,
    /// All clicks of the folded incarnations.
    pub base: Counter,
}

impl FloorRecord {
    /// The most bytes of the JSON form.
    pub const MAX_JSON_BYTES: usize = Counter::MAX_JSON_BYTES + r#""floor":,"#.len() + MAX_DIGITS;

    /// Reads the JSON form: `floor` and the keys of all colours, in any order.
    ///
    /// # Errors
    /// Whatever is not exactly that: see [`ReportError`].
    pub fn parse(payload: &[u8]) -> Result<Self, ReportError> {
        match payload {
            _ if payload.len() > MAX_PAYLOAD_BYTES => return Err(ReportError::TooLong),
            [] => return Err(ReportError::Empty),
            [b'{', ..] => {}
            _ => return Err(ReportError::unknown_form(payload)),
        }
        let mut floor = None;
        let mut base = PartialCounts::default();
        json::object(payload, |key, value| match key {
            "floor" => json::set(&mut floor, value.number()?),
            _ => base.read(key, value),
        })?;
        let floor = floor.ok_or(JsonError::MissingKey("floor"))?;
        let base = base.all()?;
        Ok(Self {
            floor: u32::try_from(floor).map_err(|_| ReportError::TooLarge)?,
            base: Counter::from_counts(base)?,
        })
    }

    /// Writes the JSON form, `{"floor":5,"red":40,"blue":2}`.
    ///
    /// # Errors
    /// Only the writer's own, for example because it is full.
    pub fn write_json(&self, out: &mut impl fmt::Write) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl fmt::Display for FloorRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { floor, base } = self;
        write!(f, r#"{{"floor":{floor},"#)?;
        write_members(f, |color| base.of(color))?;
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::super::counter::MAX_COUNT;
    use super::*;

    #[test]
    fn the_json_form_is_read_and_written() {
        let record = FloorRecord {
            floor: 5,
            base: Counter::new(40, 2),
        };
        assert_eq!(record.to_string(), r#"{"floor":5,"red":40,"blue":2}"#);
        assert_eq!(
            FloorRecord::parse(br#"{"floor":5,"red":40,"blue":2}"#),
            Ok(record)
        );
        assert_eq!(
            FloorRecord::parse(b"{\"blue\":2, \"red\":40,\n\"floor\":5}\n"),
            Ok(record)
        );
        let most = FloorRecord {
            floor: u32::MAX,
            base: Counter::new(MAX_COUNT, MAX_COUNT),
        };
        assert_eq!(most.to_string().len(), FloorRecord::MAX_JSON_BYTES);
        assert_eq!(FloorRecord::parse(most.to_string().as_bytes()), Ok(most));
    }

    #[test]
    fn anything_else_is_refused() {
        for (payload, error) in [
            (&b""[..], ReportError::Empty),
            (&[1, 5, 40, 2], ReportError::UnknownForm),
            (&[b'{'; 257], ReportError::TooLong),
            (
                br#"{"red":40,"blue":2}"#,
                JsonError::MissingKey("floor").into(),
            ),
            (
                br#"{"floor":5,"floor":5,"red":40,"blue":2}"#,
                JsonError::DuplicateKey.into(),
            ),
            (
                br#"{"floor":5,"red":40,"blue":2,"x":1}"#,
                JsonError::UnknownKey("red or blue").into(),
            ),
            (
                br#"{"floor":4294967296,"red":40,"blue":2}"#,
                ReportError::TooLarge,
            ),
            (
                br#"{"floor":5,"red":9007199254740992,"blue":2}"#,
                ReportError::TooLarge,
            ),
        ] {
            assert_eq!(
                FloorRecord::parse(payload),
                Err(error),
                "{}",
                payload.escape_ascii()
            );
        }
    }
}
