//! JSON Web Tokens in the compact form of signatures (RFC 7515 §7.1), and their claims (RFC 7519 §4).

use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use latchbus_core::topic::TopicFilter;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::keys::Algorithm;

/// The longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16_384;

/// The longest subject, in bytes.
pub const MAX_SUBJECT_BYTES: usize = 256;

/// The most filters of one claim.
pub const MAX_CLAIM_FILTERS: usize = 100;

/// What a token has proved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// Whom it was issued to: `sub`.
    pub subject: String,
    /// When it ends, with the leeway: `exp`.
    pub expires_at: SystemTime,
    /// Where its bearer may publish: `latchbus.pub`. None: the token does not say.
    pub publish: Option<Vec<TopicFilter<String>>>,
    /// What its bearer may subscribe to: `latchbus.sub`. None: the token does not say.
    pub subscribe: Option<Vec<TopicFilter<String>>>,
    /// Whether its bearer is an administrator: `latchbus.admin`.
    pub admin: bool,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is longer than [`MAX_TOKEN_BYTES`].
    #[error("longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// It is none.
    #[error("not a signed JSON Web Token")]
    Form,
    /// It is signed by an algorithm that is not supported, or not at all.
    #[error("signed with {0:?}; supported are HS256, RS256, ES256 and EdDSA")]
    Algorithm(String),
    /// Its header demands an extension (RFC 7515 §4.1.11).
    #[error("its header has `crit`, and no extension is supported")]
    Critical,
    /// No key has the name that it gives.
    #[error("no key with its `kid`")]
    UnknownKey,
    /// No key has signed it.
    #[error("not signed by a key of this server")]
    Signature,
    /// A claim is missing.
    #[error("without the claim `{0}`")]
    Missing(&'static str),
    /// A claim has a value that it cannot have.
    #[error("the claim `{0}` is not {1}")]
    Claim(&'static str, &'static str),
    /// It was valid once.
    #[error("expired")]
    Expired,
    /// It will be valid.
    #[error("not valid yet")]
    NotYet,
    /// It is of another issuer than the setting says.
    #[error("of another issuer than tokens.issuer")]
    Issuer,
    /// It is for another audience than the setting says.
    #[error("for another audience than tokens.audience")]
    Audience,
}

/// Whether a password is a token: where a protocol has no other place for one, it comes as password.
pub fn is_token(password: &[u8]) -> bool {
    let text = core::str::from_utf8(password);
    text.is_ok_and(|text| Compact::parse(text).is_ok())
}

/// A token whose signature has not been verified.
#[derive(Debug)]
pub(super) struct Compact<'a> {
    pub(super) header: Header,
    /// What is signed.
    pub(super) message: &'a str,
    pub(super) signature: Vec<u8>,
    payload: &'a str,
}

#[derive(Debug, Deserialize)]
pub(super) struct Header {
    alg: String,
    pub(super) kid: Option<String>,
    crit: Option<Value>,
}

impl Header {
    pub(super) fn algorithm(&self) -> Result<Algorithm, TokenError> {
        if self.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let shown = || self.alg.chars().take(16).collect();
        Algorithm::parse(&self.alg).ok_or_else(|| TokenError::Algorithm(shown()))
    }
}

impl<'a> Compact<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Form)?;
        if payload.contains('.') {
            return Err(TokenError::Form);
        }
        Ok(Self {
            header: json(header).ok_or(TokenError::Form)?,
            message,
            signature: decode(signature).ok_or(TokenError::Form)?,
            payload,
        })
    }

    /// The claims: for one whose signature was verified.
    pub(super) fn claims(&self) -> Result<Claims, TokenError> {
        json(self.payload).map(Claims).ok_or(TokenError::Form)
    }
}

fn decode(base64: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(base64).ok()
}

fn json<T: DeserializeOwned>(base64: &str) -> Option<T> {
    serde_json::from_slice(&decode(base64)?).ok()
}

/// What is asked of the claims.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demands<'a> {
    pub(super) issuer: Option<&'a str>,
    pub(super) audience: &'a [String],
    pub(super) leeway: Duration,
    pub(super) now: SystemTime,
}

