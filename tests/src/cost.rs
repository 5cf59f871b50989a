//! What durability costs: publishes at QoS 1 that are acknowledged in a second, and the bytes that each of them
//! writes, of this server with its store and without, and of mosquitto with its own persistence, in turn.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::deadline::within;
use crate::program::{Server, installed, written_bytes};
use crate::transport::{Connect, Incoming, Peer as _, Publish};
use crate::transports::MqttPeer;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// This server with its store.
    Stored,
    /// This server with `--ephemeral`.
    Ephemeral,
    /// mosquitto with `persistence true`, `autosave_on_changes true` and `autosave_interval 1`: it saves after each
    /// change, all that it has, and synchronises nothing.
    Mosquitto,
}

impl Peer {
    /// In the order of the report.
    pub const ALL: [Self; 3] = [Self::Stored, Self::Ephemeral, Self::Mosquitto];
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "latchbus",
            Self::Ephemeral => "latchbus --ephemeral",
            Self::Mosquitto => "mosquitto, autosave on every change",
        })
    }
}

/// What one measurement has given.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Publishes that were acknowledged, a second.
    pub acknowledged_per_second: f64,
    /// Bytes that the server has sent to its disk, for each of them.
    pub bytes_written_per_publish: f64,
}

/// Measures one server, fresh, for so long: `clients` connections, each of which publishes state to a topic of its
/// own as soon as its last publish is acknowledged. None when the server is not installed.
pub async fn measure(peer: Peer, clients: usize, length: Duration) -> Option<Figures> {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(peer, directory).await?;
    let mut publishers = JoinSet::new();
    let written = written_bytes(running.id());
    let begun = Instant::now();
    for n in 0..clients {
        let peer = MqttPeer::<4>::open(running.mqtt, Connect::named(&format!("client-{n}"))).await;
        publishers.spawn(publish(n, peer, begun + length));
    }
    let mut acknowledged = 0;
    while let Some(ended) = publishers.join_next().await {
        acknowledged += ended.unwrap();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let written = written_bytes(running.id()).saturating_sub(written);
    running.stop().await;
    Some(Figures {
        acknowledged_per_second: acknowledged as f64 / seconds,
        bytes_written_per_publish: written as f64 / acknowledged as f64,
    })
}

async fn publish(n: usize, mut peer: MqttPeer<4>, until: Instant) -> u64 {
    let topic = format!("cost/{n}");
    let mut acknowledged = 0;
    while Instant::now() < until {
        let payload = format!("{acknowledged:016}");
        let id = acknowledged % 65_535 + 1;
        peer.publish(Publish::state(id, &topic, payload.as_bytes()))
            .await;
        assert_eq!(
            within("an acknowledgement", peer.recv()).await,
            Incoming::Acked(id)
        );
        acknowledged += 1;
    }
    acknowledged
}

struct Running {
    mqtt: SocketAddr,
    program: Program,
    /// Gone with it.
    _directory: TempDir,
}

enum Program {
    Ours(Server),
    Mosquitto(Child),
}

impl Running {
    async fn start(peer: Peer, directory: TempDir) -> Option<Self> {
        let data = directory.path().to_str().unwrap();
        let (mqtt, program) = match peer {
            Peer::Stored => ours(&["--data-dir", data]).await,
            Peer::Ephemeral => ours(&["--ephemeral"]).await,
            Peer::Mosquitto => mosquitto(directory.path()).await?,
        };
        Some(Self {
            mqtt,
            program,
            _directory: directory,
        })
    }

    fn id(&self) -> u32 {
        match &self.program {
            Program::Ours(server) => server.id(),
            Program::Mosquitto(child) => child.id().unwrap(),
        }
    }

    async fn stop(self) {
        match self.program {
            Program::Ours(server) => server.kill().await,
            Program::Mosquitto(mut child) => child.kill().await.unwrap(),
        }
    }
}

async fn ours(arguments: &[&str]) -> (SocketAddr, Program) {
    let server = Server::start(arguments).await;
    (server.mqtt, Program::Ours(server))
}

async fn mosquitto(directory: &Path) -> Option<(SocketAddr, Program)> {
    let mut command: Command = installed("mosquitto")?;
    // It takes no port 0: one that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mqtt = free.local_addr().unwrap();
    drop(free);
    let config = directory.join("mosquitto.conf");
    let text = format!(
        "listener {} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
         autosave_on_changes true\nautosave_interval 1\n",
        mqtt.port(),
        directory.display(),
    );
    std::fs::write(&config, text).unwrap();
    command.arg("-c").arg(&config);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    within("mosquitto listens", async {
        while TcpStream::connect(mqtt).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    Some((mqtt, Program::Mosquitto(child)))
}
