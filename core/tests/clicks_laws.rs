//! The merge law of clicks: what holds for any states, what holds for those that a single writer
//! reaches, and what breaks when folding becomes part of the merge.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what the tests call may fail as they may"
)]

use latchbus_core::clicks::{
    Clicks, Counter, FOLD_WINDOW_BOOTS, FixedLive, FloorRecord, Incarnation, MAX_COUNT, Outcome,
};
use proptest::prelude::*;

type View = Clicks<FixedLive<64>>;

const UNBOUNDED: usize = usize::MAX;

fn joined(a: &View, b: &View) -> View {
    let mut joined = a.clone();
    joined
        .join(b, UNBOUNDED)
        .expect("64 entries hold every incarnation of these tests");
    joined
}

fn counter() -> impl Strategy<Value = Counter> {
    let count = || prop_oneof![8 => 0..50_u64, 1 => MAX_COUNT - 2..=MAX_COUNT];
    (count(), count()).prop_map(|(red, blue)| Counter::new(red, blue))
}

/// 36 incarnations: few enough that two views often know the same.
fn incarnation() -> impl Strategy<Value = Incarnation> {
    (1..=12_u32, 0..3_u32).prop_map(|(boot, nonce)| Incarnation::new(boot, nonce).unwrap())
}

/// Any state at all, reachable or not.
fn any_view() -> impl Strategy<Value = View> {
    let live = prop::collection::vec((incarnation(), counter()), 0..12);
    (0..6_u32, counter(), live).prop_map(|(floor, base, reports)| {
        let mut view = View::from(FloorRecord { floor, base });
        for (incarnation, counter) in reports {
            view.report(incarnation, counter, UNBOUNDED).unwrap();
        }
        view
    })
}

#[derive(Clone, Debug)]
enum Step {
    /// The device clicks in one of its incarnations, and the writer hears of it.
    Report(Incarnation, Counter),
    Fold,
    /// Somebody keeps a copy of what the writer knows.
    Copy,
    /// Somebody reads the floor topic at one time and some of the count topics at another.
    Read {
        floor_of: usize,
        counts_of: usize,
        mask: u64,
    },
    /// Two of these views are merged.
    Join(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (incarnation(), counter()).prop_map(|(i, more)| Step::Report(i, more)),
        1 => Just(Step::Fold),
        2 => Just(Step::Copy),
        2 => (any::<usize>(), any::<usize>(), any::<u64>())
            .prop_map(|(floor_of, counts_of, mask)| Step::Read { floor_of, counts_of, mask }),
        3 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::Join(a, b)),
    ];
    prop::collection::vec(step, 0..60)
}

fn covers(larger: Counter, smaller: Counter) -> bool {
    larger.join(smaller) == larger
}

