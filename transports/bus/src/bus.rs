//! The bus: one hub, its rules, its store, and the handles by which programs and transports use it.

mod admission;
mod builder;
mod client;
mod connected;
mod farewell;
mod history;
mod reading;
mod values;

pub use self::admission::SIGN_IN_TIMEOUT;
pub use self::builder::Builder;
pub use self::client::{Accepted, Client, Receipt};
pub(crate) use self::client::{Queued, Rate};
pub use self::connected::{AdminError, CLIENTS_PAGE, Connected, MAX_CLIENTS_PAGE, Subscribed};
pub use self::farewell::Farewell;
pub use self::history::{HISTORY_PAGE, HISTORY_PAGE_BYTES, HistoryPage, MAX_HISTORY_PAGE};
pub use self::values::{Value, Watch};

use core::{
    cmp::Reverse,
    fmt, mem,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Instant,
};

use latchbus_core::clicks::DEFAULT_MAX_LIVE;
use latchbus_core::hub::{Hub, HubCounts, Limits, Mode, Start};
use latchbus_core::topic::{TopicError, TopicFilter, TopicName};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::admission::Allowed;
use self::admission::Asked;
use crate::access::{AllowAll, AnonymousOnly, Authenticator, Authorizer, Principal};
use crate::budget::Budget;
use crate::capacity::{self, Capacity, Table};
use crate::clock::{Clock, LastTime};
use crate::commits::{Commits, QUEUE};
use crate::health::Health;
use crate::holdings::Bounds;
use crate::metrics::{Gauge, Metrics};
use crate::pipeline::Pipeline;
use crate::quota::{Quotas, Table as Quota};
use crate::refusal::{Forbidden, PublishRefused, SubscribeRefused};
use crate::session::Subscriptions;
use crate::shared::Shared;
use crate::store::{Disk, FileStore, Loaded, Store, StoreError, StoredNote};
use crate::subscription::Subscription;
use crate::wake::{Wake, WeakWake, lock};
use crate::writer::Writer;
use crate::{Delivery, LogLimit, Payload, Publish, Remembered, sys};

/// How a bus is set up. The default keeps everything in memory.
#[derive(Clone)]
pub struct Options {
    /// The bounds of the hub.
    pub limits: Limits,
    /// Where state survives a restart.
    pub store: StoreKind,
    /// Who someone is.
    pub authenticator: Arc<dyn Authenticator>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// The bounds of the click model.
    pub clicks: ClickLimits,
    /// Rooms that are shown before their first click.
    pub rooms: Vec<String>,
    /// The bounds of one session.
    pub session: SessionLimits,
    /// What one user, or one address, may take.
    pub quotas: Quotas,
    /// Topics that keep more than their last value; the first rule that matches counts.
    pub history: Vec<HistoryRule>,
    /// State that was published at QoS 0 is shown before it is on disk, and is there after so long at the latest;
    /// zero: before it is shown, as all else.
    pub sync_interval: Duration,
    /// Where the time comes from.
    pub clock: Clock,
    /// The most of the time between two lives that counts for what expires: a machine's clock may be wrong by years
    /// at a start. See [`Clock`].
    pub max_downtime: Duration,
    /// How often the `$SYS` topics are published; none: never.
    pub sys_every: Option<Duration>,
    /// Where chance begins: two buses that open with one seed make the same choices. None: anywhere.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            store: StoreKind::Memory,
            authenticator: Arc::new(AnonymousOnly),
            authorizer: Arc::new(AllowAll),
            clicks: ClickLimits::default(),
            rooms: vec!["main".into()],
            session: SessionLimits::default(),
            quotas: Quotas::default(),
            history: Vec::new(),
            sync_interval: Duration::from_secs(1),
            clock: Clock::system(),
            max_downtime: Duration::from_hours(24),
            sys_every: Some(sys::EVERY),
            seed: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("limits", &self.limits)
            .field("store", &self.store)
            .field("clicks", &self.clicks)
            .field("rooms", &self.rooms)
            .field("session", &self.session)
            .field("quotas", &self.quotas)
            .field("history", &self.history)
            .field("sync_interval", &self.sync_interval)
            .field("clock", &self.clock)
            .field("max_downtime", &self.max_downtime)
            .field("sys_every", &self.sys_every)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Where state survives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// Nowhere. Acknowledgements go out when a message is in the hub.
    Memory,
    /// In a directory. Acknowledgements of state go out when it is on disk.
    Directory(PathBuf),
}

