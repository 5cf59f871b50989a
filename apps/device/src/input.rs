//! Clicks as lines of text.

use std::io::{self, BufRead};

use latchbus_core::clicks::{Color, MAX_PRESS};
use thiserror::Error;

/// The longest line, in bytes without its end. No line of the form comes near it.
pub(crate) const MAX_LINE_BYTES: usize = 256;

/// A line that stands for clicks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clicks {
    pub(crate) color: Color,
    /// 1 to [`MAX_PRESS`].
    pub(crate) n: u64,
}

/// Why a line stands for none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum LineError {
    #[error("expected {names}, or its first letter, found `{0}`", names = Color::NAMES)]
    Color(String),
    #[error("expected a number of clicks from 1 to {MAX_PRESS}, found `{0}`")]
    Count(String),
    #[error("nothing may follow the number of clicks, found `{0}`")]
    Trailing(String),
    #[error("not UTF-8")]
    Encoding,
    #[error("longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
}

/// Reads one line: `red`, `blue`, `r` or `b`, and optionally a number of clicks. `Ok(None)` is a blank one.
pub(crate) fn parse(line: &[u8]) -> Result<Option<Clicks>, LineError> {
    let line = core::str::from_utf8(line).map_err(|_| LineError::Encoding)?;
    let mut words = line.split_ascii_whitespace();
    let Some(color) = words.next() else {
        return Ok(None);
    };
    let color = named(color).ok_or_else(|| LineError::Color(shown(color)))?;
    let n = match words.next() {
        None => 1,
        Some(n) => count(n).ok_or_else(|| LineError::Count(shown(n)))?,
    };
    match words.next() {
        None => Ok(Some(Clicks { color, n })),
        Some(more) => Err(LineError::Trailing(shown(more))),
    }
}

/// The colour of this name or first letter.
fn named(word: &str) -> Option<Color> {
    word.parse().ok().or_else(|| {
        let is_meant = |color: &Color| word.len() == 1 && color.as_str().starts_with(word);
        Color::ALL.into_iter().find(is_meant)
    })
}

/// Reads lines to the end of the input and gives each with its number, from 1; a last line needs no end.
/// Stops early when `each` returns false. A longer line than [`MAX_LINE_BYTES`] is never held whole.
///
/// # Errors
/// The input's own.
pub(crate) fn lines(
    mut input: impl BufRead,
    mut each: impl FnMut(u64, Result<&[u8], LineError>) -> bool,
) -> io::Result<()> {
    let mut line = Vec::with_capacity(MAX_LINE_BYTES);
    let (mut number, mut started, mut too_long) = (1, false, false);
    loop {
        let chunk = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            chunk => chunk?,
        };
        let at_end = chunk.is_empty();
        let end = chunk.iter().position(|b| *b == b'\n');
        let (text, used) = match end.and_then(|end| chunk.split_at_checked(end)) {
            Some((text, _)) => (text, text.len() + 1),
            None => (chunk, chunk.len()),
        };
        started |= used > 0;
        too_long |= line.len() + text.len() > MAX_LINE_BYTES;
        if !too_long {
            line.extend_from_slice(text);
        }
        input.consume(used);
        if end.is_some() || (at_end && started) {
            let whole = if too_long {
                Err(LineError::TooLong)
            } else {
                Ok(line.as_slice())
            };
            if !each(number, whole) {
                return Ok(());
            }
            line.clear();
            (number, started, too_long) = (number + 1, false, false);
        }
        if at_end {
            return Ok(());
        }
    }
}

/// A whole number in plain digits, from 1 to [`MAX_PRESS`].
fn count(digits: &str) -> Option<u64> {
    // `u64` takes a leading plus sign, which no other form of a count has.
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let n = digits.parse().ok().filter(|_| plain)?;
    (1..=MAX_PRESS).contains(&n).then_some(n)
}

/// What of the input a message shows: its first characters, without what a terminal would obey.
fn shown(word: &str) -> String {
    const SHOWN_CHARACTERS: usize = 32;
    let mut characters = word.chars();
    let mut shown: String = characters.by_ref().take(SHOWN_CHARACTERS).collect();
    if characters.next().is_some() {
        shown.push('\u{2026}');
    }
    shown.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clicks(color: Color, n: u64) -> Result<Option<Clicks>, LineError> {
        Ok(Some(Clicks { color, n }))
    }

    #[test]
    fn every_form_is_read() {
        for (line, expected) in [
            (&b"red"[..], clicks(Color::Red, 1)),
            (b"b", clicks(Color::Blue, 1)),
            (b"r 3", clicks(Color::Red, 3)),
            (b" blue\t1000000 \r", clicks(Color::Blue, 1_000_000)),
            (b"red 007", clicks(Color::Red, 7)),
            (b"", Ok(None)),
            (b" \r", Ok(None)),
        ] {
            assert_eq!(parse(line), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn anything_else_is_refused() {
        type Refusal = fn(String) -> LineError;
        for (line, error, shown) in [
            (&b"green"[..], LineError::Color as Refusal, "green"),
            (b"Red", LineError::Color, "Red"),
            (b"red3", LineError::Color, "red3"),
            (b"\x1b[2J", LineError::Color, "\\u{1b}[2J"),
            (b"red 0", LineError::Count, "0"),
            (b"red -1", LineError::Count, "-1"),
            (b"red +1", LineError::Count, "+1"),
            (b"red 1.5", LineError::Count, "1.5"),
            (b"red 1000001", LineError::Count, "1000001"),
            (
                b"red 99999999999999999999",
                LineError::Count,
                "99999999999999999999",
            ),
            (b"red 1 2", LineError::Trailing, "2"),
        ] {
            let expected = Err(error(shown.to_owned()));
            assert_eq!(parse(line), expected, "{}", line.escape_ascii());
        }
        assert_eq!(parse(b"r\xff"), Err(LineError::Encoding));
        let long = "x".repeat(40);
        let cut = format!("{}\u{2026}", "x".repeat(32));
        assert_eq!(parse(long.as_bytes()), Err(LineError::Color(cut)));
    }

    fn read(input: &[u8], buffer_bytes: usize) -> Vec<(u64, Result<String, LineError>)> {
        let mut read = Vec::new();
        let input = io::BufReader::with_capacity(buffer_bytes, input);
        lines(input, |number, line| {
            let line = line.map(|line| String::from_utf8_lossy(line).into_owned());
            read.push((number, line));
            true
        })
        .unwrap();
        read
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let long = [b"x".repeat(MAX_LINE_BYTES + 1), b"\nr".to_vec()].concat();
        let line = |number, text: &str| (number, Ok(text.to_owned()));
        for buffer_bytes in [1, 2, 3, 100, 8_192] {
            assert_eq!(read(b"", buffer_bytes), []);
            assert_eq!(read(b"\n", buffer_bytes), [line(1, "")]);
            assert_eq!(
                read(b"red\n\nb 2\r\n", buffer_bytes),
                [line(1, "red"), line(2, ""), line(3, "b 2\r")]
            );
            assert_eq!(
                read(&long, buffer_bytes),
                [(1, Err(LineError::TooLong)), line(2, "r")]
            );
            let longest = long.get(1..).unwrap();
            assert_eq!(
                read(longest, buffer_bytes),
                [line(1, &"x".repeat(MAX_LINE_BYTES)), line(2, "r")]
            );
        }
    }

    #[test]
    fn reading_stops_when_told() {
        let mut seen = 0;
        lines(&b"r\nr\nr\n"[..], |_, _| {
            seen += 1;
            seen < 2
        })
        .unwrap();
        assert_eq!(seen, 2);
    }
}
