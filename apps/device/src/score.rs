//! The room's score on standard output.

use std::io::{self, Write};
use std::thread;

use latchbus_core::clicks::Counter;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Prints scores, in a thread of its own: a reader that does not read holds up nothing, and finds the newest
/// score next.
#[derive(Debug)]
pub(crate) struct Scores {
    newest: watch::Sender<Option<Counter>>,
    printed: watch::Receiver<Option<Counter>>,
}

impl Scores {
    /// Begins to print. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn begin(room: &str) -> io::Result<Self> {
        let (newest, receiver) = watch::channel(None);
        let (sender, printed) = watch::channel(None);
        let (room, runtime) = (room.to_owned(), Handle::current());
        let print = move || {
            if let Err(error) = print(&room, &runtime, receiver, &sender) {
                tracing::warn!(target: "device", %error, "the score is no longer printed");
            }
        };
        thread::Builder::new()
            .name("score".to_owned())
            .spawn(print)?;
        Ok(Self { newest, printed })
    }

    /// Prints this score, unless it is the one that was printed last.
    pub(crate) fn put(&self, score: Counter) {
        self.newest.send_replace(Some(score));
    }

    /// Waits until another score is printed, or none will be.
    pub(crate) async fn changed(&mut self) {
        if self.printed.changed().await.is_err() {
            core::future::pending().await
        }
    }

    /// Whether a printed score has at least these clicks, or no score will be printed any more.
    pub(crate) fn shows(&self, clicks: Counter) -> bool {
        self.printed.has_changed().is_err()
            || (*self.printed.borrow()).is_some_and(|score| score.covers(clicks))
    }
}

#[derive(Serialize)]
struct Line<'a> {
    room: &'a str,
    #[serde(flatten)]
    score: Counter,
}

/// Prints until there is nobody left to ask for it.
fn print(
    room: &str,
    runtime: &Handle,
    mut newest: watch::Receiver<Option<Counter>>,
    printed: &watch::Sender<Option<Counter>>,
) -> io::Result<()> {
    while runtime.block_on(newest.changed()).is_ok() {
        let score = *newest.borrow_and_update();
        let Some(score) = score.filter(|_| score != *printed.borrow()) else {
            continue;
        };
        let mut line = serde_json::to_string(&Line { room, score })?;
        line.push('\n');
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes())?;
        out.flush()?;
        printed.send_replace(Some(score));
    }
    Ok(())
}
