//! Whether the store keeps up with what it is given.

use core::time::Duration;
use std::{sync::Mutex, time::Instant};

use tracing::{error, info, warn};

use crate::wake::lock;

/// A commit that takes longer is trouble that is told of.
const SLOW: Duration = Duration::from_secs(5);

/// Between two log lines about one trouble.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What is known of the commits: shared by the writer and those who ask.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the commit that is under way began.
    began: Option<Instant>,
    failing: Option<Trouble>,
    slow: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    reason: String,
    since: Instant,
    logged: Instant,
}

impl Trouble {
    fn new(reason: String) -> Self {
        let now = Instant::now();
        Self {
            reason,
            since: now,
            logged: now,
        }
    }

    /// Whether it is time for another line in the log.
    fn is_due(&mut self) -> bool {
        let due = self.logged.elapsed() >= LOG_INTERVAL;
        if due {
            self.logged = Instant::now();
        }
        due
    }
}

impl Health {
    /// What is wrong, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let state = lock(&self.0);
        if let Some(failing) = &state.failing {
            return Err(failing.reason.clone());
        }
        match state.began.map(|began| began.elapsed()) {
            Some(taken) if taken >= SLOW => Err(slow(taken)),
            _ => Ok(()),
        }
    }

    /// Tells of a commit that takes long. To be called every second, by somebody else than who commits.
    pub(crate) fn watch(&self) {
        let mut state = lock(&self.0);
        let Some(taken) = state.began.map(|began| began.elapsed()) else {
            return;
        };
        if taken < SLOW {
            return;
        }
        let first = state.slow.is_none();
        let trouble = state.slow.get_or_insert_with(|| Trouble::new(slow(taken)));
        if trouble.is_due() || first {
            warn!(target: "store", "{}; nothing is acknowledged until it is done", slow(taken));
        }
    }

    pub(crate) fn begin(&self) {
        lock(&self.0).began = Some(Instant::now());
    }

    /// A commit has succeeded.
    pub(crate) fn succeed(&self) {
        let mut state = lock(&self.0);
        state.began = None;
        if let Some(trouble) = state.failing.take().or(state.slow.take()) {
            let seconds = trouble.since.elapsed().as_secs();
            info!(target: "store", "the store works again, after {seconds} s");
        }
        state.slow = None;
    }

    /// A commit has failed, with so many messages that wait for it.
    pub(crate) fn fail(&self, reason: String, waiting: usize) {
        let mut state = lock(&self.0);
        state.began = None;
        let Some(trouble) = &mut state.failing else {
            error!(target: "store", "the store has failed: {reason}; nothing is acknowledged until it works");
            state.failing = Some(Trouble::new(reason));
            return;
        };
        trouble.reason = reason;
        if trouble.is_due() {
            let (seconds, reason) = (trouble.since.elapsed().as_secs(), &trouble.reason);
            error!(target: "store", "the store still fails after {seconds} s, {waiting} messages wait: {reason}");
        }
    }
}

fn slow(taken: Duration) -> String {
    format!("a commit has been under way for {} s", taken.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_takes_long_is_trouble_until_it_is_done() {
        let health = Health::default();
        health.begin();
        health.watch();
        assert_eq!(health.check(), Ok(()));
        lock(&health.0).began = Instant::now().checked_sub(SLOW);
        health.watch();
        assert_eq!(health.check(), Err(slow(SLOW)));
        assert!(lock(&health.0).slow.is_some());
        health.succeed();
        assert_eq!(health.check(), Ok(()));
        assert!(lock(&health.0).slow.is_none());
    }

    #[test]
    fn a_failure_lasts_until_a_commit_succeeds_and_its_reason_is_the_newest() {
        let health = Health::default();
        for reason in ["full", "gone"] {
            health.begin();
            health.fail(reason.into(), 0);
            assert_eq!(health.check(), Err(reason.into()));
        }
        health.begin();
        assert_eq!(health.check(), Err("gone".into()));
        health.succeed();
        assert_eq!(health.check(), Ok(()));
    }
}
