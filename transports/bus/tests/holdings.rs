//! What one user may hold of what is retained.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and their helpers are a part of them"
)]

mod support;

use core::net::IpAddr;
use core::num::NonZeroU64;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use latchbus_bus::backup::{Kept, Record};
use latchbus_bus::simulation::{self, Commits, Disk, Memory};
use latchbus_bus::{
    Authorizer, Bus, Client, Clock, HistoryRule, Holder, Identity, Operate, Options, Principal,
    Properties, Publish, PublishRefused, Quotas, Receipt, StoreKind,
};
use latchbus_core::wire::ErrorCode;
use proptest::prelude::*;
use support::{LIMITS, event, filter, last, name, state};

const NOW: u64 = 1_700_000_000_000;
const TOPICS: usize = 3;
const BYTES: usize = 40;

/// Everybody may do everything; only the process is an administrator.
struct Everyone;

impl Authorizer for Everyone {}

fn options(clock: &Clock, (topics, bytes): (Option<usize>, Option<usize>)) -> Options {
    Options {
        limits: LIMITS,
        sys_every: None,
        clock: clock.clone(),
        seed: Some(7),
        authorizer: Arc::new(Everyone),
        history: vec![HistoryRule {
            filter: filter("h/#"),
            keep: 3,
        }],
        quotas: Quotas {
            user_retained_topics: topics,
            user_retained_bytes: bytes,
            ..Quotas::default()
        },
        ..Options::default()
    }
}

fn open(topics: Option<usize>, bytes: Option<usize>) -> Bus {
    Bus::open(options(&Clock::manual(NOW), (topics, bytes))).unwrap()
}

fn open_in(directory: &std::path::Path, topics: Option<usize>) -> Bus {
    let options = options(&Clock::manual(NOW), (topics, None));
    let store = StoreKind::Directory(directory.to_owned());
    Bus::open(Options { store, ..options }).unwrap()
}

fn user(bus: &Bus, user: &str, transport: &'static str) -> Client {
    let principal = Principal::user(user.to_owned(), transport);
    bus.client(principal).unwrap()
}

fn anonymous(bus: &Bus, address: &str) -> Client {
    let address: IpAddr = address.parse().unwrap();
    let principal = Principal::anonymous("ws").with_address(Some((address, 9).into()));
    bus.client(principal).unwrap()
}

fn process(bus: &Bus) -> Client {
    bus.client(Principal::process()).unwrap()
}

fn held(bus: &Bus) -> BTreeMap<String, (i64, i64)> {
    let all = simulation::holdings(bus).into_iter();
    all.map(|(holder, topics, bytes)| {
        let name = match holder {
            Holder::User(name) => name,
            Holder::Address(address) => address.to_string(),
        };
        (name, (topics, bytes))
    })
    .collect()
}

fn is_topics(refused: &PublishRefused, at: usize) -> bool {
    matches!(refused, PublishRefused::UserTopicsFull { limit } if *limit == at)
}

#[tokio::test]
async fn a_user_holds_so_many_topics_over_all_connections() {
    let bus = open(Some(2), None);
    let [ws, mqtt, bea] = [("anna", "ws"), ("anna", "mqtt"), ("bea", "ws")]
        .map(|(name, transport)| user(&bus, name, transport));
    ws.publish(state("a", "1")).await.unwrap();
    mqtt.publish(state("b", "1")).await.unwrap();
    for client in [&ws, &mqtt] {
        let refused = client.publish(state("c", "1")).await.unwrap_err();
        assert!(is_topics(&refused, 2), "{refused}");
        assert_eq!(refused.code(), ErrorCode::Full);
        assert_eq!(refused.setting(), Some("limits.user_retained_topics"));
        assert!(refused.to_string().contains(refused.setting().unwrap()));
        assert!(refused.is_full() && !refused.is_too_large());
    }
    assert_eq!(last(&bus, "c"), None);
    assert_eq!(bus.metrics().publishes_over_quota.get(), 2);
    assert_eq!(bus.metrics().publishes_dropped.get(), 2);
    // What is there may change, and an event is not retained.
    mqtt.publish(state("a", "2")).await.unwrap();
    ws.publish(event("c", "1")).await.unwrap();
    // Who replaces a value becomes its holder.
    bea.publish(state("a", "3")).await.unwrap();
    ws.publish(state("c", "1")).await.unwrap();
    let refused = ws.publish(state("a", "4")).await.unwrap_err();
    assert!(is_topics(&refused, 2), "{refused}");
    // Whoever clears it gives it back to its holder.
    bea.publish(state("b", "")).await.unwrap();
    ws.publish(state("a", "4")).await.unwrap();
    assert_eq!(held(&bus)["anna"].0, 2);
    assert!(!held(&bus).contains_key("bea"));
}

