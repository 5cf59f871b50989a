//! The log, on the standard error.

use core::str::FromStr;
use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use crate::settings::LogFilter;

/// The log that has begun.
#[derive(Debug)]
pub(crate) struct Log(reload::Handle<Targets, Registry>);

impl Log {
    /// Changes what is logged from now on, and returns it.
    pub(crate) fn set(&self, filter: &LogFilter) -> Result<Targets, reload::Error> {
        self.0.reload(filter.targets())?;
        Ok(filter.targets())
    }
}

/// How a line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for programs: `timestamp`, `level`, `target`, `message`, and what the line is about.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json"),
        }
    }
}

/// Begins to log. Where a program that embeds this one logs already, it goes on as it does.
pub(crate) fn start(filter: &LogFilter, format: LogFormat) -> Log {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => lines
            .with_ansi(io::stderr().is_terminal() && !plain)
            .boxed(),
        LogFormat::Json => lines.with_ansi(false).json().flatten_event(true).boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter.targets());
    let _started_before = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    Log(handle)
}
