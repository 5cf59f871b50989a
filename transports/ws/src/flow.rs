//! How much may be under way to a peer.
//!
//! Behind a socket the two kernels hold megabytes: a peer that reads slowly, or that has stopped for a
//! while, would work through all of that before it sees the newest value. So the link counts what it
//! sends, puts pings in between, and takes their pongs (which a peer must send, RFC 6455 §5.5.2) as a word
//! of how far the peer has read. What is not sent stays in the hub, where newer state replaces older.
//!
//! The window is small. It grows while it is what limits a peer that answers promptly, so that a large
//! snapshot takes its few round trips; and shrinks again for a peer that falls behind or has little to get. A peer
//! whose answer is late gets nothing more until it comes, and then one batch at a time: what lies unread before a slow
//! reader is what makes its newest value old.

use core::time::Duration;

use tokio::time::Instant;

/// The window at the beginning, and of a peer that has little to get.
const USUAL: u64 = 16 << 10;

/// The smallest window, of a peer that is slow.
const SMALLEST: u64 = 2 << 10;

/// The largest window.
const LARGEST: u64 = 1 << 20;

/// A ping goes out when so much went out since the last one, or half a window,
const PROBE_EVERY: u64 = 4 << 10;

/// or something, so long after the last.
const PROBE_AFTER: Duration = Duration::from_millis(250);

/// An answer is prompt when it took no longer than this and twice the shortest time so far; at five times this
/// the window shrinks.
const PROMPT: Duration = Duration::from_millis(50);

/// What a ping carries and its pong gives back: how many bytes went before, modulo 2³². Four bytes, for they
/// come with most frames of a slow peer.
pub type Probe = [u8; 4];

/// What is under way to one peer.
#[derive(Debug)]
pub struct Flow {
    /// Bytes from the beginning: all that was buffered, up to the last ping, up to the last pong.
    produced: u64,
    probed: u64,
    confirmed: u64,
    /// When the last ping was sent.
    probed_at: Option<Instant>,
    /// The ping whose way there and back is being timed, one after the other: its position and when it was sent.
    timed: Option<(u64, Instant)>,
    /// The shortest that such a way took.
    fastest: Duration,
    /// Since when a ping waits for its pong.
    waits_since: Option<Instant>,
    /// Whether any pong has come. A peer that sends none is not limited: it may be broken in this alone.
    answers: bool,
    /// Whether the last pong that was timed was late, or one since.
    slow: bool,
    window: u64,
    /// Whether the window was exhausted since the last pong that was timed.
    limited: bool,
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

impl Flow {
    /// Of a connection that begins.
    pub fn new() -> Self {
        Self {
            produced: 0,
            probed: 0,
            confirmed: 0,
            probed_at: None,
            timed: None,
            fastest: Duration::MAX,
            waits_since: None,
            answers: false,
            slow: false,
            window: USUAL,
            limited: false,
        }
    }

