//! Password hashes: the one that is written, and those of other programs that are read.

use core::fmt;
use core::num::NonZeroU32;

use argon2::password_hash::phc::{Output, PasswordHash as Phc, Salt};
use argon2::{Algorithm, Argon2, Params, PasswordVerifier as _, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, pbkdf2};
use subtle::ConstantTimeEq as _;

/// Memory of the argon2id hashes that are written, in KiB: the first choice of the OWASP Password Storage Cheat Sheet
/// that a small machine can afford, 19 MiB.
pub const MEMORY_KIB: u32 = 19_456;

/// Passes over that memory.
pub const PASSES: u32 = 2;

/// Threads of one hash.
pub const LANES: u32 = 1;

/// The longest password, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 1_024;

/// The most memory that a hash in the file may ask for: 1 GiB, as libsodium's most expensive choice does.
const MAX_MEMORY_KIB: u32 = 1_048_576;

/// The most passes.
const MAX_PASSES: u32 = 64;

/// The most lanes.
const MAX_LANES: u32 = 64;

/// The highest cost of bcrypt: a few seconds.
const MAX_BCRYPT_COST: u32 = 16;

/// The most iterations of PBKDF2: a few seconds.
const MAX_ITERATIONS: u32 = 10_000_000;

const SALT_BYTES: usize = 16;
const OUTPUT_BYTES: usize = 32;
const SHA512_BYTES: usize = 64;

/// A password hash.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Argon2(Box<Phc>),
    Bcrypt(String),
    /// `$7$` of Mosquitto: PBKDF2 with SHA-512.
    Pbkdf2 {
        iterations: NonZeroU32,
        salt: Vec<u8>,
        hash: [u8; SHA512_BYTES],
    },
    /// `$6$` of Mosquitto: one SHA-512 of password and salt.
    Sha512 {
        salt: Vec<u8>,
        hash: [u8; SHA512_BYTES],
    },
}

