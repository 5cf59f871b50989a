//! The model: every publish is kept for ever, and each answer is found by looking through all of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use latchbus_core::hub::{Counts, Cursor, Kind, Limits, Mode, Retain, Start, Step};

use super::{Driver, Taken, filter, name};

pub(crate) struct Model {
    epoch: u64,
    limits: Limits,
    /// By revision, from 1; nothing at those that were skipped.
    history: Vec<Option<Taken>>,
    kept: BTreeMap<String, VecDeque<u64>>,
    tombstones: BTreeMap<u64, String>,
    forgotten: Vec<(u64, String)>,
    subscriptions: Vec<Option<Subscription>>,
}

struct Subscription {
    filter: String,
    mode: Mode,
    fresh: bool,
    reset: bool,
    synced: bool,
    sync_to: u64,
    overtaken: bool,
    began: u64,
    taken: u64,
    given_up: u64,
    catch_up_to: u64,
    changes_after: u64,
    forgotten_before: usize,
    state_taken: BTreeSet<u64>,
    state_lost: BTreeSet<u64>,
    counts: Counts,
    conflated_before: u64,
    events_since: u64,
}

impl Model {
    pub(crate) fn new(epoch: u64, limits: Limits) -> Self {
        Self {
            epoch,
            limits,
            history: Vec::new(),
            kept: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            forgotten: Vec::new(),
            subscriptions: Vec::new(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.history.len() as u64
    }

    fn recent_from(&self) -> u64 {
        let (mut bytes, mut entries) = (0, 0);
        let mut newest_first = self.history.iter().rev().flatten();
        let left = newest_first.find(|entry| {
            entries += 1;
            bytes += entry.topic.len() + entry.payload.len();
            entries > self.limits.recent || bytes > self.limits.recent_bytes
        });
        left.map_or(0, |entry| entry.rev) + 1
    }

    /// Leaves out revisions.
    #[allow(dead_code)] // as above: see `Driver`
    pub(crate) fn skip(&mut self, by: u64) {
        self.history.extend((0..by).map(|_| None));
    }

    fn entry(&self, rev: u64) -> &Taken {
        self.history[rev as usize - 1]
            .as_ref()
            .expect("no skipped revision")
    }

    /// The next value or clear of the same topic.
    fn follower(&self, rev: u64) -> Option<u64> {
        let topic = &self.entry(rev).topic;
        let mut later = self.history.iter().flatten();
        later
            .find(|e| e.rev > rev && e.kind != Kind::Event && e.topic == *topic)
            .map(|e| e.rev)
    }

    /// Whether its topic had a value or a tombstone before it.
    fn replaces(&self, entry: &Taken) -> bool {
        let mut earlier = self.history.iter().flatten();
        entry.kind != Kind::Event
            && earlier
                .rfind(|e| e.rev < entry.rev && e.kind != Kind::Event && e.topic == entry.topic)
                .is_some_and(|e| self.forgotten.iter().all(|(rev, _)| *rev != e.rev))
    }

    fn add(&mut self, topic: &str, payload: &[u8], kind: Kind, at: u64) -> u64 {
        let rev = self.revision() + 1;
        self.history.push(Some(Taken {
            rev,
            at,
            kind,
            topic: topic.into(),
            payload: payload.into(),
        }));
        rev
    }

    fn begin(&self, filter: &str, mode: Mode, start: Start, counts: Counts) -> Subscription {
        let began = self.revision();
        let newest_forgotten = self.forgotten.iter().map(|(rev, _)| *rev).max();
        let (taken, reset) = match start {
            Start::Snapshot => (0, false),
            Start::Live => (began, false),
            Start::Resume(c) => (
                c.rev,
                c.epoch != self.epoch || c.rev > began || newest_forgotten > Some(c.rev),
            ),
        };
        let fresh = start == Start::Snapshot;
        let changes_after = if fresh { began } else { taken };
        Subscription {
            filter: filter.into(),
            mode,
            fresh,
            reset,
            synced: false,
            sync_to: began,
            overtaken: taken < began,
            began,
            taken,
            given_up: changes_after,
            catch_up_to: 0,
            changes_after,
            forgotten_before: self.forgotten.len(),
            state_taken: BTreeSet::new(),
            state_lost: BTreeSet::new(),
            conflated_before: counts.conflated,
            events_since: began,
            counts,
        }
    }

    fn restart(&self, sub: &mut Subscription) {
        let events = match sub.reset {
            true => sub.events_since,
            false => sub.taken.max(sub.given_up),
        };
        let events_since = sub.events_since;
        *sub = self.begin(&sub.filter, sub.mode, Start::Snapshot, sub.counts);
        (sub.given_up, sub.events_since) = (events, events_since);
    }

    fn step(&self, sub: &mut Subscription) -> Option<Step<Taken>> {
        let text = sub.filter.clone();
        let topic_filter = filter(&text);
        let matches = |topic: &str| topic_filter.matches(&name(topic));
        let ring_end = self.recent_from() - 1;
        let in_ring = |sub: &Subscription| sub.taken.max(sub.given_up) >= ring_end;
        let snapshot_to = if sub.fresh { sub.began } else { 0 };
        let reads_ring = sub.mode == Mode::Every
            && in_ring(sub)
            && sub.taken.max(sub.changes_after) >= snapshot_to.max(sub.catch_up_to);
        let clears_known_to = sub.taken.max(sub.changes_after);
        let mut newly_forgotten = self.forgotten[sub.forgotten_before..].iter();
        let lost_clear = newly_forgotten.any(|(rev, t)| *rev > clears_known_to && matches(t));
        if sub.reset || (lost_clear && !reads_ring) {
            self.restart(sub);
            return Some(Step::Reset);
        }
        sub.overtaken |= sub.taken < ring_end;
        if !in_ring(sub) && sub.mode != Mode::State {
            let done = sub.taken.max(sub.given_up);
            let unknown_to = ring_end.min(sub.events_since);
            let published = self.history.iter().flatten();
            let unknown = published.filter(|entry| entry.rev > done && entry.rev <= unknown_to);
            let unknown = unknown.count() as u64;
            let gone = self.history.iter().flatten();
            let gone = gone.filter(|entry| (done + 1..=ring_end).contains(&entry.rev));
            let (events, state): (Vec<_>, Vec<_>) = gone
                .filter(|entry| matches(&entry.topic))
                .partition(|entry| entry.kind == Kind::Event);
            let known = |since: u64| move |entry: &&&Taken| entry.rev > since;
            let events = events.iter().filter(known(sub.events_since)).count() as u64;
            let state: Vec<_> = state.iter().filter(known(sub.began)).collect();
            sub.counts.skipped += events;
            sub.given_up = ring_end;
            if sub.mode == Mode::Latest {
                if events > 0 {
                    return Some(Step::Gap { missed: events });
                }
            } else {
                sub.state_lost.extend(state.iter().map(|entry| entry.rev));
                sub.counts.conflated = sub.conflated_before + sub.state_lost.len() as u64;
                sub.catch_up_to = ring_end;
                if events + unknown > 0 || unknown_to > done || !state.is_empty() {
                    return Some(Step::Gap {
                        missed: events + unknown,
                    });
                }
            }
        }
        let clears_after = sub.taken.max(sub.changes_after);
        let values = self.kept.values().flatten().copied();
        let values = values.filter(|rev| *rev > sub.taken && matches(&self.entry(*rev).topic));
        let clears = self.tombstones.iter();
        let clears = clears.filter(|(rev, t)| **rev > clears_after && matches(t));
        let logged = values.chain(clears.map(|(rev, _)| *rev)).min();
        let ring = |after: u64, events_only: bool| {
            let ring = self
                .history
                .iter()
                .flatten()
                .filter(|e| e.rev > ring_end && e.rev > after);
            ring.filter(|e| matches(&e.topic) && (!events_only || e.kind == Kind::Event))
                .map(|e| e.rev)
                .min()
        };
        // What stood in its topic when the place was fixed up to which all is to come before `Synced`.
        let standing = |taken: u64, at: u64| {
            let ring = self.history.iter().flatten();
            ring.filter(|e| e.rev > ring_end && e.rev > taken && e.rev <= at)
                .filter(|e| e.kind != Kind::Event && matches(&e.topic))
                .map(|e| e.rev)
                .filter(|rev| self.follower(*rev).is_none_or(|next| next > at))
                .min()
        };
        let next = |sub: &mut Subscription| match sub.mode {
            Mode::Latest | Mode::State => {
                let takes_events = sub.mode == Mode::Latest;
                let event = ring(sub.taken.max(sub.given_up), true).filter(|_| takes_events);
                let syncs = !sub.synced && sub.sync_to > sub.began;
                let standing = syncs.then(|| standing(sub.taken, sub.sync_to)).flatten();
                logged.into_iter().chain(event).chain(standing).min()
            }
            Mode::Every => {
                let snapshot_to = if sub.fresh { sub.began } else { 0 };
                let log_to = snapshot_to.max(sub.catch_up_to);
                let event = ring(sub.taken.max(sub.given_up), true);
                let behind = logged.into_iter().chain(event);
                let behind = behind.filter(|rev| *rev <= log_to).min();
                if behind.is_none() {
                    // The log has nothing more that is older than the ring.
                    sub.taken = sub.taken.max(log_to);
                }
                behind.or_else(|| ring(sub.taken, false))
            }
        };
        let mut found = next(sub);
        if !sub.synced && found.is_none_or(|rev| rev > sub.sync_to) {
            sub.taken = sub.taken.max(sub.sync_to);
            let replaced = self
                .history
                .iter()
                .flatten()
                .filter(|e| e.rev > sub.sync_to);
            let mut replaced = replaced.filter(|e| matches(&e.topic) && self.replaces(e));
            if sub.overtaken && replaced.next().is_some() {
                sub.overtaken = sub.taken < ring_end;
                sub.sync_to = self.revision();
                found = next(sub);
            }
            if found.is_none_or(|rev| rev > sub.sync_to) {
                sub.synced = true;
                sub.taken = sub.taken.max(sub.sync_to);
                let (epoch, rev) = (self.epoch, sub.sync_to);
                return Some(Step::Synced {
                    cursor: Cursor { epoch, rev },
                });
            }
        }
        let Some(rev) = found else {
            sub.taken = self.revision();
            if sub.mode != Mode::Every {
                let live = self.history.iter().flatten().filter(|e| e.rev > sub.began);
                let live = live
                    .filter(|e| e.kind != Kind::Event && matches(&e.topic))
                    .count();
                let conflated = (live - sub.state_taken.len()) as u64;
                sub.counts.conflated = sub.conflated_before + conflated;
            }
            return None;
        };
        let entry = self.entry(rev).clone();
        sub.taken = rev;
        sub.counts.taken += 1;
        if rev > sub.began && entry.kind != Kind::Event {
            sub.state_taken.insert(rev);
            if sub.state_lost.remove(&rev) {
                sub.counts.conflated -= 1;
            }
        }
        Some(Step::Entry {
            retained: sub.fresh && rev <= sub.began && entry.kind == Kind::State,
            entry,
        })
    }
}

impl Driver for Model {
    type Id = usize;

    fn publish(&mut self, topic: &str, payload: &[u8], retain: Retain, at: u64) -> Option<u64> {
        if topic.len() > self.limits.topic_bytes || payload.len() > self.limits.payload_bytes {
            return None;
        }
        let Retain::Last(n) = retain else {
            return Some(self.add(topic, payload, Kind::Event, at));
        };
        let mut of_topic = self.kept.get(topic).cloned().unwrap_or_default();
        of_topic.push_back(self.revision() + 1);
        while of_topic.len() > usize::from(n.max(1)) {
            of_topic.pop_front();
        }
        let others = self.kept.iter().filter(|(other, _)| *other != topic);
        let places = others.map(|(_, revs)| revs.len()).sum::<usize>() + of_topic.len();
        if places > self.limits.places {
            return None;
        }
        self.kept.insert(topic.into(), of_topic);
        self.tombstones.retain(|_, cleared| cleared != topic);
        Some(self.add(topic, payload, Kind::State, at))
    }

    fn clear(&mut self, topic: &str, at: u64) -> Option<Option<u64>> {
        if topic.len() > self.limits.topic_bytes {
            return None;
        }
        if self.kept.remove(topic).is_none() {
            return Some(None);
        }
        let rev = self.add(topic, &[], Kind::Cleared, at);
        self.tombstones.insert(rev, topic.into());
        while self.tombstones.len() > self.limits.tombstones {
            self.forgotten.extend(self.tombstones.pop_first());
        }
        Some(Some(rev))
    }

    fn subscribe(&mut self, filter: &str, mode: Mode, start: Start) -> Option<usize> {
        let live = self.subscriptions.iter().flatten().count();
        if filter.len() > self.limits.topic_bytes || live >= self.limits.subscriptions {
            return None;
        }
        let subscription = self.begin(filter, mode, start, Counts::default());
        self.subscriptions.push(Some(subscription));
        Some(self.subscriptions.len() - 1)
    }

    fn unsubscribe(&mut self, id: usize) {
        self.subscriptions[id] = None;
    }

    fn rewind(&mut self, id: usize) {
        let before = self.subscriptions[id].take().expect("a live subscription");
        let mut after = before;
        if !after.reset {
            let clears = after.taken.max(after.changes_after);
            let forgotten_before = after.forgotten_before;
            self.restart(&mut after);
            after.forgotten_before = forgotten_before;
            after.changes_after = clears;
        }
        self.subscriptions[id] = Some(after);
    }

    fn next(&mut self, id: usize) -> Option<Step<Taken>> {
        let mut subscription = self.subscriptions[id].take().expect("a live subscription");
        let step = self.step(&mut subscription);
        self.subscriptions[id] = Some(subscription);
        step
    }

    fn counts(&self, id: usize) -> Counts {
        self.subscriptions[id]
            .as_ref()
            .expect("a live subscription")
            .counts
    }

    fn skip(&mut self, by: u64) -> bool {
        Self::skip(self, by);
        true
    }

    fn last(&self, topic: &str) -> Option<Taken> {
        self.kept
            .get(topic)?
            .back()
            .map(|rev| self.entry(*rev).clone())
    }
}
