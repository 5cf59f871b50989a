//! Waiting for what must happen.

use core::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

#[path = "../deadline.rs"]
mod constant;
pub use constant::DEADLINE;

/// Awaits `future`, which must be done before the [`DEADLINE`].
///
/// # Panics
/// When it is not, with `what` was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Waits until `condition` gives a value, for what tells nobody that it has changed.
///
/// # Panics
/// When that does not happen before the [`DEADLINE`].
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        sleep(Duration::from_millis(5)).await;
    }
}
