//! How the program starts, and how it refuses to.
#![cfg(unix)]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use support::{Server, latchbus, refused, run, until};
use tempfile::tempdir;

const EPHEMERAL: [&str; 5] = [
    "--http",
    "127.0.0.1:0",
    "--mqtt",
    "127.0.0.1:0",
    "--ephemeral",
];

#[test]
fn one_ready_line_with_the_actual_ports() {
    let server = Server::ephemeral();
    let (http, mqtt) = (server.http(), server.mqtt());
    assert_eq!(server.ready, format!("ready http={http} mqtt={mqtt}"));
    assert!(http.port() != 0 && mqtt.port() != 0 && http.port() != mqtt.port());
    assert_eq!(server.get("/healthz").status, 200);
    TcpStream::connect(mqtt).unwrap();
    server.signal(rustix::process::Signal::TERM);
    let (_, further_lines, log) = server.wait();
    assert_eq!(further_lines, Vec::<String>::new());
    assert!(log.contains("INFO"), "{log}");
}

#[test]
fn ports_alone_and_localhost() {
    let server = Server::start(latchbus([
        "--ephemeral",
        "--http",
        "0",
        "--mqtt",
        "localhost:0",
    ]));
    assert!(server.http().ip().is_loopback() && server.mqtt().ip().is_loopback());
    let mut command = latchbus(["--ephemeral"]);
    command
        .env("LATCHBUS_HTTP", "localhost:0")
        .env("LATCHBUS_MQTT", "0");
    let server = Server::start(command);
    assert_eq!(server.get("/healthz").status, 200);
    let line = refused(latchbus(["--ephemeral", "--http", ":3000"]));
    assert!(line.contains("0.0.0.0:3000"), "{line}");
}

#[test]
fn a_listener_can_be_off() {
    let server = Server::start(latchbus([
        "--ephemeral",
        "--http",
        "127.0.0.1:0",
        "--mqtt",
        "off",
    ]));
    assert_eq!(
        server.ready,
        format!("ready http={} mqtt=off", server.http())
    );
}

#[test]
fn a_port_in_use() {
    let directory = tempdir().unwrap();
    let data = directory.path().join("data");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    for flags in [
        ["--http", &taken, "--mqtt", "127.0.0.1:0"],
        ["--http", "127.0.0.1:0", "--mqtt", &taken],
    ] {
        let mut command = latchbus(flags);
        command.arg("--data-dir").arg(&data);
        let line = refused(command);
        assert!(line.contains(&taken) && line.contains("in use"), "{line}");
    }
    assert!(!data.exists(), "nothing was begun");
}

#[test]
fn wrong_command_lines() {
    for (arguments, named) in [
        (&["--htpp", "127.0.0.1:0"][..], "--htpp"),
        (&["--http", "here"], "here"),
        (&["--ephemeral", "--data-dir", "x"], "ephemeral"),
        (&["--http", "off", "--mqtt", "off"], "off"),
        (&["--rooms", "a/b"], "a/b"),
        (&["start"], "start"),
    ] {
        let line = refused(latchbus(arguments));
        assert!(line.contains(named), "{line}");
    }
}

#[test]
fn a_wrong_variable() {
    let mut command = latchbus(EPHEMERAL);
    command.env("LATCHBUS_LOG", "loud");
    let line = refused(command);
    assert!(line.contains("LATCHBUS_LOG"), "{line}");
}

