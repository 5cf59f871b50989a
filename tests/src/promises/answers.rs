//! What a publisher is told, and what arrives of what it sent.

use latchbus_bus::{Options, StoreKind};
use latchbus_core::wire::ErrorCode;

use crate::bench::{Bench, LIMITS, message, recv};
use crate::transport::{Incoming, Peer, Publish, Subscribe, Transport};

/// Answers come in the order of the publishes, whatever becomes of each: state waits for the disk, an event
/// does not, a refusal knows at once.
pub async fn answers_come_in_the_order_of_the_publishes<T: Transport>() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        limits: LIMITS,
        store: StoreKind::Directory(directory.path().to_owned()),
        ..Options::default()
    };
    let bench = Bench::<T>::with(options).await;
    let mut peer = bench.peer("pipelining").await;
    // Fewer than a server must accept at once: all are sent before the first answer is read.
    const PUBLISHES: u64 = 150;
    for id in 1..=PUBLISHES {
        let topic = format!("answers/{}", id % 7);
        let payload = id.to_string();
        let publish = match id % 3 {
            0 => Publish::state(id, &topic, payload.as_bytes()),
            1 => Publish::event(id, &topic, payload.as_bytes()),
            _ => Publish::state(id, "clicks/main/values", payload.as_bytes()),
        };
        peer.publish(publish).await;
    }
    for id in 1..=PUBLISHES {
        match recv(&mut peer).await {
            Incoming::Acked(acked) => {
                assert_eq!(acked, id);
                assert!(id % 3 != 2 || !T::WORDS.refusals);
            }
            Incoming::Refused(refused, _) => {
                assert_eq!(refused, Some(id));
                assert_eq!(id % 3, 2);
            }
            other => panic!("{other:?}"),
        }
    }
    let last = (1..=PUBLISHES).rev().find(|id| id % 3 == 0 && id % 7 == 3);
    assert_eq!(bench.last("answers/3"), Some(last.unwrap().to_string()));
    bench.close().await;
}

/// A payload arrives as the bytes it was.
pub async fn bytes_arrive_as_they_were_published<T: Transport>() {
    let bench = Bench::<T>::new().await;
    let mut reader = bench.peer("reader").await;
    bench
        .snapshot(&mut reader, Subscribe::to(1, "bytes/#"), "bytes/marker")
        .await;
    let mut writer = bench.peer("writer").await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let payloads: [&[u8]; 10] = [
        b"{\"red\": 1,  \"blue\":2.50e0}",
        b"null",
        b"12345678901234567890123",
        b"\"\\u0000 \\ud83d\\ude00\"",
        "grüße, 世界 🚀".as_bytes(),
        b" text with \"quotes\" and \\ and \n",
        b"\0",
        b"{\"not\": json",
        b"\xff\xfe",
        &all_bytes,
    ];
    for (n, payload) in payloads.iter().enumerate() {
        let id = n as u64 + 1;
        // A topic that needs escapes in JSON, and more than one byte a character.
        let topic = format!("bytes/\"{n}\"/é");
        writer.publish(Publish::state(id, &topic, payload)).await;
        assert_eq!(recv(&mut writer).await, Incoming::Acked(id));
        let message = message(&mut reader).await;
        assert_eq!((message.topic, &message.payload[..]), (topic, *payload));
    }
    // An event may be empty; it clears nothing.
    writer
        .publish(Publish::event(99, "bytes/\"0\"/é", b""))
        .await;
    assert_eq!(recv(&mut writer).await, Incoming::Acked(99));
    assert_eq!(message(&mut reader).await.payload, "");
    assert!(bench.last("bytes/\"0\"/é").is_some());
    bench.close().await;
}

/// What only the hub writes is refused, changes nothing and is counted.
pub async fn reserved_topics_are_refused_and_counted<T: Transport>() {
    let bench = Bench::<T>::new().await;
    let mut peer = bench.peer("intruder").await;
    let topics = [
        "clicks/main/values",
        "clicks/main/share",
        "clicks/main/rate",
        "clicks/main/k1/floor",
        "$SYS/broker/uptime",
        "$SYS/anything",
    ];
    let values = bench.last("clicks/main/values");
    assert!(values.is_some());
    for (n, topic) in topics.into_iter().enumerate() {
        let id = n as u64 + 1;
        peer.publish(Publish::state(id, topic, b"forged")).await;
        let expected = match T::WORDS.refusals {
            true => Incoming::Refused(Some(id), ErrorCode::NotAllowed),
            false => Incoming::Acked(id),
        };
        assert_eq!(recv(&mut peer).await, expected, "{topic}");
        assert_ne!(bench.last(topic).as_deref(), Some("forged"));
        let refused = bench.bus.metrics().publishes_not_allowed.get();
        assert_eq!(refused, id);
    }
    // An event there would reach subscribers as if the hub had said it.
    peer.publish(Publish::event(90, "clicks/main/values", b"forged"))
        .await;
    let answer = recv(&mut peer).await;
    assert!(matches!(
        answer,
        Incoming::Refused(Some(90), _) | Incoming::Acked(90)
    ));
    assert_eq!(bench.bus.metrics().publishes_not_allowed.get(), 7);
    assert_eq!(bench.last("clicks/main/values"), values);
    bench.close().await;
}

/// `$share/group/filter` is the filter's messages, each to one member, where the protocol has that; elsewhere it is refused, and
/// never a filter that matches nothing.
pub async fn shared_subscriptions_are_shared_or_refused<T: Transport>() {
    let bench = Bench::<T>::new().await;
    let mut peer = bench.peer("member").await;
    peer.subscribe(Subscribe::to(1, "$share/group/shared/#"))
        .await;
    match recv(&mut peer).await {
        Incoming::Subscribed(1) => {
            bench.event("shared/a", "x").await;
            assert_eq!(message(&mut peer).await.topic, "shared/a");
        }
        answer => assert_eq!(answer, Incoming::Refused(Some(1), ErrorCode::InvalidFilter)),
    }
    // The connection goes on.
    peer.publish(Publish::event(2, "shared/b", b"x")).await;
    loop {
        match recv(&mut peer).await {
            Incoming::Message(_) => {}
            answer => break assert_eq!(answer, Incoming::Acked(2)),
        }
    }
    bench.close().await;
}
