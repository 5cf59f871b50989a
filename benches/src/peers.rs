//! The servers that are compared: how each is found or built, and how it is started.

use core::net::{Ipv4Addr, SocketAddr};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::connection::Target;
use crate::process::Server;
use crate::wire::Protocol;

/// A server of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Latchbus, its WebSockets; nothing stored, as with the others.
    LatchbusWs,
    /// Latchbus, its MQTT.
    LatchbusMqtt,
    /// Latchbus, its MQTT, with its store on disk.
    LatchbusDurable,
    /// Mosquitto, without its store, with TCP_NODELAY.
    Mosquitto,
    /// NATS.
    Nats,
    /// rumqttd.
    Rumqttd,
    /// `ws` on Node.
    NodeWs,
    /// Socket.IO on Node.
    SocketIo,
    /// axum with a `tokio::sync::broadcast` channel.
    Axum,
}

impl Kind {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 9] = [
        Self::LatchbusWs,
        Self::LatchbusMqtt,
        Self::LatchbusDurable,
        Self::Mosquitto,
        Self::Nats,
        Self::Rumqttd,
        Self::NodeWs,
        Self::SocketIo,
        Self::Axum,
    ];

    /// What it is called in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LatchbusWs => "Latchbus WebSocket",
            Self::LatchbusMqtt => "Latchbus MQTT",
            Self::LatchbusDurable => "Latchbus MQTT, state on disk",
            Self::Mosquitto => "Mosquitto",
            Self::Nats => "NATS",
            Self::Rumqttd => "rumqttd",
            Self::NodeWs => "ws (Node)",
            Self::SocketIo => "Socket.IO",
            Self::Axum => "axum + broadcast",
        }
    }

    /// Whether it is ours.
    pub(crate) fn is_ours(self) -> bool {
        matches!(
            self,
            Self::LatchbusWs | Self::LatchbusMqtt | Self::LatchbusDurable
        )
    }

    /// What it speaks.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::LatchbusWs => Protocol::Latchbus,
            Self::LatchbusMqtt | Self::LatchbusDurable | Self::Mosquitto | Self::Rumqttd => {
                Protocol::Mqtt
            }
            Self::Nats => Protocol::Nats,
            Self::NodeWs | Self::Axum => Protocol::Plain,
            Self::SocketIo => Protocol::SocketIo,
        }
    }
}

/// Where programs are built and run.
#[derive(Debug)]
pub(crate) struct Workshop {
    repository: PathBuf,
    /// Cargo's target folder.
    target: PathBuf,
    /// Settings, stores and Node's modules.
    work: PathBuf,
}

/// A server that runs, and where it is.
#[derive(Debug)]
pub(crate) struct Running {
    /// The process.
    pub(crate) server: Server,
    /// Where subscribers connect.
    pub(crate) target: Target,
    /// Where state is published: the MQTT side of Latchbus, the same for all others.
    pub(crate) source: Target,
    /// Whether it keeps state on disk.
    pub(crate) stores: bool,
}