proptest! {
    #[test]
    fn join_is_commutative_associative_idempotent(a in any_view(), b in any_view(), c in any_view()) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(&joined(&a, &a), &a);
        prop_assert_eq!(&joined(&joined(&a, &b), &b), &joined(&a, &b));
    }

    #[test]
    fn the_empty_view_is_neutral(a in any_view()) {
        prop_assert_eq!(&joined(&a, &View::default()), &a);
        prop_assert_eq!(&joined(&View::default(), &a), &a);
    }

    #[test]
    fn a_report_is_a_join_with_a_view_of_one(a in any_view(), i in incarnation(), c in counter()) {
        let mut one = View::default();
        one.report(i, c, UNBOUNDED).unwrap();
        let mut reported = a.clone();
        let before = a.value();
        let outcome = reported.report(i, c, UNBOUNDED).unwrap();
        prop_assert_eq!(&reported, &joined(&a, &one));
        prop_assert!(covers(reported.value(), before));
        match outcome {
            Outcome::Stale => prop_assert!(i.boot() <= a.floor_record().floor),
            Outcome::Unchanged => {}
            Outcome::Raised { joined, gained } => {
                prop_assert!(covers(joined, c));
                prop_assert_eq!(reported.value(), before.saturating_add(gained));
            }
        }
        prop_assert_eq!(reported == a, !matches!(outcome, Outcome::Raised { .. }));
    }

    #[test]
    fn a_fold_keeps_the_value_and_bounds_the_boots(mut a in any_view()) {
        let (before, value, highest) = (a.clone(), a.value(), a.highest_boot());
        let fallen = a.pending_fold().map_or(0, |fold| fold.fallen.len());
        let folded = a.fold();
        prop_assert_eq!(folded.is_some(), fallen > 0);
        prop_assert_eq!(a.value(), value);
        prop_assert_eq!(a.highest_boot(), highest);
        prop_assert_eq!(a.entries().len() + fallen, before.entries().len());
        prop_assert!(a.entries().iter().all(|(i, _)| i.boot() + FOLD_WINDOW_BOOTS > highest));
        prop_assert_eq!(a.fold(), None);
        // The fold is the newer truth, whichever side it is merged from.
        prop_assert_eq!(&joined(&before, &a), &a);
        prop_assert_eq!(&joined(&a, &before), &a);
    }

    /// One writer hears every report and folds. All others hold what they once read of it, as a
    /// whole or topic by topic, and what merging made of that.
    #[test]
    fn stale_reads_never_lower_the_value_and_never_invent(steps in steps()) {
        let mut writer = View::default();
        let mut truth = std::collections::BTreeMap::<Incarnation, Counter>::new();
        let mut views = vec![View::default()];
        for step in steps {
            match step {
                Step::Report(incarnation, more) => {
                    let made = truth.get(&incarnation).copied().unwrap_or_default();
                    let made = made.saturating_add(more);
                    let before = writer.value();
                    if writer.report(incarnation, made, UNBOUNDED).unwrap() != Outcome::Stale {
                        truth.insert(incarnation, made);
                    }
                    prop_assert!(covers(writer.value(), before));
                }
                Step::Fold => {
                    writer.fold();
                }
                Step::Copy => views.push(writer.clone()),
                Step::Read { floor_of, counts_of, mask } => {
                    let floor = views[floor_of % views.len()].floor_record();
                    let counts = &views[counts_of % views.len()];
                    let mut read = View::from(floor);
                    for (index, (incarnation, counter)) in counts.entries().iter().enumerate() {
                        if mask >> (index % 64) & 1 == 1 {
                            read.report(*incarnation, *counter, UNBOUNDED).unwrap();
                        }
                    }
                    views.push(read);
                }
                Step::Join(a, b) => {
                    let (a, b) = (&views[a % views.len()], &views[b % views.len()]);
                    let both = joined(a, b);
                    prop_assert!(covers(both.value(), a.value()));
                    prop_assert!(covers(both.value(), b.value()));
                    views.push(both);
                }
            }
            let made = truth.values().fold(Counter::ZERO, |sum, c| sum.saturating_add(*c));
            prop_assert_eq!(writer.value(), made);
            for view in &views {
                prop_assert_eq!(&joined(&writer, view), &writer);
            }
        }
    }

    #[test]
    fn storage_gives_back_what_it_was_given(a in any_view()) {
        let mut buffer = [0; 2048];
        let stored = postcard::to_slice(&a, &mut buffer).unwrap();
        prop_assert_eq!(postcard::from_bytes::<View>(stored).unwrap(), a.clone());
        let json = serde_json::to_string(&a).unwrap();
        prop_assert_eq!(serde_json::from_str::<View>(&json).unwrap(), a);
    }

    #[test]
    fn stored_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(view) = postcard::from_bytes::<View>(&bytes) {
            prop_assert!(view.entries().is_sorted_by(|a, b| a.0 < b.0));
            prop_assert!(view.entries().iter().all(|(i, _)| i.boot() > view.floor_record().floor));
        }
    }
}

/// The negative control: why `join` never folds. If it did, the order of merging would decide which
/// clicks are kept.
#[test]
fn folding_inside_the_merge_breaks_associativity() {
    let folding = |a: &View, b: &View| {
        let mut both = joined(a, b);
        both.fold();
        both
    };
    let mut states = Vec::new();
    for boot in [1, 2, 9, 10] {
        for nonce in 0..2 {
            let mut state = View::default();
            let report = state.report(
                Incarnation::new(boot, nonce).unwrap(),
                Counter::new(u64::from(10 * boot + nonce), 0),
                UNBOUNDED,
            );
            report.unwrap();
            states.push(state);
        }
    }
    let triples = || {
        let pairs = states
            .iter()
            .flat_map(|a| states.iter().map(move |b| (a, b)));
        pairs.flat_map(|(a, b)| states.iter().map(move |c| (a, b, c)))
    };
    let broken =
        triples().filter(|(a, b, c)| folding(&folding(a, b), c) != folding(a, &folding(b, c)));
    let lossy = triples()
        .filter(|(a, b, c)| folding(&folding(a, b), c).value() != joined(&joined(a, b), c).value());
    assert!(broken.count() > 0);
    assert!(lossy.count() > 0);
    assert!(triples().all(|(a, b, c)| joined(&joined(a, b), c) == joined(a, &joined(b, c))));
}

#[cfg(feature = "alloc")]
mod growing {
    use super::*;
    use latchbus_core::clicks::{Full, GrowingLive};

    proptest! {
        /// Both memories do the same; a view in one joins a view in the other.
        #[test]
        fn memory_makes_no_difference(
            reports in prop::collection::vec((incarnation(), counter(), any::<bool>()), 0..40),
            max_live in 1..12_usize,
        ) {
            let mut fixed = View::default();
            let mut growing = Clicks::<GrowingLive>::default();
            for (incarnation, counter, fold) in reports {
                let outcome = fixed.report(incarnation, counter, max_live);
                prop_assert_eq!(growing.report(incarnation, counter, max_live), outcome);
                if outcome == Err(Full) {
                    prop_assert_eq!(fixed.entries().len(), max_live);
                }
                if fold {
                    prop_assert_eq!(fixed.fold(), growing.fold());
                }
                prop_assert_eq!(fixed.entries(), growing.entries());
                prop_assert_eq!(fixed.value(), growing.value());
            }
            let mut crossed = growing.clone();
            crossed.join(&fixed, max_live).unwrap();
            prop_assert_eq!(&crossed, &growing);
        }
    }
}
