//! Bytes as a password file, and as what is imported of Mosquitto: each is read or refused, what is read is written as it was, and
//! a password is right or wrong.
#![no_main]

use latchbus_access::mosquitto;
use latchbus_access::users::{PasswordFile, PasswordHash, check_name};
use libfuzzer_sys::fuzz_target;

/// Of `correct horse`.
const HASH: &str = "$2y$05$MFSMmI2PqSL9QjgAtX0dJ.ZlE7EIzily2QeWpbwG6P9LKZmHYwEDW";

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = core::str::from_utf8(input) {
        let _read_or_not = (
            mosquitto::acl(text, "acl").map(drop),
            mosquitto::passwords(text, "passwd"),
        );
        a_hash(text);
    }
    let Ok(file) = PasswordFile::from_bytes(input) else {
        return;
    };
    let written = file.to_string();
    assert_eq!(
        PasswordFile::from_bytes(written.as_bytes()),
        Ok(file.clone())
    );
    assert_eq!(file.names().count(), file.len());
    for (name, hash) in file.iter() {
        assert_eq!(check_name(name), Ok(()));
        assert_eq!(file.hash(name), Some(hash));
        a_hash(&hash.to_string());
    }
    let Some(first) = file.names().next().map(str::to_owned) else {
        return;
    };
    let mut changed = file.clone();
    let hash = PasswordHash::parse(HASH).expect("a hash");
    assert_eq!(
        changed.set(&first, hash.clone()),
        Ok(file.hash(&first).cloned())
    );
    assert_eq!(changed.hash(&first), Some(&hash));
    assert!(changed.remove(&first) && !changed.remove(&first));
    assert_eq!(changed.len() + 1, file.len());
    for name in changed.names() {
        assert_eq!(changed.hash(name), file.hash(name));
    }
});

/// A hash that is read is written so that it is the same, and says no to what is not its password.
fn a_hash(text: &str) {
    let Ok(hash) = PasswordHash::parse(text) else {
        return;
    };
    assert_eq!(PasswordHash::parse(&hash.to_string()), Ok(hash.clone()));
    let _is_known = hash.is_outdated();
    if is_cheap(text) {
        assert!(!hash.verify(b"") || !hash.verify(b"another password"));
    }
}

/// Whether a password is compared in little time: the others are left to the tests.
fn is_cheap(text: &str) -> bool {
    let iterations = text
        .strip_prefix("$7$")
        .and_then(|rest| rest.split('$').next());
    text.starts_with("$6$")
        || iterations.is_some_and(|number| number.parse().is_ok_and(|number: u32| number < 1_000))
}
