use core::fmt;

use super::color::{Color, write_members};
use super::counter::Counter;

/// How the clicks divide between the colours, in tenths of a percent that sum to exactly 1000.
///
/// What the colours have together, up to each of them in the order of [`Color::ALL`], is rounded to the nearest tenth,
/// halves upwards: so of two colours the first is rounded and the second is the rest. A colour with very few clicks may
/// thus show 0.0. Without clicks all have the same. `Display` writes the payload of a share topic,
/// `{"red":63.2,"blue":36.8}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shares {
    tenths: [u16; Color::COUNT],
}

impl Shares {
    /// The shares of this counter.
    #[must_use]
    pub fn of(counter: Counter) -> Self {
        let counts = match counter.is_zero() {
            true => [1; Color::COUNT],
            false => counter.counts(),
        };
        let total: u128 = counts.into_iter().map(u128::from).sum();
        let (mut clicks, mut before) = (0, 0);
        Self {
            tenths: counts.map(|count| {
                clicks += u128::from(count);
                let up_to_here = (clicks * 2 * WHOLE_TENTHS + total) / (2 * total);
                let up_to_here = up_to_here as u16;
                up_to_here - core::mem::replace(&mut before, up_to_here)
            }),
        }
    }

    /// A colour's share in tenths of a percent, 0 to 1000.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "the number of a colour is below their count"
    )]
    pub const fn tenths(self, color: Color) -> u16 {
        self.tenths[color as usize]
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        write_members(f, |color| Tenths(u64::from(self.tenths(color))))?;
        f.write_str("}")
    }
}

/// A number with one decimal.
pub(super) struct Tenths(pub(super) u64);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

const WHOLE_TENTHS: u128 = 1000;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::super::counter::MAX_COUNT;
    use super::*;

    #[test]
    fn shares_of_any_colors_are_whole() {
        for color in Color::ALL {
            let mut one = Counter::ZERO;
            one.add(color, 1);
            assert_eq!(Shares::of(one).tenths(color), 1000);
        }
        for n in 0..100 {
            let mut counter = Counter::ZERO;
            for (color, factor) in Color::ALL.into_iter().zip([n, 7, 13].into_iter().cycle()) {
                counter.add(color, factor * 11);
            }
            let shares = Shares::of(counter);
            let sum: u16 = Color::ALL
                .map(|color| shares.tenths(color))
                .into_iter()
                .sum();
            assert_eq!(sum, 1000);
        }
    }

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
