//! What a subscription brings, as a stream.

use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use latchbus_core::topic::TopicName;

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub topic: TopicName<String>,
    /// What it says.
    pub payload: Bytes,
    /// Whether it is a topic's last value from before the subscription.
    pub retained: bool,
}

/// The messages of one subscription. It ends when the client is closed or the server has refused the
/// subscription; dropping it ends the subscription.
///
/// It holds a bounded number of messages that have not been taken. Beyond it, the oldest are dropped
/// and counted: the newest state is never lost.
#[derive(Debug)]
pub struct Messages(Arc<Inbox>);

/// The queue between the client and one stream.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    bound: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Message>,
    missed: u64,
    ended: bool,
    refused: bool,
    waker: Option<Waker>,
}

impl Messages {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Self(inbox)
    }

    /// How many messages were dropped because they were not taken in time.
    pub fn missed(&self) -> u64 {
        self.0.lock().missed
    }

    /// Whether the server has refused the subscription.
    pub fn is_refused(&self) -> bool {
        self.0.lock().refused
    }
}

impl Stream for Messages {
    type Item = Message;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let mut state = self.0.lock();
        if let Some(message) = state.queue.pop_front() {
            return Poll::Ready(Some(message));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Inbox {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            state: Mutex::default(),
            bound: bound.max(1),
        }
    }

    pub(crate) fn push(&self, message: Message) {
        let waker = {
            let mut state = self.lock();
            if state.queue.len() >= self.bound {
                state.queue.pop_front();
                state.missed += 1;
            }
            state.queue.push_back(message);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn end(&self, refused: bool) {
        let waker = {
            let mut state = self.lock();
            state.ended = true;
            state.refused = refused;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
