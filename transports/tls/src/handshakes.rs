//! How many handshakes there may be at a time, and for how long, and the threads that do them.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::io;

use latchbus_bus::threads;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::server::Limits;

/// The places for handshakes. Where all are taken, a new connection waits for one; whoever has had a place for longer
/// than the patience then loses it, so that clients that send nothing do not keep others out.
#[derive(Debug)]
pub(crate) struct Handshakes {
    places: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
    somebody_waits: Notify,
    patience: Duration,
}

/// The threads that do handshakes: a signature and a key agreement take the time of a hundred deliveries, and whoever
/// connects can cause them.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// When the system has no threads.
    pub(crate) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads::count());
        builder.thread_name("tls-handshakes");
        builder.on_thread_start(threads::lower_priority);
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    /// Does it there, without timers. When this future is dropped, it ends there too.
    ///
    /// # Errors
    /// Those of what is done.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let Some(runtime) = &self.0 else {
            return work.await;
        };
        let done = AbortOnDropHandle::new(runtime.spawn(work)).await;
        done.map_err(io::Error::other)?
    }
}

impl Drop for Threads {
    /// Waits for nobody: the last handle of a server may be dropped by what runs here.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A place for one handshake.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    handshakes: &'a Handshakes,
    since: Instant,
    _permit: Option<SemaphorePermit<'a>>,
}

/// Counts one that waits, also when it is given up.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handshakes {
    pub(crate) fn new(limits: &Limits) -> Self {
        let places = limits.handshakes.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Semaphore::new(places),
            waiting: AtomicUsize::new(0),
            max_waiting: limits.waiting,
            somebody_waits: Notify::new(),
            patience: limits.crowded_timeout,
        }
    }

    /// Waits for a place; none where as many wait as may. Cancel-safe.
    pub(crate) async fn enter(&self) -> Option<Place<'_>> {
        let permit = match self.places.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => {
                let before = self.waiting.fetch_add(1, Ordering::Relaxed);
                let _waits = Waits(&self.waiting);
                if before >= self.max_waiting {
                    return None;
                }
                self.somebody_waits.notify_waiters();
                // It is never closed.
                self.places.acquire().await.ok()
            }
        };
        Some(Place {
            handshakes: self,
            since: Instant::now(),
            _permit: permit,
        })
    }
}

impl Place<'_> {
    /// Until the place is to be left: at the deadline, or when others wait and it was had for long enough.
    pub(crate) async fn expires(&self, deadline: Instant) {
        let handshakes = self.handshakes;
        let expires = async {
            sleep(handshakes.patience.saturating_sub(self.since.elapsed())).await;
            loop {
                let somebody_waits = handshakes.somebody_waits.notified();
                if handshakes.waiting.load(Ordering::Relaxed) > 0 {
                    return;
                }
                somebody_waits.await;
            }
        };
        tokio::select! {
            () = sleep_until(deadline) => {}
            () = expires => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_place() -> Handshakes {
        Handshakes::new(&Limits {
            handshakes: 1,
            waiting: 1,
            ..Limits::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_kept_until_somebody_waits_for_it() {
        let handshakes = one_place();
        let deadline = Instant::now() + Duration::from_secs(10);
        let began = Instant::now();
        let first = handshakes.enter().await.unwrap();
        first.expires(deadline).await;
        assert_eq!(began.elapsed(), Duration::from_secs(10));
        drop(first);

        let began = Instant::now();
        let deadline = began + Duration::from_secs(10);
        let silent = async {
            let place = handshakes.enter().await.unwrap();
            place.expires(deadline).await;
        };
        let other = async {
            sleep(Duration::from_millis(300)).await;
            let _place = handshakes.enter().await.unwrap();
            began.elapsed()
        };
        let ((), waited) = tokio::join!(silent, other);
        assert_eq!(waited, Duration::from_secs(1));
        assert_eq!(handshakes.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_waiting_is_no_longer_counted() {
        let handshakes = one_place();
        let place = handshakes.enter().await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(5), handshakes.enter());
        let one_too_many = async {
            tokio::task::yield_now().await;
            handshakes.enter().await
        };
        let (waited, refused) = tokio::join!(waits, one_too_many);
        assert!(waited.is_err() && refused.is_none());
        let began = Instant::now();
        place.expires(began + Duration::from_secs(7)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(7));
    }
}