#[tokio::test]
async fn a_user_holds_so_many_bytes() {
    let bus = open(None, Some(10));
    let anna = user(&bus, "anna", "ws");
    anna.publish(state("a", "x".repeat(6))).await.unwrap();
    anna.publish(state("b", "x".repeat(4))).await.unwrap();
    let refused = anna.publish(state("a", "x".repeat(7))).await.unwrap_err();
    assert_eq!(refused, PublishRefused::UserBytesFull { limit: 10 });
    assert_eq!(refused.setting(), Some("limits.user_retained_bytes"));
    assert!(refused.to_string().contains(refused.setting().unwrap()));
    anna.publish(state("a", "x".repeat(5))).await.unwrap();
    // What goes with a payload takes room too.
    let properties = Arc::new(Properties {
        content_type: Some("text".into()),
        ..Properties::default()
    });
    let publish = Publish {
        properties: Some(properties),
        ..state("b", "x")
    };
    let refused = anna.publish(publish).await.unwrap_err();
    assert_eq!(refused, PublishRefused::UserBytesFull { limit: 10 });
    assert_eq!(last(&bus, "b").unwrap(), "xxxx");
    // A history holds all of its values.
    let bea = user(&bus, "bea", "ws");
    for _ in 0..3 {
        bea.publish(state("h/a", "xxx")).await.unwrap();
    }
    bea.publish(state("h/a", "xxxx")).await.unwrap();
    let refused = bea.publish(state("h/a", "xxxx")).await.unwrap_err();
    assert_eq!(refused, PublishRefused::UserBytesFull { limit: 10 });
    assert_eq!(held(&bus)["bea"], (1, 10));
}

#[tokio::test]
async fn who_has_no_name_counts_by_address_and_the_process_does_not() {
    let bus = open(Some(1), None);
    let one = anonymous(&bus, "2001:db8::1");
    one.publish(state("a", "1")).await.unwrap();
    // The same network, and an IPv4 address in the form of IPv6.
    let same = anonymous(&bus, "2001:db8::ffff:2");
    assert!(is_topics(
        &same.publish(state("b", "1")).await.unwrap_err(),
        1
    ));
    let mapped = anonymous(&bus, "::ffff:192.0.2.1");
    mapped.publish(state("b", "1")).await.unwrap();
    let v4 = anonymous(&bus, "192.0.2.1");
    assert!(is_topics(
        &v4.publish(state("c", "1")).await.unwrap_err(),
        1
    ));
    // A token or a certificate of the same name is the same user.
    let subject = |identity| {
        let mut principal = Principal::anonymous("ws");
        principal.identity = identity;
        bus.client(principal).unwrap()
    };
    let token = Identity::Token {
        subject: "anna".into(),
    };
    let certificate = Identity::Certificate {
        subject: "anna".into(),
    };
    let token = subject(token);
    token.publish(state("d", "1")).await.unwrap();
    let certificate = subject(certificate);
    let refused = certificate.publish(state("e", "1")).await.unwrap_err();
    assert!(is_topics(&refused, 1), "{refused}");
    for n in 0..5 {
        bus.publish(state(&format!("p/{n}"), "1")).await.unwrap();
    }
    // A will is one of its user's messages.
    let will = token.enqueue_will(state("will", "gone")).await.await;
    assert!(is_topics(&will.unwrap_err(), 1));
}

