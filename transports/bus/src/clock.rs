//! Two times: of day, for timestamps, and a monotonic one, for everything that expires.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::store::{Change, StoredNote};

/// Where a bus reads the time. Clones read one clock.
///
/// | reading | what it is for |
/// |---|---|
/// | [`unix_ms`](Self::unix_ms) | timestamps: it steps when somebody sets the machine's clock |
/// | [`deadline_ms`](Self::deadline_ms) | message expiry, session expiry and will delay: it never steps |
///
/// The second begins as the time of day at the first start of a store. While the program runs it advances with the
/// monotonic clock. Over a restart it advances by the time of day that has passed, at most
/// [`Options::max_downtime`](crate::Options::max_downtime), and not at all if the clock was not set before or is
/// not set now: what happened between cannot be known then.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    source: Source,
    /// From the monotonic clock to deadlines; none before a bus has begun.
    offset: Option<i64>,
}

#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    unix_ms: AtomicU64,
    monotonic_ms: AtomicU64,
    built_ms: u64,
}

/// What a store knows of the time at its last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastTime {
    pub(crate) deadline_ms: u64,
    pub(crate) unix_ms: u64,
    /// Whether the clock was set, as the program of then knew it.
    pub(crate) is_set: bool,
}

impl Clock {
    /// By how much the two times may differ without being converted into each other: a clock that is kept right by
    /// small corrections stays below it.
    const DRIFT_MS: i64 = 60_000;

    /// The machine's. The default.
    pub const fn system() -> Self {
        Self {
            source: Source::System,
            offset: None,
        }
    }

    /// One that stands, in milliseconds since the Unix epoch, until it is [`set`](Self::set): for tests and
    /// simulations. Any time counts as set.
    pub fn manual(unix_ms: u64) -> Self {
        Self::manual_built(unix_ms, 0)
    }

    /// A manual clock of a program that was built at `built_ms`: before that it counts as not set.
    pub fn manual_built(unix_ms: u64, built_ms: u64) -> Self {
        let manual = Manual {
            unix_ms: unix_ms.into(),
            monotonic_ms: unix_ms.into(),
            built_ms,
        };
        Self {
            source: Source::Manual(Arc::new(manual)),
            offset: None,
        }
    }

    /// Sets a manual clock: forwards time passes, back the time of day [steps](Self::step). False for the machine's,
    /// which it leaves alone.
    pub fn set(&self, unix_ms: u64) -> bool {
        if let Source::Manual(clock) = &self.source {
            let before = clock.unix_ms.load(Ordering::Relaxed);
            let passed = unix_ms.saturating_sub(before);
            clock.monotonic_ms.fetch_add(passed, Ordering::Relaxed);
        }
        self.step(unix_ms)
    }

    /// Sets the time of day of a manual clock, and no time passes, as when somebody sets a machine's clock. False for
    /// the machine's, which it leaves alone.
    pub fn step(&self, unix_ms: u64) -> bool {
        let Source::Manual(clock) = &self.source else {
            return false;
        };
        clock.unix_ms.store(unix_ms, Ordering::Relaxed);
        true
    }

    /// The time of day: milliseconds since the Unix epoch; 0 on a machine whose clock stands before it.
    pub fn unix_ms(&self) -> u64 {
        match &self.source {
            Source::Manual(clock) => clock.unix_ms.load(Ordering::Relaxed),
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
        }
    }

    /// The time by which intervals end, in milliseconds. It never goes back, and close to [`unix_ms`](Self::unix_ms)
    /// unless the machine's clock was wrong. Before a bus has begun it is that.
    pub fn deadline_ms(&self) -> u64 {
        match self.offset {
            Some(offset) => self.monotonic_ms().saturating_add_signed(offset),
            None => self.unix_ms(),
        }
    }

    /// Whether the time of day is later than the program's own build: a machine without a battery for its clock
    /// starts in 1970, or where it was shut down.
    pub fn is_set(&self) -> bool {
        self.unix_ms() >= self.built_ms()
    }

    /// A deadline as a time of day, as an export has it.
    pub(crate) fn to_unix(&self, deadline_ms: u64) -> u64 {
        deadline_ms.saturating_add_signed(self.drift())
    }

    /// A time of day, as an export has it, as a deadline.
    pub(crate) fn to_deadline(&self, unix_ms: u64) -> u64 {
        unix_ms.saturating_add_signed(-self.drift())
    }

