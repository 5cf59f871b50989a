//! How much may be under way to a peer.
//!
//! Behind a socket the two kernels hold megabytes: a peer that reads slowly, or that has stopped for a
//! while, would work through all of that before it sees the newest value. So the link counts what it
//! sends, puts pings in between, and takes their pongs (which a peer must send, RFC 6455 §5.5.2) as a word
//! of how far the peer has read. What is not sent stays in the hub, where newer state replaces older.
//!
//! The window is small. It grows while it is what limits a peer that answers promptly, so that a large
//! snapshot takes its few round trips; and shrinks again for a peer that falls behind or has little to get.

use core::time::Duration;

use tokio::time::Instant;

/// The window at the beginning, and the smallest.
const SMALLEST: u64 = 16 << 10;

/// The largest window.
const LARGEST: u64 = 1 << 20;

/// A ping goes out when so much went out since the last one.
const PROBE_EVERY: u64 = 4 << 10;

/// An answer is prompt when it took no longer than this and twice the shortest time so far; at five times this
/// it is late.
const PROMPT: Duration = Duration::from_millis(50);

/// What a ping carries and its pong gives back.
pub(crate) type Probe = [u8; 16];

#[derive(Debug)]
pub(crate) struct Flow {
    begun: Instant,
    /// Bytes from the beginning: all that was buffered, up to the last ping, up to the last pong.
    produced: u64,
    probed: Option<u64>,
    confirmed: u64,
    /// Whether any pong has come. A peer that sends none is not limited: it may be broken in this alone.
    answers: bool,
    window: u64,
    /// Whether the window was exhausted since the last pong.
    limited: bool,
    fastest: Duration,
}

impl Flow {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            produced: 0,
            probed: None,
            confirmed: 0,
            answers: false,
            window: SMALLEST,
            limited: false,
            fastest: Duration::MAX,
        }
    }

    /// How many bytes may still be buffered.
    pub(crate) fn room(&mut self) -> usize {
        if !self.answers {
            return usize::MAX;
        }
        let under_way = self.produced - self.confirmed;
        let room = self.window.saturating_sub(under_way);
        self.limited |= room == 0;
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// So many bytes were buffered.
    pub(crate) fn produce(&mut self, bytes: usize) {
        self.produced += bytes as u64;
    }

    /// A ping to send behind what was buffered, if it is time for one. While the window is exhausted there is
    /// always one under way.
    pub(crate) fn probe(&mut self, now: impl FnOnce() -> Instant) -> Option<Probe> {
        let due = match self.probed {
            Some(probed) => self.produced - probed >= PROBE_EVERY,
            None => true,
        };
        if !due {
            return None;
        }
        self.probed = Some(self.produced);
        let micros = now().duration_since(self.begun).as_micros() as u64;
        let probe = u128::from(self.produced) << 64 | u128::from(micros);
        Some(probe.to_be_bytes())
    }

    /// A pong has come. One that answers none of the probes is ignored.
    pub(crate) fn answered(&mut self, probe: Probe, now: Instant) {
        let probe = u128::from_be_bytes(probe);
        let (position, micros) = ((probe >> 64) as u64, probe as u64);
        let sent = self.begun.checked_add(Duration::from_micros(micros));
        let is_ours = self.probed.is_some_and(|probed| position <= probed);
        let (true, Some(sent)) = (is_ours, sent) else {
            return;
        };
        let took = now.saturating_duration_since(sent);
        self.answers = true;
        self.confirmed = self.confirmed.max(position);
        self.fastest = self.fastest.min(took);
        let prompt = PROMPT + 2 * self.fastest;
        if took > 5 * prompt || !self.limited {
            self.window = (self.window / 2).max(SMALLEST);
        } else if took <= prompt {
            self.window = (self.window * 2).min(LARGEST);
        }
        self.limited = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills the window, and gives the last ping.
    fn fill(flow: &mut Flow, now: Instant) -> Probe {
        let mut last = None;
        while flow.room() > 0 {
            flow.produce(1000);
            last = flow.probe(|| now).or(last);
        }
        last.expect("a ping is under way")
    }

    fn started() -> (Flow, Instant) {
        let now = Instant::now();
        let mut flow = Flow::new(now);
        flow.produce(100);
        let probe = flow.probe(|| now).unwrap();
        flow.answered(probe, now + Duration::from_millis(1));
        (flow, now)
    }

    #[test]
    fn a_peer_that_does_not_answer_is_not_limited() {
        let now = Instant::now();
        let mut flow = Flow::new(now);
        for _ in 0..1000 {
            flow.produce(1 << 20);
            flow.probe(|| now);
        }
        assert_eq!(flow.room(), usize::MAX);
    }

    #[test]
    fn a_peer_that_stops_is_owed_one_window() {
        let (mut flow, now) = started();
        fill(&mut flow, now);
        assert!(flow.produced <= SMALLEST + 1000 + 100);
        assert_eq!(flow.room(), 0);
    }

    #[test]
    fn the_window_grows_for_a_prompt_peer_and_shrinks_for_a_late_one() {
        let (mut flow, mut now) = started();
        for _ in 0..10 {
            let probe = fill(&mut flow, now);
            now += Duration::from_millis(10);
            flow.answered(probe, now);
        }
        assert_eq!(flow.window, LARGEST);
        for _ in 0..10 {
            let probe = fill(&mut flow, now);
            now += Duration::from_secs(1);
            flow.answered(probe, now);
        }
        assert_eq!(flow.window, SMALLEST);
    }

    #[test]
    fn the_window_shrinks_when_it_is_not_needed() {
        let (mut flow, now) = started();
        flow.window = LARGEST;
        for _ in 0..10 {
            flow.produce(PROBE_EVERY as usize);
            let probe = flow.probe(|| now).unwrap();
            flow.answered(probe, now);
        }
        assert_eq!(flow.window, SMALLEST);
    }

    #[test]
    fn invented_answers_are_ignored() {
        let (mut flow, now) = started();
        fill(&mut flow, now);
        for probe in [[0xff; 16], {
            let mut probe = [0; 16];
            probe[..8].copy_from_slice(&(flow.produced + 1).to_be_bytes());
            probe
        }] {
            flow.answered(probe, now);
            assert_eq!(flow.room(), 0);
        }
        // Of long ago, and of a time to come.
        flow.answered([0; 16], now);
        let mut late = flow.probed.unwrap().to_be_bytes().to_vec();
        late.extend([0xff; 8]);
        flow.answered(late.try_into().unwrap(), now);
        assert!(flow.room() <= LARGEST as usize);
    }
}
