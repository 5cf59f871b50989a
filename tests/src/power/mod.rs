//! Power cuts under a real bus: its traffic goes to a real store on a disk whose power fails at any moment, and
//! what may be on the disk then is opened again, in many forms. Nothing that was acknowledged is missing, no batch
//! is there in part, nobody was shown what is not there, and no revision is used twice.
//!
//! | module | what it holds |
//! |---|---|
//! | `disk` | the disk: a random part of what was not synchronised stays, torn at 512 bytes; the file's length, too |
//! | `traffic` | the messages |
//! | `model` | what must be known after them |
//! | `witness` | who was shown what |

mod disk;
mod model;
mod traffic;
mod witness;

pub use self::disk::{Disk, Image};

use core::fmt;
use core::ops::AddAssign;
use core::time::Duration;
use std::collections::HashMap;

use fastrand::Rng;
use futures_util::FutureExt;
use latchbus_bus::simulation::{self, Commits};
use latchbus_bus::{Bus, Client, Clock, HistoryRule, Holder, Options, Principal, Quotas, Receipt};
use latchbus_core::topic::TopicFilter;
use tokio::runtime::Builder;
use tokio::task::coop::unconstrained;

use self::model::{HISTORY, Message, Model};
use self::traffic::{Traffic, publish};
use self::witness::Witness;

/// A log so short that checkpoints come as often as power cuts do.
pub(crate) const CHECKPOINT_BYTES: u64 = 8 << 10;

/// Power cuts that one store lives through.
const CUTS: u64 = 20;

/// What is published by: the first so many are users, whose holdings are counted; the last is the process, which has none.
const USERS: usize = 3;

/// How a store is told to keep what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// As the server does it.
    Kept,
    /// Controls: commits that are not durable, and a disk that does not synchronise.
    NotDurable,
    /// See above.
    Lied,
}

/// What must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// What is on the disk cannot be opened.
    Unreadable(String),
    /// What is there is neither what was acknowledged, nor that and the batch that was under way.
    LostOrTorn(String),
    /// Somebody saw another thing than what is committed.
    Shown(String),
    /// What a user holds is counted otherwise than what is there.
    Held(String),
    /// A revision has stood for two things, or has gone back.
    Revision(String),
    /// Something was acknowledged before it was committed, or refused.
    Answer(String),
}

/// What was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Forms of a disk after a power cut that were opened.
    pub images: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Of these, while the store was being opened.
    pub cuts_at_start: u64,
    /// Of the images, those with the whole batch that was under way.
    pub ahead: u64,
    /// Of the images, those without some of the last batches of state that was published at QoS 0 alone.
    pub behind: u64,
    /// How often a subscriber that came back was told to forget what it knew.
    pub resets: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Commits that failed because the disk was full, or had a passing fault.
    pub full: u64,
    /// Of the images, how often a user held something in one.
    pub held: u64,
    /// Messages that a subscriber was shown.
    pub shown: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.cuts += other.cuts;
        self.cuts_at_start += other.cuts_at_start;
        self.ahead += other.ahead;
        self.behind += other.behind;
        self.resets += other.resets;
        self.acknowledged += other.acknowledged;
        self.full += other.full;
        self.held += other.held;
        self.shown += other.shown;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} images of {} power cuts ({} while starting), {} messages acknowledged, {} shown, {} commits failed on a \
             full or faulty disk; {} images had the batch under way, whole, {} had lost QoS 0 state that was not yet \
             synchronised; {} resets of a subscriber that came back; 0 others lost, 0 torn, 0 shown ahead, 0 revisions twice; {} holdings of users counted as they are",
            self.images,
            self.cuts,
            self.cuts_at_start,
            self.acknowledged,
            self.shown,
            self.full,
            self.ahead,
            self.behind,
            self.resets,
            self.held
        )
    }
}

/// One seed: a store from its beginning over `CUTS` power cuts, of each of which `forms` images are opened.
///
/// # Errors
/// What must never be.
pub fn run(seed: u64, forms: u64, promise: Promise) -> Result<Outcome, Violation> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut run = Run::new(seed, promise);
        for _ in 0..CUTS {
            run.live().await?;
            run.lose_power(forms)?;
        }
        Ok(run.outcome)
    })
}

struct Run {
    random: Rng,
    promise: Promise,
    clock: Clock,
    now: u64,
    disk: Disk,
    traffic: Traffic,
    /// What is committed.
    model: Model,
    /// What was before each of the last batches, as far as those may be lost.
    unsynced: Vec<Model>,
    /// With the batch that is under way.
    next: Option<Model>,
    witness: Witness,
    outcome: Outcome,
}

