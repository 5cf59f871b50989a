//! `latchbus export` and `latchbus import`, on directories and on servers that run.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and their helpers are a part of them"
)]

mod support;

use core::fmt::Write as _;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Request, Server, latchbus, refused, run, until};
use tempfile::tempdir;

fn with(words: &[&str], path: &Path) -> Command {
    let mut command = latchbus(words);
    command.arg(path);
    command
}

/// Runs a command that succeeds, and gives the last line on its standard error.
fn done(command: Command) -> String {
    let (status, out, err) = run(command);
    assert_eq!((status, out.as_str()), (Some(0), ""), "{err}");
    err.lines().last().unwrap_or_default().to_owned()
}

fn on(directory: &Path) -> Server {
    Server::on_free_ports(["--data-dir".as_ref(), directory.as_os_str()])
}

fn stop(server: Server) {
    server.signal(Signal::TERM);
    assert!(server.wait().0.success());
}

/// The lines of an export, without what is the hub's own: its revisions and its head.
fn records(text: &str) -> Vec<Value> {
    let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let head: Value = lines.next().unwrap();
    assert_eq!(
        (&head["latchbus"], &head["version"]),
        (&json!("export"), &json!(1))
    );
    let mut records: Vec<Value> = lines.collect();
    let end = records.pop().unwrap();
    let count = |key: &str| {
        records
            .iter()
            .filter(|record| record[key].is_string())
            .count()
    };
    let expected = json!({"end": true, "values": count("topic"), "devices": count("device")});
    assert_eq!(end, expected);
    for record in &mut records {
        record.as_object_mut().unwrap().remove("rev");
    }
    records
}

