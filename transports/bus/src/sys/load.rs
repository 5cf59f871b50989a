//! How much goes on, as moving averages.

use tokio::time::Instant;

/// What is averaged, in mosquitto's names.
const NAMES: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/dropped",
    "publish/received",
    "publish/sent",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
];
/// Over how long, in minutes.
const SPANS: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

/// The exponentially weighted moving averages of counters, each in units a minute.
#[derive(Debug)]
pub(super) struct Loads {
    updated: Instant,
    counts: [u64; NAMES.len()],
    averages: [[f64; SPANS.len()]; NAMES.len()],
}

impl Loads {
    /// Nothing was counted yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            updated: now,
            counts: [0; _],
            averages: [[0.0; _]; _],
        }
    }

    /// Takes in where the counters stand now, in the order of the names.
    pub(super) fn update(&mut self, now: Instant, counts: [u64; NAMES.len()]) {
        let minutes = now.duration_since(self.updated).as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        let before = core::mem::replace(&mut self.counts, counts);
        self.updated = now;
        let grown = counts
            .iter()
            .zip(before)
            .map(|(now, then)| now.saturating_sub(then));
        for (grown, averages) in grown.zip(&mut self.averages) {
            let per_minute = grown as f64 / minutes;
            for (average, (_, span)) in averages.iter_mut().zip(SPANS) {
                *average = per_minute + (-minutes / span).exp() * (*average - per_minute);
            }
        }
    }

    /// Each average with its topic below `$SYS/broker/load/`.
    pub(super) fn each(&self, mut show: impl FnMut(&str, f64)) {
        for (name, averages) in NAMES.iter().zip(&self.averages) {
            for (average, (span, _)) in averages.iter().zip(SPANS) {
                show(&format!("{name}/{span}"), *average);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn averages(loads: &Loads, name: &str) -> Vec<f64> {
        let mut found = Vec::new();
        loads.each(|topic, value| {
            if topic.starts_with(&format!("{name}/")) {
                found.push((value * 100.0).round() / 100.0);
            }
        });
        found
    }

    #[test]
    fn they_follow_as_mosquitto_has_them() {
        let start = Instant::now();
        let mut loads = Loads::new(start);
        loads.update(start, [9; _]);
        assert_eq!(averages(&loads, "sockets"), [0.0; 3]);
        // 10 in 10 s are 60 a minute: 60 · (1 − e^(−1/6)) and so on.
        let mut counts = [0; NAMES.len()];
        counts[0] = 10;
        loads.update(start + Duration::from_secs(10), counts);
        assert_eq!(averages(&loads, "messages/received"), [9.21, 1.97, 0.66]);
        assert_eq!(averages(&loads, "messages/sent"), [0.0; 3]);
        // An hour of the same.
        for n in 2..=360 {
            counts[0] = 10 * n;
            loads.update(start + Duration::from_secs(10 * n), counts);
        }
        let [one, five, fifteen] = averages(&loads, "messages/received")[..] else {
            panic!("three spans")
        };
        assert_eq!((one, five), (60.0, 60.0));
        assert!((58.0..60.0).contains(&fifteen));
    }
}
