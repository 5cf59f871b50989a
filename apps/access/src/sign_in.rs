//! Who someone is: by password, by token, by certificate, or nobody.

use std::sync::Arc;
use std::time::SystemTime;

use latchbus_bus::{
    Authenticator, BoxFuture, Certificate, Claims, Credentials, Identity, Principal, SignIn,
    SignInRefused, SignedIn, SignedOut,
};
use tokio::sync::watch;

use crate::tokens::{Token, TokenError, Tokens, is_token};
use crate::users::{Refused, Users};

/// Says who someone is, in this order:
///
/// 1. A bearer token proves its subject. So does a token that comes as the password, where tokens are accepted; the user
///    name beside it does not count.
/// 2. A user name and a password prove the user. A name without a password proves nothing.
/// 3. A certificate that TLS has verified proves its common name, or else its first alternative name.
/// 4. Who brings nothing is anonymous, where that is allowed.
///
/// Credentials that prove nothing are refused, also where anonymous clients are let in and beside a certificate. Where neither users
/// nor tokens are set up and everybody is let in, passwords and tokens do not count, but beside a certificate.
#[derive(Debug, Clone, Default)]
pub struct SignIns {
    users: Option<Users>,
    tokens: Option<Tokens>,
    anonymous: bool,
}

/// Sets up [`SignIns`].
#[derive(Debug, Clone, Default)]
#[must_use = "`build` makes the authenticator"]
pub struct SignInsBuilder(SignIns);

impl SignInsBuilder {
    /// Users with passwords.
    pub fn users(mut self, users: impl Into<Option<Users>>) -> Self {
        self.0.users = users.into();
        self
    }

    /// Tokens.
    pub fn tokens(mut self, tokens: impl Into<Option<Tokens>>) -> Self {
        self.0.tokens = tokens.into();
        self
    }

    /// Whether who brings nothing is let in.
    pub const fn anonymous(mut self, anonymous: bool) -> Self {
        self.0.anonymous = anonymous;
        self
    }

    /// The authenticator.
    pub fn build(self) -> SignIns {
        self.0
    }
}

impl SignIns {
    /// Nobody is let in, until users, tokens or anonymous clients are.
    pub fn builder() -> SignInsBuilder {
        SignInsBuilder::default()
    }

    /// Whether who brings nothing is let in.
    pub const fn allows_anonymous(&self) -> bool {
        self.anonymous
    }

    /// Whether there is anything to sign in with: users or tokens.
    pub const fn has_users(&self) -> bool {
        self.users.is_some() || self.tokens.is_some()
    }

    /// Whether there is a password file.
    pub const fn reads_users(&self) -> bool {
        self.users.is_some()
    }

    /// Reads the files of users and keys again, changed or not: on SIGHUP. It blocks for the time of reading files.
    pub fn reload(&self) {
        if let Some(users) = &self.users {
            users.reload();
        }
        if let Some(tokens) = &self.tokens {
            tokens.reload();
        }
    }

    /// Reads the files of users and keys whenever they change, until it is dropped.
    pub async fn watch(self) {
        if self.users.is_none() && self.tokens.is_none() {
            return core::future::pending().await;
        }
        let mut looks = tokio::time::interval(crate::users::LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let this = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                if let Some(users) = &this.users {
                    users.look();
                }
                if let Some(tokens) = &this.tokens {
                    tokens.look();
                }
            });
            // Only the end of the runtime cancels it.
            if looked.await.is_err() {
                return;
            }
        }
    }

    async fn password(
        &self,
        users: &Users,
        user: &str,
        password: &[u8],
        sign_in: &SignIn,
    ) -> Result<SignedIn, SignInRefused> {
        let address = sign_in.address.map(|address| address.ip());
        match users.sign_in(user, password, address).await {
            Ok(version) => Ok(SignedIn::new(Identity::User(user.to_owned())).with_version(version)),
            Err(Refused::Wrong) => Err(SignInRefused::BadCredentials),
            Err(Refused::Throttled(retry_after)) => {
                Err(SignInRefused::TooManyAttempts { retry_after })
            }
            Err(Refused::Busy) => Err(SignInRefused::Unavailable),
        }
    }

    fn anonymous(&self) -> Result<SignedIn, SignInRefused> {
        match self.anonymous {
            true => Ok(SignedIn::new(Identity::Anonymous)),
            false => Err(SignInRefused::CredentialsRequired),
        }
    }
}

