//! A connection of bytes: in order and whole as long as it stands, as TCP is. It is slow, it hangs, and it ends
//! anywhere.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::sleep;

/// What either end may have on its way.
const BUFFER_BYTES: usize = 16 << 10;

/// Of a hundred pieces that pass, about so many are the last, and so many are where it hangs before it ends.
const CUT: u8 = 3;
const HANGS: u8 = 1;

/// Whether all networks are well again: no faults from now on.
pub(super) type Calm = Arc<AtomicBool>;

/// A connection: the client's end, and the server's. The future moves the bytes; the connection ends with it.
pub(super) fn wire(
    mut random: Rng,
    calm: Calm,
) -> (DuplexStream, DuplexStream, impl Future<Output = ()>) {
    let (client, outer) = duplex(BUFFER_BYTES);
    let (server, inner) = duplex(BUFFER_BYTES);
    let slow = random.u8(..4) == 0;
    let moves = async move {
        let (from_client, to_client) = split(outer);
        let (from_server, to_server) = split(inner);
        let up = pump(
            from_client,
            to_server,
            random.fork(),
            Arc::clone(&calm),
            slow,
        );
        let down = pump(from_server, to_client, random, calm, slow);
        // The end of one direction is the end of both.
        tokio::select! {
            biased;
            () = up => {}
            () = down => {}
        }
    };
    (client, server, moves)
}

async fn pump(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut random: Rng,
    calm: Calm,
    slow: bool,
) {
    let mut buffer = [0; 1 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let most = if slow { 800_000 } else { 30_000 };
        sleep(Duration::from_micros(random.u64(200..most))).await;
        let mut piece = buffer.get(..read).unwrap_or_default();
        let chance = random.u8(..100);
        let ends = chance < CUT + HANGS && !calm.load(Ordering::Relaxed);
        if ends {
            // Of the last piece any part, or all of it and then no answer.
            piece = piece.get(..random.usize(..=read)).unwrap_or_default();
        }
        if to.write_all(piece).await.is_err() {
            return;
        }
        if ends && chance < HANGS {
            sleep(Duration::from_millis(random.u64(100..15_000))).await;
        }
        if ends {
            return;
        }
    }
}
