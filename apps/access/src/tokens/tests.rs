use core::time::Duration;
use std::fs;
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::hmac;
use serde_json::{Value, json};

use latchbus_core::topic::TopicFilter;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The time of these tests, in seconds.
const NOW: u64 = 1_800_000_000;

/// Tokens that other programs have signed for `anna`, valid until 2100, and their public keys.
fn foreign() -> Value {
    serde_json::from_str(include_str!("foreign.json")).unwrap()
}

struct Fixture {
    directory: tempfile::TempDir,
    tokens: Tokens,
}

impl Fixture {
    fn new(keys: impl AsRef<[u8]>) -> Self {
        Self::with(keys, |_| ())
    }

    fn with(keys: impl AsRef<[u8]>, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, keys).unwrap();
        let mut config = Config {
            keys: path,
            issuer: None,
            audience: Vec::new(),
            leeway: DEFAULT_LEEWAY,
        };
        change(&mut config);
        let tokens = Tokens::open(config).unwrap();
        Self { directory, tokens }
    }

    fn verify(&self, token: &str) -> Result<Token, TokenError> {
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        self.tokens.verify(token, now)
    }

    fn claims(&self, claims: Value) -> Result<Token, TokenError> {
        self.verify(&sign(json!({"alg": "HS256"}), &claims))
    }
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn sign(header: Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(&header), encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn tokens_of_other_programs_are_verified() {
    for (program, tokens) in foreign().as_object().unwrap() {
        for one in tokens.as_array().unwrap() {
            let token = one["token"].as_str().unwrap();
            let keys = ["pem", "pkcs1", "jwk"].map(|kind| match &one[kind] {
                Value::Null => None,
                Value::String(pem) => Some(pem.clone()),
                jwk => Some(json!({ "keys": [jwk] }).to_string()),
            });
            for keys in keys.into_iter().flatten() {
                let verified = Fixture::new(&keys).verify(token).unwrap();
                assert_eq!(verified.subject, "anna", "{program} {}", one["alg"]);
                let damaged = Fixture::new(&keys).verify(&token.replace("ey", "eY"));
                assert!(damaged.is_err());
            }
        }
    }
}

#[test]
fn a_file_may_hold_several_keys() {
    let all = foreign();
    let pem = |index: usize| all["PyJWT 2"][index]["pem"].as_str().unwrap();
    let fixture = Fixture::new(pem(0).to_owned() + pem(1) + pem(2));
    let jwks: Vec<_> = (0..3).map(|index| &all["jose 6"][index]["jwk"]).collect();
    let unusable = [
        json!({"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
        json!({"kty": "new"}),
        json!(7),
    ];
    let set = json!({"keys": jwks.into_iter().chain(&unusable).collect::<Vec<_>>()});
    let set = Fixture::new(set.to_string());
    for index in 0..3 {
        let token = |program: &str| all[program][index]["token"].as_str().unwrap();
        assert!(fixture.verify(token("PyJWT 2")).is_ok());
        assert!(set.verify(token("jose 6")).is_ok());
        assert_eq!(set.verify(token("PyJWT 2")), Err(TokenError::Signature));
        assert_eq!(fixture.verify(token("jose 6")), Err(TokenError::Signature));
    }
}

#[test]
fn the_kind_of_the_key_decides_and_not_the_header() {
    let pem = foreign()["PyJWT 2"][0]["pem"].as_str().unwrap().to_owned();
    let claims = json!({"sub": "eve", "exp": NOW + 60});
    // Signed with the public key as the secret of an HMAC.
    let message = format!("{}.{}", encode(&json!({"alg": "HS256"})), encode(&claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, pem.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    let fixture = Fixture::new(&pem);
    assert_eq!(
        fixture.verify(&format!("{message}.{signature}")),
        Err(TokenError::Signature)
    );
    // Signed by the key, in another way than it says.
    for name in ["RS256", "ES256", "EdDSA"] {
        let token = sign(json!({"alg": name}), &claims);
        let verified = Fixture::new(SECRET).verify(&token);
        assert_eq!(verified, Err(TokenError::Signature), "{name}");
    }
    for name in [
        "none", "None", "", "HS384", "RS512", "PS256", "ES512", "hs256",
    ] {
        let token = sign(json!({"alg": name}), &claims);
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        let refused = Err(TokenError::Algorithm(name.to_owned()));
        assert_eq!(Fixture::new(SECRET).verify(&token), refused);
        assert_eq!(Fixture::new(SECRET).verify(&unsigned), refused);
    }
    let critical = sign(
        json!({"alg": "HS256", "crit": ["b64"], "b64": false}),
        &claims,
    );
    assert_eq!(
        Fixture::new(SECRET).verify(&critical),
        Err(TokenError::Critical)
    );
}

#[test]
fn both_names_of_ed25519_are_one() {
    let all = foreign();
    let [jose, pyjwt] = ["jose 6", "PyJWT 2"].map(|program| &all[program][2]);
    assert_eq!(
        (&jose["alg"], &pyjwt["alg"]),
        (&json!("Ed25519"), &json!("EdDSA"))
    );
    let mut jwk = jose["jwk"].clone();
    jwk["alg"] = json!("EdDSA");
    let token = jose["token"].as_str().unwrap();
    assert!(Fixture::new(jwk.to_string()).verify(token).is_ok());
}

#[test]
fn a_time_is_a_number() {
    let fixture = Fixture::new(SECRET);
    let not_a_number = |name| Err(TokenError::Claim(name, "a number"));
    let claims = |exp: Value, nbf: Value| json!({"sub": "anna", "exp": exp, "nbf": nbf});
    let later = json!(NOW + 60);
    for wrong in [
        json!((NOW + 60).to_string()),
        Value::Null,
        json!([NOW]),
        json!(true),
    ] {
        assert_eq!(
            fixture.claims(claims(wrong.clone(), json!(0))),
            not_a_number("exp")
        );
        assert_eq!(
            fixture.claims(claims(later.clone(), wrong)),
            not_a_number("nbf")
        );
    }
    assert_eq!(
        fixture.claims(json!({"sub": "anna"})),
        Err(TokenError::Missing("exp"))
    );
    for far in [
        json!(1e18),
        json!(u64::MAX),
        json!(1e300),
        json!(NOW as f64 + 0.5),
    ] {
        let token = fixture.claims(json!({"sub": "anna", "exp": far})).unwrap();
        assert!(token.expires_at > UNIX_EPOCH + Duration::from_secs(NOW));
    }
    for past in [json!(-1), json!(-1e300), json!(0)] {
        let expired = fixture.claims(json!({"sub": "anna", "exp": past}));
        assert_eq!(expired, Err(TokenError::Expired));
    }
}

#[test]
fn the_leeway_is_what_the_setting_says() {
    for leeway in [0, 30] {
        let fixture = Fixture::with(SECRET, |config| config.leeway = Duration::from_secs(leeway));
        let check =
            |exp: u64, nbf: u64| fixture.claims(json!({"sub": "anna", "exp": exp, "nbf": nbf}));
        assert_eq!(check(NOW - leeway, 0), Err(TokenError::Expired));
        let token = check(NOW - leeway + 1, NOW + leeway).unwrap();
        assert_eq!(token.expires_at, UNIX_EPOCH + Duration::from_secs(NOW + 1));
        assert_eq!(check(NOW + 60, NOW + leeway + 1), Err(TokenError::NotYet));
    }
}

/// A variable that was not set must not become a demand that nothing fulfils, or that anything does.
#[test]
fn an_empty_issuer_or_audience_is_refused_at_the_start() {
    for (issuer, audience, setting) in [
        (Some(""), vec![], "issuer"),
        (None, vec![""], "audience"),
        (Some("https://id.example"), vec!["latchbus", ""], "audience"),
    ] {
        let config = Config {
            keys: "nowhere".into(),
            issuer: issuer.map(str::to_owned),
            audience: audience.into_iter().map(str::to_owned).collect(),
            leeway: DEFAULT_LEEWAY,
        };
        let refused = Tokens::open(config).unwrap_err();
        assert!(matches!(refused, OpenError::Empty { setting: is } if is == setting));
    }
}

#[test]
fn issuer_and_audience_are_those_of_the_settings() {
    let open = Fixture::new(SECRET);
    let strict = Fixture::with(SECRET, |config| {
        config.issuer = Some("https://id.example".to_owned());
        config.audience = vec!["latchbus".to_owned(), "bus".to_owned()];
    });
    let exp = NOW + 60;
    for (iss, aud, expected) in [
        (json!("https://id.example"), json!("latchbus"), Ok(())),
        (json!("https://id.example"), json!(["x", "bus"]), Ok(())),
        (
            json!("https://id.example"),
            json!([]),
            Err(TokenError::Audience),
        ),
        (
            json!("https://id.example"),
            json!("x"),
            Err(TokenError::Audience),
        ),
        (
            json!("https://id.example"),
            json!([["bus"]]),
            Err(TokenError::Audience),
        ),
        (
            json!("https://id.example/"),
            json!("bus"),
            Err(TokenError::Issuer),
        ),
        (
            json!(["https://id.example"]),
            json!("bus"),
            Err(TokenError::Issuer),
        ),
        (Value::Null, json!("bus"), Err(TokenError::Issuer)),
    ] {
        let claims = json!({"sub": "anna", "exp": exp, "iss": iss, "aud": aud});
        assert_eq!(
            strict.claims(claims.clone()).map(drop),
            expected,
            "{claims}"
        );
        assert_eq!(
            open.claims(claims).map(drop),
            Err(TokenError::Audience),
            "a token for somebody else"
        );
    }
    let plain = json!({"sub": "anna", "exp": exp, "iss": "https://id.example"});
    assert_eq!(strict.claims(plain.clone()), Err(TokenError::Audience));
    assert!(open.claims(plain).is_ok());
}

#[test]
fn the_subject_and_the_rights_are_read() {
    let fixture = Fixture::new(SECRET);
    let check = |sub: Value, rights: Value| {
        fixture.claims(json!({"sub": sub, "exp": NOW + 60, "latchbus": rights}))
    };
    let all = check(
        json!("anna"),
        json!({"pub": ["lab/+/set"], "sub": [], "admin": true}),
    )
    .unwrap();
    let texts = |filters: &Option<Vec<TopicFilter<String>>>| {
        let filters = filters.as_ref()?;
        Some(
            filters
                .iter()
                .map(|one| one.as_str().to_owned())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(texts(&all.publish), Some(vec!["lab/+/set".to_owned()]));
    assert_eq!((texts(&all.subscribe), all.admin), (Some(vec![]), true));
    let none = check(json!("urn:device:7"), json!({})).unwrap();
    assert_eq!(
        (none.publish, none.subscribe, none.admin),
        (None, None, false)
    );
    for sub in [
        json!(""),
        json!(7),
        Value::Null,
        json!("a\u{0}"),
        json!("a".repeat(257)),
    ] {
        let refused = check(sub, json!({}));
        assert!(
            matches!(refused, Err(TokenError::Claim("sub", _))),
            "{refused:?}"
        );
    }
    for wrong in [
        json!({"pub": "lab/#"}),
        json!({"sub": ["lab/#/x"]}),
        json!({"pub": [""]}),
        json!({"sub": [7]}),
        json!({"publish": ["#"]}),
        json!({"admin": "yes"}),
        json!({"pub": vec!["a"; MAX_CLAIM_FILTERS + 1]}),
        json!([]),
    ] {
        let refused = check(json!("anna"), wrong);
        assert!(matches!(refused, Err(TokenError::Claim(..))), "{refused:?}");
    }
    let without = fixture.claims(json!({"exp": NOW + 60}));
    assert_eq!(without, Err(TokenError::Missing("sub")));
}

#[test]
fn a_new_key_is_found_by_its_name_and_an_unknown_one_looked_for_seldom() {
    let all = foreign();
    let set = |indexes: &[usize]| {
        let keys: Vec<_> = indexes
            .iter()
            .map(|index| &all["jose 6"][index]["jwk"])
            .collect();
        json!({"keys": keys}).to_string()
    };
    let token = |index: usize| all["jose 6"][index]["token"].as_str().unwrap();
    let fixture = Fixture::new(set(&[0]));
    let path = fixture.directory.path().join("keys");
    assert_eq!(fixture.verify(token(1)), Err(TokenError::UnknownKey));
    fs::write(&path, set(&[0, 1])).unwrap();
    assert_eq!(
        fixture.verify(token(1)),
        Err(TokenError::UnknownKey),
        "too soon"
    );
    lock(&fixture.tokens.0.seen).looked_at -= KEY_COOLDOWN;
    assert!(fixture.verify(token(1)).is_ok() && fixture.verify(token(0)).is_ok());
    fs::write(&path, set(&[2])).unwrap();
    fixture.tokens.reload();
    assert!(fixture.verify(token(2)).is_ok());
    assert_eq!(fixture.verify(token(0)), Err(TokenError::UnknownKey));
    fs::write(&path, "{}").unwrap();
    fixture.tokens.look();
    fs::remove_file(&path).unwrap();
    fixture.tokens.look();
    assert!(
        fixture.verify(token(2)).is_ok(),
        "a broken file changes nothing"
    );
}

#[test]
fn files_that_hold_no_keys_are_refused() {
    let parse = |bytes: &[u8]| KeySet::parse(bytes).map(|(keys, _)| keys.len());
    assert_eq!(parse(b""), Err(KeysError::Empty));
    assert_eq!(parse(b"\n"), Err(KeysError::Empty));
    assert_eq!(parse(b"secret\n"), Err(KeysError::ShortSecret));
    assert_eq!(parse(&[b'a'; MIN_SECRET_BYTES]), Ok(1));
    assert_eq!(parse(br#"{"keys":[]}"#), Err(KeysError::Empty));
    assert!(matches!(parse(b"{}"), Err(KeysError::Json(_))));
    assert!(matches!(parse(b"{"), Err(KeysError::Json(_))));
    let short = br#"{"kty":"oct","k":"c2VjcmV0"}"#;
    assert_eq!(parse(short), Err(KeysError::ShortSecret));
    let many = json!({"keys": vec![json!({"kty": "oct"}); MAX_KEYS + 1]}).to_string();
    assert_eq!(parse(many.as_bytes()), Err(KeysError::TooMany));
    let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    assert_eq!(
        parse(block("PRIVATE KEY").as_bytes()),
        Err(KeysError::Private)
    );
    assert_eq!(
        parse(block("EC PRIVATE KEY").as_bytes()),
        Err(KeysError::Private)
    );
    assert_eq!(
        parse(block("X").as_bytes()),
        Err(KeysError::Block("X".to_owned()))
    );
    assert_eq!(parse(block("PUBLIC KEY").as_bytes()), Err(KeysError::Pem));
    assert_eq!(
        parse(b"-----BEGIN PUBLIC KEY-----\nAAAA"),
        Err(KeysError::Pem)
    );
}

/// 1,024 bits of RSA.
const SMALL_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDgPy8gXx/8MaDKGMwN4emaE72h
6+mEt2NegjXrwwG8SmW80nan49jLWdwdhaUjR1B4MGPirgvUMx/7nY4Sb9e/MnA0
EPI5PGp7j3JtjU8en53FIYJV4sach+DGPWTFGCkhe5CwXC43LhZ5nuKlFdEdBDbZ
xTBJAjHY56Yk6j6aTwIDAQAB
-----END PUBLIC KEY-----
";

#[test]
fn keys_for_other_purposes_and_weak_ones_are_left_out() {
    let parse = |bytes: &[u8]| KeySet::parse(bytes).map(|(keys, _)| keys.len());
    let secret = URL_SAFE_NO_PAD.encode(SECRET);
    let rsa = |bytes: usize| {
        let n = URL_SAFE_NO_PAD.encode(vec![0xC1; bytes]);
        json!({"kty": "RSA", "n": n, "e": "AQAB"})
    };
    for (key, is_used) in [
        (json!({"use": "sig"}), true),
        (json!({"use": "enc"}), false),
        (json!({"key_ops": ["sign", "verify"]}), true),
        (json!({"key_ops": ["sign"]}), false),
        (json!({"key_ops": []}), false),
        (json!({"alg": "HS256"}), true),
        (json!({"alg": "HS512"}), false),
        (json!({"alg": "RS256"}), false),
        (rsa(256), true),
        (rsa(255), false),
    ] {
        let mut key = key;
        if key.get("kty").is_none() {
            key["kty"] = "oct".into();
            key["k"] = secret.clone().into();
        }
        let set = json!({"keys": [key]}).to_string();
        let expected = if is_used {
            Ok(1)
        } else {
            Err(KeysError::Empty)
        };
        assert_eq!(parse(set.as_bytes()), expected, "{set}");
    }
    assert_eq!(parse(SMALL_RSA.as_bytes()), Err(KeysError::Kind));
    let ed25519 = foreign()["PyJWT 2"][2]["pem"].as_str().unwrap().to_owned();
    for (keys, expected) in [
        (MAX_KEYS, Ok(MAX_KEYS)),
        (MAX_KEYS + 1, Err(KeysError::TooMany)),
    ] {
        assert_eq!(parse(ed25519.repeat(keys).as_bytes()), expected);
    }
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    for (more, is_refused) in [(0, false), (1, true)] {
        let bytes = vec![b'a'; usize::try_from(MAX_KEYS_BYTES + more).unwrap()];
        fs::write(&keys, bytes).unwrap();
        let opened = Tokens::open(Config {
            keys: keys.clone(),
            issuer: None,
            audience: Vec::new(),
            leeway: DEFAULT_LEEWAY,
        });
        let too_large = matches!(opened, Err(OpenError::TooLarge { .. }));
        assert_eq!(too_large, is_refused, "{opened:?}");
    }
}

#[test]
fn what_is_no_token_is_a_password() {
    let token = sign(json!({"alg": "HS256"}), &json!({"sub": "anna"}));
    assert!(is_token(token.as_bytes()));
    let [head, _, tail] = [0, 1, 2].map(|part| token.split('.').nth(part).unwrap().to_owned());
    for password in [
        "",
        "secret",
        "a.b.c",
        "eyJ.eyJ.eyJ",
        "..",
        &head,
        &format!("{head}.{tail}"),
        &format!("{token}.x"),
    ] {
        assert!(!is_token(password.as_bytes()), "{password}");
    }
    assert!(!is_token(b"\xff"));
    assert!(!is_token(
        format!("{token}{}", "A".repeat(MAX_TOKEN_BYTES)).as_bytes()
    ));
}

proptest! {
    /// No text causes a panic, and a token with anything changed is refused.
    #[test]
    fn what_was_not_signed_is_refused(at in 0_usize..200, to in "[A-Za-z0-9_.-]", any in ".{0,40}", header in "\\PC{0,20}") {
        let fixture = Fixture::new(SECRET);
        let token = sign(json!({"alg": "HS256"}), &json!({"sub": "anna", "exp": NOW + 60}));
        prop_assert!(fixture.verify(&token).is_ok());
        let at = at % token.len();
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        prop_assert_eq!(fixture.verify(&changed).is_ok(), changed == token);
        prop_assert!(fixture.verify(&any).is_err());
        let odd = format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(any));
        prop_assert!(fixture.verify(&odd).is_err());
    }
}
