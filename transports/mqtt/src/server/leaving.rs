//! What follows a connection: the will, and the session that is kept.

use latchbus_bus::Publish;
use tokio::time::Instant;

use super::disk::Disk;
use super::registry::{Away, Claim, LastWords, Will, give_back};
use crate::connection::Remains;
use crate::packet;
use crate::record::{Note, Part, SessionRecord, WillRecord};

/// What a connection leaves.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) remains: Remains,
    pub(super) subscriptions: latchbus_bus::Session,
    pub(super) disk: Option<Disk>,
    /// Whether the client had a will at its CONNECT.
    pub(super) has_will: bool,
}

impl Left {
    /// The identifier is free when all is done, so that a client that comes back speaks after its own will. When
    /// the server stops, a session stays where it is stored.
    pub(super) async fn leave(mut self, claim: Claim, closing: bool) {
        let now = Instant::now();
        let expiry = self.remains.session_expiry;
        let durable = self.remains.session.is_durable();
        let kept = !expiry.is_zero() && (!closing || durable);
        for (subscription, rev) in self.remains.marks.drain(..) {
            self.subscriptions.confirm(subscription, rev);
        }
        let will = self.remains.will.take();
        let (later, at_once) = match will {
            Some(will) if kept && !will.delay.is_zero() => (Some(will), None),
            will => (None, will.map(|will| will.publish)),
        };
        let notes = self.notes(kept && durable, later.as_ref());
        self.say(at_once, notes).await;
        if !kept || closing {
            if !closing {
                give_back(self.remains.session, &self.subscriptions);
            }
            return;
        }
        let words = claim.release(Away {
            session: Some(self.remains.session),
            subscriptions: self.subscriptions,
            expires: now + expiry,
            will: later.map(|will| Will {
                at: now + will.delay,
                publish: will.publish,
                returns: false,
            }),
            disk: self.disk,
        });
        if let Some(words) = words {
            words.say().await;
        }
    }

    /// What is to be remembered from now on.
    fn notes(&mut self, kept: bool, will: Option<&packet::Will>) -> Vec<Note> {
        let Some(disk) = &self.disk else {
            return Vec::new();
        };
        let unix_ms = disk.unix_ms();
        let after = |time: core::time::Duration| {
            unix_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        if !kept {
            // Of a client without session and will there is nothing.
            let nothing = !self.has_will
                && !self.remains.session.is_durable()
                && self.remains.notes.is_empty();
            return match nothing {
                true => Vec::new(),
                false => vec![Note::ForgetAll],
            };
        }
        let mut notes = core::mem::take(&mut self.remains.notes);
        let expiry = self.remains.session_expiry;
        notes.push(Part::Session.keep(&SessionRecord {
            expiry_secs: expiry.as_secs(),
            ends_at: Some(after(expiry)),
        }));
        notes.push(match will {
            Some(will) => Part::Will.keep(&WillRecord::new(will, Some(after(will.delay)))),
            None => Part::Will.forget(),
        });
        notes
    }

    async fn say(&self, will: Option<Publish>, notes: Vec<Note>) {
        let words = LastWords {
            client: self.subscriptions.client().clone(),
            disk: self.disk.clone(),
            will,
            notes,
            hold: None,
        };
        words.say().await;
    }
}
