//! A bad network between a board and one port of this machine: frames are lost, changed and repeated.

use std::path::Path;

use fastrand::Rng;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Of so many frames one is lost, one changed, and one repeated.
const FRAMES_TO_A_FAULT: u32 = 25;

/// No frame is longer.
const FRAME_BYTES: usize = 64 << 10;

/// A network that is there until this is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    /// What QEMU is to be given.
    pub(crate) qemu: Vec<String>,
    _sockets: TempDir,
    _tasks: JoinSet<()>,
}

impl Network {
    /// A network in which nothing can be reached but this port.
    pub(crate) fn new(mqtt_port: u16, seed: u64) -> Self {
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../apps/firmware/run");
        let forward = format!("cmd:'{}' forward {mqtt_port}", run.display());
        let mut qemu = vec![
            "-nic".to_owned(),
            format!("user,id=net,restrict=on,guestfwd=tcp:10.0.2.100:1883-{forward}"),
        ];
        let sockets = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        // What goes into the network's receiving queue comes from the board.
        for (n, queue) in ["rx", "tx"].into_iter().enumerate() {
            let mut listen = |end: &str| {
                let id = format!("{queue}-{end}");
                let path = sockets.path().join(&id);
                let listener = UnixListener::bind(&path).unwrap();
                let chardev = format!("socket,id={id},path={}", path.display());
                qemu.extend(["-chardev".to_owned(), chardev]);
                listener
            };
            let (out, back) = (listen("out"), listen("back"));
            let filter = format!(
                "filter-redirector,id={queue},netdev=net,queue={queue},outdev={queue}-out,indev={queue}-back"
            );
            qemu.extend(["-object".to_owned(), filter]);
            tasks.spawn(carry(out, back, Rng::with_seed(seed + n as u64)));
        }
        Self {
            qemu,
            _sockets: sockets,
            _tasks: tasks,
        }
    }
}

/// Takes each frame that QEMU diverts and gives it back, or not.
async fn carry(out: UnixListener, back: UnixListener, mut rng: Rng) {
    let mut out = out.accept().await.unwrap().0;
    let mut back = back.accept().await.unwrap().0;
    while let Some(mut frame) = next_frame(&mut out).await {
        let copies = match rng.u32(0..FRAMES_TO_A_FAULT) {
            0 => 0,
            1 => {
                change(&mut frame, &mut rng);
                1
            }
            2 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let length = (frame.len() as u32).to_be_bytes();
            if back
                .write_all(&[&length[..], &frame].concat())
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// A frame in QEMU's form: four bytes of length, then the frame.
async fn next_frame(from: &mut UnixStream) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()? as usize;
    assert!(length <= FRAME_BYTES);
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

/// Changes a bit that the checksums of IP or TCP cover. Damage elsewhere is what Ethernet's own checksum finds; it
/// does not exist in here, and such frames are lost instead.
fn change(frame: &mut [u8], rng: &mut Rng) {
    const ETHERNET_BYTES: usize = 14;
    const IPV4: [u8; 2] = [0x08, 0x00];
    if frame.get(12..14) == Some(&IPV4) {
        let at = rng.usize(ETHERNET_BYTES..frame.len());
        frame[at] ^= 1 << rng.u8(0..8);
    }
}
