//! A hub that goes on with an earlier life.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a test that panics has failed
#![cfg(feature = "alloc")]

use latchbus_core::hub::{Cursor, EarlierLife, Hub, Limits, Mode, Retain, Start, Step};
use latchbus_core::topic::{TopicFilter, TopicName};

const EPOCH: u64 = 7;

fn name(topic: &str) -> TopicName<&str> {
    TopicName::parse(topic).unwrap()
}

fn hub() -> Hub<Vec<u8>> {
    Hub::new(EPOCH, Limits::default())
}

/// A value at 3, an event at 5, a clear at 6, and a life that ended at 9 and may have gone as far as 100.
fn restored(events: u64) -> Hub<Vec<u8>> {
    let mut hub = hub();
    hub.skip_to(2);
    hub.publish(name("s"), vec![1], Retain::LAST, 30).unwrap();
    hub.skip_to(4);
    hub.publish(name("e"), vec![2], Retain::No, 50).unwrap();
    hub.restore_clear(name("c"), Vec::new(), 60).unwrap();
    hub.restored(EarlierLife {
        revision: 100,
        events,
        ..EarlierLife::default()
    });
    hub
}

fn resume(hub: &mut Hub<Vec<u8>>, rev: u64, mode: Mode, owed: bool) -> Vec<String> {
    let cursor = Cursor { epoch: EPOCH, rev };
    let all = TopicFilter::parse("#").unwrap();
    let id = hub.subscribe(all, mode, Start::Resume(cursor)).unwrap();
    if owed {
        hub.owe_events(id).unwrap();
    }
    let mut steps = Vec::new();
    while let Some(step) = hub.next(id).unwrap() {
        steps.push(match step {
            Step::Reset => "reset".into(),
            Step::Gap { missed } => format!("gap {missed}"),
            Step::Synced { .. } => "synced".into(),
            Step::Entry { entry, .. } => format!("{} at {}", entry.topic.as_str(), entry.rev),
        });
    }
    steps
}

#[test]
fn everything_has_the_revision_that_it_had_and_new_ones_go_on_behind() {
    let mut hub = restored(100);
    let last = hub.last(name("s")).unwrap();
    assert_eq!((last.rev, last.at), (3, 30));
    assert_eq!(hub.revision(), 100);
    let next = hub.publish(name("s"), vec![3], Retain::LAST, 0).unwrap();
    assert_eq!(next.rev, 101);
}

#[test]
fn state_resumes_without_a_gap() {
    let mut hub = restored(100);
    let all = ["s at 3", "c at 6", "synced"];
    assert_eq!(resume(&mut hub, 2, Mode::Latest, false), all);
    assert_eq!(resume(&mut hub, 3, Mode::Latest, false), all[1..]);
    assert_eq!(resume(&mut hub, 50, Mode::Latest, false), ["synced"]);
    // Nobody can have had that.
    let beyond = resume(&mut hub, 101, Mode::Latest, false);
    assert_eq!(beyond, ["reset", "s at 3", "synced"]);
}

#[test]
fn events_that_may_have_been_are_told_of_as_far_as_any_are_known() {
    let mut hub = restored(100);
    let some = ["gap 2", "c at 6", "synced"];
    assert_eq!(resume(&mut hub, 3, Mode::Every, false), some);
    assert_eq!(
        resume(&mut hub, 40, Mode::Every, false),
        ["gap 0", "synced"]
    );
    assert_eq!(resume(&mut hub, 100, Mode::Every, false), ["synced"]);
}

#[test]
fn a_life_that_ended_in_order_knows_its_last_event() {
    let mut hub = restored(5);
    assert_eq!(
        resume(&mut hub, 5, Mode::Every, false),
        ["c at 6", "synced"]
    );
    let before = ["gap 1", "c at 6", "synced"];
    assert_eq!(resume(&mut hub, 4, Mode::Every, false), before);
    assert_eq!(hub.newest_event(), 5);
}

#[test]
fn whoever_is_owed_events_gets_them_in_order_and_no_gap() {
    let mut hub = restored(100);
    let all = ["s at 3", "e at 5", "c at 6", "synced"];
    assert_eq!(resume(&mut hub, 2, Mode::Every, true), all);
    assert_eq!(resume(&mut hub, 4, Mode::Every, true), all[1..]);
    assert_eq!(resume(&mut hub, 4, Mode::Latest, true), all[1..]);
    assert_eq!(resume(&mut hub, 5, Mode::Every, true), all[2..]);
}

#[test]
fn what_was_forgotten_resets() {
    let mut hub = hub();
    hub.restored(EarlierLife {
        revision: 9,
        forgotten: 4,
        ..EarlierLife::default()
    });
    assert_eq!(
        resume(&mut hub, 3, Mode::Latest, false),
        ["reset", "synced"]
    );
    assert_eq!(resume(&mut hub, 4, Mode::Latest, false), ["synced"]);
}

#[test]
fn what_was_forgotten_takes_no_event_from_whoever_is_owed_it() {
    let mut hub = restored(100);
    hub.restored(EarlierLife {
        revision: 100,
        events: 100,
        forgotten: 4,
        ..EarlierLife::default()
    });
    let all = ["reset", "s at 3", "e at 5", "synced"];
    assert_eq!(resume(&mut hub, 2, Mode::Every, true), all);
}

#[test]
fn a_cursor_of_what_was_lost_in_any_earlier_life_is_reset() {
    let mut hub = hub();
    hub.skip_to(2);
    hub.publish(name("s"), vec![1], Retain::LAST, 30).unwrap();
    hub.restored(EarlierLife {
        revision: 100,
        lost: vec![(10, 20), (60, 100)],
        ..EarlierLife::default()
    });
    let reset = ["reset", "s at 3", "synced"];
    for rev in [11, 20, 61, 100] {
        assert_eq!(resume(&mut hub, rev, Mode::Latest, false), reset, "{rev}");
    }
    // What survived, and what came between.
    for rev in [3, 10, 21, 60] {
        let resumed = resume(&mut hub, rev, Mode::Latest, false);
        assert_eq!(resumed, ["synced"], "{rev}");
    }
}
