//! What the writer of the store does, one batch after the other: takes what is queued, commits it, shows and
//! answers it. Each step stands by itself, so that a thread can make them in turn, and a simulation can
//! stop between any two.

use core::{
    mem,
    sync::atomic::{AtomicBool, Ordering},
};
use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};

use crate::backup::{Export, Record};
use crate::bus::{Accepted, Queued};
use crate::clock::LastTime;
use crate::health::Health;
use crate::holdings::Source;
use crate::metrics::Metrics;
use crate::pipeline::{Pipeline, Plan};
use crate::refusal::PublishRefused;
use crate::shared::Shared;
use crate::store::{Change, Commit, Sizes, Store, StoreError, Sync, position};
use crate::wake::lock;
use crate::{Note, Operate, Operated, OperationError, Publish};

/// The most messages that one commit takes, and that wait for the store. Publishers wait beyond it.
pub(crate) const QUEUE: usize = 4_096;

/// Payload bytes of one commit; it takes one message more that passes them.
const COMMIT_BYTES: usize = 4 << 20;

/// How often the time is stored where nothing else is, while something is stored that may expire. After a crash so much
/// more may be left of it, if the clock is not set then.
const TIME_EVERY_MS: u64 = 10 * 60 * 1_000;

/// What waits for the store.
#[derive(Debug)]
pub(crate) enum Job {
    Publish {
        publish: Publish,
        source: Source,
        answer: oneshot::Sender<Result<Accepted, PublishRefused>>,
        queued: Queued,
    },
    /// A record of an export.
    Import {
        record: Record,
        /// Who merges it.
        source: Source,
        answer: oneshot::Sender<Result<Accepted, PublishRefused>>,
    },
    /// An operation of an administrator, and by whom. What it is about to change is told when it is planned.
    Operate {
        operate: Operate,
        by: String,
        planned: oneshot::Sender<Result<Operated, OperationError>>,
        answer: oneshot::Sender<Result<Accepted, PublishRefused>>,
    },
    /// A snapshot of what is on disk.
    Export(oneshot::Sender<Export>),
    Remember {
        notes: Vec<Note>,
        answer: oneshot::Sender<Result<Accepted, PublishRefused>>,
        queued: Queued,
    },
    /// What is due every second.
    Tick,
    /// What was shown before it was durable is to be so.
    Sync,
    /// The last job.
    Close(oneshot::Sender<()>),
}

/// What was shown before it is durable.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    /// There is something.
    pub(crate) any: AtomicBool,
    /// It is time to make it durable.
    pub(crate) due: AtomicBool,
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Publish { publish, .. } => publish.payload.len(),
            Self::Import { record, .. } => record.bytes(),
            Self::Remember { notes, .. } => notes.iter().map(Note::bytes).sum(),
            Self::Operate { .. } | Self::Export(_) | Self::Tick | Self::Sync | Self::Close(_) => 0,
        }
    }
}

type Answer = (
    oneshot::Sender<Result<Accepted, PublishRefused>>,
    Option<Queued>,
);

/// The one writer of the store.
#[derive(Debug)]
pub(crate) struct Commits {
    jobs: mpsc::Receiver<Job>,
    pipeline: Arc<Mutex<Pipeline>>,
    shared: Arc<Shared>,
    store: Box<dyn Store>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// The newest revision of the last commit.
    revision: u64,
    /// And of the last one that is known to be durable.
    synced: u64,
    /// Whether commits that may be lost are shown before they are durable.
    syncs_later: bool,
    unsynced: Arc<Unsynced>,
    /// The last time that is stored, if this life has stored one.
    last_time: Option<LastTime>,
    /// The batch that is under way.
    batch: Option<Batch>,
    /// What was merged is ahead of the disk for good: nothing more is shown or answered.
    given_up: bool,
}

