//! The one writer of the store: takes all that is queued, commits it, answers all, takes the next.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::{
    io,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::Publish;
use crate::bus::{Accepted, Queued, Receipt};
use crate::metrics::Metrics;
use crate::pipeline::{Pipeline, Plan};
use crate::refusal::PublishRefused;
use crate::store::RedbStore;
use crate::wake::lock;

/// Messages that wait for the store, and the most that one commit takes. Publishers wait beyond it.
const QUEUE: usize = 4_096;

/// After a failed commit the next attempt waits this long; each further one twice as long, up to the
/// second.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A handle to the thread that commits.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Job>,
    state: Arc<WriterState>,
}

#[derive(Debug, Default)]
struct WriterState {
    /// Why the last commit failed.
    failure: Mutex<Option<String>>,
    closing: AtomicBool,
}

#[derive(Debug)]
enum Job {
    Publish {
        publish: Publish,
        origin: u64,
        answer: oneshot::Sender<Result<Accepted, PublishRefused>>,
        queued: Queued,
    },
    Tick,
    Close(oneshot::Sender<()>),
}

type Answer = (oneshot::Sender<Result<Accepted, PublishRefused>>, Queued);

impl Writer {
    pub(crate) fn start(
        store: RedbStore,
        pipeline: Arc<Mutex<Pipeline>>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let state = Arc::new(WriterState::default());
        let commits = Commits {
            store,
            metrics,
            state: Arc::clone(&state),
            given_up: false,
        };
        // It ends when it is closed, or when every handle to the bus is gone.
        thread::Builder::new()
            .name("latchbus-store".into())
            .spawn(move || run(jobs, &pipeline, commits))?;
        Ok(Self { queue, state })
    }

    /// Queues a message. Waits while the queue is full.
    pub(crate) async fn accept(&self, publish: Publish, origin: u64, queued: Queued) -> Receipt {
        let (answer, receipt) = oneshot::channel();
        let job = Job::Publish {
            publish,
            origin,
            answer,
            queued,
        };
        match self.queue.send(job).await {
            Ok(()) => Receipt::queued(receipt),
            Err(_) => Receipt::known(Err(PublishRefused::Closed)),
        }
    }

    pub(crate) fn tick(&self) {
        // A full queue has messages in it: the tick can wait for the next second.
        let _full_or_closed = self.queue.try_send(Job::Tick);
    }

    pub(crate) fn health(&self) -> Result<(), String> {
        lock(&self.state.failure).clone().map_or(Ok(()), Err)
    }

    /// Commits what is queued and ends the thread. A store that fails is not tried again.
    pub(crate) async fn close(&self) {
        self.state.closing.store(true, Ordering::Relaxed);
        let (done, closed) = oneshot::channel();
        if self.queue.send(Job::Close(done)).await.is_ok() {
            let _thread_ended = closed.await;
        }
    }
}

fn run(mut jobs: mpsc::Receiver<Job>, pipeline: &Mutex<Pipeline>, mut commits: Commits) {
    while let Some(first) = jobs.blocking_recv() {
        let mut pipeline = lock(pipeline);
        let (mut plans, mut answers) = (Vec::new(), Vec::new());
        let (mut tick, mut close) = (false, None);
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Publish {
                    publish,
                    origin,
                    answer,
                    queued,
                } => match pipeline.plan(publish, origin) {
                    Ok(plan) => {
                        plans.push(plan);
                        answers.push((answer, queued));
                    }
                    Err(refused) => {
                        // A peer that has left does not want to know.
                        let _left = answer.send(Err(refused));
                    }
                },
                Job::Tick => tick = true,
                Job::Close(done) => close = Some(done),
            }
            next = (plans.len() < QUEUE && close.is_none())
                .then(|| jobs.try_recv().ok())
                .flatten();
        }
        // Once a commit was given up, what is merged is ahead of the disk: nothing more is shown.
        if !commits.given_up && commits.commit(&pipeline, &plans) {
            answer(&mut pipeline, plans, answers);
        }
        if tick && !commits.given_up {
            let expired = pipeline.plan_expired();
            if commits.commit(&pipeline, &expired) {
                pipeline.finish(expired);
            }
            pipeline.tick();
        }
        if let Some(done) = close {
            drop(commits);
            let _nobody_waits = done.send(());
            return;
        }
    }
}

fn answer(pipeline: &mut Pipeline, plans: Vec<Plan>, answers: Vec<Answer>) {
    for ((answer, queued), accepted) in answers.into_iter().zip(pipeline.finish(plans)) {
        drop(queued);
        let _left = answer.send(accepted);
    }
}

/// The store, its health and its figures.
struct Commits {
    store: RedbStore,
    metrics: Arc<Metrics>,
    state: Arc<WriterState>,
    /// The bus closes, and the store fails.
    given_up: bool,
}

impl Commits {
    /// Commits the changes of all plans, as often as it takes; false when the bus closes before it is
    /// done. Meanwhile nobody is answered, and publishers wait.
    fn commit(&mut self, pipeline: &Pipeline, plans: &[Plan]) -> bool {
        let changes = pipeline.changes(plans);
        if changes.is_empty() {
            return true;
        }
        let (mut wait, longest) = RETRY;
        loop {
            let begun = Instant::now();
            let result = self.store.commit(&changes);
            self.metrics
                .commit_micros
                .add(begun.elapsed().as_micros() as u64);
            let Err(failure) = result else {
                self.metrics.commits.add(1);
                if lock(&self.state.failure).take().is_some() {
                    info!("the store works again");
                }
                return true;
            };
            self.metrics.commits_failed.add(1);
            let text = failure.to_string();
            if lock(&self.state.failure).replace(text).is_none() {
                error!(%failure, "the store has failed; nothing is acknowledged until it works");
            }
            if self.state.closing.load(Ordering::Relaxed) {
                self.given_up = true;
                return false;
            }
            thread::sleep(wait);
            wait = (wait * 2).min(longest);
        }
    }
}
