//! The hub on the target against the model on the host: the same operations, the same answers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use fastrand::Rng;
use latchbus_core::hub::{Counts, Cursor, Kind, Mode, Retain, Start, Step};
use latchbus_core::wire::{LINK_CHECKSUM_BYTES, LinkDecoder, max_link_bytes, wrap_link};
use latchbus_tests::DEADLINE;

use crate::board::{Board, Machine, Wire};
use crate::images;
use crate::operations::{Answer, BOUNDS, EPOCH, MAX_BYTES, Operation};
use crate::support::{Driver, Taken, limits, model::Model};

const TOPICS: [&str; 6] = ["a", "a/x", "a/y", "b", "$S", "too/long/topic"];
const FILTERS: [&str; 7] = ["a", "#", "a/#", "+/x", "a/+", "$S", "b"];

/// Seeds, and operations of each.
const SEQUENCES: u64 = 64;
const OPERATIONS: usize = 250;

/// The hub in QEMU.
struct Target {
    link: UnixStream,
    decoder: LinkDecoder<{ MAX_BYTES + LINK_CHECKSUM_BYTES }>,
}

impl Target {
    /// Has the operation done, and compares.
    fn check(&mut self, operation: Operation<'_>, expected: Answer<'_>, seed: u64) {
        let (mut bytes, mut frame) = ([0; MAX_BYTES], [0; max_link_bytes(MAX_BYTES)]);
        let bytes = postcard::to_slice(&operation, &mut bytes).unwrap();
        let frame = wrap_link(&[bytes], &mut frame).unwrap();
        self.link.write_all(frame).unwrap();
        loop {
            let mut byte = [0];
            self.link.read_exact(&mut byte).unwrap();
            if let (Some(message), _) = self.decoder.feed(&byte) {
                let answer: Answer<'_> = postcard::from_bytes(message).unwrap();
                assert_eq!(answer, expected, "{operation:?}, seed {seed}");
                return;
            }
        }
    }
}

/// A subscription: its number on the target, its id in the model, and how far it has come.
struct Subscription {
    number: u8,
    model: usize,
    last: Cursor,
}

fn run(target: &mut Target, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let [places, tombstones, recent, subscriptions, ..] = BOUNDS;
    let mut model = Model::new(EPOCH, limits(places, tombstones, recent, subscriptions));
    let mut live: Vec<Subscription> = Vec::new();
    target.check(Operation::Begin, Answer::Nothing, seed);
    for at in 0..OPERATIONS as u64 {
        match rng.u8(0..20) {
            0..=7 => {
                let topic = TOPICS[rng.usize(..TOPICS.len())];
                let payload = &[at as u8; 8][..rng.usize(..6)];
                let keep = [None, Some(0), Some(1), Some(1), Some(3)][rng.usize(..5)];
                let retain = keep.map_or(Retain::No, Retain::Last);
                let rev = model.publish(topic, payload, retain, at);
                let expected = rev.map_or(Answer::Refused, Answer::Revision);
                let operation = Operation::Publish {
                    topic,
                    payload,
                    keep,
                    at,
                };
                target.check(operation, expected, seed);
                let last = model.last(topic);
                let expected = last
                    .as_ref()
                    .map_or(Answer::Nothing, |last| told(last, false));
                target.check(Operation::Last(topic), expected, seed);
            }
            8..=9 => {
                let topic = TOPICS[rng.usize(..TOPICS.len())];
                let expected = match model.clear(topic, at) {
                    None => Answer::Refused,
                    Some(None) => Answer::Nothing,
                    Some(Some(rev)) => Answer::Revision(rev),
                };
                target.check(Operation::Clear { topic, at }, expected, seed);
            }
            10..=12 => {
                let filter = FILTERS[rng.usize(..FILTERS.len())];
                let start = match rng.u8(0..4) {
                    0 => Err(true),
                    1 => Err(false),
                    2 => Ok(Cursor {
                        epoch: rng.u64(EPOCH - 1..=EPOCH),
                        rev: (model.revision() + 2).saturating_sub(rng.u64(..20)),
                    }),
                    // As one that comes back.
                    _ => match live.len() {
                        0 => Err(false),
                        n => {
                            let gone = live.swap_remove(rng.usize(..n));
                            model.unsubscribe(gone.model);
                            let operation = Operation::Unsubscribe(gone.number);
                            target.check(operation, Answer::Nothing, seed);
                            Ok(gone.last)
                        }
                    },
                };
                subscribe(target, &mut model, &mut live, filter, &mut rng, start, seed);
            }
            _ if live.is_empty() => {}
            13 => {
                let gone = live.swap_remove(rng.usize(..live.len()));
                model.unsubscribe(gone.model);
                target.check(Operation::Unsubscribe(gone.number), Answer::Nothing, seed);
            }
            14 => {
                let one = &live[rng.usize(..live.len())];
                model.rewind(one.model);
                target.check(Operation::Rewind(one.number), Answer::Nothing, seed);
            }
            _ => {
                let which = rng.usize(..live.len());
                take(target, &mut model, &mut live[which], seed);
            }
        }
    }
    for one in &mut live {
        while take(target, &mut model, one, seed) {}
        let Counts {
            taken,
            conflated,
            skipped,
        } = model.counts(one.model);
        let expected = Answer::Counts([taken, conflated, skipped]);
        target.check(Operation::Counts(one.number), expected, seed);
    }
}

