//! The log, on the standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::settings::LogFilter;

/// Begins to log. Where a program that embeds this one logs already, it goes on as it does.
pub(crate) fn start(filter: &LogFilter) {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !plain);
    let _started_before = tracing_subscriber::registry()
        .with(lines)
        .with(filter.targets())
        .try_init();
}
