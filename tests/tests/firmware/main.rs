//! The firmware on emulated boards, against the real server: what was pressed is what the room shows, whatever
//! happens on the line between. Tests that need mosquitto's programs are named for it.

// Helpers of tests are tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod board;
mod images;
mod line;
mod model;
mod network;
// Public in the firmware's library, where the image uses it.
#[allow(unreachable_pub)]
#[path = "../../../apps/firmware/src/operations.rs"]
mod operations;
mod presses;
mod room;
mod sizes;
#[path = "../../../core/tests/support/mod.rs"]
mod support;
