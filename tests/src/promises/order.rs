//! The order in which messages arrive.

use std::collections::BTreeMap;

use latchbus_core::hub::Mode;

use crate::bench::{Bench, message, modes};
use crate::transport::{Incoming, Peer, Publish, Subscribe, Transport};

const TOPICS: u64 = 5;
const ROUNDS: u64 = 400;

/// Revisions increase over all topics, no topic goes back, and each ends at its newest value; in mode `every`
/// nothing is left out for a reader that keeps up.
pub async fn revisions_increase_and_topics_end_at_their_newest<T: Transport>() {
    for &mode in modes::<T>() {
        let bench = Bench::<T>::new().await;
        let mut reader = bench.peer("reader").await;
        let subscribe = Subscribe {
            mode,
            ..Subscribe::to(1, "order/#")
        };
        bench.snapshot(&mut reader, subscribe, "order/marker").await;

        // One writer over the transport and one inside the process, on the same topics.
        let mut writer = bench.peer("writer").await;
        let mut newest = BTreeMap::new();
        let (mut last_rev, mut seen) = (0, BTreeMap::<String, Vec<u64>>::new());
        for round in 0..ROUNDS {
            let topic = format!("order/{}", round % TOPICS);
            let payload = round.to_string();
            if round % 2 == 0 {
                writer
                    .publish(Publish::state(round + 1, &topic, payload.as_bytes()))
                    .await;
                assert_eq!(
                    crate::bench::recv(&mut writer).await,
                    Incoming::Acked(round + 1)
                );
            } else {
                bench.state(&topic, payload).await;
            }
            newest.insert(topic, round);
            // The reader reads in bursts, and never falls out of the recent ring.
            let to_read = if round % 16 == 15 { 16 } else { 0 };
            for _ in 0..to_read {
                read_one(&mut reader, &mut last_rev, &mut seen, mode).await;
                if is_newest(&seen, &newest) {
                    break;
                }
            }
        }
        while !is_newest(&seen, &newest) {
            read_one(&mut reader, &mut last_rev, &mut seen, mode).await;
        }
        let all: usize = seen.values().map(Vec::len).sum();
        match mode {
            Mode::Every => assert_eq!(all as u64, ROUNDS),
            Mode::Latest | Mode::State => assert!(all as u64 <= ROUNDS),
        }
        bench.close().await;
    }
}

fn is_newest(seen: &BTreeMap<String, Vec<u64>>, newest: &BTreeMap<String, u64>) -> bool {
    let at = |topic| seen.get(topic).and_then(|values: &Vec<u64>| values.last());
    newest.iter().all(|(topic, value)| at(topic) == Some(value))
}

async fn read_one(
    reader: &mut impl Peer,
    last_rev: &mut u64,
    seen: &mut BTreeMap<String, Vec<u64>>,
    mode: Mode,
) {
    let message = message(reader).await;
    if let Some(rev) = message.rev {
        assert!(rev > *last_rev, "revision {rev} after {last_rev}");
        *last_rev = rev;
    }
    let value: u64 = core::str::from_utf8(&message.payload)
        .unwrap()
        .parse()
        .unwrap();
    let values = seen.entry(message.topic.clone()).or_default();
    let after = values.last().is_none_or(|last| value > *last);
    assert!(
        after,
        "mode {mode:?}: {} goes back: {values:?}, {value}",
        message.topic
    );
    values.push(value);
}
