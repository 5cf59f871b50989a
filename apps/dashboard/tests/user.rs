//! `latchbus user`, and the start beyond loopback.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    reason = "the lints spare tests, and the helpers are a part of them"
)]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::{Server, latchbus, refused};
use tempfile::tempdir;

fn user(words: &[&str], data: &Path, password: &str) -> Output {
    let mut command = latchbus(["user"]);
    command.args(words).arg("--data-dir").arg(data);
    let pipe = || Stdio::piped();
    let mut child = command
        .stdin(pipe())
        .stdout(pipe())
        .stderr(pipe())
        .spawn()
        .unwrap();
    // It may have ended without reading it.
    let _ = child.stdin.take().unwrap().write_all(password.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn users_are_added_checked_listed_changed_and_removed() {
    let directory = tempdir().unwrap();
    let data = &directory.path().join("data");
    let run = |words: &[&str], password: &str| {
        let output = user(words, data, password);
        (output.status.code().unwrap(), text(&output.stdout))
    };
    assert_eq!(run(&["add", "anna", "--password-stdin"], "secret\n").0, 0);
    assert_eq!(run(&["add", "ben", "--password-stdin"], "other\n").0, 0);
    assert_eq!(run(&["list"], ""), (0, "anna\nben\n".to_owned()));
    assert_eq!(run(&["check", "anna", "--password-stdin"], "secret").0, 0);
    assert_eq!(run(&["check", "anna", "--password-stdin"], "other").0, 1);
    assert_eq!(run(&["check", "zoe", "--password-stdin"], "secret").0, 1);
    assert_eq!(run(&["add", "anna", "--password-stdin"], "other\n").0, 0);
    assert_eq!(run(&["check", "anna", "--password-stdin"], "other").0, 0);
    assert_eq!(run(&["remove", "anna"], "").0, 0);
    assert_eq!(run(&["remove", "anna"], "").0, 1);
    assert_eq!(run(&["list"], ""), (0, "ben\n".to_owned()));
    let file = fs::metadata(data.join("users")).unwrap();
    assert_eq!(file.mode() & 0o777, 0o600);
}

#[test]
fn what_cannot_be_done_changes_nothing_and_is_one_line() {
    let directory = tempdir().unwrap();
    let data = directory.path();
    for (words, password) in [
        (&["add", "an:na", "--password-stdin"][..], "secret\n"),
        (&["add", "", "--password-stdin"], "secret\n"),
        (&["add", "anna", "--password-stdin"], ""),
        (&["add", "anna", "--password-stdin"], "\n"),
        (&["add", "anna", "secret"], ""),
        (&["list"], ""),
        (&["check", "anna", "--password-stdin"], "x"),
    ] {
        let output = user(words, data, password);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?} {error}");
        assert_eq!(error.lines().count(), 1, "{words:?} {error}");
    }
    fs::write(data.join("users"), "# a\nanna:secret\n").unwrap();
    let output = user(&["add", "ben", "--password-stdin"], data, "x\n");
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        error.contains("line 2") && !error.contains("secret"),
        "{error}"
    );
    assert_eq!(fs::read(data.join("users")).unwrap(), b"# a\nanna:secret\n");
}

#[test]
fn a_file_of_mosquitto_is_used_as_it_is() {
    if Command::new("mosquitto_passwd").output().is_err() {
        assert!(
            std::env::var_os("CI").is_none(),
            "mosquitto_passwd is missing"
        );
        eprintln!("skipped: needs mosquitto_passwd");
        return;
    }
    let directory = tempdir().unwrap();
    let file = &directory.path().join("users");
    for (flags, name) in [(&["-c"][..], "anna"), (&["-H", "sha512"], "ben")] {
        let mut command = Command::new("mosquitto_passwd");
        command
            .args(flags)
            .arg("-b")
            .arg(file)
            .args([name, "correct horse"]);
        assert!(command.status().unwrap().success());
    }
    for name in ["anna", "ben"] {
        let check = |password| {
            let output = user(
                &["check", name, "--password-stdin"],
                directory.path(),
                password,
            );
            output.status.code()
        };
        assert_eq!((check("correct horse"), check("wrong")), (Some(0), Some(1)));
    }
}

#[test]
fn beyond_loopback_it_says_both_ways_on() {
    let directory = tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    for (http, mqtt) in [
        ("0.0.0.0:0", "127.0.0.1:0"),
        ("127.0.0.1:0", "0.0.0.0:0"),
        ("[::]:0", "off"),
    ] {
        let flags = ["--http", http, "--mqtt", mqtt, "--data-dir", data];
        let line = refused(latchbus(flags));
        assert!(
            line.contains("latchbus user add") && line.contains("--anonymous"),
            "{line}"
        );
    }
    assert!(!directory.path().join("latchbus.redb").exists());
    let open = ["--http", "0.0.0.0:0", "--mqtt", "off", "--ephemeral"];
    let mut command = latchbus(open);
    command.arg("--anonymous");
    drop(Server::start(command));
    let mut command = latchbus(open);
    command.env("LATCHBUS_ANONYMOUS", "true");
    drop(Server::start(command));
    assert!(
        user(
            &["add", "anna", "--password-stdin"],
            directory.path(),
            "secret\n"
        )
        .status
        .success()
    );
    drop(Server::start(latchbus([
        "--http",
        "0.0.0.0:0",
        "--mqtt",
        "0.0.0.0:0",
        "--data-dir",
        data,
    ])));
    let users = directory.path().join("users");
    let mut command = latchbus(open);
    command.arg("--users").arg(&users);
    drop(Server::start(command));
    let keys = directory.path().join("keys");
    fs::write(&keys, "0123456789abcdef0123456789abcdef\n").unwrap();
    let config = directory.path().join("latchbus.toml");
    fs::write(&config, format!("[tokens]\nkeys = {keys:?}\n")).unwrap();
    let mut command = latchbus(open);
    command.arg("--config").arg(&config);
    drop(Server::start(command));
}

#[test]
fn users_and_keys_that_cannot_be_read_are_refused() {
    let directory = tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("broken"), "anna:secret\n").unwrap();
    fs::write(path("keys"), "short\n").unwrap();
    fs::write(path("tokens.toml"), "[tokens]\nkeys = \"keys\"\n").unwrap();
    for (flag, name, said) in [
        ("--users", "broken", "line 1"),
        ("--users", "missing", "latchbus user add"),
        ("--config", "tokens.toml", "32 bytes"),
    ] {
        let mut command = latchbus([
            "--http",
            "127.0.0.1:0",
            "--mqtt",
            "off",
            "--ephemeral",
            flag,
        ]);
        command.arg(path(name)).current_dir(directory.path());
        let line = refused(command);
        assert!(
            line.contains(said) && !line.contains("anna:secret"),
            "{line}"
        );
    }
}
