//! What a session writes down, and what its client is told only when that is on disk.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::BytesMut;

use crate::record::{Note, Part};

/// What a note counts for in the bound of what waits.
const NOTE_BYTES: usize = 64;

/// The notes of a session that is kept on disk. One batch is stored at a time; what depends on it is held
/// back until then.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Whether the session is kept on disk.
    durable: bool,
    next: Vec<Note>,
    /// The batch that is being stored; stored again if the connection ends before that is known.
    storing: Vec<Note>,
    /// Goes out when `next` is stored, and when `storing` is.
    held: BytesMut,
    held_for_storing: BytesMut,
    marks: HashMap<u64, Mark>,
    /// Finished beyond the mark of their subscription, by subscription and revision.
    done: BTreeSet<(u64, u64)>,
    /// What a restored subscription may bring once more, though it is finished or under way.
    known: HashSet<(u64, u64)>,
}

/// How far a subscription has come.
#[derive(Debug, Default, Clone, Copy)]
struct Mark {
    /// The revision of the last message that it brought.
    taken: u64,
    /// All up to this one are finished, and that is noted.
    noted: u64,
}

impl Ledger {
    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    pub(crate) fn set_durable(&mut self, durable: bool) {
        self.durable = durable;
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.next.push(note);
    }

    /// What was noted and is not being stored yet is not so any more. Something harmless takes its place, for answers
    /// may wait for the batch.
    pub(crate) fn take_back(&mut self, note: &Note, instead: &Note) {
        for other in self.next.iter_mut().filter(|other| *other == note) {
            other.clone_from(instead);
        }
    }

    /// Where an answer goes that depends on what was noted so far: into `out` itself where nothing waits.
    pub(crate) fn after_notes<'a>(&'a mut self, out: &'a mut BytesMut) -> &'a mut BytesMut {
        if !self.durable {
            out
        } else if !self.next.is_empty() {
            &mut self.held
        } else if !self.storing.is_empty() {
            &mut self.held_for_storing
        } else {
            out
        }
    }

    /// Where an answer goes that depends on a note which the next batch will have.
    pub(crate) fn with_next(&mut self) -> &mut BytesMut {
        &mut self.held
    }

