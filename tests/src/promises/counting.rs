//! Clicks that arrive more than once.

use crate::bench::{Bench, wait};
use crate::transport::{End, Incoming, Peer, Publish, Transport};

/// A count is cumulative: however often and in whatever order it arrives, each click counts once.
pub async fn count_sent_again_counts_once<T: Transport>() {
    let bench = Bench::<T>::new().await;
    let mut device = bench.peer("device").await;
    let topic = "clicks/main/kiosk-1/count/1-0000beef";
    let counts: [&[u8]; 6] = [
        br#"{"red":3,"blue":1}"#,
        br#"{"red":3,"blue":1}"#,
        br#"{"red":5,"blue":1}"#,
        // Late.
        br#"{"red":3,"blue":1}"#,
        // As postcard: 5 red, 2 blue.
        &[1, 5, 2],
        // Neither colour goes back when the other goes on.
        br#"{"red":4,"blue":3}"#,
    ];
    for (n, count) in counts.iter().enumerate() {
        // The same publish twice, as after a lost acknowledgement.
        for again in [false, true] {
            let id = n as u64 + 1;
            let publish = Publish {
                again,
                ..Publish::state(id, topic, count)
            };
            device.publish(publish).await;
            wait(&mut device, Incoming::Acked(id)).await;
        }
    }
    let values = || bench.last("clicks/main/values");
    assert_eq!(values().as_deref(), Some(r#"{"red":5,"blue":3}"#));
    assert_eq!(
        bench.last("clicks/main/share").as_deref(),
        Some(r#"{"red":62.5,"blue":37.5}"#)
    );
    assert_eq!(bench.last(topic).as_deref(), Some(r#"{"red":5,"blue":3}"#));

    // A device that comes back over a new connection says it again.
    device.cut();
    let mut device = bench.peer("device").await;
    device
        .publish(Publish::state(1, topic, br#"{"red":6,"blue":3}"#))
        .await;
    wait(&mut device, Incoming::Acked(1)).await;
    assert_eq!(values().as_deref(), Some(r#"{"red":6,"blue":3}"#));

    // An empty count says nothing, and a malformed one changes nothing.
    device.publish(Publish::state(2, topic, b"")).await;
    wait(&mut device, Incoming::Acked(2)).await;
    device
        .publish(Publish::state(3, topic, b"{\"red\":-1}"))
        .await;
    let answer = crate::bench::recv(&mut device).await;
    match T::WORDS.refusals {
        true => assert!(matches!(answer, Incoming::Refused(Some(3), _))),
        false => assert_eq!(answer, Incoming::Ended(End::Silent)),
    }
    assert_eq!(bench.bus.metrics().clicks_malformed.get(), 1);
    assert_eq!(values().as_deref(), Some(r#"{"red":6,"blue":3}"#));
    bench.close().await;
}

/// A press that names itself counts once, however often it arrives.
pub async fn press_with_an_id_counts_once<T: Transport>() {
    let bench = Bench::<T>::new().await;
    let mut device = bench.peer("button").await;
    let topic = "clicks/lobby/button/press";
    let press: &[u8] = br#"{"color":"blue","n":2,"id":"first"}"#;
    for id in 1..=3 {
        device.publish(Publish::event(id, topic, press)).await;
        wait(&mut device, Incoming::Acked(id)).await;
    }
    device.publish(Publish::event(4, topic, b"red 3")).await;
    wait(&mut device, Incoming::Acked(4)).await;
    let values = bench.last("clicks/lobby/values");
    assert_eq!(values.as_deref(), Some(r#"{"red":3,"blue":2}"#));
    assert_eq!(bench.bus.metrics().presses_repeated.get(), 2);
    bench.close().await;
}
