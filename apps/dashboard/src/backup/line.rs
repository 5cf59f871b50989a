//! One line of an export.

use core::fmt;
use core::num::NonZeroU64;
use std::sync::Arc;

use latchbus_bus::backup::{DeviceClicks, Kept, Ledger, Record, RoomClicks};
use latchbus_bus::frames::json::{self, PayloadForm, payload_bytes, raw_or_null};
use latchbus_bus::{Holder, PayloadFormat, Properties};
use latchbus_core::clicks::{Color, Counter, FloorRecord, Incarnation};
use latchbus_core::topic::TopicName;
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Totals;

/// The only version of the format that there is.
pub(super) const VERSION: u64 = 1;

/// The quality of service that is left out.
const USUAL_QOS: u8 = 2;

/// Why a file is no export, or not a whole one.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct FormatError {
    /// Where, from 1.
    pub line: u64,
    /// What is wrong there.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The first line is another one.
    #[error("this is no export of latchbus")]
    NoExport,
    /// A later program has written it.
    #[error("the file has version {found}, and this program knows version {VERSION}")]
    Version {
        /// What the file says.
        found: u64,
    },
    /// It is not as it must be.
    #[error("{0}")]
    Malformed(String),
    /// The last line is missing.
    #[error("the file was cut off: its last line, which counts the others, is missing")]
    Cut,
    /// The last line counts more, or fewer.
    #[error("the last line counts {said}, and before it stand {found}")]
    Count {
        /// What the last line says.
        said: Totals,
        /// What is there.
        found: Totals,
    },
    /// Something follows the last line.
    #[error("the file goes on after its last line")]
    AfterTheEnd,
    /// No line of an export is so long.
    #[error("the line is longer than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
}

/// What a line says.
#[derive(Debug)]
pub(super) enum Line {
    Head,
    Record(Box<Record>),
    End(Totals),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head<'a> {
    pub(super) latchbus: &'a str,
    pub(super) version: u64,
    pub(super) program: &'a str,
    pub(super) epoch: &'a str,
    pub(super) revision: u64,
    pub(super) at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub(super) end: bool,
    pub(super) values: u64,
    pub(super) devices: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) rooms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueLine<'a> {
    topic: String,
    #[serde(
        borrow,
        default,
        deserialize_with = "raw_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    payload: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    at: u64,
    rev: u64,
    #[serde(default = "usual_qos", skip_serializing_if = "is_usual_qos")]
    qos: u8,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    history: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<NonZeroU64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    properties: Option<PropertiesLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<Holder>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PropertiesLine {
    #[serde(default)]
    payload_is_text: bool,
    /// Whether the publisher says that the payload is bytes of any kind; neither: it does not say.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    payload_is_bytes: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_topic: Option<String>,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_data: Option<String>,
    #[serde(default)]
    user: Vec<(String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceLine {
    device: String,
    room: String,
    counts: LedgerLine,
    pressed: LedgerLine,
    press_ids: Vec<String>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    removed: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerLine {
    floor: u32,
    base: [u64; Color::COUNT],
    live: Vec<LiveLine>,
    /// The stamp of the last reset.
    #[serde(default, skip_serializing_if = "is_zero")]
    reset: u64,
    /// What each incarnation had by then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    zero: Vec<LiveLine>,
}

/// A room that was reset.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomLine {
    reset_room: String,
    reset: u64,
    given: [u64; Color::COUNT],
    taken: [u64; Color::COUNT],
}

/// `["1-0badcafe",12,7]`: an incarnation and its counts.
#[derive(Debug)]
struct LiveLine(String, [u64; Color::COUNT]);

impl Serialize for LiveLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_seq(Some(1 + Color::COUNT))?;
        line.serialize_element(&self.0)?;
        for count in self.1 {
            line.serialize_element(&count)?;
        }
        line.end()
    }
}

impl<'de> Deserialize<'de> for LiveLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(LiveVisitor)
    }
}

struct LiveVisitor;

impl<'de> Visitor<'de> for LiveVisitor {
    type Value = LiveLine;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an incarnation and the count of each colour")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<LiveLine, A::Error> {
        let too_short = |n| A::Error::invalid_length(n, &self);
        let run = seq.next_element()?.ok_or_else(|| too_short(0))?;
        let mut counts = [0; Color::COUNT];
        for (n, count) in counts.iter_mut().enumerate() {
            *count = seq.next_element()?.ok_or_else(|| too_short(1 + n))?;
        }
        Ok(LiveLine(run, counts))
    }
}

