//! A serial port that is unplugged and comes back, with a pty in its place.
#![cfg(target_os = "linux")]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use core::time::Duration;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use latchbus_bus::{Bus, Options};
use latchbus_core::wire::{self, ClientFrame, LinkDecoder, ServerFrame};
use latchbus_serial::Address;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::time::{sleep, timeout};

#[path = "../../../tests/deadline.rs"]
mod deadline;
use deadline::DEADLINE;

/// How often the device looks for bytes.
const POLL: Duration = Duration::from_millis(2);

/// The device's end of a line, plugged in at a path.
fn plug_in(path: &Path) -> OwnedFd {
    let device = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&device).unwrap();
    unlockpt(&device).unwrap();
    let name = ptsname(&device, Vec::new()).unwrap();
    let new = path.with_extension("new");
    symlink(name.to_str().unwrap(), &new).unwrap();
    std::fs::rename(new, path).unwrap();
    rustix::io::ioctl_fionbio(&device, true).unwrap();
    device
}

/// Publishes again and again until it is acknowledged, as a device does.
async fn publish_until_acked(device: &OwnedFd, id: u64) {
    let mut decoder = LinkDecoder::<512>::default();
    let mut out = [0; 64];
    let publish = ClientFrame::Publish {
        id: Some(id),
        topic: "lab/temp",
        payload: b"21.5",
        retain: true,
    };
    let frame = wire::encode_link(&publish, &mut out).unwrap();
    loop {
        // A line that is not open at its other end yet takes nothing, or loses it.
        let _lost = rustix::io::write(device, frame);
        let answer = async {
            loop {
                let mut bytes = [0; 256];
                match rustix::io::read(device, &mut bytes[..]) {
                    Ok(read @ 1..) => {
                        let mut rest = &bytes[..read];
                        while !rest.is_empty() {
                            let (message, behind) = decoder.feed(rest);
                            let frame = message.map(wire::decode_server);
                            if let Some(Ok(ServerFrame::Ack { id: acked, .. })) = frame
                                && acked == id
                            {
                                return;
                            }
                            rest = behind;
                        }
                    }
                    // Nothing yet, or nobody at the other end yet.
                    _ => sleep(POLL).await,
                }
            }
        };
        if timeout(Duration::from_millis(100), answer).await.is_ok() {
            return;
        }
    }
}

#[tokio::test]
async fn a_port_that_is_unplugged_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    let bus = Bus::open(Options::default()).unwrap();
    let address: Address = format!("{}@115200", path.display()).parse().unwrap();
    // Nothing is plugged in yet.
    let serving = tokio::spawn(latchbus_serial::serve(bus.clone(), address));
    for id in 1..=3 {
        let device = plug_in(&path);
        let acked = publish_until_acked(&device, id);
        timeout(DEADLINE, acked).await.expect("acknowledged");
    }
    assert_eq!(bus.metrics().connections_accepted.get(), 3);
    timeout(DEADLINE, bus.close()).await.unwrap();
    timeout(DEADLINE, serving).await.unwrap().unwrap();
}