/// What is wrong with the text of a hash. It never shows the text, which may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Nothing that is known.
    #[error("no password hash (known are argon2id, bcrypt, and $6$ and $7$ of Mosquitto)")]
    Unknown,
    /// A scheme that is known and not supported.
    #[error("a hash of the scheme {0}, which is not supported")]
    Unsupported(&'static str),
    /// Its scheme is known, the rest is damaged.
    #[error("a damaged hash of the scheme {0}")]
    Damaged(&'static str),
    /// It would take too much memory or time to check a password against it.
    #[error("a hash of the scheme {scheme} with {what} above {max}")]
    TooExpensive {
        /// Its scheme.
        scheme: &'static str,
        /// Which parameter.
        what: &'static str,
        /// The highest that is accepted.
        max: u32,
    },
}

/// A password that cannot be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It is empty.
    #[error("the password is empty")]
    Empty,
    /// It is longer than [`MAX_PASSWORD_BYTES`].
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    /// The system gives no random numbers, or no memory.
    #[error("the password cannot be hashed: {0}")]
    System(&'static str),
}

impl PasswordHash {
    /// Hashes a password with argon2id ([`MEMORY_KIB`], [`PASSES`], [`LANES`]) and a new salt. It takes some ten
    /// milliseconds: never call it on a thread that serves connections.
    ///
    /// # Errors
    /// When the password is empty or too long.
    pub fn new(password: &[u8]) -> Result<Self, PasswordError> {
        match password.len() {
            0 => return Err(PasswordError::Empty),
            1..=MAX_PASSWORD_BYTES => {}
            _ => return Err(PasswordError::TooLong),
        }
        let system = |what| move |_| PasswordError::System(what);
        let mut salt = [0; SALT_BYTES];
        let random = SystemRandom::new().fill(&mut salt);
        random.map_err(|_| PasswordError::System("no random numbers"))?;
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(OUTPUT_BYTES));
        let params = params.map_err(system("its parameters"))?;
        let mut output = [0; OUTPUT_BYTES];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        let hashed = argon2.hash_password_into(password, &salt, &mut output);
        hashed.map_err(system("argon2"))?;
        let phc = || {
            Some(Phc {
                algorithm: Algorithm::Argon2id.ident(),
                version: Some(Version::V0x13.into()),
                params: (&params).try_into().ok()?,
                salt: Some(Salt::new(&salt).ok()?),
                hash: Some(Output::new(&output).ok()?),
            })
        };
        let phc = phc().ok_or(PasswordError::System("its text"))?;
        Ok(Self(Kind::Argon2(Box::new(phc))))
    }

    /// Reads a hash.
    ///
    /// # Errors
    /// When it is none, or none that a password can be checked against.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let kind = match text.split('$').nth(1) {
            _ if !text.starts_with('$') => return Err(HashError::Unknown),
            Some("argon2id" | "argon2i" | "argon2d") => argon2(text)?,
            Some("2a" | "2b" | "2y") => bcrypt(text)?,
            Some("7") => pbkdf2(text)?,
            Some("6") => sha512(text)?,
            Some("apr1") => return Err(HashError::Unsupported("$apr1$ (MD5)")),
            Some("1") => return Err(HashError::Unsupported("$1$ (MD5)")),
            Some("5") => return Err(HashError::Unsupported("$5$ (SHA-256)")),
            Some("y") => return Err(HashError::Unsupported("$y$ (yescrypt)")),
            Some("2x") => return Err(HashError::Unsupported("$2x$")),
            Some("scrypt") => return Err(HashError::Unsupported("scrypt")),
            _ => return Err(HashError::Unknown),
        };
        Ok(Self(kind))
    }

    /// Whether this is the password. It takes as long as the hash asks for.
    pub fn verify(&self, password: &[u8]) -> bool {
        if password.len() > MAX_PASSWORD_BYTES {
            return false;
        }
        match &self.0 {
            Kind::Argon2(phc) => {
                // Without a version it is the one of before there were any (PHC string format, argon2), which the verifier would
                // take for the one of today.
                let version = phc.version.or(Some(Version::V0x10.into()));
                let phc = Phc {
                    version,
                    ..Phc::clone(phc)
                };
                Argon2::default().verify_password(password, &phc).is_ok()
            }
            // As in every bcrypt, bytes behind the 72nd do not count.
            Kind::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Kind::Pbkdf2 {
                iterations,
                salt,
                hash,
            } => pbkdf2::verify(
                pbkdf2::PBKDF2_HMAC_SHA512,
                *iterations,
                salt,
                password,
                hash,
            )
            .is_ok(),
            Kind::Sha512 { salt, hash } => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(salt);
                context.finish().as_ref().ct_eq(hash).into()
            }
        }
    }

    /// Whether it is to be replaced by one with the present cost when the password is known.
    pub fn is_outdated(&self) -> bool {
        let Kind::Argon2(phc) = &self.0 else {
            return true;
        };
        let current = Algorithm::Argon2id.ident();
        let cost = Params::try_from(phc.as_ref());
        phc.algorithm != current
            || phc.version != Some(Version::V0x13.into())
            || !cost.is_ok_and(|cost| {
                cost.m_cost() >= MEMORY_KIB && cost.t_cost() >= PASSES && cost.p_cost() >= LANES
            })
    }
}

/// Never shows the hash.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match &self.0 {
            Kind::Argon2(_) => "argon2",
            Kind::Bcrypt(_) => "bcrypt",
            Kind::Pbkdf2 { .. } => "$7$",
            Kind::Sha512 { .. } => "$6$",
        };
        write!(f, "PasswordHash({scheme})")
    }
}

/// The text for the file.
impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Argon2(phc) => phc.fmt(f),
            Kind::Bcrypt(text) => f.write_str(text),
            Kind::Pbkdf2 {
                iterations,
                salt,
                hash,
            } => write!(
                f,
                "$7${iterations}${}${}",
                STANDARD.encode(salt),
                STANDARD.encode(hash)
            ),
            Kind::Sha512 { salt, hash } => {
                write!(f, "$6${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
            }
        }
    }
}

