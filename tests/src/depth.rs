//! How much of something a test does.

use std::env;

/// `usual`, of which no test takes more than 10 s on a quiet machine; `deep` where `LATCHBUS_DEEP` is set, as
/// `tests/run deep` does.
pub fn sized<T>(usual: T, deep: T) -> T {
    match env::var_os("LATCHBUS_DEEP") {
        None => usual,
        Some(_) => deep,
    }
}
