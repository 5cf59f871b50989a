//! Somebody who looks at the room all the time: what is shown never goes down, not over a kill either, and is
//! never more than what the devices have on their disks by then.

use core::net::SocketAddr;
use core::time::Duration;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use latchbus_core::clicks::Counter;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::kiosk::stored;
use crate::transport::{Incoming, Peer, Subscribe};
use crate::transports::{Json, WebSocketPeer};

/// The topic that it looks at.
pub(super) const VALUES: &str = "clicks/main/values";

/// Between two attempts to reach a server that is not there.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    last: Counter,
    shown: u64,
}

/// Looks on until it is dropped or asked.
#[derive(Debug)]
pub(super) struct Observer {
    seen: Arc<Mutex<Seen>>,
    looks: JoinHandle<()>,
}

impl Observer {
    /// Looks at a server that comes and goes. `states` are the files of all devices of the room.
    pub(super) fn start(http: SocketAddr, states: Vec<PathBuf>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        Self {
            seen: Arc::clone(&seen),
            looks: tokio::spawn(async move {
                loop {
                    if let Ok(peer) = WebSocketPeer::<Json>::try_open(http).await {
                        look(peer, &states, &seen).await;
                    }
                    sleep(PAUSE).await;
                }
            }),
        }
    }

    /// What was seen last.
    pub(super) fn last(&self) -> Counter {
        self.read().last
    }

    /// How many values were shown.
    ///
    /// # Panics
    /// When one of them was wrong.
    pub(super) async fn stop(mut self) -> u64 {
        self.looks.abort();
        match (&mut self.looks).await {
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            _ => self.read().shown,
        }
    }

    /// Whether it has seen something wrong.
    pub(super) fn has_ended(&self) -> bool {
        self.looks.is_finished()
    }

    fn read(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.looks.abort();
    }
}

async fn look(mut peer: WebSocketPeer<Json>, states: &[PathBuf], seen: &Mutex<Seen>) {
    peer.subscribe(Subscribe::to(1, VALUES)).await;
    loop {
        let message = match peer.recv().await {
            Incoming::Message(message) => message,
            Incoming::Ended(_) => return,
            _ => continue,
        };
        let shown = Counter::parse(&message.payload).unwrap();
        // Read after it was shown: each click is on its device's disk before anybody hears of it.
        let sum = |sum: Counter, state: &PathBuf| sum.saturating_add(stored(state));
        let made = states.iter().fold(Counter::ZERO, sum);
        assert_eq!(
            made.join(shown),
            made,
            "{shown} is shown, and {made} were made"
        );
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.last;
        assert_eq!(shown.join(last), shown, "{shown} is shown after {last}");
        seen.last = shown;
        seen.shown += 1;
    }
}