const fn at_most(
    value: u32,
    max: u32,
    scheme: &'static str,
    what: &'static str,
) -> Result<(), HashError> {
    if value > max {
        return Err(HashError::TooExpensive { scheme, what, max });
    }
    Ok(())
}

fn argon2(text: &str) -> Result<Kind, HashError> {
    const SCHEME: &str = "argon2";

    let damaged = HashError::Damaged(SCHEME);
    let phc = Phc::new(text).map_err(|_| damaged)?;
    if phc.salt.is_none() || phc.hash.is_none() {
        return Err(damaged);
    }
    let known = [Version::V0x10, Version::V0x13].map(u32::from);
    if phc.version.is_some_and(|version| !known.contains(&version)) {
        return Err(HashError::Unsupported(
            "argon2 of a version that is unknown (16 and 19 are known)",
        ));
    }
    let cost = Params::try_from(&phc).map_err(|_| damaged)?;
    at_most(cost.m_cost(), MAX_MEMORY_KIB, SCHEME, "memory (m)")?;
    at_most(cost.t_cost(), MAX_PASSES, SCHEME, "passes (t)")?;
    at_most(cost.p_cost(), MAX_LANES, SCHEME, "lanes (p)")?;
    Ok(Kind::Argon2(Box::new(phc)))
}

fn bcrypt(text: &str) -> Result<Kind, HashError> {
    let damaged = HashError::Damaged("bcrypt");
    let parts: bcrypt::HashParts = text.parse().map_err(|_| damaged)?;
    if parts.get_cost() < 4 {
        return Err(damaged);
    }
    at_most(parts.get_cost(), MAX_BCRYPT_COST, "bcrypt", "cost")?;
    Ok(Kind::Bcrypt(text.to_owned()))
}

fn pbkdf2(text: &str) -> Result<Kind, HashError> {
    const SCHEME: &str = "$7$ (PBKDF2)";

    let damaged = HashError::Damaged(SCHEME);
    let mut parts = text.split('$').skip(2);
    let (Some(iterations), Some(salt), Some(hash), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(damaged);
    };
    let iterations: NonZeroU32 = iterations.parse().map_err(|_| damaged)?;
    at_most(iterations.get(), MAX_ITERATIONS, SCHEME, "iterations")?;
    Ok(Kind::Pbkdf2 {
        iterations,
        salt: STANDARD.decode(salt).map_err(|_| damaged)?,
        hash: sha512_bytes(hash).ok_or(damaged)?,
    })
}

fn sha512(text: &str) -> Result<Kind, HashError> {
    let mut parts = text.split('$').skip(2);
    let (Some(salt), Some(hash), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(HashError::Unsupported("$6$ of crypt(3)"));
    };
    // The `$6$` of /etc/shadow is another scheme with 86 characters.
    let hash = sha512_bytes(hash).ok_or(HashError::Damaged("$6$"))?;
    let salt = STANDARD.decode(salt);
    let salt = salt.map_err(|_| HashError::Damaged("$6$"))?;
    Ok(Kind::Sha512 { salt, hash })
}

