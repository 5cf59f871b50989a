//! A bad line between a board and the server: bytes are lost, changed and repeated, and the server's end is
//! pulled now and then.

use core::ops::Range;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinHandle;

use crate::board::drain;

/// Of so many bytes, about one is lost, one changed, and one repeated: every sixth frame of this device.
const BYTES_TO_A_FAULT: u32 = 1_000;

/// After so many bytes the line is pulled.
const BYTES_TO_A_CUT: Range<u32> = 5_000..15_000;

/// A line that is carried until this is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    task: JoinHandle<()>,
    /// What the server is to be given.
    pub(crate) address: String,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    pub(crate) async fn new(board: UnixStream, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp:{}", listener.local_addr().unwrap());
        let task = tokio::spawn(carry(board, listener, Rng::with_seed(seed)));
        Self { task, address }
    }
}

async fn carry(board: UnixStream, listener: TcpListener, mut rng: Rng) {
    let (mut from_board, mut to_board) = board.into_split();
    loop {
        let mut server = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            // What a device sends into a line that is not there is lost.
            () = drain(&mut from_board) => return,
        };
        let mut left = rng.u32(BYTES_TO_A_CUT);
        let (mut up, mut down) = ([0; 64], [0; 64]);
        while left > 0 {
            let (read, carried) = tokio::select! {
                read = from_board.read(&mut up) => {
                    let read = read.unwrap_or(0);
                    (read, server.write_all(&damaged(&up[..read], &mut rng)).await)
                }
                read = server.read(&mut down) => {
                    let read = read.unwrap_or(0);
                    (read, to_board.write_all(&damaged(&down[..read], &mut rng)).await)
                }
            };
            if read == 0 || carried.is_err() {
                break;
            }
            left = left.saturating_sub(read as u32);
        }
    }
}

fn damaged(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in bytes {
        match rng.u32(0..BYTES_TO_A_FAULT) {
            0 => {}
            1 => out.push(byte ^ 1 << rng.u8(0..8)),
            2 => out.extend([*byte; 2]),
            _ => out.push(*byte),
        }
    }
    out
}
