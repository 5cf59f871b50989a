//! The updates of one filter, as the user of a client takes them.

use core::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};
use std::sync::Arc;

use futures_util::Stream;
use latchbus_core::hub::Cursor;

use super::Handle;
use super::message::{Message, Refused};

/// The updates of one subscription, as a stream.
///
/// A new subscription begins with the last value of every topic that matches, in the order of their
/// revisions, then [`Update::Synced`], then what is live. After a reconnect it goes on where it was: of state
/// that changed meanwhile the newest value comes, of events what the server's recent ring still holds, and
/// [`Update::Synced`] again. If the server can't tell any more what changed, [`Update::Reset`] comes and
/// then everything.
///
/// A reader that is slower than the server finds the same: at [`max_queue`](super::Options::max_queue) updates, or 4 MiB,
/// the subscription is ended on the server, and begun again behind the last update when half of them are
/// taken. It delays no other subscription and no acknowledgement.
///
/// An error is the last item: the server refuses the subscription. The stream ends when the client is
/// closed.
pub struct Subscription {
    handle: Arc<Handle>,
    key: u64,
}

impl Subscription {
    pub(super) fn new(handle: Arc<Handle>, key: u64) -> Self {
        Self { handle, key }
    }
}

impl Stream for Subscription {
    type Item = Result<Update, SubscriptionError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let shared = &self.handle.shared;
        let mut machine = shared.machine();
        let (update, resumes) = machine.take(self.key);
        let polled = match (update, machine.inbox(self.key)) {
            (Some(update), _) => Poll::Ready(Some(Ok(update))),
            (None, None) => Poll::Ready(None),
            (None, Some(inbox)) if inbox.ended => Poll::Ready(inbox.error().map(Err)),
            (None, Some(inbox)) => {
                inbox.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        };
        drop(machine);
        if resumes {
            shared.wake.notify_one();
        }
        polled
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.handle.shared.machine().unsubscribe(self.key);
        self.handle.shared.wake.notify_one();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// What a subscription brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// A value or an event.
    Message(Message),
    /// A topic's value was removed.
    Cleared {
        /// Which topic.
        topic: String,
        /// The revision of the removal.
        rev: u64,
        /// When the server accepted it, in Unix milliseconds.
        at: u64,
    },
    /// The reader knows the last value of every topic that matches; what follows is live. It comes again
    /// after each reconnect.
    Synced {
        /// Up to where.
        cursor: Cursor,
    },
    /// Events were lost to this subscription: at most so many.
    Gap {
        /// How many.
        missed: u64,
    },
    /// Forget all topics of this subscription: the server can't say what has changed since the last
    /// connection, and all values follow.
    Reset,
}

/// Why a subscription has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server refused the subscription: {0}")]
pub struct SubscriptionError(pub Refused);
