//! Contacts bounce: a press is one only when the pin has settled.

/// How often a pin is to be sampled.
pub const SAMPLE_MS: u64 = 2;

/// So many equal samples make a level: 8 ms, longer than the contacts of common switches bounce.
const SETTLED: u8 = 4;

/// One pin's history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Debouncer {
    pressed: bool,
    /// Samples in a row that differ from `pressed`.
    differing: u8,
}

impl Debouncer {
    /// A released button.
    pub const fn new() -> Self {
        Self {
            pressed: false,
            differing: 0,
        }
    }

    /// Takes the next sample, every [`SAMPLE_MS`]. True when the button has just been pressed.
    pub fn sample(&mut self, closed: bool) -> bool {
        if closed == self.pressed {
            self.differing = 0;
            return false;
        }
        self.differing += 1;
        if self.differing < SETTLED {
            return false;
        }
        self.differing = 0;
        self.pressed = closed;
        closed
    }

    /// Whether the button is down.
    pub const fn is_pressed(&self) -> bool {
        self.pressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presses(levels: &str) -> usize {
        let mut debouncer = Debouncer::new();
        let samples = levels.bytes().map(|level| debouncer.sample(level == b'1'));
        samples.filter(|pressed| *pressed).count()
    }

    #[test]
    fn bounces_count_once_and_glitches_never() {
        assert_eq!(presses("0000000011111111"), 1);
        assert_eq!(presses("0101101111111101011000000"), 1);
        assert_eq!(presses("1110111011100000"), 0);
        assert_eq!(presses("111100001111"), 2);
        assert_eq!(presses("11110001111000"), 1, "a glitch while held");
    }
}
