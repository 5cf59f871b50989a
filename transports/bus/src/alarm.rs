//! A timer for what is put off again and again.

use core::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Wakes its task at a time that moves: a deadline that each message puts off. Where that is later than
/// the timer stands, the timer stays and is set anew only when it has rung, so that putting off costs nothing.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready at `at`; never without a time.
    pub fn poll_ring(&mut self, at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = at else {
            return Poll::Pending;
        };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.is_elapsed() || sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use core::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_time_that_it_was_last_told() {
        let begun = Instant::now();
        let at = |ms| Some(begun + Duration::from_millis(ms));
        let mut alarm = Alarm::default();
        let mut pending = async |ms, until| {
            let ring = poll_fn(|cx| alarm.poll_ring(at(ms), cx));
            let waited = tokio::time::timeout_at(begun + Duration::from_millis(until), ring);
            waited.await.is_err()
        };
        assert!(pending(100, 50).await);
        // Put off: the timer rings at 100, and nobody hears it before 150.
        assert!(pending(150, 110).await);
        assert!(!pending(150, 200).await);
        assert_eq!(Some(Instant::now()), at(150));
        // Brought forward.
        assert!(pending(900, 160).await);
        assert!(!pending(200, 1_000).await);
        assert_eq!(Some(Instant::now()), at(200));
    }
}