impl Authenticator for SignIns {
    fn authenticate(&self, sign_in: SignIn) -> BoxFuture<'_, Result<SignedIn, SignInRefused>> {
        Box::pin(async move {
            let Credentials {
                user,
                password,
                token,
                certificate,
                ..
            } = &sign_in.credentials;
            if let Some(tokens) = &self.tokens {
                let as_password = password.as_deref().filter(|password| is_token(password));
                let as_password = as_password.and_then(|bytes| core::str::from_utf8(bytes).ok());
                if let Some(token) = token.as_deref().or(as_password) {
                    return bearer(tokens, token);
                }
            }
            // What nobody can check does not count where everybody is let in, as who they are not.
            let is_open = self.users.is_none() && self.tokens.is_none() && certificate.is_none();
            if token.is_some() && !is_open {
                return Err(SignInRefused::BadCredentials);
            }
            match (&self.users, user, password) {
                (Some(users), Some(user), Some(password)) => {
                    self.password(users, user, password, &sign_in).await
                }
                (Some(_), Some(_), None) => Err(SignInRefused::CredentialsRequired),
                (Some(_), None, Some(_)) => Err(SignInRefused::BadCredentials),
                (None, _, Some(_)) | (None, Some(_), _) if !is_open => {
                    Err(SignInRefused::BadCredentials)
                }
                _ => match certificate {
                    Some(certificate) => by_certificate(certificate),
                    None => self.anonymous(),
                },
            }
        })
    }

    fn still_valid(&self, principal: &Principal) -> bool {
        match (&principal.identity, &self.users) {
            (Identity::User(name), Some(users)) => users.version(name) == Some(principal.version),
            _ => true,
        }
    }

    fn why_invalid(&self, principal: &Principal) -> SignedOut {
        match self.is_known(principal) {
            true => SignedOut::PasswordChanged,
            false => SignedOut::Removed,
        }
    }

    fn is_known(&self, principal: &Principal) -> bool {
        match (&principal.identity, &self.users) {
            (Identity::User(name), Some(users)) => users.version(name).is_some(),
            _ => true,
        }
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.users.as_ref().map(Users::changes)
    }
}

fn bearer(tokens: &Tokens, token: &str) -> Result<SignedIn, SignInRefused> {
    match tokens.verify(token, SystemTime::now()) {
        Ok(Token {
            subject,
            expires_at,
            publish,
            subscribe,
            admin,
        }) => {
            let mut claims = Claims::default();
            (claims.publish, claims.subscribe, claims.admin) = (publish, subscribe, admin);
            Ok(SignedIn::new(Identity::Token { subject })
                .with_claims(Arc::new(claims))
                .until(expires_at))
        }
        Err(TokenError::Expired) => Err(SignInRefused::Expired),
        // Why is for who sets up the issuer: the log says it, and nobody else.
        Err(error) => Err(SignInRefused::BadToken(error.to_string().into())),
    }
}