impl Run {
    fn new(seed: u64, promise: Promise) -> Self {
        let mut random = Rng::with_seed(seed);
        let now = 1_700_000_000_000;
        Self {
            traffic: Traffic::new(random.fork()),
            random,
            promise,
            clock: Clock::manual(now),
            now,
            disk: Disk::default(),
            model: Model::default(),
            unsynced: Vec::new(),
            next: None,
            witness: Witness::default(),
            outcome: Outcome::default(),
        }
    }

    /// From the start of a bus to the failure of its power.
    async fn live(&mut self) -> Result<(), Violation> {
        if self.promise == Promise::Lied {
            self.disk.lie();
        }
        if self.random.u8(..6) == 0 {
            // While it starts, the first time also while its file is made.
            self.disk.fail_after(self.random.u64(..3));
        }
        let (bus, mut commits) = match self.open(&self.disk.clone()) {
            Ok(opened) => opened,
            Err(_) if self.disk.is_off() => {
                self.outcome.cuts_at_start += 1;
                return Ok(());
            }
            Err(violation) => return Err(violation),
        };
        let resumes = self.outcome.cuts > 0 && self.random.bool();
        self.witness.begins(&bus, resumes);
        let users = (0..USERS).map(|n| Principal::user(user_name(n), "power"));
        let clients: Vec<_> = users
            .chain([Principal::process()])
            .map(|principal| bus.client(principal).unwrap())
            .collect();
        let batches = self.random.usize(1..12);
        for batch in 0..batches {
            if batch + 1 == batches {
                self.disk.fail_after(self.random.u64(..4));
            }
            if !self.batch(&bus, &clients, &mut commits).await? {
                break;
            }
        }
        self.disk.cut();
        Ok(())
    }

    /// One batch, from its publishes to their answers. False when the power has failed.
    async fn batch(
        &mut self,
        bus: &Bus,
        clients: &[Client],
        commits: &mut Commits,
    ) -> Result<bool, Violation> {
        self.pass_time().await;
        let messages = self.traffic.batch(self.now);
        let light = messages
            .iter()
            .all(|message| matches!(message, Message::State { light: true, .. }));
        let mut next = self.model.clone();
        let mut receipts = Vec::new();
        for message in &messages {
            // What the hub derives of counts is nobody's; so are the counts, here.
            let user = self.random.usize(..USERS);
            let client = match message {
                Message::State { .. } => user,
                _ => USERS,
            };
            let publish = publish(message, self.now);
            receipts.push(clients[client].enqueue(publish).await);
            next.take(message, client);
        }
        self.next = Some(next);
        commits.begin();
        if self.random.u8(..40) == 0 {
            return Ok(false);
        }
        if !self.commit(bus, commits, &mut receipts, &messages)? || self.random.u8(..40) == 0 {
            return Ok(false);
        }
        self.witness.looks(&self.model, self.now)?;
        commits.finish();
        for (receipt, message) in receipts.into_iter().zip(&messages) {
            match unconstrained(receipt).now_or_never() {
                Some(Ok(_)) => self.outcome.acknowledged += 1,
                other => return Err(Violation::Answer(format!("{other:?} to {message:?}"))),
            }
        }
        let model = self.next.take().unwrap();
        let before = core::mem::replace(&mut self.model, model);
        if light {
            self.unsynced.push(before);
        } else if before.shown(0) != self.model.shown(0) {
            // What changes nothing that is kept, events say, synchronises nothing.
            self.unsynced.clear();
        }
        self.witness.looks(&self.model, self.now)?;
        self.outcome.shown = self.witness.shown;
        self.outcome.resets = self.witness.resets;
        Ok(true)
    }

    /// The commit of a batch, if need be until the disk has room again. False when the power has failed.
    fn commit(
        &mut self,
        bus: &Bus,
        commits: &mut Commits,
        receipts: &mut [Receipt],
        messages: &[Message],
    ) -> Result<bool, Violation> {
        match self.random.u8(..24) {
            0 | 1 => self.disk.limit(Some(self.random.usize(..2) << 12)),
            2 | 3 => self.disk.stumble_after(Some(self.random.u64(..2))),
            _ => {}
        }
        let mut committed = commits.commit();
        if committed.is_err() && !self.disk.is_off() {
            self.outcome.full += 1;
            if bus.health().is_ok() {
                return Err(Violation::Answer("a failed store is called healthy".into()));
            }
            // Once more without room, and then with it.
            committed = commits.commit();
        }
        // What is not kept goes past the store, unless it follows what is.
        for (receipt, message) in receipts.iter_mut().zip(messages) {
            let kept = !matches!(message, Message::Event { .. });
            if kept && unconstrained(receipt).now_or_never().is_some() {
                return Err(Violation::Answer(format!(
                    "{message:?} before the end of the commit"
                )));
            }
        }
        self.disk.limit(None);
        self.disk.stumble_after(None);
        if committed.is_err() && !self.disk.is_off() {
            committed = commits.commit();
        }
        match committed {
            Ok(()) => Ok(true),
            Err(_) if self.disk.is_off() => Ok(false),
            Err(error) => Err(Violation::Unreadable(format!("with room: {error}"))),
        }
    }

