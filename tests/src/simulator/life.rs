//! A device from its start to its kill: the client's own state machine, with clicks, a file and a connection.

use core::fmt::Arguments;
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use fastrand::Rng;
use latchbus_bus::Backoff;
use latchbus_core::clicks::{Color, Counter};
use latchbus_device::device::{Device, Record, Report};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ledger::{Kind, Ledger};
use super::link::{Link, Told};
use super::server::Server;
use super::trace::Trace;

/// How long a device waits before it connects again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// What is the same for all of a device's lives.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Over MQTT, or over whole messages.
    pub(super) mqtt: bool,
    /// Its state file, replaced as a whole; none until it is written once.
    pub(super) file: Arc<Mutex<Option<Record>>>,
    pub(super) server: Arc<Server>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) trace: Arc<Trace>,
    /// No more clicks.
    pub(super) quiet: CancellationToken,
}

/// One life. Aborting its task is a kill.
pub(super) struct Life {
    body: Body,
    random: Rng,
    device: Device,
    link: Option<Link>,
    backoff: Backoff,
    connect_at: Instant,
    next_click: Instant,
    /// Clicks that are not on disk.
    unstored: Counter,
    acknowledged: Option<Report>,
    /// What was given to the link last on this connection.
    given: Option<Report>,
}

impl Life {
    pub(super) fn begin(body: Body, mut random: Rng) -> Self {
        let stored = *body.file.lock().unwrap_or_else(PoisonError::into_inner);
        let record = stored.unwrap_or_else(|| Record::new(random.u32(..)).unwrap());
        body.trace
            .note(format_args!("{} starts with {record:?}", body.name));
        let device = Device::new(body.kind.room(), &body.name, record, stored.is_none());
        let now = Instant::now();
        Self {
            backoff: Backoff::with_random(BACKOFF.0, BACKOFF.1, random.fork()),
            random,
            body,
            device,
            link: None,
            connect_at: now,
            next_click: now,
            unstored: Counter::ZERO,
            acknowledged: None,
            given: None,
        }
    }

    /// Lives until its clicks are told and it is quiet.
    pub(super) async fn live(mut self) {
        let quiet = self.body.quiet.clone();
        loop {
            self.save().await;
            self.report().await;
            let is_quiet = quiet.is_cancelled();
            if is_quiet && self.is_told() {
                return;
            }
            tokio::select! {
                biased;
                told = next_of(&mut self.link) => self.take(told),
                () = sleep_until(self.connect_at), if self.link.is_none() => self.connect(),
                () = sleep_until(self.next_click), if !is_quiet => self.click(),
                () = quiet.cancelled(), if !is_quiet => {}
            }
        }
    }

    fn is_told(&self) -> bool {
        let covered = |report: &Report| self.device.is_covered_by(report);
        self.device.is_silent() || self.acknowledged.as_ref().is_some_and(covered)
    }

    fn click(&mut self) {
        let n = self.random.u64(1..4);
        let color = Color::ALL[self.random.usize(..2)];
        self.device.click(color, n);
        self.unstored.add(color, n);
        self.next_click = Instant::now() + Duration::from_millis(self.random.u64(10..1_500));
    }

    /// Replaces the state file. A kill before that finds the old one, a kill after it the new one.
    async fn save(&mut self) {
        if !self.device.is_dirty() {
            return;
        }
        if self.body.kind == Kind::Stored {
            self.pause().await;
            let record = *self.device.record();
            *self
                .body
                .file
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(record);
        }
        let clicks = core::mem::take(&mut self.unstored);
        self.body.ledger.made(self.body.kind, clicks);
        if self.body.kind == Kind::Stored {
            self.pause().await;
        }
        self.device.saved();
    }

    async fn pause(&mut self) {
        sleep(Duration::from_micros(self.random.u64(..3_000))).await;
    }

    /// Gives what is new to the connection, one at a time.
    async fn report(&mut self) {
        let Some(link) = &mut self.link else { return };
        if !link.is_busy()
            && let Some(report) = self.device.report()
            && self.given.as_ref() != Some(&report)
        {
            self.body.ledger.sent(self.body.kind, &report);
            self.given = Some(report.clone());
            link.report(report);
        }
        if !link.flush().await {
            self.lose();
        }
    }

    fn note(&self, what: Arguments<'_>) {
        self.body
            .trace
            .note(format_args!("{} {what}", self.body.name));
    }

    fn connect(&mut self) {
        self.note(format_args!("connects"));
        let base = format!("clicks/{}/{}", self.body.kind.room(), self.body.name);
        let server = &self.body.server;
        self.link = match self.body.mqtt {
            true => {
                let id = format!(
                    "{}-{:08x}",
                    self.body.name,
                    self.device.record().incarnation.nonce()
                );
                server
                    .connect_mqtt()
                    .map(|stream| Link::mqtt(stream, base, &id))
            }
            false => server.connect().map(|peer| Link::messages(peer, &base)),
        };
        if self.link.is_none() {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.note(format_args!("has no connection"));
        self.device.away();
        self.link = None;
        self.given = None;
        self.connect_at = Instant::now() + self.backoff.next_wait();
    }

    fn take(&mut self, told: Told) {
        self.note(format_args!("{told:?}"));
        let random = &mut self.random;
        match told {
            Told::Ready => {
                self.backoff.reset();
                self.device.ready(|| random.u32(..));
            }
            Told::Heard(heard) => self.device.hear(heard, || random.u32(..)),
            Told::Acknowledged(report) => {
                self.body
                    .trace
                    .note(format_args!("{} {report:?}", self.body.name));
                self.body.ledger.acknowledged(self.body.kind, &report);
                self.acknowledged = Some(report);
            }
            Told::Again => self.given = None,
            Told::Nothing => {}
            Told::Lost => self.lose(),
        }
    }
}

async fn next_of(link: &mut Option<Link>) -> Told {
    match link {
        Some(link) => link.next().await,
        None => core::future::pending().await,
    }
}
