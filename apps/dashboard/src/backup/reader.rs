//! An export, read as its bytes come.

use core::{fmt, mem};

use latchbus_bus::backup::Record;
use serde::Deserialize;

use super::line::{FormatError, Line, Problem};

/// How many records of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Totals {
    /// Values of topics.
    pub values: u64,
    /// Devices.
    pub devices: u64,
    /// Rooms that were reset. Earlier versions do not count them.
    #[serde(default)]
    pub rooms: u64,
}

impl Totals {
    /// One more record.
    pub(crate) const fn add(&mut self, record: &Record) {
        match record {
            Record::Value(_) => self.values += 1,
            Record::Device(_) => self.devices += 1,
            Record::Room(_) => self.rooms += 1,
        }
    }

    /// As many more.
    pub(crate) const fn add_all(&mut self, more: Self) {
        self.values += more.values;
        self.devices += more.devices;
        self.rooms += more.rooms;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            values,
            devices,
            rooms,
        } = self;
        write!(f, "{values} values and {devices} devices")?;
        match rooms {
            0 => Ok(()),
            rooms => write!(f, ", and resets of rooms: {rooms}"),
        }
    }
}

/// Takes the bytes of an export in pieces of any size. It holds one line at a time.
#[derive(Debug, Default)]
pub struct Reader {
    /// The line that is not whole yet.
    begun: Vec<u8>,
    /// Lines that were read.
    lines: u64,
    read: Totals,
    ended: bool,
}

impl Reader {
    /// The longest line, in bytes: the largest payload that a server may be set to take, as base64, and room
    /// for all that stands beside it.
    pub const MAX_LINE_BYTES: usize = 32 << 20;