impl Workshop {
    /// The workshop of the repository in which this program was built.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .canonicalize()?;
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => repository.join(folder),
            None => repository.join("target"),
        };
        let work = target.join("peers");
        fs::create_dir_all(&work)?;
        Ok(Self {
            repository,
            target,
            work,
        })
    }

    /// Where results go unless told otherwise.
    pub(crate) fn folder(&self) -> &Path {
        &self.work
    }

    /// The program that [`prepare`](Self::prepare) builds for ours.
    pub(crate) fn latchbus(&self) -> PathBuf {
        self.target.join("release/latchbus")
    }

    /// Makes a server ready to be started: builds or installs it, once.
    ///
    /// # Errors
    /// When it cannot be had here.
    pub(crate) fn prepare(&self, kind: Kind) -> anyhow::Result<()> {
        match kind {
            Kind::LatchbusWs | Kind::LatchbusMqtt | Kind::LatchbusDurable => self.cargo(
                &self.target,
                &["build", "--release", "--package", "latchbus"],
            ),
            Kind::Axum => self.cargo(
                &self.target,
                &[
                    "build",
                    "--release",
                    "--package",
                    "latchbus-benches",
                    "--bins",
                ],
            ),
            Kind::Rumqttd => {
                let manifest = self.repository.join("tests/mqtt/rumqttd/Cargo.toml");
                let manifest = manifest.to_string_lossy();
                // Its two hundred crates are built with other features than ours.
                self.cargo(
                    &self.work.join("rumqttd"),
                    &["build", "--release", "--manifest-path", &manifest],
                )
            }
            Kind::Mosquitto => installed("mosquitto", "mosquitto"),
            Kind::Nats => installed("nats-server", "nats-server"),
            Kind::NodeWs | Kind::SocketIo => {
                installed("node", "nodejs")?;
                installed("npm", "npm")?;
                let from = self.repository.join("benches/peers");
                for name in [
                    "package.json",
                    "package-lock.json",
                    "ws.mjs",
                    "socketio.mjs",
                ] {
                    fs::copy(from.join(name), self.work.join(name))?;
                }
                let mut npm = Command::new("npm");
                npm.args(["ci", "--no-audit", "--no-fund"])
                    .current_dir(&self.work);
                run(npm)
            }
        }
    }

    /// Starts a server. With `ticks` a Node server counts clicks and tells the total every 50 ms.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(&self, kind: Kind, ticks: bool) -> anyhow::Result<Running> {
        let (address, other) = (free_address()?, free_address()?);
        let port = address.port();
        let mut source = Target::open(address, kind.protocol());
        let command = match kind {
            Kind::LatchbusWs | Kind::LatchbusMqtt | Kind::LatchbusDurable => {
                let (http, mqtt) = match kind {
                    Kind::LatchbusWs => (address, other),
                    _ => (other, address),
                };
                source = Target::open(mqtt, Protocol::Mqtt);
                let mut command = Command::new(self.latchbus());
                command.args([
                    "--log",
                    "error",
                    "--http",
                    &http.to_string(),
                    "--mqtt",
                    &mqtt.to_string(),
                ]);
                if kind == Kind::LatchbusDurable {
                    let store = self.work.join(format!("store-{port}"));
                    command.arg("--data-dir").arg(store);
                } else {
                    command.arg("--ephemeral");
                }
                command
            }
            Kind::Mosquitto => {
                let settings = format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nlog_dest none\n"
                );
                let file = self.settings("mosquitto.conf", &settings)?;
                let mut command = Command::new(path_of("mosquitto")?);
                command.arg("-c").arg(file);
                command
            }
            Kind::Nats => {
                let mut command = Command::new(path_of("nats-server")?);
                command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
                command
            }
            Kind::Rumqttd => {
                let mut command = Command::new(self.work.join("rumqttd/release/rumqttd-peer"));
                command.arg(port.to_string());
                command
            }
            Kind::NodeWs | Kind::SocketIo => {
                let script = if kind == Kind::NodeWs {
                    "ws.mjs"
                } else {
                    "socketio.mjs"
                };
                let mut command = Command::new(path_of("node")?);
                command.arg(script).arg(port.to_string());
                command.args(ticks.then_some("50"));
                command
            }
            Kind::Axum => {
                let mut command = Command::new(self.target.join("release/axum-broadcast"));
                command.arg(address.to_string());
                command
            }
        };
        let server = Server::start(command, address, &self.work)?;
        let target = Target::open(address, kind.protocol());
        let stores = kind == Kind::LatchbusDurable;
        Ok(Running {
            server,
            target,
            source,
            stores,
        })
    }

    fn settings(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.work.join(name);
        fs::write(&file, text)?;
        Ok(file)
    }

    fn cargo(&self, target: &Path, arguments: &[&str]) -> anyhow::Result<()> {
        let mut cargo = Command::new("cargo");
        cargo.args(arguments).current_dir(&self.repository);
        cargo.env("CARGO_TARGET_DIR", target);
        run(cargo)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Stores of this run; what cannot be removed lies in the target folder.
        for entry in fs::read_dir(&self.work).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("store-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// An address of this machine alone.
///
/// # Errors
/// When the system has none.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Debian keeps brokers where a user's path does not look.
fn path_of(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let mut found = folders
        .map(|folder| folder.join(program))
        .filter(|file| file.is_file());
    found
        .next()
        .with_context(|| format!("{program} is not installed"))
}

/// Finds a program, or installs its Debian package where that is allowed.
fn installed(program: &str, package: &str) -> anyhow::Result<()> {
    if path_of(program).is_ok() {
        return Ok(());
    }
    let mut apt = Command::new("apt-get");
    // Run level 1: the package is not to start a service.
    apt.env("RUNLEVEL", "1")
        .env("DEBIAN_FRONTEND", "noninteractive");
    apt.args(["install", "-y", "--no-install-recommends", package]);
    run(apt).with_context(|| format!("{program} is missing; apt-get install {package}"))?;
    path_of(program).map(drop)
}

/// Runs a program to its end, without what it says.
///
/// # Errors
/// When it fails.
pub(crate) fn run(mut command: Command) -> anyhow::Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    anyhow::ensure!(status.success(), "{name} has failed");
    Ok(())
}
