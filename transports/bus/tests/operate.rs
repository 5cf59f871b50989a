//! The operator's hand: a room begins anew, a device is removed, both can be undone, and whatever comes back late counts
//! for nothing.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::Path;

use latchbus_bus::backup::Record;
use latchbus_bus::{Bus, Clock, Operate, Operated, OperationError, Options, Principal, StoreKind};
use latchbus_core::clicks::Counter;
use support::{LIMITS, event, filter, last, state};

const NOW: u64 = 1_700_000_000_000;

fn options(clock: &Clock) -> Options {
    Options {
        limits: LIMITS,
        clock: clock.clone(),
        sys_every: None,
        ..Options::default()
    }
}

fn open(clock: &Clock) -> Bus {
    Bus::open(options(clock)).unwrap()
}

fn open_in(directory: &Path, clock: &Clock) -> Bus {
    Bus::open(Options {
        store: StoreKind::Directory(directory.to_owned()),
        ..options(clock)
    })
    .unwrap()
}

async fn operate(bus: &Bus, operate: Operate) -> Result<Operated, OperationError> {
    let client = bus.client(Principal::process()).unwrap();
    client.operate(operate).await
}

async fn reset(bus: &Bus, red: u64, blue: u64) -> Operated {
    let reset = Operate::ResetRoom {
        room: "main".into(),
        counts: Counter::new(red, blue),
    };
    operate(bus, reset).await.unwrap()
}

async fn remove(bus: &Bus, device: &str) -> Result<Operated, OperationError> {
    let remove = Operate::RemoveDevice {
        room: "main".into(),
        device: device.into(),
    };
    operate(bus, remove).await
}

async fn undo(bus: &Bus, id: u64) -> Result<Operated, OperationError> {
    operate(bus, Operate::Undo { id }).await
}

