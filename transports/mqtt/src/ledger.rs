//! What a session writes down, and what its client is told only when that is on disk.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::BytesMut;

use crate::record::{Note, Part};

/// QoS 1 messages of a session that are remembered as acknowledged though an older one is not; what is acknowledged
/// beyond them may come again after a kill.
const MOST_DONE_ONCE: usize = 1_024;

/// What a note counts for in the bound of what waits.
const NOTE_BYTES: usize = 64;

/// The notes of a session that is kept on disk. One batch is stored at a time; what depends on it is held
/// back until then.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Whether the session is kept on disk.
    durable: bool,
    /// None before the first entry: most sessions never have one.
    pages: Option<Box<Pages>>,
}

#[derive(Debug, Default)]
struct Pages {
    next: Vec<Note>,
    /// Whether something waits for `next`: if not, it is stored with what comes next.
    urgent: bool,
    /// The batch that is being stored; stored again if the connection ends before that is known.
    storing: Vec<Note>,
    /// Goes out when `next` is stored, and when `storing` is.
    held: BytesMut,
    held_for_storing: BytesMut,
    marks: HashMap<u64, Mark>,
    /// Finished beyond the mark of their subscription, by subscription and revision: of QoS 1, and of QoS 2.
    done: [BTreeSet<(u64, u64)>; 2],
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

    fn pages(&mut self) -> &mut Pages {
        self.pages.get_or_insert_default()
    }

    pub(crate) fn note(&mut self, note: Note) {
        let pages = self.pages();
        pages.next.push(note);
        pages.urgent = true;
    }

    /// The same for what nobody waits for.
    pub(crate) fn note_later(&mut self, note: Note) {
        self.pages().next.push(note);
    }

    /// What was noted and is not being stored yet is not so any more. Something harmless takes its place, for answers
    /// may wait for the batch.
    pub(crate) fn take_back(&mut self, note: &Note, instead: &Note) {
        for other in self.pages().next.iter_mut().filter(|other| *other == note) {
            other.clone_from(instead);
        }
    }

    /// Where an answer goes that depends on what was noted so far: into `out` itself where nothing waits.
    pub(crate) fn after_notes<'a>(&'a mut self, out: &'a mut BytesMut) -> &'a mut BytesMut {
        match &mut self.pages {
            Some(pages) if self.durable => {
                if !pages.next.is_empty() {
                    pages.urgent = true;
                    &mut pages.held
                } else if !pages.storing.is_empty() {
                    &mut pages.held_for_storing
                } else {
                    out
                }
            }
            _ => out,
        }
    }

    /// Where an answer goes that depends on a note which the next batch will have.
    pub(crate) fn with_next(&mut self) -> &mut BytesMut {
        &mut self.pages().held
    }