#[derive(Debug, Default)]
struct Batch {
    /// When it was begun, in Unix milliseconds.
    at: u64,
    plans: Vec<Plan>,
    /// The revision of its first step.
    base: u64,
    /// What the first plans are: the ends of values whose time is over, which nobody waits for.
    expired: usize,
    answers: Vec<Answer>,
    exports: Vec<oneshot::Sender<Export>>,
    tick: bool,
    sync: bool,
    close: Option<oneshot::Sender<()>>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
pub enum Finished {
    /// It was shown and answered.
    Shown,
    /// It was the last. The store is closed.
    Closed,
}

impl Batch {
    /// Takes a plan and who waits for it; a refusal is answered at once.
    fn take(&mut self, plan: Result<Plan, PublishRefused>, (answer, queued): Answer) {
        match plan {
            Ok(plan) => {
                self.plans.push(plan);
                self.answers.push((answer, queued));
            }
            Err(refused) => {
                // A peer that has left does not want to know.
                let _left = answer.send(Err(refused));
            }
        }
    }
}

impl Commits {
    pub(crate) fn new(
        jobs: mpsc::Receiver<Job>,
        (pipeline, shared): (Arc<Mutex<Pipeline>>, Arc<Shared>),
        (store, revision): (Box<dyn Store>, u64),
        syncs_later: bool,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Self {
        shared.begin_log();
        Self {
            jobs,
            pipeline,
            shared,
            store,
            metrics,
            health,
            revision,
            synced: revision,
            syncs_later,
            unsynced: Arc::default(),
            last_time: None,
            batch: None,
            given_up: false,
        }
    }

    pub(crate) fn unsynced(&self) -> Arc<Unsynced> {
        Arc::clone(&self.unsynced)
    }

    /// Commits and shows what is to be shown at the start.
    pub(crate) fn begin_life(&mut self, plans: Vec<Plan>) -> Result<(), StoreError> {
        self.batch = Some(Batch {
            at: self.shared.clock.unix_ms(),
            plans,
            ..Batch::default()
        });
        self.commit()?;
        self.finish();
        Ok(())
    }

    /// Waits for the next job, and begins a batch with all that is queued by then; false when there will
    /// be none, because every handle to the bus is gone.
    pub(crate) fn blocking_begin(&mut self) -> bool {
        let Some(first) = self.jobs.blocking_recv() else {
            return false;
        };
        self.begin_with(first);
        true
    }

    /// The same without blocking. Cancel-safe.
    #[cfg(feature = "simulation")]
    pub(crate) async fn begin_next(&mut self) -> bool {
        if self.batch.is_some() {
            return true;
        }
        let Some(first) = self.jobs.recv().await else {
            return false;
        };
        self.begin_with(first);
        true
    }

    /// Begins a batch with what is queued; false when that is nothing.
    #[cfg(feature = "simulation")]
    pub(crate) fn try_begin(&mut self) -> bool {
        if self.batch.is_none()
            && let Ok(first) = self.jobs.try_recv()
        {
            self.begin_with(first);
        }
        self.batch.is_some()
    }

    /// Plans a job and what is queued behind it.
    fn begin_with(&mut self, first: Job) {
        let mut waiting = Vec::new();
        let mut batch = Batch::default();
        let (mut next, mut bytes) = (Some(first), 0);
        while let Some(job) = next {
            bytes += job.bytes();
            match job {
                Job::Tick => batch.tick = true,
                Job::Sync => {}
                Job::Close(done) => batch.close = Some(done),
                job => waiting.push(job),
            }
            next = (waiting.len() < QUEUE && bytes < COMMIT_BYTES && batch.close.is_none())
                .then(|| self.jobs.try_recv().ok())
                .flatten();
        }
        batch.sync = self.unsynced.due.swap(false, Ordering::Relaxed);
        if !self.given_up {
            self.plan(&mut batch, waiting);
        }
        self.batch = Some(batch);
    }

    fn plan(&mut self, batch: &mut Batch, mut waiting: Vec<Job>) {
        // Before what is published in this batch, which is newer.
        waiting.sort_by_key(|job| !matches!(job, Job::Import { .. }));
        batch.at = self.shared.clock.unix_ms();
        let mut pipeline = lock(&self.pipeline);
        if batch.tick {
            // First, so that what is published in this batch outlives what it replaces.
            batch.plans = pipeline.plan_expired();
            batch.expired = batch.plans.len();
        }
        for job in waiting {
            let (plan, answer) = match job {
                Job::Publish {
                    publish,
                    source,
                    answer,
                    queued,
                } => (
                    pipeline.plan(publish, source, &batch.plans),
                    (answer, Some(queued)),
                ),
                Job::Remember {
                    notes,
                    answer,
                    queued,
                } => (pipeline.plan_notes(notes), (answer, Some(queued))),
                Job::Import {
                    record,
                    source,
                    answer,
                } => (pipeline.plan_import(record, source), (answer, None)),
                Job::Operate {
                    operate,
                    by,
                    planned,
                    answer,
                } => {
                    let (plan, told) = match pipeline.plan_operation(&operate, &by) {
                        Ok((plan, operated)) => (Some(plan), Ok(operated)),
                        Err(error) => (None, Err(error)),
                    };
                    let _left = planned.send(told);
                    let Some(plan) = plan else { continue };
                    (Ok(plan), (answer, None))
                }
                Job::Export(answer) => {
                    batch.exports.push(answer);
                    continue;
                }
                Job::Tick | Job::Sync | Job::Close(_) => continue,
            };
            batch.take(plan, answer);
        }
        batch.plans.push(pipeline.plan_rooms());
        if batch.tick {
            batch.plans.push(pipeline.plan_tick());
        }
    }

    /// Makes the batch durable. After a failure it is to be called again until it succeeds, or
    /// [`give_up`](Self::give_up); meanwhile nobody is answered.
    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        let Some(batch) = self.batch.as_mut().filter(|_| !self.given_up) else {
            return Ok(());
        };
        batch.base = position::next(self.revision);
        let steps = Pipeline::revisions(&batch.plans);
        let moves_on = batch.tick && self.shared.numbers_left() < position::FEW;
        let pipeline = lock(&self.pipeline);
        let mut commit = Commit {
            changes: pipeline.changes(&batch.plans, batch.at, batch.base),
            revision: match (steps, moves_on) {
                (0, false) => self.revision,
                (steps, _) => batch.base + steps.saturating_sub(1),
            },
            ..Commit::default()
        };
        commit
            .changes
            .extend(trim(&self.shared, self.store.sizes(), batch.tick));
        let now = self.shared.clock.now();
        let stale =
            |last: LastTime| now.deadline_ms.saturating_sub(last.deadline_ms) >= TIME_EVERY_MS;
        let tells_time = batch.tick && self.last_time.is_none_or(stale) && pipeline.has_deadlines();
        let is_empty = commit.changes.is_empty() && commit.revision == self.revision && !tells_time;
        if is_empty && !batch.sync {
            return Ok(());
        }
        let unsynced = position::of(commit.revision) - position::of(self.synced);
        let may_be_lost = match self.syncs_later {
            true => batch.plans.iter().all(Plan::may_be_lost),
            // What has only its revisions in the log.
            false => commit.changes.is_empty(),
        };
        if may_be_lost && unsynced <= position::MAX_UNSYNCED && !batch.sync {
            commit.sync = Sync::Later;
        }
        let stores = !commit.changes.is_empty() || tells_time;
        // With every commit, so that no message is stored that arrived later than the last time.
        let time = now.to_bytes();
        if stores && self.last_time != Some(now) {
            commit.changes.push(LastTime::change(&time));
        }
        let begun = Instant::now();
        self.health.begin();
        // One or the other: what was appended once must not be appended again because its synchronisation has failed.
        let result = match is_empty {
            true => self.store.sync(),
            false => self.store.commit(&commit),
        };
        self.metrics.commit_time.record(begun.elapsed());
        if let Err(failure) = &result {
            self.metrics.commits_failed.add(1);
            self.health
                .fail(failure.to_string(), batch.answers.len() + self.jobs.len());
            return result;
        }
        self.health.succeed();
        if stores {
            self.last_time = Some(now);
        }
        self.revision = commit.revision;
        let is_synced = commit.sync == Sync::Now;
        if is_synced {
            self.synced = self.revision;
        }
        if is_synced || stores {
            (self.unsynced.any).store(!is_synced, Ordering::Relaxed);
        }
        self.metrics.commits.add(1);
        self.metrics.store_bytes.set(self.store.sizes().bytes);
        Ok(())
    }

