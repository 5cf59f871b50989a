//! Answers on their way from the read loop to the write loop, in the order of the requests.

use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::bus::{Accepted, Receipt};
use crate::link::Event;
use crate::refusal::PublishRefused;

/// An answer, or the promise of one.
#[derive(Debug)]
pub(crate) enum Answer {
    Event(Event),
    Published { id: Option<u64>, receipt: Receipt },
}

/// The receiving end. A promise at its head holds back the answers behind it: acknowledgements go out in
/// the order of the publishes (MQTT 3.1.1 §4.6).
#[derive(Debug)]
pub(crate) struct Outbox {
    answers: mpsc::Receiver<Answer>,
    head: Option<Answer>,
}

impl Outbox {
    /// An outbox for at most `most` answers; who sends more waits.
    pub(crate) fn new(most: usize) -> (mpsc::Sender<Answer>, Self) {
        let (sender, answers) = mpsc::channel(most.max(1));
        let head = None;
        (sender, Self { answers, head })
    }

    /// The next answer; `None` when there will be none. Cancel-safe: what it waits for stays here.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if self.head.is_none() {
                self.head = Some(self.answers.recv().await?);
            }
            let event = match &mut self.head {
                Some(Answer::Published { id, receipt }) => {
                    let (id, result) = (*id, receipt.await);
                    self.head = None;
                    published(id, result)
                }
                head => match head.take() {
                    Some(Answer::Event(event)) => Some(event),
                    _ => None,
                },
            };
            if event.is_some() {
                return event;
            }
        }
    }

    /// The next answer, if it is there now.
    pub(crate) fn try_next(&mut self) -> Option<Event> {
        self.next().now_or_never().flatten()
    }
}

/// What a peer is told of a publish: nothing where it went well and nobody asked, and nothing when the
/// bus closes, for an answer could be taken for the end of the matter. The link ends instead, and
/// the peer publishes again.
pub(crate) fn published(
    id: Option<u64>,
    result: Result<Accepted, PublishRefused>,
) -> Option<Event> {
    match (id, result) {
        (Some(id), Ok(accepted)) => Some(Event::Published {
            id,
            rev: accepted.rev,
        }),
        (None, Ok(_)) | (_, Err(PublishRefused::Closed)) => None,
        (id, Err(refused)) => Some(Event::Refused { id, refused }),
    }
}
