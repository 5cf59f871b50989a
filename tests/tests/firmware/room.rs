//! What someone else's client sees of the room.

use core::net::SocketAddr;
use std::process::Stdio;

use latchbus_core::clicks::Counter;
use latchbus_tests::program::{installed, lines};
use latchbus_tests::within;
use tokio::io::{BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// A `mosquitto_sub` that listens to the room's values.
#[derive(Debug)]
pub(crate) struct Room {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    values: Counter,
}

impl Room {
    /// None where it is not installed.
    pub(crate) async fn watch(mqtt: SocketAddr) -> Option<Self> {
        let mut child = installed("mosquitto_sub")?
            .args(["-h", &mqtt.ip().to_string(), "-p", &mqtt.port().to_string()])
            .args(["-t", "clicks/main/values"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines(&mut child);
        Some(Self {
            _child: child,
            lines,
            values: Counter::ZERO,
        })
    }

    /// Waits until the room shows this.
    ///
    /// # Panics
    /// When it shows a click too many, or does not come to it.
    pub(crate) async fn shows(&mut self, expected: Counter) {
        let Self { lines, values, .. } = self;
        within(&format!("the room shows {expected}"), async {
            while *values != expected {
                let line = lines.next_line().await.unwrap();
                *values = Counter::parse(line.unwrap().as_bytes()).unwrap();
                assert_eq!(values.join(expected), expected, "a click too many");
            }
        })
        .await;
    }
}