#[test]
fn a_directory_that_cannot_be_made() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let data = file.join("data");
    let mut command = latchbus([
        "--http",
        "127.0.0.1:0",
        "--mqtt",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    command.arg(&data);
    let line = refused(command);
    assert!(line.contains(data.to_str().unwrap()), "{line}");
    assert_eq!(line.matches("Not a directory").count(), 1, "{line}");
}

#[test]
fn a_store_that_is_in_use() {
    let directory = tempdir().unwrap();
    let first = Server::on_free_ports([Path::new("--data-dir"), directory.path()]);
    let mut command = latchbus([
        "--http",
        "127.0.0.1:0",
        "--mqtt",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    command.arg(directory.path());
    let line = refused(command);
    assert!(line.contains(directory.path().to_str().unwrap()), "{line}");
    assert_eq!(first.get("/healthz").status, 200);
}

#[test]
fn a_store_that_is_none() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("latchbus.redb");
    fs::write(&file, "not a database").unwrap();
    let mut command = latchbus([
        "--http",
        "127.0.0.1:0",
        "--mqtt",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    command.arg(directory.path());
    let line = refused(command);
    assert!(line.contains(directory.path().to_str().unwrap()), "{line}");
    assert_eq!(fs::read(&file).unwrap(), b"not a database");
}

#[test]
fn wrong_settings_files() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("latchbus.toml");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut serve = latchbus(EPHEMERAL);
        serve.arg("--config").arg(&file);
        let line = refused(serve);
        let mut check = latchbus(["check-config"]);
        check.arg(&file);
        assert_eq!(refused(check), line);
        line
    };
    let place = |line: usize| format!("{}:{line}: ", file.display());
    for (text, line, named) in [
        ("log = \"info\"\nhtpp = \"127.0.0.1:0\"\n", 2, "htpp"),
        ("[limits]\npayload_bytes = 0\n", 2, "0"),
        ("[[history]]\nfilter = \"a/#/b\"\nkeep = 1\n", 2, "a/#/b"),
        ("[[history]]\nfilter = \"a/#\"\nkeep = 0\n", 3, "0"),
        ("\nhttp = [\n", 2, "array"),
    ] {
        let complaint = check(text);
        assert!(
            complaint.starts_with(&place(line)) && complaint.contains(named),
            "{complaint}"
        );
    }
    fs::remove_file(&file).unwrap();
    let mut missing = latchbus(["check-config"]);
    missing.arg(&file);
    let line = refused(missing);
    assert!(line.contains(file.to_str().unwrap()), "{line}");
}

#[test]
fn a_right_settings_file() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("latchbus.toml");
    fs::write(
        &file,
        "rooms = [\"lab\"]\nthreads = 2\n[limits]\npayload_bytes = 300\n",
    )
    .unwrap();
    let mut check = latchbus(["check-config"]);
    check.arg(&file);
    let (status, out, err) = run(check);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("{}: ok\n", file.display()));

    let server = Server::on_free_ports(["--ephemeral", "--config", file.to_str().unwrap()]);
    until("the room is shown", || {
        server.get("/api/v1/topics/clicks/lab/values").status == 200
    });
    assert_eq!(
        server.send("PUT", "/api/v1/topics/a", [b'x'; 300]).status,
        200
    );
    assert_eq!(
        server.send("PUT", "/api/v1/topics/a", [b'x'; 301]).status,
        413
    );
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("latchbus.toml");
    fs::write(
        &file,
        "http = \"off\"\nmqtt = \"off\"\nephemeral = true\nrooms = [\"file\"]\n",
    )
    .unwrap();
    let mut command = latchbus(["serve", "--http", "127.0.0.1:0"]);
    command.env("LATCHBUS_CONFIG", &file);
    command
        .env("LATCHBUS_HTTP", "off")
        .env("LATCHBUS_MQTT", "127.0.0.1:0");
    command.env("LATCHBUS_ROOMS", "variable");
    command.current_dir(directory.path());
    let server = Server::start(command);
    assert_ne!(server.mqtt().port(), 0);
    until("the room is shown", || {
        server.get("/api/v1/topics/clicks/variable/values").status == 200
    });
    assert_eq!(server.get("/api/v1/topics/clicks/file/values").status, 404);
    assert!(
        !directory.path().join("latchbus-data").exists(),
        "ephemeral, by the file"
    );
}

#[test]
fn help_and_version() {
    let (status, out, err) = run(latchbus(["--version"]));
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert_eq!(out, concat!("latchbus ", env!("CARGO_PKG_VERSION"), "\n"));
    let (status, out, _) = run(latchbus(["--help"]));
    assert_eq!(status, Some(0));
    for word in [
        "--http",
        "--mqtt",
        "--data-dir",
        "--ephemeral",
        "--config",
        "--log",
        "check-config",
    ] {
        assert!(out.contains(word), "{word}");
    }
}
