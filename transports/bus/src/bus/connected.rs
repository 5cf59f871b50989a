//! Who is connected, and what an administrator may do about it.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use latchbus_core::hub::Mode;

use super::{Bus, Client};
use crate::access::Principal;
use crate::audit;
use crate::session::Subscriptions;

/// Entries of a list unless another number is asked for.
pub const CLIENTS_PAGE: usize = 100;

/// The most entries of a list that are given at a time.
pub const MAX_CLIENTS_PAGE: usize = 1_000;

/// A client that is connected, over any transport. A request over HTTP is none, nor is a stream inside the process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connected {
    /// [`Client::id`]. A session that goes on over another connection keeps it.
    pub id: u64,
    /// Who it is.
    pub principal: Arc<Principal>,
    /// Where it has connected from.
    pub address: Option<SocketAddr>,
    /// Since when, in Unix milliseconds.
    pub since: u64,
    /// How long it may be silent, where it has said so.
    pub keep_alive: Option<Duration>,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// Matching messages of the recent ring that it has not been given.
    pub pending: u64,
    /// Messages that were sent and not acknowledged, where the transport has acknowledgements.
    pub in_flight: u64,
    /// Values that a newer one replaced before it took them.
    pub conflated: u64,
    /// Events that left the recent ring before it took them.
    pub skipped: u64,
}

/// A subscription of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribed {
    /// Its number within the session.
    pub id: u64,
    /// What it matches.
    pub filter: String,
    /// The group whose member it is; what is counted is then the group's.
    pub group: Option<String>,
    /// Whether it brings each message or the newest of each topic.
    pub mode: Mode,
    /// Whether its messages wait for it on disk.
    pub is_durable: bool,
    /// Matching messages of the recent ring that it has not been given.
    pub pending: u64,
    /// Values that a newer one replaced before it took them.
    pub conflated: u64,
    /// Events that left the recent ring before it took them.
    pub skipped: u64,
}

/// Why an administrator's request was not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Only an administrator may.
    #[error("only an administrator may do that")]
    NotAllowed,
    /// There is no such client.
    #[error("there is no such client")]
    UnknownClient,
    /// There is no such session.
    #[error("there is no such session")]
    UnknownSession,
    /// The connection that uses a session does not end.
    #[error("its connection does not end")]
    StillConnected,
}

impl Client {
    /// The clients that are connected, over all transports, by number: at most `most`, and [`MAX_CLIENTS_PAGE`], of those behind
    /// `after`. Looks at each session of the bus.
    ///
    /// # Errors
    /// When this client is no administrator.
    pub fn clients(&self, after: u64, most: usize) -> Result<Vec<Connected>, AdminError> {
        let (clients, _) = self.find_clients(after, most, |_, _| true)?;
        Ok(clients)
    }

    /// [`clients`](Self::clients), those alone that are wanted, by who they are and where they have connected from; and how many of them
    /// there are over all pages.
    ///
    /// # Errors
    /// When this client is no administrator.
    pub fn find_clients(
        &self,
        after: u64,
        most: usize,
        is_wanted: impl Fn(&Principal, Option<SocketAddr>) -> bool,
    ) -> Result<(Vec<Connected>, usize), AdminError> {
        self.check_lists("list-clients")?;
        let mut sessions = self.bus().live_sessions();
        sessions.retain(|session| {
            let client = session.client();
            session.is_connected() && is_wanted(&client.principal(), client.address())
        });
        let total = sessions.len();
        sessions.retain(|session| session.client_id() > after);
        sessions.sort_unstable_by_key(|session| session.client_id());
        let connected = sessions.iter().filter_map(|session| session.connected());
        let clients = connected.take(most.min(MAX_CLIENTS_PAGE)).collect();
        Ok((clients, total))
    }

    /// The subscriptions of a client, or of a session that is kept for one, by number: at most `most`, and
    /// [`MAX_CLIENTS_PAGE`], from `from` on.
    ///
    /// # Errors
    /// When this client is no administrator, or there is no such client.
    pub fn subscriptions_of(
        &self,
        id: u64,
        from: u64,
        most: usize,
    ) -> Result<Vec<Subscribed>, AdminError> {
        self.check_lists("list-subscriptions")?;
        let session = self.bus().session_of(id);
        let session = session.ok_or(AdminError::UnknownClient)?;
        Ok(session.subscribed(from, most.min(MAX_CLIENTS_PAGE)))
    }

    /// Ends the connection of a client, which may connect again. It is asked to end at once, and ends within seconds; its session,
    /// if one is kept, stays.
    ///
    /// # Errors
    /// When this client is no administrator, or no such client is connected.
    pub fn disconnect(&self, id: u64) -> Result<(), AdminError> {
        let disconnected = self.check_administer().and_then(|()| {
            let session = self.bus().session_of(id);
            match session.is_some_and(|session| session.dismiss()) {
                true => Ok(()),
                false => Err(AdminError::UnknownClient),
            }
        });
        audit::action(self, "disconnect", &id.to_string(), disconnected.as_ref());
        disconnected
    }

    /// [`disconnect`](Self::disconnect) of the clients that call themselves so on a transport; whether there was one.
    ///
    /// # Errors
    /// When this client is no administrator.
    pub fn disconnect_named(&self, transport: &str, client_id: &str) -> Result<bool, AdminError> {
        self.check_administer()?;
        let sessions = self.bus().live_sessions();
        let dismissed = (sessions.iter())
            .filter(|session| session.is_named(transport, client_id) && session.dismiss())
            .count();
        Ok(dismissed > 0)
    }

    /// Fails for who is no administrator, and says in the log which list it was: an action of the target `audit`.
    ///
    /// # Errors
    /// [`AdminError::NotAllowed`].
    pub fn check_lists(&self, what: &str) -> Result<(), AdminError> {
        let checked = self.check_administer();
        checked.inspect_err(|error| audit::list_refused(self, what, error))
    }

    /// Fails for who is no administrator.
    ///
    /// # Errors
    /// [`AdminError::NotAllowed`].
    pub fn check_administer(&self) -> Result<(), AdminError> {
        match self.may_administer() {
            true => Ok(()),
            false => Err(AdminError::NotAllowed),
        }
    }
}

impl Bus {
    fn session_of(&self, id: u64) -> Option<Arc<Subscriptions>> {
        let sessions = self.live_sessions();
        (sessions.into_iter()).find(|session| session.client_id() == id)
    }
}
