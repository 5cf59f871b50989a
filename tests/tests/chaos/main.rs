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

/// On a busy machine not all of it may come in that time: then there is another run.
const MOST_RUNS: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_devices_and_a_server_in_chaos_count_every_click_once() {
    let first = seed();
    for run in 0..MOST_RUNS {
        let outcome = chaos::run(first + run, LENGTH).await;
        eprintln!("{outcome}");
        assert!(outcome.is_exact(), "{outcome:#?}");
        // A disk that can be full takes the right to mount one.
        if outcome.full_disks == 0 {
            eprintln!("skipped: the full disk, which only root can mount");
        }
        let everything_came = outcome.server_kills > 1
            && outcome.device_kills > 3
            && outcome.cuts > 3
            && outcome.duplicates > 3
            && outcome.shown > 10
            && outcome.fed.total() > 500;
        if everything_came {
            return;
        }
    }
    panic!("all of them were calm");
}

/// `tests/run kills` makes thirty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_two_hundred_publishers_has_every_acknowledged_count() {
    let outcome = kills::run(5, 200, seed(), |_| {}).await;
    eprintln!("{outcome}");
    assert!(outcome.acknowledged > 5 * 200, "{outcome}");
    assert!(outcome.shown > 5, "{outcome}");
}
