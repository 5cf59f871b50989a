//! Ids that nobody can guess.

use core::hash::{BuildHasher as _, Hasher as _};
use core::sync::atomic::{AtomicU64, Ordering};
use std::hash::RandomState;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Gives ids: a counter, under keys that the system has drawn for this process.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    keys: [RandomState; 2],
    next: AtomicU64,
}

impl Ids {
    /// An id of 22 letters, digits, `-` and `_`, which says nothing of any other.
    pub(crate) fn id(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let [high, low] = self.keys.each_ref().map(|key| {
            let mut hasher = key.build_hasher();
            hasher.write(b"latchbus socket.io");
            hasher.write_u64(number);
            hasher.finish()
        });
        URL_SAFE_NO_PAD.encode((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }
}
