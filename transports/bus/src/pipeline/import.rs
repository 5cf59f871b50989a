//! Records of an export on their way into the bus: they go the way of a publish.

use core::num::NonZeroU64;
use std::sync::Arc;

use latchbus_core::clicks::{ClickTopic, Counter, is_reserved};
use latchbus_core::hub::Retain;
use latchbus_core::topic::TopicFilter;

use super::Pipeline;
use super::admission::check_sizes;
use super::plan::{Plan, Step, own_topic, reset_topic, text};
use crate::backup::{DeviceClicks, Export, Kept, Record, RoomClicks};
use crate::bus::Accepted;
use crate::holdings::{Source, Value};
use crate::troubles::device_of;
use crate::{Delivery, Forbidden, Payload, Publish, PublishRefused};

impl Pipeline {
    /// All that is kept. To be called between two batches, so that it is on disk.
    pub(crate) fn export(&self) -> Export {
        let (now, deadline_now) = (self.now(), self.deadline_now());
        let (revision, values) = self.shared.read(|hub| {
            let values = with_histories(hub.all_kept());
            (hub.revision(), values)
        });
        let is_said = |(value, _): &(Delivery, u16)| {
            !is_reserved(value.topic.as_str()) && !value.payload.has_expired(deadline_now)
        };
        let values = values.into_iter().filter(is_said).collect();
        Export::new(
            (self.shared.epoch, revision, now),
            self.shared.clock.clone(),
            values,
            (self.rooms.export(), self.rooms.export_resets()),
        )
    }

    /// Takes a record all the way, where nothing is stored.
    pub(crate) fn accept_import(
        &mut self,
        record: Record,
        source: Source,
    ) -> Result<Accepted, PublishRefused> {
        let plan = self.plan_import(record, source)?;
        self.accept_plan(plan)
    }

    /// Merges a record into what is known. What the plan says afterwards must be applied.
    pub(crate) fn plan_import(
        &mut self,
        record: Record,
        source: Source,
    ) -> Result<Plan, PublishRefused> {
        let plan = match record {
            Record::Value(value) => self.plan_value(value, source),
            Record::Device(device) => self.plan_device(&device),
            Record::Room(room) => self.plan_room(&room),
        };
        if let Ok(plan) = &plan {
            self.reserve(plan);
        }
        plan
    }

    fn plan_value(&mut self, mut value: Kept, source: Source) -> Result<Plan, PublishRefused> {
        // Only an administrator says who holds what; anybody else holds what they bring.
        let source = match source.is_exempt {
            true => Source {
                holder: value.holder.clone(),
                ..source
            },
            false => source,
        };
        value.holder.clone_from(&source.holder);
        let malformed = |kind, reason: &str| PublishRefused::Malformed {
            kind,
            reason: reason.to_owned(),
        };
        if let Some(at) = value.expires_at {
            let at = self.shared.clock.to_deadline(at.get());
            if at <= self.deadline_now() {
                return Ok(Plan::default());
            }
            value.expires_at = NonZeroU64::new(at);
        }
        if value.payload.is_empty() {
            return Err(malformed("value", "no topic keeps an empty payload"));
        }
        let (bytes, said) = (value.payload.len(), value.properties.as_deref());
        (self.shared).read(|hub| check_sizes(hub, value.topic.borrowed(), bytes, said))?;
        let topic = value.topic.as_str().to_owned();
        if is_reserved(&topic) {
            return Err(PublishRefused::NotAllowed(topic, Forbidden::Reserved));
        }
        // What is older than the removal of its device does not come back.
        let hidden_since =
            device_of(&topic).and_then(|(room, device)| self.rooms.hidden_since(room, device));
        if hidden_since.is_some_and(|since| value.at <= since) {
            return Ok(Plan {
                unchanged: Some(value.topic),
                ..Plan::default()
            });
        }
        match ClickTopic::parse(&topic) {
            Err(error) => Err(malformed("click topic", &error.to_string())),
            Ok(Some(ClickTopic::Press { .. })) => Err(malformed("value", "no press is kept")),
            Ok(Some(ClickTopic::Count {
                room,
                device,
                incarnation,
            })) => {
                let publish = Publish {
                    qos: value.qos,
                    properties: value.properties,
                    ..Publish::state(value.topic, value.payload)
                };
                let mut plan = self.plan_count(publish, source, (room, device), incarnation)?;
                if let Some(Step::Publish { at, .. }) = plan.steps.first_mut() {
                    *at = Some(value.at);
                }
                Ok(plan)
            }
            Ok(_) => self.plan_kept(value, &source),
        }
    }

