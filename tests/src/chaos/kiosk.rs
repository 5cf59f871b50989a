//! A real `latchbus-device` under supervision: it is fed, killed, started again, and fed from where it was.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use fastrand::Rng;
use latchbus_core::clicks::{Color, Counter};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::outcome::Counts;
use crate::deadline::within;
use crate::program::device;

/// How long a device may wait for its last acknowledgement: longer than its longest wait between two attempts.
const LAST_WORDS: &str = "170s";

/// Clicks of a simulation in a second.
const SIMULATED_A_SECOND: u64 = 40;

/// A device that is to come.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) id: String,
    pub(super) url: String,
    pub(super) feed: Feed,
    pub(super) seed: u64,
}

/// Where its clicks come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Feed {
    /// Lines on its standard input.
    Lines,
    /// Its own simulation, of so many clicks.
    Simulation(u64),
}

enum Order {
    /// Kill it, and start it again after this time.
    Kill(Duration),
    /// End its input and wait until it is acknowledged.
    Finish,
}

/// A supervised device. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Kiosk {
    pub(super) state: PathBuf,
    orders: mpsc::UnboundedSender<Order>,
    lives: JoinHandle<Counter>,
}

impl Kiosk {
    /// Starts it with a state file in `directory`.
    pub(super) fn start(plan: Plan, directory: &Path, counts: Arc<Counts>) -> Self {
        let state = directory.join(format!("{}.json", plan.id));
        // One order a step of a schedule that has an end.
        let (orders, given) = mpsc::unbounded_channel();
        let life = Life {
            random: Rng::with_seed(plan.seed),
            plan,
            state: state.clone(),
            counts,
            lines: 0,
            counted: Counter::ZERO,
        };
        Self {
            state,
            orders,
            lives: tokio::spawn(life.live(given)),
        }
    }

    pub(super) fn kill(&self, down: Duration) {
        let _panicked = self.orders.send(Order::Kill(down));
    }

    /// Ends its input, waits until the server has acknowledged all, and gives what it was fed.
    /// It waits without a bound: a device that is not acknowledged in time is started again.
    pub(super) async fn finish(mut self) -> Counter {
        let _panicked = self.orders.send(Order::Finish);
        (&mut self.lives).await.unwrap()
    }
}

impl Drop for Kiosk {
    fn drop(&mut self) {
        self.lives.abort();
    }
}

/// What is in a state file; zero where there is none yet.
pub(super) fn stored(state: &Path) -> Counter {
    let state = read(state);
    let number = |key: &str| state.get(key).and_then(Value::as_u64).unwrap_or(0);
    Counter::new(number("red"), number("blue"))
}

fn read(state: &Path) -> Value {
    std::fs::read(state).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap())
}

struct Life {
    plan: Plan,
    random: Rng,
    state: PathBuf,
    counts: Arc<Counts>,
    /// Lines that the device has counted for certain when it is started, and what they stand for.
    lines: u64,
    counted: Counter,
}

impl Life {
    async fn live(mut self, mut orders: mpsc::UnboundedReceiver<Order>) -> Counter {
        let mut finishes = false;
        loop {
            let mut child = self.spawn();
            let mut stdin = child.stdin.take();
            let mut next = (self.lines, Instant::now());
            if finishes {
                stdin = None;
            }
            let down = loop {
                tokio::select! {
                    status = child.wait() => {
                        let code = status.unwrap().code();
                        // Without an acknowledgement in time it is started again; it has forgotten nothing.
                        assert!(matches!(code, Some(0 | 1)), "{} ended with {code:?}", self.plan.id);
                        if code == Some(0) {
                            return self.fed();
                        }
                        break Duration::ZERO;
                    }
                    order = orders.recv() => match order {
                        Some(Order::Kill(down)) if !self.is_complete() => {
                            child.kill().await.unwrap();
                            self.counts.device_kills.add(1);
                            break down;
                        }
                        Some(Order::Kill(_)) => {}
                        Some(Order::Finish) => {
                            finishes = true;
                            self.end_input(&mut stdin, next.0);
                        }
                        None => return self.fed(),
                    },
                    () = sleep_until(next.1), if stdin.is_some() => {
                        write(stdin.as_mut(), next.0).await;
                        next.0 += 1;
                        next.1 += Duration::from_millis(self.random.u64(5..60));
                    }
                }
            };
            self.read_counted();
            if self.is_complete() {
                return self.fed();
            }
            sleep(down).await;
        }
    }

    fn spawn(&self) -> Child {
        let mut command = device(&self.plan.id, &self.plan.url, &self.state);
        command.args(["--timeout", LAST_WORDS]);
        match self.plan.feed {
            Feed::Lines => command.stdin(Stdio::piped()),
            Feed::Simulation(count) => command.args([
                "--simulate",
                &SIMULATED_A_SECOND.to_string(),
                "--count",
                &count.to_string(),
                "--seed",
                &self.plan.seed.to_string(),
            ]),
        };
        command.spawn().unwrap()
    }

    /// A simulation whose every click is acknowledged: started again, it would make as many more.
    fn is_complete(&self) -> bool {
        let Feed::Simulation(count) = self.plan.feed else {
            return false;
        };
        let state = read(&self.state);
        state.get("simulation").is_some_and(Value::is_null) && stored(&self.state).total() == count
    }

    fn end_input(&mut self, stdin: &mut Option<ChildStdin>, written: u64) {
        if stdin.take().is_some() {
            // All that was written is counted before it ends.
            for line in self.lines..written {
                self.counted = self.counted.saturating_add(clicks(line));
            }
            self.lines = written;
        }
    }

    /// How many lines the killed device has counted: its counter is that of the first so many, whole.
    fn read_counted(&mut self) {
        let Feed::Lines = self.plan.feed else { return };
        let stored = stored(&self.state);
        while self.counted.total() < stored.total() {
            self.counted = self.counted.saturating_add(clicks(self.lines));
            self.lines += 1;
        }
        assert_eq!(
            self.counted, stored,
            "{} has not stored the first {} lines",
            self.plan.id, self.lines
        );
    }

    /// The clicks it was given, which its state file must have too.
    fn fed(&self) -> Counter {
        let stored = stored(&self.state);
        match self.plan.feed {
            Feed::Lines => assert_eq!(self.counted, stored, "{}", self.plan.id),
            Feed::Simulation(count) => assert_eq!(stored.total(), count, "{}", self.plan.id),
        }
        stored
    }
}

async fn write(stdin: Option<&mut ChildStdin>, line: u64) {
    let Some(stdin) = stdin else { return };
    let counter = clicks(line);
    let color = Color::ALL.into_iter().find(|color| counter.of(*color) > 0);
    let text = format!("{} {}\n", color.unwrap().as_str(), counter.total());
    // A device that has just ended does not read it.
    let _ended = within("a line is taken", stdin.write_all(text.as_bytes())).await;
}

/// Each line another number of clicks, so that a counter tells which lines it is made of.
fn clicks(line: u64) -> Counter {
    let n = 1 + line % 97;
    match line.is_multiple_of(2) {
        true => Counter::new(n, 0),
        false => Counter::new(0, n),
    }
}
