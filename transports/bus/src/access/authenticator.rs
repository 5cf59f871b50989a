//! Who someone is.

use core::net::SocketAddr;
use core::{fmt, future::ready, time::Duration};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::principal::{Claims, Identity, Principal};
use crate::SignedOut;

/// Says who someone is. Every transport asks at the beginning of a connection, HTTP at each request, through
/// [`Bus::sign_in`](crate::Bus::sign_in).
///
/// An embedder plugs in its own, which may ask a database:
/// ```
/// use latchbus_bus::{
///     Authenticator, Authorizer, BoxFuture, Bus, Credentials, Grant, Identity, Principal, PublishRequest, ReadRules, Reader,
///     SignIn, SignInRefused, SignedIn, TopicFilter, TopicName,
/// };
///
/// struct Database;
///
/// impl Database {
///     async fn check(&self, user: &str, password: &[u8]) -> Result<bool, std::io::Error> {
///         Ok((user, password) == ("anna", b"secret".as_slice()))
///     }
/// }
///
/// impl Authenticator for Database {
///     fn authenticate(&self, sign_in: SignIn) -> BoxFuture<'_, Result<SignedIn, SignInRefused>> {
///         Box::pin(async move {
///             let Credentials { user: Some(user), password: Some(password), .. } = &sign_in.credentials else {
///                 return Err(SignInRefused::CredentialsRequired);
///             };
///             match self.check(user, password).await {
///                 Ok(true) => Ok(SignedIn::new(Identity::User(user.clone()))),
///                 Ok(false) => Err(SignInRefused::BadCredentials),
///                 Err(_) => Err(SignInRefused::Unavailable),
///             }
///         })
///     }
/// }
///
/// /// Everybody may read and write below a topic of their own name.
/// struct OwnTopics;
///
/// struct Below(String);
///
/// impl ReadRules for Below {
///     fn may_read(&self, topic: TopicName<&str>) -> bool {
///         topic.as_str().strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('/'))
///     }
/// }
///
/// impl Authorizer for OwnTopics {
///     fn authorize_publish(&self, principal: &Principal, publish: &PublishRequest<'_>) -> bool {
///         let name = principal.identity.name().unwrap_or_default();
///         Below(name.to_owned()).may_read(publish.topic)
///     }
///
///     fn authorize_subscribe(&self, _: &Principal, _: TopicFilter<&str>) -> Option<Grant> {
///         Some(Grant::default()) // `#` brings what the reader lets through
///     }
///
///     fn reader(&self, principal: &Principal) -> Option<Reader> {
///         Some(Reader::new(Below(principal.identity.name()?.to_owned())))
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let bus = Bus::builder().authenticator(Database).authorizer(OwnTopics).open()?;
/// let mut sign_in = SignIn::new("my-door");
/// sign_in.credentials = Credentials::password("anna", "secret");
/// let anna = bus.sign_in(sign_in).await?;
/// anna.publish_state("anna/notes", "milk").await?;
/// assert!(anna.publish_state("berta/notes", "milk").await.is_err());
/// # bus.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub trait Authenticator: Send + Sync + 'static {
    /// Who this is. Others are served meanwhile; whoever waits longer than
    /// [`SIGN_IN_TIMEOUT`](crate::SIGN_IN_TIMEOUT) is refused with [`SignInRefused::Unavailable`]. Expensive work
    /// (the hash of a password) belongs on a thread of its own, bounded in number.
    fn authenticate(&self, sign_in: SignIn) -> BoxFuture<'_, Result<SignedIn, SignInRefused>>;

    /// Whether a principal that was signed in may stay: false when its user was removed or its password changed. Asked
    /// for every connection after [`changes`](Self::changes); not when its sign-in has expired, which ends it anyway.
    fn still_valid(&self, _principal: &Principal) -> bool {
        true
    }

    /// Why a principal may not stay, where [`still_valid`](Self::still_valid) says so: what its log line and, where the protocol has
    /// words, its client are told.
    fn why_invalid(&self, principal: &Principal) -> SignedOut {
        match self.is_known(principal) {
            true => SignedOut::Revoked,
            false => SignedOut::Removed,
        }
    }

    /// Whether there still is who a principal was signed in as: false once its user was removed, and whoever gets the name later is
    /// somebody else. What is kept for them while they are away, as the session of an MQTT client, ends. Asked after
    /// [`changes`](Self::changes), and at the start. Another password is no end of a user.
    fn is_known(&self, _principal: &Principal) -> bool {
        true
    }

    /// Changes its value whenever users were removed or changed. None: that never happens.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// Everybody is anonymous, whatever credentials they bring: the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnonymousOnly;

impl Authenticator for AnonymousOnly {
    fn authenticate(&self, _sign_in: SignIn) -> BoxFuture<'_, Result<SignedIn, SignInRefused>> {
        ready(Ok(SignedIn::new(Identity::Anonymous))).boxed()
    }
}

