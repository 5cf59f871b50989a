//! The long forms of the tests: `latchbus-proof --help`. `tests/run` builds it with the programs that it starts.

// A failed assumption is a failed proof.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::time::Duration;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use latchbus_tests::chaos::{self, Outcome};
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
}

#[tokio::main]
async fn main() -> ExitCode {
    let exact = match Line::parse().proof {
        Proof::Soak {
            minutes,
            seed,
            round,
        } => {
            let first = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
            soak(
                first,
                Duration::from_secs(60 * minutes),
                Duration::from_secs(round),
            )
            .await
        }
    };
    if exact {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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
