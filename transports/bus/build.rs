//! Tells the program when it was built: a clock that stands before that was not set.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    // Builds that are to come out the same anywhere set it: https://reproducible-builds.org/specs/source-date-epoch/
    let given = env::var("SOURCE_DATE_EPOCH").ok();
    let given = given.and_then(|secs| secs.parse::<u64>().ok());
    let secs = given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    });
    println!("cargo::rustc-env=LATCHBUS_BUILT_AT={secs}");
}
