//! The program on a machine whose clock somebody sets, as libfaketime shows it one: from 1970, as on a board without a
//! battery, to now and back.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use core::net::SocketAddr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use latchbus_tests::program::{Server, built, installed};
use latchbus_tests::within;
use tempfile::{TempDir, tempdir};

/// The library, where Debian has it. Where it is missing the test is skipped; with `CI=true` it fails.
fn library() -> Option<PathBuf> {
    let of_machines = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut files = of_machines.map(|machine| machine.path().join("faketime/libfaketimeMT.so.1"));
    let found = files.find(|file| file.is_file());
    if found.is_none() {
        let needs = "needs libfaketime, which is not installed";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{needs}");
        eprintln!("skipped: {needs}");
    }
    found
}

/// A machine whose clock can be set.
struct Machine {
    directory: TempDir,
    program: PathBuf,
}

impl Machine {
    fn new(library: &Path) -> Self {
        let directory = tempdir().unwrap();
        let program = directory.path().join("latchbus");
        let script = format!(
            "#!/bin/sh\nexec env LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 \
             FAKETIME_DONT_FAKE_MONOTONIC=1 {} \"$@\"\n",
            library.display(),
            directory.path().join("clock").display(),
            built("latchbus").display(),
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, program }
    }

    /// Sets the clock by so many seconds from the right time.
    fn set(&self, offset: i64) {
        let clock = self.directory.path().join("clock");
        let new = clock.with_extension("new");
        fs::write(&new, format!("{offset:+}\n")).unwrap();
        fs::rename(new, clock).unwrap();
    }

    async fn start(&self) -> Server {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let data = self.directory.path().join("data");
        let arguments = ["--data-dir", data.to_str().unwrap()];
        Server::start_program(&self.program, (any, any), &arguments).await
    }
}

async fn mosquitto(program: &str, server: &Server, arguments: &str) -> String {
    let mut command = installed(program).unwrap();
    let port = server.mqtt.port().to_string();
    command.args(["-h", "127.0.0.1", "-V", "5", "-p", &port]);
    let output = command.args(arguments.split(' ')).output();
    let output = within(program, output).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The Message Expiry Interval that a new subscriber is told.
async fn interval(server: &Server) -> u64 {
    let told = mosquitto("mosquitto_sub", server, "-t hour -C 1 -W 60 -F %E").await;
    told.trim().parse().unwrap_or_else(|_| panic!("{told:?}"))
}

#[tokio::test]
async fn mosquitto_finds_its_session_and_an_hour_after_a_step_from_1970() {
    let Some(library) = library() else { return };
    if installed("mosquitto_sub").is_none() {
        return;
    }
    let machine = Machine::new(&library);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let to_1970 = 10 - i64::try_from(now.as_secs()).unwrap();
    machine.set(to_1970);
    let server = machine.start().await;
    mosquitto(
        "mosquitto_sub",
        &server,
        "-i away -c -x 3600 -q 1 -t event -E",
    )
    .await;
    let hour = "-t hour -m x -q 1 -r -D publish message-expiry-interval 3600";
    mosquitto("mosquitto_pub", &server, hour).await;
    for offset in [to_1970, 0, to_1970] {
        machine.set(offset);
        let left = interval(&server).await;
        assert!((3_000..=3_600).contains(&left), "{left} at {offset}");
    }
    assert!(server.stop().await.success());

    // Set while it was off, set back while it was off, and not set at all.
    for offset in [0, to_1970, to_1970, 0, -86_400] {
        machine.set(offset);
        let server = machine.start().await;
        let left = interval(&server).await;
        assert!((3_000..=3_600).contains(&left), "{left} at {offset}");
        mosquitto("mosquitto_pub", &server, "-t event -m rang -q 1").await;
        let away = "-i away -c -x 3600 -q 1 -t event -C 1 -W 60";
        let told = mosquitto("mosquitto_sub", &server, away).await;
        assert_eq!(told.trim(), "rang");
        assert!(server.stop().await.success());
    }
}
