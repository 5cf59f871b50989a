//! The law of resets: for any order of reports, folds, resets, undone resets and merges of old copies, the value is
//! what the hub has learnt of since the last reset. No old click comes back, and no new one is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what the tests call may fail as they may"
)]

use std::collections::BTreeMap;

use latchbus_core::clicks::{
    Clicks, Counter, FixedLive, Incarnation, MAX_COUNT, Outcome, Taken, Zero,
};
use proptest::prelude::*;

type Live = FixedLive<64>;

const UNBOUNDED: usize = usize::MAX;

/// One view of a device.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    clicks: Clicks<Live>,
    zero: Zero<Live>,
}

impl View {
    fn value(&self) -> Counter {
        self.zero.value_of(&self.clicks)
    }

    fn joined(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        let other = (&other.zero, &other.clicks);
        (joined.zero)
            .join(&mut joined.clicks, other, UNBOUNDED)
            .expect("64 entries hold every incarnation of these tests");
        joined
    }

    fn reset(&mut self, stamp: u64) -> Taken<Live> {
        self.zero.reset(&mut self.clicks, stamp)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The device clicks in one of its incarnations, and the hub hears of it.
    Report(Incarnation, Counter),
    /// The hub hears again what was reported before, of whatever time.
    Again(usize),
    /// A count that nobody has made.
    Forge(Incarnation),
    Fold,
    Reset,
    /// The last reset, if it was not undone yet.
    Undo,
    /// Somebody keeps a copy, an export say.
    Copy,
    /// A copy is merged.
    Join(usize),
    /// What is stored is read again.
    Restart,
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    (1..=16_u32, 0..2_u32).prop_map(|(boot, nonce)| Incarnation::new(boot, nonce).unwrap())
}

fn counter() -> impl Strategy<Value = Counter> {
    (0..50_u64, 0..50_u64).prop_map(|(red, blue)| Counter::new(red, blue))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (incarnation(), counter()).prop_map(|(i, more)| Step::Report(i, more)),
        3 => any::<usize>().prop_map(Step::Again),
        1 => incarnation().prop_map(Step::Forge),
        2 => Just(Step::Fold),
        2 => Just(Step::Reset),
        1 => Just(Step::Undo),
        2 => Just(Step::Copy),
        2 => any::<usize>().prop_map(Step::Join),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..60)
}

/// Sums that do not saturate, by colour.
type Sum = [u128; 2];

fn plus(sum: Sum, more: Counter) -> Sum {
    [
        sum[0] + u128::from(more.red()),
        sum[1] + u128::from(more.blue()),
    ]
}

fn shown(sum: Sum) -> Counter {
    let [red, blue] = sum.map(|n| u64::try_from(n).unwrap_or(u64::MAX));
    Counter::new(red, blue)
}

/// The simplest hub: it knows the largest count of each incarnation, and adds up what was news.
#[derive(Clone, Debug, Default)]
struct Reference {
    known: BTreeMap<Incarnation, Counter>,
    floor: u32,
    since: Sum,
}

impl Reference {
    fn report(&mut self, incarnation: Incarnation, counter: Counter) {
        if incarnation.boot() <= self.floor {
            return;
        }
        let known = self.known.entry(incarnation).or_default();
        self.since = plus(self.since, counter.since(*known));
        *known = known.join(counter);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_value_is_what_was_learnt_since_the_last_reset(steps in steps(), honest in any::<bool>()) {
        let (mut hub, mut reference) = (View::default(), Reference::default());
        let mut reports = Vec::new();
        let mut copies = vec![View::default()];
        let mut taken: Option<(Taken<Live>, Sum)> = None;
        let mut stamp = 0;
        for step in steps {
            match step {
                Step::Report(incarnation, more) => {
                    let known = reference.known.get(&incarnation).copied().unwrap_or_default();
                    let counter = known.saturating_add(more);
                    reports.push((incarnation, counter));
                    hub.clicks.report(incarnation, counter, UNBOUNDED).unwrap();
                    reference.report(incarnation, counter);
                }
                Step::Again(n) => {
                    let Some((incarnation, counter)) = reports.get(n % reports.len().max(1)) else {
                        continue;
                    };
                    let again = hub.clicks.report(*incarnation, *counter, UNBOUNDED).unwrap();
                    let raised = matches!(again, Outcome::Raised { .. });
                    prop_assert!(!raised);
                }
                Step::Forge(incarnation) => {
                    let counter = Counter::new(MAX_COUNT, 0);
                    // A base saturates, and what it has lost by that cannot be told any more.
                    if honest || incarnation.boot() < 8 {
                        continue;
                    }
                    reports.push((incarnation, counter));
                    hub.clicks.report(incarnation, counter, UNBOUNDED).unwrap();
                    reference.report(incarnation, counter);
                }
                Step::Fold => {
                    let (before, last) = (hub.value(), taken.as_mut().map(|(taken, _)| taken));
                    hub.zero.fold(&mut hub.clicks, last);
                    prop_assert_eq!(hub.value(), before);
                    reference.floor = hub.clicks.floor_record().floor;
                }
                Step::Reset => {
                    stamp += 1;
                    let before = hub.value();
                    let lost = hub.reset(stamp);
                    prop_assert_eq!(lost.value(), before);
                    prop_assert_eq!(hub.value(), Counter::ZERO);
                    taken = Some((lost, reference.since));
                    reference.since = Sum::default();
                }
                Step::Undo => {
                    if let Some((lost, before)) = taken.take() {
                        stamp += 1;
                        hub.zero.give_back(&mut hub.clicks, &lost, stamp);
                        let since = reference.since;
                        reference.since = [before[0] + since[0], before[1] + since[1]];
                    }
                }
                Step::Copy => copies.push(hub.clone()),
                Step::Join(n) => {
                    let copy = &copies[n % copies.len()];
                    prop_assert_eq!(&hub.joined(copy), &hub);
                    prop_assert_eq!(&copy.joined(&hub), &hub);
                }
                Step::Restart => {
                    let mut buffer = [0; 4096];
                    let stored = postcard::to_slice(&(&hub.clicks, &hub.zero), &mut buffer).unwrap();
                    let (clicks, zero) = postcard::from_bytes(stored).unwrap();
                    let restarted = View { clicks, zero };
                    prop_assert_eq!(&restarted, &hub);
                    if let Some((lost, _)) = &taken {
                        let stored = postcard::to_slice(lost, &mut buffer).unwrap();
                        prop_assert_eq!(&postcard::from_bytes::<Taken<Live>>(stored).unwrap(), lost);
                    }
                }
            }
            prop_assert_eq!(hub.value(), shown(reference.since));
            for (incarnation, zero) in hub.zero.entries() {
                let live = hub.clicks.entries().iter().find(|(live, _)| live == incarnation);
                prop_assert!(live.unwrap().1.covers(*zero));
            }
        }
        // The copies of one hub are in order, so merging them is too.
        for copy in &copies {
            for other in &copies {
                prop_assert_eq!(&copy.joined(other), &other.joined(copy));
                for third in &copies {
                    prop_assert_eq!(
                        &copy.joined(other).joined(third),
                        &copy.joined(&other.joined(third))
                    );
                }
            }
        }
    }

    #[test]
    fn stored_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(zero) = postcard::from_bytes::<Zero<Live>>(&bytes) {
            prop_assert!(zero.entries().is_sorted_by(|a, b| a.0 < b.0));
        }
        let _ = postcard::from_bytes::<Taken<Live>>(&bytes);
    }
}

