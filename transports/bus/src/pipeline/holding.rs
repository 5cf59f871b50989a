//! Whether a user may hold what it publishes, besides what it holds and what is planned.

use std::collections::HashMap;

use latchbus_core::hub::Retain;
use latchbus_core::topic::TopicName;

use super::Pipeline;
use super::plan::Step;
use crate::PublishRefused;
use crate::holdings::{self, Held, Holdings, Source, Value};

/// What the plans of a batch change of who holds what. Empty where nothing is bounded.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// By how much they change it.
    held: Holdings,
    /// What the topics that they change will retain.
    topics: HashMap<String, Vec<Value>>,
}

impl Planned {
    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.topics.clear();
    }
}

impl Pipeline {
    /// Whether the source of a value may hold it.
    pub(super) fn check_held(
        &self,
        topic: &TopicName<String>,
        (source, value): (&Source, impl FnOnce() -> Value),
        retain: Retain,
    ) -> Result<(), PublishRefused> {
        let (Some(limits), Some(holder), Retain::Last(history), false) = (
            self.shared.held_limits,
            &source.holder,
            retain,
            source.is_exempt,
        ) else {
            return Ok(());
        };
        let (standing, held) = self.shared.held(topic.borrowed(), holder);
        let planned = self.planned_held.topics.get(topic.as_str());
        let before = planned.unwrap_or(&standing);
        let after = holdings::with(before, value(), history);
        let more = Held::of(&after, holder).minus(Held::of(before, holder));
        limits.check(held.plus(self.planned_held.held.of(holder)), more)
    }

    /// Counts what a step of a plan is about to change.
    pub(super) fn reserve_held(&mut self, step: &Step) {
        if self.shared.held_limits.is_none() {
            return;
        }
        let (topic, pushed) = match step {
            Step::Publish {
                topic,
                payload,
                retain: Retain::Last(history),
                ..
            } => (topic, Some((Value::of(payload), *history))),
            Step::Publish { .. } => return,
            Step::Clear { topic, .. } | Step::Forget { topic, .. } => (topic, None),
        };
        let Planned { held, topics } = &mut self.planned_held;
        let before = match topics.remove(topic.as_str()) {
            Some(planned) => planned,
            None => (self.shared).read(|hub| holdings::values(hub, topic.borrowed())),
        };
        let after = pushed.map_or_else(Vec::new, |(value, history)| {
            holdings::with(&before, value, history)
        });
        held.change(&before, &after);
        topics.insert(topic.as_str().to_owned(), after);
    }
}
