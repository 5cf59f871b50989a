//! `peers` runs the scenarios for Latchbus and for others in turn; `growth` shows what more topics and more
//! subscribers cost, `secured` what users, rules and TLS do, `flood` how strangers disturb. All print a table.
//!
//! Times of a shared machine mean little by themselves: servers take turns in each scenario, and the figure to
//! trust is the processor time.

mod connection;
mod flood;
mod growth;
mod guarded;
mod peers;
mod process;
mod report;
mod scenario;
mod secured;
mod socket;
mod wire;

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::flood::{Attack, Flood};
use crate::peers::{Kind, Running, Workshop};
use crate::report::Row;
use crate::scenario::{FanOut, Figures, Storm};

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Scenarios S1 to S6b, for Latchbus and its peers in turn
    Peers {
        /// How often each is run; the table shows medians
        #[arg(long, default_value_t = 1)]
        rounds: usize,
        /// Seconds of each measurement
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Only scenarios whose name begins so, such as s1
        #[arg(long, default_value = "")]
        only: String,
        /// Only servers whose name contains this
        #[arg(long, default_value = "")]
        server: String,
        /// Where peers.md and peers.svg go; the target folder unless told
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// S1 and S4 with users and rules, and with TLS, beside without
    Secured {
        /// How often each is run
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of each measurement
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Only scenarios whose name contains this
        #[arg(long, default_value = "")]
        only: String,
        /// The program of an earlier release, to be run in turn with the others
        #[arg(long)]
        earlier: Option<PathBuf>,
    },
    /// How long a signed-in client's messages take while strangers try passwords and handshakes
    Flood {
        /// How often each is run
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of each measurement
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Attempts a second
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
        /// One flood alone
        #[arg(long)]
        only: Option<Flood>,
    },
    /// One flood, for a server that runs
    Attack(Attack),
    /// S1 with more subscribers, and the bus with more topics and filters
    Growth,
    /// One row of the latter
    #[command(hide = true)]
    Grown {
        /// How many topics
        topics: usize,
    },
}

