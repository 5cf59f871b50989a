//! The thread that writes to the store, and the queue before it.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::{
    io,
    sync::{Arc, mpsc as std_mpsc},
    thread,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::backup::{Export, Record};
use crate::bus::{Accepted, Queued, Receipt};
use crate::commits::{Commits, Finished, Job, Unsynced};
use crate::health::Health;
use crate::holdings::Source;
use crate::refusal::PublishRefused;
use crate::{Note, Operate, Operated, OperationError, Publish};

/// After a failed commit the next attempt waits this long; each further one twice as long, up to the
/// second.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The way to the store.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Job>,
    health: Arc<Health>,
    closing: Arc<AtomicBool>,
    unsynced: Arc<Unsynced>,
}

impl Writer {
    pub(crate) fn new(
        queue: mpsc::Sender<Job>,
        health: Arc<Health>,
        unsynced: Arc<Unsynced>,
    ) -> Self {
        Self {
            queue,
            health,
            closing: Arc::default(),
            unsynced,
        }
    }

    /// Starts the thread that commits. It ends when the bus is closed, when every handle to it is gone, or with the
    /// runtime, on which what was committed is shown. Call it inside that.
    pub(crate) fn start(&self, commits: Commits) -> io::Result<()> {
        let (closing, runtime) = (Arc::clone(&self.closing), Handle::current());
        thread::Builder::new()
            .name("latchbus-store".into())
            .spawn(move || run(commits, &closing, &runtime))?;
        Ok(())
    }

    /// Queues a message; where the queue is full, gives the wait for room.
    pub(crate) fn accept(
        &self,
        publish: Publish,
        source: Source,
        queued: Queued,
    ) -> Result<Receipt, BoxFuture<'_, Receipt>> {
        let (answer, receipt) = oneshot::channel();
        let job = Job::Publish {
            publish,
            source,
            answer,
            queued,
        };
        match self.queue.try_send(job) {
            Ok(()) => Ok(Receipt::queued(receipt)),
            Err(TrySendError::Closed(_)) => Ok(Receipt::known(Err(PublishRefused::Closed))),
            Err(TrySendError::Full(job)) => Err(self.send(job, receipt).boxed()),
        }
    }

    /// The same with what a transport remembers.
    pub(crate) async fn remember(&self, notes: Vec<Note>, queued: Queued) -> Receipt {
        let (answer, receipt) = oneshot::channel();
        let job = Job::Remember {
            notes,
            answer,
            queued,
        };
        self.send(job, receipt).await
    }

    async fn send(
        &self,
        job: Job,
        receipt: oneshot::Receiver<Result<Accepted, PublishRefused>>,
    ) -> Receipt {
        match self.queue.send(job).await {
            Ok(()) => Receipt::queued(receipt),
            Err(_) => Receipt::known(Err(PublishRefused::Closed)),
        }
    }

    /// Queues a record of an export. Waits while the queue is full.
    pub(crate) async fn import(&self, record: Record, source: Source) -> Receipt {
        let (answer, receipt) = oneshot::channel();
        let job = Job::Import {
            record,
            source,
            answer,
        };
        match self.queue.send(job).await {
            Ok(()) => Receipt::queued(receipt),
            Err(_) => Receipt::known(Err(PublishRefused::Closed)),
        }
    }

    /// Queues an operation of an administrator, and waits until it is on disk.
    pub(crate) async fn operate(
        &self,
        operate: Operate,
        by: String,
    ) -> Result<Operated, OperationError> {
        let closed = OperationError::Refused(PublishRefused::Closed);
        let ((answer, accepted), (planned, told)) = (oneshot::channel(), oneshot::channel());
        let job = Job::Operate {
            operate,
            by,
            planned,
            answer,
        };
        if self.queue.send(job).await.is_err() {
            return Err(closed);
        }
        let operated = told.await.map_err(|_| closed.clone())??;
        accepted.await.map_err(|_| closed)??;
        Ok(operated)
    }

    /// A snapshot of what is on disk; `None` when the bus closes. Waits for the store.
    pub(crate) async fn export(&self) -> Option<Export> {
        let (answer, snapshot) = oneshot::channel();
        self.queue.send(Job::Export(answer)).await.ok()?;
        snapshot.await.ok()
    }

    pub(crate) fn tick(&self) {
        self.health.watch();
        // A full queue has messages in it: the tick can wait for the next second.
        let _full_or_closed = self.queue.try_send(Job::Tick);
    }

    pub(crate) fn sync(&self) {
        if self.unsynced.any.load(Ordering::Relaxed) {
            self.unsynced.due.store(true, Ordering::Relaxed);
            // A queue that is full wakes the writer anyway.
            let _full_or_closed = self.queue.try_send(Job::Sync);
        }
    }

    pub(crate) fn health(&self) -> Result<(), String> {
        self.health.check()
    }

    /// Commits what is queued and ends the thread. A store that fails is not tried again.
    pub(crate) async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let (done, closed) = oneshot::channel();
        if self.queue.send(Job::Close(done)).await.is_ok() {
            let _thread_ended = closed.await;
        }
    }
}

fn run(mut commits: Commits, closing: &AtomicBool, runtime: &Handle) {
    while commits.blocking_begin() {
        commit(&mut commits, closing);
        match finish(commits, runtime) {
            Some((committed, Finished::Shown)) => commits = committed,
            Some((_, Finished::Closed)) | None => return,
        }
    }
}

/// Shows and answers what was committed, as a task of the runtime: from there a thousand sessions are woken without
/// a system call, from this thread with one for each. `None` when the runtime has ended.
fn finish(mut commits: Commits, runtime: &Handle) -> Option<(Commits, Finished)> {
    if commits.finish_blocks() {
        let finished = commits.finish();
        return Some((commits, finished));
    }
    let (done, finished) = std_mpsc::sync_channel(1);
    runtime.spawn(async move {
        let finished = commits.finish();
        let _this_thread_waits = done.send((commits, finished));
    });
    finished.recv().ok()
}

/// Commits a batch, as often as it takes, unless the bus closes first.
fn commit(commits: &mut Commits, closing: &AtomicBool) {
    let (mut wait, longest) = RETRY;
    while commits.commit().is_err() {
        if closing.load(Ordering::Relaxed) {
            commits.give_up();
            return;
        }
        thread::sleep(wait);
        wait = (wait * 2).min(longest);
    }
}
