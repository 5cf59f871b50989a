//! A bus whose disk, clock and chance are in the hands of a test (feature `simulation`).
//!
//! The bus is the real one, with its store, and does nothing by itself but what a paused tokio clock lets
//! it do: no thread commits. The test makes each step of the store's writer, on a disk that it can cut off
//! between any two writes, and ends a life of the bus by dropping it.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! use latchbus_bus::{Clock, Options, Principal, Publish, simulation};
//! use latchbus_core::topic::TopicName;
//!
//! let clock = Clock::manual(1_700_000_000_000);
//! let options = Options { clock: clock.clone(), seed: Some(7), ..Options::default() };
//! let memory = simulation::Memory::default();
//! let (bus, mut commits) = simulation::open(options.clone(), simulation::Disk::memory(&memory))?;
//! let topic = TopicName::parse("lab/temp".to_owned())?;
//! let receipt = bus.client(Principal::process())?.enqueue(Publish::state(topic, "21.5")).await;
//! assert!(commits.turn()?);
//! receipt.await?;
//!
//! // The power fails, and comes back.
//! drop((bus, commits));
//! let (bus, _commits) = simulation::open(options, simulation::Disk::memory(&memory))?;
//! assert!(bus.last(TopicName::parse("lab/temp")?).is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

use std::io;

use crate::Holder;
use crate::bus::{Bus, OpenError, Options};
pub use crate::commits::Finished;
pub use crate::store::StoreFile;
use crate::store::{self, FileStore, LogLimits, MemoryStore, Store, StoreError};

/// What a [`Disk::memory`] holds. It outlives the buses that are opened on it.
#[derive(Debug, Clone, Default)]
pub struct Memory(MemoryStore);

impl Memory {
    /// A memory of its own that holds the same: what a crash at this moment would leave.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(self.0.copy())
    }
}

/// Where a simulated bus keeps its store.
#[derive(Debug)]
pub struct Disk(Form);

#[derive(Debug)]
enum Form {
    Memory(MemoryStore),
    Database(store::Disk),
}

impl Disk {
    /// Whole commits in memory, and no bytes: a commit is there, or not.
    pub fn memory(memory: &Memory) -> Self {
        Self(Form::Memory(memory.0.clone()))
    }

    /// The real store on bytes of the test's own: torn, cut off, full. `open` is asked for them at the start, and
    /// for those of the checkpoint again before the first one after one that failed. A log of `checkpoint_bytes` is
    /// folded into the checkpoint.
    pub fn backend<B: redb::StorageBackend>(
        open: impl Fn(StoreFile) -> io::Result<B> + Send + Sync + 'static,
        checkpoint_bytes: u64,
    ) -> Self {
        let limits = LogLimits {
            checkpoint_bytes,
            allocate_bytes: checkpoint_bytes / 2,
            unsynced_bytes: checkpoint_bytes as usize / 2,
        };
        Self(Form::Database(store::Disk::backend(open, limits)))
    }

    /// The same with commits that promise nothing (`Durability::None`): the test of a test of durability. In
    /// memory it changes nothing.
    #[must_use]
    pub fn without_durability(self) -> Self {
        match self.0 {
            Form::Memory(_) => self,
            Form::Database(disk) => Self(Form::Database(disk.without_durability())),
        }
    }
}

/// The writer of a simulated bus's store, whose steps the test makes. Dropping it is a crash: what was
/// begun is neither committed nor answered, and the receipts of its publishes say that the bus is closed.
#[derive(Debug)]
pub struct Commits(crate::commits::Commits);

/// Opens a bus on a disk; [`Options::store`] counts for nothing. Call it inside a tokio runtime.
///
/// # Errors
/// When the store cannot be opened.
pub fn open(options: Options, disk: Disk) -> Result<(Bus, Commits), OpenError> {
    let opened = |epoch| {
        let tombstones = options.limits.tombstones;
        let (store, loaded): (Box<dyn Store>, _) = match disk.0 {
            Form::Memory(mut memory) => {
                let loaded = memory.open(epoch, tombstones);
                (Box::new(memory), loaded)
            }
            Form::Database(disk) => {
                let (store, loaded) = FileStore::open(disk, epoch, tombstones)?;
                (Box::new(store), loaded)
            }
        };
        Ok(Some((store, loaded)))
    };
    let failed = |source| OpenError::Store {
        directory: "(simulated)".into(),
        source,
    };
    let (bus, commits) = Bus::assemble(options.clone(), opened).map_err(failed)?;
    let commits = commits.unwrap_or_else(|| unreachable!("there is a store"));
    Ok((bus, Commits(commits)))
}

/// What each holder holds of what is retained, where that is bounded: topics and bytes. In no order.
pub fn holdings(bus: &Bus) -> Vec<(Holder, i64, i64)> {
    bus.shared().holdings()
}

impl Commits {
    /// Waits until something is queued, and takes it as [`begin`](Self::begin) does; at once while a batch is
    /// under way. False when every handle to the bus is gone. Cancel-safe.
    pub async fn next(&mut self) -> bool {
        self.0.begin_next().await
    }

    /// The first step: takes what is queued, merges it and plans what follows, unless a batch is under way.
    /// False when there is nothing to do.
    pub fn begin(&mut self) -> bool {
        self.0.try_begin()
    }

    /// The second step: commits the batch. After a failure it can be made again.
    ///
    /// # Errors
    /// When the disk fails; [`Bus::health`] then says so too.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.0.commit()
    }

    /// The third step: shows what was committed, and answers its publishers.
    pub fn finish(&mut self) -> Finished {
        self.0.finish()
    }

    /// Leaves the batch, and all that follow, uncommitted and unanswered: what a bus that closes does when its
    /// disk fails. [`finish`](Self::finish) then ends it.
    pub fn give_up(&mut self) {
        self.0.give_up();
    }

    /// All three: false when there was nothing to do.
    ///
    /// # Errors
    /// When the disk fails; the batch stays under way.
    pub fn turn(&mut self) -> Result<bool, StoreError> {
        if !self.begin() {
            return Ok(false);
        }
        self.commit()?;
        self.finish();
        Ok(true)
    }
}
