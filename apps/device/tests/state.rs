//! What survives the end of the program, without a server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test, a panic is the report"
)]

mod support;

use latchbus_core::clicks::Counter;
use support::{Kiosk, NOWHERE, complaint, eventually, run};

#[tokio::test]
async fn lines_that_are_no_clicks_are_named_and_change_nothing() {
    let kiosk = Kiosk::new("k1", NOWHERE);
    let input = "red\nblue 3\ngreen\n\nr 2\nb 0\nred 1 2\nred 1000001\nb";
    let output = run(kiosk.program(&["--timeout", "0s", "--log", "off"]), input).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(kiosk.stored(), Some(Counter::new(3, 4)));
    let said = String::from_utf8(output.stderr).unwrap();
    for line in [3, 6, 7, 8] {
        assert!(said.contains(&format!("line {line}: ")), "{said}");
    }
    // Four lines, and that nobody has acknowledged the others.
    assert_eq!(said.lines().count(), 5, "{said}");
}

#[tokio::test]
async fn a_second_client_with_the_same_state_is_kept_out() {
    let kiosk = Kiosk::new("k1", NOWHERE);
    let mut first = kiosk.start(&[]);
    first.write("red\n").await;
    kiosk.has_stored(Counter::new(1, 0)).await;

    let output = run(kiosk.program(&[]), "red\n").await;
    assert!(complaint(&output).contains("in use"));
    assert_eq!(output.status.code(), Some(2));

    // The first has not noticed; when it is killed, the next may.
    first.write("red\n").await;
    kiosk.has_stored(Counter::new(2, 0)).await;
    first.kill().await;
    let mut third = kiosk.start(&[]);
    third.write("blue\n").await;
    kiosk.has_stored(Counter::new(2, 1)).await;
    third.kill().await;
}

/// Each line a different number of clicks, so that what is stored tells which lines were counted.
fn clicks(line: u64) -> (u64, u64) {
    let n = 1 + line % 97;
    if line.is_multiple_of(2) {
        (n, 0)
    } else {
        (0, n)
    }
}

fn first(lines: u64) -> Counter {
    let sum = |(red, blue), line| {
        let (r, b) = clicks(line);
        (red + r, blue + b)
    };
    let (red, blue) = (0..lines).fold((0, 0), sum);
    Counter::new(red, blue)
}

/// How many lines were counted; the stored counter must be that of the first so many, whole.
fn counted(stored: Counter, from: u64) -> u64 {
    let lines = (from..).take_while(|lines| first(*lines).total() <= stored.total());
    let lines = lines.last().expect("a line that was accepted is lost");
    assert_eq!(first(lines), stored, "not the first {lines} lines");
    lines
}

#[tokio::test]
async fn killed_at_any_moment_no_accepted_line_is_lost_or_counted_twice() {
    const LINES: u64 = 1_500;
    let kiosk = Kiosk::new("k1", NOWHERE);
    let (mut accepted, mut kills) = (0, 0);
    while accepted < LINES {
        let mut running = kiosk.start(&[]);
        let mut text = String::new();
        for line in (accepted..LINES).take(100) {
            let (red, blue) = clicks(line);
            let (color, n) = if red > 0 { ("r", red) } else { ("b", blue) };
            text.push_str(&format!("{color} {n}\n"));
        }
        // At once, or one after the other, so that a kill meets writes of many and of few.
        if kills % 2 == 0 {
            running.write(&text).await;
        } else {
            for line in text.split_inclusive('\n') {
                running.write(line).await;
                tokio::task::yield_now().await;
            }
        }
        // Killed when it has counted at least something of this, somewhere in the middle.
        let before = first(accepted);
        eventually("a line is counted", async || {
            kiosk.stored().filter(|stored| *stored != before)
        })
        .await;
        running.kill().await;
        kills += 1;
        accepted = counted(kiosk.stored().unwrap(), accepted);
    }
    assert_eq!(kiosk.stored(), Some(first(LINES)));
    assert!(kills >= LINES / 100, "{kills}");
}

#[tokio::test]
async fn a_killed_simulation_goes_on_where_it_was() {
    let whole = Kiosk::new("k1", NOWHERE);
    let flags = [
        "--simulate",
        "5000",
        "--count",
        "400",
        "--seed",
        "7",
        "--timeout",
        "0s",
    ];
    let output = run(whole.program(&flags), "").await;
    assert_eq!(output.status.code(), Some(1));
    let all = whole.stored().unwrap();
    assert_eq!(all.total(), 400);

    let killed = Kiosk::new("k1", NOWHERE);
    let mut kills = 0;
    let made = || killed.stored().map_or(0, Counter::total);
    while made() < 400 {
        let before = made();
        let running = killed.start(&flags);
        eventually("it clicks", async || (made() > before).then_some(())).await;
        running.kill().await;
        kills += 1;
    }
    assert!(kills > 1);
    // Complete and not acknowledged: a further start makes nothing more.
    let output = run(killed.program(&flags), "").await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        killed.stored(),
        Some(all),
        "other colours than those of one run"
    );
}

#[tokio::test]
async fn a_million_clicks_offline_take_no_more_memory_than_ten_thousand() {
    const LINES: u64 = 1_000_000;
    /// By then it has what it needs for any number.
    const FIRST: u64 = 200_000;
    /// A byte a click would be three times as much.
    const MOST_GROWTH: u64 = 256 << 10;
    let kiosk = Kiosk::new("k1", NOWHERE);
    let mut running = kiosk.start(&["--log", "off"]);
    let lines = "r\n".repeat(10_000);
    for _ in 0..FIRST / 10_000 {
        running.write(&lines).await;
    }
    kiosk.has_stored(Counter::new(FIRST, 0)).await;
    let before = running.resident_bytes();
    for _ in FIRST / 10_000..LINES / 10_000 {
        running.write(&lines).await;
    }
    kiosk.has_stored(Counter::new(LINES, 0)).await;
    let (Some(before), Some(after)) = (before, running.resident_bytes()) else {
        eprintln!("skipped: the memory of a process is not told here");
        return;
    };
    eprintln!("{before} bytes after {FIRST} clicks, {after} after {LINES}");
    assert!(
        after <= before + MOST_GROWTH,
        "{before} bytes, then {after}"
    );
    running.kill().await;
}
