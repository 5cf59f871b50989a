//! What is exported comes back whole, what is merged only ever adds, and once is as good as twice.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use core::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use latchbus_bus::backup::{DeviceClicks, Kept, Ledger, Record};
use latchbus_bus::{
    Authorizer, Bus, Clock, HistoryRule, Identity, Operate, OperationError, Options, Principal,
    Properties, Publish, PublishRefused, PublishRequest, StoreKind,
};
use latchbus_core::clicks::{Counter, FloorRecord, Incarnation};
use latchbus_core::topic::TopicName;
use support::{LIMITS, event, filter, last, name, open, state};

const NOW: u64 = 1_700_000_000_000;

fn options(clock: &Clock) -> Options {
    Options {
        limits: LIMITS,
        clock: clock.clone(),
        history: vec![HistoryRule {
            filter: filter("chat/#"),
            keep: 3,
        }],
        ..Options::default()
    }
}

fn open_in(directory: &Path, clock: &Clock) -> Bus {
    Bus::open(Options {
        store: StoreKind::Directory(directory.to_owned()),
        ..options(clock)
    })
    .unwrap()
}

async fn export(bus: &Bus) -> Vec<Record> {
    let export = bus.client(Principal::process()).unwrap().export().await;
    let export = export.unwrap();
    let count = export.len();
    let records: Vec<_> = export.collect();
    assert_eq!(records.len(), count);
    records
}

async fn import(bus: &Bus, record: Record) -> Result<(), PublishRefused> {
    let client = bus.client(Principal::process()).unwrap();
    client.import(record).await.await.map(drop)
}

async fn import_all(bus: &Bus, records: &[Record]) {
    for record in records {
        import(bus, record.clone()).await.unwrap();
    }
}

/// The same without the revisions, which are the hub's own.
fn without_revisions(records: Vec<Record>) -> Vec<Record> {
    let of = |record| match record {
        Record::Value(value) => Record::Value(Kept { rev: 0, ..value }),
        other => other,
    };
    records.into_iter().map(of).collect()
}

fn run(text: &str) -> Incarnation {
    text.parse().unwrap()
}

fn ledger(floor: u32, base: u64, live: &[(&str, u64)]) -> Ledger {
    let base = Counter::new(base, 0);
    let live = live
        .iter()
        .map(|(name, red)| (run(name), Counter::new(*red, 0)));
    Ledger::new(FloorRecord { floor, base }, live.collect()).unwrap()
}

fn device(counts: Ledger, pressed: Ledger) -> Record {
    Record::Device(DeviceClicks {
        room: "main".into(),
        device: "k".into(),
        counts,
        pressed,
        press_ids: Vec::new(),
        removed: false,
    })
}

fn value(topic: &str, payload: &'static str, at: u64) -> Kept {
    Kept {
        topic: name(topic),
        payload: payload.into(),
        rev: 1,
        at,
        qos: 1,
        holder: None,
        expires_at: None,
        properties: None,
        history: 1,
    }
}

fn device_of(records: &[Record]) -> &DeviceClicks {
    let mut devices = records.iter().filter_map(|record| match record {
        Record::Device(device) => Some(device),
        _ => None,
    });
    devices.next().unwrap()
}

fn total(bus: &Bus) -> Option<String> {
    last(bus, "clicks/main/values")
}