#[tokio::test]
async fn a_device_holds_its_topics_until_it_is_removed() {
    let bus = open(Some(2), None);
    let anna = user(&bus, "anna", "mqtt");
    let count = |device: &str, run: &str, red: u64| {
        state(
            &format!("clicks/main/{device}/count/{run}"),
            format!(r#"{{"red":{red},"blue":0}}"#),
        )
    };
    anna.publish(count("k", "1-0000beef", 1)).await.unwrap();
    anna.publish(state("clicks/main/k/status", "online"))
        .await
        .unwrap();
    let refused = anna.publish(count("j", "1-0000beef", 7)).await.unwrap_err();
    assert!(is_topics(&refused, 2), "{refused}");
    // Refused, it was not counted.
    assert_eq!(
        last(&bus, "clicks/main/values").unwrap(),
        r#"{"red":1,"blue":0}"#
    );
    // A press is the hub's to show.
    anna.publish(state("clicks/main/p/press", "blue"))
        .await
        .unwrap();
    anna.publish(count("k", "1-0000beef", 2)).await.unwrap();
    assert_eq!(held(&bus)["anna"].0, 2);
    let remove = Operate::RemoveDevice {
        room: "main".into(),
        device: "k".into(),
    };
    process(&bus).operate(remove).await.unwrap();
    assert_eq!(held(&bus), BTreeMap::new());
    anna.publish(count("j", "1-0000beef", 7)).await.unwrap();
}

#[tokio::test]
async fn it_is_known_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    // Values of before belong to nobody.
    let bus = open_in(directory.path(), None);
    let anna = user(&bus, "anna", "ws");
    anna.publish(state("old", "1")).await.unwrap();
    bus.close().await;
    let bus = open_in(directory.path(), Some(2));
    let anna = user(&bus, "anna", "ws");
    assert_eq!(held(&bus), BTreeMap::new());
    anna.publish(state("a", "1")).await.unwrap();
    anonymous(&bus, "192.0.2.1")
        .publish(state("b", "22"))
        .await
        .unwrap();
    bus.close().await;
    let bus = open_in(directory.path(), Some(2));
    let expected = [
        ("192.0.2.1".to_owned(), (1, 2)),
        ("anna".to_owned(), (1, 1)),
    ];
    assert_eq!(held(&bus), BTreeMap::from(expected.clone()));
    let anna = user(&bus, "anna", "ws");
    anna.publish(state("old", "2")).await.unwrap();
    assert!(is_topics(
        &anna.publish(state("b", "1")).await.unwrap_err(),
        2
    ));
    bus.close().await;
    // A limit that is lower now takes nothing away, and lets nothing grow.
    let bus = open_in(directory.path(), Some(1));
    let anna = user(&bus, "anna", "ws");
    anna.publish(state("a", "2")).await.unwrap();
    assert!(is_topics(
        &anna.publish(state("c", "1")).await.unwrap_err(),
        1
    ));
    anna.publish(state("a", "")).await.unwrap();
    anna.publish(state("old", "")).await.unwrap();
    anna.publish(state("c", "1")).await.unwrap();
    bus.close().await;
    // Nor does one that is off for a while.
    let bus = open_in(directory.path(), None);
    assert_eq!(held(&bus), BTreeMap::new());
    bus.close().await;
    let bus = open_in(directory.path(), Some(1));
    assert_eq!(held(&bus)["anna"], (1, 1));
}