    /// Leaves the batch and all that follow uncommitted and unanswered: the bus closes, and the store fails.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
        if let Some(batch) = &mut self.batch {
            let _unanswered = (mem::take(&mut batch.plans), mem::take(&mut batch.answers));
        }
    }

    /// Whether [`finish`](Self::finish) takes long: it closes the store, or copies all that is kept.
    pub(crate) fn finish_blocks(&self) -> bool {
        (self.batch.as_ref())
            .is_some_and(|batch| batch.close.is_some() || !batch.exports.is_empty())
    }

    /// Shows and answers what was committed.
    pub(crate) fn finish(&mut self) -> Finished {
        let Some(mut batch) = self.batch.take() else {
            return Finished::Shown;
        };
        if !self.given_up {
            let mut pipeline = lock(&self.pipeline);
            let plans = mem::take(&mut batch.plans);
            let accepted = pipeline.finish(plans, batch.at, Some(batch.base));
            self.shared.change(|changes| changes.skip_to(self.revision));
            answer(
                accepted.into_iter().skip(batch.expired),
                mem::take(&mut batch.answers),
            );
            for export in mem::take(&mut batch.exports) {
                let _nobody_waits = export.send(pipeline.export());
            }
            pipeline.set_notes(self.store.sizes().notes);
        }
        let Some(done) = batch.close else {
            return Finished::Shown;
        };
        self.close();
        let _nobody_waits = done.send(());
        Finished::Closed
    }

