//! Power cuts: whatever of a disk's last writes is lost or torn, all that was acknowledged is there.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use latchbus_tests::power::{self, Outcome, Promise};
use latchbus_tests::seed;

/// Each with twenty power cuts. `tests/run powercut` makes more.
const SEEDS: u64 = 20;

/// Images of each power cut.
const FORMS: u64 = 5;

#[test]
fn what_was_acknowledged_survives_every_power_cut() {
    let mut all = Outcome::default();
    let seeds = seed::named().map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        match power::run(seed, FORMS, Promise::Kept) {
            Ok(outcome) => all += outcome,
            Err(violation) => panic!("LATCHBUS_SEED={seed}: {violation:?}"),
        }
    }
    eprintln!("{all}");
    // The cuts came where they are to come, and disks were full.
    assert!(
        all.ahead > 0 && all.cuts_at_start > 0 && all.full > 0 && all.held > 0,
        "{all}"
    );
    assert!(all.acknowledged > 10 * all.cuts, "{all}");
}

/// A reader that took nothing in the life after the one that lost what it knew, and came back in the next.
#[test]
fn what_was_lost_two_lives_ago_is_not_kept_by_a_reader() {
    power::run(663_225_342, FORMS, Promise::Kept).unwrap();
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| power::run(seed, 2, Promise::Kept).unwrap();
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// Were these to fail, the test above would prove nothing.
fn fails(promise: Promise) {
    let wrong = (0..3).filter(|seed| power::run(*seed, 2, promise).is_err());
    assert_eq!(wrong.count(), 3);
}

#[test]
fn control_commits_that_are_not_durable_lose_what_was_acknowledged() {
    fails(Promise::NotDurable);
}

#[test]
fn control_a_disk_that_does_not_synchronise_loses_what_was_acknowledged() {
    fails(Promise::Lied);
}
