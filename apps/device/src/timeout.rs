//! Lengths of time as people write them.

use core::time::Duration;

/// The longest that is accepted: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a text is no length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TimeoutError {
    #[error("expected a whole number and ms, s or m, such as 10s or 500ms")]
    Form,
    #[error("more than a day")]
    TooLong,
}

/// Reads a whole number with one of the units `ms`, `s` and `m`: `500ms`, `10s`, `2m`.
pub(crate) fn parse(text: &str) -> Result<Duration, TimeoutError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or(TimeoutError::Form)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(TimeoutError::Form),
    };
    if number.is_empty() {
        return Err(TimeoutError::Form);
    }
    // Digits alone: what does not parse is too large.
    let number: u64 = number.parse().map_err(|_| TimeoutError::TooLong)?;
    let length = Duration::from_millis(number.saturating_mul(unit_ms));
    if length > LONGEST {
        return Err(TimeoutError::TooLong);
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("0s", 0),
            ("1440m", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        use TimeoutError::{Form, TooLong};
        for (text, error) in [
            ("", Form),
            ("10", Form),
            ("s", Form),
            ("-1s", Form),
            ("1.5s", Form),
            ("10 s", Form),
            ("10S", Form),
            ("1h", Form),
            ("1441m", TooLong),
            ("99999999999999999999s", TooLong),
            ("18446744073709551615m", TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