/// Tells the kinds of lines apart.
#[derive(Deserialize)]
struct Kind {
    latchbus: Option<IgnoredAny>,
    topic: Option<IgnoredAny>,
    device: Option<IgnoredAny>,
    reset_room: Option<IgnoredAny>,
    end: Option<IgnoredAny>,
}

impl Line {
    /// Reads a line, which is not a whole one if it does not end the way it began.
    pub(super) fn parse(line: &[u8]) -> Result<Self, Problem> {
        let kind: Kind = serde_json::from_slice(line).map_err(malformed)?;
        match kind {
            Kind {
                latchbus: Some(_), ..
            } => head(line),
            Kind { topic: Some(_), .. } => {
                let value: ValueLine<'_> = serde_json::from_slice(line).map_err(malformed)?;
                value
                    .read()
                    .map(Record::Value)
                    .map(Box::new)
                    .map(Self::Record)
            }
            Kind {
                device: Some(_), ..
            } => {
                let device: DeviceLine = serde_json::from_slice(line).map_err(malformed)?;
                device
                    .read()
                    .map(Record::Device)
                    .map(Box::new)
                    .map(Self::Record)
            }
            Kind {
                reset_room: Some(_),
                ..
            } => {
                let room: RoomLine = serde_json::from_slice(line).map_err(malformed)?;
                room.read()
                    .map(Record::Room)
                    .map(Box::new)
                    .map(Self::Record)
            }
            Kind { end: Some(_), .. } => {
                let End {
                    end,
                    values,
                    devices,
                    rooms,
                } = serde_json::from_slice(line).map_err(malformed)?;
                match end {
                    true => Ok(Self::End(Totals {
                        values,
                        devices,
                        rooms,
                    })),
                    false => Err(malformed("`end` is not true")),
                }
            }
            _ => Err(malformed(
                "it has none of the keys `topic`, `device`, `reset_room` and `end`",
            )),
        }
    }
}

fn head(line: &[u8]) -> Result<Line, Problem> {
    // A later version may say more about itself.
    #[derive(Deserialize)]
    struct Version<'a> {
        latchbus: &'a str,
        version: u64,
    }
    let head: Version<'_> = serde_json::from_slice(line).map_err(malformed)?;
    if head.latchbus != "export" {
        return Err(Problem::NoExport);
    }
    if head.version != VERSION {
        return Err(Problem::Version {
            found: head.version,
        });
    }
    let _whole: Head<'_> = serde_json::from_slice(line).map_err(malformed)?;
    Ok(Line::Head)
}

/// Appends the line of a record.
pub(super) fn write(out: &mut Vec<u8>, record: &Record) -> serde_json::Result<()> {
    match record {
        Record::Value(value) => serde_json::to_writer(&mut *out, &ValueLine::of(value))?,
        Record::Device(device) => serde_json::to_writer(&mut *out, &DeviceLine::of(device))?,
        Record::Room(room) => serde_json::to_writer(&mut *out, &RoomLine::of(room))?,
    }
    out.push(b'\n');
    Ok(())
}

impl<'a> ValueLine<'a> {
    fn of(value: &'a Kept) -> Self {
        let (mut payload, mut text, mut base64) = (None, None, None);
        match PayloadForm::in_a_line(&value.payload) {
            PayloadForm::Json(json) => payload = serde_json::from_str(json).ok(),
            PayloadForm::Text(plain) => text = Some(plain.to_owned()),
            PayloadForm::Bytes(bytes) => base64 = Some(json::base64(bytes)),
        }
        Self {
            topic: value.topic.as_str().to_owned(),
            payload,
            text,
            base64,
            at: value.at,
            rev: value.rev,
            qos: value.qos,
            history: value.history,
            expires_at: value.expires_at,
            properties: value.properties.as_deref().map(PropertiesLine::of),
            holder: value.holder.as_deref().cloned(),
        }
    }

    fn read(self) -> Result<Kept, Problem> {
        let json = self.payload.map(RawValue::get);
        let payload = payload_bytes(json, self.text, self.base64.as_deref()).map_err(malformed)?;
        if self.qos > 2 {
            return Err(malformed("`qos` is above 2"));
        }
        Ok(Kept {
            topic: TopicName::parse(self.topic).map_err(malformed)?,
            payload,
            rev: self.rev,
            at: self.at,
            qos: self.qos,
            expires_at: self.expires_at,
            properties: self
                .properties
                .map(PropertiesLine::read)
                .transpose()?
                .map(Arc::new),
            history: self.history,
            holder: self.holder.map(Arc::new),
        })
    }
}