fn fill(server: &Server) {
    for (topic, payload) in [
        ("lab/temp", &b"{\"c\": 21.50}"[..]),
        ("lab/raw", b"\x00\xff"),
        ("lab/lines", b"[1,\n 2]"),
        ("clicks/main/k/count/3-0badcafe", br#"{"red":40,"blue":2}"#),
        ("clicks/main/k/status", b"online"),
    ] {
        let path = format!("/api/v1/topics/{topic}");
        assert_eq!(server.send("PUT", &path, payload).status, 200);
    }
    press(server.http(), r#"{"color":"blue","n":3,"id":"a"}"#);
}

fn press(to: SocketAddr, press: &str) {
    let request = Request::new("POST", "/api/v1/topics/clicks/main/k/press");
    let answer = request.body(press).send(to);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn values(server: &Server) -> Value {
    server.get("/api/v1/topics/clicks/main/values").json()
}

#[test]
fn from_one_directory_into_another_and_twice_is_once() {
    let directory = tempdir().unwrap();
    let [from, to, file, again] =
        ["from", "to", "backup.jsonl", "again.jsonl"].map(|name| directory.path().join(name));
    let server = on(&from);
    fill(&server);
    stop(server);

    let last = done(with(
        &["export", "--data-dir", from.to_str().unwrap()],
        &file,
    ));
    assert_eq!(
        last,
        format!("exported 5 values and 1 devices to {}", file.display())
    );
    let exported = fs::read_to_string(&file).unwrap();
    assert!(exported.contains(r#""payload":{"c": 21.50}"#), "{exported}");
    let import = || with(&["import", "--data-dir", to.to_str().unwrap()], &file);
    for _ in 0..2 {
        let last = done(import());
        assert_eq!(
            last,
            format!("imported 5 values and 1 devices from {}", file.display())
        );
        done(with(
            &["export", "--data-dir", to.to_str().unwrap()],
            &again,
        ));
        let found = fs::read_to_string(&again).unwrap();
        assert_eq!(records(&found), records(&exported));
    }

    let server = on(&to);
    assert_eq!(values(&server), json!({"red": 40, "blue": 5}));
    assert_eq!(server.get("/api/v1/topics/lab/raw").body, b"\x00\xff");
    assert_eq!(server.get("/api/v1/topics/lab/lines").body, b"[1,\n 2]");
    // The id of the press came along.
    press(server.http(), r#"{"color":"blue","n":3,"id":"a"}"#);
    assert_eq!(values(&server), json!({"red": 40, "blue": 5}));
}

#[test]
fn from_a_server_into_another_while_clicks_come_in() {
    let directory = tempdir().unwrap();
    let (data, file) = (
        directory.path().join("data"),
        directory.path().join("backup.jsonl"),
    );
    let (from, to) = (on(&data), Server::ephemeral());
    fill(&from);
    let line = refused(with(
        &["export", "--data-dir", data.to_str().unwrap()],
        &file,
    ));
    assert!(line.contains("--url"), "{line}");
    assert!(!file.exists());

    let clicking = AtomicBool::new(true);
    let (from_http, to_http) = (from.http(), to.http());
    thread::scope(|scope| {
        let clicks = scope.spawn(|| {
            let mut made = 0;
            while clicking.load(Ordering::Relaxed) {
                press(from_http, "red");
                press(to_http, "blue");
                made += 1;
            }
            made
        });
        for _ in 0..5 {
            let url = format!("http://{}", from.http());
            done(with(&["export", "--url", &url], &file));
            let exported = records(&fs::read_to_string(&file).unwrap());
            assert_eq!(exported.len(), 6);
            let url = format!("http://{}/", to.http());
            done(with(&["import", "--url", &url], &file));
        }
        clicking.store(false, Ordering::Relaxed);
        let made: u64 = clicks.join().unwrap();
        // Once more when all is quiet: then nothing is missing, and nothing was counted twice.
        let url = format!("http://{}", from.http());
        done(with(&["export", "--url", &url], &file));
        let url = format!("http://{}", to.http());
        done(with(&["import", "--url", &url], &file));
        assert_eq!(values(&from), json!({"red": 40 + made, "blue": 5}));
        assert_eq!(values(&to), json!({"red": 40 + made, "blue": 5 + made}));
    });
}

#[test]
fn a_file_that_is_not_whole_changes_nothing() {
    let directory = tempdir().unwrap();
    let server = Server::ephemeral();
    fill(&server);
    let whole = server.get("/api/v1/export");
    assert_eq!(whole.header("content-type"), Some("application/x-ndjson"));
    let whole = whole.text().to_owned();
    let lines: Vec<_> = whole.lines().collect();
    let target = Server::ephemeral();
    let url = format!("http://{}", target.http());
    let (file, data) = (directory.path().join("file"), directory.path().join("data"));
    let later = whole.replacen("\"version\":1", "\"version\":7", 1);
    for (text, at) in [
        (lines[..3].join("\n") + "\n", "line 4:"),
        (whole[..whole.len() - 1].to_owned(), "line 8:"),
        (whole[..whole.len() / 2].to_owned(), "line "),
        (later, "line 1: the file has version 7"),
        (whole.replacen("\"rev\"", "\"rve\"", 1), "line 2:"),
        ("{}\n".to_owned(), "line 1:"),
        (String::new(), "line 1:"),
    ] {
        fs::write(&file, text).unwrap();
        for place in [["--url", &url], ["--data-dir", data.to_str().unwrap()]] {
            let line = refused(with(&["import", place[0], place[1]], &file));
            assert!(line.contains(at), "{line}");
        }
        assert_eq!(values(&target), json!({"red": 0, "blue": 0}));
        assert!(!data.exists());
    }
    // Sent without the command: what stands before the cut is merged, and the answer says where it is.
    let cut = target.send("POST", "/api/v1/import", lines[..3].join("\n") + "\n");
    assert_eq!((cut.status, cut.code().as_str()), (400, "bad_message"));
    assert!(cut.text().contains("line 4"), "{}", cut.text());
    let taken = target.send("POST", "/api/v1/import", &whole);
    assert_eq!(
        (taken.status, taken.json()),
        (200, json!({"values": 5, "devices": 1}))
    );
    let reserved = whole.replacen("lab/temp", "$SYS/x", 1);
    let refused = target.send("POST", "/api/v1/import", reserved);
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "not_allowed")
    );
    assert!(refused.text().contains("line 2"), "{}", refused.text());
}

#[test]
fn a_server_below_a_base_path() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("backup.jsonl");
    let server = Server::on_free_ports(["--ephemeral", "--base-path", "/lb"]);
    server.send("PUT", "/lb/api/v1/topics/a", "1");
    for base in ["", "/", "/lb", "/lb/"] {
        let url = format!("http://{}{base}", server.http());
        done(with(&["export", "--url", &url], &file));
        done(with(&["import", "--url", &url], &file));
    }
    let elsewhere = format!("http://{}/other", server.http());
    let line = refused(with(&["export", "--url", &elsewhere], &file));
    assert!(line.contains("refuses"), "{line}");
}

#[test]
fn an_export_that_fails_leaves_the_file_as_it_was() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("backup.jsonl");
    fs::write(&file, "the last one").unwrap();
    let none = directory.path().join("none");
    let line = refused(with(
        &["export", "--data-dir", none.to_str().unwrap()],
        &file,
    ));
    assert!(line.contains("no store"), "{line}");
    assert!(!none.exists(), "an export makes no store");
    for url in ["http://127.0.0.1:1", "https://127.0.0.1:1"] {
        let line = refused(with(&["export", "--url", url], &file));
        assert!(line.contains("cannot reach 127.0.0.1:1"), "{line}");
    }
    let line = refused(with(&["export", "--url", "ftp://127.0.0.1:1"], &file));
    assert!(line.contains("http://HOST:PORT"), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "the last one");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn foreign_pages_get_and_give_nothing() {
    let server = Server::ephemeral();
    for (method, path) in [("GET", "/api/v1/export"), ("POST", "/api/v1/import")] {
        for (name, value) in [("Origin", "http://evil.example"), ("Host", "evil.example")] {
            let answer = Request::new(method, path)
                .header(name, value)
                .send(server.http());
            assert_eq!(answer.status, 403, "{method} {name}");
        }
    }
}

#[test]
fn an_import_that_a_kill_has_cut_off_is_made_whole_by_another() {
    const TOPICS: usize = 20_000;
    let directory = tempdir().unwrap();
    let (data, file) = (directory.path().join("data"), directory.path().join("file"));
    let mut text = many(TOPICS, "x");
    let device = r#"{"device":"k","room":"main","counts":{"floor":5,"base":[40,2],"live":[["6-0badcafe",12,7]]},"pressed":{"floor":0,"base":[0,0],"live":[]},"press_ids":[]}"#;
    let end = text.rfind('{').unwrap();
    text.truncate(end);
    let count = json!({"topic": "clicks/main/k/count/6-0badcafe", "payload": {"red": 12, "blue": 7}, "at": 5, "rev": 6});
    let end = json!({"end": true, "values": TOPICS + 1, "devices": 1});
    writeln!(text, "{count}\n{device}\n{end}").unwrap();
    fs::write(&file, &text).unwrap();

    let mut server = on(&data);
    let mut stream = TcpStream::connect(server.http()).unwrap();
    let head = format!(
        "POST /api/v1/import HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
        .write_all(&text.as_bytes()[..text.len() / 2])
        .unwrap();
    until("the first values are there", || {
        server.get("/api/v1/topics/many/100").status == 200
    });
    server.kill();

    let server = on(&data);
    let url = format!("http://{}", server.http());
    done(with(&["import", "--url", &url], &file));
    let exported = server.get("/api/v1/export");
    // Twenty thousand lines are no message.
    assert!(records(exported.text()) == records(&text));
    assert_eq!(values(&server), json!({"red": 52, "blue": 9}));
}

/// An export of so many topics, made by hand.
fn many(topics: usize, text: &str) -> String {
    let mut lines = String::from(
        "{\"latchbus\":\"export\",\"version\":1,\"program\":\"a test\",\"epoch\":\"1\",\"revision\":1,\"at\":1}\n",
    );
    for n in 0..topics {
        let line = json!({"topic": format!("many/{n}"), "text": text, "at": 5, "rev": n});
        writeln!(lines, "{line}").unwrap();
    }
    let end = json!({"end": true, "values": topics, "devices": 0});
    writeln!(lines, "{end}").unwrap();
    lines
}

/// Linux: the kernel says how much memory a process has held.
#[cfg(target_os = "linux")]
#[test]
fn a_hundred_thousand_topics_pass_through_little_memory() {
    const TOPICS: usize = 100_000;
    const MIB: usize = 1 << 10;
    let server = Server::ephemeral();
    let text = many(TOPICS, &"x".repeat(400));
    let import = || {
        let answer = server.send("POST", "/api/v1/import", &text);
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    import();
    // Now that all is there, neither way needs more than its pieces and a pointer for each value.
    let before = server.peak_kib();
    import();
    let exported = server.get("/api/v1/export");
    assert_eq!(records(exported.text()).len(), TOPICS);
    assert!(exported.body.len() > 40 << 20);
    let more = server.peak_kib().saturating_sub(before);
    println!(
        "{} bytes each way in {more} KiB of memory",
        exported.body.len()
    );
    assert!(more < 16 * MIB, "{more} KiB");
}
