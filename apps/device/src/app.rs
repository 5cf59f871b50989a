//! The program: brings source, state file, connection and device together.

use core::fmt;
use core::future::pending;
use core::time::Duration;

use anyhow::Context;
use tokio::select;
use tokio::task::block_in_place;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use crate::address::Address;
use crate::complaints::Complaints;
use crate::device::{Device, Report};
use crate::link::{Change, Link};
use crate::score::Scores;
use crate::signals::Signals;
use crate::simulation::Run;
use crate::source::{Source, Step};
use crate::state::StateFile;

/// How often the count is published again without a change, so that a server that has forgotten it learns it.
const REPEAT: Duration = Duration::from_secs(60);

/// How long the device waits to be told what the server knew of it, before it speaks. Servers tell at once.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// The least time for a goodbye, also when the time to wait for the acknowledgement is over.
const GOODBYE: Duration = Duration::from_millis(500);

/// Everything that a device runs with.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) address: Address,
    pub(crate) device: Device,
    pub(crate) file: StateFile,
    pub(crate) link: Link,
    pub(crate) source: Source,
    pub(crate) scores: Option<Scores>,
    pub(crate) signals: Signals,
    /// How long the end may take.
    pub(crate) timeout: Duration,
}

/// How the device ended, when nothing failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The server has acknowledged every click.
    Acknowledged,
    /// It has not, in time.
    Unacknowledged(Reason),
}

/// Why clicks are not acknowledged. They are in the state file, and the next start sends them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    NoConnection(Address, Option<String>),
    Silence,
    Refused(String),
    /// There is no boot left above the hub's floor.
    Folded,
    /// A second signal.
    Interrupted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection(address, None) => {
                write!(f, "there is no connection to {address}: no answer so far")
            }
            Self::NoConnection(address, Some(why)) => {
                write!(f, "there is no connection to {address}: {why}")
            }
            Self::Silence => f.write_str("no acknowledgement has come"),
            Self::Refused(why) => write!(f, "the server has refused them: {why}"),
            Self::Folded => f.write_str("the server takes no count of this id any more"),
            Self::Interrupted => f.write_str("it was interrupted again"),
        }
    }
}

/// What the loop remembers.
#[derive(Debug, Default)]
struct Progress {
    online: bool,
    /// Why there is no connection.
    offline: Complaints,
    /// A connection is up and has not told yet what the server knew; how long to wait for it.
    told_by: Option<Instant>,
    /// What was given to the link last.
    given: Option<Report>,
    /// It is to be given again.
    again: bool,
    /// What the server has acknowledged last.
    acknowledged: Option<Report>,
    refused: Option<String>,
    /// There are no more clicks; how long to wait for the acknowledgement.
    ends_by: Option<Instant>,
}

impl App {
    /// Runs to the end.
    ///
    /// # Errors
    /// When the state file cannot be written, the input cannot be read, or the connection cannot be used.
    /// What was accepted before is in the state file.
    pub(crate) async fn run(mut self) -> anyhow::Result<Ended> {
        let mut progress = Progress::default();
        let mut repeat = interval_at(Instant::now() + REPEAT, REPEAT);
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unread = None;
        let ended = loop {
            self.settle(&mut progress)?;
            if progress.ends_by.is_some() && self.is_acknowledged(&progress) && self.is_shown() {
                break Ended::Acknowledged;
            }
            select! {
                change = self.link.next() => self.handle(change?, &mut progress)?,
                step = self.source.click(&mut self.device), if progress.ends_by.is_none() => {
                    match step {
                        Step::Clicked => {}
                        Step::Ended => progress.ends_by = Some(Instant::now() + self.timeout),
                        Step::Failed(error) => {
                            unread = Some(error);
                            progress.ends_by = Some(Instant::now() + self.timeout);
                        }
                    }
                }
                () = self.signals.next() => {
                    if progress.ends_by.is_some() {
                        break Ended::Unacknowledged(Reason::Interrupted);
                    }
                    progress.ends_by = Some(Instant::now() + self.timeout);
                }
                () = at(progress.told_by) => {
                    tracing::warn!(
                        target: "device",
                        "the server does not tell what it knows of this device: it does where its rules let the \
                         device publish and read its topics"
                    );
                    progress.told_by = None;
                    self.device.ready(nonce);
                }
                () = at(progress.ends_by) => break self.overdue(progress.refused.take(), &progress),
                () = shown(&mut self.scores) => {}
                _ = repeat.tick() => progress.again = true,
            }
        };
        self.end(&ended, &progress).await?;
        match unread {
            Some(error) => Err(error).context("cannot read the input"),
            None => Ok(ended),
        }
    }

