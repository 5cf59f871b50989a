//! What an administrator does with rooms and devices: see [`Operate`].

use std::collections::BTreeSet;

use latchbus_core::clicks::ClickTopic;
use latchbus_core::topic::{TopicFilter, TopicName};

use super::Pipeline;
use super::plan::{Plan, Step, cleared_topics, own_topic, own_topics, reset_topic, text};
use crate::rooms::{Operation, Operator, UNDO_MS};
use crate::{Operate, Operated, OperationError, Payload, Publish};

impl Pipeline {
    /// Makes an operation all the way, where nothing is stored.
    pub(crate) fn accept_operation(
        &mut self,
        operate: &Operate,
        by: &str,
    ) -> Result<Operated, OperationError> {
        let (plan, operated) = self.plan_operation(operate, by)?;
        self.accept_plan(plan)?;
        Ok(operated)
    }

    /// Makes an operation in what is known. What the plan says afterwards must be applied.
    pub(crate) fn plan_operation(
        &mut self,
        operate: &Operate,
        by: &str,
    ) -> Result<(Plan, Operated), OperationError> {
        let by = Operator {
            name: by,
            at: self.now(),
            deadline_now: self.deadline_now(),
        };
        let operation = match operate {
            Operate::ResetRoom { room, counts } => self.rooms.reset_room(room, *counts, by)?,
            Operate::RemoveDevice { room, device } => {
                let status = self.status_of(room, device);
                self.rooms.remove_device((room, device), status, by)?
            }
            Operate::Undo { id } => self.rooms.undo(*id, by)?,
        };
        let until = by.deadline_now.saturating_add(UNDO_MS);
        let operated = Operated {
            id: operation.id,
            room: operation.room.clone(),
            device: operation.device.clone(),
            from: operation.from,
            to: operation.to,
            undo_until: match operate {
                Operate::Undo { .. } => None,
                _ => Some(self.shared.clock.to_unix(until)),
            },
        };
        let plan = self.plan_of(operation);
        self.reserve(&plan);
        Ok((plan, operated))
    }

    fn plan_of(&mut self, operation: Operation) -> Plan {
        let Operation {
            room,
            device: one,
            devices,
            status,
            ..
        } = operation;
        let mut steps = Vec::new();
        for device in &devices {
            if self.rooms.is_hidden(&room, device) {
                if one.is_some() {
                    self.troubles.forget(&room, device);
                    steps.extend(self.hide(&room, device));
                }
                continue;
            }
            if one.is_some() {
                // It was hidden.
                steps.extend(self.counts(&room, device));
                steps.extend(self.status(&room, device, status.as_deref()));
            }
            let shown = own_topics(&self.rooms, &room, device);
            steps.extend(shown.into_iter().filter(|step| self.has_place(step)));
            let cleared = cleared_topics(&self.rooms, &room, device);
            let stands = cleared.into_iter().filter(|topic| self.stands(topic));
            steps.extend(stands.map(Step::forget));
        }
        let reset = self.rooms.last_reset(&room);
        steps.extend(reset.map(|reset| Step::state(reset_topic(&room), reset)));
        self.changed_rooms.insert(room.clone());
        Plan {
            steps,
            reset: Some((room, devices)),
            ..Plan::default()
        }
    }

    /// Whether a topic keeps something, or will by the time that the steps of this batch are made.
    fn stands(&self, topic: &TopicName<String>) -> bool {
        let is_there = (self.shared).read(|hub| hub.last(topic.borrowed()).is_some());
        is_there || self.planned.contains_key(topic.as_str())
    }

    /// Clears everything below a device that was removed. Where it was folded its floor stays: it tells a device
    /// without storage which boots it has had.
    pub(super) fn hide(&self, room: &str, device: &str) -> Vec<Step> {
        let base = format!("clicks/{room}/{device}/");
        let mut topics = BTreeSet::new();
        if let Ok(below) = TopicFilter::parse(format!("{base}#")) {
            let kept = self.shared.read(|hub| hub.kept(below.borrowed()));
            topics.extend(kept.iter().map(|kept| kept.topic.as_str().to_owned()));
        }
        // What this batch is about to retain is there before these steps are made.
        let planned = self.planned.range(base.clone()..);
        let planned = planned.take_while(|(topic, _)| topic.starts_with(&base));
        topics.extend(planned.map(|(topic, _)| topic.clone()));
        for (incarnation, _) in self.live(room, device) {
            let count = ClickTopic::Count {
                room,
                device,
                incarnation,
            };
            topics.insert(count.to_string());
        }
        let mut steps = own_topics(&self.rooms, room, device);
        for step in &steps {
            if let Step::Publish { topic, .. } = step {
                topics.remove(topic.as_str());
            }
        }
        let topics = topics.into_iter();
        steps.extend(topics.filter_map(|topic| TopicName::parse(topic).ok().map(Step::forget)));
        steps
    }

    /// All counts of a device that is there again.
    fn counts(&self, room: &str, device: &str) -> Vec<Step> {
        let live = self.live(room, device).into_iter();
        live.map(|(incarnation, counter)| {
            let count = ClickTopic::Count {
                room,
                device,
                incarnation,
            };
            Step::state(own_topic(count), counter)
        })
        .collect()
    }

    fn live(
        &self,
        room: &str,
        device: &str,
    ) -> Vec<(
        latchbus_core::clicks::Incarnation,
        latchbus_core::clicks::Counter,
    )> {
        let record = self.rooms.record(room, device);
        record.map_or_else(Vec::new, |record| record.counts.entries().to_vec())
    }

    /// Its status, unless there is a newer one.
    fn status(&self, room: &str, device: &str, status: Option<&str>) -> Option<Step> {
        let topic = TopicName::parse(ClickTopic::Status { room, device }.to_string()).ok()?;
        let is_there = self.shared.read(|hub| hub.last(topic.borrowed()).is_some());
        let payload = Payload::new(text(status?), Publish::STATE_QOS);
        (!is_there).then_some(Step::Publish {
            topic,
            payload,
            retain: latchbus_core::hub::Retain::LAST,
            stored: true,
            at: None,
        })
    }

    /// What a device says of its presence, if it is one of the two words.
    fn status_of(&self, room: &str, device: &str) -> Option<String> {
        let topic = ClickTopic::Status { room, device }.to_string();
        let topic = TopicName::parse(topic).ok()?;
        let last = self.shared.read(|hub| hub.last(topic.borrowed()))?;
        let words = ["online", "offline"];
        let word = words.iter().find(|word| *last.payload.bytes() == **word)?;
        Some((*word).to_owned())
    }
}
