//! Users for the suite, and a transport whose peers have signed in.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use latchbus_access::RulesAuthorizer;
use latchbus_access::rules::Rules;
use latchbus_bus::{
    Authenticator, BoxFuture, Bus, Credentials, Identity, Options, SignIn, SignInRefused, SignedIn,
};

use crate::transport::{Connect, Transport, Verdict, Words, Wrong};

/// Everybody's.
pub const PASSWORD: &str = "right";

/// The header `Authorization` of a user.
pub fn authorization(user: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{PASSWORD}"))
    )
}

/// Whoever has the [`PASSWORD`] is who they say, and who brings nothing is anonymous.
#[derive(Debug, Clone, Copy)]
pub struct Everybody;

impl Authenticator for Everybody {
    fn authenticate(&self, sign_in: SignIn) -> BoxFuture<'_, Result<SignedIn, SignInRefused>> {
        let Credentials {
            user,
            password,
            token,
            ..
        } = sign_in.credentials;
        Box::pin(async move {
            match (user, password.as_deref(), token) {
                (None, None, None) => Ok(SignedIn::new(Identity::Anonymous)),
                (Some(user), Some(password), None) if password == PASSWORD.as_bytes() => {
                    Ok(SignedIn::new(Identity::User(user)))
                }
                _ => Err(SignInRefused::BadCredentials),
            }
        })
    }
}

/// Another transport, over which each peer signs in. Whoever has not may do nothing; each peer may do what the promises ask of it,
/// and there are topics that it may not read.
#[derive(Debug)]
pub struct WithUsers<T>(T);

const RULES: &str = r##"
signed_in = ["peer"]
[roles.peer]
publish = ["#"]
subscribe = ["#", "$SYS/#"]
deny = ["secret/#", "private/{user}/#"]
"##;

impl<T: Transport> Transport for WithUsers<T> {
    type Peer = T::Peer;

    const WORDS: Words = T::WORDS;

    fn options(options: Options) -> Options {
        let rules = Arc::new(Rules::parse(RULES, "access.toml").unwrap());
        Options {
            authenticator: Arc::new(Everybody),
            authorizer: Arc::new(RulesAuthorizer::new(Some(rules))),
            ..options
        }
    }

    async fn serve(bus: Bus) -> Self {
        Self(T::serve(bus).await)
    }

    async fn connect(&self, connect: Connect<'_>) -> Self::Peer {
        self.0.connect(connect.by(Some("peer"))).await
    }

    async fn ended(self) {
        self.0.ended().await;
    }

    fn verdict(wrong: Wrong) -> Verdict {
        T::verdict(wrong)
    }
}