#[derive(Debug)]
pub(super) struct Claims(serde_json::Map<String, Value>);

/// What a token may do, in a claim of its own: `sub` at the top is the subject.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rights {
    #[serde(rename = "pub")]
    publish: Option<Vec<String>>,
    #[serde(rename = "sub")]
    subscribe: Option<Vec<String>>,
    #[serde(default)]
    admin: bool,
}

impl Claims {
    pub(super) fn check(&self, demands: Demands<'_>) -> Result<Token, TokenError> {
        let expires_at = self.time("exp")?.ok_or(TokenError::Missing("exp"))?;
        let expires_at = expires_at.checked_add(demands.leeway).unwrap_or(expires_at);
        if demands.now >= expires_at {
            return Err(TokenError::Expired);
        }
        let begins_at = self.time("nbf")?;
        let latest = demands.now.checked_add(demands.leeway);
        if begins_at.is_some_and(|begins_at| latest.is_some_and(|latest| begins_at > latest)) {
            return Err(TokenError::NotYet);
        }
        if demands
            .issuer
            .is_some_and(|issuer| self.text("iss") != Some(issuer))
        {
            return Err(TokenError::Issuer);
        }
        self.check_audience(demands.audience)?;
        let rights = self.rights()?;
        Ok(Token {
            subject: self.subject()?,
            expires_at,
            publish: filters("latchbus.pub", rights.publish)?,
            subscribe: filters("latchbus.sub", rights.subscribe)?,
            admin: rights.admin,
        })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A NumericDate of RFC 7519 §2: seconds, which may have a fraction.
    fn time(&self, name: &'static str) -> Result<Option<SystemTime>, TokenError> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let secs = value.as_f64().filter(|secs| secs.is_finite());
        let secs = secs.ok_or(TokenError::Claim(name, "a number"))?;
        // The clock of the system may end before the number does, and begin after it.
        let after = Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or(Duration::MAX);
        let latest = Duration::from_secs(u64::from(u32::MAX) * 64);
        Ok(UNIX_EPOCH.checked_add(after.min(latest)))
    }

    /// A token for others is not for this server (RFC 7519 §4.1.3): also where no audience is set.
    fn check_audience(&self, audience: &[String]) -> Result<(), TokenError> {
        let is_ours = |one: &Value| {
            one.as_str()
                .is_some_and(|one| audience.iter().any(|own| own == one))
        };
        let is_for_us = match self.0.get("aud") {
            None => audience.is_empty(),
            Some(Value::Array(all)) => all.iter().any(is_ours),
            Some(one) => is_ours(one),
        };
        is_for_us.then_some(()).ok_or(TokenError::Audience)
    }

    fn subject(&self) -> Result<String, TokenError> {
        if !self.0.contains_key("sub") {
            return Err(TokenError::Missing("sub"));
        }
        let subject = self.text("sub").filter(|subject| {
            (1..=MAX_SUBJECT_BYTES).contains(&subject.len()) && !subject.contains(char::is_control)
        });
        let wrong = TokenError::Claim("sub", "a name of at most 256 bytes");
        subject.map(str::to_owned).ok_or(wrong)
    }

    fn rights(&self) -> Result<Rights, TokenError> {
        let Some(value) = self.0.get("latchbus") else {
            return Ok(Rights::default());
        };
        let wrong = TokenError::Claim("latchbus", "an object of `pub`, `sub` and `admin`");
        Rights::deserialize(value).map_err(|_| wrong)
    }
}

fn filters(
    name: &'static str,
    claim: Option<Vec<String>>,
) -> Result<Option<Vec<TopicFilter<String>>>, TokenError> {
    let Some(claim) = claim else {
        return Ok(None);
    };
    if claim.len() > MAX_CLAIM_FILTERS {
        return Err(TokenError::Claim(name, "a list of at most 100 filters"));
    }
    let filters = claim.into_iter().map(TopicFilter::parse);
    let filters: Result<_, _> = filters.collect();
    let wrong = TokenError::Claim(name, "a list of topic filters");
    filters.map(Some).map_err(|_| wrong)
}
