//! What rules say of a topic, as bits.

use core::ops::{BitOr, BitOrAssign};

/// A set of: may be published at this QoS, retained or not; may be read at this QoS; must not be published; must not be
/// read. Rules that match are united, and what denies wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Marks(u16);

/// The greatest QoS there is.
pub(super) const MAX_QOS: u8 = 2;

const RETAINED: u8 = MAX_QOS + 1;
const READ: u8 = 2 * RETAINED;
const DENY_PUBLISH: u16 = 1 << (READ + RETAINED);
const DENY_READ: u16 = DENY_PUBLISH << 1;
const DENIES: u16 = DENY_PUBLISH | DENY_READ;

/// A bit for each QoS to `max_qos`.
const fn up_to(max_qos: u8) -> u16 {
    (1 << (max_qos + 1)) - 1
}

impl Marks {
    pub(super) const NONE: Self = Self(0);
    pub(super) const DENY_PUBLISH: Self = Self(DENY_PUBLISH);
    pub(super) const DENY_READ: Self = Self(DENY_READ);

    /// A rule that allows publishes to `max_qos` (2 at most), retained ones too or not.
    pub(super) const fn publish(max_qos: u8, retain: bool) -> Self {
        let bits = up_to(max_qos);
        Self(if retain {
            bits | bits << RETAINED
        } else {
            bits
        })
    }

    /// A rule that allows to read, at `max_qos` (2 at most).
    pub(super) const fn read(max_qos: u8) -> Self {
        Self(up_to(max_qos) << READ)
    }

    pub(super) const fn publishes(self, qos: u8, retain: bool) -> bool {
        if qos > MAX_QOS || self.0 & DENY_PUBLISH != 0 {
            return false;
        }
        self.0 & (1 << (qos + if retain { RETAINED } else { 0 })) != 0
    }

    /// Whether there is a rule that allows to publish, whatever denies it.
    pub(super) const fn allows_publish(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether there is a rule that allows to read, and none that denies it.
    pub(super) const fn reads(self) -> bool {
        self.0 & (1 << READ) != 0 && !self.denies_read()
    }

    pub(super) const fn denies_read(self) -> bool {
        self.0 & DENY_READ != 0
    }

    /// Whether a rule says something of reading.
    pub(super) const fn concerns_reading(self) -> bool {
        self.0 & (1 << READ | DENY_READ) != 0
    }

    /// The greatest QoS at which it may be read; none if it may not.
    pub(super) const fn read_qos(self) -> Option<u8> {
        if !self.reads() {
            return None;
        }
        let mut qos = MAX_QOS;
        while self.0 & (1 << (READ + qos)) == 0 {
            qos -= 1;
        }
        Some(qos)
    }

    pub(super) const fn denies(self) -> Self {
        Self(self.0 & DENIES)
    }
}

impl BitOr for Marks {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Marks {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
