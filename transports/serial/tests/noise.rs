//! What a device, or the line, may send without harm to anybody.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use latchbus_bus::{Bus, Options, Publish};
use latchbus_core::hub::Mode;
use latchbus_core::topic::TopicName;
use latchbus_core::wire::{self, ClientFrame, ErrorCode, LinkDecoder, ServerFrame};
use latchbus_serial::{MAX_MESSAGE_BYTES, serve_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

/// So many bytes of noise, in pieces.
const NOISE_BYTES: usize = 4 << 20;

fn publish(id: u64, out: &mut [u8]) -> &[u8] {
    let publish = ClientFrame::Publish {
        id: Some(id),
        topic: "lab/temp",
        payload: b"21.5",
        retain: true,
    };
    wire::encode_link(&publish, out).unwrap()
}

/// Reads up to the acknowledgement, and counts the errors on the way to it.
async fn errors_before_ack(line: &mut (impl AsyncReadExt + Unpin), id: u64) -> usize {
    let mut decoder = LinkDecoder::<512>::default();
    let mut errors = 0;
    loop {
        let byte = line.read_u8().await.expect("the link goes on");
        let (message, _) = decoder.feed(&[byte]);
        match message.map(wire::decode_server) {
            Some(Ok(ServerFrame::Ack { id: acked, .. })) if acked == id => return errors,
            Some(Ok(ServerFrame::Error { .. })) => errors += 1,
            _ => {}
        }
    }
}

fn served() -> (Bus, DuplexStream) {
    let bus = Bus::open(Options::default()).unwrap();
    let (device, port) = duplex(4096);
    let serving = bus.clone();
    tokio::spawn(async move { serve_stream(&serving, port, "test").await });
    (bus, device)
}

#[tokio::test(start_paused = true)]
async fn noise_ends_nothing_and_is_hardly_answered() {
    let (bus, device) = served();
    let (mut read, mut write) = split(device);
    let noise = tokio::spawn(async move {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut piece = vec![0; 1024];
        for _ in 0..NOISE_BYTES / piece.len() {
            rng.fill(&mut piece);
            write.write_all(&piece).await.unwrap();
        }
        // Ends what the noise has begun.
        write.write_all(&[0]).await.unwrap();
        write.write_all(publish(1, &mut [0; 64])).await.unwrap();
        write
    });
    let errors = errors_before_ack(&mut read, 1).await;
    // One in 256 bytes is a delimiter. Time stands still, so none is earned.
    assert!((1..=8).contains(&errors), "{errors}");
    noise.await.unwrap();
    assert!(bus.last(TopicName::parse("lab/temp").unwrap()).is_some());
    bus.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_echo_does_not_go_round_for_ever() {
    let (bus, device) = served();
    let (mut read, mut write) = split(device);
    // A line whose far end sends back all that it gets.
    let echo = tokio::spawn(async move {
        let mut bytes = [0; 256];
        let mut echoed = 0;
        loop {
            // Virtual time goes on only when there is nothing to do: then the line has come to rest.
            let quiet = core::time::Duration::from_millis(50);
            match tokio::time::timeout(quiet, read.read(&mut bytes)).await {
                Ok(Ok(read)) => {
                    write.write_all(&bytes[..read]).await.unwrap();
                    echoed += read;
                }
                _ => return echoed,
            }
        }
    });
    let echoed = echo.await.unwrap();
    assert!(echoed > 0, "the welcome");
    bus.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_cut_or_too_long_costs_only_itself() {
    let (bus, mut device) = served();
    let mut out = [0; 64];
    let frame = publish(1, &mut out).to_vec();
    device.write_all(&frame[..frame.len() / 2]).await.unwrap();
    // The device starts again, with a delimiter as its first byte.
    device.write_all(&[0]).await.unwrap();
    device.write_all(&frame).await.unwrap();
    assert_eq!(errors_before_ack(&mut device, 1).await, 1);
    let long = vec![1; 2 * MAX_MESSAGE_BYTES];
    device.write_all(&long).await.unwrap();
    device.write_all(&[0]).await.unwrap();
    device.write_all(publish(2, &mut out)).await.unwrap();
    assert_eq!(errors_before_ack(&mut device, 2).await, 1);
    bus.close().await;
}

/// A device has a buffer of a fixed size: what is longer is not sent, and it is told so.
#[tokio::test(start_paused = true)]
async fn a_value_that_is_too_long_for_a_device_is_an_error_and_not_a_frame() {
    let (bus, mut device) = served();
    let state = |topic: &str, length| {
        let topic = TopicName::parse(topic.to_owned()).unwrap();
        Publish::state(topic, vec![b'x'; length])
    };
    bus.publish(state("lab/a", 5)).await.unwrap();
    bus.publish(state("lab/big", 1 << 20)).await.unwrap();
    bus.publish(state("lab/z", 6)).await.unwrap();
    let subscribe = ClientFrame::Subscribe {
        id: 1,
        filter: "lab/#",
        mode: Mode::Every,
        max_rate: None,
        since: None,
    };
    let mut out = [0; 64];
    let frame = wire::encode_link(&subscribe, &mut out).unwrap();
    device.write_all(frame).await.unwrap();
    let mut decoder = LinkDecoder::<{ MAX_MESSAGE_BYTES + 2 }>::default();
    let mut came = Vec::new();
    let mut live = false;
    while came.len() < 5 {
        let byte = [device.read_u8().await.unwrap()];
        match decoder.feed(&byte).0.map(wire::decode_server) {
            Some(Ok(ServerFrame::Message { topic, payload, .. })) => {
                came.push(format!("{topic} {}", payload.len()));
            }
            Some(Ok(ServerFrame::Error { id, code, message })) => {
                assert_eq!((id, code), (None, ErrorCode::TooLarge));
                came.push(message.split(' ').next().unwrap().to_owned());
            }
            Some(Ok(ServerFrame::Synced { .. })) => {
                came.push("synced".to_owned());
                live = true;
            }
            _ => {}
        }
        if core::mem::take(&mut live) {
            // And one that comes while it listens: an event.
            let topic = TopicName::parse("lab/event".to_owned()).unwrap();
            let event = Publish::event(topic, vec![b'x'; MAX_MESSAGE_BYTES]);
            bus.publish(event).await.unwrap();
        }
    }
    assert_eq!(
        came,
        ["lab/a 5", "lab/big", "lab/z 6", "synced", "lab/event"]
    );
    assert_eq!(decoder.counts().oversized, 0);
    assert_eq!(bus.metrics().serial_messages_too_large.get(), 2);
    bus.close().await;
}