    fn plan_kept(&mut self, value: Kept, source: &Source) -> Result<Plan, PublishRefused> {
        let last = self.shared.read(|hub| hub.last(value.topic.borrowed()));
        if last.is_some_and(|last| !is_news(&value, &last, self)) {
            return Ok(Plan {
                unchanged: Some(value.topic),
                ..Plan::default()
            });
        }
        let history = self.history_of(&value.topic).max(value.history);
        let retain = Retain::Last(history);
        self.check_place(&value.topic, retain)?;
        let held = || Value::merged(&value);
        self.check_held(&value.topic, (source, held), retain)?;
        Ok(Plan {
            steps: vec![Step::Publish {
                topic: value.topic,
                payload: Payload::restore(
                    value.payload,
                    value.qos,
                    value.expires_at,
                    value.properties,
                )
                .with_holder(value.holder),
                retain,
                stored: true,
                at: Some(value.at),
            }],
            ..Plan::default()
        })
    }

    fn plan_device(&mut self, clicks: &DeviceClicks) -> Result<Plan, PublishRefused> {
        clicks.check()?;
        let (room, device) = (clicks.room.as_str(), clicks.device.as_str());
        let topic_of = |incarnation| {
            own_topic(ClickTopic::Count {
                room,
                device,
                incarnation,
            })
        };
        for (run, _) in clicks.counts.live() {
            self.check_room(&topic_of(*run), Counter::MAX_JSON_BYTES, Retain::LAST)?;
        }
        let Some(merged) = self.rooms.merge(clicks)? else {
            return Ok(Plan::default());
        };
        self.changed_rooms.insert(room.to_owned());
        let plan = Plan {
            device: Some((room.to_owned(), device.to_owned())),
            zero: merged.zero,
            press_ids: merged.press_ids,
            start: merged.start,
            ..Plan::default()
        };
        if merged.hidden {
            return Ok(Plan {
                steps: self.hide(room, device),
                ..plan
            });
        }
        let mut steps = Vec::new();
        for (run, counter) in merged.raised {
            steps.push(Step::Publish {
                topic: topic_of(run),
                payload: Payload::new(text(counter), Publish::STATE_QOS),
                retain: Retain::LAST,
                stored: true,
                at: None,
            });
        }
        for run in merged.fallen {
            steps.push(Step::Forget {
                topic: topic_of(run),
                payload: Payload::default(),
            });
        }
        if let Some(record) = merged.floor {
            steps.push(Step::derived(ClickTopic::Floor { room, device }, record));
        }
        if let Some(pressed) = merged.pressed {
            let topic = ClickTopic::Pressed { room, device };
            steps.push(match pressed.is_zero() {
                true => Step::forget(own_topic(topic)),
                false => Step::derived(topic, pressed),
            });
        }
        if merged.zero {
            steps.push(self.zero_step(room, device));
        }
        Ok(Plan { steps, ..plan })
    }

    fn plan_room(&mut self, clicks: &RoomClicks) -> Result<Plan, PublishRefused> {
        clicks.check()?;
        if !self.rooms.merge_reset(clicks)? {
            return Ok(Plan::default());
        }
        let room = clicks.room.as_str();
        self.changed_rooms.insert(room.to_owned());
        let reset = self.rooms.last_reset(room);
        Ok(Plan {
            steps: (reset.into_iter())
                .map(|reset| Step::state(reset_topic(room), reset))
                .collect(),
            reset: Some((room.to_owned(), Vec::new())),
            ..Plan::default()
        })
    }
}

/// Whether a value is newer than what its topic keeps, or as new and not among it.
fn is_news(value: &Kept, last: &Delivery, pipeline: &Pipeline) -> bool {
    if value.at != last.at {
        return value.at > last.at;
    }
    let Ok(of_topic) = TopicFilter::parse(value.topic.as_str()) else {
        return false;
    };
    let kept = pipeline.shared.read(|hub| hub.kept(of_topic));
    let is_it = |kept: &Delivery| kept.at == value.at && *kept.payload.bytes() == value.payload;
    !kept.iter().any(is_it)
}

/// Each value with the number of those that its topic keeps. The values of a topic stand side by side.
fn with_histories<'a>(values: impl Iterator<Item = &'a Delivery>) -> Vec<(Delivery, u16)> {
    let mut kept: Vec<(Delivery, u16)> = Vec::new();
    let mut begun = 0;
    let count = |of_topic: &mut [(Delivery, u16)]| {
        let number = u16::try_from(of_topic.len()).unwrap_or(u16::MAX);
        for (_, history) in of_topic {
            *history = number;
        }
    };
    for value in values {
        let is_next = kept
            .last()
            .is_some_and(|(last, _)| last.topic != value.topic);
        if is_next {
            count(kept.get_mut(begun..).unwrap_or_default());
            begun = kept.len();
        }
        kept.push((Arc::clone(value), 1));
    }
    count(kept.get_mut(begun..).unwrap_or_default());
    kept
}