fn run(boot: u32) -> Incarnation {
    Incarnation::new(boot, 7).unwrap()
}

#[test]
fn a_forged_count_can_be_taken_back_and_hides_no_click_after_it() {
    let mut hub = View::default();
    for (boot, red) in [(1, MAX_COUNT), (2, 5)] {
        let report = Counter::new(red, 0);
        hub.clicks.report(run(boot), report, UNBOUNDED).unwrap();
    }
    hub.reset(1);
    hub.clicks
        .report(run(2), Counter::new(6, 0), UNBOUNDED)
        .unwrap();
    hub.clicks
        .report(run(3), Counter::new(2, 0), UNBOUNDED)
        .unwrap();
    assert_eq!(hub.value(), Counter::new(3, 0));
    // Also when the forged one is folded.
    hub.clicks
        .report(run(20), Counter::new(1, 0), UNBOUNDED)
        .unwrap();
    hub.zero.fold(&mut hub.clicks, None).unwrap();
    assert_eq!(hub.value(), Counter::new(4, 0));
}

#[test]
fn what_was_clicked_before_the_reset_and_reported_after_it_counts() {
    let mut hub = View::default();
    hub.clicks
        .report(run(1), Counter::new(3, 0), UNBOUNDED)
        .unwrap();
    hub.reset(1);
    // The device was away, and has three more clicks that nobody knew.
    hub.clicks
        .report(run(1), Counter::new(6, 0), UNBOUNDED)
        .unwrap();
    assert_eq!(hub.value(), Counter::new(3, 0));
}

#[test]
fn of_two_hubs_the_later_reset_counts() {
    let mut ours = View::default();
    ours.clicks
        .report(run(1), Counter::new(3, 0), UNBOUNDED)
        .unwrap();
    let mut theirs = ours.clone();
    theirs
        .clicks
        .report(run(1), Counter::new(5, 0), UNBOUNDED)
        .unwrap();
    ours.reset(1);
    theirs.reset(2);
    for (a, b) in [(&ours, &theirs), (&theirs, &ours)] {
        let both = a.joined(b);
        assert_eq!(both.value(), Counter::ZERO);
        assert_eq!(both.zero.stamp(), 2);
    }
}

/// The negative control: a reset that raises the floor to the highest boot loses what a device that runs on clicks.
#[test]
fn control_raising_the_floor_instead_loses_clicks() {
    let mut hub = View::default();
    hub.clicks
        .report(run(1), Counter::new(3, 0), UNBOUNDED)
        .unwrap();
    let mut raised = hub.clone();
    raised.zero.fold_to(&mut raised.clicks, 1);
    hub.reset(1);
    for view in [&mut hub, &mut raised] {
        view.clicks
            .report(run(1), Counter::new(4, 0), UNBOUNDED)
            .unwrap();
    }
    assert_eq!(hub.value(), Counter::new(1, 0));
    assert_eq!(
        raised.value(),
        Counter::new(3, 0),
        "the fourth click is stale"
    );
}

/// The negative control: a merge that knows no resets brings the old base back.
#[test]
fn control_a_merge_without_stamps_brings_old_clicks_back() {
    let mut hub = View::default();
    for boot in [1, 12] {
        hub.clicks
            .report(run(boot), Counter::new(3, 0), UNBOUNDED)
            .unwrap();
    }
    hub.zero.fold(&mut hub.clicks, None).unwrap();
    let old = hub.clone();
    hub.reset(1);
    assert_eq!(hub.joined(&old).value(), Counter::ZERO);
    let mut careless = hub.clone();
    careless.clicks.join(&old.clicks, UNBOUNDED).unwrap();
    assert_eq!(careless.value(), Counter::new(3, 0));
}
