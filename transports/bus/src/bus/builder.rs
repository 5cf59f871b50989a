//! How a bus is set up, one thing after the other.

use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use latchbus_core::hub::Limits;
use latchbus_core::topic::TopicFilter;

use super::{Bus, ClickLimits, HistoryRule, OpenError, Options, SessionLimits, StoreKind};
use crate::access::{Authenticator, Authorizer};
use crate::clock::Clock;
use crate::quota::Quotas;

/// Sets up a [`Bus`]. Without any of it the bus keeps everything in memory and everybody may do everything.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let directory = tempfile::tempdir()?;
/// use latchbus_bus::Bus;
///
/// let bus = Bus::builder()
///     .directory(directory.path())
///     .history("chat/#", 50)
///     .open()?;
/// bus.publish_state("chat/lobby", "hello").await?;
/// bus.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "`open` opens the bus"]
pub struct Builder {
    options: Options,
    history: Vec<(String, u16)>,
}

impl Builder {
    /// State survives a restart in this directory, which is made where there is none. What was acknowledged is on disk.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.options.store = StoreKind::Directory(directory.into());
        self
    }

    /// Who someone is.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.options.authenticator = Arc::new(authenticator);
        self
    }

    /// Who may do what.
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.options.authorizer = Arc::new(authorizer);
        self
    }

    /// The bounds of the hub.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = limits;
        self
    }

    /// The bounds of one session.
    pub const fn session_limits(mut self, limits: SessionLimits) -> Self {
        self.options.session = limits;
        self
    }

    /// What one user, or one address, may take.
    pub const fn quotas(mut self, quotas: Quotas) -> Self {
        self.options.quotas = quotas;
        self
    }

    /// The bounds of the click model.
    pub const fn click_limits(mut self, limits: ClickLimits) -> Self {
        self.options.clicks = limits;
        self
    }

    /// Rooms that are shown before their first click.
    pub fn rooms<S: Into<String>>(mut self, rooms: impl IntoIterator<Item = S>) -> Self {
        self.options.rooms = rooms.into_iter().map(Into::into).collect();
        self
    }

    /// State that matches `filter` keeps its last `keep` values. Of several rules the first that matches counts.
    pub fn history(mut self, filter: impl Into<String>, keep: u16) -> Self {
        self.history.push((filter.into(), keep));
        self
    }

    /// The longest time until state that was published at QoS 0 is on disk; zero: before it is delivered.
    pub const fn sync_interval(mut self, interval: Duration) -> Self {
        self.options.sync_interval = interval;
        self
    }

    /// Where the time comes from.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.options.clock = clock;
        self
    }

    /// How often the `$SYS` topics are published; none: never.
    pub const fn sys_every(mut self, every: Option<Duration>) -> Self {
        self.options.sys_every = every;
        self
    }

    /// Opens the bus. Call it inside a tokio runtime; reading the store blocks.
    ///
    /// # Errors
    /// [`OpenError`]. Nothing was changed.
    pub fn open(self) -> Result<Bus, OpenError> {
        let mut options = self.options;
        for (text, keep) in self.history {
            let filter = TopicFilter::parse(text.clone()).map_err(|source| OpenError::History {
                filter: text,
                source,
            })?;
            options.history.push(HistoryRule { filter, keep });
        }
        Bus::open(options)
    }
}

/// Goes on from these options.
impl From<Options> for Builder {
    fn from(options: Options) -> Self {
        Self {
            options,
            history: Vec::new(),
        }
    }
}