    /// How many bytes may still be buffered.
    pub fn room(&mut self, now: impl FnOnce() -> Instant) -> usize {
        if !self.answers {
            return usize::MAX;
        }
        if let Some(since) = self.waits_since
            && (self.slow || now().saturating_duration_since(since) > self.prompt())
        {
            return 0;
        }
        let under_way = self.produced - self.confirmed;
        let room = self.window.saturating_sub(under_way);
        self.limited |= room == 0;
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// So many bytes were buffered.
    pub fn produce(&mut self, bytes: usize) {
        self.produced += bytes as u64;
    }

    /// A ping to send behind what was buffered, if it is time for one. While there is no room there is
    /// always one under way.
    pub fn probe(&mut self, now: impl FnOnce() -> Instant) -> Option<Probe> {
        let fresh = self.produced - self.probed;
        // The first asks whether the peer answers at all.
        if fresh == 0 && self.probed_at.is_some() {
            return None;
        }
        let now = now();
        let due = fresh >= PROBE_EVERY.min(self.window / 2)
            || self.waits_since.is_none()
                && (self.slow || self.probed_at.is_none_or(|at| now - at >= PROBE_AFTER));
        if !due {
            return None;
        }
        self.probed = self.produced;
        self.probed_at = Some(now);
        self.waits_since.get_or_insert(now);
        self.timed.get_or_insert((self.produced, now));
        Some((self.produced as u32).to_be_bytes())
    }

    /// A pong has come. One that answers none of the probes is ignored.
    pub fn answered(&mut self, probe: Probe, now: Instant) {
        // How far it lies behind the last ping.
        let behind = (self.probed as u32).wrapping_sub(u32::from_be_bytes(probe));
        let position = self.probed.checked_sub(behind.into());
        let Some(position) = position.filter(|position| *position >= self.confirmed) else {
            return;
        };
        let Some(since) = self.waits_since else {
            return;
        };
        self.answers = true;
        self.confirmed = position;
        self.waits_since = (behind > 0).then_some(now);
        match self.timed.take_if(|(timed, _)| *timed <= position) {
            Some((_, sent)) => self.adapt(now.saturating_duration_since(sent)),
            // It took at least as long as nothing came.
            None => self.slow |= now.saturating_duration_since(since) > self.prompt(),
        }
    }

    /// A ping and its pong took so long.
    fn adapt(&mut self, took: Duration) {
        self.fastest = self.fastest.min(took);
        let prompt = self.prompt();
        self.slow = took > prompt;
        if took > prompt.saturating_mul(5) {
            self.window = (self.window / 2).max(SMALLEST);
        } else if !self.limited {
            self.window = (self.window / 2).max(USUAL.min(self.window));
        } else if took <= prompt {
            self.window = (self.window * 2).min(LARGEST);
        }
        self.limited = false;
    }

    fn prompt(&self) -> Duration {
        PROMPT.saturating_add(self.fastest.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills the window, and gives the last ping.
    fn fill(flow: &mut Flow, now: Instant) -> Probe {
        let mut last = None;
        while flow.room(|| now) > 0 {
            flow.produce(1000);
            last = flow.probe(|| now).or(last);
        }
        last.expect("a ping is under way")
    }

    fn started() -> (Flow, Instant) {
        let now = Instant::now();
        let mut flow = Flow::new();
        flow.produce(100);
        let probe = flow.probe(|| now).unwrap();
        flow.answered(probe, now + Duration::from_millis(1));
        (flow, now)
    }

    #[test]
    fn a_peer_that_does_not_answer_is_not_limited() {
        let now = Instant::now();
        let mut flow = Flow::new();
        for _ in 0..1000 {
            flow.produce(1 << 20);
            flow.probe(|| now);
        }
        assert_eq!(flow.room(|| now), usize::MAX);
    }

    #[test]
    fn a_peer_that_stops_is_owed_one_window() {
        let (mut flow, now) = started();
        fill(&mut flow, now);
        assert!(flow.produced <= USUAL + 1000 + 100);
        assert_eq!(flow.room(|| now), 0);
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
        assert_eq!(flow.window, USUAL);
    }

    #[test]
    fn a_late_peer_gets_one_batch_at_a_time_until_it_is_prompt_again() {
        let (mut flow, mut now) = started();
        flow.produce(100);
        let probe = loop {
            now += Duration::from_millis(100);
            if let Some(probe) = flow.probe(|| now) {
                break probe;
            }
        };
        assert!(flow.room(|| now) > 0, "it has time to answer");
        now += PROMPT + Duration::from_millis(10);
        assert_eq!(flow.room(|| now), 0);
        flow.answered(probe, now);
        for took in [500, 1] {
            assert!(flow.room(|| now) > 0, "one batch");
            flow.produce(100);
            let probe = flow.probe(|| now).expect("each batch has its ping");
            assert_eq!(flow.room(|| now), 0);
            now += Duration::from_millis(took);
            flow.answered(probe, now);
        }
        flow.produce(100);
        assert_eq!(flow.probe(|| now), None);
        assert!(flow.room(|| now) > 0);
    }

    #[test]
    fn a_pong_that_was_not_timed_changes_no_window_and_is_late_after_a_silence() {
        let (mut flow, mut now) = started();
        let pings: Vec<_> = (0..3)
            .map(|_| {
                flow.produce(PROBE_EVERY as usize);
                flow.probe(|| now).unwrap()
            })
            .collect();
        now += Duration::from_millis(1);
        flow.answered(pings[0], now);
        let window = flow.window;
        now += Duration::from_secs(5);
        flow.answered(pings[1], now);
        assert_eq!((flow.slow, flow.window), (true, window));
        assert_eq!(flow.room(|| now), 0, "the last ping is not answered");
        now += Duration::from_millis(1);
        flow.answered(pings[2], now);
        assert!(flow.slow);
        assert!(flow.room(|| now) > 0, "one batch");
    }

    #[test]
    fn invented_answers_are_ignored() {
        let (mut flow, mut now) = started();
        now += Duration::from_secs(1);
        fill(&mut flow, now);
        let waits = flow.waits_since;
        // Of what was not sent, and of long ago.
        for position in [u32::MAX, flow.produced as u32 + 1, 0] {
            flow.answered(position.to_be_bytes(), now);
            assert_eq!((flow.room(|| now), flow.waits_since), (0, waits));
        }
    }
}