fn by_certificate(certificate: &Certificate) -> Result<SignedIn, SignInRefused> {
    let names = certificate
        .common_name
        .iter()
        .chain(&certificate.alternative_names);
    let mut names = names.filter(|name| !name.is_empty() && !name.contains(char::is_control));
    let subject = names
        .next()
        .ok_or(SignInRefused::NamelessCertificate)?
        .clone();
    Ok(SignedIn::new(Identity::Certificate { subject }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use latchbus_core::topic::TopicFilter;

    use super::*;
    use crate::tokens::{Config, DEFAULT_LEEWAY};

    /// `correct horse`, of htpasswd -B.
    const ANNA: &str = "anna:$2y$05$MFSMmI2PqSL9QjgAtX0dJ.ZlE7EIzily2QeWpbwG6P9LKZmHYwEDW\n";
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn users(directory: &tempfile::TempDir) -> Users {
        let path = directory.path().join("users");
        fs::write(&path, ANNA).unwrap();
        Users::open(path).unwrap()
    }

    fn tokens(directory: &tempfile::TempDir) -> Tokens {
        let keys = directory.path().join("keys");
        fs::write(&keys, SECRET).unwrap();
        Tokens::open(Config {
            keys,
            issuer: None,
            audience: Vec::new(),
            leeway: DEFAULT_LEEWAY,
        })
        .unwrap()
    }

    fn token(claims: &str) -> String {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
        use ring::hmac;

        let message = format!(
            "{}.{}",
            BASE64.encode(r#"{"alg":"HS256"}"#),
            BASE64.encode(claims)
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        let signature = BASE64.encode(hmac::sign(&key, message.as_bytes()));
        format!("{message}.{signature}")
    }

    async fn ask(sign_ins: &SignIns, credentials: Credentials) -> Result<Identity, SignInRefused> {
        let sign_in = SignIn::new("test").with_credentials(credentials);
        let signed_in = sign_ins.authenticate(sign_in).await?;
        Ok(signed_in.identity)
    }

    fn nameless(password: &'static str) -> Credentials {
        let mut credentials = Credentials::default();
        credentials.password = Some(password.into());
        credentials
    }

    fn only_name() -> Credentials {
        let mut credentials = Credentials::default();
        credentials.user = Some("anna".to_owned());
        credentials
    }

    fn certificate(name: Option<&str>) -> Credentials {
        Credentials::default().with_certificate(Arc::new(Certificate {
            common_name: name.map(str::to_owned),
            alternative_names: vec!["kiosk.example".to_owned()],
        }))
    }

    #[tokio::test]
    async fn each_kind_of_credentials_proves_what_it_can() {
        use SignInRefused::{BadCredentials, BadToken, CredentialsRequired, Expired};

        let directory = tempfile::tempdir().unwrap();
        let both = SignIns::builder()
            .users(users(&directory))
            .tokens(tokens(&directory))
            .build();
        let anna = || Ok(Identity::User("anna".to_owned()));
        let kiosk = || {
            Ok(Identity::Certificate {
                subject: "kiosk".to_owned(),
            })
        };
        let subject = || {
            Ok(Identity::Token {
                subject: "ben".to_owned(),
            })
        };
        let valid = &token(r#"{"sub":"ben","exp":4102444800}"#);
        let expired = &token(r#"{"sub":"ben","exp":1}"#);
        let right = || Credentials::password("anna", "correct horse");
        let wrong = || Credentials::password("anna", "wrong");
        for (credentials, expected) in [
            (right(), anna()),
            (wrong(), Err(BadCredentials)),
            (only_name(), Err(CredentialsRequired)),
            (nameless("correct horse"), Err(BadCredentials)),
            (Credentials::default(), Err(CredentialsRequired)),
            (Credentials::token(valid), subject()),
            (Credentials::password("anna", valid.clone()), subject()),
            (Credentials::password("", valid.clone()), subject()),
            (Credentials::token(expired), Err(Expired)),
            (
                Credentials::token("correct horse"),
                Err(BadToken("not a signed JSON Web Token".into())),
            ),
            (certificate(Some("kiosk")), kiosk()),
            (
                certificate(None),
                Ok(Identity::Certificate {
                    subject: "kiosk.example".to_owned(),
                }),
            ),
        ] {
            let shown = format!("{credentials:?}");
            assert_eq!(ask(&both, credentials).await, expected, "{shown}");
        }
        // A certificate does not make a wrong password right, and a right one counts before it.
        let mut credentials = certificate(Some("kiosk"));
        (credentials.user, credentials.password) = (Some("anna".into()), Some("wrong".into()));
        assert_eq!(ask(&both, credentials.clone()).await, Err(BadCredentials));
        credentials.password = Some("correct horse".into());
        assert_eq!(ask(&both, credentials).await, anna());
    }

    #[tokio::test]
    async fn wrong_credentials_are_refused_where_anonymous_clients_are_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let guests = SignIns::builder()
            .users(users(&directory))
            .anonymous(true)
            .build();
        assert_eq!(
            ask(&guests, Credentials::default()).await,
            Ok(Identity::Anonymous)
        );
        for wrong in [
            Credentials::password("anna", "wrong"),
            Credentials::token("x"),
            only_name(),
            nameless("x"),
        ] {
            assert!(ask(&guests, wrong).await.is_err());
        }
    }

    #[tokio::test]
    async fn where_nothing_is_set_up_passwords_do_not_count() {
        let open = SignIns::builder().anonymous(true).build();
        for credentials in [
            Credentials::default(),
            Credentials::password("anna", "x"),
            Credentials::token("x"),
        ] {
            assert_eq!(ask(&open, credentials).await, Ok(Identity::Anonymous));
        }
        let certificates = SignIns::builder().build();
        assert!(
            ask(&certificates, Credentials::password("anna", "x"))
                .await
                .is_err()
        );
        assert!(ask(&certificates, certificate(Some("kiosk"))).await.is_ok());
        // Beside a certificate they are wrong, since nothing makes them right.
        for anonymous in [false, true] {
            let certificates = SignIns::builder().anonymous(anonymous).build();
            for wrong in [
                Credentials::password("anna", "x"),
                Credentials::token("x"),
                only_name(),
                nameless("x"),
            ] {
                let both = wrong.or(certificate(Some("kiosk")));
                let answer = ask(&certificates, both).await;
                assert_eq!(answer, Err(SignInRefused::BadCredentials));
            }
        }
    }

    #[tokio::test]
    async fn a_certificate_without_a_name_is_refused_in_its_own_words() {
        let certificates = SignIns::builder().anonymous(true).build();
        for (common_name, alternative_names) in [
            (None, vec![]),
            (Some(""), vec![""]),
            (Some("a\nb"), vec!["\u{7}"]),
        ] {
            let nameless = Certificate {
                common_name: common_name.map(str::to_owned),
                alternative_names: alternative_names.into_iter().map(str::to_owned).collect(),
            };
            let brought = Credentials::default().with_certificate(Arc::new(nameless));
            let answer = ask(&certificates, brought).await;
            assert_eq!(answer, Err(SignInRefused::NamelessCertificate));
        }
    }

    #[tokio::test]
    async fn where_tokens_alone_are_accepted_a_name_or_a_password_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for anonymous in [false, true] {
            let tokens = SignIns::builder()
                .tokens(tokens(&directory))
                .anonymous(anonymous)
                .build();
            let mut with_certificate = certificate(Some("kiosk"));
            with_certificate.password = Some("x".into());
            for credentials in [
                Credentials::password("anna", "x"),
                only_name(),
                nameless("x"),
                with_certificate,
            ] {
                let refused = ask(&tokens, credentials).await;
                assert_eq!(refused, Err(SignInRefused::BadCredentials));
            }
        }
    }

    #[tokio::test]
    async fn a_token_brings_its_end_and_what_it_claims() {
        let directory = tempfile::tempdir().unwrap();
        let sign_ins = SignIns::builder().tokens(tokens(&directory)).build();
        let signed_in = async |claims: &str| {
            let credentials = Credentials::token(token(claims));
            let sign_in = SignIn::new("test").with_credentials(credentials);
            sign_ins.authenticate(sign_in).await.unwrap()
        };
        let exp = SystemTime::UNIX_EPOCH + core::time::Duration::from_secs(4_102_444_800);
        for (claimed, publish, subscribe, admin) in [
            ("{}", None, None, false),
            (r#"{"admin":true}"#, None, None, true),
            (r#"{"pub":["a"]}"#, Some("a"), None, false),
            (
                r#"{"sub":["b"],"pub":["a"],"admin":true}"#,
                Some("a"),
                Some("b"),
                true,
            ),
        ] {
            let filters = |filter: Option<&str>| {
                let parsed = filter.map(|text| TopicFilter::parse(text.to_owned()).unwrap());
                parsed.map(|filter| vec![filter])
            };
            let text = format!(r#"{{"sub":"ben","exp":4102444800,"latchbus":{claimed}}}"#);
            let signed_in = signed_in(&text).await;
            assert_eq!(signed_in.expires_at, Some(exp + DEFAULT_LEEWAY));
            let claims = signed_in.claims.unwrap();
            assert_eq!(claims.publish, filters(publish), "{claimed}");
            assert_eq!(claims.subscribe, filters(subscribe), "{claimed}");
            assert_eq!(claims.admin, admin, "{claimed}");
        }
    }

    #[tokio::test]
    async fn a_certificate_is_named_by_its_first_name_that_can_be_one() {
        let nobody = SignIns::builder().build();
        let named = async |common_name: Option<&str>, others: &[&str]| {
            let certificate = Certificate {
                common_name: common_name.map(str::to_owned),
                alternative_names: others.iter().map(|name| (*name).to_owned()).collect(),
            };
            let credentials = Credentials::default().with_certificate(Arc::new(certificate));
            ask(&nobody, credentials).await
        };
        let is = |subject: &str| {
            Ok(Identity::Certificate {
                subject: subject.to_owned(),
            })
        };
        for unusable in ["", "a\nb", "\0", "a\u{7f}", "\u{85}"] {
            assert_eq!(named(Some(unusable), &["b", "c"]).await, is("b"));
            assert_eq!(named(None, &[unusable, "c"]).await, is("c"));
            let none = named(Some(unusable), &[unusable]).await;
            assert_eq!(none, Err(SignInRefused::NamelessCertificate));
        }
        assert_eq!(named(Some("a"), &["b"]).await, is("a"));
    }

    #[tokio::test]
    async fn a_password_that_was_changed_ends_what_was_signed_in_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let users = users(&directory);
        let sign_ins = SignIns::builder().users(users.clone()).build();
        let principal = |version| {
            let mut principal = Principal::user("anna".to_owned(), "test");
            principal.version = version;
            principal
        };
        let sign_in =
            SignIn::new("test").with_credentials(Credentials::password("anna", "correct horse"));
        let before = principal(sign_ins.authenticate(sign_in).await.unwrap().version);
        let changes = sign_ins.changes().unwrap();
        assert!(sign_ins.still_valid(&before));
        let changed = crate::users::PasswordHash::new(b"other").unwrap();
        fs::write(users.path(), format!("anna:{changed}\n")).unwrap();
        sign_ins.reload();
        assert!(changes.has_changed().unwrap());
        assert!(!sign_ins.still_valid(&before));
        assert!(sign_ins.is_known(&before));
        assert!(sign_ins.still_valid(&principal(users.version("anna").unwrap())));
        fs::write(users.path(), "").unwrap();
        sign_ins.reload();
        assert!(!sign_ins.still_valid(&principal(2)));
        assert!(!sign_ins.is_known(&before));
        assert!(sign_ins.is_known(&Principal::anonymous("test")));
        assert!(sign_ins.still_valid(&Principal::anonymous("test")));
    }
}
