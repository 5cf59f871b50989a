//! What happens when: all of it follows from the seed.

use core::time::Duration;

use fastrand::Rng;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Act {
    /// The server is killed, and is back after this time.
    KillServer { back: Duration },
    /// A device is killed, and is back after this time.
    KillDevice { device: usize, back: Duration },
    /// A device's connection is cut.
    Cut { device: usize },
    /// A device's network is slow for this time.
    Slow {
        device: usize,
        most: Duration,
        lasts: Duration,
    },
    /// A device's connections hang for this time.
    HalfOpen { device: usize, lasts: Duration },
    /// A device has no network for this time.
    Outage { device: usize, lasts: Duration },
    /// What a device has published is published again by somebody else.
    Replay { device: usize },
    /// The server's disk is full for this time; it may be killed meanwhile.
    FillDisk { lasts: Duration, kill: bool },
}

/// A plan for one run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    /// What happens, and when after the beginning, in order.
    pub(super) acts: Vec<(Duration, Act)>,
}

impl Schedule {
    /// A plan for `devices`, of so long.
    pub(super) fn new(random: &mut Rng, devices: usize, length: Duration) -> Self {
        let mut acts = Vec::new();
        let mut at = Duration::from_millis(700);
        // One full disk in each run, somewhere in its middle.
        let full_at = length.mul_f64(0.3 + 0.4 * random.f64());
        let mut was_full = false;
        let mut deck = Vec::new();
        while at < length {
            let act = match at >= full_at && !was_full {
                true => {
                    was_full = true;
                    Act::FillDisk {
                        lasts: milliseconds(random, 500..2_000),
                        kill: random.bool(),
                    }
                }
                false => {
                    // Of every sixteen acts so many are of each kind, so that no run is calm by chance.
                    if deck.is_empty() {
                        deck.extend(0..KINDS);
                        random.shuffle(&mut deck);
                    }
                    act(deck.pop().unwrap(), random, devices)
                }
            };
            acts.push((at, act));
            at += milliseconds(random, 50..400);
        }
        Self { acts }
    }
}

/// What [`act`] tells apart.
const KINDS: usize = 16;

fn act(kind: usize, random: &mut Rng, devices: usize) -> Act {
    let device = random.usize(..devices);
    match kind {
        0..2 => Act::KillServer {
            back: milliseconds(random, 0..800),
        },
        2..6 => Act::KillDevice {
            device,
            back: milliseconds(random, 0..1_500),
        },
        6..10 => Act::Cut { device },
        10..12 => Act::Slow {
            device,
            most: milliseconds(random, 5..300),
            lasts: milliseconds(random, 500..3_000),
        },
        12 => Act::HalfOpen {
            device,
            lasts: milliseconds(random, 200..3_000),
        },
        13 => Act::Outage {
            device,
            lasts: milliseconds(random, 200..4_000),
        },
        _ => Act::Replay { device },
    }
}

fn milliseconds(random: &mut Rng, range: core::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule() {
        let schedule = |seed| Schedule::new(&mut Rng::with_seed(seed), 10, Duration::from_secs(20));
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7), schedule(8));
        let full = |(_, act): &&(_, Act)| matches!(act, Act::FillDisk { .. });
        assert_eq!(schedule(7).acts.iter().filter(full).count(), 1);
    }
}
