//! Answers on their way from the read loop to the write loop, in the order of the requests.

use core::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use std::{collections::VecDeque, sync::Mutex};

use futures_util::{FutureExt, task::AtomicWaker};

use crate::bus::{Accepted, Receipt};
use crate::link::Event;
use crate::refusal::PublishRefused;
use crate::wake::lock;

/// An answer, or the promise of one.
#[derive(Debug)]
pub(crate) enum Answer {
    Event(Event),
    Published { id: Option<u64>, receipt: Receipt },
}

/// The queue between the loops of one session, which run in one task. A promise at its head holds back the
/// answers behind it: acknowledgements go out in the order of the publishes (MQTT 3.1.1 §4.6).
///
/// It holds no memory until there is an answer: a channel would keep a block for each of ten thousand idle
/// connections.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    /// Answers and places; who wants one more waits.
    most: usize,
    /// The read loop, when it waits for a place.
    room: AtomicWaker,
    /// The write loop, when it waits for an answer.
    news: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    answers: VecDeque<Answer>,
    places: usize,
    ended: bool,
}

/// A place for an answer. Dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Outbox);

impl Outbox {
    /// An outbox for at most `most` answers.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            queue: Mutex::default(),
            most: most.max(1),
            room: AtomicWaker::new(),
            news: AtomicWaker::new(),
        }
    }

    /// Waits for a place. Cancel-safe.
    pub(crate) async fn reserve(&self) -> Place<'_> {
        poll_fn(|cx| {
            self.room.register(cx.waker());
            let mut queue = lock(&self.queue);
            if queue.answers.len() + queue.places >= self.most {
                return Poll::Pending;
            }
            queue.places += 1;
            Poll::Ready(Place(self))
        })
        .await
    }

    /// There will be no more answers than those that are here.
    pub(crate) fn end(&self) {
        lock(&self.queue).ended = true;
    }

    /// The next answer; `None` when there will be none. Cancel-safe: what it waits for stays here.
    pub(crate) async fn next(&self) -> Option<Event> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for a hand-written future.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.news.register(cx.waker());
        self.poll_first(cx)
    }

    /// The next answer, if it is there now.
    pub(crate) fn try_next(&self) -> Option<Event> {
        match self.poll_first(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    fn poll_first(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut queue = lock(&self.queue);
        loop {
            let event = match queue.answers.pop_front() {
                None if queue.ended => return Poll::Ready(None),
                None => {
                    // An idle connection holds nothing.
                    queue.answers = VecDeque::new();
                    return Poll::Pending;
                }
                Some(Answer::Event(event)) => Some(event),
                Some(Answer::Published { id, mut receipt }) => {
                    let Poll::Ready(result) = Pin::new(&mut receipt).poll(cx) else {
                        queue.answers.push_front(Answer::Published { id, receipt });
                        return Poll::Pending;
                    };
                    published(id, result)
                }
            };
            self.room.wake();
            if event.is_some() {
                return Poll::Ready(event);
            }
        }
    }
}

impl Place<'_> {
    /// Puts the answer to a publish into the place: what is known of it, or the promise.
    pub(crate) fn promise(self, id: Option<u64>, mut receipt: Receipt) {
        match (&mut receipt).now_or_never() {
            None => self.send(Answer::Published { id, receipt }),
            Some(result) => {
                if let Some(event) = published(id, result) {
                    self.send(Answer::Event(event));
                }
            }
        }
    }

    /// Puts an answer into the place.
    pub(crate) fn send(self, answer: Answer) {
        lock(&self.0.queue).answers.push_back(answer);
        self.0.news.wake();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.0.queue).places -= 1;
        self.0.room.wake();
    }
}

/// What a peer is told of a publish: nothing where it went well and nobody asked, and nothing when the
/// bus closes, for an answer could be taken for the end of the matter. The link ends instead, and
/// the peer publishes again.
fn published(id: Option<u64>, result: Result<Accepted, PublishRefused>) -> Option<Event> {
    match (id, result) {
        (Some(id), Ok(accepted)) => Some(Event::Published {
            id,
            rev: accepted.rev,
        }),
        (None, Ok(_)) | (_, Err(PublishRefused::Closed)) => None,
        (id, Err(refused)) => Some(Event::Refused { id, refused }),
    }
}