fn subscribe(
    target: &mut Target,
    model: &mut Model,
    live: &mut Vec<Subscription>,
    filter: &str,
    rng: &mut Rng,
    start: Result<Cursor, bool>,
    seed: u64,
) {
    let mode = match rng.bool() {
        true => Mode::Latest,
        false => Mode::Every,
    };
    let begin = match start {
        Ok(cursor) => Start::Resume(cursor),
        Err(true) => Start::Live,
        Err(false) => Start::Snapshot,
    };
    let operation = Operation::Subscribe {
        filter,
        mode,
        start,
    };
    let Some(id) = model.subscribe(filter, mode, begin) else {
        return target.check(operation, Answer::Refused, seed);
    };
    // The target gives the first number that is free.
    let taken = |number: &u8| live.iter().any(|one| one.number == *number);
    let number = (0..).find(|number| !taken(number)).unwrap();
    target.check(operation, Answer::Subscribed(number), seed);
    live.push(Subscription {
        number,
        model: id,
        last: Cursor {
            epoch: EPOCH,
            rev: 0,
        },
    });
}

/// Takes a step of a subscription; false when it has all there is.
fn take(target: &mut Target, model: &mut Model, one: &mut Subscription, seed: u64) -> bool {
    let step = model.next(one.model);
    let expected = match &step {
        None => Answer::Nothing,
        Some(Step::Reset) => Answer::Reset,
        Some(Step::Gap { missed }) => Answer::Gap(*missed),
        Some(Step::Synced { cursor }) => {
            one.last = *cursor;
            Answer::Synced(*cursor)
        }
        Some(Step::Entry { entry, retained }) => {
            one.last.rev = entry.rev;
            told(entry, *retained)
        }
    };
    target.check(Operation::Next(one.number), expected, seed);
    step.is_some()
}

fn told(entry: &Taken, retained: bool) -> Answer<'_> {
    Answer::Entry {
        rev: entry.rev,
        at: entry.at,
        kind: match entry.kind {
            Kind::State => 0,
            Kind::Event => 1,
            Kind::Cleared => 2,
        },
        topic: &entry.topic,
        payload: &entry.payload,
        retained,
    }
}

async fn agrees(machine: Machine, image: &str) {
    let Some(images) = images::build().await else {
        return;
    };
    let Some(mut board) = Board::start(machine, &images[image].path, Wire::Link).await else {
        return;
    };
    let link = board.link().into_std().unwrap();
    link.set_nonblocking(false).unwrap();
    link.set_read_timeout(Some(DEADLINE)).unwrap();
    let decoder = LinkDecoder::new();
    let mut target = Target { link, decoder };
    let sequences = tokio::task::spawn_blocking(move || {
        for seed in 0..SEQUENCES {
            run(&mut target, seed);
        }
    });
    sequences.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_on_a_cortex_m0_does_what_the_model_does() {
    agrees(Machine::Microbit, "hub-model-m0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_on_a_cortex_m3_does_what_the_model_does() {
    agrees(Machine::Mps2, "hub-model-m3").await;
}
