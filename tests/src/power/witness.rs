//! Who is shown what: a subscriber of everything, over all lives of the bus.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{FutureExt, StreamExt};
use latchbus_bus::{Bus, Delivery, Subscription};
use latchbus_core::hub::{Kind, Mode, Start, Step};
use latchbus_core::topic::TopicFilter;

use super::Violation;
use super::model::{Model, Shown, in_form};

/// A subscriber, and what each revision has stood for.
#[derive(Debug, Default)]
pub(super) struct Witness {
    subscription: Option<Subscription>,
    epoch: u64,
    /// The last value of each topic.
    view: BTreeMap<String, Vec<u8>>,
    /// By epoch and revision.
    revisions: BTreeMap<(u64, u64), (String, Vec<u8>)>,
    /// Messages that it was given.
    pub(super) shown: u64,
}

impl Witness {
    /// A life of the bus begins.
    pub(super) fn begins(&mut self, bus: &Bus) {
        let all = TopicFilter::parse("#").unwrap();
        self.subscription = Some(bus.subscribe(all, Mode::Latest, Start::Snapshot).unwrap());
        self.epoch = bus.epoch();
        self.view.clear();
    }

    /// Takes what there is, which must be what is committed, as far as its time is not over.
    pub(super) fn looks(&mut self, committed: &Model, now: u64) -> Result<(), Violation> {
        while let Some(Some(step)) = self
            .subscription
            .as_mut()
            .and_then(|s| s.next().now_or_never())
        {
            let Step::Entry { entry, retained } = step else {
                continue;
            };
            self.takes(&entry, retained)?;
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
        match self.view.keys().find(|topic| !forever.contains_key(*topic)) {
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

    fn takes(&mut self, entry: &Delivery, retained: bool) -> Result<(), Violation> {
        self.shown += 1;
        let said = (
            entry.topic.as_str().to_owned(),
            entry.payload.bytes().to_vec(),
        );
        let newest = self.revisions.range(..=(self.epoch, u64::MAX)).next_back();
        let newest = newest
            .filter(|((epoch, _), _)| *epoch == self.epoch)
            .map(|((_, rev), _)| *rev);
        let place = (self.epoch, entry.rev);
        let before = self.revisions.insert(place, said.clone());
        if before.as_ref().is_some_and(|before| *before != said) {
            return Err(Violation::Revision(format!(
                "{}: {} after {before:?}",
                entry.rev, said.0
            )));
        }
        if !retained && newest.is_some_and(|newest| entry.rev <= newest) {
            return Err(Violation::Revision(format!(
                "{} after {newest:?}",
                entry.rev
            )));
        }
        let Some((topic, payload)) = in_form(entry) else {
            return Ok(());
        };
        match entry.kind {
            Kind::State => {
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
