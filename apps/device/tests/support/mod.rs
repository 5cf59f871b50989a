//! The real program, and a server in this process.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part"
)]

use core::future::Future;
use core::net::SocketAddr;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};

use latchbus_bus::{Bus, ClickLimits, Options, StoreKind};
use latchbus_core::clicks::Counter;
use latchbus_core::topic::TopicName;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

#[path = "../../../../tests/deadline.rs"]
mod deadline;
pub use deadline::DEADLINE;

/// Nobody listens there: port 1 is reserved, and below what systems give away.
pub const NOWHERE: &str = "mqtt://127.0.0.1:1";

/// Waits until the condition holds.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let held = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, held).await
}

/// Waits for what must come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = timeout(DEADLINE, future).await else {
        panic!("not within {DEADLINE:?}: {what}");
    };
    value
}

/// The program, not started yet.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchbus-device"));
    command
        .args(arguments)
        .env_remove("XDG_STATE_HOME")
        .env_remove("HOME")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs the program with this input to its end.
pub async fn run(mut command: Command, input: &str) -> Output {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may have ended without reading.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    within("the program ends", child.wait_with_output())
        .await
        .unwrap()
}

/// The one line of a complaint.
pub fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let mut lines = text.lines();
    let line = lines.next().unwrap_or_default().to_owned();
    assert_eq!(lines.next(), None, "{text}");
    assert!(line.starts_with("latchbus-device: "), "{text}");
    line
}

/// A device with a state file of its own.
pub struct Kiosk {
    pub directory: TempDir,
    pub id: &'static str,
    pub url: String,
}

impl Kiosk {
    pub fn new(id: &'static str, url: &str) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            id,
            url: url.to_owned(),
        }
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state.json")
    }

    /// The program with this device's flags and more.
    pub fn program(&self, more: &[&str]) -> Command {
        let mut command = program(&["--id", self.id, "--url", &self.url]);
        if !more.contains(&"--log") {
            command.args(["--log", "warn"]);
        }
        // Its own patience is that of a user, who has a machine to himself.
        if !more.contains(&"--timeout") {
            command.args(["--timeout", &format!("{}s", DEADLINE.as_secs())]);
        }
        command.arg("--state").arg(self.state()).args(more);
        command
    }

    pub fn start(&self, more: &[&str]) -> Running {
        let mut child = self.program(more).spawn().unwrap();
        Running {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    /// What is stored, once there is a state file.
    pub fn stored(&self) -> Option<Counter> {
        counter(&self.state())
    }

    pub async fn has_stored(&self, counter: Counter) {
        let is_stored = async || (self.stored() == Some(counter)).then_some(());
        eventually(&format!("{counter} is stored"), is_stored).await;
    }
}

/// The counter in a state file.
pub fn counter(state: &Path) -> Option<Counter> {
    let text = std::fs::read(state).ok()?;
    let state: serde_json::Value = serde_json::from_slice(&text).unwrap();
    Some(Counter::new(
        state["red"].as_u64()?,
        state["blue"].as_u64()?,
    ))
}

/// The running program. Dropping it kills it.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub async fn write(&mut self, lines: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(lines.as_bytes()).await.unwrap();
    }

    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// The next line of its output.
    pub async fn line(&mut self) -> String {
        let line = within("a line", self.stdout.next_line()).await.unwrap();
        line.expect("the output has ended")
    }

    /// What of its memory is in RAM; none where the system does not tell.
    pub fn resident_bytes(&self) -> Option<u64> {
        let process = Path::new("/proc").join(self.child.id()?.to_string());
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib << 10)
    }

    /// SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM.
    pub async fn terminate(&self) {
        let id = self.child.id().unwrap().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status().await;
        assert!(status.unwrap().success());
    }

    /// Waits for its end; what it said besides.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        let ended = async {
            stderr.read_to_string(&mut said).await.unwrap();
            self.child.wait().await.unwrap()
        };
        let status = within("the program ends", ended).await;
        (status, said)
    }

    /// Ends the input, and expects that every click is acknowledged.
    pub async fn succeeds(mut self) {
        self.end_input();
        let (status, said) = self.ended().await;
        assert!(status.success(), "{status} {said}");
    }
}

/// A server in this process, over both transports.
pub struct Server {
    pub bus: Bus,
    pub mqtt: SocketAddr,
    pub ws: SocketAddr,
    serving: [JoinHandle<()>; 2],
}

impl Server {
    /// One that forgets everything when it stops.
    pub async fn start() -> Self {
        Self::start_for(ClickLimits::default().devices).await
    }

    /// One that takes so many devices in a room.
    pub async fn start_for(devices: usize) -> Self {
        let clicks = ClickLimits {
            devices,
            ..ClickLimits::default()
        };
        let options = Options {
            clicks,
            ..Options::default()
        };
        Self::start_of(options).await
    }

    pub async fn start_of(options: Options) -> Self {
        let [mqtt, ws] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0"));
        Self::serve(options, mqtt.await.unwrap(), ws.await.unwrap())
    }

    /// One that keeps its state in a directory.
    pub async fn start_with(store: &Path, ports: Option<(SocketAddr, SocketAddr)>) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (mqtt, ws) = ports.unwrap_or((any, any));
        // The port of a server that has just stopped may not be free at once.
        let listen = async |address: SocketAddr| {
            eventually("the port is free", async || {
                TcpListener::bind(address).await.ok()
            })
            .await
        };
        let options = Options {
            store: StoreKind::Directory(store.to_owned()),
            ..Options::default()
        };
        Self::serve(options, listen(mqtt).await, listen(ws).await)
    }

    fn serve(options: Options, mqtt: TcpListener, ws: TcpListener) -> Self {
        let bus = Bus::open(options).unwrap();
        let addresses = (mqtt.local_addr().unwrap(), ws.local_addr().unwrap());
        let server = latchbus_mqtt::server::Server::new(bus.clone(), Default::default());
        let serving_mqtt = tokio::spawn(async move { server.serve(mqtt).await });
        let server = latchbus_ws::Server::new(bus.clone(), latchbus_ws::Config::default());
        let closing = bus.closing();
        let serving_ws = tokio::spawn(async move {
            let router = server.router();
            let served = axum::serve(ws, router)
                .with_graceful_shutdown(async move { closing.cancelled().await });
            served.await.unwrap();
            server.closed().await;
        });
        Self {
            bus,
            mqtt: addresses.0,
            ws: addresses.1,
            serving: [serving_mqtt, serving_ws],
        }
    }

    pub fn mqtt_url(&self) -> String {
        format!("mqtt://{}", self.mqtt)
    }

    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.ws)
    }

    pub async fn stop(self) {
        self.bus.close().await;
        for serving in self.serving {
            within("the server stops", serving).await.unwrap();
        }
    }

    /// The last value of a topic.
    pub fn last(&self, topic: &str) -> Option<String> {
        let entry = self.bus.last(TopicName::parse(topic).unwrap())?;
        Some(String::from_utf8(entry.payload.bytes().to_vec()).unwrap())
    }

    pub async fn has(&self, topic: &str, value: &str) {
        let is_there = async || (self.last(topic).as_deref() == Some(value)).then_some(());
        eventually(&format!("{topic} is {value}"), is_there).await;
    }

    /// The score of room `main`.
    pub fn score(&self) -> Counter {
        let score = self.last("clicks/main/values");
        score.map_or(Counter::ZERO, |score| {
            Counter::parse(score.as_bytes()).unwrap()
        })
    }
}