/// A scenario: who takes part, what is run, and which of its figures are shown.
struct Scenario {
    name: &'static str,
    who: &'static [Kind],
    run: fn(&Running, Duration) -> anyhow::Result<Figures>,
    rows: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

use Kind::{
    Axum, LatchbusDurable, LatchbusMqtt, LatchbusWs, Mosquitto, Nats, NodeWs, Rumqttd, SocketIo,
};

const SUBSCRIBERS: usize = 1_000;
const RETAINED: usize = 10_000;
const EVERYONE: &[Kind] = &[
    LatchbusWs,
    LatchbusMqtt,
    Mosquitto,
    Nats,
    Rumqttd,
    NodeWs,
    SocketIo,
    Axum,
];
const RETAINING: &[Kind] = &[LatchbusWs, LatchbusMqtt, Mosquitto, Rumqttd];

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "s1-w1",
        who: EVERYONE,
        run: |running, time| {
            scenario::fan_out(
                &running.server,
                &running.target,
                every_one(SUBSCRIBERS, 1),
                time,
            )
        },
        rows: &[(
            "S1 fan-out to 1,000, one at a time",
            "CPU s a million",
            "cpu_s_per_million",
            "≤ 6.5",
        )],
    },
    Scenario {
        name: "s1-w16",
        who: EVERYONE,
        run: |running, time| {
            scenario::fan_out(
                &running.server,
                &running.target,
                every_one(SUBSCRIBERS, 16),
                time,
            )
        },
        rows: &[(
            "S1 fan-out to 1,000, bursts of 16",
            "CPU s a million",
            "cpu_s_per_million",
            "≤ 0.7",
        )],
    },
    Scenario {
        name: "s2",
        who: EVERYONE,
        run: |running, time| {
            scenario::latency(&running.server, &running.target, (SUBSCRIBERS, 100), time)
        },
        rows: &[(
            "S2 delivery at 100 messages a second, median",
            "ms",
            "p50_ms",
            "below Socket.IO",
        )],
    },
    Scenario {
        name: "s3",
        who: EVERYONE,
        run: |running, _| scenario::idle(&running.server, &running.target, 5_000),
        rows: &[(
            "S3 an idle connection, of 5,000",
            "KiB",
            "kib_per_connection",
            "≤ 6 and ≤ 4, then ≤ 2",
        )],
    },
    Scenario {
        name: "s4",
        who: &[LatchbusMqtt, LatchbusDurable, Mosquitto, Rumqttd],
        run: |running, time| {
            scenario::fan_in(
                &running.server,
                &running.target,
                (200, running.stores),
                time,
            )
        },
        rows: &[
            (
                "S4 fan-in of 200 at QoS 1",
                "CPU s a million",
                "cpu_s_per_million",
                "≤ 9",
            ),
            (
                "S4 the same",
                "µs an acknowledgement",
                "ack_us",
                "fewer than all",
            ),
        ],
    },
    Scenario {
        name: "s5",
        who: &[LatchbusWs, NodeWs, SocketIo],
        run: run_storm,
        rows: &[
            (
                "S5 storm, 20,000 clicks a second for 8 s",
                "CPU s",
                "cpu_s",
                "≤ 2.0",
            ),
            (
                "S5 fast dashboards final after",
                "ms",
                "fast_final_ms",
                "≤ 100",
            ),
            (
                "S5 slow dashboards final after",
                "ms",
                "slow_final_ms",
                "≤ 100",
            ),
            ("S5 memory at most", "MiB", "most_mib", "flat"),
        ],
    },
    Scenario {
        name: "s6-all",
        who: RETAINING,
        run: |running, _| {
            scenario::late_joiner(
                &running.server,
                (&running.source, &running.target),
                RETAINED,
            )
        },
        rows: &[("S6 late joiner, 10,000 retained", "ms", "whole_ms", "≤ 20")],
    },
    Scenario {
        name: "s6b",
        who: RETAINING,
        run: |running, _| scenario::first_value((&running.source, &running.target)),
        rows: &[(
            "S6b connect to first value, median",
            "ms",
            "p50_ms",
            "≤ 0.5",
        )],
    },
];

/// S1 as it is compared with others.
pub(crate) const fn every_one(subscribers: usize, window: usize) -> FanOut {
    FanOut {
        filter: "bench",
        subscribers,
        window,
    }
}

fn run_storm(running: &Running, _: Duration) -> anyhow::Result<Figures> {
    let ours = running.target.protocol == wire::Protocol::Latchbus;
    let storm = Storm {
        filter: if ours { "clicks/main/values" } else { "bench" },
        key: if ours { "\"red\":" } else { "\"count\":" },
        dashboards: 500,
        devices: 200,
        rate: 20_000,
        time: Duration::from_secs(8),
    };
    scenario::storm(&running.server, &running.target, storm)
}

/// Figures that follow from others.
fn derived(figures: &Figures) -> Figures {
    let of = |name| {
        let found = figures.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| *value)
    };
    let ack = of("acks_per_s").map(|rate| ("ack_us", 1e6 / rate));
    // A snapshot that is cut short is never whole.
    let whole = of("all_ms").zip(of("received")).map(|(time, received)| {
        let is_whole = received >= RETAINED as f64;
        ("whole_ms", if is_whole { time } else { f64::INFINITY })
    });
    ack.into_iter().chain(whole).collect()
}