    /// Lets time go on, now and then by so much that values expire.
    async fn pass_time(&mut self) {
        self.now += self.random.u64(..3_000);
        self.clock.set(self.now);
        if self.random.u8(..4) == 0 {
            // What the bus does every second comes with the next batch.
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
    }

    /// Opens what the failure of the power may have left, in many forms; goes on with one of them.
    fn lose_power(&mut self, forms: u64) -> Result<(), Violation> {
        self.outcome.cuts += 1;
        for form in 0..forms {
            let image = self.disk.image(&mut self.random);
            let disk = Disk::holding(image.clone());
            let (bus, _commits) = self.open(&disk)?;
            let found = self.find(&bus)?;
            self.check_held(&bus, &found)?;
            self.outcome.images += 1;
            disk.cut();
            if form + 1 == forms {
                self.disk = Disk::holding(image);
                self.model = found;
            }
        }
        self.next = None;
        self.unsynced.clear();
        Ok(())
    }

    /// What is there: all that was committed, or that and the batch that was under way, or that without some of the
    /// last batches that may be lost.
    fn find(&mut self, bus: &Bus) -> Result<Model, Violation> {
        let there = witness::kept(bus);
        if let Some(next) = self
            .next
            .as_ref()
            .filter(|next| there == next.shown(self.now))
        {
            self.outcome.ahead += u64::from(there != self.model.shown(self.now));
            self.witness.accepts(bus)?;
            return Ok(next.clone());
        }
        if there == self.model.shown(self.now) {
            self.witness.accepts(bus)?;
            return Ok(self.model.clone());
        }
        let mut unsynced = self.unsynced.iter().rev();
        if let Some(lost) = unsynced.find(|model| there == model.shown(self.now)) {
            self.outcome.behind += 1;
            self.witness.accepts(bus)?;
            return Ok(lost.clone());
        }
        let (wanted, next) = (self.model.shown(self.now), self.next.as_ref());
        let next = next.map(|next| next.shown(self.now));
        Err(Violation::LostOrTorn(witness::difference(
            &there,
            &wanted,
            next.as_ref(),
        )))
    }

    /// What each user holds is counted anew when a store is opened.
    fn check_held(&mut self, bus: &Bus, model: &Model) -> Result<(), Violation> {
        let held: HashMap<_, _> = simulation::holdings(bus)
            .into_iter()
            .map(|(holder, topics, bytes)| (holder, (topics, bytes)))
            .collect();
        for n in 0..USERS {
            let user = Holder::User(user_name(n));
            let (topics, bytes) = held.get(&user).copied().unwrap_or_default();
            let (least, most) = model.held(n, self.now);
            if !(least.0..=most.0).contains(&topics) || !(least.1..=most.1).contains(&bytes) {
                let text =
                    format!("{user:?}: {topics} topics, {bytes} bytes; {least:?} to {most:?}");
                return Err(Violation::Held(text));
            }
            self.outcome.held += u64::from(topics > 0);
        }
        match held.len() > USERS {
            true => Err(Violation::Held(format!("by others: {held:?}"))),
            false => Ok(()),
        }
    }

    fn open(&self, disk: &Disk) -> Result<(Bus, Commits), Violation> {
        let history = HistoryRule {
            filter: TopicFilter::parse(format!("{}#", HISTORY.0)).unwrap(),
            keep: HISTORY.1,
        };
        let options = Options {
            clock: self.clock.clone(),
            seed: Some(self.random.clone().u64(..)),
            history: vec![history],
            // Bounds that nobody reaches, so that what users hold is counted and stored.
            quotas: Quotas {
                user_retained_topics: Some(1 << 20),
                user_retained_bytes: Some(1 << 30),
                ..Quotas::default()
            },
            ..Options::default()
        };
        let backend = disk.clone();
        let open = move |file| Ok(backend.file(file));
        let store = simulation::Disk::backend(open, CHECKPOINT_BYTES);
        let store = match self.promise {
            Promise::NotDurable => store.without_durability(),
            Promise::Kept | Promise::Lied => store,
        };
        simulation::open(options, store).map_err(|error| {
            let mut text = error.to_string();
            let mut source = core::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            Violation::Unreadable(text)
        })
    }
}

fn user_name(n: usize) -> String {
    format!("user-{n}")
}
