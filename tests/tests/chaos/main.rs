//! The real programs, killed, cut off and out of disk for a while; and what goes wrong without a count.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod presses;
mod reboots;

use core::time::Duration;

use latchbus_tests::seed::seed;
use latchbus_tests::{chaos, kills};

/// Long enough that everything of the schedule comes. `tests/run soak` makes many of them, and longer.
const LENGTH: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_devices_and_a_server_in_chaos_count_every_click_once() {
    let outcome = chaos::run(seed(), LENGTH).await;
    eprintln!("{outcome}");
    assert!(outcome.is_exact(), "{outcome:#?}");
    // It was no calm run.
    assert!(
        outcome.server_kills > 1 && outcome.device_kills > 3,
        "{outcome}"
    );
    assert!(
        outcome.cuts > 3 && outcome.duplicates > 3 && outcome.shown > 10,
        "{outcome}"
    );
    assert!(outcome.fed.total() > 500, "{outcome}");
    // A disk that can be full takes the right to mount one.
    if outcome.full_disks == 0 {
        eprintln!("skipped: the full disk, which only root can mount");
    }
}

/// `tests/run kills` makes thirty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_two_hundred_publishers_has_every_acknowledged_count() {
    let outcome = kills::run(5, 200, seed(), |_| {}).await;
    eprintln!("{outcome}");
    assert!(outcome.acknowledged > 5 * 200, "{outcome}");
    assert!(outcome.shown > 5, "{outcome}");
}