/// Someone asks to be let in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SignIn {
    /// The transport's name, for example `mqtt`.
    pub transport: &'static str,
    /// What the client calls itself: an MQTT client id, or empty.
    pub client_id: String,
    /// Where it connects from.
    pub address: Option<SocketAddr>,
    /// What it brings to prove who it is.
    pub credentials: Credentials,
}

impl SignIn {
    /// Someone on a transport of this name, of whom nothing else is known yet.
    pub fn new(transport: &'static str) -> Self {
        Self {
            transport,
            client_id: String::new(),
            address: None,
            credentials: Credentials::default(),
        }
    }

    /// The same with where it connects from.
    #[must_use]
    pub fn with_address(self, address: impl Into<Option<SocketAddr>>) -> Self {
        let address = address.into();
        Self { address, ..self }
    }

    /// The same with what the client calls itself.
    #[must_use]
    pub fn with_client_id(self, client_id: impl Into<String>) -> Self {
        let client_id = client_id.into();
        Self { client_id, ..self }
    }

    /// The same with what it brings.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self {
            credentials,
            ..self
        }
    }

    /// Who that is, once it is known.
    pub(crate) fn principal(self, signed_in: SignedIn) -> Principal {
        Principal {
            identity: signed_in.identity,
            claims: signed_in.claims,
            expires_at: signed_in.expires_at,
            version: signed_in.version,
            session: signed_in.session,
            ..Principal::anonymous(self.transport)
        }
        .with_client_id(self.client_id)
        .with_address(self.address)
    }
}

/// What someone brings to prove who they are. `Debug` shows no secrets.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// A user's name.
    pub user: Option<String>,
    /// A password, as it came: of MQTT any bytes. It may be a token, where a protocol has no other place for one.
    pub password: Option<Bytes>,
    /// A bearer token.
    pub token: Option<String>,
    /// The client's certificate, whose chain and key TLS has verified.
    pub certificate: Option<Arc<Certificate>>,
    /// What a browser was given when its user signed in, and brings back in a cookie, beside those of other servers on the same
    /// host. It counts where nothing else is brought but a certificate, and one that does not hold any more is as good as none.
    pub sessions: Vec<String>,
}

impl Credentials {
    /// A user with a password.
    pub fn password(user: impl Into<String>, password: impl Into<Bytes>) -> Self {
        Self {
            user: Some(user.into()),
            password: Some(password.into()),
            ..Self::default()
        }
    }

    /// A bearer token.
    pub fn token(token: impl Into<String>) -> Self {
        Self {
            token: Some(token.into()),
            ..Self::default()
        }
    }

    /// The same with the certificate of the connection.
    #[must_use]
    pub fn with_certificate(self, certificate: impl Into<Option<Arc<Certificate>>>) -> Self {
        let certificate = certificate.into();
        Self {
            certificate,
            ..self
        }
    }

    /// These, and where a name, a password or a token is not among them, those of `others`; the certificate is that of whichever
    /// has one.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        let certificate = self.certificate.clone().or(others.certificate.clone());
        let proves = self.user.is_some() || self.password.is_some() || self.token.is_some();
        let credentials = if proves { self } else { others };
        credentials.with_certificate(certificate)
    }

    /// What a header `Authorization` brings: `Basic` (RFC 7617) or `Bearer` (RFC 6750). One that cannot be read proves nothing, and
    /// is not the same as none.
    pub fn from_authorization(value: &[u8]) -> Self {
        let nothing = || Self::password("", "");
        let Some((scheme, rest)) =
            (core::str::from_utf8(value).ok()).and_then(|value| value.trim().split_once(' '))
        else {
            return nothing();
        };
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::token(rest);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return nothing();
        }
        let decoded = STANDARD.decode(rest).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((user, password)) => Self::password(user, password.to_owned()),
            None => nothing(),
        }
    }

    /// The same with the sessions of a browser.
    #[must_use]
    pub fn with_sessions(self, sessions: Vec<String>) -> Self {
        Self { sessions, ..self }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |is_there: bool| is_there.then_some("hidden");
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("password", &hidden(self.password.is_some()))
            .field("token", &hidden(self.token.is_some()))
            .field("certificate", &self.certificate)
            .field("sessions", &hidden(!self.sessions.is_empty()))
            .finish()
    }
}

/// The names in a client's certificate that TLS has verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of its subject.
    pub common_name: Option<String>,
    /// Its alternative names: DNS names, e-mail addresses, URIs and IP addresses as text.
    pub alternative_names: Vec<String>,
}

/// Who someone has proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedIn {
    /// Who that is.
    pub identity: Identity,
    /// What its token says that it may do.
    pub claims: Option<Arc<Claims>>,
    /// When that ends. None: with the connection.
    pub expires_at: Option<SystemTime>,
    /// What the authenticator needs to tell later whether that is [`still_valid`](Authenticator::still_valid): for
    /// example which password of the user it was. 0 unless it says otherwise.
    pub version: u64,
    /// Which session of a browser it is: what ends with it. None: of its own.
    pub session: Option<u64>,
}

