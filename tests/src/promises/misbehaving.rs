//! Input that no peer should send.

use latchbus_core::wire::ErrorCode;

use crate::bench::{Bench, LIMITS, message, recv, wait};
use crate::transport::{End, Incoming, Peer, Publish, Subscribe, Transport, Verdict, Wrong};

/// A peer that is watched for harm.
async fn bystander<T: Transport>(bench: &Bench<T>) -> T::Peer {
    let mut peer = bench.peer("bystander").await;
    let subscribe = Subscribe::to(1, "harm/#");
    bench.snapshot(&mut peer, subscribe, "harm/marker").await;
    peer
}

/// The bystander is connected, hears what is published next, and has heard nothing else.
async fn unharmed<T: Transport>(bench: &Bench<T>, bystander: &mut T::Peer, after: &str) {
    bench.state("harm/none", after.to_owned()).await;
    let heard = message(bystander).await;
    assert_eq!(
        (&heard.topic[..], &heard.payload[..]),
        ("harm/none", after.as_bytes())
    );
}

/// Malformed input is answered as the protocol says, publishes nothing and hurts nobody else.
pub async fn malformed_input_hurts_only_its_sender<T: Transport>() {
    let bench = Bench::<T>::new().await;
    let mut bystander = bystander(&bench).await;
    for wrong in [Wrong::Message, Wrong::Frame, Wrong::Text] {
        let mut sender = bench.peer("malformed").await;
        // It is a working peer, until it is not.
        sender
            .publish(Publish::event(1, "harm/none", b"before"))
            .await;
        wait(&mut sender, Incoming::Acked(1)).await;
        assert_eq!(message(&mut bystander).await.payload, "before");
        sender.send_wrong(wrong).await;
        judged::<T>(&mut sender, wrong).await;
        unharmed(&bench, &mut bystander, &format!("{wrong:?}")).await;
    }
    bench.close().await;
}

/// Input beyond a bound is answered as the protocol says, publishes nothing and hurts nobody else.
pub async fn oversized_input_hurts_only_its_sender<T: Transport>() {
    let bench = Bench::<T>::new().await;
    let mut bystander = bystander(&bench).await;

    let mut sender = bench.peer("oversized").await;
    let long_payload = vec![b'x'; LIMITS.payload_bytes + 1];
    let long_topic = format!("harm/{}", "t".repeat(LIMITS.topic_bytes));
    let refused = [
        Publish::state(1, "harm/payload", &long_payload),
        Publish::state(2, &long_topic, b"x"),
    ];
    for publish in refused {
        let id = publish.id.unwrap();
        sender.publish(publish).await;
        match recv(&mut sender).await {
            Incoming::Refused(Some(refused), code) if T::WORDS.refusals => {
                assert_eq!(refused, id);
                // MQTT 5 has no reason of its own for a payload that is too large for the server.
                let expected = [
                    [ErrorCode::TooLarge, ErrorCode::Full],
                    [ErrorCode::InvalidTopic, ErrorCode::InvalidTopic],
                ];
                assert!(expected[id as usize - 1].contains(&code), "{id}: {code:?}");
            }
            // Who cannot be told keeps its message: it is not acknowledged.
            Incoming::Ended(End::Silent) if !T::WORDS.refusals => {
                sender = bench.peer("oversized").await;
            }
            other => panic!("{other:?}"),
        }
    }
    // The largest that is allowed, on the same connection where it goes on.
    let longest = &long_payload[1..];
    sender
        .publish(Publish::event(3, "harm/payload", longest))
        .await;
    wait(&mut sender, Incoming::Acked(3)).await;
    assert_eq!(message(&mut bystander).await.payload, longest);

    sender.send_wrong(Wrong::LongFrame).await;
    judged::<T>(&mut sender, Wrong::LongFrame).await;
    unharmed(&bench, &mut bystander, "after").await;
    bench.close().await;
}

/// What the protocol provides for this happens to its sender.
async fn judged<T: Transport>(sender: &mut T::Peer, wrong: Wrong) {
    match T::verdict(wrong) {
        Verdict::Told(expected) => {
            told::<T>(sender, wrong, expected).await;
            sender.publish(Publish::event(9, "goes/on", b"")).await;
            wait(sender, Incoming::Acked(9)).await;
        }
        Verdict::Ended(end) => {
            assert_eq!(recv(sender).await, Incoming::Ended(end), "{wrong:?}");
        }
        Verdict::ToldAndEnded(expected, end) => {
            told::<T>(sender, wrong, expected).await;
            assert_eq!(recv(sender).await, Incoming::Ended(end), "{wrong:?}");
        }
    }
}

async fn told<T: Transport>(sender: &mut T::Peer, wrong: Wrong, expected: ErrorCode) {
    match recv(sender).await {
        Incoming::Refused(_, code) => assert_eq!(code, expected, "{wrong:?}"),
        other => panic!("{wrong:?}: {other:?}"),
    }
}
