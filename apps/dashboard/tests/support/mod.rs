//! The real program in a test, and a client as plain as they come.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and this is a part of them"
)]

pub(crate) mod users;
pub(crate) mod web_socket;

use core::net::SocketAddr;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

/// For whatever takes milliseconds when it works.
#[path = "../../../../tests/deadline.rs"]
mod deadline;
pub(crate) use deadline::DEADLINE;

/// The program, without settings from outside.
pub(crate) fn latchbus<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchbus"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LATCHBUS_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A server that runs; it is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    lines: Receiver<String>,
    log: Option<JoinHandle<String>>,
    pub(crate) ready: String,
}

impl Server {
    /// Starts a server that keeps nothing, on free ports.
    pub(crate) fn ephemeral() -> Self {
        Self::on_free_ports(["--ephemeral"])
    }

    pub(crate) fn on_free_ports<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = latchbus(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
        command.args(arguments);
        Self::start(command)
    }

    /// Starts a server and waits for its first line.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (line, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            out.lines()
                .map_while(Result::ok)
                .try_for_each(|text| line.send(text))
        });
        let mut err = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut log = String::new();
            err.read_to_string(&mut log).unwrap();
            log
        });
        let mut server = Self {
            child,
            lines,
            log: Some(log),
            ready: String::new(),
        };
        match server.lines.recv_timeout(DEADLINE) {
            Ok(ready) => server.ready = ready,
            Err(_) => panic!("no ready line; the log:\n{}", server.kill()),
        }
        server
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.address("http=")
    }

    pub(crate) fn mqtt(&self) -> SocketAddr {
        self.address("mqtt=")
    }

    /// The first address of a listener.
    pub(crate) fn address(&self, key: &str) -> SocketAddr {
        let mut words = self.ready.split(' ');
        let all = words.find_map(|word| word.strip_prefix(key)).unwrap();
        all.split(',').next().unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end: the status, what else was printed, and the log.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>, String) {
        let watchdog = Watchdog::over(&self.child);
        let status = self.child.wait().unwrap();
        drop(watchdog);
        let log = self.log.take().unwrap().join().unwrap();
        (status, self.lines.iter().collect(), log)
    }

    /// Like pulling the plug. Gives the log.
    pub(crate) fn kill(&mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.take().unwrap().join().unwrap()
    }

    /// The most memory that it has held, in KiB.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_kib(&self) -> usize {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        Request::new(method, path).body(body).send(self.http())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Kills a process that does not end in time, until it is dropped.
struct Watchdog(Option<(Sender<()>, JoinHandle<()>)>);

impl Watchdog {
    fn over(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        let (ended, timer) = channel();
        let watch = move || {
            if timer.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
                kill_process(pid, Signal::KILL).unwrap();
            }
        };
        Self(Some((ended, thread::spawn(watch))))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some((ended, watch)) = self.0.take() {
            drop(ended);
            watch.join().unwrap();
        }
    }
}

/// Runs a program that ends by itself: status, standard output and standard error.
pub(crate) fn run(mut command: Command) -> (Option<i32>, String, String) {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _watchdog = Watchdog::over(&child);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Runs a program that cannot start, and gives the one line with which it gives up.
pub(crate) fn refused(command: Command) -> String {
    let (status, out, err) = run(command);
    assert_eq!(status, Some(2), "{err}");
    assert_eq!(out, "");
    let line = err
        .strip_prefix("latchbus: ")
        .and_then(|line| line.strip_suffix('\n'));
    let line = line.unwrap_or_else(|| panic!("{err}"));
    assert!(!line.contains('\n'), "{err}");
    line.to_owned()
}

/// Asks again until the answer is yes.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

pub(crate) struct Request {
    head: String,
    has_host: bool,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self {
            head: format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n"),
            has_host: false,
            body: Vec::new(),
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.has_host |= name == "Host";
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(crate) fn send(mut self, to: SocketAddr) -> Answer {
        if !self.has_host {
            self = self.header("Host", &to.to_string());
        }
        let length = self.body.len().to_string();
        self = self.header("Content-Length", &length);
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(self.head.as_bytes()).unwrap();
        stream.write_all(b"\r\n").unwrap();
        // A server that refuses the head need not read on.
        let _refused = stream.write_all(&self.body);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&bytes)
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    reason: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let mut status_line = lines.next().unwrap().splitn(3, ' ').skip(1);
        let status = status_line.next().unwrap().parse().unwrap();
        let reason = status_line.next().unwrap_or_default().to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        };
        let mut answer = Self {
            status,
            reason,
            headers: lines.map(header).collect(),
            body: bytes[end + 4..].to_vec(),
        };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunked(&answer.body);
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }

    /// What stands behind the status.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn text(&self) -> &str {
        core::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of an error.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let json = self.json();
        assert!(json["error"]["message"].is_string(), "{json}");
        json["error"]["code"].as_str().unwrap().to_owned()
    }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = core::str::from_utf8(&rest[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..][..length]);
        rest = &rest[end + 2 + length + 2..];
    }
}
