//! Users for tests, and what they may do.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use latchbus_bus::{
    Authenticator, Authorizer, BoxFuture, Grant, Identity, Options, Principal, ReadRules, Reader,
    SignIn, SignInRefused, SignedIn, TopicFilter, TopicName,
};
use tokio::sync::watch;

/// Everybody's password is `right`, their token `token-` and their name, or `old-` and their name for one that ends in 2001, and
/// everybody reads what begins with the first letter of their name, until it is closed. A certificate proves its common name.
#[derive(Clone)]
pub(crate) struct Doorman(Arc<Mutex<BTreeSet<String>>>, watch::Sender<u64>);

struct Letter(char, BTreeSet<String>);

impl ReadRules for Letter {
    fn may_read(&self, topic: TopicName<&str>) -> bool {
        topic.as_str().starts_with(self.0) && !self.1.contains(topic.as_str())
    }
}

impl Doorman {
    pub(crate) fn new() -> Self {
        Self(Arc::default(), watch::Sender::new(0))
    }

    /// Removes a user; or a topic, which nobody reads any more; or a filter, which nobody may subscribe to any more; or the filter `a/+`, which is granted QoS 0 from then on.
    pub(crate) fn remove(&self, name: &str) {
        self.0.lock().unwrap().insert(name.to_owned());
        self.1.send_modify(|n| *n += 1);
    }

    /// Somebody gets the name of a user that was removed.
    pub(crate) fn add(&self, name: &str) {
        self.0.lock().unwrap().remove(name);
        self.1.send_modify(|n| *n += 1);
    }

    fn has_removed(&self, name: &str) -> bool {
        self.0.lock().unwrap().contains(name)
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            authenticator: Arc::new(self.clone()),
            authorizer: Arc::new(self.clone()),
            rooms: Vec::new(),
            sys_every: None,
            ..Options::default()
        }
    }
}

impl Authenticator for Doorman {
    fn authenticate(&self, sign_in: SignIn) -> BoxFuture<'_, Result<SignedIn, SignInRefused>> {
        Box::pin(async move {
            let credentials = sign_in.credentials;
            if let Some(token) = &credentials.token {
                let by_token = |subject: &str| {
                    SignedIn::new(Identity::Token {
                        subject: subject.to_owned(),
                    })
                };
                return match token.split_once('-') {
                    Some(("token", "expired")) => Err(SignInRefused::Expired),
                    Some(("token", "often")) => Err(SignInRefused::TooManyAttempts {
                        retry_after: Duration::from_secs(9),
                    }),
                    Some(("token", "broken")) => Err(SignInRefused::Unavailable),
                    Some(("token", name)) => Ok(by_token(name)),
                    Some(("old", name)) => Ok(by_token(name)
                        .until(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))),
                    _ => Err(SignInRefused::BadCredentials),
                };
            }
            if let (Some(certificate), None) = (&credentials.certificate, &credentials.user) {
                return Ok(SignedIn::new(Identity::Certificate {
                    subject: certificate.common_name.clone().unwrap_or_default(),
                }));
            }
            match (credentials.user.as_deref(), credentials.password.as_deref()) {
                (None, _) => Err(SignInRefused::CredentialsRequired),
                (Some("slow"), _) => core::future::pending().await,
                (Some("often"), _) => Err(SignInRefused::TooManyAttempts {
                    retry_after: Duration::from_secs(9),
                }),
                (Some("broken"), _) => Err(SignInRefused::Unavailable),
                (Some("barred"), _) => Err(SignInRefused::NotAuthorized),
                (Some(user), Some(b"right")) => Ok(SignedIn::new(Identity::User(user.to_owned()))),
                _ => Err(SignInRefused::BadCredentials),
            }
        })
    }

    fn still_valid(&self, principal: &Principal) -> bool {
        let name = principal.identity.name();
        !name.is_some_and(|name| self.has_removed(name))
    }

    fn is_known(&self, principal: &Principal) -> bool {
        self.still_valid(principal)
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.1.subscribe())
    }
}

impl Authorizer for Doorman {
    fn authorize_connect(&self, principal: &Principal) -> bool {
        principal.identity != Identity::Anonymous
    }

    fn authorize_subscribe(&self, _: &Principal, filter: TopicFilter<&str>) -> Option<Grant> {
        match filter.as_str() {
            "closed" => None,
            "a/+" if self.has_removed("a/+") => Some(Grant::up_to(0)),
            filter if self.has_removed(filter) => None,
            "plain" => Some(Grant::up_to(0)),
            "a/#" => Some(Grant::up_to(2)),
            _ => Some(Grant::up_to(1)),
        }
    }

    fn is_admin(&self, principal: &Principal) -> bool {
        principal.identity == Identity::Process || principal.identity.name() == Some("root")
    }

    fn reader(&self, principal: &Principal) -> Option<Reader> {
        let first = principal.identity.name()?.chars().next()?;
        let removed = self.0.lock().unwrap().clone();
        Some(Reader::new(Letter(first, removed)))
    }
}
