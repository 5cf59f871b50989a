//! Serving the devices at an address for as long as the bus is open.

use core::{future::pending, time::Duration};
use std::io;

use latchbus_bus::{Backoff, Bus, Ended, Principal, Session};
use latchbus_core::wire::{Limits, LinkCounts, ServerFrame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use crate::address::Address;
use crate::link::{MAX_MESSAGE_BYTES, link};

/// How long to wait before a port that has ended, or could not be opened, is tried again.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The name and version in `Welcome`.
const NAME: &str = concat!("latchbus/", env!("CARGO_PKG_VERSION"));

/// The longest topic of a device, in bytes, where the bus would take a longer one.
const MAX_TOPIC_BYTES: usize = 1 << 10;

/// What a message may need besides its topic and its payload.
const HEADROOM_BYTES: usize = 64;

/// Serves the devices at `address` until the bus closes. A port that is not there, or not any more, is tried
/// again at growing intervals of up to five seconds.
///
/// This is to be spawned, one task an address. It holds no more than one link at a time.
pub async fn serve(bus: Bus, address: Address) {
    let closing = bus.closing();
    let mut backoff = Backoff::new(SHORTEST_WAIT, LONGEST_WAIT);
    let mut failed_before = false;
    loop {
        let opened = tokio::select! {
            () = closing.cancelled() => return,
            opened = address.open() => opened,
        };
        match opened {
            Ok(stream) => {
                tracing::info!(target: "serial", %address, "serial link open");
                failed_before = false;
                let (counts, error) = serve_stream(&bus, stream, &address.to_string()).await;
                if closing.is_cancelled() {
                    return;
                }
                tracing::info!(target: "serial", %address, ?counts, ?error, "serial link ended");
                if counts.messages > 0 {
                    backoff.reset();
                }
            }
            // A device that stays unplugged is told of once.
            Err(error) if failed_before => {
                tracing::debug!(target: "serial", %address, %error, "cannot open")
            }
            Err(error) => {
                failed_before = true;
                tracing::warn!(target: "serial", %address, %error, "cannot open, trying on");
            }
        }
        tokio::select! {
            () = closing.cancelled() => return,
            () = sleep(backoff.next_wait()) => {}
        }
    }
}

/// Serves one open stream until it ends or the bus closes. Returns what came through it, and why it broke if
/// it did. `name` is what the rules and the log know the device by.
pub async fn serve_stream(
    bus: &Bus,
    stream: impl AsyncRead + AsyncWrite + Send,
    name: &str,
) -> (LinkCounts, Option<io::Error>) {
    let metrics = bus.metrics();
    let principal = Principal::anonymous("serial").with_client_id(name);
    let Ok(client) = bus.client(principal) else {
        metrics.connections_refused.add(1);
        let refused = io::Error::other("connecting is not allowed");
        return (LinkCounts::default(), Some(refused));
    };
    metrics.connections.up();
    metrics.connections_accepted.add(1);
    let mut session = Session::new(client);
    let (mut receiver, mut sender) = link(stream, bus, name);
    sender.push_frame(&ServerFrame::Welcome {
        server: NAME,
        epoch: bus.epoch(),
        limits: limits(bus),
    });
    // No other link can take a device's session over.
    let ended = session.run(&mut receiver, &mut sender, pending()).await;
    metrics.connections.down();
    let error = match ended {
        Ended::Receiver(error) | Ended::Sender(error) => Some(error),
        Ended::Left | Ended::Stopped | Ended::SignedOut(_) | Ended::Closing => None,
    };
    (receiver.counts(), error)
}

fn limits(bus: &Bus) -> Limits {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (hub, session) = (bus.limits(), bus.session_limits());
    let topic_bytes = hub.topic_bytes.min(MAX_TOPIC_BYTES);
    let payload_bytes = MAX_MESSAGE_BYTES - MAX_TOPIC_BYTES - HEADROOM_BYTES;
    Limits {
        payload_bytes: number(hub.payload_bytes.min(payload_bytes)),
        topic_bytes: number(topic_bytes),
        subscriptions: number(session.subscriptions),
        in_flight: number(session.in_flight),
    }
}
