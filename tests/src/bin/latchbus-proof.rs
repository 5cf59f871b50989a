//! The long forms of the tests: `latchbus-proof --help`. `tests/run` builds it with the programs that it starts.

// A failed assumption is a failed proof.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use clap::{Parser, Subcommand};
use latchbus_tests::chaos::{self, Outcome};
use latchbus_tests::cost;
use latchbus_tests::kills;
use latchbus_tests::power::{self, Promise};
use latchbus_tests::simulator;
use tokio::time::Instant;

/// The proofs that no click is lost and none counted twice, at any length
#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Debug, Subcommand)]
enum Proof {
    /// Chaos against the real programs, one seed after the other
    Soak {
        /// How long, at least
        #[arg(long, default_value_t = 20)]
        minutes: u64,
        /// The first seed; a random one unless told
        #[arg(long)]
        seed: Option<u64>,
        /// Seconds of chaos in each run
        #[arg(long, default_value_t = 45)]
        round: u64,
    },
    /// Kills of a server while clients publish counts as fast as they are acknowledged
    Kills {
        /// How many
        #[arg(long, default_value_t = 30)]
        kills: u64,
        /// Connections that publish
        #[arg(long, default_value_t = 200)]
        clients: u64,
        /// When the kills come; a random one unless told
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Power cuts under a store: what is on the disk then is opened again, in many forms
    Powercut {
        /// How many forms, at least
        #[arg(long, default_value_t = 10_000)]
        images: u64,
        /// The first seed; a random one unless told
        #[arg(long)]
        seed: Option<u64>,
    },
    /// What an acknowledged publish costs, with the store, without, and in mosquitto, in turn; best with a release
    /// build in `LATCHBUS_BIN`
    Cost {
        /// Connections that publish
        #[arg(long, default_value_t = 50)]
        clients: usize,
        /// Seconds of each measurement
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Measurements of each
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Another build of `latchbus` to measure beside this one
        #[arg(long)]
        other: Option<PathBuf>,
        /// Where the stores are made; the system's temporary directory unless told
        #[arg(long)]
        directory: Option<PathBuf>,
    },
    /// A whole room in virtual time, one seed after the other on each core
    Simulate {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// The first
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let exact = match Line::parse().proof {
        Proof::Soak {
            minutes,
            seed,
            round,
        } => {
            let (length, round) = (
                Duration::from_secs(60 * minutes),
                Duration::from_secs(round),
            );
            runtime.block_on(soak(seed.unwrap_or_else(any), length, round))
        }
        Proof::Kills {
            kills,
            clients,
            seed,
        } => {
            let seed = seed.unwrap_or_else(any);
            let run = kills::run(kills, clients, seed, |so_far| println!("{so_far}"));
            println!("seed {seed}: {}", runtime.block_on(run));
            true
        }
        Proof::Powercut { images, seed } => powercut(seed.unwrap_or_else(any), images),
        Proof::Cost {
            clients,
            seconds,
            rounds,
            other,
            directory,
        } => {
            let on = directory.unwrap_or_else(std::env::temp_dir);
            let length = Duration::from_secs(seconds);
            runtime.block_on(cost(clients, length, rounds, other, &on));
            true
        }
        Proof::Simulate { seeds, from } => simulate(from, seeds),
    };
    if exact {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn any() -> u64 {
    fastrand::u64(..1 << 32)
}

async fn soak(first: u64, length: Duration, round: Duration) -> bool {
    let begun = Instant::now();
    let mut all = Outcome::default();
    let mut seed = first;
    while begun.elapsed() < length {
        println!(
            "{} s: seed {seed} for {} s",
            begun.elapsed().as_secs(),
            round.as_secs()
        );
        let outcome = chaos::run(seed, round).await;
        println!("{} s: {outcome}", begun.elapsed().as_secs());
        all += outcome;
        if !outcome.is_exact() {
            println!(
                "WRONG with seed {seed}: fed {}, counted {}",
                outcome.fed, outcome.counted
            );
            return false;
        }
        seed = seed.wrapping_add(1);
    }
    println!("seeds {first} to {}: {all}", seed.wrapping_sub(1));
    true
}

fn powercut(first: u64, images: u64) -> bool {
    /// Forms of each power cut.
    const FORMS: u64 = 5;
    let mut all = power::Outcome::default();
    let mut seed = first;
    while all.images < images {
        match power::run(seed, FORMS, Promise::Kept) {
            Ok(outcome) => all += outcome,
            Err(violation) => {
                println!("WRONG with seed {seed}: {violation:?}");
                return false;
            }
        }
        seed = seed.wrapping_add(1);
        if (seed - first).is_multiple_of(10) {
            println!("{all}");
        }
    }
    println!("seeds {first} to {}: {all}", seed.wrapping_sub(1));
    true
}

fn simulate(first: u64, seeds: u64) -> bool {
    /// Between two lines of progress, seeds.
    const STEP: u64 = 50;
    let (next, all) = (
        AtomicU64::new(first),
        Mutex::new((simulator::Outcome::default(), true)),
    );
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let run = simulator::run(seed, Promise::Kept);
                    let (outcome, exact) = &mut *all.lock().unwrap();
                    match run {
                        Ok(run) => *outcome += run,
                        Err(violation) => {
                            println!("WRONG with LATCHBUS_SEED={seed}: {violation}");
                            *exact = false;
                        }
                    }
                    if outcome.seeds.is_multiple_of(STEP) {
                        println!("{outcome}");
                    }
                }
            });
        }
    });
    let (outcome, exact) = all.into_inner().unwrap();
    println!("seeds from {first}: {outcome}");
    exact
}

/// Each load in turn, and in it each server in turn.
async fn cost(clients: usize, length: Duration, rounds: usize, other: Option<PathBuf>, on: &Path) {
    let mut peers = vec![
        cost::Peer::Stored,
        cost::Peer::Ephemeral,
        cost::Peer::Mosquitto,
    ];
    if let Some(other) = other {
        peers.insert(1, cost::Peer::Other(other));
    }
    let loads = [
        (
            cost::Load::Connections(clients),
            format!("{clients} connections, one publish of QoS 1 in flight on each"),
        ),
        (
            cost::Load::Connections(1),
            "one connection, one publish of QoS 1 in flight".to_owned(),
        ),
        (
            cost::Load::Sensors,
            format!(
                "{} sensors, QoS 0, one publish a second each",
                cost::SENSORS
            ),
        ),
    ];
    println!("16 bytes of state a publish; each line a fresh server");
    for (load, name) in loads {
        println!("{name}:");
        for round in 1..=rounds {
            let mut first = None;
            for peer in &peers {
                let Some(figures) = cost::measure(peer, load, length, on).await else {
                    println!("round {round}: {peer}: not installed");
                    continue;
                };
                let rate = figures.per_second;
                let ratio = rate / *first.get_or_insert(rate);
                let device = figures
                    .device_bytes
                    .map_or_else(String::new, |bytes| format!(", {bytes:.0} at the device"));
                println!(
                    "round {round}: {peer}: {rate:.0} a second ({ratio:.2} of the first), median {:.3} ms, for each {:.0} \
                     bytes by the process{device}",
                    figures.latency.as_secs_f64() * 1e3,
                    figures.process_bytes,
                );
            }
        }
    }
}
