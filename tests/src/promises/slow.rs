//! Whoever reads too slowly.

use core::time::Duration;

use bytes::Bytes;
use latchbus_bus::{Bus, Options};
use latchbus_core::hub::{Limits, Mode};
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, LIMITS, message, recv};
use crate::transport::{Connect, Incoming, Peer, Subscribe, Transport};

/// How often the topic changes while the reader does not read, and how large each value is: together far
/// more than what sockets hold.
const CHANGES: u64 = 100_000;
const VALUE_BYTES: usize = 512;

/// What may be on its way to a reader that has stopped: the kernel's buffers of both sockets (Linux lets the
/// sender's grow to 4 MiB) and one batch of the link.
const ON_THE_WAY_BYTES: u64 = 12 << 20;

fn value(n: u64) -> Bytes {
    let mut value = vec![b'.'; VALUE_BYTES];
    value[..8].copy_from_slice(&n.to_be_bytes());
    value.into()
}

fn number(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().unwrap())
}

/// A peer stops reading while a topic changes 100,000 times. What was on its way to it is bounded, and so is
/// what the server keeps for it; it never sees an older value after a newer one, ends at the newest after
/// few messages, and others notice nothing.
pub async fn slow_reader_gets_the_newest_and_costs_no_memory<T: Transport>() {
    let bench = Bench::<T>::new().await;
    let narrow = Connect {
        narrow: true,
        ..Connect::named("slow")
    };
    let mut slow = bench.connect(narrow).await;
    bench
        .snapshot(&mut slow, Subscribe::to(1, "slow/#"), "slow/marker")
        .await;

    let sent_before = bench.bus.metrics().messages_sent.get();
    for n in 1..=CHANGES {
        bench.state("slow/topic", value(n)).await;
        if n % 1_000 == 0 {
            // So that the link can fill what there is to fill.
            tokio::task::yield_now().await;
        }
    }
    let sent = settled(&bench.bus).await - sent_before;
    let sent_bytes = sent * VALUE_BYTES as u64;
    assert!(
        sent_bytes < ON_THE_WAY_BYTES,
        "{sent_bytes} bytes on their way to a peer that does not read"
    );
    // What the hub keeps is the topic's one value and the ring.
    assert!(bench.bus.read(|hub| hub.kept(filter("slow/#"))).len() == 1);

    let mut quick = bench.peer("quick").await;
    quick.subscribe(Subscribe::to(1, "slow/#")).await;
    assert_eq!(
        number(&message(&mut quick).await.payload),
        CHANGES,
        "who comes later is not slow"
    );

    let (mut last, mut read) = (0, 0);
    while last < CHANGES {
        match recv(&mut slow).await {
            Incoming::Message(message) => {
                let n = number(&message.payload);
                assert!(n > last, "{n} after {last}");
                (last, read) = (n, read + 1);
            }
            // In mode `every`: the values were conflated, and no event was missed.
            Incoming::Gap(_, missed) => assert_eq!(missed, 0),
            other => panic!("{other:?}"),
        }
    }
    let most = sent + LIMITS.recent as u64 + 1;
    assert!(
        read <= most,
        "{read} messages read, {most} were to come at most"
    );
    if T::WORDS.modes {
        // Behind what was on its way comes the newest value and nothing else.
        assert!(read <= sent + 1, "{read} read, {sent} were on their way");
    }
    bench.close().await;
}

fn filter(filter: &str) -> latchbus_core::topic::TopicFilter<&str> {
    latchbus_core::topic::TopicFilter::parse(filter).unwrap()
}

/// The number of messages given to links, when it has stopped growing.
async fn settled(bus: &Bus) -> u64 {
    let begun = Instant::now();
    let mut last = (bus.metrics().messages_sent.get(), Instant::now());
    while last.1.elapsed() < Duration::from_millis(300) {
        assert!(
            begun.elapsed() < crate::DEADLINE,
            "messages go on to be sent"
        );
        sleep(Duration::from_millis(20)).await;
        let sent = bus.metrics().messages_sent.get();
        if sent != last.0 {
            last = (sent, Instant::now());
        }
    }
    last.0
}

/// In mode `every`, a reader that falls behind is told how many events it has missed: what it took and what
/// it missed is what was published.
pub async fn every_event_is_taken_or_counted_as_missed<T: Transport>() {
    const EVENTS: u64 = 40_000;
    let limits = Limits {
        recent: 128,
        ..LIMITS
    };
    let options = Options {
        limits,
        ..Options::default()
    };
    let bench = Bench::<T>::with(options).await;
    let narrow = Connect {
        narrow: true,
        ..Connect::named("behind")
    };
    let mut peer = bench.connect(narrow).await;
    let subscribe = Subscribe {
        mode: Mode::Every,
        ..Subscribe::to(1, "every/#")
    };
    bench.snapshot(&mut peer, subscribe, "every/marker").await;

    for n in 1..=EVENTS {
        bench.event("every/event", value(n)).await;
    }
    let (mut last, mut taken, mut missed) = (0, 0, 0);
    while last < EVENTS {
        match recv(&mut peer).await {
            Incoming::Message(message) => {
                let n = number(&message.payload);
                assert!(n > last, "{n} after {last}");
                if T::WORDS.gap {
                    assert_eq!(n, taken + missed + 1, "a gap is told where it is");
                }
                (last, taken) = (n, taken + 1);
            }
            Incoming::Gap(1, n) => missed += n,
            other => panic!("{other:?}"),
        }
    }
    peer.leave().await;
    let skipped = || {
        let skipped = bench.bus.metrics().skipped.get();
        (taken + skipped == EVENTS).then_some(skipped)
    };
    let skipped = crate::deadline::until("taken and skipped add up", skipped).await;
    assert!(
        skipped > 0,
        "the reader did not fall behind: the test proves nothing"
    );
    if T::WORDS.gap {
        assert_eq!(missed, skipped);
    }
    bench.close().await;
}
