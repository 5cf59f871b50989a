//! What the program refuses to begin with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test, a panic is the report"
)]

mod support;

use support::{Kiosk, NOWHERE, complaint, program, run};

#[tokio::test]
async fn bad_flags_are_one_line_and_status_2() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let state = state.to_str().unwrap();
    for (flags, named) in [
        (&["--state", state][..], "--id"),
        (&["--id", "a b", "--state", state], "a b"),
        (&["--id", "k1", "--room", "", "--state", state], "--room"),
        (
            &["--id", "k1", "--url", "http://x", "--state", state],
            "mqtt://",
        ),
        (
            &["--id", "k1", "--url", "mqtts://u:p@x", "--state", state],
            "--user",
        ),
        (&["--id", "k1", "--simulate", "0", "--state", state], "0"),
        (
            &["--id", "k1", "--simulate", "NaN", "--state", state],
            "NaN",
        ),
        (
            &["--id", "k1", "--count", "5", "--state", state],
            "--simulate",
        ),
        (
            &["--id", "k1", "--seed", "5", "--state", state],
            "--simulate",
        ),
        (
            &[
                "--id",
                "k1",
                "--simulate",
                "1",
                "--count",
                "0",
                "--state",
                state,
            ],
            "--count",
        ),
        (
            &["--id", "k1", "--timeout", "10", "--state", state],
            "--timeout",
        ),
        (&["--id", "k1", "--log", "a=b=c", "--state", state], "--log"),
        (
            &["--id", "k1", "--colour", "red", "--state", state],
            "--colour",
        ),
        (&["--id", "k1", "more", "--state", state], "more"),
    ] {
        let output = run(program(flags), "red\n").await;
        let line = complaint(&output);
        assert!(line.contains(named), "{line}");
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(output.stdout.is_empty());
    }
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "nothing is begun");
}

#[tokio::test]
async fn help_is_no_complaint() {
    for flag in ["--help", "--version"] {
        let output = run(program(&[flag]), "").await;
        assert!(output.status.success());
        assert!(output.stderr.is_empty());
        assert!(!output.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_state_that_cannot_be_used_is_one_line_and_status_2() {
    let kiosk = Kiosk::new("k1", NOWHERE);
    let output = run(program(&["--id", "k1"]), "red\n").await;
    assert!(
        complaint(&output).contains("--state"),
        "neither HOME nor XDG_STATE_HOME"
    );
    assert_eq!(output.status.code(), Some(2));

    let missing = kiosk.directory.path().join("missing/state.json");
    let mut command = program(&["--id", "k1"]);
    command.arg("--state").arg(&missing);
    let output = run(command, "red\n").await;
    assert!(complaint(&output).contains("missing"));
    assert_eq!(output.status.code(), Some(2));

    let damaged = "{\"version\":1,\"room\":\"main\"";
    std::fs::write(kiosk.state(), damaged).unwrap();
    let output = run(kiosk.program(&[]), "red\n").await;
    assert!(complaint(&output).contains("state.json"));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(kiosk.state()).unwrap(), damaged);
}

#[tokio::test]
async fn the_state_of_another_device_is_refused() {
    let mut kiosk = Kiosk::new("k1", NOWHERE);
    let output = run(kiosk.program(&["--timeout", "0s"]), "red\n").await;
    assert_eq!(output.status.code(), Some(1), "nobody has acknowledged it");
    let before = std::fs::read_to_string(kiosk.state()).unwrap();
    kiosk.id = "k2";
    let output = run(kiosk.program(&[]), "red\n").await;
    assert!(complaint(&output).contains("k1"));
    assert_eq!(output.status.code(), Some(2));
    let output = run(kiosk.program(&["--room", "other"]), "red\n").await;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(kiosk.state()).unwrap(), before);
}

#[tokio::test]
async fn the_default_state_is_below_the_home_directory() {
    let home = tempfile::tempdir().unwrap();
    let mut command = program(&[
        "--id",
        "k1",
        "--room",
        "r",
        "--url",
        NOWHERE,
        "--timeout",
        "0s",
    ]);
    command.env("HOME", home.path());
    let output = run(command, "b 4\n").await;
    assert_eq!(output.status.code(), Some(1));
    let state = home.path().join(".local/state/latchbus/r-k1.json");
    assert_eq!(support::counter(&state).unwrap().blue(), 4);
}
