//! The command line.

use core::time::Duration;
use std::path::PathBuf;

use clap::Parser;
use clap::error::ErrorKind;
use latchbus_core::clicks::{MAX_COUNT, is_name};
use tracing_subscriber::EnvFilter;

use crate::address::Address;
use crate::simulation::{MAX_RATE, Pace};
use crate::timeout;

/// The headless Latchbus client: reads clicks from standard input, counts them on disk, and tells the server.
///
/// A line `red`, `blue`, `r` or `b`, optionally with a number up to 1000000, is that many clicks. A line is counted
/// when its count is in the state file; from then on no kill and no cut loses it, and the server counts it once.
/// Exit status: 0 when the server has acknowledged every click, 1 when it has not, 2 when the device
/// could not begin.
#[derive(Debug, Parser)]
#[command(name = "latchbus-device", version)]
pub(crate) struct Args {
    /// The device's name: letters, digits and `._-`, at most 64, the first a letter or digit
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) id: String,

    /// The room it counts in, named by the same rules
    #[arg(long, value_name = "NAME", default_value = "main", value_parser = name)]
    pub(crate) room: String,

    /// The server: mqtt://host:port or ws://host:port/ws, with TLS mqtts or wss. Over WebSocket there is no will, so that a
    /// device that is killed stays `online`
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    pub(crate) url: Address,

    /// The authorities whose server it trusts [default: those of the system]
    #[arg(long, value_name = "FILE.pem")]
    pub(crate) ca: Option<PathBuf>,

    /// The certificate that it shows the server
    #[arg(long, value_name = "FILE.pem", requires = "key")]
    pub(crate) cert: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE.pem", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// The user that it signs in as; the password is in a file or in LATCHBUS_PASSWORD
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// The file with the password, a line
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(crate) password_file: Option<PathBuf>,

    /// Where it keeps its counts [default: latchbus/ROOM-ID.json in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,

    /// Make so many clicks a second instead of reading them
    #[arg(long, value_name = "CLICKS_PER_SECOND", value_parser = pace)]
    pub(crate) simulate: Option<Pace>,

    /// End the simulation after so many clicks. One that was interrupted is completed by the next start with the
    /// same count and seed; after one whose every click was acknowledged, the next start makes as many again
    #[arg(long, value_name = "N", requires = "simulate", value_parser = clap::value_parser!(u64).range(1..=MAX_COUNT))]
    pub(crate) count: Option<u64>,

    /// Where the colours of the simulation come from: the same seed, the same colours [default: random]
    #[arg(long, value_name = "S", requires = "simulate")]
    pub(crate) seed: Option<u64>,

    /// Print the room's score to standard output, a line of JSON whenever it has changed
    #[arg(long)]
    pub(crate) watch: bool,

    /// At the end, wait so long for the server's acknowledgement: a number and ms, s or m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout::parse)]
    pub(crate) timeout: Duration,

    /// What to log to standard error: error, warn, info, debug or trace, also for each module
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    pub(crate) log: String,
}

impl Args {
    /// Reads the command line.
    ///
    /// # Errors
    /// The text to print, and whether it is what was asked for (`--help`) rather than a complaint. A complaint
    /// is one line.
    pub(crate) fn read() -> Result<Self, (String, bool)> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => (error.to_string(), true),
            _ => (one_line(&error.to_string()), false),
        })
    }
}

/// The complaint without the usage that follows it.
fn one_line(message: &str) -> String {
    let complaint = message.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = complaint.split_whitespace().collect();
    let line = words.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

fn name(text: &str) -> Result<String, &'static str> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("expected letters, digits and `._-`, at most 64, the first a letter or digit")
    }
}

fn pace(text: &str) -> Result<Pace, String> {
    let rate = text.parse().ok().and_then(Pace::new);
    rate.ok_or_else(|| format!("expected a number above 0 and at most {MAX_RATE}"))
}

/// Only checked here: a filter can't be cloned, which an argument must be.
fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let args = Args::try_parse_from(["latchbus-device", "--id", "kiosk-1"]).unwrap();
        assert_eq!(args.room, "main");
        assert_eq!(args.url, "mqtt://127.0.0.1:1883".parse().unwrap());
        assert_eq!(args.timeout, Duration::from_secs(10));
        assert!(args.state.is_none() && args.simulate.is_none() && !args.watch);
    }

    #[test]
    fn a_complaint_is_one_line() {
        for arguments in [
            &["latchbus-device"][..],
            &["latchbus-device", "--id", "a b"],
            &["latchbus-device", "--id", "k1", "--count", "5"],
            &["latchbus-device", "--id", "k1", "--colour"],
        ] {
            let error = Args::try_parse_from(arguments).unwrap_err();
            let line = one_line(&error.to_string());
            assert!(!line.is_empty() && !line.contains('\n'), "{line}");
            assert!(!line.starts_with("error"), "{line}");
        }
    }
}
