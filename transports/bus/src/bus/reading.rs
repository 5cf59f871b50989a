//! What a client reads besides its subscriptions, and for how long it may.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use latchbus_core::hub::{Mode, Start};
use latchbus_core::topic::{TopicFilter, TopicName};

use super::{Allowed, Client, Value};
use crate::access::{Credentials, Identity, Principal, SignIn, SignInRefused};
use crate::audit::{self, Asker};
use crate::refusal::SubscribeRefused;
use crate::subscription::Subscription;
use crate::{Delivery, SignedOut};

impl Client {
    /// Subscribes in process, on behalf of this client: to what it may read of all that matches.
    ///
    /// # Errors
    /// When rules or bounds refuse it.
    pub fn subscribe(
        &self,
        filter: TopicFilter<&str>,
        mode: Mode,
        start: Start,
    ) -> Result<Subscription, SubscribeRefused> {
        let Allowed { reader, .. } = self.bus().check_subscribe(&self.principal(), filter)?;
        let shared = self.bus().shared();
        let id = shared.subscribe(filter, reader.as_ref(), mode, start)?;
        Ok(Subscription::new(self.clone(), id, reader, start))
    }

    /// Whether it may read this topic: subscribe to it, and be given what comes.
    pub fn may_read(&self, topic: TopicName<&str>) -> bool {
        // Every topic is a filter.
        TopicFilter::parse(topic.as_str()).is_ok_and(|filter| {
            let allowed = self.bus().check_read(&self.principal(), filter);
            allowed.is_ok_and(|allowed| allowed.may_read(topic))
        })
    }

    /// Whether it may be sent what was published to this topic, through whichever of its subscriptions: for who holds messages
    /// back, and sends them when the rules may have changed.
    pub fn may_receive(&self, topic: TopicName<&str>) -> bool {
        let principal = self.principal();
        let reader = self.bus().authorizer().reader(&principal);
        principal.identity != Identity::Guest && reader.is_none_or(|reader| reader.may_read(topic))
    }

    /// The newest value of a topic; none where it has none, or may not be read.
    pub fn last(&self, topic: TopicName<&str>) -> Option<Delivery> {
        self.may_read(topic).then(|| self.bus().last(topic))?
    }

    /// [`last`](Self::last) of a topic by its text.
    pub fn value(&self, topic: impl AsRef<str>) -> Option<Value> {
        let topic = TopicName::parse(topic.as_ref()).ok()?;
        self.last(topic).map(Value::from)
    }

    /// Every value that matches and may be read, by topic.
    ///
    /// # Errors
    /// When the rules refuse a subscription with this filter.
    pub fn kept(&self, filter: TopicFilter<&str>) -> Result<Vec<Delivery>, SubscribeRefused> {
        let allowed = self.bus().check_subscribe(&self.principal(), filter)?;
        let mut kept = self.bus().kept(filter);
        kept.retain(|value| allowed.may_read(value.topic.borrowed()));
        Ok(kept)
    }

    /// The greatest quality of service with which the rules let it subscribe to this filter, 0 to 2.
    pub fn max_qos(&self, filter: TopicFilter<&str>) -> u8 {
        let allowed = self.bus().check_subscribe(&self.principal(), filter);
        allowed.map_or(0, |allowed| allowed.grant.max_qos)
    }

    /// Whether it has still to sign in.
    pub fn is_guest(&self) -> bool {
        self.principal().identity == Identity::Guest
    }

    /// Proves anew who it is, and [goes on](Self::renew) as that; where it brings nothing, as who it is already. Somebody else
    /// it cannot become, but for who was nobody in particular. A guest that is not let in has to go.
    ///
    /// # Errors
    /// When it is not who it says.
    pub async fn sign_in_again(&self, credentials: Credentials) -> Result<(), SignInRefused> {
        let signed_in = self.try_sign_in(credentials).await;
        if signed_in.is_err() && self.is_guest() {
            let mut gone = Principal::clone(&self.principal());
            gone.expires_at = Some(SystemTime::UNIX_EPOCH);
            self.renew(gone);
        }
        signed_in
    }

