//! Futures that share a task without being polled for each other's sake.

use core::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
};
use std::{sync::Arc, task::Wake};

use futures_util::task::AtomicWaker;

/// A future that is polled only when it was woken itself. A task whose halves wait for different things
/// polls them all at each wake-up, and of a message's way to its subscribers most was such vain polling.
#[derive(Debug)]
pub(crate) struct OnBell<F> {
    future: F,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future + Unpin> OnBell<F> {
    pub(crate) fn new(future: F) -> Self {
        let bell = Bell {
            rung: AtomicBool::new(true),
            task: AtomicWaker::new(),
        };
        Self {
            future,
            bell: Arc::new(bell),
        }
    }
}

impl<F: Future + Unpin> Future for OnBell<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.bell.task.register(cx.waker());
        if !self.bell.rung.swap(false, Ordering::Acquire) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.bell));
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use core::future::poll_fn;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn it_is_polled_when_it_was_woken_and_not_before() {
        let (sender, mut receiver) = oneshot::channel();
        let mut polls = 0;
        {
            let mut future = OnBell::new(poll_fn(|cx| {
                polls += 1;
                Pin::new(&mut receiver).poll(cx)
            }));
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..3 {
                assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
            }
            sender.send(7).unwrap();
            assert_eq!(Pin::new(&mut future).poll(&mut cx), Poll::Ready(Ok(7)));
        }
        assert_eq!(polls, 2);
    }
}
