//! How a publish reaches the sessions that wait for it.

use core::{
    mem,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::task::AtomicWaker;

/// Locks a mutex whatever happened to its last holder: no holder here leaves a value half changed
/// behind, since panics are denied by lint.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a session loop look again for what there is to send.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Mailbox>);

/// Which of a session's subscriptions have news. Bounded by the number of its subscriptions: each is
/// put in by the one waiter that it has in the hub.
#[derive(Debug, Default)]
struct Mailbox {
    ready: Mutex<Vec<u64>>,
    woken: AtomicBool,
    waker: AtomicWaker,
}

impl Wake {
    /// Wakes the session.
    pub fn wake(&self) {
        self.0.woken.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    pub(crate) fn ready(&self, subscription: u64) {
        lock(&self.0.ready).push(subscription);
        self.wake();
    }

    /// Moves the ids of the subscriptions that have news to the end of `ready`.
    pub(crate) fn take_ready(&self, ready: &mut Vec<u64>) {
        let mut fresh = lock(&self.0.ready);
        if ready.is_empty() {
            mem::swap(&mut *fresh, ready);
        } else {
            ready.append(&mut fresh);
        }
    }

    /// Ready once after each run of wake-ups. One task at a time may wait.
    pub(crate) fn poll_woken(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        if self.0.woken.swap(false, Ordering::Acquire) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Whether both wake the same session.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn downgrade(&self) -> WeakWake {
        WeakWake(Arc::downgrade(&self.0))
    }
}

/// A [`Wake`] that does not keep its session's mailbox.
#[derive(Debug)]
pub(crate) struct WeakWake(Weak<Mailbox>);

impl WeakWake {
    pub(crate) fn wake(&self) {
        if let Some(mailbox) = self.0.upgrade() {
            Wake(mailbox).wake();
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}
