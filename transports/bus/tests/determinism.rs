//! One log, one hub: a bus that is started from what is stored agrees in every revision with the one that has stored it,
//! whenever the start is.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;

use fastrand::Rng;
use latchbus_bus::simulation::{self, Commits, Disk, Memory};
use latchbus_bus::{Bus, Client, Clock, HistoryRule, Operate, Options, Principal, Publish};
use latchbus_core::clicks::{ClickTopic, Counter};
use support::*;

/// Unless `LATCHBUS_CASES` says otherwise.
const CASES: u64 = 200;
const OPERATIONS: usize = 60;

/// Every retained value by topic and revision: its time and payload. Without what each life begins anew.
type Retained = BTreeMap<(String, u64), (u64, Vec<u8>)>;

struct Life {
    bus: Bus,
    commits: Commits,
    clients: [Client; 2],
}

fn start(memory: &Memory) -> Life {
    let options = Options {
        limits: LIMITS,
        sys_every: None,
        clock: Clock::manual(1_000),
        seed: Some(7),
        history: vec![HistoryRule {
            filter: filter("h/#"),
            keep: 3,
        }],
        ..Options::default()
    };
    let (bus, commits) = simulation::open(options, Disk::memory(memory)).unwrap();
    let clients = [(); 2].map(|()| bus.client(Principal::process()).unwrap());
    Life {
        bus,
        commits,
        clients,
    }
}

fn retained(bus: &Bus) -> Retained {
    let all = bus.kept(filter("#").borrowed());
    let is_stored = |topic: &str| {
        let topic = ClickTopic::parse(topic).unwrap();
        !matches!(
            topic,
            Some(ClickTopic::Rate { .. } | ClickTopic::Trouble { .. })
        )
    };
    all.into_iter()
        .filter(|entry| is_stored(entry.topic.as_str()))
        .map(|entry| {
            let key = (entry.topic.as_str().to_owned(), entry.rev);
            (key, (entry.at, entry.payload.bytes().to_vec()))
        })
        .collect()
}

fn operation(rng: &mut Rng) -> Publish {
    let n = rng.u8(..4);
    let (red, blue) = (rng.u8(..9), rng.u8(..9));
    let mut publish = match rng.u8(..10) {
        0..3 => state(&format!("t/{n}"), rng.u8(..3).to_string()),
        3 => state(&format!("h/{n}"), rng.u8(..).to_string()),
        4 => state(&format!("{}/{n}", ["t", "h"][rng.usize(..2)]), ""),
        5 => event(&format!("t/{n}"), "e"),
        6..8 => state(
            &format!("clicks/main/d{n}/count/{}-0000beef", rng.u8(1..90)),
            format!(r#"{{"red":{red},"blue":{blue}}}"#),
        ),
        8 => event(
            &format!("clicks/main/d{n}/press"),
            format!(r#"{{"color":"blue","n":1,"id":"{red}"}}"#),
        ),
        _ => event("clicks/main/d/press", "no such color"),
    };
    publish.qos = rng.u8(..3);
    publish
}

/// What an administrator may do; of ids those that were made, and others.
fn operate(rng: &mut Rng) -> Operate {
    let room = "main".to_owned();
    let red = rng.u64(..9);
    match rng.u8(..4) {
        0 => Operate::ResetRoom {
            room,
            counts: Counter::new(red, 0),
        },
        1..3 => Operate::RemoveDevice {
            room,
            device: format!("d{}", rng.u8(..4)),
        },
        // The clock stands, so ids follow one another.
        _ => Operate::Undo {
            id: 1_000 + rng.u64(..12),
        },
    }
}

/// The number of operations that were made.
async fn case(seed: u64) -> usize {
    let mut rng = Rng::with_seed(seed);
    let memory = Memory::default();
    let mut life = start(&memory);
    let (mut waiting, mut operations) = (Vec::new(), Vec::new());
    for _ in 0..OPERATIONS {
        match rng.u8(..9) {
            8 => {
                let (client, operate) = (life.clients[0].clone(), operate(&mut rng));
                operations.push(tokio::spawn(async move {
                    client.operate(operate).await.is_ok()
                }));
                tokio::task::yield_now().await;
            }
            0..5 => {
                let client = &life.clients[rng.usize(..2)];
                waiting.push(client.enqueue(operation(&mut rng)).await);
            }
            5 => {
                life.commits.begin();
                life.commits.commit().unwrap();
                // Between the commit and what is shown of it.
                let crashed = rng.bool().then(|| memory.copy());
                if rng.bool() {
                    let other = event("o", "overtakes nothing");
                    waiting.push(life.clients[1].enqueue(other).await);
                }
                life.commits.finish();
                if let Some(crashed) = crashed {
                    let restarted = start(&crashed);
                    assert_eq!(retained(&restarted.bus), retained(&life.bus), "seed {seed}");
                }
            }
            6 => tokio::time::advance(core::time::Duration::from_secs(1)).await,
            7.. => {
                while life.commits.turn().unwrap() {}
                let [first, second] = [(); 2].map(|()| retained(&start(&memory.copy()).bus));
                assert_eq!(first, second, "seed {seed}");
                assert_eq!(first, retained(&life.bus), "seed {seed}");
                if rng.bool() {
                    // It goes on from there.
                    drop(life);
                    life = start(&memory);
                }
            }
        }
    }
    let mut made = 0;
    for operation in operations {
        if operation.is_finished() {
            made += usize::from(operation.await.unwrap());
        }
    }
    made
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_restarted_at_any_point_agrees_with_one_that_is_not() {
    let cases = std::env::var("LATCHBUS_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let mut made = 0;
    for seed in 0..cases {
        made += case(seed).await;
    }
    assert!(made as u64 > cases, "{made} operations in {cases} cases");
}
