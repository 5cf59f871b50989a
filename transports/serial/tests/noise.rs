//! What a device, or the line, may send without harm to anybody.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use latchbus_bus::{Bus, Options};
use latchbus_core::topic::TopicName;
use latchbus_core::wire::{self, ClientFrame, LinkDecoder, ServerFrame};
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
