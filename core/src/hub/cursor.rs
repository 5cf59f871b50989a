//! What a subscription takes next: the rules, written once for both forms of the hub.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Kind;

/// A place in one hub's order, as clients keep it to resume: `<epoch in hex>:<revision>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// The life of the hub that numbered `rev`.
    pub epoch: u64,
    /// The last revision taken.
    pub rev: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{}", self.epoch, self.rev)
    }
}

/// The text is not `<epoch in lower-case hex>:<revision>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is <epoch in hex>:<revision>")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (epoch, rev) = text.split_once(':').ok_or(CursorError)?;
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if !epoch.bytes().all(hex) || !rev.bytes().all(|b| b.is_ascii_digit()) {
            return Err(CursorError);
        }
        Ok(Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| CursorError)?,
            rev: rev.parse().map_err(|_| CursorError)?,
        })
    }
}

/// How a subscription that falls behind catches up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// State is conflated: of a topic that changed several times, the newest kept values come.
    #[default]
    Latest,
    /// Each publish comes while it is in the recent ring; behind it, state is conflated.
    Every,
    /// As `Latest`, without events: however many there are, values never wait behind them.
    State,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Latest, Self::Every, Self::State];

    /// As a subscription in JSON names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Every => "every",
            Self::State => "state",
        }
    }

    /// The mode of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With every kept value that matches.
    Snapshot,
    /// With what came after this cursor; with a reset and a snapshot when that is not known any more.
    Resume(Cursor),
    /// With what comes from now on.
    Live,
}

/// What a subscription takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<E> {
    /// Forget what this subscription has delivered: a full walk follows.
    Reset,
    /// Publishes were lost to this subscription.
    Gap {
        /// How many events. Exact for what came after the subscription began; for the time
        /// before that (a resume) it counts every publish of the hub that may have matched, as far as one is
        /// known. 0: none is known, but events of an earlier life of the hub may have been.
        missed: u64,
    },
    /// A value, an event or a clear.
    Entry {
        /// The publish.
        entry: E,
        /// Whether it belongs to a snapshot: it was kept before the subscription began.
        retained: bool,
    },
    /// Each topic that had a value when the subscription began has come, in that version or a newer one, or as
    /// cleared; what follows is live.
    Synced {
        /// Up to here everything has come: what a client names to resume.
        cursor: Cursor,
    },
}

/// What happened to the publishes that matched a subscription since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries that it took.
    pub taken: u64,
    /// Values and clears that a newer one of their topic replaced before they were taken. Up to
    /// date whenever the subscription has taken all there is.
    pub conflated: u64,
    /// Events that left the recent ring before they were taken.
    pub skipped: u64,
}

/// How many publishes matched a filter: a running count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) state: u64,
    pub(super) events: u64,
}

/// What one filter sees of a hub.
pub(super) trait Source {
    /// Stands for an entry until it is fetched.
    type Item;

    fn epoch(&self) -> u64;
    /// The revision of the newest publish of the whole hub.
    fn revision(&self) -> u64;
    /// From this revision on the ring has every publish of this life of the hub.
    fn recent_from(&self) -> u64;
    /// Up to this revision events of an earlier life of the hub may be missing in the ring.
    fn restored(&self) -> u64 {
        0
    }
    /// The publishes of the whole hub after one revision, up to another, as far as they are known.
    fn published(&self, after: u64, to: u64) -> u64 {
        to - after
    }
    /// Revisions of earlier lives whose values may have been taken, and were lost: after the first, up to the second
    /// of each pair.
    fn lost(&self) -> &[(u64, u64)] {
        &[]
    }
    /// The newest tombstone of the whole hub that was forgotten.
    fn forgotten_ever(&self) -> u64;
    /// The newest matching tombstone that was forgotten since the filter was first seen.
    fn forgotten(&self) -> u64;
    /// The matching publishes since the filter was first seen.
    fn totals(&self) -> Totals;
    /// The matching publishes after `rev` in the ring.
    fn recent_totals(&self, rev: u64) -> Totals;
    /// The oldest kept value after `rev`.
    fn value_after(&self, rev: u64) -> Option<Found<Self::Item>>;
    /// The oldest tombstone after `rev`.
    fn tombstone_after(&self, rev: u64) -> Option<Found<Self::Item>>;
    /// The newest matching publish or clear that took the place of a value or a tombstone, since the filter was first seen.
    fn replaced(&self) -> u64;
    /// The oldest value or clear in the ring after `rev`, up to `to`, that was its topic's newest `at` a revision.
    fn standing(&self, rev: u64, to: u64, at: u64) -> Option<Found<Self::Item>>;
    /// The oldest publish (or event) after `rev` in the ring.
    fn recent_after(&self, rev: u64, events_only: bool) -> Option<Found<Self::Item>>;
    /// What lies before a subscription that has all up to `rev`, where that can be told at once. `rev` is not below
    /// the revision of the hub when the filter was first seen.
    #[cfg(feature = "alloc")]
    fn ahead(&self, _rev: u64) -> Ahead<Self::Item> {
        Ahead::Unknown
    }
}