    /// Bytes, about, that wait for the disk.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let notes = self.next.len() + self.storing.len();
        self.held.len() + self.held_for_storing.len() + notes * NOTE_BYTES
    }

    /// How many finished messages are remembered one by one, because an older one is not finished.
    pub(crate) fn done(&self) -> usize {
        self.done.len()
    }

    /// Whether no batch is under way.
    pub(crate) fn is_ready(&self) -> bool {
        self.storing.is_empty()
    }

    pub(crate) fn has_notes(&self) -> bool {
        self.is_ready() && !self.next.is_empty()
    }

    /// The next batch, unless one is under way.
    pub(crate) fn take(&mut self) -> Vec<Note> {
        if !self.has_notes() {
            return Vec::new();
        }
        self.storing = core::mem::take(&mut self.next);
        self.held_for_storing = self.held.split();
        self.storing.clone()
    }

    /// The batch is stored: what was held back for it goes out.
    pub(crate) fn stored(&mut self, out: &mut BytesMut) {
        self.storing.clear();
        out.unsplit(self.held_for_storing.split());
    }

    /// There is no disk any more: nothing waits for it.
    pub(crate) fn give_up(&mut self, out: &mut BytesMut) {
        self.stored(out);
        self.next.clear();
        out.unsplit(self.held.split());
    }

    /// The connection has ended: what is still to be stored, in order.
    pub(crate) fn rest(&mut self) -> Vec<Note> {
        self.held.clear();
        self.held_for_storing.clear();
        let mut rest = core::mem::take(&mut self.storing);
        rest.append(&mut self.next);
        rest
    }

    /// A subscription begins, or begins again, after `rev`.
    pub(crate) fn begin(&mut self, subscription: u64, rev: u64) {
        self.forget(subscription);
        let mark = Mark {
            taken: rev,
            noted: rev,
        };
        self.marks.insert(subscription, mark);
        self.next.push(Part::Mark(subscription).keep(&rev));
    }

    /// A subscription ends.
    pub(crate) fn end(&mut self, subscription: u64) {
        self.forget(subscription);
        self.marks.remove(&subscription);
        self.next.push(Part::Subscription(subscription).forget());
        self.next.push(Part::Mark(subscription).forget());
    }

    /// A subscription has brought a message; false when it is known already.
    pub(crate) fn bring(&mut self, subscription: u64, rev: u64) -> bool {
        if let Some(mark) = self.marks.get_mut(&subscription) {
            mark.taken = rev;
        }
        self.known.is_empty() || !self.known.remove(&(subscription, rev))
    }

    /// A QoS 2 message is finished; `oldest` is the revision of the oldest of its subscription that is not.
    pub(crate) fn finish(&mut self, subscription: u64, rev: u64, oldest: Option<u64>) {
        if !self.marks.contains_key(&subscription) {
            return;
        }
        self.mark(subscription, oldest);
        // Beyond the mark it is remembered for itself; also one of an earlier life of the server, which the
        // subscription has not brought again yet.
        if self.reached(subscription) < rev {
            self.done.insert((subscription, rev));
            self.next.push(Part::Done(subscription, rev).keep(&()));
        }
    }

    /// Notes how far a subscription has come.
    fn mark(&mut self, subscription: u64, oldest: Option<u64>) {
        let Some(mark) = self.marks.get_mut(&subscription) else {
            return;
        };
        // What is under way from an earlier life of the server may be newer than what came in this one.
        let reached = oldest.map_or(mark.taken, |oldest| {
            mark.taken.min(oldest.saturating_sub(1))
        });
        if reached <= mark.noted {
            return;
        }
        mark.noted = reached;
        self.next.push(Part::Mark(subscription).keep(&reached));
        let passed: Vec<_> = (self.done)
            .range((subscription, 0)..=(subscription, reached))
            .copied()
            .collect();
        for (subscription, rev) in passed {
            self.done.remove(&(subscription, rev));
            self.next.push(Part::Done(subscription, rev).forget());
        }
    }

    /// Notes how far all have come, given the oldest unfinished revision of each, and gives the marks out.
    pub(crate) fn mark_all(&mut self, oldest: &HashMap<u64, u64>) -> Vec<(u64, u64)> {
        let subscriptions: Vec<u64> = self.marks.keys().copied().collect();
        for subscription in subscriptions {
            self.mark(subscription, oldest.get(&subscription).copied());
        }
        (self.marks.iter())
            .map(|(subscription, mark)| (*subscription, mark.noted))
            .collect()
    }

    /// What was stored of a subscription.
    pub(crate) fn restore(&mut self, subscription: u64, mark: u64) {
        let mark = Mark {
            taken: mark,
            noted: mark,
        };
        self.marks.insert(subscription, mark);
    }

    pub(crate) fn restore_done(&mut self, subscription: u64, rev: u64) {
        self.done.insert((subscription, rev));
        self.known.insert((subscription, rev));
    }

    pub(crate) fn restore_under_way(&mut self, subscription: u64, rev: u64) {
        self.known.insert((subscription, rev));
    }

    /// How far a subscription had come.
    pub(crate) fn reached(&self, subscription: u64) -> u64 {
        self.marks.get(&subscription).map_or(0, |mark| mark.noted)
    }

    fn forget(&mut self, subscription: u64) {
        let done: Vec<_> = (self.done)
            .range((subscription, 0)..=(subscription, u64::MAX))
            .copied()
            .collect();
        for (subscription, rev) in done {
            self.done.remove(&(subscription, rev));
            self.next.push(Part::Done(subscription, rev).forget());
        }
        self.known.retain(|(other, _)| *other != subscription);
    }
}