/// Everything that there is to keep.
async fn fill(bus: &Bus, clock: &Clock) {
    let mut now = NOW;
    for publish in [
        state("lab/temp", "{\"c\": 21.50}"),
        Publish {
            qos: 0,
            properties: Some(Arc::new(Properties {
                content_type: Some("text/plain".into()),
                correlation_data: Some(vec![0, 255]),
                user: vec![("k".into(), "v".into())],
                ..Properties::default()
            })),
            expires_in: Some(core::time::Duration::from_hours(1)),
            ..state("lab/door", "closed")
        },
        Publish::state(name("lab/raw"), &b"\x00\xff"[..]),
        state("$own/topic", "1"),
        state("lab/gone", "1"),
        state("lab/gone", ""),
        event("lab/bell", "ding"),
        state("chat/room", "a"),
        state("chat/room", "b"),
        state("chat/room", "c"),
        state("chat/room", "d"),
        state("clicks/main/k/status", "online"),
        event("clicks/main/k/press", r#"{"color":"red","n":2,"id":"x"}"#),
        event("clicks/main/k/press", r#"{"color":"blue","id":"y"}"#),
        event("clicks/lobby/j/press", "blue 3"),
    ] {
        now += 1;
        clock.set(now);
        bus.publish(publish).await.unwrap();
    }
    for boot in 1..=12 {
        let topic = format!("clicks/main/k/count/{boot}-0badcafe");
        bus.publish(state(&topic, r#"{"red":10,"blue":1}"#))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn everything_comes_back_in_an_empty_directory() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let clock = Clock::manual(NOW);
    let source = open_in(from.path(), &clock);
    fill(&source, &clock).await;
    let records = export(&source).await;
    let topics = records.iter().filter_map(|record| match record {
        Record::Value(value) => Some(value.topic.as_str()),
        _ => None,
    });
    let topics: Vec<_> = topics.collect();
    let plain = ["lab/temp", "lab/door", "lab/raw", "$own/topic"];
    assert_eq!(topics[..4], plain);
    assert_eq!(
        topics[4..8],
        [
            "chat/room",
            "chat/room",
            "chat/room",
            "clicks/main/k/status"
        ]
    );
    // The hub has folded the first four boots.
    assert_eq!(device_of(&records).device, "j");
    assert_eq!(topics.len(), 8 + 8);

    let target = open_in(to.path(), &clock);
    import_all(&target, &records).await;
    let total = total(&source);
    assert_eq!(total.as_deref(), Some(r#"{"red":122,"blue":13}"#));
    for bus in [&source, &target] {
        assert_eq!(last(bus, "clicks/main/values"), total);
        assert_eq!(
            last(bus, "clicks/main/k/floor").as_deref(),
            Some(r#"{"floor":4,"red":40,"blue":4}"#)
        );
        assert_eq!(
            last(bus, "clicks/main/k/pressed").as_deref(),
            Some(r#"{"red":2,"blue":1}"#)
        );
    }
    let expected = without_revisions(records.clone());
    assert_eq!(without_revisions(export(&target).await), expected);

    // Once more changes nothing, and what is on disk is the same.
    let revision = target.read(|hub| hub.revision());
    import_all(&target, &records).await;
    assert_eq!(target.read(|hub| hub.revision()), revision);
    target.close().await;
    drop(target);
    let again = open_in(to.path(), &clock);
    assert_eq!(without_revisions(export(&again).await), expected);
    // A press that was counted there is not counted here.
    let repeated = event("clicks/main/k/press", r#"{"color":"red","n":2,"id":"x"}"#);
    again.publish(repeated).await.unwrap();
    assert_eq!(last(&again, "clicks/main/values"), total);
}

#[tokio::test]
async fn a_value_takes_the_place_of_an_older_one_alone() {
    let clock = Clock::manual(NOW);
    let bus = Bus::open(options(&clock)).unwrap();
    bus.publish(state("a", "mine")).await.unwrap();
    import(&bus, Record::Value(value("a", "older", NOW - 1)))
        .await
        .unwrap();
    assert_eq!(last(&bus, "a").as_deref(), Some("mine"));
    import(&bus, Record::Value(value("a", "newer", NOW + 5)))
        .await
        .unwrap();
    let newer = bus.last(TopicName::parse("a").unwrap()).unwrap();
    assert_eq!(
        (&newer.payload.bytes()[..], newer.at),
        (&b"newer"[..], NOW + 5)
    );
    assert_eq!(newer.payload.qos(), 1);

    // A topic without a rule keeps as many as it did where it comes from, until the next publish.
    for (payload, at) in [("1", 1), ("2", 2), ("3", 2)] {
        let kept = Kept {
            history: 3,
            ..value("b", payload, at)
        };
        import(&bus, Record::Value(kept)).await.unwrap();
    }
    let b = TopicName::parse("b").unwrap();
    assert_eq!(bus.read(|hub| hub.values_kept(b)), 3);
    bus.publish(state("b", "4")).await.unwrap();
    assert_eq!(bus.read(|hub| hub.values_kept(b)), 1);

    let over = Kept {
        expires_at: NonZeroU64::new(NOW),
        ..value("c", "1", 1)
    };
    import(&bus, Record::Value(over)).await.unwrap();
    assert_eq!(last(&bus, "c"), None);
}

#[tokio::test]
async fn no_count_falls_whatever_was_folded_where() {
    let clock = Clock::manual(NOW);
    // The backup knows what the disk has lost; the device has gone on with its boots meanwhile.
    let bus = Bus::open(options(&clock)).unwrap();
    for (boot, red) in [(50, 7), (59, 5)] {
        let topic = format!("clicks/main/k/count/{boot}-00000001");
        let count = state(&topic, format!(r#"{{"red":{red},"blue":0}}"#));
        bus.publish(count).await.unwrap();
    }
    assert_eq!(total(&bus).as_deref(), Some(r#"{"red":12,"blue":0}"#));
    let backup = ledger(38, 1_000, &[("39-00000001", 100), ("50-00000001", 3)]);
    for _ in 0..2 {
        let backup = device(backup.clone(), Ledger::default());
        import(&bus, backup).await.unwrap();
        // 1,103 up to the floor 51, of which this hub knew 7, and the 5 above it.
        assert_eq!(total(&bus).as_deref(), Some(r#"{"red":1108,"blue":0}"#));
    }
    // The other way round: what is folded there stands above the boots that are live here.
    let backup = ledger(60, 2_000, &[("61-00000001", 1)]);
    import(&bus, device(backup, Ledger::default()))
        .await
        .unwrap();
    assert_eq!(total(&bus).as_deref(), Some(r#"{"red":2001,"blue":0}"#));
    let topic = TopicName::parse("clicks/main/k/count/59-00000001").unwrap();
    assert!(bus.last(topic).is_none(), "it was folded");
    let records = export(&bus).await;
    assert_eq!(
        device_of(&records).counts,
        ledger(60, 2_000, &[("61-00000001", 1)])
    );
}

#[tokio::test]
async fn presses_go_on_above_what_an_older_hub_has_folded() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let press = || event("clicks/main/k/press", "red");
    let bus = open_in(directory.path(), &clock);
    bus.publish(press()).await.unwrap();
    let pressed = ledger(32, 500, &[("40-00000007", 9)]);
    import(&bus, device(Ledger::default(), pressed))
        .await
        .unwrap();
    // The larger sum of what was pressed up to start 32: 500 there, 1 here.
    assert_eq!(total(&bus).as_deref(), Some(r#"{"red":509,"blue":0}"#));
    bus.publish(press()).await.unwrap();
    assert_eq!(total(&bus).as_deref(), Some(r#"{"red":510,"blue":0}"#));
    bus.close().await;
    drop(bus);
    let bus = open_in(directory.path(), &clock);
    bus.publish(press()).await.unwrap();
    assert_eq!(total(&bus).as_deref(), Some(r#"{"red":511,"blue":0}"#));
}

#[tokio::test]
async fn what_no_hub_has_written_is_refused() {
    let bus = open();
    for topic in [
        "clicks/main/values",
        "$SYS/broker/uptime",
        "clicks/main/k/floor",
    ] {
        let refused = import(&bus, Record::Value(value(topic, "1", 1))).await;
        assert!(
            matches!(refused, Err(PublishRefused::NotAllowed(..))),
            "{topic}"
        );
    }
    for (topic, payload) in [
        ("clicks/main/k/count/x", "{}"),
        ("clicks/main/k/count/1-0badcafe", "{}"),
        ("clicks/main/k/press", "red"),
        ("a", ""),
    ] {
        let refused = import(&bus, Record::Value(value(topic, payload, 1))).await;
        assert!(
            matches!(refused, Err(PublishRefused::Malformed { .. })),
            "{topic}"
        );
    }
    let named = |room: &str, id: &str| {
        Record::Device(DeviceClicks {
            room: room.into(),
            device: "k".into(),
            counts: Ledger::default(),
            pressed: Ledger::default(),
            press_ids: vec![id.into()],
            removed: false,
        })
    };
    for record in [
        named("a b", "x"),
        named("main", ""),
        named("main", &"x".repeat(65)),
    ] {
        let refused = import(&bus, record).await;
        assert!(matches!(refused, Err(PublishRefused::Malformed { .. })));
    }
    let parts = |floor, names: &[&str]| {
        let live = names
            .iter()
            .map(|name| (run(name), Counter::ZERO))
            .collect();
        let base = Counter::ZERO;
        Ledger::new(FloorRecord { floor, base }, live)
    };
    assert!(parts(2, &["3-00000001", "3-00000002"]).is_ok());
    for (floor, names) in [(3, &["3-00000001"][..]), (0, &["2-00000001", "1-00000001"])] {
        assert!(parts(floor, names).is_err());
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn what_is_not_on_disk_is_in_no_export() {
    use futures_util::FutureExt as _;
    use latchbus_bus::simulation::{self, Disk, Memory};

    let clock = Clock::manual(NOW);
    let memory = Memory::default();
    let (bus, mut commits) = simulation::open(options(&clock), Disk::memory(&memory)).unwrap();
    let client = bus.client(Principal::process()).unwrap();
    let count = |red: u64| {
        let count = format!(r#"{{"red":{red},"blue":0}}"#);
        state("clicks/main/k/count/1-0badcafe", count)
    };
    let first = client.enqueue(count(1)).await;
    assert!(commits.begin());
    // It is merged, and not on disk. The next one comes behind it.
    let mut export = core::pin::pin!(client.export());
    assert!(export.as_mut().now_or_never().is_none());
    commits.commit().unwrap();
    commits.finish();
    first.await.unwrap();
    assert!(export.as_mut().now_or_never().is_none());
    let second = client.enqueue(count(2)).await;
    assert!(commits.turn().unwrap());
    second.await.unwrap();
    let records: Vec<_> = export.await.unwrap().collect();
    // What was published in its batch is in it, whole: the value and the count agree.
    let counts = &device_of(&records).counts;
    assert_eq!(counts, &ledger(0, 0, &[("1-0badcafe", 2)]));
    let Record::Value(value) = &records[0] else {
        panic!("{records:?}");
    };
    assert_eq!(value.payload, &br#"{"red":2,"blue":0}"#[..]);

    // The disk is gone for good: nobody waits for ever.
    let (last, _receipt) = (client.export(), client.enqueue(count(3)).await);
    let mut last = core::pin::pin!(last);
    assert!(last.as_mut().now_or_never().is_none());
    drop(commits);
    assert!(last.await.is_err());
}

/// Everybody may publish but to `secret/#`.
struct NoSecrets;

impl Authorizer for NoSecrets {
    fn authorize_publish(&self, _: &Principal, publish: &PublishRequest<'_>) -> bool {
        !publish.topic.as_str().starts_with("secret/")
    }
}

#[tokio::test]
async fn an_import_is_asked_for_as_a_publish_is_and_a_reset_is_an_administrators() {
    let bus = Bus::open(Options {
        authorizer: Arc::new(NoSecrets),
        ..options(&Clock::manual(NOW))
    })
    .unwrap();
    let mut guest = Principal::anonymous("http");
    guest.identity = Identity::Guest;
    let [anna, guest] = [Principal::user("anna".into(), "http"), guest]
        .map(|principal| bus.client(principal).unwrap());
    let one = |topic| Record::Value(value(topic, "1", NOW));
    let zeroed = ledger(0, 0, &[("1-0000000a", 5)])
        .with_zero(1, &[(run("1-0000000a"), Counter::new(3, 0))])
        .unwrap();
    let reset = device(zeroed, Ledger::default());
    for (client, record, is_allowed) in [
        (&anna, one("open/a"), true),
        (&anna, one("secret/a"), false),
        (&anna, reset.clone(), false),
        (&guest, one("open/b"), false),
    ] {
        let imported = client.import(record.clone()).await.await;
        assert_eq!(imported.is_ok(), is_allowed, "{record:?}: {imported:?}");
        if let Err(refused) = imported {
            assert!(
                matches!(refused, PublishRefused::NotAllowed(..)),
                "{refused}"
            );
        }
    }
    for topic in ["secret/a", "open/b"] {
        assert_eq!(last(&bus, topic), None);
    }
    let operation = Operate::ResetRoom {
        room: "main".into(),
        counts: Counter::ZERO,
    };
    let operated = anna.operate(operation).await;
    assert_eq!(operated, Err(OperationError::NotAllowed));
    // Who has still to sign in is told so.
    let refused = guest.publish(state("open/c", "1")).await.unwrap_err();
    assert_eq!(refused, PublishRefused::SignInRequired);
    import(&bus, reset).await.unwrap();
    assert_eq!(
        last(&bus, "clicks/main/values").unwrap(),
        r#"{"red":2,"blue":0}"#
    );
}
