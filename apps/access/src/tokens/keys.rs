//! The keys that tokens are verified with, and the files that they come from.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use ring::{hmac, signature};
use serde::Deserialize;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

/// The most keys of one file.
pub const MAX_KEYS: usize = 100;

/// The shortest secret, in bytes: as long as the hash (RFC 7518 §3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// How a token can be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// The algorithm of a header; none for those that are not supported, and for `none`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "RS256" => Self::Rs256,
            "ES256" => Self::Es256,
            // RFC 9864 gives the second name to what RFC 8037 calls by the first.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// The keys of a file.
#[derive(Debug, Default)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
pub(super) struct Key {
    /// None: the key has no name, and is for tokens with any `kid`.
    id: Option<String>,
    material: Material,
}

enum Material {
    Secret(hmac::Key),
    /// `RSAPublicKey` of PKCS #1.
    Rsa(Vec<u8>),
    RsaComponents {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point of P-256.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Shows the algorithm alone.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.algorithm().fmt(f)
    }
}

/// What is wrong with a file of keys. It never shows a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It holds none.
    #[error("no key in it")]
    Empty,
    /// It holds more than [`MAX_KEYS`].
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
    /// A secret that is too short to be safe.
    #[error(
        "the secret is shorter than {MIN_SECRET_BYTES} bytes (`openssl rand -hex 32` makes one)"
    )]
    ShortSecret,
    /// A private key, which a server has no use for.
    #[error("a private key; the server needs the public key (`openssl pkey -pubout`)")]
    Private,
    /// A block of a PEM file that is no key.
    #[error("a PEM block of the kind {0}")]
    Block(String),
    /// A damaged PEM file.
    #[error("damaged PEM")]
    Pem,
    /// A key of a kind that signs none of the supported algorithms.
    #[error("a key that is not of RSA (2048 bits or more), P-256 or Ed25519")]
    Kind,
    /// A JSON file that is no JWK and no JWK set.
    #[error("no JWK set: {0}")]
    Json(String),
}

impl KeySet {
    /// Reads a file: a JWK set or a single JWK (JSON), public keys or certificates (PEM), or a secret (any other bytes,
    /// without the line end at their end). Keys of a JWK set that cannot verify tokens are left out: the second value says
    /// how many.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, usize), KeysError> {
        let text = bytes.trim_ascii_start();
        let (keys, left_out) = if text.starts_with(b"{") {
            jwk_set(text)?
        } else if text.starts_with(b"-----BEGIN") || find(text, b"\n-----BEGIN") {
            (pem(text)?, 0)
        } else {
            (vec![Key::unnamed(secret(bytes)?)], 0)
        };
        match keys.len() {
            0 => Err(KeysError::Empty),
            1..=MAX_KEYS => Ok((Self(keys), left_out)),
            _ => Err(KeysError::TooMany),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a token that names this key can be of one of these.
    pub(super) fn knows(&self, id: Option<&str>) -> bool {
        self.0.iter().any(|key| key.may_be(id))
    }

    /// Whether one of the keys has signed this.
    pub(super) fn verify(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let keys = self.0.iter().filter(|key| key.may_be(id));
        let mut keys = keys.filter(|key| key.material.algorithm() == algorithm);
        keys.any(|key| key.material.verify(message, signature))
    }
}

impl Key {
    const fn unnamed(material: Material) -> Self {
        Self { id: None, material }
    }

    fn may_be(&self, id: Option<&str>) -> bool {
        match (&self.id, id) {
            (Some(own), Some(id)) => own == id,
            _ => true,
        }
    }
}

impl Material {
    const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::Hs256,
            Self::Rsa(_) | Self::RsaComponents { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let unparsed = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature)
        };
        let verified = match self {
            Self::Secret(key) => hmac::verify(key, message, signature),
            Self::Rsa(key) => unparsed(&RSA_PKCS1_2048_8192_SHA256, key),
            Self::RsaComponents { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            Self::P256(key) => unparsed(&ECDSA_P256_SHA256_FIXED, key),
            Self::Ed25519(key) => unparsed(&ED25519, key),
        };
        verified.is_ok()
    }
}

fn find(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn secret(bytes: &[u8]) -> Result<Material, KeysError> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    match bytes.len() {
        0 => Err(KeysError::Empty),
        1..MIN_SECRET_BYTES => Err(KeysError::ShortSecret),
        _ => Ok(Material::Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes))),
    }
}

