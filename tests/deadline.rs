//! How long a test waits for what must come: a file that the tests of every crate include, so that there is one such limit.
//! (In JavaScript it is tests/deadline.mjs, in Python tests/mqtt/deadline.py.)
#![allow(
    unreachable_pub,
    reason = "some crates share it, others keep it to themselves"
)]

use core::time::Duration;

/// How long anything may take that is expected to happen. On a quiet machine nothing takes a tenth of it; a busy
/// machine may be ten times as slow. A test that passes never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(180);
