//! What one subscription has brought and its reader has not taken yet.

use core::task::Waker;
use std::collections::VecDeque;

use latchbus_core::hub::{Cursor, Mode};
use latchbus_core::topic::TopicFilter;

use super::message::Refused;
use super::{SubscriptionError, Update};

/// Bytes of topics and payloads in one inbox before it is parked.
const QUEUE_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) filter: TopicFilter<String>,
    pub(super) mode: Mode,
    /// Its subscription's id on this connection.
    pub(super) id: Option<u64>,
    /// Up to where all that matches has been put in here.
    pub(super) cursor: Option<Cursor>,
    /// Full: its subscription is ended, and begun again behind the cursor when there is room.
    pub(super) parked: bool,
    /// Nothing more comes.
    pub(super) ended: bool,
    pub(super) waker: Option<Waker>,
    queue: VecDeque<Update>,
    bytes: usize,
    refused: Option<Refused>,
}

impl Inbox {
    pub(super) fn new(filter: TopicFilter<String>, mode: Mode) -> Self {
        Self {
            filter,
            mode,
            id: None,
            cursor: None,
            parked: false,
            ended: false,
            waker: None,
            queue: VecDeque::new(),
            bytes: 0,
            refused: None,
        }
    }

    pub(super) fn advance(&mut self, epoch: u64, rev: u64) {
        let before = self.cursor.filter(|cursor| cursor.epoch == epoch);
        let rev = before.map_or(rev, |cursor| cursor.rev.max(rev));
        self.cursor = Some(Cursor { epoch, rev });
    }

    pub(super) fn put(&mut self, update: Update) {
        self.bytes += size(&update);
        self.queue.push_back(update);
        self.wake();
    }

    pub(super) fn take(&mut self) -> Option<Update> {
        let update = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(size(&update));
        Some(update)
    }

    pub(super) fn has_room(&self, updates: usize) -> bool {
        self.queue.len() < updates.max(1) && self.bytes < QUEUE_BYTES
    }

    pub(super) fn refuse(&mut self, refused: Refused) {
        self.refused = Some(refused);
        self.end();
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
        self.wake();
    }

    /// Why nothing more comes, said once.
    pub(super) fn error(&mut self) -> Option<SubscriptionError> {
        self.refused.take().map(SubscriptionError)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn size(update: &Update) -> usize {
    match update {
        Update::Message(message) => message.topic.len() + message.payload.len(),
        Update::Cleared { topic, .. } => topic.len(),
        Update::Synced { .. } | Update::Gap { .. } | Update::Reset => 0,
    }
}