fn main() -> anyhow::Result<()> {
    raise_open_files();
    match Line::parse().verb {
        Verb::Peers {
            rounds,
            seconds,
            only,
            server,
            out,
        } => {
            let workshop = Workshop::new()?;
            let time = Duration::from_secs_f64(seconds);
            let out = out.unwrap_or_else(|| workshop.folder().to_owned());
            compare(&workshop, rounds, time, (&only, &server), &out)
        }
        Verb::Secured {
            rounds,
            seconds,
            only,
            earlier,
        } => {
            let plan = secured::Plan {
                rounds,
                time: Duration::from_secs_f64(seconds),
                only,
                earlier,
            };
            secured::compare(&Workshop::new()?, &plan)
        }
        Verb::Flood {
            rounds,
            seconds,
            rate,
            only,
        } => {
            let plan = flood::Plan {
                rounds,
                time: Duration::from_secs_f64(seconds),
                rate,
                only,
            };
            flood::compare(&Workshop::new()?, &plan)
        }
        Verb::Attack(attack) => flood::attack(&attack),
        Verb::Growth => growth::run(&Workshop::new()?),
        Verb::Grown { topics } => growth::grown(topics),
    }
}

fn compare(
    workshop: &Workshop,
    rounds: usize,
    time: Duration,
    (only, server): (&str, &str),
    out: &std::path::Path,
) -> anyhow::Result<()> {
    let mut remarks = Vec::new();
    let mut present = Vec::new();
    for kind in Kind::ALL
        .into_iter()
        .filter(|kind| kind.name().contains(server))
    {
        match workshop.prepare(kind) {
            Ok(()) => present.push(kind),
            Err(error) => remarks.push(format!("Missing: {}: {error:#}.", kind.name())),
        }
    }
    let mut rows = Vec::new();
    for scenario in SCENARIOS
        .iter()
        .filter(|scenario| scenario.name.starts_with(only))
    {
        let mut shown: Vec<Row> = (scenario.rows.iter())
            .map(|&(title, unit, figure, aim)| Row {
                title: title.to_owned(),
                unit,
                figure,
                aim,
                values: BTreeMap::new(),
            })
            .collect();
        for _ in 0..rounds {
            for kind in scenario.who.iter().filter(|kind| present.contains(kind)) {
                match measure(workshop, *kind, scenario, time) {
                    Ok(figures) => {
                        for row in &mut shown {
                            let value = figures.iter().find(|(name, _)| *name == row.figure);
                            row.values
                                .entry(kind.name())
                                .or_default()
                                .extend(value.map(|(_, value)| value));
                        }
                    }
                    Err(error) => {
                        remarks.push(format!("{}, {}: {error:#}.", scenario.name, kind.name()));
                    }
                }
            }
        }
        rows.append(&mut shown);
    }
    remarks.sort();
    remarks.dedup();
    let table = report::markdown(&rows, &remarks);
    fs::create_dir_all(out)?;
    fs::write(out.join("peers.md"), &table)?;
    fs::write(
        out.join("peers.svg"),
        report::svg(&rows, "Latchbus and others, less is better"),
    )?;
    print(&format!("\n{table}\n{}\n", out.display()))
}

fn measure(
    workshop: &Workshop,
    kind: Kind,
    scenario: &Scenario,
    time: Duration,
) -> anyhow::Result<Figures> {
    let running = workshop.start(kind, scenario.name == "s5")?;
    let (busy, own, begun) = (
        process::machine_cpu_seconds()?,
        running.server.cpu_seconds()?,
        std::time::Instant::now(),
    );
    let mut figures = (scenario.run)(&running, time)
        .with_context(|| format!("{} against {}", scenario.name, kind.name()))?;
    figures.extend(derived(&figures));
    // How busy the machine was beside the server: the generator, and whatever disturbs.
    let others = process::machine_cpu_seconds()? - busy - (running.server.cpu_seconds()? - own);
    let mut line = format!("{} {}:", scenario.name, kind.name());
    for (name, value) in &figures {
        line += &format!(" {name}={value:.3}");
    }
    line += &format!(
        " other_cores={:.2}\n",
        others / begun.elapsed().as_secs_f64()
    );
    print(&line)?;
    Ok(figures)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Ten thousand connections are as many open files.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Without it the large scenarios fail, and say so.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}
