//! The sessions of clients that are away, as an administrator sees them.

use core::time::Duration;
use std::sync::Arc;

use latchbus_bus::{AdminError, Client, MAX_CLIENTS_PAGE, Principal, audit};
use tokio::time::{Instant, timeout};

use super::Server;
use super::registry::Away;

/// How long a connection may take to end whose session is to end.
const LEAVE_TIME: Duration = Duration::from_secs(10);

/// The session of a client that is away.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionAway {
    /// The client identifier.
    pub client_id: String,
    /// [`Client::id`], under which its subscriptions are listed.
    pub id: u64,
    /// Whose it is.
    pub principal: Arc<Principal>,
    /// When it ends unless its client returns.
    pub expires_in: Duration,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// Matching messages of the recent ring that wait for it.
    pub pending: u64,
    /// Messages that were sent and that the client has not acknowledged.
    pub in_flight: usize,
    /// Whether a restart keeps it.
    pub is_durable: bool,
    /// Whether a will is to be published yet.
    pub has_will: bool,
}

impl Server {
    /// The sessions of clients that are away, by client identifier: at most `most`, and [`MAX_CLIENTS_PAGE`], of those behind
    /// `after`, and those of other users with the same client identifier as the last of them. Looks at each of them.
    ///
    /// # Errors
    /// When `admin` is no administrator.
    pub fn sessions(
        &self,
        admin: &Client,
        after: &str,
        most: usize,
    ) -> Result<Vec<SessionAway>, AdminError> {
        let (sessions, _) = self.find_sessions(admin, after, most, |_| true)?;
        Ok(sessions)
    }

    /// [`sessions`](Self::sessions), those alone whose owners are wanted; and how many of them there are over all pages.
    ///
    /// # Errors
    /// When `admin` is no administrator.
    pub fn find_sessions(
        &self,
        admin: &Client,
        after: &str,
        most: usize,
        is_wanted: impl Fn(&Principal) -> bool,
    ) -> Result<(Vec<SessionAway>, usize), AdminError> {
        admin.check_lists("list-sessions")?;
        let now = Instant::now();
        let most = most.min(MAX_CLIENTS_PAGE);
        let is_listed = |away: &Away| {
            let client = away.subscriptions.client();
            away.session.is_some() && is_wanted(&client.principal())
        };
        let listed = |id: &str, away: &Away| {
            let session = away.session.as_ref()?;
            let (subscriptions, client) = (&away.subscriptions, away.subscriptions.client());
            Some(SessionAway {
                client_id: id.to_owned(),
                id: client.id(),
                principal: client.principal(),
                expires_in: away.expires.saturating_duration_since(now),
                subscriptions: session.subscriptions(),
                pending: subscriptions.pending(),
                in_flight: session.unacknowledged(),
                is_durable: session.is_durable(),
                has_will: away.will.is_some(),
            })
        };
        let registry = &self.0.registry;
        Ok(registry.list_away(after, most, is_listed, listed))
    }

    /// Ends the session of a client, or those of all users with this client identifier, with all that waits for it; where the client is connected, its connection first. A will
    /// is published, as when a session expires (MQTT 5 §3.1.2.5).
    ///
    /// # Errors
    /// When `admin` is no administrator, or there is no such session; when its connection does not end in time, the session
    /// is there still.
    pub async fn end_session(&self, admin: &Client, client_id: &str) -> Result<(), AdminError> {
        let ended = self.try_end(admin, client_id).await;
        audit::action(admin, "end-session", client_id, ended.as_ref());
        ended
    }

    async fn try_end(&self, admin: &Client, client_id: &str) -> Result<(), AdminError> {
        admin.check_administer()?;
        let registry = &self.0.registry;
        let names = registry.named(client_id);
        if names.is_empty() {
            return Err(AdminError::UnknownSession);
        }
        // It may have left by itself meanwhile.
        let _left = admin.disconnect_named("mqtt", client_id);
        let ended = async {
            for name in names {
                registry.left(&name).await;
                let (claim, away) = registry.claim(&name, None).await;
                if let Some(away) = away {
                    away.end_held(claim).say().await;
                }
            }
        };
        (timeout(LEAVE_TIME, ended).await).map_err(|_| AdminError::StillConnected)
    }
}
