//! A bus whose disk and clock are the test's.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use core::sync::atomic::{AtomicBool, Ordering};
use std::{io, sync::Arc, thread};

use futures_util::FutureExt;
use latchbus_bus::simulation::{self, Disk, Finished, Memory};
use latchbus_bus::{Bus, Clock, Options, Principal, PublishRefused};
use redb::{StorageBackend, backends::InMemoryBackend};
use support::*;

fn options(clock: &Clock) -> Options {
    Options {
        limits: LIMITS,
        clock: clock.clone(),
        seed: Some(7),
        ..Options::default()
    }
}

fn client(bus: &Bus) -> latchbus_bus::Client {
    bus.client(Principal::process()).unwrap()
}

/// The files of a store, which outlive it, on a disk that can be full, or hang.
#[derive(Debug, Clone, Default)]
struct Bytes {
    files: [Arc<InMemoryBackend>; 2],
    /// Which of them this is.
    file: usize,
    full: Arc<AtomicBool>,
    /// While it is set nothing is synchronised.
    held: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
}

impl Bytes {
    fn disk(&self) -> Disk {
        let files = self.clone();
        let open = move |file| {
            Ok(Self {
                file: file as usize,
                ..files.clone()
            })
        };
        Disk::backend(open, 4_096)
    }

    fn bytes(&self) -> &InMemoryBackend {
        &self.files[self.file]
    }
}

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        self.bytes().len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes().read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes().set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        while self.held.load(Ordering::Relaxed) {
            self.hangs.store(true, Ordering::Relaxed);
            thread::yield_now();
        }
        match self.full.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes().write(offset, data)
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_commit_loses_only_what_was_not_answered() {
    for committed in [false, true] {
        let (clock, memory) = (Clock::manual(1_000), Memory::default());
        let (bus, mut commits) = simulation::open(options(&clock), Disk::memory(&memory)).unwrap();
        let receipt = client(&bus).enqueue(state("t", "x")).await;
        assert!(commits.begin());
        if committed {
            commits.commit().unwrap();
        }
        // Nobody has seen it yet.
        assert_eq!(last(&bus, "t"), None);
        drop((bus, commits));
        assert_eq!(receipt.await, Err(PublishRefused::Closed));

        let (bus, _commits) = simulation::open(options(&clock), Disk::memory(&memory)).unwrap();
        assert_eq!(last(&bus, "t").is_some(), committed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_answers_nobody_and_heals() {
    let (clock, bytes) = (Clock::manual(1_000), Bytes::default());
    let (bus, mut commits) = simulation::open(options(&clock), bytes.disk()).unwrap();
    let client = client(&bus);
    let before = client.enqueue(state("a", "1")).await;
    assert!(commits.turn().unwrap());
    before.await.unwrap();

    bytes.full.store(true, Ordering::Relaxed);
    let mut waiting = Box::pin(client.enqueue(state("a", "2")).await);
    assert!(commits.begin());
    for _ in 0..3 {
        commits.commit().unwrap_err();
        assert!(bus.health().is_err());
    }
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_eq!(last(&bus, "a").unwrap(), "1");

    bytes.full.store(false, Ordering::Relaxed);
    commits.commit().unwrap();
    assert_eq!(commits.finish(), Finished::Shown);
    assert_eq!(bus.health(), Ok(()));
    waiting.await.unwrap();
    assert_eq!(last(&bus, "a").unwrap(), "2");
    drop((bus, commits, client));

    let (bus, _commits) = simulation::open(options(&clock), bytes.disk()).unwrap();
    assert_eq!(last(&bus, "a").unwrap(), "2");
}

#[tokio::test(start_paused = true)]
async fn large_payloads_wait_for_memory_and_small_ones_do_not() {
    let clock = Clock::manual(1_000);
    let mut options = options(&clock);
    options.session.incoming_bytes = 100 << 10;
    options.limits.payload_bytes = 1 << 20;
    let (bus, mut commits) = simulation::open(options, Disk::memory(&Memory::default())).unwrap();
    let client = client(&bus);
    let large = || "x".repeat(40 << 10);
    let first = client.enqueue(state("a", large())).await;
    let second = client.enqueue(state("b", large())).await;
    // There is no room for a third until one of them is stored.
    let mut third = Box::pin(async { client.publish(state("c", large())).await });
    assert!(futures_util::poll!(&mut third).is_pending());
    let small = client.enqueue(state("d", "x")).await;
    assert!(commits.turn().unwrap());
    for receipt in [first, second, small] {
        receipt.await.unwrap();
    }
    assert_eq!(last(&bus, "c"), None);
    assert!(futures_util::poll!(&mut third).is_pending());
    assert!(commits.turn().unwrap());
    third.await.unwrap();
    assert_eq!(last(&bus, "c").unwrap().len(), 40 << 10);
    // Alone, one may be larger than the bound.
    let larger = client.enqueue(state("e", "x".repeat(200 << 10))).await;
    assert!(commits.turn().unwrap());
    larger.await.unwrap();
}

#[tokio::test]
async fn events_and_reads_go_on_while_a_commit_hangs() {
    let (clock, bytes) = (Clock::manual(1_000), Bytes::default());
    let (bus, mut commits) = simulation::open(options(&clock), bytes.disk()).unwrap();
    let mut waiting = client(&bus).enqueue(state("a", "1")).await;
    bytes.held.store(true, Ordering::Relaxed);
    let writer = thread::spawn(move || {
        assert!(commits.turn().unwrap());
        commits
    });
    while !bytes.hangs.load(Ordering::Relaxed) {
        thread::yield_now();
    }
    let mut before = 0;
    for n in 0..100 {
        let event = client(&bus).enqueue(event("e", n.to_string())).await;
        let rev = event.now_or_never().unwrap().unwrap().rev;
        assert!(rev > before);
        before = rev;
    }
    assert_eq!(last(&bus, "a"), None);
    assert!((&mut waiting).now_or_never().is_none());
    bytes.held.store(false, Ordering::Relaxed);
    let _commits = writer.join().unwrap();
    // It was overtaken, and comes behind them all.
    assert!(waiting.now_or_never().unwrap().unwrap().rev > before);
    assert_eq!(last(&bus, "a").unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn what_expires_goes_by_the_clock_that_was_given() {
    let (clock, memory) = (Clock::manual(1_000), Memory::default());
    let (bus, mut commits) = simulation::open(options(&clock), Disk::memory(&memory)).unwrap();
    let mut brief = state("brief", "x");
    brief.expires_in = Some(core::time::Duration::from_secs(5));
    let receipt = client(&bus).enqueue(brief).await;
    commits.turn().unwrap();
    receipt.await.unwrap();
    clock.set(5_999);
    assert_eq!(last(&bus, "brief").unwrap(), "x");
    clock.set(6_000);
    assert_eq!(last(&bus, "brief"), None);
    // The tick of a second clears the topic, through the store. Waiting for it lets the paused time go on.
    assert!(commits.next().await);
    commits.commit().unwrap();
    commits.finish();
    clock.set(1_000);
    drop((bus, commits));
    let (bus, _commits) = simulation::open(options(&clock), Disk::memory(&memory)).unwrap();
    assert_eq!(last(&bus, "brief"), None);
}

#[tokio::test(start_paused = true)]
async fn one_seed_makes_the_same_choices() {
    let clock = Clock::manual(1_000);
    let epoch = || {
        let disk = Disk::memory(&Memory::default());
        simulation::open(options(&clock), disk).unwrap().0.epoch()
    };
    assert_eq!(epoch(), epoch());
}
