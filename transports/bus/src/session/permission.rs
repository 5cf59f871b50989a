//! Whether a session's peer may still be here, and may still have what it is subscribed to.

use core::mem;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll};

use tokio::time::Instant;

use super::Session;
use super::entries::Entry;
use crate::access::{Reader, SignInRefused};
use crate::alarm::Alarm;
use crate::bus::Allowed;
use crate::wake::lock;

/// Why a peer may not be here any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedOut {
    /// Its sign-in has expired.
    #[error("the sign-in has expired")]
    Expired,
    /// Its token has expired.
    #[error("the token has expired")]
    TokenExpired,
    /// It has not signed in within [`SIGN_IN_TIMEOUT`](crate::SIGN_IN_TIMEOUT).
    #[error("no sign-in within {} s", crate::SIGN_IN_TIMEOUT.as_secs())]
    NotSignedIn,
    /// It has tried to sign in, and was refused.
    #[error(transparent)]
    Refused(SignInRefused),
    /// Its sign-in is [not valid](crate::Authenticator::still_valid) any more, and the authenticator does not say why.
    #[error("the sign-in is not valid any more")]
    Revoked,
    /// Its user was removed.
    #[error("the user was removed")]
    Removed,
    /// The password of its user was changed.
    #[error("the password of the user was changed")]
    PasswordChanged,
    /// Its user has signed out, or its session of a browser has ended in another way.
    #[error("the user has signed out, or the session of the browser has ended")]
    SessionEnded,
    /// The rules do not let it connect any more.
    #[error("the rules do not allow the user to connect any more")]
    NotAllowed,
    /// An administrator has ended its connection: see [`Client::disconnect`](crate::Client::disconnect).
    #[error("ended by an administrator")]
    Dismissed,
}

/// What a run of a session knows of its peer's permission.
#[derive(Debug, Default)]
pub(super) struct Permission {
    is_known: bool,
    /// When the sign-in of the peer ends.
    until: Option<Instant>,
    alarm: Alarm,
}

impl Session {
    /// Ready when the peer has to go. Looks at the rules whenever they have changed, before anything else is taken.
    pub(super) fn poll_permission(
        &self,
        permission: &mut Permission,
        cx: &mut Context<'_>,
    ) -> Poll<SignedOut> {
        let rules = self.client.rules();
        let checked = self.subscriptions.rules.load(Ordering::Acquire);
        if checked != rules || !permission.is_known {
            if checked != rules {
                if let Some(why) = self.client.why_signed_out() {
                    return Poll::Ready(why);
                }
                self.check_subscriptions();
                self.subscriptions.rules.store(rules, Ordering::Release);
            }
            permission.is_known = true;
            permission.until = self.client.expires_in().map(|left| Instant::now() + left);
        }
        match permission.alarm.poll_ring(permission.until, cx) {
            Poll::Ready(()) => Poll::Ready(self.client.why_expired()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Lets subscriptions bring what may be read now. One that is not allowed any more stays, and brings nothing until it is
    /// allowed again: its client cannot be told, and would not ask again.
    fn check_subscriptions(&self) {
        let (bus, principal) = (self.client.bus(), self.client.principal());
        let shared = bus.shared();
        let mut subscriptions = lock(&self.subscriptions.entries);
        for (key, entry) in subscriptions.iter_mut() {
            let Some(filter) = shared.filter_of(entry.id) else {
                continue;
            };
            match bus.check_subscribe(&principal, filter.borrowed()) {
                Ok(Allowed { reader, .. }) => {
                    if self.set_reader(entry, reader) && mem::take(&mut entry.waiting) {
                        self.wake.ready(key);
                    }
                }
                Err(why) => {
                    let was_refused = entry.reader.as_ref().is_some_and(Reader::is_of_nothing);
                    if !was_refused {
                        self.client.log_refused(&why, filter.as_str());
                    }
                    let nothing = Some(Reader::of_nothing());
                    if self.set_reader(entry, nothing) && mem::take(&mut entry.waiting) {
                        self.wake.ready(key);
                    }
                }
            }
        }
    }

    /// Whether that is another one than before.
    fn set_reader(&self, entry: &mut Entry, reader: Option<Reader>) -> bool {
        if entry.reader.as_ref().map(Reader::id) == reader.as_ref().map(Reader::id) {
            return false;
        }
        let shared = self.client.bus().shared();
        let old = mem::replace(&mut entry.reader, reader);
        match entry.grouped {
            true => {
                let readers = (old.as_ref(), entry.reader.as_ref());
                shared.set_member_reader(entry.id, readers);
                // Those who wait are woken by it.
                false
            }
            false => {
                shared.set_reader(entry.id, entry.reader.as_ref(), !entry.live);
                true
            }
        }
    }
}
