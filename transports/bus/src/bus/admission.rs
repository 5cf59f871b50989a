//! Who comes in, and what is asked of the rules on their behalf.

use core::sync::atomic::Ordering;
use core::time::Duration;
use core::{fmt, ops::Deref};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use latchbus_core::topic::{TopicFilter, TopicName};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Bus, Client, Inner};
use crate::access::{
    Authenticator, Authorizer, Grant, Identity, Principal, Reader, SignIn, SignInRefused, SignedIn,
};
use crate::audit::{self, Asker};
use crate::quota::{Seat, TooMany};
use crate::refusal::{ConnectRefused, SubscribeRefused};
use crate::wake::lock;

/// How long an [`Authenticator`] may take.
pub const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the filter of a shared subscription begins with (MQTT 5 §4.8.2).
const SHARED: &str = "$share/";

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
        let asker = Asker::from(&sign_in);
        let signed_in = self.admit_signed_in(sign_in).await;
        self.note_sign_in(&asker, signed_in)
    }

    async fn admit_signed_in(&self, sign_in: SignIn) -> Result<Client, SignInRefused> {
        let principal = self.authenticate(sign_in).await?;
        let seat = self.seat(&principal)?;
        let client = self.client(principal);
        let client = client.map_err(|ConnectRefused| SignInRefused::NotAuthorized)?;
        client.sit(seat);
        Ok(client)
    }

    /// Takes the place of a connection among those of its user and its address. A request over HTTP is none.
    pub(super) fn seat(&self, principal: &Principal) -> Result<Option<Seat>, SignInRefused> {
        let is_connection = principal.transport != "http";
        let Some(quota) = self.0.quota.as_ref().filter(|_| is_connection) else {
            return Ok(None);
        };
        let now = self.clock().deadline_ms();
        let seat = quota.connect(principal, now, false).or_else(|too_many| {
            // It takes over from another of its own, which is about to go.
            let mut sessions = self.live_sessions().into_iter();
            match sessions.any(|session| session.is_replaced_by(principal)) {
                true => quota.connect(principal, now, true),
                false => Err(too_many),
            }
        });
        seat.map(Some).map_err(|TooMany { limit, setting }| {
            self.metrics().connections_over_quota.add(1);
            SignInRefused::TooManyConnections { limit, setting }
        })
    }

    /// Writes down for auditors what has come of it.
    fn note_sign_in(
        &self,
        asker: &Asker,
        signed_in: Result<Client, SignInRefused>,
    ) -> Result<Client, SignInRefused> {
        match &signed_in {
            Ok(client) => audit::signed_in(&client.principal()),
            Err(refused) => audit::sign_in_refused(self, asker, refused),
        }
        signed_in
    }

    /// [`sign_in`](Self::sign_in) for who can bring credentials later too, over its connection: who has brought none, and needs
    /// some, is a [guest](crate::Identity::Guest) meanwhile, for [`SIGN_IN_TIMEOUT`].
    ///
    /// # Errors
    /// When they are not who they say, or the rules refuse them.
    pub async fn sign_in_or_wait(&self, sign_in: SignIn) -> Result<Client, SignInRefused> {
        let brings_none = (sign_in.credentials.clone().with_sessions(Vec::new())).is_empty();
        let (guest, asker) = (sign_in.clone(), Asker::from(&sign_in));
        match self.admit_signed_in(sign_in).await {
            Err(SignInRefused::CredentialsRequired) if brings_none => {
                let now = Duration::from_millis(self.clock().unix_ms());
                let until = SystemTime::UNIX_EPOCH + now + SIGN_IN_TIMEOUT;
                let signed_in = SignedIn::new(Identity::Guest).until(until);
                let guest = guest.principal(signed_in);
                let seat = self.seat(&guest).inspect_err(|refused| {
                    audit::sign_in_refused(self, &asker, refused);
                })?;
                let guest = self.admit(guest);
                guest.sit(seat);
                Ok(guest)
            }
            signed_in => self.note_sign_in(&asker, signed_in),
        }
    }

    /// Admits a principal of whom it is known who it is: one client for each connection. See [`sign_in`](Self::sign_in).
    ///
    /// # Errors
    /// When the rules refuse it.
    pub fn client(&self, principal: Principal) -> Result<Client, ConnectRefused> {
        if !self.0.authorizer.authorize_connect(&principal) {
            return Err(ConnectRefused);
        }
        Ok(self.admit(principal))
    }

    fn admit(&self, principal: Principal) -> Client {
        let id = self.0.clients.fetch_add(1, Ordering::Relaxed);
        Client::new(self.clone(), id, principal)
    }

    pub(super) async fn authenticate(&self, sign_in: SignIn) -> Result<Principal, SignInRefused> {
        let authenticated = self.0.authenticator.authenticate(sign_in.clone());
        let signed_in = timeout(SIGN_IN_TIMEOUT, authenticated)
            .await
            .unwrap_or(Err(SignInRefused::Unavailable))?;
        Ok(sign_in.principal(signed_in))
    }

    /// Who says who someone is.
    pub fn authenticator(&self) -> &dyn Authenticator {
        &*self.0.authenticator
    }

    /// Who says what someone may do.
    pub fn authorizer(&self) -> &dyn Authorizer {
        &*self.0.authorizer
    }

    /// Whether somebody may subscribe to a filter, and what they then may read.
    pub(crate) fn check_subscribe(
        &self,
        principal: &Principal,
        filter: TopicFilter<&str>,
    ) -> Result<Allowed, SubscribeRefused> {
        // Its group was taken off by those who have any.
        match filter.as_str().starts_with(SHARED) {
            true => Err(SubscribeRefused::Shared(filter.as_str().into())),
            false => self.check_read(principal, filter),
        }
    }

    /// The same for a topic, which may have any name.
    pub(super) fn check_read(
        &self,
        principal: &Principal,
        filter: TopicFilter<&str>,
    ) -> Result<Allowed, SubscribeRefused> {
        if principal.identity == Identity::Guest {
            return Err(SubscribeRefused::SignInRequired);
        }
        let granted = self.0.authorizer.authorize_subscribe(principal, filter);
        let grant = granted.ok_or_else(|| SubscribeRefused::NotAllowed(filter.as_str().into()))?;
        let reader = self.0.authorizer.reader(principal);
        let reader = reader.filter(|reader| !reader.may_read_all(filter));
        let reader = reader.map(|reader| reader.common(filter).unwrap_or(reader));
        Ok(Allowed { grant, reader })
    }

    /// Changes whenever the rules or the users do.
    pub(crate) fn rules(&self) -> u64 {
        self.0.rules.load(Ordering::Acquire)
    }

    /// Changes whenever the rules or the users do: for who keeps something for those that are away.
    pub fn rule_changes(&self) -> watch::Receiver<()> {
        self.0.rule_changes.subscribe()
    }

    /// The rules or the users have changed: whatever is open is checked again.
    pub(super) fn rules_changed(&self) {
        self.0.rules.fetch_add(1, Ordering::AcqRel);
        self.0.rule_changes.send_replace(());
        for session in self.live_sessions() {
            session.wake_task();
        }
        for stream in lock(&self.0.streams).iter() {
            stream.wake();
        }
    }

    /// What one client may do has changed.
    pub(super) fn wake_sessions_of(&self, client: &Client) {
        for session in self.live_sessions() {
            if session.client_id() == client.id() {
                session.wake_task();
            }
        }
        for stream in lock(&self.0.streams).iter() {
            stream.wake();
        }
    }

    /// Watches the rules and the users until the bus is gone.
    pub(super) fn watch_rules(&self) {
        let (authorizer, authenticator) = (&self.0.authorizer, &self.0.authenticator);
        let changes = [authorizer.changes(), authenticator.changes()];
        for changes in changes.into_iter().flatten() {
            tokio::spawn(watch(Arc::downgrade(&self.0), self.closing(), changes));
        }
    }
}

async fn watch(bus: Weak<Inner>, closing: CancellationToken, mut changes: watch::Receiver<u64>) {
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            changed = changes.changed() => if changed.is_err() {
                return;
            },
        }
        match Bus::upgrade(&bus) {
            Some(bus) => bus.rules_changed(),
            None => return,
        }
    }
}

/// A subscription that is allowed.
#[derive(Debug)]
pub(crate) struct Allowed {
    pub(crate) grant: Grant,
    /// What it may bring; none: everything.
    pub(crate) reader: Option<Reader>,
}

impl Allowed {
    pub(crate) fn may_read(&self, topic: TopicName<&str>) -> bool {
        (self.reader.as_ref()).is_none_or(|reader| reader.may_read(topic))
    }
}
