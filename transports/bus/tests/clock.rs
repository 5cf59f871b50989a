//! What expires goes by the time that passes, not by what somebody sets the machine's clock to.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use core::num::NonZeroU64;
use core::time::Duration;
use std::path::Path;

use latchbus_bus::backup::Record;
use latchbus_bus::{Bus, Clock, Options, Principal, StoreKind};
use support::{DEADLINE, LIMITS, last, state};
use tokio::time::timeout;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
/// When the program of these tests was built.
const BUILT: u64 = 1_790_000_000_000;
/// Later: a clock that is set.
const NOW: u64 = BUILT + 30 * DAY;
/// Ten seconds after a machine without a battery was switched on.
const UNSET: u64 = 10 * SECOND;

struct Life {
    bus: Bus,
    clock: Clock,
}

fn start(directory: &Path, unix_ms: u64) -> Life {
    let clock = Clock::manual_built(unix_ms, BUILT);
    let bus = Bus::open(Options {
        limits: LIMITS,
        clock: clock.clone(),
        store: StoreKind::Directory(directory.to_owned()),
        ..Options::default()
    });
    Life {
        bus: bus.unwrap(),
        clock,
    }
}

impl Life {
    async fn publish(&self, topic: &str, lives: u64) {
        let mut publish = state(topic, "x");
        publish.expires_in = Some(Duration::from_millis(lives));
        let client = self.bus.client(Principal::process()).unwrap();
        client.publish(publish).await.unwrap();
    }

    /// How long a value has left.
    fn left(&self, topic: &str) -> Option<u64> {
        let topic = support::name(topic);
        let value = self.bus.last(topic.borrowed())?;
        let ends = value.payload.expires_at().unwrap().get();
        Some(ends - self.bus.clock().deadline_ms())
    }

    fn pass(&self, ms: u64) {
        self.clock.set(self.clock.unix_ms() + ms);
    }

    async fn stop(self) {
        timeout(DEADLINE, self.bus.close()).await.unwrap();
    }
}

#[tokio::test]
async fn a_step_of_the_running_clock_moves_no_deadline() {
    for (from, to) in [
        (UNSET, NOW),
        (NOW, UNSET),
        (NOW, NOW - DAY),
        (NOW, NOW + 365 * DAY),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let life = start(directory.path(), from);
        life.publish("hour", HOUR).await;
        life.clock.step(to);
        assert_eq!(life.left("hour"), Some(HOUR), "{from} to {to}");
        // The time of day is told as it is.
        life.publish("later", 2 * HOUR).await;
        let later = support::name("later");
        assert_eq!(life.bus.last(later.borrowed()).unwrap().at, to);
        life.pass(HOUR - 1);
        assert_eq!(life.left("hour"), Some(1));
        life.pass(1);
        assert_eq!(last(&life.bus, "hour"), None);
        assert_eq!(life.left("later"), Some(HOUR));
        life.stop().await;
    }
}

/// What is left of an hour after a restart, where the clock stood at the stop and at the start.
async fn left_after(stopped: u64, started: u64) -> Option<u64> {
    let directory = tempfile::tempdir().unwrap();
    let life = start(directory.path(), stopped);
    life.publish("hour", HOUR).await;
    life.stop().await;
    let life = start(directory.path(), started);
    let left = life.left("hour");
    life.stop().await;
    left
}

#[tokio::test]
async fn over_a_restart_the_time_of_day_counts_where_it_is_known() {
    assert_eq!(left_after(NOW, NOW + HOUR / 4).await, Some(HOUR / 4 * 3));
    assert_eq!(left_after(NOW, NOW + HOUR).await, None);
    for (stopped, started) in [
        // Back: no more than the publisher gave.
        (NOW, NOW - DAY),
        // Set meanwhile, no longer set, and never set.
        (UNSET, NOW),
        (NOW, UNSET),
        (UNSET, UNSET + 20 * SECOND),
        (NOW, BUILT - 1),
    ] {
        assert_eq!(
            left_after(stopped, started).await,
            Some(HOUR),
            "{stopped} to {started}"
        );
    }
}

#[tokio::test]
async fn of_a_long_absence_a_day_counts() {
    let directory = tempfile::tempdir().unwrap();
    let life = start(directory.path(), NOW);
    life.publish("days", 3 * DAY).await;
    life.publish("day", DAY).await;
    life.stop().await;
    let life = start(directory.path(), NOW + 3650 * DAY);
    assert_eq!((life.left("days"), life.left("day")), (Some(2 * DAY), None));
    // It goes on from there.
    life.pass(DAY);
    assert_eq!(life.left("days"), Some(DAY));
    life.stop().await;
    let life = start(directory.path(), NOW + 3651 * DAY + HOUR);
    assert_eq!(life.left("days"), Some(DAY - HOUR));
    life.stop().await;
}

#[tokio::test]
async fn after_a_kill_no_more_is_left_than_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let life = start(directory.path(), UNSET);
    life.pass(7);
    life.publish("hour", HOUR).await;
    let image = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), image.path().join(file.file_name())).unwrap();
    }
    life.stop().await;
    let life = start(image.path(), NOW);
    assert_eq!(life.left("hour"), Some(HOUR));
    life.stop().await;
}

#[tokio::test]
async fn an_export_tells_times_of_day() {
    let directory = tempfile::tempdir().unwrap();
    let life = start(directory.path(), UNSET);
    life.publish("hour", HOUR).await;
    life.clock.step(NOW);
    let client = life.bus.client(Principal::process()).unwrap();
    let records: Vec<_> = client.export().await.unwrap().collect();
    let Some(Record::Value(value)) = records
        .iter()
        .find(|record| matches!(record, Record::Value(value) if value.topic.as_str() == "hour"))
    else {
        panic!("{records:?}");
    };
    assert_eq!(value.expires_at, NonZeroU64::new(NOW + HOUR));
    // Here, and where the clock was always right.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = start(elsewhere.path(), NOW + HOUR / 2);
    for (life, left) in [(&life, HOUR), (&other, HOUR / 2)] {
        let client = life.bus.client(Principal::process()).unwrap();
        for record in records.clone() {
            client.import(record).await.await.unwrap();
        }
        assert_eq!(life.left("hour"), Some(left));
    }
    life.stop().await;
    other.stop().await;
}
