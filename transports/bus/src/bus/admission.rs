//! Who comes in, and what is asked of the rules on their behalf.

use core::sync::atomic::Ordering;
use core::time::Duration;
use core::{fmt, ops::Deref};
use std::sync::Arc;

use latchbus_core::topic::TopicFilter;
use tokio::time::timeout;

use super::{Bus, Client};
use crate::access::{Authenticator, Authorizer, Grant, Principal, SignIn, SignInRefused};
use crate::refusal::{ConnectRefused, SubscribeRefused};

/// How long an [`Authenticator`] may take.
pub const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(10);

/// Who is asked, behind one name for `Debug`.
pub(super) struct Asked<T: ?Sized>(pub(super) Arc<T>);

impl<T: ?Sized> Deref for Asked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> fmt::Debug for Asked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked")
    }
}

impl Bus {
    /// Finds out who someone is and admits them: one client for each connection, or for each request of HTTP. Waits for the
    /// [`Authenticator`], at most [`SIGN_IN_TIMEOUT`].
    ///
    /// # Errors
    /// When they are not who they say, or the rules refuse them.
    pub async fn sign_in(&self, sign_in: SignIn) -> Result<Client, SignInRefused> {
        let authenticated = self.0.authenticator.authenticate(sign_in.clone());
        let signed_in = timeout(SIGN_IN_TIMEOUT, authenticated)
            .await
            .unwrap_or(Err(SignInRefused::Unavailable))?;
        self.client(sign_in.principal(signed_in))
            .map_err(|ConnectRefused| SignInRefused::NotAuthorized)
    }

    /// Admits a principal of whom it is known who it is: one client for each connection. See [`sign_in`](Self::sign_in).
    ///
    /// # Errors
    /// When the rules refuse it.
    pub fn client(&self, principal: Principal) -> Result<Client, ConnectRefused> {
        if !self.0.authorizer.authorize_connect(&principal) {
            return Err(ConnectRefused);
        }
        let id = self.0.clients.fetch_add(1, Ordering::Relaxed);
        Ok(Client::new(self.clone(), id, principal))
    }

    /// Who says who someone is.
    pub fn authenticator(&self) -> &dyn Authenticator {
        &*self.0.authenticator
    }

    /// Who says what someone may do.
    pub fn authorizer(&self) -> &dyn Authorizer {
        &*self.0.authorizer
    }

    pub(crate) fn check_subscribe(
        &self,
        principal: &Principal,
        filter: TopicFilter<&str>,
    ) -> Result<Grant, SubscribeRefused> {
        let granted = self.0.authorizer.authorize_subscribe(principal, filter);
        granted.ok_or_else(|| SubscribeRefused::NotAllowed(filter.as_str().into()))
    }
}