    /// Reads a piece, and gives each record that it completes to `take`, with the number of its line.
    ///
    /// # Errors
    /// At the first line that is not as it must be. The records before it were given.
    pub fn feed(
        &mut self,
        mut piece: &[u8],
        mut take: impl FnMut(u64, Record),
    ) -> Result<(), FormatError> {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = piece.split_at(end);
            piece = rest.get(1..).unwrap_or_default();
            self.begin(head)?;
            let line = mem::take(&mut self.begun);
            if let Some(record) = self.line(&line)? {
                take(self.lines, record);
            }
            // The memory of one line serves the next.
            self.begun = line;
            self.begun.clear();
        }
        self.begin(piece)
    }

    /// What was read, when that was all.
    ///
    /// # Errors
    /// When the file was cut off.
    pub fn finish(self) -> Result<Totals, FormatError> {
        let problem = match (self.ended, self.begun.is_empty(), self.lines) {
            (true, true, _) => return Ok(self.read),
            (true, false, _) => Problem::AfterTheEnd,
            (false, _, 0) => Problem::NoExport,
            (false, ..) => Problem::Cut,
        };
        Err(FormatError {
            line: self.lines + 1,
            problem,
        })
    }

    /// What was read so far.
    pub const fn read(&self) -> Totals {
        self.read
    }

    fn begin(&mut self, part: &[u8]) -> Result<(), FormatError> {
        let limit = Self::MAX_LINE_BYTES;
        if part.len() > limit - self.begun.len() {
            return Err(FormatError {
                line: self.lines + 1,
                problem: Problem::TooLong { limit },
            });
        }
        self.begun.extend_from_slice(part);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Record>, FormatError> {
        self.lines += 1;
        self.parse(line).map_err(|problem| FormatError {
            line: self.lines,
            problem,
        })
    }

    fn parse(&mut self, line: &[u8]) -> Result<Option<Record>, Problem> {
        if self.ended {
            return Err(Problem::AfterTheEnd);
        }
        let is_first = self.lines == 1;
        match Line::parse(line) {
            Ok(Line::Head) if is_first => Ok(None),
            Err(version @ Problem::Version { .. }) if is_first => Err(version),
            _ if is_first => Err(Problem::NoExport),
            Ok(Line::Head) => Err(Problem::Malformed("a second head".to_owned())),
            Ok(Line::Record(record)) => {
                self.read.add(&record);
                Ok(Some(*record))
            }
            Ok(Line::End(said)) if said == self.read => {
                self.ended = true;
                Ok(None)
            }
            Ok(Line::End(said)) => {
                let found = self.read;
                Err(Problem::Count { said, found })
            }
            Err(problem) => Err(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Writer;
    use latchbus_bus::{Bus, Options, Principal, Publish};
    use latchbus_core::topic::TopicName;

    const HEAD: &str = r#"{"latchbus":"export","version":1,"program":"latchbus/0.1.0","epoch":"1","revision":2,"at":3}"#;
    const END: &str = r#"{"end":true,"values":0,"devices":0}"#;

    fn read(text: &str, piece_bytes: usize) -> Result<(Vec<Record>, Totals), FormatError> {
        let mut reader = Reader::default();
        let mut records = Vec::new();
        for piece in text.as_bytes().chunks(piece_bytes) {
            reader.feed(piece, |_, record| records.push(record))?;
        }
        Ok((records, reader.finish()?))
    }

    fn problem(text: &str) -> (u64, Problem) {
        let error = read(text, 7).unwrap_err();
        (error.line, error.problem)
    }

    #[tokio::test]
    async fn what_is_written_is_read_byte_by_byte() {
        let bus = Bus::open(Options::default()).unwrap();
        let payloads = [
            "null",
            "{\"c\": 21.50}",
            " 1",
            "[1,\n2]",
            "1e999",
            "red \"3\"\n",
            "\u{e9}",
            "\0",
        ];
        for (n, payload) in payloads.into_iter().enumerate() {
            let topic = TopicName::parse(format!("t/{n} \"é\"")).unwrap();
            bus.publish(Publish::state(topic, payload)).await.unwrap();
        }
        let raw = TopicName::parse("t/raw".to_owned()).unwrap();
        let raw = Publish {
            qos: 0,
            ..Publish::state(raw, &b"\xff\0"[..])
        };
        bus.publish(raw).await.unwrap();
        let press = TopicName::parse("clicks/main/k/press".to_owned()).unwrap();
        let press = Publish::event(press, r#"{"color":"red","id":"é\""}"#);
        assert!(bus.publish(press).await.is_err(), "escapes are no ids");
        let press = TopicName::parse("clicks/main/k/press".to_owned()).unwrap();
        bus.publish(Publish::event(press, r#"{"color":"red","id":"a"}"#))
            .await
            .unwrap();

        let export = || bus.client(Principal::process()).unwrap();
        let expected: Vec<_> = export().export().await.unwrap().collect();
        assert_eq!(expected.len(), payloads.len() + 2);
        let mut writer = Writer::new(export().export().await.unwrap());
        let mut text = Vec::new();
        while let Some(piece) = writer.piece().unwrap() {
            text.extend(piece);
        }
        let text = String::from_utf8(text).unwrap();
        for piece_bytes in [1, 1_000_000] {
            let (records, totals) = read(&text, piece_bytes).unwrap();
            assert_eq!(records, expected);
            assert_eq!(totals, writer.written());
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert!(read(&format!("{HEAD}\n{END}\n"), 7).is_ok());
        assert!(matches!(problem(""), (1, Problem::NoExport)));
        assert!(matches!(problem("x\n"), (1, Problem::NoExport)));
        assert!(matches!(
            problem(&format!("{END}\n")),
            (1, Problem::NoExport)
        ));
        let other = HEAD.replace("export", "settings");
        assert!(matches!(
            problem(&format!("{other}\n")),
            (1, Problem::NoExport)
        ));
        let later = HEAD.replace("\"version\":1", "\"version\":2,\"new\":[]");
        let later = problem(&format!("{later}\n"));
        assert!(
            matches!(later, (1, Problem::Version { found: 2 })),
            "{later:?}"
        );
        for line in [
            "",
            "{}",
            "[]",
            HEAD,
            r#"{"topic":"a","payload":1,"text":"1","at":1,"rev":1}"#,
            r#"{"topic":"a","at":1,"rev":1}"#,
            r#"{"topic":"a/+","payload":1,"at":1,"rev":1}"#,
            r#"{"topic":"a","payload":1,"at":1,"rev":1,"qos":3}"#,
            r#"{"topic":"a","payload":1,"at":1,"rev":1,"new":1}"#,
            r#"{"topic":"a","base64":"*","at":1,"rev":1}"#,
            r#"{"topic":"a","payload":1,"at":-1,"rev":1}"#,
            r#"{"device":"k","room":"main"}"#,
            r#"{"device":"k","room":"main","counts":{"floor":2,"base":[0,0],"live":[["2-0badcafe",1,1]]},"pressed":{"floor":0,"base":[0,0],"live":[]},"press_ids":[]}"#,
            r#"{"device":"k","room":"main","counts":{"floor":0,"base":[9007199254740992,0],"live":[]},"pressed":{"floor":0,"base":[0,0],"live":[]},"press_ids":[]}"#,
            r#"{"end":false,"values":0,"devices":0}"#,
        ] {
            let found = problem(&format!("{HEAD}\n{line}\n{END}\n"));
            assert!(
                matches!(found, (2, Problem::Malformed(_))),
                "{line}: {found:?}"
            );
        }
    }

    #[test]
    fn a_cut_file_is_known_at_every_byte() {
        let value = r#"{"topic":"a","payload":1,"at":1,"rev":1}"#;
        let end = END.replace("\"values\":0", "\"values\":1");
        let whole = format!("{HEAD}\n{value}\n{end}\n");
        assert!(read(&whole, 7).is_ok());
        for length in 0..whole.len() {
            assert!(read(&whole[..length], 7).is_err(), "{length}");
        }
        let cut = problem(&format!("{HEAD}\n{value}\n"));
        assert!(matches!(cut, (3, Problem::Cut)));
        let fewer = problem(&format!("{HEAD}\n{end}\n"));
        assert!(matches!(fewer, (2, Problem::Count { .. })));
        let more = problem(&format!("{whole}{value}\n"));
        assert!(matches!(more, (4, Problem::AfterTheEnd)));
        let rest = problem(&format!("{whole}x"));
        assert!(matches!(rest, (4, Problem::AfterTheEnd)));
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut reader = Reader::default();
        let piece = vec![b' '; 1 << 20];
        let error = (0..=Reader::MAX_LINE_BYTES >> 20)
            .find_map(|_| reader.feed(&piece, |_, _| ()).err())
            .unwrap();
        assert!(matches!(error.problem, Problem::TooLong { .. }));
        assert!(reader.begun.len() <= Reader::MAX_LINE_BYTES);
    }

    /// A whole export, into which a test puts its bytes.
    fn example() -> String {
        let live = r#"[["6-0badcafe",12,7]]"#;
        let counts = format!(r#"{{"floor":5,"base":[40,2],"live":{live}}}"#);
        let device = format!(
            r#"{{"device":"k","room":"main","counts":{counts},"pressed":{counts},"press_ids":["a"]}}"#
        );
        let value = r#"{"topic":"a","payload":{"c":[1,"\u00e9"]},"at":1,"rev":1,"properties":{"user":[["k","v"]]}}"#;
        let end = r#"{"end":true,"values":1,"devices":1}"#;
        format!("{HEAD}\n{value}\n{device}\n{end}\n")
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_export_or_an_error(
            changes in proptest::collection::vec((0..600_usize, proptest::num::u8::ANY, 0..3_u8), 0..4),
            piece_bytes in 1..80_usize,
        ) {
            let mut bytes = example().into_bytes();
            for (at, byte, change) in changes {
                let at = at % bytes.len();
                match change {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            let read = |piece_bytes: usize| {
                let mut reader = Reader::default();
                let mut records = Vec::new();
                for piece in bytes.chunks(piece_bytes) {
                    reader.feed(piece, |line, record| records.push((line, record)))?;
                }
                reader.finish().map(|totals| (records, totals))
            };
            let said = |error: FormatError| error.to_string();
            proptest::prop_assert_eq!(
                read(piece_bytes).map_err(said),
                read(usize::MAX).map_err(said)
            );
        }
    }
}
