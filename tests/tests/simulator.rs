//! A whole room in virtual time: over many seeds the room shows every click once, and never one more.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use latchbus_tests::depth::sized;
use latchbus_tests::power::Promise;
use latchbus_tests::seed;
use latchbus_tests::simulator::{self, Outcome};

/// Of each of two tests, which run side by side: 7 s each. `tests/run simulate` makes more.
const SEEDS: u64 = 100;
const DEEP_SEEDS: u64 = 1_000;

fn seeds() -> u64 {
    sized(SEEDS, DEEP_SEEDS)
}

fn every_click_counts_once(seeds: core::ops::Range<u64>) {
    let mut all = Outcome::default();
    let seeds = seed::named().map_or(seeds, |seed| seed..seed + 1);
    for seed in seeds {
        match simulator::run(seed, Promise::Kept) {
            Ok(outcome) => all += outcome,
            Err(violation) => panic!("LATCHBUS_SEED={seed}: {violation}"),
        }
    }
    eprintln!("{all}");
    // Things did go wrong.
    assert!(
        all.crashes > all.seeds
            && all.kills > all.seeds
            && all.resets > all.seeds / 4
            && all.removals > all.seeds / 4
            && all.undone > 0
            && all.died > 0,
        "{all}"
    );
}

#[test]
fn every_click_counts_once_over_the_first_seeds() {
    every_click_counts_once(0..seeds());
}

#[test]
fn every_click_counts_once_over_the_next_seeds() {
    every_click_counts_once(seeds()..2 * seeds());
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..20 {
        let run = || simulator::run(seed, Promise::Kept).unwrap();
        assert_eq!(run(), run(), "seed {seed}");
    }
}

/// Were this to fail, the tests above would prove nothing.
#[test]
fn control_commits_that_are_not_durable_lose_clicks() {
    let wrong = (0..20).filter(|seed| simulator::run(*seed, Promise::NotDurable).is_err());
    assert!(wrong.count() > 10);
}