    pub(crate) fn now(&self) -> LastTime {
        LastTime {
            deadline_ms: self.deadline_ms(),
            unix_ms: self.unix_ms(),
            is_set: self.is_set(),
        }
    }

    /// The clock of a bus that begins, with deadlines that go on from its last life. `newest_at` is the newest timestamp
    /// of a store: one without a last time was written by a version whose deadlines were times of day.
    pub(crate) fn begin(
        &self,
        last: Option<LastTime>,
        newest_at: Option<u64>,
        max_downtime: Duration,
    ) -> Self {
        let (now, is_set) = (self.unix_ms(), self.is_set());
        if !is_set {
            warn!(
                target: "server",
                unix_ms = now,
                built_ms = self.built_ms(),
                "the clock is not set: it stands before the build of this program; nothing expires because of that"
            );
        }
        let start = match (last, newest_at) {
            (Some(last), _) => {
                let max = u64::try_from(max_downtime.as_millis()).unwrap_or(u64::MAX);
                let passed = match is_set && last.is_set {
                    true => now.saturating_sub(last.unix_ms),
                    false => 0,
                };
                if passed > max || now.abs_diff(last.unix_ms) > passed {
                    info!(
                        target: "server",
                        last_unix_ms = last.unix_ms,
                        unix_ms = now,
                        counted_ms = passed.min(max),
                        "not all of the time since the last commit counts for what expires"
                    );
                }
                last.deadline_ms.saturating_add(passed.min(max))
            }
            (None, Some(newest)) if !is_set || (newest < SET_SINCE && SET_SINCE <= now) => newest,
            (None, _) => now.max(self.built_ms()),
        };
        let monotonic = i64::try_from(self.monotonic_ms()).unwrap_or(i64::MAX);
        let start = i64::try_from(start).unwrap_or(i64::MAX);
        Self {
            source: self.source.clone(),
            offset: Some(start.saturating_sub(monotonic)),
        }
    }

    /// What is to be added to a deadline for a time of day; nothing where that is not known.
    fn drift(&self) -> i64 {
        let (unix, deadline) = (self.unix_ms(), self.deadline_ms());
        let difference = i64::try_from(i128::from(unix) - i128::from(deadline)).unwrap_or(0);
        match self.is_set() && difference.abs() > Self::DRIFT_MS {
            true => difference,
            false => 0,
        }
    }

    fn monotonic_ms(&self) -> u64 {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        match &self.source {
            Source::Manual(clock) => clock.monotonic_ms.load(Ordering::Relaxed),
            Source::System => ORIGIN.get_or_init(Instant::now).elapsed().as_millis() as u64,
        }
    }

    fn built_ms(&self) -> u64 {
        match &self.source {
            Source::Manual(clock) => clock.built_ms,
            Source::System => {
                static BUILT_MS: OnceLock<u64> = OnceLock::new();
                let parse = || env!("LATCHBUS_BUILT_AT").parse::<u64>();
                *BUILT_MS.get_or_init(|| parse().map_or(0, |secs| secs.saturating_mul(1_000)))
            }
        }
    }
}

/// 2020-01-01: no version that stored no last time is older, so what it wrote with a time before that was written
/// with a clock that was not set.
const SET_SINCE: u64 = 1_577_836_800_000;

impl LastTime {
    /// It is stored as a note of the bus's own, so that earlier versions can read the store too.
    const OWNER: &str = "$bus";
    const NAME: &str = "clock";
    const PART: &[u8] = b"last";
    const FORMAT: u8 = 1;

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![Self::FORMAT];
        // Two numbers and a bool always can be written.
        bytes.extend(postcard::to_allocvec(&self).unwrap_or_default());
        bytes
    }

    /// The change that stores it.
    pub(crate) const fn change(bytes: &[u8]) -> Change<'_> {
        Change::Note {
            owner: Self::OWNER,
            client: Self::NAME,
            part: Some(Self::PART),
            value: Some(bytes),
        }
    }

    /// Takes it out of what was stored.
    pub(crate) fn take(notes: &mut Vec<StoredNote>) -> Option<Self> {
        let of_bus = |note: &mut StoredNote| note.owner == Self::OWNER;
        let own = notes.extract_if(.., of_bus).next()?;
        let (format, value) = own.value.split_first()?;
        let time = postcard::from_bytes(value).ok();
        time.filter(|_| *format == Self::FORMAT)
    }
}
