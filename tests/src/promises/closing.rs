//! The end of a server.

use std::collections::BTreeSet;

use latchbus_bus::{Bus, Options, StoreKind};
use latchbus_core::topic::TopicName;

use crate::bench::{Bench, LIMITS};
use crate::deadline::within;
use crate::transport::{Connect, End, Incoming, Peer, Publish, Subscribe, Transport};

/// When the server stops, every peer is told as its protocol provides, also one that has stopped reading; and
/// what was acknowledged is there after the restart.
pub async fn shutdown_tells_peers_and_keeps_what_was_acknowledged<T: Transport>() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        limits: LIMITS,
        store: StoreKind::Directory(directory.path().to_owned()),
        ..Options::default()
    };
    let bench = Bench::<T>::with(options.clone()).await;
    let mut listener = bench.peer("listener").await;
    bench
        .snapshot(&mut listener, Subscribe::to(1, "kept/#"), "kept/marker")
        .await;
    let narrow = Connect {
        narrow: true,
        ..Connect::named("asleep")
    };
    let mut asleep = bench.connect(narrow).await;
    asleep.subscribe(Subscribe::to(1, "#")).await;

    // A peer is in the middle of its publishes.
    let mut publisher = bench.peer("publisher").await;
    let mut acknowledged = BTreeSet::new();
    let (mut sent, mut answered) = (0, 0);
    let closing = {
        let bus = bench.bus.clone();
        async move { bus.close().await }
    };
    let mut closing = core::pin::pin!(closing);
    let end = within("the publisher is told", async {
        let mut closed = false;
        loop {
            while sent < answered + 20 && sent < 20_000 {
                sent += 1;
                let topic = format!("kept/{sent}");
                publisher.publish(Publish::state(sent, &topic, b"v")).await;
            }
            tokio::select! {
                () = &mut closing, if acknowledged.len() >= 100 && !closed => closed = true,
                incoming = publisher.recv() => match incoming {
                    Incoming::Acked(id) => {
                        answered += 1;
                        acknowledged.insert(id);
                    }
                    // The store has ended.
                    Incoming::Refused(..) => answered += 1,
                    Incoming::Ended(end) => break end,
                    other => panic!("{other:?}"),
                },
            }
        }
    })
    .await;
    let expected = match T::WORDS.refusals {
        true => End::GoingAway,
        // MQTT 3.1.1 has no DISCONNECT from the server.
        false => End::Silent,
    };
    assert_eq!(end, expected);
    let end = within("the listener is told", async {
        loop {
            match listener.recv().await {
                Incoming::Message(_) => {}
                Incoming::Ended(end) => return end,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    assert_eq!(end, expected);
    // The peer that does not read does not hold up the end.
    bench.close().await;
    drop(asleep);

    let bus = Bus::open(options).unwrap();
    assert!(acknowledged.len() >= 100);
    for id in acknowledged {
        let topic = format!("kept/{id}");
        let kept = bus.last(TopicName::parse(topic.as_str()).unwrap());
        assert!(kept.is_some(), "{topic} was acknowledged");
    }
    within("the bus closes", bus.close()).await;
}