    /// Bytes, about, that wait for the disk.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.pages.as_ref().map_or(0, |pages| {
            let notes = pages.next.len() + pages.storing.len();
            pages.held.len() + pages.held_for_storing.len() + notes * NOTE_BYTES
        })
    }

    /// How many finished QoS 2 messages are remembered one by one, because an older one is not finished.
    pub(crate) fn done(&self) -> usize {
        let [_, twice] = match &self.pages {
            Some(pages) => &pages.done,
            None => return 0,
        };
        twice.len()
    }

    /// Whether no batch is under way.
    pub(crate) fn is_ready(&self) -> bool {
        (self.pages.as_ref()).is_none_or(|pages| pages.storing.is_empty())
    }

    pub(crate) fn has_notes(&self) -> bool {
        let pages = self.pages.as_ref();
        pages.is_some_and(|pages| pages.storing.is_empty() && pages.urgent)
    }

    /// The next batch, unless one is under way.
    pub(crate) fn take(&mut self) -> Vec<Note> {
        if !self.has_notes() {
            return Vec::new();
        }
        let pages = self.pages();
        pages.urgent = false;
        pages.storing = core::mem::take(&mut pages.next);
        pages.held_for_storing = pages.held.split();
        pages.storing.clone()
    }

    /// The batch is stored: what was held back for it goes out.
    pub(crate) fn stored(&mut self, out: &mut BytesMut) {
        let pages = self.pages();
        pages.storing.clear();
        out.unsplit(pages.held_for_storing.split());
    }

    /// There is no disk any more: nothing waits for it.
    pub(crate) fn give_up(&mut self, out: &mut BytesMut) {
        self.stored(out);
        let pages = self.pages();
        pages.next.clear();
        pages.urgent = false;
        out.unsplit(pages.held.split());
    }

    /// The connection has ended: what is still to be stored, in order.
    pub(crate) fn rest(&mut self) -> Vec<Note> {
        let Some(pages) = &mut self.pages else {
            return Vec::new();
        };
        pages.held.clear();
        pages.held_for_storing.clear();
        pages.urgent = false;
        let mut rest = core::mem::take(&mut pages.storing);
        rest.append(&mut pages.next);
        rest
    }

    /// A subscription begins, or begins again, after `rev`.
    pub(crate) fn begin(&mut self, subscription: u64, rev: u64) {
        let pages = self.pages();
        pages.forget(subscription);
        let mark = Mark {
            taken: rev,
            noted: rev,
        };
        pages.marks.insert(subscription, mark);
        pages.next.push(Part::Mark(subscription).keep(&rev));
        pages.urgent = true;
    }

    /// A subscription ends.
    pub(crate) fn end(&mut self, subscription: u64) {
        let pages = self.pages();
        pages.forget(subscription);
        pages.marks.remove(&subscription);
        pages.next.push(Part::Subscription(subscription).forget());
        pages.next.push(Part::Mark(subscription).forget());
        pages.urgent = true;
    }

    /// A subscription has brought a message; false when it is known already.
    pub(crate) fn bring(&mut self, subscription: u64, rev: u64) -> bool {
        let Some(pages) = &mut self.pages else {
            return true;
        };
        if let Some(mark) = pages.marks.get_mut(&subscription) {
            mark.taken = rev;
        }
        pages.known.is_empty() || !pages.known.remove(&(subscription, rev))
    }

    /// A QoS 1 or 2 message is finished, which was noted to be forgotten; `oldest` is the revision of the oldest of its
    /// subscription that is not.
    pub(crate) fn finish(&mut self, subscription: u64, rev: u64, qos: u8, oldest: Option<u64>) {
        let Some(pages) = &mut self.pages else {
            return;
        };
        if !pages.marks.contains_key(&subscription) {
            return;
        }
        pages.mark(subscription, oldest);
        // Beyond the mark it is remembered for itself; also one of an earlier life of the server, which the
        // subscription has not brought again yet.
        let [once, _] = &pages.done;
        if pages.reached(subscription) < rev && (qos == 2 || once.len() < MOST_DONE_ONCE) {
            pages.done_of(qos).insert((subscription, rev));
            pages.next.push(Part::Done(subscription, rev).keep(&qos));
        }
    }

    /// Notes how far all have come, given the oldest unfinished revision of each, and gives the marks out.
    pub(crate) fn mark_all(&mut self, oldest: &HashMap<u64, u64>) -> Vec<(u64, u64)> {
        let Some(pages) = &mut self.pages else {
            return Vec::new();
        };
        let subscriptions: Vec<u64> = pages.marks.keys().copied().collect();
        for subscription in subscriptions {
            pages.mark(subscription, oldest.get(&subscription).copied());
        }
        pages.urgent |= !pages.next.is_empty();
        (pages.marks.iter())
            .map(|(subscription, mark)| (*subscription, mark.noted))
            .collect()
    }

    /// What was stored of a subscription.
    pub(crate) fn restore(&mut self, subscription: u64, mark: u64) {
        let mark = Mark {
            taken: mark,
            noted: mark,
        };
        self.pages().marks.insert(subscription, mark);
    }

    pub(crate) fn restore_done(&mut self, subscription: u64, rev: u64, qos: u8) {
        let pages = self.pages();
        pages.done_of(qos).insert((subscription, rev));
        pages.known.insert((subscription, rev));
    }

    pub(crate) fn restore_under_way(&mut self, subscription: u64, rev: u64) {
        self.pages().known.insert((subscription, rev));
    }
}

impl Pages {
    /// How far a subscription had come.
    fn reached(&self, subscription: u64) -> u64 {
        self.marks.get(&subscription).map_or(0, |mark| mark.noted)
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
        self.pass(subscription, reached);
    }

    fn done_of(&mut self, qos: u8) -> &mut BTreeSet<(u64, u64)> {
        let [once, twice] = &mut self.done;
        if qos == 1 { once } else { twice }
    }

    /// What is done up to `rev` need not be remembered for itself.
    fn pass(&mut self, subscription: u64, rev: u64) {
        for done in &mut self.done {
            let passed = done.range((subscription, 0)..=(subscription, rev));
            for (subscription, rev) in passed.copied().collect::<Vec<_>>() {
                done.remove(&(subscription, rev));
                self.next.push(Part::Done(subscription, rev).forget());
            }
        }
    }

    fn forget(&mut self, subscription: u64) {
        self.pass(subscription, u64::MAX);
        self.known.retain(|(other, _)| *other != subscription);
    }
}