impl PropertiesLine {
    fn of(said: &Properties) -> Self {
        Self {
            payload_is_text: said.payload_format == PayloadFormat::Text,
            payload_is_bytes: said.payload_format == PayloadFormat::Bytes,
            content_type: said.content_type.clone(),
            response_topic: said.response_topic.clone(),
            correlation_data: said
                .correlation_data
                .as_ref()
                .map(|data| json::base64(data)),
            user: said.user.clone(),
        }
    }

    fn read(self) -> Result<Properties, Problem> {
        let data = self.correlation_data.map(|data| decoded(&data));
        Ok(Properties {
            payload_format: match (self.payload_is_text, self.payload_is_bytes) {
                (true, _) => PayloadFormat::Text,
                (false, true) => PayloadFormat::Bytes,
                (false, false) => PayloadFormat::Unstated,
            },
            content_type: self.content_type,
            response_topic: self.response_topic,
            correlation_data: data.transpose()?,
            user: self.user,
        })
    }
}

impl DeviceLine {
    fn of(clicks: &DeviceClicks) -> Self {
        Self {
            device: clicks.device.clone(),
            room: clicks.room.clone(),
            counts: LedgerLine::of(&clicks.counts),
            pressed: LedgerLine::of(&clicks.pressed),
            press_ids: clicks.press_ids.clone(),
            removed: clicks.removed,
        }
    }

    fn read(self) -> Result<DeviceClicks, Problem> {
        Ok(DeviceClicks {
            room: self.room,
            device: self.device,
            counts: self.counts.read()?,
            pressed: self.pressed.read()?,
            press_ids: self.press_ids,
            removed: self.removed,
        })
    }
}

impl RoomLine {
    fn of(clicks: &RoomClicks) -> Self {
        Self {
            reset_room: clicks.room.clone(),
            reset: clicks.stamp,
            given: clicks.given.counts(),
            taken: clicks.taken.counts(),
        }
    }

    fn read(self) -> Result<RoomClicks, Problem> {
        Ok(RoomClicks {
            room: self.reset_room,
            stamp: self.reset,
            given: counter(self.given)?,
            taken: counter(self.taken)?,
        })
    }
}

impl LedgerLine {
    fn of(ledger: &Ledger) -> Self {
        let FloorRecord { floor, base } = ledger.folded();
        let lines = |entries: &[(Incarnation, Counter)]| {
            let entries = entries.iter();
            entries
                .map(|(run, counter)| LiveLine(run.to_string(), counter.counts()))
                .collect()
        };
        Self {
            floor,
            base: base.counts(),
            live: lines(ledger.live()),
            reset: ledger.zero().stamp(),
            zero: lines(ledger.zero().entries()),
        }
    }

    fn read(self) -> Result<Ledger, Problem> {
        let entries = |lines: Vec<LiveLine>| {
            let entries = lines.into_iter().map(|LiveLine(run, counts)| {
                let run: Incarnation = run.parse().map_err(malformed)?;
                Ok((run, counter(counts)?))
            });
            entries.collect::<Result<Vec<_>, Problem>>()
        };
        let (live, zero) = (entries(self.live)?, entries(self.zero)?);
        let base = counter(self.base)?;
        let floor = self.floor;
        let ledger = Ledger::new(FloorRecord { floor, base }, live).map_err(malformed)?;
        ledger.with_zero(self.reset, &zero).map_err(malformed)
    }
}

fn counter(counts: [u64; Color::COUNT]) -> Result<Counter, Problem> {
    Counter::from_counts(counts).map_err(malformed)
}

fn decoded(base64: &str) -> Result<Vec<u8>, Problem> {
    json::base64_bytes(base64).map_err(malformed)
}

fn malformed(reason: impl fmt::Display) -> Problem {
    Problem::Malformed(reason.to_string())
}

const fn usual_qos() -> u8 {
    USUAL_QOS
}

// The signatures are serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_usual_qos(qos: &u8) -> bool {
    *qos == USUAL_QOS
}

const fn one() -> u16 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_one(number: &u16) -> bool {
    *number == 1
}
