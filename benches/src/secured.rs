//! What users, rules and TLS cost: S1 and S4 with them and without, in turn, and the ratios.

use core::fmt::Write as _;
use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ClientConfig;

use crate::connection::Target;
use crate::guarded::{Files, LOGIN, RuleSet, trusting};
use crate::peers::{Kind, Workshop, free_address};
use crate::print;
use crate::process::Server;
use crate::scenario::{self, FanOut, Figures};
use crate::wire::Protocol;

/// How the server is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setup {
    /// An earlier release, to which everybody comes.
    Earlier,
    /// Everybody comes, without TLS: what the others are compared with.
    Open,
    /// Clients sign in, and rules say what they may do.
    Rules(RuleSet),
    /// Everybody comes, with TLS.
    Tls,
}

const SETUPS: [Setup; 6] = [
    Setup::Earlier,
    Setup::Open,
    Setup::Rules(RuleSet::Shared),
    Setup::Rules(RuleSet::NamedElsewhere),
    Setup::Rules(RuleSet::Named),
    Setup::Tls,
];

impl Setup {
    const fn name(self) -> &'static str {
        match self {
            Self::Earlier => "earlier release",
            Self::Open => "anonymous",
            Self::Rules(RuleSet::Shared) => "users, 50 rules",
            Self::Rules(RuleSet::NamedElsewhere) => "users, 50 rules, a third with names",
            Self::Rules(RuleSet::Named) => "the same, the names in what is delivered",
            Self::Tls => "TLS 1.3",
        }
    }
}

/// A scenario of [`crate::scenario`]: its name, the protocol, and how many messages are under way; without it, S4.
const SCENARIOS: [(&str, Protocol, Option<usize>); 5] = [
    ("S1 one at a time, WebSocket", Protocol::Latchbus, Some(1)),
    ("S1 one at a time, MQTT", Protocol::Mqtt, Some(1)),
    ("S1 bursts of 16, WebSocket", Protocol::Latchbus, Some(16)),
    ("S1 bursts of 16, MQTT", Protocol::Mqtt, Some(16)),
    ("S4 fan-in at QoS 1, MQTT", Protocol::Mqtt, None),
];

/// What is measured, and how often.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How often each is run.
    pub(crate) rounds: usize,
    /// How long each measurement takes.
    pub(crate) time: Duration,
    /// Only scenarios whose name contains this.
    pub(crate) only: String,
    /// The program of an earlier release.
    pub(crate) earlier: Option<PathBuf>,
}

/// Runs all of it, prints a table, and leaves it in the workshop's folder.
///
/// # Errors
/// When a server fails.
pub(crate) fn compare(workshop: &Workshop, plan: &Plan) -> anyhow::Result<()> {
    workshop.prepare(Kind::LatchbusMqtt)?;
    let files = Files::new(workshop)?;
    let tls = trusting(files.authority())?;
    let setups: Vec<_> = SETUPS
        .into_iter()
        .filter(|setup| *setup != Setup::Earlier || plan.earlier.is_some())
        .collect();
    let mut table = String::from(
        "| CPU s a million | setup | median | range | beside anonymous | range |\n|---|---|---:|---:|---:|---:|\n",
    );
    for scenario in SCENARIOS
        .iter()
        .filter(|(name, ..)| name.contains(&plan.only))
    {
        let mut values = vec![Vec::new(); setups.len()];
        for round in 0..plan.rounds {
            // Each begins a round once, so that what grows or shrinks meanwhile is nobody's in particular.
            for place in 0..setups.len() {
                let place = (place + round) % setups.len();
                let (Some(setup), Some(values)) = (setups.get(place), values.get_mut(place)) else {
                    continue;
                };
                let figures = measure(&files, plan, *setup, &tls, *scenario)
                    .with_context(|| format!("{}, {}", scenario.0, setup.name()))?;
                let mut line = format!("{}, {}:", scenario.0, setup.name());
                for (name, value) in &figures {
                    let _ = write!(line, " {name}={value:.3}");
                }
                print(&(line + "\n"))?;
                values.extend(figures.first().map(|(_, value)| *value));
            }
        }
        let base = setups.iter().zip(&values);
        let base = base.filter(|(setup, _)| **setup == Setup::Open);
        let base: Vec<_> = base.flat_map(|(_, values)| values).copied().collect();
        for (setup, values) in setups.iter().zip(values) {
            let ratios = values.iter().zip(&base).map(|(value, base)| value / base);
            let (ratio, value) = (Spread::of(ratios.collect()), Spread::of(values));
            let _ = writeln!(
                table,
                "| {} | {} | {:.2} | {:.2}–{:.2} | {:.2} | {:.2}–{:.2} |",
                scenario.0,
                setup.name(),
                value.median,
                value.least,
                value.most,
                ratio.median,
                ratio.least,
                ratio.most,
            );
        }
    }
    fs::write(workshop.folder().join("secured.md"), &table)?;
    print(&format!("\n{table}"))
}

fn measure(
    files: &Files,
    plan: &Plan,
    setup: Setup,
    tls: &Arc<ClientConfig>,
    (_, protocol, window): (&str, Protocol, Option<usize>),
) -> anyhow::Result<Figures> {
    let (http, mqtt) = (free_address()?, free_address()?);
    let (http_tls, mqtt_tls) = (free_address()?, free_address()?);
    let earlier = plan.earlier.as_deref().filter(|_| setup == Setup::Earlier);
    let mut command = Files::command(earlier.unwrap_or(files.program()), http, mqtt);
    let is_web_socket = protocol.is_web_socket();
    let mut target = Target::open(if is_web_socket { http } else { mqtt }, protocol);
    match setup {
        Setup::Earlier | Setup::Open => {}
        Setup::Rules(rules) => {
            files.with_users(&mut command, Some(rules));
            target.login = Some(LOGIN);
        }
        Setup::Tls => {
            files.with_tls(&mut command, http_tls, mqtt_tls);
            target.tls = Some(Arc::clone(tls));
            target.address = if is_web_socket { http_tls } else { mqtt_tls };
        }
    }
    let server = Server::start(command, target.address, files.folder())?;
    match window {
        Some(window) => {
            let fan_out = FanOut {
                filter: "bench/#",
                subscribers: crate::SUBSCRIBERS,
                window,
            };
            scenario::fan_out(&server, &target, fan_out, plan.time)
        }
        None => scenario::fan_in(&server, &target, (200, false), plan.time),
    }
}

/// The middle of some figures, and how far they lie apart.
#[derive(Debug)]
pub(crate) struct Spread {
    /// The smallest.
    pub(crate) least: f64,
    /// The middle one.
    pub(crate) median: f64,
    /// The largest.
    pub(crate) most: f64,
}

impl Spread {
    /// Of these figures.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        Self {
            least: at(0),
            median: at(values.len() / 2),
            most: at(values.len().saturating_sub(1)),
        }
    }
}