impl StoreKind {
    /// Whether there is a store already. To open a directory makes one.
    pub fn is_there(&self) -> bool {
        match self {
            Self::Memory => false,
            Self::Directory(directory) => Disk::is_in(directory),
        }
    }
}

/// The bounds of the click model. Beyond them a report is refused; nobody is evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClickLimits {
    /// Rooms.
    pub rooms: usize,
    /// Devices in a room.
    pub devices: usize,
    /// Live incarnations of a device.
    pub incarnations: usize,
}

impl Default for ClickLimits {
    fn default() -> Self {
        Self {
            rooms: 1_000,
            devices: 10_000,
            incarnations: DEFAULT_MAX_LIVE,
        }
    }
}

/// The bounds of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Subscriptions.
    pub subscriptions: usize,
    /// Requests that wait for their answers; a session at this bound reads no further.
    pub in_flight: usize,
    /// The least time between two batches of a subscription in mode `latest` that names none itself; in each
    /// of them a topic comes once. Zero: as they come. The default, 20 ms, is a frame that nobody misses, and
    /// makes the cost of a storm that of its frames and not that of its messages.
    pub pace: Duration,
    /// Bytes of messages that are half received, over all sessions and transports; as many may wait for the store.
    pub incoming_bytes: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            subscriptions: 10_000,
            in_flight: 256,
            pace: Duration::from_millis(20),
            incoming_bytes: 256 << 20,
        }
    }
}

/// State that matches `filter` keeps its last `keep` values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRule {
    /// Which topics.
    pub filter: TopicFilter<String>,
    /// How many values, from 1.
    pub keep: u16,
}

