//! Users for tests, and what they may do.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use latchbus_bus::{
    Authenticator, Authorizer, BoxFuture, Grant, Identity, Options, Principal, ReadRules, Reader,
    SignIn, SignInRefused, SignedIn, TopicFilter, TopicName,
};
use tokio::sync::watch;

/// Everybody's password is `right`, their token `token-` and their name, and everybody reads what begins with the first letter of their name.
#[derive(Clone)]
pub(crate) struct Doorman(Arc<Mutex<BTreeSet<String>>>, watch::Sender<u64>);

struct Letter(char);

impl ReadRules for Letter {
    fn may_read(&self, topic: TopicName<&str>) -> bool {
        topic.as_str().starts_with(self.0)
    }
}

impl Doorman {
    pub(crate) fn new() -> Self {
        Self(Arc::default(), watch::Sender::new(0))
    }

    pub(crate) fn remove(&self, user: &str) {
        self.0.lock().unwrap().insert(user.to_owned());
        self.1.send_modify(|n| *n += 1);
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
                return match token.strip_prefix("token-") {
                    Some("expired") => Err(SignInRefused::Expired),
                    Some(name) => Ok(SignedIn::new(Identity::Token {
                        subject: name.to_owned(),
                    })),
                    None => Err(SignInRefused::BadCredentials),
                };
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
        !name.is_some_and(|name| self.0.lock().unwrap().contains(name))
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
            "plain" => Some(Grant::up_to(0)),
            _ => Some(Grant::up_to(1)),
        }
    }

    fn reader(&self, principal: &Principal) -> Option<Reader> {
        let first = principal.identity.name()?.chars().next()?;
        Some(Reader::new(Letter(first)))
    }
}