#[tokio::test]
async fn a_backup_says_who_holds_what_to_administrators() {
    let from = open(Some(5), None);
    let anna = user(&from, "anna", "ws");
    for topic in ["a", "b"] {
        anna.publish(state(topic, "1")).await.unwrap();
    }
    from.publish(state("c", "1")).await.unwrap();
    let records: Vec<_> = process(&from).export().await.unwrap().collect();
    let seen_by_anna: Vec<_> = anna.export().await.unwrap().collect();
    let holders = |records: &[Record]| {
        let values = records.iter().filter_map(|record| match record {
            Record::Value(value) => value.holder.as_deref().cloned(),
            _ => None,
        });
        values.collect::<Vec<_>>()
    };
    assert_eq!(
        holders(&records),
        [(); 2].map(|()| Holder::User("anna".into()))
    );
    assert_eq!(holders(&seen_by_anna), []);

    // An administrator gives it back, whatever that is; anybody else holds it themselves.
    let to = open(Some(1), None);
    let (admin, bea) = (process(&to), user(&to, "bea", "http"));
    for record in &records {
        admin.import(record.clone()).await.await.unwrap();
    }
    assert_eq!(held(&to), BTreeMap::from([("anna".into(), (2, 2))]));
    let to = Bus::open(options(&Clock::manual(NOW), (Some(1), None))).unwrap();
    let bea_too = user(&to, "bea", "http");
    drop(bea);
    let mut results = Vec::new();
    for record in records {
        results.push(bea_too.import(record).await.await);
    }
    assert_eq!(held(&to), BTreeMap::from([("bea".into(), (1, 1))]));
    assert!(results[0].is_ok());
    assert!(is_topics(results[1].as_ref().unwrap_err(), 1));
}

/// One who publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Anna,
    /// From elsewhere.
    AnnaToo,
    Bea,
    Somebody,
    Process,
}

impl Who {
    const ALL: [Self; 5] = [
        Self::Anna,
        Self::AnnaToo,
        Self::Bea,
        Self::Somebody,
        Self::Process,
    ];

    const fn holder(self) -> Option<&'static str> {
        match self {
            Self::Anna | Self::AnnaToo => Some("anna"),
            Self::Bea => Some("bea"),
            Self::Somebody => Some("192.0.2.1"),
            Self::Process => None,
        }
    }

    fn client(self, bus: &Bus) -> Client {
        match self {
            Self::Anna => user(bus, "anna", "ws"),
            Self::AnnaToo => user(bus, "anna", "mqtt"),
            Self::Bea => user(bus, "bea", "mqtt"),
            Self::Somebody => anonymous(bus, "192.0.2.1"),
            Self::Process => process(bus),
        }
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Publish {
        who: Who,
        topic: usize,
        bytes: usize,
        /// In seconds.
        lives: Option<u64>,
        retain: bool,
    },
    Clear {
        who: Who,
        topic: usize,
    },
    Import {
        who: Who,
        holder: Who,
        topic: usize,
        bytes: usize,
    },
    /// What was sent is committed together.
    Commit,
    /// So many seconds.
    Pass(u64),
    Restart,
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "h/a", "h/b"];

const fn history(topic: usize) -> usize {
    if topic < 4 { 1 } else { 3 }
}

fn operation() -> impl Strategy<Value = Operation> {
    let who = || prop::sample::select(Who::ALL.to_vec());
    let (topic, bytes) = (0..NAMES.len(), 1..18_usize);
    let lives = prop::option::weighted(0.2, 1..6_u64);
    let publish = (
        who(),
        topic.clone(),
        bytes.clone(),
        lives,
        prop::bool::weighted(0.9),
    );
    prop_oneof![
        12 => publish.prop_map(|(who, topic, bytes, lives, retain)| Operation::Publish { who, topic, bytes, lives, retain }),
        3 => (who(), topic.clone()).prop_map(|(who, topic)| Operation::Clear { who, topic }),
        2 => (who(), who(), topic, bytes).prop_map(|(who, holder, topic, bytes)| Operation::Import { who, holder, topic, bytes }),
        6 => Just(Operation::Commit),
        1 => (1..4_u64).prop_map(Operation::Pass),
        1 => Just(Operation::Restart),
    ]
}

