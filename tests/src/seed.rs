//! Which seed a run has.

use std::env;

/// The seed of a run that is to be another each time, unless `LATCHBUS_SEED` names one to repeat. It is printed.
///
/// # Panics
/// When `LATCHBUS_SEED` is no number.
pub fn seed() -> u64 {
    let seed = named().unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("LATCHBUS_SEED={seed}");
    seed
}

/// The seed that `LATCHBUS_SEED` names.
///
/// # Panics
/// When it is no number.
pub fn named() -> Option<u64> {
    let seed = env::var("LATCHBUS_SEED").ok()?;
    Some(seed.parse().expect("LATCHBUS_SEED is a number"))
}
