//! What the program does when its disk does not do what it should.
#![cfg(unix)]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use support::{Request, Server, latchbus, refused, run, until};
use tempfile::{TempDir, tempdir};

fn on(directory: &Path) -> Server {
    Server::on_free_ports([Path::new("--data-dir"), directory])
}

fn file(directory: &Path) -> std::path::PathBuf {
    directory.join("latchbus.redb")
}

/// A small file system of its own; `None` where this user may not mount one.
struct Small(TempDir);

impl Small {
    fn new(options: &str) -> Option<Self> {
        let directory = tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted.is_ok_and(|mounted| mounted.status.success()) {
            true => Some(Self(directory)),
            false => {
                eprintln!("skipped: only root may mount");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mount_again(&self, options: &str) {
        let mounted = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.path())
            .status();
        assert!(mounted.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a server that a failed test leaves behind may still be ending.
        let _gone = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_answers_503_says_why_and_heals() {
    let Some(disk) = Small::new("size=6m") else {
        return;
    };
    let server = on(disk.path());
    let http = server.http();
    let put = move |n: u32| {
        let put = Request::new("PUT", &format!("/api/v1/topics/full/{n}"));
        put.body("x".repeat(60_000)).send(http)
    };
    assert_eq!(put(0).status, 200);
    // What somebody else has left there.
    fs::write(disk.path().join("ballast"), vec![0; 3 << 20]).unwrap();
    let path = "/api/v1/topics/lab/temp";
    assert_eq!(server.send("PUT", path, "20").status, 200);
    let ballast = disk.path().join("more");
    let mut size = 0;
    while fs::write(&ballast, vec![0; size + 4_096]).is_ok() {
        size += 4_096;
    }
    // Nothing is answered from here on, so each waits in a thread of its own.
    std::thread::scope(|scope| {
        let mut waiting = Vec::new();
        until("the store fails", || {
            if waiting.len() < 40 {
                waiting.push(scope.spawn({
                    let n = 100 + waiting.len() as u32;
                    move || put(n).status
                }));
            }
            server.get("/healthz").status == 503
        });
        let health = server.get("/healthz");
        assert!(health.text().contains("No space left"), "{}", health.text());
        assert_eq!(server.get("/readyz").status, 503);
        // Reads go on, and events that need no store.
        assert_eq!(server.get(path).text(), "20");
        let event = server.send("POST", "/api/v1/topics/lab/door", "opened");
        assert_eq!(event.status, 200);
        fs::remove_file(&ballast).unwrap();
        fs::remove_file(disk.path().join("ballast")).unwrap();
        disk.mount_again("size=64m");
        until("the store works again", || {
            server.get("/healthz").status == 200
        });
        for answer in waiting {
            assert_eq!(answer.join().unwrap(), 200);
        }
    });
    server.signal(Signal::TERM);
    let (status, _, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("the store has failed"), "{log}");
    assert!(log.contains("the store works again"), "{log}");
    let again = on(disk.path());
    assert_eq!(again.get(path).text(), "20");
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let Some(disk) = Small::new("size=6m") else {
        return;
    };
    // Both a new store and one that is there.
    disk.mount_again("ro");
    let flags = || [Path::new("--data-dir"), disk.path()];
    let line = refused(latchbus(flags()));
    assert!(line.contains("Read-only file system"), "{line}");
    disk.mount_again("rw");
    let mut server = on(disk.path());
    server.kill();
    disk.mount_again("ro");
    let line = refused(latchbus(flags()));
    assert!(line.contains("Read-only file system"), "{line}");
}

#[test]
fn a_damaged_store_is_refused_kept_and_repaired() {
    let directory = tempdir().unwrap();
    let server = on(directory.path());
    for n in 0..50 {
        let path = format!("/api/v1/topics/kept/{n}");
        assert_eq!(server.send("PUT", &path, "x".repeat(2_000)).status, 200);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0.code(), Some(0));
    let whole = fs::read(file(directory.path())).unwrap();

    // A torn file.
    let torn = &whole[..whole.len() / 3];
    fs::write(file(directory.path()), torn).unwrap();
    let flags = [Path::new("--data-dir"), directory.path()];
    let line = refused(latchbus(flags));
    assert!(line.contains("--repair"), "{line}");
    assert_eq!(fs::read(file(directory.path())).unwrap(), torn);
    let repair = || latchbus([Path::new("--repair"), flags[0], flags[1]]);
    let line = refused(repair());
    assert!(line.contains("beyond repair"), "{line}");
    assert_eq!(fs::read(file(directory.path())).unwrap(), torn);

    fs::write(file(directory.path()), &whole).unwrap();
    let (status, out, _) = run(repair());
    assert_eq!(status, Some(0));
    assert!(out.contains("nothing is wrong"), "{out}");
    let server = on(directory.path());
    assert_eq!(server.get("/api/v1/topics/kept/49").status, 200);
    let line = refused(repair());
    assert!(line.contains("another process has it open"), "{line}");
}

#[test]
fn the_store_is_measured() {
    let directory = tempdir().unwrap();
    let mut server = on(directory.path());
    let path = "/api/v1/topics/lab/temp";
    assert_eq!(server.send("PUT", path, "20").status, 200);
    server.kill();
    let server = on(directory.path());
    let metrics = server.get("/metrics");
    let sample = |name: &str| -> f64 {
        let lines = metrics.text().lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.next().unwrap().parse().unwrap()
    };
    let files = ["latchbus.redb", "latchbus.log"].map(|file| directory.path().join(file));
    let bytes: u64 = (files.iter())
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    assert_eq!(sample("latchbus_store_bytes"), bytes as f64);
    assert!(sample("latchbus_store_loaded") >= 1.0);
    assert!(sample("latchbus_store_load_seconds") > 0.0);
    let count = sample("latchbus_store_commit_seconds_count");
    assert_eq!(
        sample("latchbus_store_commit_seconds_bucket{le=\"+Inf\"}"),
        count
    );
    assert!(sample("latchbus_store_commit_seconds_bucket{le=\"0.5\"}") <= count);
}