/// What lies before a subscription.
#[cfg(feature = "alloc")]
#[derive(Debug, Clone, Copy)]
pub(super) enum Ahead<I> {
    /// No publish matched since.
    Nothing,
    /// One publish, of a value or an event, which is in the ring if any that came since is.
    One(Found<I>),
    /// It is to be looked up.
    Unknown,
}

/// What comes into the scope of a subscription that gets another one.
#[cfg(feature = "alloc")]
#[derive(Debug, Clone, Copy)]
pub(super) enum Entered {
    /// State from this revision on.
    From(u64),
    /// Nothing that is older than where it stands.
    Nothing,
    /// It takes no state of before.
    Withheld,
}

/// An entry that a [`Source`] has found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<I> {
    pub(super) rev: u64,
    pub(super) kind: Kind,
    pub(super) item: I,
}

/// A subscription's cursor and what it has to remember beside it.
#[derive(Debug)]
pub(super) struct Walk {
    mode: Mode,
    /// Up to here everything was taken, conflated or skipped.
    taken: u64,
    /// The hub's revision when the walk began.
    began: u64,
    /// Clears up to here do not concern this walk.
    clears_after: u64,
    /// Events up to here do not concern this walk, or are lost to it.
    events_after: u64,
    /// In mode `every`: it has fallen out of the ring, and up to `events_after` state comes from the log.
    fell_behind: bool,
    /// Whether entries up to `began` are a snapshot, and not the rest of an earlier subscription.
    fresh: bool,
    reset: bool,
    synced: bool,
    /// Before `synced`: what its topics had at this revision is to come first. At first `began`, and moved on when
    /// topics have changed before their values were taken.
    sync_to: u64,
    /// Whether values of topics may have been replaced, on the way to `sync_to`, before they were taken.
    overtaken: bool,
    /// Whether the ring has the events of the hub's earlier life that are for it.
    owed: bool,
    /// The hub's revision when the subscription began, before any reset: its events count from there.
    events_since: u64,
    /// Of the filter's totals, what is dealt with: what was published before (state: before the walk began, events:
    /// before the subscription did), and what was then taken or counted as lost.
    accounted: Totals,
    counts: Counts,
    /// Up to here state comes again from the log, but for what the scope of before had: that was taken.
    #[cfg(feature = "alloc")]
    had_to: u64,
}

