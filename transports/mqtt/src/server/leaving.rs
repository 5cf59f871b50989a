//! How a connection ends: its last answers, the will, and the session that is kept.

use latchbus_bus::{Ended, Publish};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::disk::Disk;
use super::entering::Entered;
use super::link::LinkError;
use super::logging;
use super::registry::{Away, Claim, LastWords, Will, give_back};
use crate::connection::Remains;
use crate::record::{Note, Part, SessionRecord, WillRecord};
use crate::{Violation, packet};

impl<R, W> Entered<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// Takes leave of the client.
    pub(super) async fn leave(self, ended: Ended<LinkError, LinkError>) {
        let Self {
            open,
            mut subscriptions,
            receiver,
            sender,
            disk,
            has_will,
            claim,
        } = self;
        let server = &open.server.0;
        let mut input = receiver.input;
        drop(receiver.shared);
        // The writer is not dropped before the client has read why it ends.
        let (shared, _writer) = sender.into_parts();
        // The client, if it comes back meanwhile, waits as in a takeover.
        let late = async {
            while shared.is_owed()
                && let Some(event) = subscriptions.late_answer().await
            {
                shared.answered(event);
            }
        };
        let stopping = server.bus.closing();
        tokio::select! {
            biased;
            () = late => {}
            () = stopping.cancelled() => {}
        }
        let Some(mut remains) = shared.end() else {
            return;
        };
        server.metrics.messages_too_large.add(remains.too_large);
        logging::too_large(subscriptions.client(), remains.too_large);
        if matches!(ended, Ended::Stopped) {
            server.metrics.takeovers.add(1);
        }
        logging::left(
            &open.server,
            subscriptions.client(),
            claim.taken_by(),
            &ended,
            remains.goodbye.take(),
        );
        let closing = matches!(ended, Ended::Closing);
        let left = Left {
            remains,
            subscriptions,
            disk,
            has_will,
        };
        left.leave(claim, closing).await;
        // A client that was silent does not send now either.
        if let Ended::Receiver(LinkError::Violation(violation)) = &ended
            && *violation != Violation::KeepAlive
        {
            input.linger().await;
        }
        if let Ended::Receiver(error) | Ended::Sender(error) = &ended {
            open.ended(error);
        }
    }
}

/// What a connection leaves.
#[derive(Debug)]
struct Left {
    remains: Remains,
    subscriptions: latchbus_bus::Session,
    disk: Option<Disk>,
    /// Whether the client had a will at its CONNECT.
    has_will: bool,
}

impl Left {
    /// The identifier is free when all is done, so that a client that comes back speaks after its own will. When
    /// the server stops, a session stays where it is stored.
    async fn leave(mut self, claim: Claim, closing: bool) {
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
        // A user who was removed meanwhile leaves nothing to whoever gets the name.
        let is_known = self.subscriptions.client().is_known();
        let words = claim.release(Away {
            session: Some(self.remains.session),
            subscriptions: self.subscriptions,
            expires: match is_known {
                true => now + expiry,
                false => now,
            },
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
        let now = disk.deadline_ms();
        let after = |time: core::time::Duration| {
            now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
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
