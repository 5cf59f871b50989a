//! What durability costs, of this server with its store and without, of another build of it, and of mosquitto with its
//! own persistence, in turn: publishes that are acknowledged in a second, how long one takes, and the bytes that each
//! of them writes.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::deadline::within;
use crate::program::{Server, built, device_bytes, installed, written_bytes};
use crate::transport::{Connect, Incoming, Peer as _, Publish};
use crate::transports::MqttPeer;

/// Sensors of [`Load::Sensors`].
pub const SENSORS: usize = 20;

/// Who is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// This server with its store.
    Stored,
    /// This server with `--ephemeral`.
    Ephemeral,
    /// Another build of this server, with its store.
    Other(PathBuf),
    /// mosquitto with `persistence true`, `autosave_on_changes true` and `autosave_interval 1`: it saves after each
    /// change, all that it has, and synchronises nothing.
    Mosquitto,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "latchbus",
            Self::Ephemeral => "latchbus --ephemeral",
            Self::Other(_) => "the other build",
            Self::Mosquitto => "mosquitto, autosave on every change",
        })
    }
}

/// What it is given. All of it is state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// So many connections, each of which publishes to a topic of its own at QoS 1 as soon as its last publish is
    /// acknowledged.
    Connections(usize),
    /// [`SENSORS`] connections, each of which publishes to a topic of its own at QoS 0 once a second, at different
    /// moments.
    Sensors,
}

/// What one measurement has given.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Publishes, a second: those that were acknowledged, or at QoS 0 that were sent.
    pub per_second: f64,
    /// The median of the times to an acknowledgement; zero at QoS 0.
    pub latency: Duration,
    /// Bytes that the server has sent to its disk, for each of them, as the system counts a process.
    pub process_bytes: f64,
    /// Bytes that the device was sent meanwhile, for each of them, by whomever.
    pub device_bytes: Option<f64>,
}

/// Measures one server, fresh, for so long. None when the server is not installed. `directory` is where the stores
/// are made.
pub async fn measure(
    peer: &Peer,
    load: Load,
    length: Duration,
    directory: &Path,
) -> Option<Figures> {
    let running = Running::start(peer, tempfile::tempdir_in(directory).unwrap()).await?;
    let clients = match load {
        Load::Connections(clients) => clients,
        Load::Sensors => SENSORS,
    };
    let mut publishers = JoinSet::new();
    let mut peers = Vec::new();
    for n in 0..clients {
        peers.push(MqttPeer::<4>::open(running.mqtt, Connect::named(&format!("client-{n}"))).await);
    }
    let (process, device) = (written_bytes(running.id()), device_bytes(directory));
    let begun = Instant::now();
    for (n, peer) in peers.into_iter().enumerate() {
        match load {
            Load::Connections(_) => publishers.spawn(publish(n, peer, begun + length)),
            Load::Sensors => publishers.spawn(sense(n, peer, begun + length)),
        };
    }
    let (mut published, mut latencies) = (0, Vec::new());
    while let Some(ended) = publishers.join_next().await {
        let (publishes, mut times) = ended.unwrap();
        published += publishes;
        latencies.append(&mut times);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let process = written_bytes(running.id()).saturating_sub(process);
    let device = device_bytes(directory)
        .zip(device)
        .map(|(now, before)| now - before);
    running.stop().await;
    latencies.sort_unstable();
    let each = |bytes: u64| bytes as f64 / published as f64;
    Some(Figures {
        per_second: published as f64 / seconds,
        latency: latencies
            .get(latencies.len() / 2)
            .copied()
            .unwrap_or_default(),
        process_bytes: each(process),
        device_bytes: device.map(each),
    })
}

async fn publish(n: usize, mut peer: MqttPeer<4>, until: Instant) -> (u64, Vec<Duration>) {
    let topic = format!("cost/{n}");
    let mut times = Vec::new();
    while Instant::now() < until {
        let payload = format!("{:016}", times.len());
        let id = times.len() as u64 % 65_535 + 1;
        let begun = Instant::now();
        peer.publish(Publish::state(id, &topic, payload.as_bytes()))
            .await;
        assert_eq!(
            within("an acknowledgement", peer.recv()).await,
            Incoming::Acked(id)
        );
        times.push(begun.elapsed());
    }
    (times.len() as u64, times)
}

async fn sense(n: usize, mut peer: MqttPeer<4>, until: Instant) -> (u64, Vec<Duration>) {
    let topic = format!("cost/{n}");
    let second = Duration::from_secs(1);
    tokio::time::sleep(second * n as u32 / SENSORS as u32).await;
    let mut ticks = interval(second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    while ticks.tick().await < until {
        let payload = format!("{sent:016}");
        let publish = Publish {
            id: None,
            ..Publish::state(1, &topic, payload.as_bytes())
        };
        peer.publish(publish).await;
        sent += 1;
    }
    // What may be written later is written by then.
    tokio::time::sleep(2 * second).await;
    (sent, Vec::new())
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
    async fn start(peer: &Peer, directory: TempDir) -> Option<Self> {
        let data = directory.path().to_str().unwrap();
        let (mqtt, program) = match peer {
            Peer::Stored => ours(&built("latchbus"), &["--data-dir", data]).await,
            Peer::Other(program) => ours(program, &["--data-dir", data]).await,
            Peer::Ephemeral => ours(&built("latchbus"), &["--ephemeral"]).await,
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

async fn ours(program: &Path, arguments: &[&str]) -> (SocketAddr, Program) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::start_program(program, (any, any), arguments).await;
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
