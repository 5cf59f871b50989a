//! The disk of one client's notes: the bus's store.

use std::sync::Arc;

use latchbus_bus::{Client, Note as Stored, Publish, PublishRefused, Receipt, Wake};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::registry::session_name;
use crate::record::Note;

/// Whose the notes are in the bus's store.
pub(crate) const OWNER: &str = "mqtt";

/// What is remembered of one client after a restart. Clones are handles to one.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    owner: Arc<str>,
    name: Arc<str>,
}

/// A batch of notes on its way to the disk.
#[derive(Debug)]
pub(crate) struct Storing {
    outcome: oneshot::Receiver<Result<(), PublishRefused>>,
    /// The outcome, where somebody has waited for it.
    known: Option<Result<(), PublishRefused>>,
    /// Ends with the connection, which then stores its notes again.
    _task: AbortOnDropHandle<()>,
}

impl Disk {
    /// None where nothing is stored.
    pub(crate) fn of(client: &Client) -> Option<Self> {
        client.bus().is_stored().then(|| {
            Self(Arc::new(Inner {
                client: client.clone(),
                owner: OWNER.into(),
                name: session_name(&client.principal()).into(),
            }))
        })
    }

    /// Whose it is.
    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    /// The time by which sessions and wills end, in milliseconds.
    pub(crate) fn deadline_ms(&self) -> u64 {
        self.0.client.bus().clock().deadline_ms()
    }

    pub(crate) fn note(&self, note: Note) -> Stored {
        let (owner, name) = (Arc::clone(&self.0.owner), Arc::clone(&self.0.name));
        match note {
            Note::Keep { part, value } => Stored::keep(owner, name, part, value),
            Note::Forget { part } => Stored::forget(owner, name, part),
            Note::ForgetAll => Stored::forget_all(owner, name),
        }
    }

    /// Stores a batch; `wake` is called when that is known.
    pub(crate) fn store(&self, notes: Vec<Note>, wake: Wake) -> Storing {
        let notes = notes.into_iter().map(|note| self.note(note)).collect();
        let client = self.0.client.clone();
        let (known, outcome) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stored = client.remember(notes).await.await;
            // Nobody waits for it when the connection has ended.
            let _gone = known.send(stored.map(drop));
            wake.wake();
        });
        Storing {
            outcome,
            known: None,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Hands notes to the store, which keeps them behind whatever was handed to it before, without waiting until
    /// it has.
    pub(crate) async fn remember(&self, notes: Vec<Note>) {
        if notes.is_empty() {
            return;
        }
        let notes = notes.into_iter().map(|note| self.note(note)).collect();
        drop(self.0.client.remember(notes).await);
    }

    /// Publishes a will, and with it, in one step, remembers that it was. Where it is refused, nothing is
    /// remembered.
    pub(crate) async fn publish(&self, mut will: Publish, notes: &[Note]) -> Receipt {
        will.notes = notes.iter().map(|note| self.note(note.clone())).collect();
        self.0.client.enqueue_will(will).await
    }
}

impl Storing {
    /// Waits until [`outcome`](Self::outcome) has something new to say; false where the bus is closed. Cancel-safe.
    pub(crate) async fn known(&mut self) -> bool {
        if self.known.is_some() {
            return false;
        }
        let outcome = (&mut self.outcome).await;
        let outcome = outcome.unwrap_or(Err(PublishRefused::Closed));
        let is_open = outcome != Err(PublishRefused::Closed);
        self.known = Some(outcome);
        is_open
    }

    /// What became of it, once that is known.
    pub(crate) fn outcome(&mut self) -> Option<Result<(), PublishRefused>> {
        if self.known.is_some() {
            return self.known.clone();
        }
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(PublishRefused::Closed)),
        }
    }
}