fn sha512_bytes(base64: &str) -> Option<[u8; SHA512_BYTES]> {
    STANDARD.decode(base64).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &[u8] = b"correct horse";

    /// What other programs have written for that password.
    const FOREIGN: [&str; 14] = [
        // argon2-cffi 25.1 (Python)
        "$argon2id$v=19$m=64,t=1,p=1$Chldn6TCaDtnL3qcZYrycg$itPazZslkboJ+5zGgpXCxOmt2mRt3cWn/0QrOg7HLWE",
        "$argon2i$v=19$m=64,t=1,p=2$JMye5rftE+XvBZa8sIn7PA$AoMo9Uk64FTa266D62pADyV/GflKXJgp55ZMB9CS164",
        // argon2 0.45 (npm), which writes the parameters in another order
        "$argon2id$v=19$m=64,p=1,t=1$8bfNujS962uKomR17k2RXQ$4b2JgUBOltRcgRb2H0/mNJamqYQr1ZVVTDgN3W7JJVQ",
        // Version 16, with and without saying so: of libraries from before argon2 1.3
        "$argon2id$v=16$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$8qQEkLG14QwsOeP8vYfWOPvFwEgwFYUQZ8mRBY7QjtU",
        "$argon2id$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$8qQEkLG14QwsOeP8vYfWOPvFwEgwFYUQZ8mRBY7QjtU",
        "$argon2i$v=16$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$uTk+XTWXzjOAQ02rWGuR0cfRk0jA7AWFk5S3LCFO7hs",
        "$argon2i$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$uTk+XTWXzjOAQ02rWGuR0cfRk0jA7AWFk5S3LCFO7hs",
        "$argon2d$v=16$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$6/0y/hdxf8QVlB54t3bqVUY73eak6QSrjH+/Jl473ro",
        "$argon2d$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$6/0y/hdxf8QVlB54t3bqVUY73eak6QSrjH+/Jl473ro",
        // bcrypt 5 (Python), and htpasswd -B of Apache 2.4, which names the same scheme otherwise
        "$2b$04$YgfboYzwoZyoGSEdKRGblO2OBDROKeU25n17cGOFSmNJuZkm2wS7K",
        "$2y$05$MFSMmI2PqSL9QjgAtX0dJ.ZlE7EIzily2QeWpbwG6P9LKZmHYwEDW",
        "$2a$04$YgfboYzwoZyoGSEdKRGblO2OBDROKeU25n17cGOFSmNJuZkm2wS7K",
        // mosquitto_passwd of Mosquitto 2.0, with -H sha512 and without
        "$6$FEh+aMN6dROkjnqi$f7dJ67LcYH9HEuF51alRg5mcbqym9I6JbKlhJPb/u4hTsWbc258MrH+7z6f78qRBUJRrE/kqpHNumlijFJZ5Ng==",
        "$7$101$IdCjf0lgHRnHgFom$shWG7f0AVCEMfVCm9NaTu+L4OyBmYwg7GRWBq5vQsltOlInuhgyqbNrPGXEZGU6AJv3txi0tfhrqsODrHa50HA==",
    ];

    #[test]
    fn what_is_written_has_the_stated_cost_in_the_usual_order() {
        let hash = PasswordHash::new(PASSWORD).unwrap();
        let text = hash.to_string();
        assert!(
            text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{text}"
        );
        assert_eq!(PasswordHash::parse(&text).as_ref(), Ok(&hash));
        assert!(hash.verify(PASSWORD) && !hash.verify(b"correct house"));
        assert!(!hash.is_outdated());
        assert_ne!(
            PasswordHash::new(PASSWORD).unwrap(),
            hash,
            "each has its own salt"
        );
    }

    #[test]
    fn hashes_of_other_programs_are_verified_and_outdated() {
        for text in FOREIGN {
            let hash = PasswordHash::parse(text).unwrap();
            assert!(hash.verify(PASSWORD), "{text}");
            assert!(
                !hash.verify(b"correct house") && !hash.verify(b""),
                "{text}"
            );
            assert!(hash.is_outdated(), "{text}");
            assert_eq!(hash.to_string(), text);
            assert!(!format!("{hash:?}").contains(&text[20..40]));
        }
        let costly = "$argon2id$v=19$m=65536,t=3,p=4$Chldn6TCaDtnL3qcZYrycg$itPazZslkboJ+5zGgpXCxOmt2mRt3cWn/0QrOg7HLWE";
        assert!(
            !PasswordHash::parse(costly).unwrap().is_outdated(),
            "a higher cost stays"
        );
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        use HashError::*;

        for (text, error) in [
            ("", Unknown),
            ("secret", Unknown),
            ("$", Unknown),
            ("$secret$", Unknown),
            (
                "$apr1$9Cv/OMGj$ZomWQzuQL.3TRCS81A1g71",
                Unsupported("$apr1$ (MD5)"),
            ),
            (
                "$argon2id$v=19$m=64,t=1,p=1$Chldn6TCaDtnL3qcZYrycg",
                Damaged("argon2"),
            ),
            (
                "$argon2id$v=20$m=64,t=1,p=1$Chldn6TCaDtnL3qcZYrycg$itPazZslkboJ+5zGgpXCxOmt2mRt3cWn/0QrOg7HLWE",
                Unsupported("argon2 of a version that is unknown (16 and 19 are known)"),
            ),
            (
                "$2b$04$YgfboYzwoZyoGSEdKRGblO2OBDROKeU25n17cGOFSmNJuZkm2wS7",
                Damaged("bcrypt"),
            ),
            (
                "$2b$00$YgfboYzwoZyoGSEdKRGblO2OBDROKeU25n17cGOFSmNJuZkm2wS7K",
                Damaged("bcrypt"),
            ),
            ("$7$0$IdCjf0lgHRnHgFom$AA==", Damaged("$7$ (PBKDF2)")),
            ("$7$101$IdCjf0lgHRnHgFom$AA==", Damaged("$7$ (PBKDF2)")),
            ("$6$FEh+aMN6dROkjnqi$AA==", Damaged("$6$")),
            ("$6$rounds=5000$salt$hash", Unsupported("$6$ of crypt(3)")),
        ] {
            assert_eq!(PasswordHash::parse(text), Err(error), "{text}");
        }
        for text in [
            "$argon2id$v=19$m=1048577,t=1,p=1$Chldn6TCaDtnL3qcZYrycg$itPazZslkboJ+5zGgpXCxOmt2mRt3cWn/0QrOg7HLWE",
            "$argon2id$v=19$m=64,t=65,p=1$Chldn6TCaDtnL3qcZYrycg$itPazZslkboJ+5zGgpXCxOmt2mRt3cWn/0QrOg7HLWE",
            "$argon2id$v=19$m=1024,t=1,p=65$Chldn6TCaDtnL3qcZYrycg$itPazZslkboJ+5zGgpXCxOmt2mRt3cWn/0QrOg7HLWE",
            "$2b$17$YgfboYzwoZyoGSEdKRGblO2OBDROKeU25n17cGOFSmNJuZkm2wS7K",
        ] {
            let error = PasswordHash::parse(text).unwrap_err();
            assert!(matches!(error, TooExpensive { .. }), "{error}");
        }
    }

    #[test]
    fn a_hash_of_less_cost_is_outdated() {
        for (scheme, is_outdated) in [
            ("argon2id$v=19$m=19456,t=2,p=1", false),
            ("argon2id$v=19$m=65536,t=3,p=4", false),
            ("argon2id$v=19$m=19455,t=2,p=1", true),
            ("argon2id$v=19$m=65536,t=1,p=1", true),
            ("argon2i$v=19$m=19456,t=2,p=1", true),
            ("argon2d$v=19$m=19456,t=2,p=1", true),
        ] {
            let text = format!(
                "${scheme}$Chldn6TCaDtnL3qcZYrycg$itPazZslkboJ+5zGgpXCxOmt2mRt3cWn/0QrOg7HLWE"
            );
            let hash = PasswordHash::parse(&text).unwrap();
            assert_eq!(hash.is_outdated(), is_outdated, "{text}");
        }
    }

    #[test]
    fn passwords_have_a_length() {
        assert_eq!(PasswordHash::new(b""), Err(PasswordError::Empty));
        let long = vec![b'a'; MAX_PASSWORD_BYTES + 1];
        // Also where another program has hashed it.
        for (password, is_accepted) in [(&long[..], false), (&long[1..], true)] {
            let mut context = digest::Context::new(&digest::SHA512);
            context.update(password);
            context.update(b"salt");
            let (salt, hash) = (STANDARD.encode(b"salt"), STANDARD.encode(context.finish()));
            let hash = PasswordHash::parse(&format!("$6${salt}${hash}")).unwrap();
            assert_eq!(hash.verify(password), is_accepted);
        }
        assert_eq!(PasswordHash::new(&long), Err(PasswordError::TooLong));
        let hash = PasswordHash::new(&long[1..]).unwrap();
        assert!(hash.verify(&long[1..]) && !hash.verify(&long));
    }
}