    /// Puts on disk what is new, and then gives it to the link.
    fn settle(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        self.save()?;
        if let Some(report) = self.device.report()
            && (progress.again || progress.given.as_ref() != Some(&report))
        {
            self.link.report(&report)?;
            progress.given = Some(report);
            progress.again = false;
        }
        Ok(())
    }

    fn save(&mut self) -> anyhow::Result<()> {
        if self.device.is_dirty() {
            block_in_place(|| self.file.save(self.device.record()))
                .with_context(|| format!("cannot write {}", self.file.path().display()))?;
            self.device.saved();
        }
        Ok(())
    }

    fn handle(&mut self, change: Change, progress: &mut Progress) -> anyhow::Result<()> {
        let before = self.device.record().incarnation;
        self.follow(change, progress)?;
        let after = self.device.record().incarnation;
        if before != after {
            tracing::info!(target: "device", %before, %after, "goes on in a new incarnation");
        }
        Ok(())
    }

    fn follow(&mut self, change: Change, progress: &mut Progress) -> anyhow::Result<()> {
        match change {
            Change::Online => {
                tracing::info!(target: "device", address = %self.address, "connected");
                progress.online = true;
                progress.offline = Complaints::default();
                progress.again = true;
                // It may have been told before this.
                let waits = !self.device.is_ready();
                progress.told_by = waits.then(|| Instant::now() + TOLD_WITHIN);
                self.link.say_online()?;
            }
            Change::Offline(reason) => {
                let is_news = progress.offline.is_news(reason, Instant::now());
                let reason = progress.offline.last();
                if progress.online {
                    tracing::warn!(target: "device", address = %self.address, reason, "the connection is lost");
                } else if is_news {
                    tracing::warn!(target: "device", address = %self.address, reason, "cannot connect, trying on");
                }
                progress.online = false;
                progress.told_by = None;
                self.device.away();
            }
            Change::Told => {
                progress.told_by = None;
                self.device.ready(nonce);
            }
            Change::Heard(heard) => self.device.hear(heard, nonce),
            // By its own will of an earlier connection, or by another device with this id that has left.
            Change::SaidOffline if self.device.is_ready() => self.link.say_online()?,
            Change::SaidOffline => {}
            Change::Score(score) => {
                if let Some(scores) = &self.scores {
                    scores.put(score);
                }
            }
            Change::Acknowledged(counter) => {
                progress.refused = None;
                progress.acknowledged = progress.given.as_ref().map(|given| Report {
                    topic: given.topic.clone(),
                    counter,
                });
            }
            Change::Refused(why) => {
                if progress.refused.as_ref() != Some(&why) {
                    tracing::warn!(target: "device", %why, "the server refuses the count");
                }
                progress.refused = Some(why);
            }
        }
        Ok(())
    }

    /// Whether the server knows every click.
    fn is_acknowledged(&self, progress: &Progress) -> bool {
        let covers = |report| self.device.is_covered_by(report);
        self.device.is_silent() || progress.acknowledged.as_ref().is_some_and(covers)
    }

    /// Whether the score that is printed, if any is to be, has the device's clicks.
    fn is_shown(&self) -> bool {
        let clicks = self.device.record().count;
        self.scores
            .as_ref()
            .is_none_or(|scores| scores.shows(clicks))
    }

    /// The time to wait is over.
    fn overdue(&self, refused: Option<String>, progress: &Progress) -> Ended {
        if self.is_acknowledged(progress) {
            return Ended::Acknowledged;
        }
        Ended::Unacknowledged(match refused {
            Some(why) => Reason::Refused(why),
            None if self.device.is_folded() => Reason::Folded,
            None if !progress.online => {
                let why = progress.offline.last().map(str::to_owned);
                Reason::NoConnection(self.address.clone(), why)
            }
            None => Reason::Silence,
        })
    }

    async fn end(mut self, ended: &Ended, progress: &Progress) -> anyhow::Result<()> {
        let run = self.device.record().run;
        if *ended == Ended::Acknowledged && run.is_some_and(Run::is_complete) {
            // Its every click is known: the next start with the same flags makes as many again.
            self.device.set_run(None);
            self.save()?;
        }
        if progress.online {
            let ends_by = progress.ends_by.unwrap_or_else(Instant::now);
            let least = Instant::now() + GOODBYE;
            self.link.leave(ends_by.max(least)).await;
        }
        Ok(())
    }
}

/// Eight hex digits of the system's randomness: devices that boot in the same moment must not draw the same.
fn nonce() -> u32 {
    crate::random() as u32
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

async fn shown(scores: &mut Option<Scores>) {
    match scores {
        Some(scores) => scores.changed().await,
        None => pending().await,
    }
}