impl SignedIn {
    /// Someone for as long as the connection lasts.
    pub const fn new(identity: Identity) -> Self {
        Self {
            identity,
            claims: None,
            expires_at: None,
            version: 0,
            session: None,
        }
    }

    /// The same as a part of this session of a browser.
    #[must_use]
    pub fn with_session(self, session: u64) -> Self {
        let session = Some(session);
        Self { session, ..self }
    }

    /// The same with what [`still_valid`](Authenticator::still_valid) will need.
    #[must_use]
    pub fn with_version(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// The same with what the token says.
    #[must_use]
    pub fn with_claims(self, claims: impl Into<Option<Arc<Claims>>>) -> Self {
        let claims = claims.into();
        Self { claims, ..self }
    }

    /// The same until then.
    #[must_use]
    pub fn until(self, expires_at: impl Into<Option<SystemTime>>) -> Self {
        let expires_at = expires_at.into();
        Self { expires_at, ..self }
    }
}

/// Why someone was not let in.
///
/// Its text is for the client, and does not help to guess: of a token that is not accepted, the log alone says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignInRefused {
    /// It brought none, and needs some.
    #[error("credentials are required")]
    CredentialsRequired,
    /// They prove nothing: an unknown user, a wrong password, a token that was not issued here.
    #[error("bad user name, password or token")]
    BadCredentials,
    /// The same of a token, for this reason, which only the log says.
    #[error("bad user name, password or token")]
    BadToken(Arc<str>),
    /// Its certificate was verified, and has no name that could be its own.
    #[error(
        "the client certificate has no usable name: neither a common name nor an alternative name"
    )]
    NamelessCertificate,
    /// They were right once.
    #[error("the token has expired")]
    Expired,
    /// They prove somebody else than who has signed in over this connection before.
    #[error("the user or the subject of the token is not the one that has signed in before")]
    OtherIdentity,
    /// It is who it says, and may not connect.
    #[error("connecting is not allowed")]
    NotAuthorized,
    /// It, or its address, has tried too often.
    #[error("too many attempts, try again in {} s", retry_after.as_secs_f32().ceil())]
    TooManyAttempts {
        /// When it may try again.
        retry_after: Duration,
    },
    /// Its user, or its address, has as many connections as it may.
    #[error("{limit} connections already (setting: {setting})")]
    TooManyConnections {
        /// The bound.
        limit: usize,
        /// The setting of the `latchbus` program that changes it.
        setting: &'static str,
    },
    /// Nobody can tell now.
    #[error("signing in is not possible now")]
    Unavailable,
}

impl SignInRefused {
    /// Why, for the log: more than its text where that says less than is known.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::BadToken(why) => Some(why),
            _ => None,
        }
    }

    /// One word for the cause, as `/metrics` has it.
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::CredentialsRequired => "credentials_required",
            Self::BadCredentials => "bad_credentials",
            Self::BadToken(_) => "bad_token",
            Self::NamelessCertificate => "nameless_certificate",
            Self::Expired => "expired",
            Self::OtherIdentity => "other_identity",
            Self::NotAuthorized => "not_authorized",
            Self::TooManyAttempts { .. } => "too_many_attempts",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::Unavailable => "unavailable",
        }
    }

    /// All that [`cause`](Self::cause) can say.
    pub const CAUSES: [&'static str; 10] = [
        "credentials_required",
        "bad_credentials",
        "bad_token",
        "nameless_certificate",
        "expired",
        "other_identity",
        "not_authorized",
        "too_many_attempts",
        "too_many_connections",
        "unavailable",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_http() {
        let anna = Credentials::password("anna", "a:b");
        let basic = STANDARD.encode("anna:a:b");
        for (value, expected) in [
            (format!("Basic {basic}"), anna.clone()),
            (format!("basic  {basic} "), anna),
            ("Bearer x.y.z".into(), Credentials::token("x.y.z")),
            ("bearer x".into(), Credentials::token("x")),
            ("Basic".into(), Credentials::password("", "")),
            ("Basic ???".into(), Credentials::password("", "")),
            (
                format!("Basic {}", STANDARD.encode("anna")),
                Credentials::password("", ""),
            ),
            ("Digest x".into(), Credentials::password("", "")),
            (String::new(), Credentials::password("", "")),
        ] {
            assert_eq!(
                Credentials::from_authorization(value.as_bytes()),
                expected,
                "{value}"
            );
        }
        assert_eq!(
            Credentials::from_authorization(b"Basic \xff"),
            Credentials::password("", "")
        );
    }

    #[test]
    fn what_is_brought_later_goes_first() {
        let certificate = Arc::new(Certificate::default());
        let header = Credentials::token("t").with_certificate(Arc::clone(&certificate));
        let anna = Credentials::password("anna", "x");
        assert_eq!(
            anna.clone().or(header.clone()),
            anna.with_certificate(certificate)
        );
        assert_eq!(Credentials::default().or(header.clone()), header);
    }
}