    /// The same, but a guest that is not let in may try again, as long as it may be here without having signed in.
    ///
    /// # Errors
    /// When it is not who it says.
    pub async fn try_sign_in(&self, credentials: Credentials) -> Result<(), SignInRefused> {
        let before = self.principal();
        if credentials.is_empty() && before.identity != Identity::Guest {
            return Ok(());
        }
        let sign_in = SignIn::new(before.transport)
            .with_client_id(&before.client_id)
            .with_address(self.address())
            .with_credentials(credentials);
        let asker = Asker::from(&sign_in);
        let signed_in = self
            .bus()
            .authenticate(sign_in)
            .await
            .and_then(|principal| {
                let may_become = matches!(before.identity, Identity::Guest | Identity::Anonymous)
                    || before.identity == principal.identity;
                let may_connect = self.bus().authorizer().authorize_connect(&principal);
                match (may_become, may_connect) {
                    (true, true) => Ok(principal),
                    (false, _) => Err(SignInRefused::OtherIdentity),
                    (true, false) => Err(SignInRefused::NotAuthorized),
                }
            })
            .and_then(|principal| {
                if before.identity != principal.identity {
                    // The place that it had is no other's meanwhile for longer than this takes.
                    self.stand_up();
                    let seat = self.bus().seat(&principal).inspect_err(|_| {
                        // It stays who it was.
                        self.sit(self.bus().seat(&before).ok().flatten());
                    });
                    self.sit(seat?);
                }
                Ok(principal)
            });
        match signed_in {
            Ok(principal) => {
                audit::signed_in(&principal);
                self.renew(principal);
                Ok(())
            }
            Err(refused) => {
                audit::sign_in_refused(self.bus(), &asker, &refused);
                if before.identity == Identity::Guest {
                    // Whoever asks first: it is one connection's.
                    let _said = self.0.refused.set(refused.clone());
                }
                Err(refused)
            }
        }
    }

    /// A later request of its connection brings this: whether it comes from the same. It changes nothing.
    ///
    /// # Errors
    /// When the credentials prove nothing, or somebody else, or other rights than its own.
    pub async fn check_again(&self, sign_in: SignIn) -> Result<(), SignInRefused> {
        let asker = Asker::from(&sign_in);
        let again = self.bus().authenticate(sign_in).await;
        let is_same = again.and_then(|again| {
            let now = self.principal();
            let is_same = (&again.identity, &again.claims) == (&now.identity, &now.claims);
            is_same.then_some(()).ok_or(SignInRefused::OtherIdentity)
        });
        is_same.inspect_err(|refused| {
            audit::sign_in_refused(self.bus(), &asker, refused);
        })
    }

    /// It has proved anew who it is: that holds from now on, for what is open too.
    pub fn renew(&self, principal: Principal) {
        let mut place = (self.0.principal.write()).unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(principal);
        drop(place);
        self.0.renewed.fetch_add(1, Ordering::AcqRel);
        self.bus().wake_sessions_of(self);
    }

    /// Changes whenever what it may do may have changed.
    pub fn rules(&self) -> u64 {
        // Neither ever goes back.
        self.bus().rules() + self.0.renewed.load(Ordering::Acquire)
    }

    /// Why it may not be here any more, as far as that can change while it is; none while it may.
    pub(crate) fn why_signed_out(&self) -> Option<SignedOut> {
        let (bus, principal) = (self.bus(), self.principal());
        if principal.identity == Identity::Guest {
            return None;
        }
        if !bus.authenticator().still_valid(&principal) {
            return Some(bus.authenticator().why_invalid(&principal));
        }
        let may_connect = bus.authorizer().authorize_connect(&principal);
        (!may_connect).then_some(SignedOut::NotAllowed)
    }

    /// Why its time is over.
    pub(crate) fn why_expired(&self) -> SignedOut {
        let principal = self.principal();
        match (&principal.identity, self.0.refused.get()) {
            (Identity::Guest, Some(refused)) => SignedOut::Refused(refused.clone()),
            (Identity::Guest, None) => SignedOut::NotSignedIn,
            (Identity::Token { .. }, _) if principal.session.is_none() => SignedOut::TokenExpired,
            _ => SignedOut::Expired,
        }
    }

    /// Whether the rules let it subscribe with this filter, whatever that then brings.
    pub fn may_subscribe(&self, filter: TopicFilter<&str>) -> bool {
        (self.bus().check_subscribe(&self.principal(), filter)).is_ok()
    }

    /// Whether there still is who it is, whatever they may do: false once its user was [removed](crate::Authenticator::is_known).
    pub fn is_known(&self) -> bool {
        self.bus().authenticator().is_known(&self.principal())
    }

    /// How long its sign-in lasts.
    pub(crate) fn expires_in(&self) -> Option<Duration> {
        let at = self.principal().expires_at?;
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(self.bus().clock().unix_ms());
        Some(at.duration_since(now).unwrap_or_default())
    }
}
