//! The built programs, started as a user would start them, and other people's programs beside them.

use core::net::SocketAddr;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::deadline::within;

/// Where a program of this workspace was built: beside this test, unless the environment names it
/// (`LATCHBUS_BIN`, `LATCHBUS_DEVICE_BIN`).
///
/// # Panics
/// When it is not there, with how to build it.
pub fn built(name: &str) -> PathBuf {
    let variable = format!("{}_BIN", name.to_uppercase().replace('-', "_"));
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    let test = env::current_exe().unwrap();
    // <target>/<profile>/deps/<test>, or <target>/<profile>/<program>
    let mut directories = test.ancestors().skip(1);
    let profile = directories
        .find(|directory| !directory.ends_with("deps"))
        .unwrap();
    let path = profile
        .join(name)
        .with_extension(env::consts::EXE_EXTENSION);
    let flag = match profile.file_name().and_then(OsStr::to_str) {
        Some("release") => " --release",
        _ => "",
    };
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace --bins{flag}` first",
        path.display()
    );
    path
}

/// Someone else's program, when it is installed. For a newcomer a missing one is a skipped test, and says so;
/// where `CI=true` it is a failed one.
///
/// # Panics
/// When it is missing and `CI=true`.
pub fn installed(name: &str) -> Option<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    let Some(file) = found else {
        let needs = format!("needs {name}, which is not installed");
        assert!(env::var("CI").as_deref() != Ok("true"), "{needs}");
        // Shown by `cargo test -- --nocapture` and by nextest's `--no-capture`.
        eprintln!("skipped: {needs}");
        return None;
    };
    let mut command = Command::new(file);
    command.stdin(Stdio::null()).kill_on_drop(true);
    Some(command)
}

/// A running `latchbus`. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where HTTP and WebSocket are served.
    pub http: SocketAddr,
    /// Where MQTT is served.
    pub mqtt: SocketAddr,
    /// Where both are served with TLS, if they are: HTTP, MQTT.
    pub tls: Option<(SocketAddr, SocketAddr)>,
}

impl Server {
    /// Starts it on free ports and waits for its ready line.
    pub async fn start(arguments: &[&str]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_on(any, any, arguments).await
    }

    /// Starts it without a disk.
    pub async fn ephemeral() -> Self {
        Self::start(&["--ephemeral"]).await
    }

    /// Starts it on a directory, and where one was before.
    pub async fn start_on(http: SocketAddr, mqtt: SocketAddr, arguments: &[&str]) -> Self {
        Self::start_program(&built("latchbus"), (http, mqtt), arguments).await
    }

    /// Starts another build of it.
    pub async fn start_program(
        program: &Path,
        (http, mqtt): (SocketAddr, SocketAddr),
        arguments: &[&str],
    ) -> Self {
        let mut child = Command::new(program)
            .args(["--http", &http.to_string(), "--mqtt", &mqtt.to_string()])
            .args(["--log", "warn"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = lines(&mut child);
        let ready = within("the ready line", lines.next_line()).await.unwrap();
        let ready = ready.expect("latchbus ended before it was ready");
        let found = |key: &str| -> Option<SocketAddr> {
            let mut words = ready.split(' ');
            let word = words.find_map(|word| word.strip_prefix(key));
            Some(word?.parse().unwrap())
        };
        let address = |key| found(key).unwrap_or_else(|| panic!("{ready:?}"));
        assert!(ready.starts_with("ready "), "{ready:?}");
        Self {
            http: address("http="),
            mqtt: address("mqtt="),
            tls: found("http-tls=").zip(found("mqtt-tls=")),
            child,
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// What of its memory is in RAM.
    pub fn resident_bytes(&self) -> u64 {
        let process = Path::new("/proc").join(self.child.id().unwrap().to_string());
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .unwrap()
            .trim()
            .strip_suffix(" kB")
            .unwrap()
            .parse()
            .unwrap();
        kib << 10
    }

    /// Kills it as a power cut would, without a chance to say or save anything.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(mut self) -> ExitStatus {
        terminate(&self.child).await;
        within("latchbus stops", self.child.wait()).await.unwrap()
    }
}

/// The bytes that a process has sent to disks so far.
pub fn written_bytes(process: u32) -> u64 {
    let counts = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    let mut lines = counts.lines();
    let written = lines.find_map(|line| line.strip_prefix("write_bytes: "));
    written.unwrap().parse().unwrap()
}

/// The bytes that the device below a path has been sent so far, by all processes; `None` where the system does not
/// say (Linux: `/sys/dev/block`).
pub fn device_bytes(path: &Path) -> Option<u64> {
    use std::os::linux::fs::MetadataExt as _;
    /// Which number of the line: sectors of 512 bytes that were written.
    const SECTORS_WRITTEN: usize = 6;
    let device = std::fs::metadata(path).ok()?.st_dev();
    // As the C library takes it apart.
    let major = (device >> 8) & 0xFFF;
    let minor = (device & 0xFF) | ((device >> 12) & 0xFFF00);
    let line = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = line.split_whitespace().nth(SECTORS_WRITTEN)?.parse().ok()?;
    Some(sectors * 512)
}

/// `latchbus-device`, to be given arguments and started. Dropped, it is killed.
pub fn device(id: &str, url: &str, state: &Path) -> Command {
    let mut command = Command::new(built("latchbus-device"));
    command
        .args(["--id", id, "--url", url, "--log", "error", "--state"])
        .arg(state)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What a program prints, by line.
pub fn lines(child: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

async fn terminate(child: &Child) {
    let kill = format!("kill -TERM {}", child.id().unwrap());
    let status = Command::new("sh").args(["-c", &kill]).status().await;
    assert!(status.unwrap().success());
}