async fn count(bus: &Bus, device: &str, run: &str, red: u64, blue: u64) {
    let topic = format!("clicks/main/{device}/count/{run}");
    let count = state(&topic, format!(r#"{{"red":{red},"blue":{blue}}}"#));
    bus.publish(count).await.unwrap();
}

async fn press(bus: &Bus, device: &str, id: &str) {
    let press = format!(r#"{{"color":"red","n":1,"id":"{id}"}}"#);
    let topic = format!("clicks/main/{device}/press");
    bus.publish(event(&topic, press)).await.unwrap();
}

fn values(bus: &Bus) -> Counter {
    let values = last(bus, "clicks/main/values").unwrap();
    Counter::parse(values.as_bytes()).unwrap()
}

/// The topics below a device.
fn below(bus: &Bus, device: &str) -> Vec<String> {
    let kept = bus.kept(filter(&format!("clicks/main/{device}/#")).borrowed());
    kept.iter()
        .map(|kept| kept.topic.as_str().to_owned())
        .collect()
}

async fn export(bus: &Bus) -> Vec<Record> {
    let client = bus.client(Principal::process()).unwrap();
    client.export().await.unwrap().collect()
}

async fn import(bus: &Bus, records: &[Record]) {
    let client = bus.client(Principal::process()).unwrap();
    for record in records {
        client.import(record.clone()).await.await.unwrap();
    }
}

const FIRST: &str = "1-0badcafe";
const SECOND: &str = "2-5eed5eed";

#[tokio::test]
async fn a_room_begins_anew_and_nothing_old_comes_back() {
    let bus = open(&Clock::manual(NOW));
    count(&bus, "k", FIRST, 5, 1).await;
    count(&bus, "away", FIRST, 3, 0).await;
    press(&bus, "p", "a").await;
    assert_eq!(values(&bus), Counter::new(9, 1));
    let done = reset(&bus, 0, 0).await;
    assert_eq!((done.from, done.to), (Counter::new(9, 1), Counter::ZERO));
    assert_eq!(values(&bus), Counter::ZERO);
    assert_eq!(
        last(&bus, "clicks/main/share").unwrap(),
        r#"{"red":50.0,"blue":50.0}"#
    );
    assert_eq!(last(&bus, "clicks/main/p/pressed"), None);
    assert_eq!(
        last(&bus, "clicks/main/k/zero").unwrap(),
        r#"{"removed":false,"counts":{"1-0badcafe":{"red":5,"blue":1}}}"#
    );
    // What devices have reported stays theirs.
    assert_eq!(
        last(&bus, "clicks/main/k/count/1-0badcafe").unwrap(),
        r#"{"red":5,"blue":1}"#
    );
    let shown = last(&bus, "clicks/main/reset").unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["id"], done.id.to_string());
    assert_eq!(shown["from"]["red"], 9);
    assert_eq!(
        (&shown["by"], &shown["at"]),
        (&"in-process".into(), &NOW.into())
    );

    // The same again, late, and a press that was counted.
    count(&bus, "k", FIRST, 5, 1).await;
    count(&bus, "k", FIRST, 2, 1).await;
    press(&bus, "p", "a").await;
    assert_eq!(values(&bus), Counter::ZERO);
    // New ones, also in an incarnation of its own, and what was clicked before and nobody knew.
    count(&bus, "k", FIRST, 6, 1).await;
    count(&bus, "k", SECOND, 0, 2).await;
    count(&bus, "away", FIRST, 7, 0).await;
    press(&bus, "p", "b").await;
    assert_eq!(values(&bus), Counter::new(6, 2));
    assert_eq!(
        last(&bus, "clicks/main/p/pressed").unwrap(),
        r#"{"red":1,"blue":0}"#
    );
}

#[tokio::test]
async fn a_room_can_begin_with_counts() {
    let bus = open(&Clock::manual(NOW));
    reset(&bus, 40, 2).await;
    assert_eq!(values(&bus), Counter::new(40, 2));
    count(&bus, "k", FIRST, 1, 1).await;
    assert_eq!(values(&bus), Counter::new(41, 3));
    reset(&bus, 7, 0).await;
    assert_eq!(values(&bus), Counter::new(7, 0));
    let unknown = Operate::ResetRoom {
        room: "nowhere".into(),
        counts: Counter::ZERO,
    };
    assert_eq!(
        operate(&bus, unknown).await,
        Err(OperationError::UnknownRoom)
    );
}

#[tokio::test]
async fn a_removed_device_is_gone_until_it_clicks() {
    let bus = open(&Clock::manual(NOW));
    count(&bus, "k", FIRST, 5, 1).await;
    count(&bus, "k", SECOND, 2, 0).await;
    count(&bus, "j", FIRST, 1, 0).await;
    press(&bus, "k", "a").await;
    bus.publish(state("clicks/main/k/status", "online"))
        .await
        .unwrap();
    bus.publish(state("clicks/main/k/battery", "80"))
        .await
        .unwrap();
    let done = remove(&bus, "k").await.unwrap();
    assert_eq!(done.from, Counter::new(8, 1));
    assert_eq!(below(&bus, "k"), [""; 0]);
    assert_eq!(values(&bus), Counter::new(1, 0));
    assert_eq!(remove(&bus, "k").await, Err(OperationError::UnknownDevice));
    assert_eq!(
        remove(&bus, "nobody").await,
        Err(OperationError::UnknownDevice)
    );

    press(&bus, "k", "a").await;
    assert_eq!(below(&bus, "k"), [""; 0]);

    // It knows nothing of it, and says what it said before. It must find its count retained, as ever; what is beside it
    // says that it counts for nothing.
    count(&bus, "k", SECOND, 2, 0).await;
    count(&bus, "k", SECOND, 1, 0).await;
    let count_topic = format!("clicks/main/k/count/{SECOND}");
    let shown = [count_topic, "clicks/main/k/zero".to_owned()];
    assert_eq!(below(&bus, "k"), shown);
    assert_eq!(
        last(&bus, "clicks/main/k/zero").unwrap(),
        format!(
            r#"{{"removed":true,"counts":{{"{FIRST}":{{"red":5,"blue":1}},"{SECOND}":{{"red":2,"blue":0}}}}}}"#
        )
    );
    assert_eq!(values(&bus), Counter::new(1, 0));

    count(&bus, "k", SECOND, 4, 0).await;
    assert_eq!(values(&bus), Counter::new(3, 0));
    assert_eq!(below(&bus, "k"), shown);
}

#[tokio::test]
async fn the_floor_of_a_removed_device_stays_for_those_without_storage() {
    let bus = open(&Clock::manual(NOW));
    for boot in 1..=12 {
        count(&bus, "k", &format!("{boot}-00000007"), 1, 0).await;
    }
    remove(&bus, "k").await.unwrap();
    assert_eq!(values(&bus), Counter::ZERO);
    assert_eq!(below(&bus, "k"), ["clicks/main/k/floor"]);
    assert_eq!(
        last(&bus, "clicks/main/k/floor").unwrap(),
        r#"{"floor":4,"red":0,"blue":0}"#
    );
    count(&bus, "k", "5-0000000a", 1, 0).await;
    assert_eq!(values(&bus), Counter::new(1, 0));
    // What falls counts less its zero.
    count(&bus, "k", "16-00000007", 1, 0).await;
    assert_eq!(values(&bus), Counter::new(2, 0));
    assert_eq!(
        last(&bus, "clicks/main/k/floor").unwrap(),
        r#"{"floor":8,"red":1,"blue":0}"#
    );
}

#[tokio::test]
async fn an_operation_is_undone_within_a_minute_and_keeps_what_has_come() {
    let clock = Clock::manual(NOW);
    let bus = open(&clock);
    count(&bus, "k", FIRST, 5, 1).await;
    bus.publish(state("clicks/main/k/status", "online"))
        .await
        .unwrap();
    let done = remove(&bus, "k").await.unwrap();
    assert_eq!(done.undo_until, Some(NOW + 60_000));
    count(&bus, "k", FIRST, 6, 1).await;
    clock.set(NOW + 59_000);
    let undone = undo(&bus, done.id).await.unwrap();
    assert_eq!(undone.to, Counter::new(6, 1));
    assert_eq!(values(&bus), Counter::new(6, 1));
    assert_eq!(
        undo(&bus, done.id).await,
        Err(OperationError::UnknownOperation)
    );
    assert_eq!(
        below(&bus, "k"),
        [
            format!("clicks/main/k/count/{FIRST}"),
            "clicks/main/k/status".to_owned()
        ]
    );

    let given = reset(&bus, 9, 9).await;
    count(&bus, "k", FIRST, 6, 2).await;
    press(&bus, "p", "a").await;
    let undone = undo(&bus, given.id).await.unwrap();
    assert_eq!(
        (undone.from, undone.to),
        (Counter::new(10, 10), Counter::new(7, 2))
    );
    let shown = last(&bus, "clicks/main/reset").unwrap();
    assert!(shown.contains(r#""undone":true"#), "{shown}");

    let late = reset(&bus, 0, 0).await;
    clock.set(NOW + 200_000);
    assert_eq!(undo(&bus, late.id).await, Err(OperationError::TooLate));
    assert_eq!(values(&bus), Counter::ZERO);
}

#[tokio::test]
async fn only_the_last_operation_on_a_device_can_be_undone() {
    let bus = open(&Clock::manual(NOW));
    for device in ["k", "j"] {
        count(&bus, device, FIRST, 5, 1).await;
    }
    let [k, j] = [
        remove(&bus, "k").await.unwrap(),
        remove(&bus, "j").await.unwrap(),
    ];
    undo(&bus, k.id).await.unwrap();
    assert_eq!(values(&bus), Counter::new(5, 1));
    let room = reset(&bus, 0, 0).await;
    assert_eq!(
        undo(&bus, j.id).await,
        Err(OperationError::UnknownOperation)
    );
    let again = remove(&bus, "k").await;
    // It has no clicks, but it is shown.
    let again = again.unwrap();
    assert_eq!(
        undo(&bus, room.id).await,
        Err(OperationError::UnknownOperation)
    );
    undo(&bus, again.id).await.unwrap();
    assert_eq!(values(&bus), Counter::ZERO);
}

#[tokio::test]
async fn operations_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let bus = open_in(directory.path(), &clock);
    count(&bus, "k", FIRST, 5, 1).await;
    count(&bus, "gone", FIRST, 2, 2).await;
    press(&bus, "p", "a").await;
    let removed = remove(&bus, "gone").await.unwrap();
    let given = reset(&bus, 1, 0).await;
    count(&bus, "k", FIRST, 7, 1).await;
    let shown = |bus: &Bus| {
        let devices = ["k", "gone", "p"].map(|device| below(bus, device));
        (values(bus), devices, last(bus, "clicks/main/reset"))
    };
    let before = shown(&bus);
    bus.close().await;

    let bus = open_in(directory.path(), &clock);
    assert_eq!(shown(&bus), before);
    assert_eq!(values(&bus), Counter::new(3, 0));
    count(&bus, "k", FIRST, 7, 1).await;
    press(&bus, "p", "a").await;
    assert_eq!(values(&bus), Counter::new(3, 0));
    let undone = undo(&bus, given.id).await.unwrap();
    assert!(undone.id > given.id && given.id > removed.id);
    assert_eq!(values(&bus), Counter::new(8, 1));
    assert_eq!(below(&bus, "gone"), [""; 0]);
    bus.close().await;
}

#[tokio::test]
async fn an_export_from_before_brings_nothing_back_and_one_from_after_brings_the_reset() {
    let clock = Clock::manual(NOW);
    let bus = open(&clock);
    count(&bus, "k", FIRST, 5, 1).await;
    count(&bus, "gone", FIRST, 2, 2).await;
    for boot in 1..=12 {
        count(&bus, "old", &format!("{boot}-00000007"), 1, 0).await;
    }
    press(&bus, "p", "a").await;
    bus.publish(state("clicks/main/gone/status", "online"))
        .await
        .unwrap();
    let before = export(&bus).await;
    reset(&bus, 3, 0).await;
    remove(&bus, "gone").await.unwrap();
    assert_eq!(values(&bus), Counter::new(3, 0));
    let after = export(&bus).await;
    let shown = |bus: &Bus| ["k", "gone", "old", "p"].map(|device| below(bus, device));
    let then = shown(&bus);
    import(&bus, &before).await;
    assert_eq!(values(&bus), Counter::new(3, 0));
    assert_eq!(shown(&bus), then);
    count(&bus, "k", FIRST, 6, 1).await;
    import(&bus, &before).await;
    import(&bus, &after).await;
    assert_eq!(values(&bus), Counter::new(4, 0));

    // In whatever order another hub learns of them.
    for order in [[&before, &after], [&after, &before]] {
        let other = open(&clock);
        for records in order {
            import(&other, records).await;
        }
        assert_eq!(values(&other), Counter::new(3, 0));
        assert_eq!(below(&other, "gone"), [""; 0]);
        press(&other, "p", "a").await;
        count(&other, "k", FIRST, 6, 1).await;
        assert_eq!(values(&other), Counter::new(4, 0));
    }
}

#[tokio::test]
async fn what_only_the_hub_writes_stays_the_hubs() {
    let bus = open(&Clock::manual(NOW));
    for topic in ["clicks/main/reset", "clicks/main/k/zero"] {
        bus.publish(state(topic, "{}")).await.unwrap_err();
    }
}