    /// Ends the life of the hub in such a way that the next goes on right where it was.
    fn close(&mut self) {
        let revision = self.shared.stop_here();
        if !self.given_up {
            let time = self.shared.clock.now().to_bytes();
            let commit = Commit {
                changes: vec![LastTime::change(&time)],
                revision,
                stops: Some(self.shared.read(|hub| hub.newest_event())),
                ..Commit::default()
            };
            // Else the next life begins as after a crash.
            let _failed = self.store.commit(&commit);
        }
        // In this order: whoever closes the bus a second time is told so by the queue, and may then open the
        // store again.
        self.store = Box::new(Closed);
        self.jobs.close();
    }
}

/// Events that nobody is owed any more. Those that have left the ring go at once, for their number is bounded by
/// it; those that were confirmed go every second.
fn trim(shared: &Shared, sizes: Sizes, tick: bool) -> Option<Change<'static>> {
    let oldest = sizes.oldest_event?;
    // What is confirmed takes a look at every durable subscription: not with each commit.
    let (confirmed, left) = shared.settled(tick);
    let due = oldest <= left || oldest <= confirmed;
    due.then_some(Change::Trim { confirmed, left })
}

fn answer(accepted: impl Iterator<Item = Result<Accepted, PublishRefused>>, answers: Vec<Answer>) {
    for ((answer, queued), accepted) in answers.into_iter().zip(accepted) {
        drop(queued);
        let _left = answer.send(accepted);
    }
}

/// What is left of a store that was closed.
#[derive(Debug)]
struct Closed;

impl Store for Closed {
    fn commit(&mut self, _: &Commit<'_>) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    fn sizes(&self) -> Sizes {
        Sizes::default()
    }
}
