//! Chance, from where there is little: the moments at which bytes arrive, and whatever a board has of its own.

/// Gathers unpredictable values into one word. Good for telling two boots apart, not for secrets.
#[derive(Debug, Clone, Copy)]
pub struct Entropy(u32);

impl Entropy {
    /// Begins with what the board knows: a random number generator, or a free-running timer.
    pub const fn new(seed: u32) -> Self {
        Self(seed)
    }

    /// Adds a value, for example a timer's.
    pub const fn mix(&mut self, value: u32) {
        self.0 = scrambled(self.0.rotate_left(5) ^ value);
    }

    /// A number that depends on all that was added.
    pub const fn draw(&mut self) -> u32 {
        self.mix(0x9e37_79b9);
        self.0
    }
}

/// C. Wellons, "Prospecting for Hash Functions": `lowbias32`, a bijection in which each bit of the input changes
/// every bit of the output about half of the time.
const fn scrambled(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_counts() {
        let draw = |values: &[u32]| {
            let mut entropy = Entropy::new(7);
            values.iter().for_each(|value| entropy.mix(*value));
            entropy.draw()
        };
        let draws = [
            draw(&[]),
            draw(&[0]),
            draw(&[1]),
            draw(&[0, 1]),
            draw(&[1, 0]),
        ];
        for (n, one) in draws.iter().enumerate() {
            assert!(!draws[..n].contains(one));
        }
    }
}
