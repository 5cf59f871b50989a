//! What a connection writes down of its session, and what waits until that is on disk.

use super::{Connection, publishing};
use crate::ledger::Ledger;
use crate::record::{Note, OwnerRecord, Part, SessionRecord, WillRecord};
use crate::session::Session;

impl Connection {
    /// Says that there is a disk. What the client would miss after a restart is written down as
    /// [notes](Self::take_notes), if its session outlives its connection, and the will in any case. Where the CONNECT
    /// leads to notes, the CONNACK waits until they are on disk, and so does all that follows it. `replaces` says that
    /// an earlier session or will has been noted to be forgotten, for which it waits too.
    #[must_use]
    pub fn on_disk(mut self, replaces: bool) -> Self {
        let owner = (self.client.as_ref())
            .and_then(|client| OwnerRecord::of(&client.principal().identity))
            .map_or(Part::Owner.forget(), |owner| Part::Owner.keep(&owner));
        let was_durable = self.session.ledger.is_durable();
        // A session that the disk has refused stays without it, for what it has is not written down; unless that
        // is nothing.
        let may_be_durable = was_durable || self.session.is_empty();
        let durable = !self.session_expiry.is_zero() && may_be_durable;
        if !was_durable {
            self.session.ledger = Ledger::default();
        }
        self.session.ledger.set_durable(durable);
        if was_durable && !durable {
            self.session.ledger.note(Note::ForgetAll);
            self.session.outgoing.open_all();
        }
        if durable {
            let note = self.session_note();
            self.session.ledger.note(note);
        }
        let will = (self.will).read(|will| Part::Will.keep(&WillRecord::new(will, None)));
        if durable || will.is_some() || replaces {
            let ledger = &mut self.session.ledger;
            ledger.note(owner);
            ledger.note(will.unwrap_or(Part::Will.forget()));
        }
        self.opening = self.session.ledger.has_notes();
        self
    }

    /// Whether [`take_notes`](Self::take_notes) has something.
    pub fn has_notes(&self) -> bool {
        let ledger = &self.session.ledger;
        let outgoing = &self.session.outgoing;
        ledger.has_notes() || (ledger.is_durable() && ledger.is_ready() && outgoing.has_notes())
    }

    /// What is to be stored next, in one step; nothing while an earlier batch is not answered with
    /// [`notes_stored`](Self::notes_stored). Answers and messages that depend on it wait.
    pub fn take_notes(&mut self) -> Vec<Note> {
        let Session {
            outgoing, ledger, ..
        } = &mut self.session;
        if ledger.is_ready() {
            outgoing.note(ledger);
        }
        ledger.take()
    }

    /// What is to be stored in one step with a publish, of which `id` is the request: that a QoS 2 message has
    /// come and is not to be taken for a new one, over any restart; with the session, while it may not be on
    /// disk yet.
    pub fn notes_of(&mut self, id: Option<u64>) -> Vec<Note> {
        let mut notes = Vec::new();
        if let Some(arrived) = id.and_then(publishing::qos_2)
            && self.session.ledger.is_durable()
        {
            if self.opening {
                notes.push(self.session_note());
            }
            // A client that does not wait for PUBCOMP uses its identifier again: it is not to be forgotten then.
            let harmless = self.session_note();
            let forget = Part::Incoming(arrived).forget();
            self.session.ledger.take_back(&forget, &harmless);
            notes.push(Part::Incoming(arrived).keep(&()));
        }
        notes
    }

    fn session_note(&self) -> Note {
        Part::Session.keep(&SessionRecord {
            expiry_secs: self.session_expiry.as_secs(),
            ends_at: None,
        })
    }

    /// Up to which revision each subscription is finished, when that was noted anew: what need not be stored for
    /// it any more.
    pub fn take_marks(&mut self) -> Vec<(u64, u64)> {
        core::mem::take(&mut self.marks)
    }

    /// Whether the CONNACK waits for the disk.
    pub const fn is_opening(&self) -> bool {
        self.opening
    }

    /// Whether the session is kept on disk.
    pub fn is_durable(&self) -> bool {
        self.session.ledger.is_durable()
    }

    /// The disk refuses: the session goes on as if there were none. What is there is to be forgotten, at the latest
    /// with the notes that are left in the end.
    pub fn give_up_disk(&mut self) {
        self.session.ledger.set_durable(false);
        self.opening = false;
        self.session.ledger.give_up(&mut self.out);
        self.session.ledger.note(Note::ForgetAll);
        self.session.outgoing.open_all();
    }

    /// The last batch of notes is on disk.
    pub fn notes_stored(&mut self) {
        self.opening = false;
        self.session.outgoing.stored();
        self.session.ledger.stored(&mut self.out);
    }
}
