//! A store of format 3, with everything in it: made by the last program that wrote that format, exported by it, and
//! taken over by this one.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use latchbus_bus::simulation::{self, StoreFile};
use latchbus_bus::{Options, Principal, Publish};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_tests::power::{Disk, Image};
use latchbus_tests::program::{Server, built, installed};
use tempfile::tempdir;

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(file)
}

fn directory() -> tempfile::TempDir {
    let directory = tempdir().unwrap();
    let copied = fs::copy(
        data("format-3.redb"),
        directory.path().join("latchbus.redb"),
    );
    copied.unwrap();
    directory
}

/// An export without the time at which it was made, and the newest revision, which `rate` moves.
fn export(directory: &Path) -> Vec<serde_json::Value> {
    let file = directory.join("export.jsonl");
    let mut command = Command::new(built("latchbus"));
    command.arg("export").arg("--data-dir").arg(directory);
    assert!(command.arg(&file).status().unwrap().success());
    lines(&fs::read_to_string(file).unwrap())
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    let mut lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let head = lines[0].as_object_mut().unwrap();
    assert!(head.remove("at").is_some() && head.remove("revision").is_some());
    lines
}

#[test]
fn it_says_what_it_said_with_the_same_epoch_and_revisions() {
    let directory = directory();
    let before = lines(&fs::read_to_string(data("format-3.jsonl")).unwrap());
    assert_eq!(export(directory.path()), before);
    // And once more, now that it is of the present format.
    assert_eq!(export(directory.path()), before);
}

#[tokio::test]
async fn a_session_of_mosquitto_is_given_what_it_is_owed() {
    let Some(mut sub) = installed("mosquitto_sub") else {
        return;
    };
    let directory = directory();
    let server = Server::start(&["--data-dir", directory.path().to_str().unwrap()]).await;
    sub.args(["-h", "127.0.0.1", "-i", "away", "-c", "-q", "2", "-v"])
        .args(["-p", &server.mqtt.port().to_string()])
        // It has its subscriptions; to name them again would bring what is retained again.
        .args(["-t", "other", "-C", "6", "-W", "60"]);
    let output = sub.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    for message in ["door/1 opened", "door/2 closed"] {
        assert_eq!(told.matches(message).count(), 1, "{told}");
    }
    assert!(told.contains("lab/temp 21.5"), "{told}");
}

/// The power fails at each moment of the first start, and what may be on the disk then is opened.
#[tokio::test(start_paused = true)]
async fn taking_it_over_can_be_interrupted_anywhere() {
    let whole = Image::of(fs::read(data("format-3.redb")).unwrap());
    let options = || Options {
        seed: Some(7),
        ..Options::default()
    };
    let open = |disk: &Disk| {
        let disk = disk.clone();
        let store = simulation::Disk::backend(move |file: StoreFile| Ok(disk.file(file)), 8 << 10);
        simulation::open(options(), store)
    };
    let topic = || TopicName::parse("lab/temp".to_owned()).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for moment in 0.. {
        let disk = Disk::holding(whole.clone());
        disk.fail_after(moment);
        if let Ok((bus, mut commits)) = open(&disk)
            && !disk.is_off()
        {
            // All of the start went well, and so does the first commit, or it is not answered.
            let client = bus.client(Principal::process()).unwrap();
            let _receipt = client.enqueue(Publish::state(topic(), "22")).await;
            if commits.turn().is_ok() {
                assert!(moment > 2, "the power did not fail");
                return;
            }
        }
        for _ in 0..20 {
            let disk = Disk::holding(disk.image(&mut random));
            let (bus, _commits) = open(&disk).unwrap();
            assert_eq!(bus.epoch(), 0xe7c6_dae1, "a new epoch");
            let value = bus.last(topic().borrowed()).unwrap();
            let texts = ["21.5", "22"];
            assert!(texts.iter().any(|text| value.payload.bytes() == text));
            assert_eq!(bus.kept(TopicFilter::parse("chat/a").unwrap()).len(), 5);
        }
    }
}
