use core::fmt;

use super::counter::Counter;

/// How the clicks divide between the colours, in tenths of a percent that sum to exactly 1000.
///
/// Red is rounded to the nearest tenth, halves upwards, and blue is the rest. A colour with very
/// few clicks may thus show 0.0. Without clicks each has half. `Display` writes the payload of a
/// share topic, `{"red":63.2,"blue":36.8}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shares {
    red_tenths: u16,
}

impl Shares {
    /// The shares of this counter.
    #[must_use]
    pub const fn of(counter: Counter) -> Self {
        // At most 2002 * 2^53, which a u64 holds with 2% to spare.
        let total = counter.red() + counter.blue();
        if total == 0 {
            return Self {
                red_tenths: WHOLE_TENTHS / 2,
            };
        }
        let halves = counter.red() * 2 * WHOLE_TENTHS as u64 + total;
        Self {
            red_tenths: (halves / (2 * total)) as u16,
        }
    }

    /// Red's share in tenths of a percent, 0 to 1000.
    #[must_use]
    pub const fn red_tenths(self) -> u16 {
        self.red_tenths
    }

    /// Blue's share in tenths of a percent, 0 to 1000.
    #[must_use]
    pub const fn blue_tenths(self) -> u16 {
        WHOLE_TENTHS - self.red_tenths
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            r#"{{"red":{},"blue":{}}}"#,
            Tenths(u64::from(self.red_tenths())),
            Tenths(u64::from(self.blue_tenths()))
        )
    }
}

/// A number with one decimal.
pub(super) struct Tenths(pub(super) u64);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

const WHOLE_TENTHS: u16 = 1000;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::super::counter::MAX_COUNT;
    use super::*;

    #[test]
    fn shares_are_rounded_to_a_tenth() {
        for (red, blue, shown) in [
            (0, 0, r#"{"red":50.0,"blue":50.0}"#),
            (12, 7, r#"{"red":63.2,"blue":36.8}"#),
            (1, 0, r#"{"red":100.0,"blue":0.0}"#),
            (0, 1, r#"{"red":0.0,"blue":100.0}"#),
            (1, 2, r#"{"red":33.3,"blue":66.7}"#),
            (2, 1, r#"{"red":66.7,"blue":33.3}"#),
            // Exactly 0.05 % is a half and goes up; a hair less does not.
            (1, 1999, r#"{"red":0.1,"blue":99.9}"#),
            (1, 2000, r#"{"red":0.0,"blue":100.0}"#),
            (MAX_COUNT, MAX_COUNT, r#"{"red":50.0,"blue":50.0}"#),
            (MAX_COUNT, 0, r#"{"red":100.0,"blue":0.0}"#),
            (MAX_COUNT, 1, r#"{"red":100.0,"blue":0.0}"#),
            (0, MAX_COUNT, r#"{"red":0.0,"blue":100.0}"#),
        ] {
            assert_eq!(
                Shares::of(Counter::new(red, blue)).to_string(),
                shown,
                "{red} {blue}"
            );
        }
    }
}