/// Its holder, its bytes and when it expires.
type Held = (Option<&'static str>, usize, Option<u64>);

/// The slow reference: all values of each topic, oldest first.
#[derive(Debug, Default)]
struct Reference(BTreeMap<usize, Vec<Held>>);

impl Reference {
    fn held(&self) -> BTreeMap<String, (i64, i64)> {
        let mut held = BTreeMap::<String, (i64, i64)>::new();
        for values in self.0.values() {
            for (n, (holder, bytes, _)) in values.iter().enumerate() {
                if let Some(holder) = holder {
                    let (topics, sum) = held.entry((*holder).to_owned()).or_default();
                    *sum += *bytes as i64;
                    *topics += i64::from(n + 1 == values.len());
                }
            }
        }
        held
    }

    /// Whether it is accepted; else nothing changes.
    fn publish(&mut self, topic: usize, value: Held, is_bounded: bool) -> bool {
        let of = |held: BTreeMap<String, (i64, i64)>| {
            let holder = value.0.unwrap_or_default();
            held.get(holder).copied().unwrap_or_default()
        };
        let (before, values_before) = (of(self.held()), self.0.get(&topic).cloned());
        let values = self.0.entry(topic).or_default();
        values.push(value);
        while values.len() > history(topic) {
            values.remove(0);
        }
        let after = of(self.held());
        let is_over = |before, after, limit| after > before && after > limit;
        let refused = is_bounded
            && (is_over(before.0, after.0, TOPICS as i64)
                || is_over(before.1, after.1, BYTES as i64));
        if refused {
            match values_before {
                Some(values) => self.0.insert(topic, values),
                None => self.0.remove(&topic),
            };
        }
        !refused
    }

    fn expire(&mut self, now: u64) {
        let lives = |values: &[Held]| {
            let (.., at) = values[values.len() - 1];
            at.is_none_or(|at| at > now)
        };
        self.0.retain(|_, values| lives(values));
    }
}

/// A bus, in memory or on a disk that is.
struct Life {
    bus: Bus,
    commits: Option<Commits>,
    clients: Vec<Client>,
}

fn start(clock: &Clock, memory: Option<&Memory>) -> Life {
    let options = options(clock, (Some(TOPICS), Some(BYTES)));
    let (bus, commits) = match memory {
        None => (Bus::open(options).unwrap(), None),
        Some(memory) => {
            let (bus, commits) = simulation::open(options, Disk::memory(memory)).unwrap();
            (bus, Some(commits))
        }
    };
    let clients = Who::ALL.map(|who| who.client(&bus)).into();
    Life {
        bus,
        commits,
        clients,
    }
}

impl Life {
    fn client(&self, who: Who) -> &Client {
        &self.clients[Who::ALL.iter().position(|other| *other == who).unwrap()]
    }

    fn commit(&mut self) {
        if let Some(commits) = &mut self.commits {
            while commits.turn().unwrap() {}
        }
    }

    /// Until the ends of values have come.
    async fn tick(&mut self) {
        let seconds = tokio::time::sleep(Duration::from_secs(2));
        tokio::pin!(seconds);
        loop {
            match &mut self.commits {
                None => return seconds.await,
                Some(commits) => tokio::select! {
                    biased;
                    more = commits.next() => {
                        assert!(more);
                        commits.turn().unwrap();
                    }
                    () = &mut seconds => return,
                },
            }
        }
    }
}

/// How many publishes were accepted, and how many refused.
async fn check(operations: Vec<Operation>, stored: bool) -> (usize, usize) {
    let (clock, memory) = (Clock::manual(NOW), Memory::default());
    let memory = stored.then_some(&memory);
    let mut life = start(&clock, memory);
    let mut reference = Reference::default();
    let mut sent: Vec<(Receipt, bool, Operation)> = Vec::new();
    // Later than all that is published, and each later than the one before.
    let mut imported_at = NOW + 1_000_000;
    let (mut accepted, mut refused) = (0, 0);
    for operation in operations.into_iter().chain([Operation::Restart]) {
        let now = clock.unix_ms();
        match operation.clone() {
            Operation::Publish {
                who,
                topic,
                bytes,
                lives,
                retain,
            } => {
                let mut publish = state(NAMES[topic], "x".repeat(bytes));
                publish.retain = retain;
                publish.expires_in = lives.map(Duration::from_secs);
                let value = (who.holder(), bytes, lives.map(|lives| now + lives * 1_000));
                let passes = !retain || reference.publish(topic, value, who.holder().is_some());
                let receipt = life.client(who).enqueue(publish).await;
                sent.push((receipt, passes, operation.clone()));
            }
            Operation::Clear { who, topic } => {
                reference.0.remove(&topic);
                let receipt = life.client(who).enqueue(state(NAMES[topic], "")).await;
                sent.push((receipt, true, operation.clone()));
            }
            Operation::Import {
                who,
                holder,
                topic,
                bytes,
            } => {
                // Imports come first in their batch.
                life.commit();
                imported_at += 1;
                let record = Record::Value(Kept {
                    topic: name(NAMES[topic]),
                    payload: "x".repeat(bytes).into(),
                    rev: 1,
                    at: imported_at,
                    qos: 1,
                    expires_at: NonZeroU64::new(0),
                    properties: None,
                    history: 1,
                    holder: holder.holder().map(|name| {
                        Arc::new(match name.parse() {
                            Ok(address) => Holder::Address(address),
                            Err(_) => Holder::User(name.into()),
                        })
                    }),
                });
                let is_admin = who == Who::Process;
                let holder = if is_admin { holder } else { who };
                let value = (holder.holder(), bytes, None);
                let passes = reference.publish(topic, value, !is_admin);
                let receipt = life.client(who).import(record).await;
                life.commit();
                sent.push((receipt, passes, operation.clone()));
            }
            Operation::Commit => life.commit(),
            Operation::Pass(seconds) => {
                life.commit();
                clock.set(now + seconds * 1_000);
                reference.expire(clock.unix_ms());
                life.tick().await;
            }
            Operation::Restart => {
                life.commit();
                if stored {
                    drop(life);
                    life = start(&clock, memory);
                }
            }
        }
        if stored
            && matches!(
                operation,
                Operation::Publish { .. } | Operation::Clear { .. }
            )
        {
            continue;
        }
        for (receipt, passes, operation) in sent.drain(..) {
            let answer = receipt.now_or_never().unwrap();
            assert_eq!(answer.is_ok(), passes, "{operation:?}: {answer:?}");
            accepted += usize::from(passes);
            refused += usize::from(!passes);
        }
        assert_eq!(held(&life.bus), reference.held(), "{operation:?}");
    }
    (accepted, refused)
}

#[tokio::test(start_paused = true)]
async fn what_expires_makes_room_for_what_is_published_in_the_same_batch() {
    let (clock, memory) = (Clock::manual(NOW), Memory::default());
    let mut life = start(&clock, Some(&memory));
    let full = || "x".repeat(BYTES);
    let mut brief = state("a", full());
    brief.expires_in = Some(Duration::from_secs(1));
    let receipt = life.client(Who::Anna).enqueue(brief).await;
    life.commit();
    receipt.now_or_never().unwrap().unwrap();
    clock.set(NOW + 1_000);
    // A tick is queued meanwhile.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let receipt = life.client(Who::Anna).enqueue(state("b", full())).await;
    life.commit();
    receipt.now_or_never().unwrap().unwrap();
    assert_eq!(last(&life.bus, "a"), None);
    assert_eq!(held(&life.bus)["anna"], (1, BYTES as i64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_is_what_a_slow_reference_says(operations in prop::collection::vec(operation(), 1..80), stored in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(operations, stored));
    }
}

#[test]
fn the_reference_refuses_and_accepts() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(operation(), 80);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..8 {
        let operations = strategy.new_tree(&mut runner).unwrap().current();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (more, less) = runtime.block_on(check(operations, true));
        (accepted, refused) = (accepted + more, refused + less);
    }
    // The property above is about both.
    assert!(accepted > 100 && refused > 30, "{accepted} and {refused}");
}