impl Walk {
    pub(super) fn new<S: Source>(mode: Mode, start: Start, source: &S) -> Self {
        let began = source.revision();
        let (taken, reset) = match start {
            Start::Snapshot => (0, false),
            Start::Live => (began, false),
            Start::Resume(cursor) => (
                cursor.rev,
                cursor.epoch != source.epoch()
                    || !is_known(cursor.rev, began, source.forgotten_ever(), source.lost()),
            ),
        };
        let fresh = matches!(start, Start::Snapshot);
        let changes_after = if fresh { began } else { taken };
        Self {
            mode,
            taken,
            began,
            clears_after: changes_after,
            events_after: changes_after,
            fell_behind: false,
            fresh,
            reset,
            synced: false,
            sync_to: began,
            overtaken: taken < began,
            owed: false,
            events_since: began,
            accounted: source.totals(),
            counts: Counts::default(),
            #[cfg(feature = "alloc")]
            had_to: 0,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// What came in the hub's earlier life is in the ring too, as far as it is for this subscription.
    #[cfg(feature = "alloc")]
    pub(super) fn owe(&mut self) {
        self.owed = true;
    }

    /// Up to here everything was taken, conflated or skipped.
    #[cfg(feature = "alloc")]
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Up to here the state of the scope of before has been taken, and does not come again.
    #[cfg(feature = "alloc")]
    pub(super) fn had_to(&self) -> u64 {
        self.had_to
    }

    /// Before it goes on with another source: what was forgotten in this one. Whether it has taken all that this one has.
    #[cfg(feature = "alloc")]
    pub(super) fn leave<S: Source>(&mut self, source: &S) -> bool {
        // A snapshot that is not over goes on from the log, where a clear may be missing that the ring still has.
        let reads_log = self.fresh && !self.synced;
        self.reset |=
            self.has_lost_a_clear(source) || reads_log && source.forgotten() > self.clears_done();
        matches!(self.ahead(source), Ahead::Nothing)
    }

    /// Goes on with another source, from where it stands. Where it `has_all` of the one before, the events of this one were
    /// published while they were not for it. Of its state, what has changed since then comes, and what `entered` says: all
    /// that this one has from a revision on and the one before had not, or nothing at all.
    #[cfg(feature = "alloc")]
    pub(super) fn move_to<S: Source>(&mut self, source: &S, has_all: bool, entered: Entered) {
        let newest = source.revision();
        let rev = match entered {
            Entered::From(oldest) => oldest.saturating_sub(1).min(self.taken),
            Entered::Nothing => self.taken,
            Entered::Withheld if has_all => newest,
            Entered::Withheld => self.taken,
        };
        let enters = matches!(entered, Entered::From(_));
        let cursor = Cursor {
            epoch: source.epoch(),
            rev,
        };
        let walk = Self::new(self.mode, Start::Resume(cursor), source);
        let missed = has_all && rev < newest;
        *self = Self {
            clears_after: match entered {
                Entered::From(oldest) => oldest.saturating_sub(1).min(self.clears_done()),
                _ => self.clears_done(),
            },
            events_after: match missed {
                true => newest,
                false => self.changes_done(),
            },
            // The log has the state.
            fell_behind: self.fell_behind || (missed || enters) && self.mode == Mode::Every,
            fresh: self.fresh && !self.synced,
            reset: self.reset,
            synced: self.synced,
            owed: self.owed,
            counts: self.counts,
            had_to: match enters {
                true => self.taken,
                false => 0,
            },
            ..walk
        };
    }

    /// Begins a snapshot again, and goes on with the events and clears that were not taken.
    pub(super) fn rewind<S: Source>(&mut self, source: &S) {
        if self.reset {
            return;
        }
        let clears_after = self.clears_done();
        self.restart(source);
        self.clears_after = clears_after;
    }

    /// Takes the next step; `None` when the subscription has all there is.
    pub(super) fn step<S: Source>(&mut self, source: &S) -> Option<Step<S::Item>> {
        // Nothing comes after the last revision.
        self.step_to(source, u64::MAX).ok()?
    }

    /// The same, but for what stands after `to` in the hub's order.
    ///
    /// # Errors
    /// With the revision at which the next step stands, if that is after `to`.
    #[inline(always)]
    pub(super) fn step_to<S: Source>(
        &mut self,
        source: &S,
        to: u64,
    ) -> Result<Option<Step<S::Item>>, u64> {
        self.advance(source, to, None)
    }

    /// Of what has changed since, `standing` wants the value that stood at this revision.
    #[inline(always)]
    fn advance<S: Source>(
        &mut self,
        source: &S,
        to: u64,
        standing: Option<u64>,
    ) -> Result<Option<Step<S::Item>>, u64> {
        // A microcontroller has few messages to look up, and no flash to spare.
        #[cfg(feature = "alloc")]
        match self.ahead(source) {
            Ahead::Nothing => {
                self.caught_up(source);
                return Ok(None);
            }
            Ahead::One(found) if self.mode == Mode::State && found.kind == Kind::Event => {}
            Ahead::One(found) if found.rev > to => return Err(found.rev),
            Ahead::One(found) => return Ok(Some(self.take(found))),
            Ahead::Unknown => {}
        }
        self.look_up(source, to, standing)
    }

    /// The same in a batch that ends at `to`: of a topic that has changed since, the value comes that it had there, as long as
    /// the ring has it. One that changes faster than its reader takes a batch would always come after the others, and so never.
    ///
    /// # Errors
    /// As for [`Self::step_to`].
    #[cfg(feature = "alloc")]
    pub(super) fn step_in_batch<S: Source>(
        &mut self,
        source: &S,
        to: u64,
    ) -> Result<Option<Step<S::Item>>, u64> {
        let standing = Some(to).filter(|_| self.taken >= self.had_to);
        self.advance(source, to, standing)
    }

    /// Most steps are those of a subscription that keeps up: it is synced, has lost nothing, and reads no log.
    #[cfg(feature = "alloc")]
    fn ahead<S: Source>(&self, source: &S) -> Ahead<S::Item> {
        let keeps_up = self.synced
            && !self.reset
            && self.taken >= self.began.max(self.log_to())
            && self.changes_done() == self.taken
            && self.in_ring(source);
        match keeps_up {
            true => source.ahead(self.taken),
            false => Ahead::Unknown,
        }
    }

    #[inline(always)]
    fn look_up<S: Source>(
        &mut self,
        source: &S,
        to: u64,
        standing: Option<u64>,
    ) -> Result<Option<Step<S::Item>>, u64> {
        if self.reset || self.has_lost_a_clear(source) {
            self.restart(source);
            return Ok(Some(Step::Reset));
        }
        self.overtaken |= self.taken + 1 < source.recent_from();
        if let Some(missed) = self.skip_lost(source) {
            return Ok(Some(Step::Gap { missed }));
        }
        loop {
            let next = match self.mode {
                Mode::Latest | Mode::State => self.latest(source, standing),
                Mode::Every => self.every(source),
            };
            if self.synced || next.as_ref().is_some_and(|found| found.rev <= self.sync_to) {
                let Some(found) = next else {
                    self.caught_up(source);
                    return Ok(None);
                };
                if found.rev > to {
                    return Err(found.rev);
                }
                return Ok(Some(self.take(found)));
            }
            self.taken = self.taken.max(self.sync_to);
            if !self.overtaken || source.replaced() <= self.sync_to {
                let (epoch, rev) = (source.epoch(), self.sync_to);
                if rev > to {
                    return Err(rev);
                }
                self.synced = true;
                return Ok(Some(Step::Synced {
                    cursor: Cursor { epoch, rev },
                }));
            }
            // What was overtaken has a version between the two, which stands in the ring, unless that is overrun again.
            self.overtaken = self.taken + 1 < source.recent_from();
            self.sync_to = source.revision();
        }
    }

    #[inline(always)]
    fn take<I>(&mut self, found: Found<I>) -> Step<I> {
        let Found { rev, kind, item } = found;
        self.taken = rev;
        self.counts.taken += 1;
        let live = rev > self.began;
        if kind == Kind::Event {
            self.accounted.events += u64::from(rev > self.events_since);
        } else if live && rev > self.catch_up_to() {
            self.accounted.state += 1;
        } else if live {
            // It was counted as lost when the cursor fell out of the ring; the log still had it.
            self.counts.conflated = self.counts.conflated.saturating_sub(1);
        }
        Step::Entry {
            entry: item,
            retained: self.fresh && !live && kind == Kind::State,
        }
    }

    /// Everything that changed up to here has been seen or given up.
    fn changes_done(&self) -> u64 {
        self.taken.max(self.events_after)
    }

    /// The same of clears.
    pub(super) fn clears_done(&self) -> u64 {
        self.taken.max(self.clears_after)
    }

    fn in_ring<S: Source>(&self, source: &S) -> bool {
        self.changes_done() >= self.ring_end(source)
    }

    /// Up to here the ring is not to be relied upon.
    fn ring_end<S: Source>(&self, source: &S) -> u64 {
        let left = source.recent_from() - 1;
        match self.owed {
            true => left,
            false => left.max(source.restored()),
        }
    }

    fn catch_up_to(&self) -> u64 {
        match self.fell_behind {
            true => self.events_after,
            false => 0,
        }
    }

    /// Up to here the walk reads from the log: its snapshot, and what it has to catch up with.
    fn log_to(&self) -> u64 {
        match self.fresh {
            true => self.began.max(self.catch_up_to()),
            false => self.catch_up_to(),
        }
    }

    /// A clear that is still in the ring is not lost to a cursor that reads from there.
    fn has_lost_a_clear<S: Source>(&self, source: &S) -> bool {
        let reads_ring =
            self.mode == Mode::Every && self.in_ring(source) && self.clears_done() >= self.log_to();
        source.forgotten() > self.clears_done() && !reads_ring
    }

    /// Begins with a snapshot again; events that were not taken still come.
    fn restart<S: Source>(&mut self, source: &S) {
        let events_after = match (self.reset, self.owed) {
            (true, false) => self.events_since,
            // What was forgotten are clears: the events that are owed stand in the ring all the same.
            (true, true) => self.changes_done().min(self.events_since),
            (false, _) => self.changes_done(),
        };
        let walk = Self::new(self.mode, Start::Snapshot, source);
        *self = Self {
            events_after,
            owed: self.owed,
            events_since: self.events_since,
            accounted: Totals {
                state: walk.accounted.state,
                events: self.accounted.events,
            },
            counts: self.counts,
            ..walk
        };
    }

    /// Counts what left the ring before it was taken, and says how many events a subscriber is to
    /// be told of.
    fn skip_lost<S: Source>(&mut self, source: &S) -> Option<u64> {
        // Who takes no events loses nothing with the ring.
        if self.mode == Mode::State || self.in_ring(source) {
            return None;
        }
        let done = self.changes_done();
        let ring_end = self.ring_end(source);
        let totals = source.totals();
        let waiting = source.recent_totals(self.events_since.max(done)).events;
        let lost_events = totals.events - self.accounted.events - waiting;
        self.accounted.events += lost_events;
        self.counts.skipped += lost_events;
        self.events_after = ring_end;
        if self.mode == Mode::Latest {
            return (lost_events > 0).then_some(lost_events);
        }
        let waiting = source.recent_totals(self.began.max(done)).state;
        let lost_state = totals.state - self.accounted.state - waiting;
        self.accounted.state += lost_state;
        self.counts.conflated += lost_state;
        self.fell_behind = true;
        let unknown_to = ring_end.min(self.events_since).max(done);
        let unknown = source.published(done, unknown_to);
        (lost_events + lost_state > 0 || unknown_to > done).then_some(lost_events + unknown)
    }

    fn latest<S: Source>(&self, source: &S, standing: Option<u64>) -> Option<Found<S::Item>> {
        let event = match self.mode {
            Mode::State => None,
            _ => source.recent_after(self.changes_done(), true),
        };
        let next = older(self.logged(source), event);
        // Before `synced`, that of the beginning.
        let at = match self.synced {
            true => standing,
            false => Some(self.sync_to).filter(|to| *to != self.began),
        };
        let Some(at) = at else {
            return next;
        };
        // What is older than that is not looked for twice.
        let to = next.as_ref().map_or(u64::MAX, |found| found.rev - 1);
        let standing = source.standing(self.taken, to.min(at), at);
        standing.or(next)
    }

    fn every<S: Source>(&mut self, source: &S) -> Option<Found<S::Item>> {
        let log_to = self.log_to();
        if self.taken < log_to {
            let logged = self.logged(source).filter(|found| found.rev <= log_to);
            // Those that a walk which was begun again has not taken.
            let event = source.recent_after(self.changes_done(), true);
            let older = older(logged, event.filter(|found| found.rev <= log_to));
            if older.is_some() {
                return older;
            }
            // The log has nothing more that is older than the ring.
            self.taken = log_to;
        }
        source.recent_after(self.taken, false)
    }

    /// The oldest value or clear behind the cursor.
    fn logged<S: Source>(&self, source: &S) -> Option<Found<S::Item>> {
        let value = source.value_after(self.taken);
        older(value, source.tombstone_after(self.clears_done()))
    }

    fn caught_up<S: Source>(&mut self, source: &S) {
        self.taken = source.revision();
        if self.mode != Mode::Every {
            let seen = source.totals().state;
            self.counts.conflated += seen - self.accounted.state;
            self.accounted.state = seen;
        }
    }
}

/// Whether a walk can go on behind a revision of this epoch: it was given, no tombstone behind it was forgotten, and it
/// was not lost.
pub(super) fn is_known(rev: u64, newest: u64, forgotten: u64, lost: &[(u64, u64)]) -> bool {
    rev <= newest && rev >= forgotten && !is_lost(rev, lost)
}

fn is_lost(rev: u64, lost: &[(u64, u64)]) -> bool {
    lost.iter().any(|(after, to)| rev > *after && rev <= *to)
}

fn older<I>(a: Option<Found<I>>, b: Option<Found<I>>) -> Option<Found<I>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.rev < b.rev { a } else { b }),
        (a, b) => a.or(b),
    }
}