fn pem(text: &[u8]) -> Result<Vec<Key>, KeysError> {
    let blocks = Pem::iter_from_buffer(text);
    let keys = blocks.map(|block| {
        let block = block.map_err(|_| KeysError::Pem)?;
        let material = match block.label.as_str() {
            "PUBLIC KEY" => {
                let key = SubjectPublicKeyInfo::from_der(&block.contents);
                public_key(&key.map_err(|_| KeysError::Pem)?.1)?
            }
            "RSA PUBLIC KEY" => Material::Rsa(block.contents),
            "CERTIFICATE" => {
                let certificate = X509Certificate::from_der(&block.contents);
                public_key(certificate.map_err(|_| KeysError::Pem)?.1.public_key())?
            }
            label if label.ends_with("PRIVATE KEY") => return Err(KeysError::Private),
            label => return Err(KeysError::Block(label.to_owned())),
        };
        Ok(Key::unnamed(material))
    });
    keys.collect()
}

fn public_key(key: &SubjectPublicKeyInfo<'_>) -> Result<Material, KeysError> {
    let bits = key.subject_public_key.data.to_vec();
    let algorithm = &key.algorithm;
    if algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        return match key.parsed() {
            Ok(x509_parser::public_key::PublicKey::RSA(rsa)) if rsa.key_size() >= 2_048 => {
                Ok(Material::Rsa(bits))
            }
            _ => Err(KeysError::Kind),
        };
    }
    if algorithm.algorithm == OID_SIG_ED25519 && bits.len() == 32 {
        return Ok(Material::Ed25519(bits));
    }
    let curve = algorithm.parameters.as_ref();
    let curve = curve.and_then(|parameters| parameters.as_oid().ok());
    let is_p256 = algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256);
    match is_p256 && bits.len() == 65 {
        true => Ok(Material::P256(bits)),
        false => Err(KeysError::Kind),
    }
}

/// A JWK set or a JWK of RFC 7517.
#[derive(Deserialize)]
#[serde(untagged)]
enum Jwks {
    Set { keys: Vec<serde_json::Value> },
    One(serde_json::Map<String, serde_json::Value>),
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    k: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Keys for other purposes and of other kinds are no error: a set is for many readers (RFC 7517 §5).
fn jwk_set(text: &[u8]) -> Result<(Vec<Key>, usize), KeysError> {
    let set: Jwks =
        serde_json::from_slice(text).map_err(|error| KeysError::Json(error.to_string()))?;
    let values = match set {
        Jwks::Set { keys } => keys,
        Jwks::One(key) if key.contains_key("kty") => vec![key.into()],
        Jwks::One(_) => return Err(KeysError::Json("neither `keys` nor `kty`".to_owned())),
    };
    let all = values.len();
    if all > MAX_KEYS {
        return Err(KeysError::TooMany);
    }
    let mut keys = Vec::new();
    for value in values {
        let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
            continue;
        };
        keys.extend(jwk.key()?);
    }
    let left_out = all - keys.len();
    Ok((keys, left_out))
}

impl Jwk {
    /// The key; none for one that cannot verify tokens.
    fn key(self) -> Result<Option<Key>, KeysError> {
        let is_for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let mut operations = self.key_ops.iter().flatten();
        let may_verify = self.key_ops.is_none() || operations.any(|one| one == "verify");
        if !is_for_signatures || !may_verify {
            return Ok(None);
        }
        let Some(material) = self.material()? else {
            return Ok(None);
        };
        let is_same = |name: &String| Algorithm::parse(name) == Some(material.algorithm());
        let id = self.kid.clone();
        Ok(self
            .alg
            .as_ref()
            .is_none_or(is_same)
            .then_some(Key { id, material }))
    }

    fn material(&self) -> Result<Option<Material>, KeysError> {
        let field = |field: &Option<String>| URL_SAFE_NO_PAD.decode(field.as_ref()?).ok();
        Ok(match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => {
                let Some(secret) = field(&self.k) else {
                    return Ok(None);
                };
                if secret.len() < MIN_SECRET_BYTES {
                    return Err(KeysError::ShortSecret);
                }
                Some(Material::Secret(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
            }
            ("RSA", _) => rsa(field(&self.n), field(&self.e)),
            ("EC", Some("P-256")) => p256(field(&self.x), field(&self.y)),
            ("OKP", Some("Ed25519")) => {
                let key = field(&self.x).filter(|key| key.len() == 32);
                key.map(Material::Ed25519)
            }
            _ => None,
        })
    }
}

/// Some write numbers with zeros before them.
fn rsa(n: Option<Vec<u8>>, e: Option<Vec<u8>>) -> Option<Material> {
    let number =
        |bytes: Vec<u8>| -> Vec<u8> { bytes.into_iter().skip_while(|byte| *byte == 0).collect() };
    let (n, e) = (number(n?), number(e?));
    (n.len() >= 256 && !e.is_empty()).then_some(Material::RsaComponents { n, e })
}

fn p256(x: Option<Vec<u8>>, y: Option<Vec<u8>>) -> Option<Material> {
    let (x, y) = (x?, y?);
    (x.len() == 32 && y.len() == 32).then(|| Material::P256([vec![4], x, y].concat()))
}
