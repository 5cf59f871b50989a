//! Who is shown what: a subscriber of everything, over all lives of the bus.

use core::mem;
use std::collections::{BTreeMap, BTreeSet};

use futures_util::{FutureExt, StreamExt};
use latchbus_bus::{Bus, Delivery, Subscription};
use latchbus_core::hub::{Cursor, Kind, Mode, Start, Step};
use latchbus_core::topic::TopicFilter;

use super::Violation;
use super::model::{Model, Shown, in_form};

/// A subscriber, and what each revision has stood for.
#[derive(Debug, Default)]
pub(super) struct Witness {
    subscription: Option<Subscription>,
    epoch: u64,
    /// The revision that it was given last.
    newest: u64,
    /// How often it was told to forget what it knows.
    pub(super) resets: u64,
    /// The last value of each topic.
    view: BTreeMap<String, Vec<u8>>,
    /// When those of them expire that do.
    expires: BTreeMap<String, u64>,
    /// By epoch and revision.
    revisions: BTreeMap<(u64, u64), (String, Vec<u8>)>,
    /// Messages that it was given.
    pub(super) shown: u64,
}

impl Witness {
    /// A life of the bus begins: it comes back with what it knows, or knows nothing.
    pub(super) fn begins(&mut self, bus: &Bus, resumes: bool) {
        let all = TopicFilter::parse("#").unwrap();
        let start = match resumes {
            true => Start::Resume(Cursor {
                epoch: self.epoch,
                rev: self.newest,
            }),
            false => Start::Snapshot,
        };
        if !resumes {
            self.newest = 0;
            self.view.clear();
        }
        self.subscription = Some(bus.subscribe(all, Mode::Latest, start).unwrap());
        self.epoch = bus.epoch();
    }

    /// Takes what there is, which must be what is committed, as far as its time is not over.
    pub(super) fn looks(&mut self, committed: &Model, now: u64) -> Result<(), Violation> {
        while let Some(Some(step)) = self
            .subscription
            .as_mut()
            .and_then(|s| s.next().now_or_never())
        {
            match step {
                Step::Entry { entry, .. } => self.takes(&entry)?,
                Step::Reset => {
                    self.newest = 0;
                    self.resets += 1;
                    self.view.clear();
                }
                Step::Gap { .. } | Step::Synced { .. } => {}
            }
        }
        let wanted = committed.shown(now);
        for (topic, values) in &wanted {
            if self.view.get(topic) != values.last() {
                let seen = self.view.get(topic).map(|value| text(value));
                let wanted = values.last().map(|value| text(value));
                return Err(Violation::Shown(format!(
                    "{topic}: {seen:?} instead of {wanted:?}"
                )));
            }
        }
        let forever = committed.shown(0);
        // That a value has expired is told at the next tick.
        let stands = |topic: &&String| self.expires.get(*topic).is_none_or(|at| *at > now);
        let mut standing = self.view.keys().filter(stands);
        match standing.find(|topic| !forever.contains_key(*topic)) {
            Some(topic) => Err(Violation::Shown(format!("{topic}, which has no value"))),
            None => Ok(()),
        }
    }

    /// What a bus keeps after a power cut must not contradict what was shown before it.
    pub(super) fn accepts(&self, bus: &Bus) -> Result<(), Violation> {
        for delivery in bus.kept(TopicFilter::parse("#").unwrap()) {
            let said = (
                delivery.topic.as_str().to_owned(),
                delivery.payload.bytes().to_vec(),
            );
            match self.revisions.get(&(bus.epoch(), delivery.rev)) {
                Some(before) if *before != said => {
                    let (topic, rev) = (&said.0, delivery.rev);
                    return Err(Violation::Revision(format!(
                        "{rev}: {topic} after {}",
                        before.0
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn takes(&mut self, entry: &Delivery) -> Result<(), Violation> {
        self.shown += 1;
        let newest = mem::replace(&mut self.newest, entry.rev);
        let said = (
            entry.topic.as_str().to_owned(),
            entry.payload.bytes().to_vec(),
        );
        let place = (self.epoch, entry.rev);
        let before = self.revisions.insert(place, said.clone());
        // A value whose time is over comes as cleared to who comes back, at the place where it stood.
        let ended = |before: &(String, Vec<u8>)| entry.kind == Kind::Cleared && before.0 == said.0;
        if (before.as_ref()).is_some_and(|before| *before != said && !ended(before)) {
            return Err(Violation::Revision(format!(
                "{}: {} after {before:?}",
                entry.rev, said.0
            )));
        }
        if entry.rev <= newest {
            return Err(Violation::Revision(format!("{} after {newest}", entry.rev)));
        }
        let Some((topic, payload)) = in_form(entry) else {
            return Ok(());
        };
        self.expires.remove(&topic);
        match entry.kind {
            Kind::State => {
                if let Some(at) = entry.payload.expires_at() {
                    self.expires.insert(topic.clone(), at.get());
                }
                self.view.insert(topic, payload);
            }
            Kind::Cleared => {
                self.view.remove(&topic);
            }
            Kind::Event => {}
        }
        Ok(())
    }
}

/// What a bus keeps, in the form of the model.
pub(super) fn kept(bus: &Bus) -> Shown {
    let mut kept = Shown::new();
    for delivery in bus.kept(TopicFilter::parse("#").unwrap()) {
        if let Some((topic, payload)) = in_form(&delivery) {
            kept.entry(topic).or_default().push(payload);
        }
    }
    kept
}

/// The topics in which what is there differs from both.
pub(super) fn difference(there: &Shown, wanted: &Shown, next: Option<&Shown>) -> String {
    let topics: BTreeSet<_> = there.keys().chain(wanted.keys()).collect();
    let show = |shown: &Shown, topic: &str| match shown.get(topic) {
        Some(values) => values
            .iter()
            .map(|value| text(value))
            .collect::<Vec<_>>()
            .join(", "),
        None => "nothing".to_owned(),
    };
    let mut text = String::new();
    for topic in topics {
        let differs = there.get(topic) != wanted.get(topic)
            || next.is_some_and(|next| there.get(topic) != next.get(topic));
        if differs {
            let next = next.map_or_else(String::new, |next| format!(" or {}", show(next, topic)));
            let line = format!(
                "{topic}: {} instead of {}{next}; ",
                show(there, topic),
                show(wanted, topic)
            );
            text.push_str(&line);
        }
    }
    text
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.get(..40).unwrap_or(value)).into_owned()
}
