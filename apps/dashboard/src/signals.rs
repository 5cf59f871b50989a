//! The signals that end the program, and those that do not.

use std::io;

use tracing::info;

use crate::reload::Reload;

/// A signal that somebody has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// The program is to end: the name of the signal and its number.
    Stop(&'static str, u8),
    /// SIGHUP: it is to read its settings again.
    Reload,
    /// SIGUSR1 or SIGUSR2, which mean nothing here: the name.
    Ignored(&'static str),
}

/// Waits for SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
    #[cfg(unix)]
    user: [tokio::signal::unix::Signal; 2],
}

impl Signals {
    /// From now on the signals no longer end the process by themselves.
    #[cfg(unix)]
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            user: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    /// The next signal.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Received {
        let [user_1, user_2] = &mut self.user;
        tokio::select! {
            _ = self.interrupt.recv() => Received::Stop("SIGINT", 2),
            _ = self.terminate.recv() => Received::Stop("SIGTERM", 15),
            _ = self.hang_up.recv() => Received::Reload,
            _ = user_1.recv() => Received::Ignored("SIGUSR1"),
            _ = user_2.recv() => Received::Ignored("SIGUSR2"),
        }
    }

    /// The next signal that ends the program: its name and its number. The others are dealt with meanwhile.
    pub(crate) async fn stop(&mut self, reload: &Reload) -> (&'static str, u8) {
        loop {
            match self.next().await {
                Received::Stop(name, number) => return (name, number),
                Received::Reload => reload.reload(),
                Received::Ignored(name) => info!(target: "server", "{name}: ignored"),
            }
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) -> Received {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Received::Stop("Ctrl-C", 2),
            Err(_) => core::future::pending().await,
        }
    }
}
