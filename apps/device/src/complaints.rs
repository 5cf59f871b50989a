//! What is said of a server that cannot be reached, and how often.

use core::time::Duration;

use tokio::time::Instant;

/// How often the same reason is said while the device tries on.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Reasons that are remembered; a server does not fail in more ways at a time.
const MAX_REASONS: usize = 4;

/// The reasons why there is no connection, since there was one: each is said when it comes up, and again while it lasts.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    /// The last one at the end, with the time when it was said.
    said: Vec<(Option<String>, Instant)>,
}

impl Complaints {
    /// Takes in the reason of another attempt. True: it is to be said.
    pub(crate) fn is_news(&mut self, reason: Option<String>, now: Instant) -> bool {
        let known = self.said.iter().position(|(said, _)| *said == reason);
        let before = known.map(|at| self.said.remove(at).1);
        let is_news = before.is_none_or(|at| now.saturating_duration_since(at) >= SAY_AGAIN);
        if self.said.len() == MAX_REASONS {
            self.said.remove(0);
        }
        let said_at = before.filter(|_| !is_news).unwrap_or(now);
        self.said.push((reason, said_at));
        is_news
    }

    /// The last reason.
    pub(crate) fn last(&self) -> Option<&str> {
        self.said.last().and_then(|(reason, _)| reason.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_said_once_a_minute() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        let mut says = |reason: &str, seconds| {
            complaints.is_news(
                Some(reason.to_owned()),
                start + Duration::from_secs(seconds),
            )
        };
        assert!(says("refused", 0));
        assert!(!says("refused", 59));
        assert!(says("time-out", 59));
        assert!(!says("refused", 59));
        assert!(says("refused", 60));
        assert!(!says("time-out", 61));
        assert!(!says("refused", 119));
        assert_eq!(complaints.last(), Some("refused"));
    }

    #[test]
    fn no_more_reasons_are_remembered_than_may() {
        let mut complaints = Complaints::default();
        for n in 0..100 {
            assert!(complaints.is_news(Some(n.to_string()), Instant::now()));
            assert!(complaints.said.len() <= MAX_REASONS);
        }
    }
}
