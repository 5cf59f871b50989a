//! A publish and its take by every subscriber, in one process and one thread: the hub and the bus beside tokio's
//! `watch` and `broadcast` and embassy-sync's `Watch`, with 1, 8, 64 and 1,000 subscribers; and what filters and
//! topics cost. `cargo bench -p latchbus-benches`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here is a wrong benchmark"
)]

use core::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::watch::Watch;
use futures_util::{FutureExt as _, StreamExt as _};
use latchbus_bus::{Bus, Options, Publish};
use latchbus_core::hub::{FixedHub, Hub, Limits, Mode, Retain, Start};
use latchbus_core::topic::{TopicFilter, TopicName};
use tokio::sync::{broadcast, watch};

const SUBSCRIBERS: [usize; 4] = [1, 8, 64, 1_000];

/// What is published to the others: as large as a message of the scenarios.
type Message = [u8; 40];

fn topic() -> TopicName<&'static str> {
    TopicName::parse("lab/temp").unwrap()
}

fn filter() -> TopicFilter<&'static str> {
    TopicFilter::parse("lab/+").unwrap()
}

fn publish_and_take(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish and take");
    for n in SUBSCRIBERS {
        group.bench_function(BenchmarkId::new("hub", n), |b| {
            let mut hub: Hub<Bytes> = Hub::new(1, Limits::default());
            let ids: Vec<_> = (0..n)
                .map(|_| hub.subscribe(filter(), Mode::Latest, Start::Live).unwrap())
                .collect();
            // That it is live.
            for id in &ids {
                while hub.next(*id).unwrap().is_some() {}
            }
            b.iter(|| {
                let payload = Bytes::from_static(&[7; 40]);
                hub.publish(topic(), payload, Retain::LAST, 0).unwrap();
                for id in &ids {
                    black_box(hub.next(*id).unwrap().unwrap());
                }
            });
        });
        group.bench_function(BenchmarkId::new("bus", n), |b| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let _inside = runtime.enter();
            let bus = Bus::open(Options::default()).unwrap();
            let mut streams: Vec<_> = (0..n)
                .map(|_| bus.subscribe(filter(), Mode::Latest, Start::Live).unwrap())
                .collect();
            for stream in &mut streams {
                while stream.next().now_or_never().is_some() {}
            }
            b.iter(|| {
                let publish =
                    Publish::state(topic().map(str::to_owned), Bytes::from_static(&[7; 40]));
                bus.publish(publish).now_or_never().unwrap().unwrap();
                for stream in &mut streams {
                    black_box(stream.next().now_or_never().unwrap());
                }
            });
        });
        group.bench_function(BenchmarkId::new("tokio watch", n), |b| {
            let (sender, receiver) = watch::channel::<Message>([0; 40]);
            let mut receivers = vec![receiver; n];
            b.iter(|| {
                sender.send_replace([7; 40]);
                for receiver in &mut receivers {
                    if receiver.has_changed().unwrap() {
                        black_box(*receiver.borrow_and_update());
                    }
                }
            });
        });
        group.bench_function(BenchmarkId::new("tokio broadcast", n), |b| {
            let (sender, _) = broadcast::channel::<Message>(64);
            let mut receivers: Vec<_> = (0..n).map(|_| sender.subscribe()).collect();
            b.iter(|| {
                sender.send([7; 40]).unwrap();
                for receiver in &mut receivers {
                    black_box(receiver.try_recv().unwrap());
                }
            });
        });
    }
    fixed::<1>(&mut group);
    fixed::<8>(&mut group);
    embassy::<1>(&mut group);
    embassy::<8>(&mut group);
    embassy::<64>(&mut group);
    embassy::<1_000>(&mut group);
    group.finish();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn fixed<const N: usize>(group: &mut Group<'_>) {
    group.bench_function(BenchmarkId::new("hub of a microcontroller", N), |b| {
        let mut hub: FixedHub<8, 4, 8, N, 32, 40> = FixedHub::new(1);
        let ids = [(); N].map(|()| hub.subscribe(filter(), Mode::Latest, Start::Live).unwrap());
        for id in ids {
            while hub.next(id).unwrap().is_some() {}
        }
        b.iter(|| {
            hub.publish(topic(), &[7; 40], Retain::LAST, 0).unwrap();
            for id in ids {
                black_box(hub.next(id).unwrap().unwrap());
            }
        });
    });
}

fn embassy<const N: usize>(group: &mut Group<'_>) {
    group.bench_function(BenchmarkId::new("embassy Watch", N), |b| {
        let watch: Watch<CriticalSectionRawMutex, Message, N> = Watch::new();
        let sender = watch.sender();
        let mut receivers: Vec<_> = (0..N).map(|_| watch.receiver().unwrap()).collect();
        b.iter(|| {
            sender.send([7; 40]);
            for receiver in &mut receivers {
                black_box(receiver.try_changed().unwrap());
            }
        });
    });
}

/// A publish beside filters that do not match it, and among many topics.
fn surroundings(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish");
    for filters in [0, 100, 10_000] {
        group.bench_function(BenchmarkId::new("beside other filters", filters), |b| {
            let mut hub: Hub<Bytes> = Hub::new(1, Limits::default());
            for number in 0..filters {
                let other = format!("elsewhere/{number}/+");
                let other = TopicFilter::parse(other.as_str()).unwrap();
                hub.subscribe(other, Mode::Latest, Start::Live).unwrap();
            }
            b.iter(|| {
                hub.publish(topic(), Bytes::from_static(b"21.5"), Retain::LAST, 0)
                    .unwrap()
            });
        });
    }
    for matching in [1, 10, 100] {
        group.bench_function(BenchmarkId::new("with matching filters", matching), |b| {
            let mut hub: Hub<Bytes> = Hub::new(1, Limits::default());
            for number in 0..matching {
                // As many different filters that match: a, a/+, a/+/+ and so on would not; these do.
                let text: Vec<_> = (0..7)
                    .map(|bit| if number >> bit & 1 == 1 { "+" } else { "a" })
                    .collect();
                let text = text.join("/");
                hub.subscribe(
                    TopicFilter::parse(text.as_str()).unwrap(),
                    Mode::Latest,
                    Start::Live,
                )
                .unwrap();
            }
            let topic = TopicName::parse("a/a/a/a/a/a/a").unwrap();
            b.iter(|| {
                hub.publish(topic, Bytes::from_static(b"21.5"), Retain::LAST, 0)
                    .unwrap()
            });
        });
    }
    for topics in [1, 1_000, 100_000] {
        group.bench_function(BenchmarkId::new("among topics", topics), |b| {
            let mut hub: Hub<Bytes> = Hub::new(1, Limits::default());
            let names: Vec<_> = (0..topics).map(|n| format!("site/{n}")).collect();
            let names: Vec<_> = names
                .iter()
                .map(|name| TopicName::parse(name.as_str()).unwrap())
                .collect();
            for name in &names {
                hub.publish(*name, Bytes::from_static(b"21.5"), Retain::LAST, 0)
                    .unwrap();
            }
            let mut place = 0;
            b.iter(|| {
                place = (place + 7_919) % names.len();
                hub.publish(names[place], Bytes::from_static(b"22.0"), Retain::LAST, 0)
                    .unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, publish_and_take, surroundings);
criterion_main!(benches);
