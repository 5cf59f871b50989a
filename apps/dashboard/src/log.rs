//! The log, on the standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

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

/// Begins to log. Where a program that embeds this one logs already, it goes on as it does.
pub(crate) fn start(filter: &LogFilter) -> Log {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !plain);
    let (filter, handle) = reload::Layer::new(filter.targets());
    let _started_before = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    Log(handle)
}