/// Why a bus could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store.
    #[error("cannot open the store in {}", directory.display())]
    Store {
        /// The directory that was named.
        directory: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A rule for histories names no filter.
    #[error("history of `{filter}`")]
    History {
        /// What it names.
        filter: String,
        /// Why it is none.
        #[source]
        source: TopicError,
    },
    /// It was opened outside a tokio runtime.
    #[error("a bus runs in a tokio runtime, and there is none here")]
    NoRuntime,
    /// The thread that writes to the store could not be started.
    #[error("cannot start the writer")]
    Writer(#[source] io::Error),
}

/// The hub as everybody shares it. Clones are handles to one bus.
#[derive(Debug, Clone)]
pub struct Bus(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    shared: Arc<Shared>,
    pipeline: Arc<Mutex<Pipeline>>,
    /// None where nothing is stored: then the pipeline runs where the publish is made.
    writer: Option<Writer>,
    authenticator: Asked<dyn Authenticator>,
    authorizer: Asked<dyn Authorizer>,
    /// See [`Bus::rules`].
    rules: AtomicU64,
    /// Sent when it has.
    rule_changes: watch::Sender<()>,
    session: SessionLimits,
    /// None where nothing is bounded, so that it costs nothing then.
    quota: Option<Quota>,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    /// Who still has something to say before the sessions end, and whether these are to.
    farewells: AtomicUsize,
    sessions_end: CancellationToken,
    /// The same where it is asked at every turn.
    is_closing: AtomicBool,
    /// Streams that end when the bus closes.
    streams: Mutex<Vec<WeakWake>>,
    /// The id of the next client.
    clients: AtomicU64,
    sessions: Mutex<Vec<Weak<Subscriptions>>>,
    /// What was remembered of clients before, until its owners have asked for it.
    notes: Mutex<Vec<StoredNote>>,
    log_limit: LogLimit,
    clicks: ClickLimits,
    watches: Mutex<[capacity::Watch; 4]>,
    incoming: Arc<Budget>,
    /// Of what waits for the store: the bytes of large payloads.
    queue_bytes: Arc<Semaphore>,
}

impl Bus {
    /// Sets up a bus: see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Opens a bus. Call it inside a tokio runtime; reading the store blocks.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(OpenError::NoRuntime);
        }
        let (kind, tombstones) = (options.store.clone(), options.limits.tombstones);
        let assembled = match &kind {
            StoreKind::Memory => Self::assemble(options, |_| Ok(None)),
            StoreKind::Directory(directory) => Self::assemble(options, |epoch| {
                let disk = Disk::directory(directory)?;
                let (store, loaded) = FileStore::open(disk, epoch, tombstones)?;
                Ok(Some((Box::new(store), loaded)))
            }),
        };
        let (bus, commits) = assembled.map_err(|source| OpenError::Store {
            directory: match kind {
                StoreKind::Memory => PathBuf::new(),
                StoreKind::Directory(directory) => directory,
            },
            source,
        })?;
        if let Some((writer, commits)) = bus.0.writer.as_ref().zip(commits) {
            writer.start(commits).map_err(OpenError::Writer)?;
        }
        Ok(bus)
    }

    /// A bus that begins with what a store has, if there is one, and the writer of the store, which nobody drives
    /// yet. `open` is told the epoch of a store that is new.
    pub(crate) fn assemble(
        options: Options,
        open: impl FnOnce(u64) -> Result<Option<(Box<dyn Store>, Loaded)>, StoreError>,
    ) -> Result<(Self, Option<Commits>), StoreError> {
        let mut random = options
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let metrics = Arc::new(Metrics::default());
        let epoch = random.u64(1..=u64::from(u32::MAX));
        let began = Instant::now();
        let (store, mut loaded) = match open(epoch)? {
            Some((store, loaded)) => (Some(store), loaded),
            None => {
                let epoch_of_this_life = Loaded {
                    epoch,
                    ..Loaded::default()
                };
                (None, epoch_of_this_life)
            }
        };
        let revision = loaded.life.revision;
        (metrics.loaded).set((loaded.items.len() + loaded.devices.len()) as u64);
        let mut notes = mem::take(&mut loaded.notes);
        loaded.notes_stored = notes.len() as u64;
        let last_time = LastTime::take(&mut notes);
        let newest_at = loaded.items.iter().map(|(.., item)| item.at()).max();
        let clock = (options.clock).begin(last_time, newest_at, options.max_downtime);
        let shared = Arc::new(Shared::new(
            loaded.epoch,
            (options.limits, options.clicks),
            Bounds::new(&options.quotas),
            clock,
        ));
        let (pipeline, first) = Pipeline::new(
            Arc::clone(&shared),
            Arc::clone(&metrics),
            &options,
            loaded,
            random.u32(..),
        );
        metrics.load_micros.set(began.elapsed().as_micros() as u64);
        let pipeline = Arc::new(Mutex::new(pipeline));
        let (writer, commits) = match store {
            None => {
                lock(&pipeline).finish(first, shared.clock.unix_ms(), None);
                (None, None)
            }
            Some(store) => {
                metrics.store_bytes.set(store.sizes().bytes);
                let (queue, jobs) = mpsc::channel(QUEUE);
                let health = Arc::new(Health::default());
                let mut commits = Commits::new(
                    jobs,
                    (Arc::clone(&pipeline), Arc::clone(&shared)),
                    (store, revision),
                    !options.sync_interval.is_zero(),
                    Arc::clone(&metrics),
                    Arc::clone(&health),
                );
                commits.begin_life(first)?;
                let unsynced = commits.unsynced();
                (Some(Writer::new(queue, health, unsynced)), Some(commits))
            }
        };
        shared.set_durables_incomplete(!notes.is_empty());
        let queue_bytes = (options.session.incoming_bytes)
            .min(Semaphore::MAX_PERMITS)
            .min(u32::MAX as usize);
        let bus = Self(Arc::new(Inner {
            shared,
            pipeline,
            writer,
            authenticator: Asked(options.authenticator),
            authorizer: Asked(options.authorizer),
            rule_changes: watch::Sender::new(()),
            rules: AtomicU64::new(0),
            session: options.session,
            quota: Quota::new(options.quotas),
            metrics,
            closing: CancellationToken::new(),
            farewells: AtomicUsize::new(0),
            sessions_end: CancellationToken::new(),
            is_closing: AtomicBool::new(false),
            streams: Mutex::new(Vec::new()),
            clients: AtomicU64::new(1),
            sessions: Mutex::new(Vec::new()),
            notes: Mutex::new(notes),
            log_limit: LogLimit::default(),
            clicks: options.clicks,
            watches: Mutex::default(),
            incoming: Arc::new(Budget::new(options.session.incoming_bytes)),
            queue_bytes: Arc::new(Semaphore::new(queue_bytes)),
        }));
        bus.watch_rules();
        tokio::spawn(sys::run(Arc::downgrade(&bus.0), options.sys_every));
        if bus.is_stored() && !options.sync_interval.is_zero() {
            tokio::spawn(sys::sync(Arc::downgrade(&bus.0), options.sync_interval));
        }
        Ok((bus, commits))
    }

    /// Publishes from inside the process, and waits until the message is accepted and, where it is to be
    /// durable, on disk.
    ///
    /// # Errors
    /// When rules or bounds refuse it.
    pub async fn publish(&self, publish: Publish) -> Result<Accepted, PublishRefused> {
        let client = self.client(Principal::process()).map_err(|_| {
            PublishRefused::NotAllowed(publish.topic.as_str().into(), Forbidden::Topic)
        })?;
        client.publish(publish).await
    }

    /// Subscribes from inside the process.
    ///
    /// # Errors
    /// When rules or bounds refuse it.
    pub fn subscribe(
        &self,
        filter: TopicFilter<&str>,
        mode: Mode,
        start: Start,
    ) -> Result<Subscription, SubscribeRefused> {
        let client = self
            .client(Principal::process())
            .map_err(|_| SubscribeRefused::NotAllowed(filter.as_str().into()))?;
        client.subscribe(filter, mode, start)
    }

    /// The newest kept value of a topic.
    pub fn last(&self, topic: TopicName<&str>) -> Option<Delivery> {
        let last = self.0.shared.read(|hub| hub.last(topic));
        last.filter(|entry| !entry.payload.has_expired(self.clock().deadline_ms()))
    }

    /// Every kept value that matches, by topic.
    pub fn kept(&self, filter: TopicFilter<&str>) -> Vec<Delivery> {
        let mut kept = self.0.shared.read(|hub| hub.kept(filter));
        let now = self.clock().deadline_ms();
        kept.retain(|entry| !entry.payload.has_expired(now));
        kept
    }

    /// The clients that have lost most messages in the subscriptions that they have now, most first; none
    /// of those that have lost nothing, and at most `most`.
    pub fn behind(&self, most: usize) -> Vec<Behind> {
        let mut behind: Vec<_> = (self.live_sessions().iter())
            .map(|session| session.behind())
            .filter(|client| client.lost() > 0)
            .collect();
        behind.sort_by_key(|client| Reverse(client.lost()));
        behind.truncate(most);
        behind
    }

    /// Reads the hub under its lock: keep it short.
    pub fn read<T>(&self, read: impl FnOnce(&Hub<Payload>) -> T) -> T {
        self.0.shared.read(read)
    }

    /// What an owner of [`Note`](crate::Note)s had remembered before the start, by client and part. It is handed out once.
    pub fn remembered(&self, owner: &str) -> Vec<Remembered> {
        let mut notes = lock(&self.0.notes);
        let (owned, others) = mem::take(&mut *notes)
            .into_iter()
            .partition(|note| note.owner == owner);
        *notes = others;
        let owned: Vec<StoredNote> = owned;
        owned.into_iter().map(Remembered::from).collect()
    }

    /// Says that all durable subscriptions that there were before the start are there again: see
    /// [`Session::subscribe`](crate::Session::subscribe). Until then no event is forgotten because nobody waits for
    /// it, if anything was [`remembered`](Self::remembered) at the start; what nobody has asked for is let go.
    pub fn restored(&self) {
        lock(&self.0.notes).clear();
        self.0.shared.set_durables_incomplete(false);
    }

    /// What tells the revisions of this hub from all others, as cursors name it: of one store, or where
    /// nothing is stored of one life.
    pub fn epoch(&self) -> u64 {
        self.0.shared.epoch
    }

    /// Where it reads the time: of day, and of what expires.
    pub fn clock(&self) -> &Clock {
        &self.0.shared.clock
    }

    /// The bounds of the hub.
    pub fn limits(&self) -> Limits {
        self.0.shared.limits
    }

    /// How much of each table that peers may fill is taken. The log is told when that is much.
    pub fn capacities(&self) -> [Capacity; 4] {
        let (metrics, clicks) = (self.metrics(), self.0.clicks);
        let retained = self.read(|hub| capacity::taken_by_peers(hub, metrics));
        let known = |gauge: &Gauge| usize::try_from(gauge.get()).unwrap_or(usize::MAX);
        let capacities = [
            (Table::Retained, retained, self.limits().places),
            (Table::Rooms, known(&metrics.rooms), clicks.rooms),
            (
                Table::RoomDevices,
                known(&metrics.room_devices),
                clicks.devices,
            ),
            (
                Table::DeviceIncarnations,
                known(&metrics.device_incarnations),
                clicks.incarnations,
            ),
        ]
        .map(|(table, taken, limit)| Capacity {
            table,
            taken,
            limit,
        });
        let mut watches = lock(&self.0.watches);
        for (watch, capacity) in watches.iter_mut().zip(capacities) {
            watch.look(capacity);
        }
        capacities
    }

    /// The bounds of one session.
    pub fn session_limits(&self) -> SessionLimits {
        self.0.session
    }

    /// The memory for what is half received.
    pub fn incoming(&self) -> &Arc<Budget> {
        &self.0.incoming
    }

    /// Bounds the log lines that peers cause.
    pub fn log_limit(&self) -> &LogLimit {
        &self.0.log_limit
    }

    /// What was counted so far.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What the hub itself counted so far.
    pub fn hub_counts(&self) -> HubCounts {
        self.0.shared.hub_counts()
    }

    /// What subscriptions did not deliver so far: of those that have ended and those that there are. Looks
    /// at each of the latter.
    pub fn lost(&self) -> Lost {
        let (live, expired) = (
            self.0.shared.read(Hub::all_subscription_counts),
            self.0.shared.expired(),
        );
        Lost {
            conflated: self.0.metrics.conflated.get() + live.conflated,
            skipped: self.0.metrics.skipped.get() + live.skipped,
            expired,
        }
    }

    /// Whether anything is kept over a restart.
    pub fn is_stored(&self) -> bool {
        self.0.writer.is_some()
    }

    /// Whether state can be made durable; if not, why.
    ///
    /// # Errors
    /// With the reason, in words.
    pub fn health(&self) -> Result<(), String> {
        self.0.writer.as_ref().map_or(Ok(()), Writer::health)
    }

    /// Cancelled when the bus begins to close. Transports then end their connections.
    pub fn closing(&self) -> CancellationToken {
        self.0.closing.clone()
    }

    /// Asks the transports to end their connections. Sessions end when what there is to say has been delivered
    /// ([`farewell`](Self::farewell)). What is published meanwhile is accepted until [`close`](Self::close).
    pub fn begin_close(&self) {
        // The sessions that end now come back after the start.
        self.0.shared.set_durables_incomplete(true);
        self.0.closing.cancel();
        self.end_sessions_if_all_is_said();
    }

    /// Ends the bus: streams end, and what was accepted for the store is written.
    pub async fn close(&self) {
        self.begin_close();
        self.end_sessions_in_time().await;
        if let Some(writer) = &self.0.writer {
            writer.close().await;
        }
    }

    pub(crate) fn upgrade(inner: &Weak<Inner>) -> Option<Self> {
        inner.upgrade().map(Self)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closing.load(Ordering::Acquire)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Does what has to be done every second: where there is a store, in the order of its commits.
    pub(crate) fn tick(&self) {
        match &self.0.writer {
            Some(writer) => writer.tick(),
            None => {
                let mut pipeline = lock(&self.0.pipeline);
                let mut due = pipeline.plan_expired();
                due.push(pipeline.plan_tick());
                pipeline.finish(due, self.clock().unix_ms(), None);
            }
        }
    }

    /// Has what was shown before it is durable made so.
    pub(crate) fn sync(&self) {
        if let Some(writer) = &self.0.writer {
            writer.sync();
        }
    }

    /// Wakes a stream when the bus closes.
    pub(crate) fn on_close(&self, wake: &Wake) {
        let mut streams = lock(&self.0.streams);
        // The list is swept whenever it has doubled, so it is bounded by the streams that live.
        if streams.len() == streams.capacity() {
            streams.retain(WeakWake::is_alive);
        }
        streams.push(wake.downgrade());
    }

    /// Takes note of a session, which is woken when the bus closes, and for [`behind`](Self::behind).
    pub(crate) fn note_session(&self, session: &Arc<Subscriptions>) {
        let mut sessions = lock(&self.0.sessions);
        // Swept whenever it has doubled: bounded by the sessions that live.
        if sessions.len() == sessions.capacity() {
            sessions.retain(|session| session.strong_count() > 0);
        }
        sessions.push(Arc::downgrade(session));
    }

    fn live_sessions(&self) -> Vec<Arc<Subscriptions>> {
        let mut sessions = lock(&self.0.sessions);
        sessions.retain(|session| session.strong_count() > 0);
        sessions.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Messages that were accepted and not delivered, over all subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Values that a newer one replaced before they were taken.
    pub conflated: u64,
    /// Events that left the recent ring before they were taken.
    pub skipped: u64,
    /// Messages whose time was over before they were taken.
    pub expired: u64,
}

/// What a client has not been given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Who it is.
    pub principal: Principal,
    /// Values that a newer one replaced before it took them.
    pub conflated: u64,
    /// Events that left the recent ring before it took them.
    pub skipped: u64,
}

impl Behind {
    /// Both together.
    pub fn lost(&self) -> u64 {
        self.conflated + self.skipped
    }
}
