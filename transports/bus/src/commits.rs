//! What the writer of the store does, one batch after the other: takes what is queued, commits it, shows and
//! answers it. Each step stands by itself, so that a thread can make them in turn, and a simulation can
//! stop between any two.

use core::mem;
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::Publish;
use crate::backup::{Export, Record};
use crate::bus::{Accepted, Queued};
use crate::metrics::Metrics;
use crate::pipeline::{Pipeline, Plan};
use crate::refusal::PublishRefused;
use crate::store::{Store, StoreError};
use crate::wake::lock;

/// The most messages that one commit takes, and that wait for the store. Publishers wait beyond it.
pub(crate) const QUEUE: usize = 4_096;

/// What waits for the store.
#[derive(Debug)]
pub(crate) enum Job {
    Publish {
        publish: Publish,
        origin: u64,
        answer: oneshot::Sender<Result<Accepted, PublishRefused>>,
        queued: Queued,
    },
    /// A record of an export.
    Import {
        record: Record,
        answer: oneshot::Sender<Result<Accepted, PublishRefused>>,
    },
    /// A snapshot of what is on disk.
    Export(oneshot::Sender<Export>),
    /// What is due every second.
    Tick,
    /// The last job.
    Close(oneshot::Sender<()>),
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
    store: Box<dyn Store>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// The batch that is under way.
    batch: Option<Batch>,
    /// What was merged is ahead of the disk for good: nothing more is shown or answered.
    given_up: bool,
}

/// Whether commits succeed.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Why the last one failed.
    failure: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Batch {
    plans: Vec<Plan>,
    /// What the first plans are: the ends of values whose time is over, which nobody waits for.
    expired: usize,
    answers: Vec<Answer>,
    exports: Vec<oneshot::Sender<Export>>,
    tick: bool,
    close: Option<oneshot::Sender<()>>,
}

impl Health {
    /// The reason of the failure, if there is one.
    pub(crate) fn check(&self) -> Result<(), String> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }
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
        pipeline: Arc<Mutex<Pipeline>>,
        store: Box<dyn Store>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            jobs,
            pipeline,
            store,
            metrics,
            health,
            batch: None,
            given_up: false,
        }
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
        let (mut publishes, mut imports) = (Vec::new(), Vec::new());
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Publish {
                    publish,
                    origin,
                    answer,
                    queued,
                } => publishes.push((publish, origin, (answer, Some(queued)))),
                Job::Import { record, answer } => imports.push((record, answer)),
                Job::Export(answer) => batch.exports.push(answer),
                Job::Tick => batch.tick = true,
                Job::Close(done) => batch.close = Some(done),
            }
            let taken = publishes.len() + imports.len();
            next = (taken < QUEUE && batch.close.is_none())
                .then(|| self.jobs.try_recv().ok())
                .flatten();
        }
        if !self.given_up {
            let mut pipeline = lock(&self.pipeline);
            if batch.tick {
                // First, so that what is published in this batch outlives what it replaces.
                batch.plans = pipeline.plan_expired();
                batch.expired = batch.plans.len();
            }
            // Before what is published in this batch, which is newer.
            for (record, answer) in imports {
                let plan = pipeline.plan_import(record);
                batch.take(plan, (answer, None));
            }
            for (publish, origin, answer) in publishes {
                let plan = pipeline.plan(publish, origin);
                batch.take(plan, answer);
            }
        }
        self.batch = Some(batch);
    }

    /// Makes the batch durable. After a failure it is to be called again until it succeeds, or
    /// [`give_up`](Self::give_up); meanwhile nobody is answered.
    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        let Some(batch) = &self.batch else {
            return Ok(());
        };
        let pipeline = lock(&self.pipeline);
        let changes = pipeline.changes(&batch.plans);
        if changes.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let result = self.store.commit(&changes);
        self.metrics
            .commit_micros
            .add(begun.elapsed().as_micros() as u64);
        let Err(failure) = &result else {
            self.metrics.commits.add(1);
            if lock(&self.health.failure).take().is_some() {
                info!("the store works again");
            }
            return Ok(());
        };
        self.metrics.commits_failed.add(1);
        let text = failure.to_string();
        if lock(&self.health.failure).replace(text).is_none() {
            error!(%failure, "the store has failed; nothing is acknowledged until it works");
        }
        result
    }

    /// Leaves the batch and all that follow uncommitted and unanswered: the bus closes, and the store fails.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
        if let Some(batch) = &mut self.batch {
            let _unanswered = (mem::take(&mut batch.plans), mem::take(&mut batch.answers));
        }
    }

    /// Shows and answers what was committed. False after the last batch: the store is then closed, and
    /// nothing more is taken.
    pub(crate) fn finish(&mut self) -> bool {
        let Some(batch) = self.batch.take() else {
            return true;
        };
        if !self.given_up {
            let mut pipeline = lock(&self.pipeline);
            answer(&mut pipeline, batch.plans, batch.expired, batch.answers);
            for export in batch.exports {
                let _nobody_waits = export.send(pipeline.export());
            }
            if batch.tick {
                pipeline.tick();
            }
        }
        let Some(done) = batch.close else {
            return true;
        };
        // In this order: whoever closes the bus a second time is told so by the queue, and may then open the
        // store again.
        self.store = Box::new(Closed);
        self.jobs.close();
        let _nobody_waits = done.send(());
        false
    }
}

fn answer(
    pipeline: &mut MutexGuard<'_, Pipeline>,
    plans: Vec<Plan>,
    expired: usize,
    answers: Vec<Answer>,
) {
    if plans.is_empty() {
        return;
    }
    let accepted = pipeline.finish(plans).into_iter().skip(expired);
    for ((answer, queued), accepted) in answers.into_iter().zip(accepted) {
        drop(queued);
        let _left = answer.send(accepted);
    }
}

/// What is left of a store that was closed.
#[derive(Debug)]
struct Closed;

impl Store for Closed {
    fn commit(&mut self, _: &[crate::store::Change<'_>]) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
}
