//! `latchbus-device`: the headless Latchbus client.
//!
//! It counts clicks in a file of its own and publishes the count as retained state, over MQTT or WebSocket. A
//! click is counted when it is on disk; the server takes the larger count, so that whatever is sent again
//! changes nothing, and what was clicked offline arrives with the next connection.
//!
//! | module | what it holds |
//! |---|---|
//! | `args`, `address`, `access`, `timeout` | the command line |
//! | [`device`] | what the device knows and may say, without I/O |
//! | `state` | the state file |
//! | `source`, `input`, [`simulation`] | where clicks come from |
//! | `link` | the connection, over either transport |
//! | `score`, `complaints`, `signals` | what it prints, and what ends it |
//! | `app` | the loop that brings them together |
//!
//! The program is [`run`]; the logic is public for simulations.
//!
//! # Invariants
//! - A count is on disk before it is published.
//! - A simulation's progress and the clicks that it made are one write.
//! - Nothing waits without a bound but for clicks.

mod access;
mod address;
mod app;
mod args;
mod complaints;
pub mod device;
mod input;
mod link;
mod score;
mod signals;
pub mod simulation;
mod source;
mod state;
mod timeout;

use core::fmt;
use core::hash::BuildHasher;
use std::hash::RandomState;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::access::Access;
use crate::app::{App, Ended};
use crate::args::Args;
use crate::device::{Device, Record};
use crate::link::{Identity, Link};
use crate::score::Scores;
use crate::signals::Signals;
use crate::simulation::Run;
use crate::source::{Lines, Simulation, Source};
use crate::state::StateFile;

/// Clicks that the server has not acknowledged.
const UNACKNOWLEDGED: u8 = 1;
/// The device could not begin.
const UNUSABLE: u8 = 2;

/// The program, from its command line to its exit status: 0 when every click is acknowledged, 1 when not, 2 when it
/// could not begin.
pub fn run() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err((text, true)) => {
            // Nobody is left to read it.
            let _ = write!(io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err((complaint, false)) => return fail(UNUSABLE, complaint),
    };
    if let Ok(filter) = EnvFilter::try_new(&args.log) {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .init();
    }
    // One thread for the device, which waits for the disk, and one for its connection.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime.context("cannot start") {
        Ok(runtime) => runtime,
        Err(error) => return fail(UNUSABLE, format!("{error:#}")),
    };
    let ended = runtime.block_on(async {
        let app = begin(args).map_err(|error| (UNUSABLE, error))?;
        // In a task of its own: the thread that blocks on the runtime is none of its workers.
        let ended = tokio::spawn(app.run()).await;
        let ended = ended.context("the device has failed").flatten();
        ended.map_err(|error| (UNACKNOWLEDGED, error))
    });
    // Threads that wait for input or output end with the process.
    runtime.shutdown_background();
    match ended {
        Ok(Ended::Acknowledged) => ExitCode::SUCCESS,
        Ok(Ended::Unacknowledged(reason)) => {
            let complaint =
                format!("clicks are not acknowledged: {reason}; the next start sends them");
            fail(UNACKNOWLEDGED, complaint)
        }
        Err((status, error)) => fail(status, format!("{error:#}")),
    }
}

/// Takes everything that the device needs, or nothing: the first publish is after it.
fn begin(args: Args) -> anyhow::Result<App> {
    let access = Access::read(&args, |name| std::env::var_os(name))?;
    let (room, id) = (args.room.as_str(), args.id.as_str());
    let path = match args.state {
        Some(path) => path,
        None => {
            StateFile::default_path(room, id, |name| std::env::var_os(name).map(PathBuf::from))?
        }
    };
    let (mut file, stored) = StateFile::open(&path, room, id)?;
    let is_new = stored.is_none();
    let record = stored.or_else(|| Record::new(random() as u32));
    let mut device = Device::new(room, id, record.context("no incarnation")?, is_new);
    if args.simulate.is_some() {
        let run = Run::resume(device.record().run, args.count, args.seed, random);
        device.set_run(Some(run));
    }
    // The boot is on disk before anybody hears of it, and a disk that takes nothing is known now.
    if device.is_dirty() {
        file.save(device.record())
            .with_context(|| format!("cannot write {}", file.path().display()))?;
        device.saved();
    }
    let incarnation = device.record().incarnation;
    tracing::info!(
        target: "device",
        room,
        id,
        %incarnation,
        count = %device.record().count,
        state = %file.path().display(),
        address = %args.url,
        "counting"
    );
    let identity = Identity {
        room,
        id,
        nonce: incarnation.nonce(),
    };
    let link = Link::connect(&args.url, access, &identity, args.watch)?;
    let scores = args.watch.then(|| Scores::begin(room)).transpose();
    let source = match args.simulate {
        Some(pace) => Source::Simulation(Simulation::begin(pace)),
        None => Source::Lines(Lines::begin().context("cannot read the input")?),
    };
    Ok(App {
        address: args.url,
        device,
        file,
        link,
        source,
        scores: scores.context("cannot print the score")?,
        signals: Signals::begin().context("cannot listen for signals")?,
        timeout: args.timeout,
    })
}

/// From the system, as the standard library gets it for its hash maps.
fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

fn fail(status: u8, complaint: impl fmt::Display) -> ExitCode {
    // Nobody is left to read it.
    let _ = writeln!(io::stderr(), "latchbus-device: {complaint}");
    ExitCode::from(status)
}
