//! Users and their passwords.

mod cache;
mod directory;
mod file;
mod hash;
mod store;
mod throttle;

pub use cache::{CACHE_ENTRIES, CACHE_TIME};
pub use directory::{LOOK_INTERVAL, MAX_VERIFICATIONS, MAX_WAITING, Refused, Users};
pub use file::{
    FileError, LineError, MAX_NAME_BYTES, MAX_USERS, NameError, PasswordFile, check_name,
};
pub use hash::{
    HashError, LANES, MAX_PASSWORD_BYTES, MEMORY_KIB, PASSES, PasswordError, PasswordHash,
};
pub use store::{MAX_FILE_BYTES, StoreError, read, update};
pub use throttle::{
    Delays, FORGET_FAILURES, FORGET_SUCCESS, FREE_ADDRESSES, MAX_ENTRIES, MAX_USER_DELAY,
};
