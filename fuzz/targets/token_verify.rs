//! Tokens: what is accepted is signed by the key, and its claims say so by a reading of their own.
//!
//! Input: with `+` at its beginning a header and claims, with a line end between them, which the harness signs; else a token.
#![no_main]

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use latchbus_access::tokens::{Config, Token, TokenError, Tokens, is_token};
use libfuzzer_sys::fuzz_target;
use ring::hmac;
use serde_json::Value;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "now";
const NOW: u64 = 1_800_000_000;
const LEEWAY: u64 = 30;
const ISSUER: &str = "me";
const AUDIENCE: [&str; 2] = ["bus", "other"];

fuzz_target!(|input: &[u8]| {
    let Ok(text) = core::str::from_utf8(input) else {
        return;
    };
    let Some((header, claims)) = text
        .strip_prefix('+')
        .and_then(|text| text.split_once('\n'))
    else {
        let _no_panic = is_token(input);
        if let Ok(token) = verify(text) {
            let message = text.rsplit_once('.').expect("two dots").0;
            let (header, claims) = message.split_once('.').expect("two dots");
            check(&decoded(header), &decoded(claims), &token);
            assert_eq!(text, signed(message), "signed by another key");
        }
        return;
    };
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = signed(&format!("{}.{}", encode(header), encode(claims)));
    match verify(&token) {
        Ok(token) => check(header.as_bytes(), claims.as_bytes(), &token),
        // The key is of HS256: by any other algorithm nothing is signed.
        Err(TokenError::Signature) => {
            let header: Option<Value> = serde_json::from_str(header).ok();
            assert!(header.is_none_or(|header| header["alg"] != "HS256"));
        }
        Err(_) => {}
    }
    // Any other signature is none.
    let mut damaged = token.into_bytes();
    let last = damaged.len() - 2;
    damaged[last] = if damaged[last] == b'A' { b'B' } else { b'A' };
    let damaged = String::from_utf8(damaged).expect("ASCII");
    assert!(verify(&damaged).is_err());
});

fn signed(message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn decoded(base64: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(base64).expect("base64")
}

fn verify(token: &str) -> Result<Token, TokenError> {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    let tokens = TOKENS.get_or_init(|| {
        let file = std::env::temp_dir().join(format!("latchbus-fuzz-{}", std::process::id()));
        let secret = URL_SAFE_NO_PAD.encode(SECRET);
        let keys = format!(r#"{{"keys":[{{"kty":"oct","kid":"{KEY}","k":"{secret}"}}]}}"#);
        std::fs::write(&file, keys).expect("a file");
        let tokens = Tokens::open(Config {
            keys: file.clone(),
            issuer: Some(ISSUER.into()),
            audience: AUDIENCE.map(str::to_owned).into(),
            leeway: Duration::from_secs(LEEWAY),
        });
        std::fs::remove_file(file).expect("it is there");
        tokens.expect("a key")
    });
    tokens.verify(token, UNIX_EPOCH + Duration::from_secs(NOW))
}

/// RFC 7515 §4.1, RFC 7519 §4.1, without anything that is not asked of an accepted token.
fn check(header: &[u8], claims: &[u8], token: &Token) {
    let header: Value = serde_json::from_slice(header).expect("a header");
    assert_eq!(header["alg"], "HS256");
    assert!(header.get("crit").is_none_or(Value::is_null));
    assert!(
        header
            .get("kid")
            .is_none_or(|kid| kid.is_null() || *kid == KEY)
    );
    let claims: Value = serde_json::from_slice(claims).expect("claims");
    let now = NOW as f64;
    let leeway = LEEWAY as f64;
    assert!(claims["exp"].as_f64().expect("a number") + leeway > now);
    if let Some(begins) = claims.get("nbf") {
        assert!(begins.as_f64().expect("a number") <= now + leeway);
    }
    assert_eq!(claims["iss"], ISSUER);
    let is_ours = |one: &Value| AUDIENCE.iter().any(|own| one == own);
    let audience = &claims["aud"];
    assert!(
        is_ours(audience)
            || audience
                .as_array()
                .is_some_and(|all| all.iter().any(is_ours))
    );
    assert_eq!(claims["sub"], *token.subject);
    assert!((1..=256).contains(&token.subject.len()));
    assert!(!token.subject.contains(char::is_control));
    assert!(
        token.expires_at > UNIX_EPOCH + Duration::from_secs(NOW)
            && token.expires_at > SystemTime::UNIX_EPOCH
    );
    let rights = claims.get("latchbus");
    let filters = |name: &str| {
        let list = rights?.get(name).filter(|list| !list.is_null())?;
        let list = list.as_array().expect("a list").iter();
        Some(
            list.map(|filter| filter.as_str().expect("text").to_owned())
                .collect::<Vec<_>>(),
        )
    };
    let shown = |list: &Option<Vec<_>>| {
        let list = list.as_ref()?.iter();
        Some(
            list.map(|filter: &latchbus_core::topic::TopicFilter<String>| {
                filter.as_str().to_owned()
            })
            .collect::<Vec<_>>(),
        )
    };
    assert_eq!(shown(&token.publish), filters("pub"));
    assert_eq!(shown(&token.subscribe), filters("sub"));
    let admin = rights.and_then(|rights| rights.get("admin"));
    assert_eq!(token.admin, admin.is_some_and(|admin| *admin == true));
}
