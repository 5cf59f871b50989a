//! Counts and presses: merged into what is known of their device.

use latchbus_core::clicks::{ClickTopic, Counter, Incarnation, Press};
use latchbus_core::hub::Retain;

use super::Pipeline;
use super::plan::{Plan, Step, own_topic, text, zero_topic};
use crate::holdings::{Source, Value};
use crate::rooms::{Raised, Reported};
use crate::{Payload, Publish, PublishRefused};

impl Pipeline {
    pub(super) fn plan_count(
        &mut self,
        publish: Publish,
        source: Source,
        (room, device): (&str, &str),
        incarnation: Incarnation,
    ) -> Result<Plan, PublishRefused> {
        let reported = Counter::parse(&publish.payload)
            .map_err(|error| self.malformed("count", publish.topic.as_str(), &error))?;
        self.check_place(&publish.topic, Retain::LAST)?;
        let value = || Value::published(&publish, &source);
        self.check_held(&publish.topic, (&source, value), Retain::LAST)?;
        // What was counted does not expire.
        let (topic, payload) = Payload::arrive(
            Publish {
                expires_in: None,
                ..publish
            },
            source,
            self.deadline_now(),
        );
        let now = self.now();
        let Raised {
            joined,
            folded,
            zero,
        } = match self
            .rooms
            .report((room, device), incarnation, reported, now)?
        {
            Reported::Raised(raised) => raised,
            Reported::Unchanged(joined)
                if self.planned_clears.contains(topic.as_str())
                    || self.shared.read(|hub| hub.last(topic.borrowed()).is_none()) =>
            {
                // The topic was cleared, which says nothing of the count, or the message that raised
                // it is of this batch: what is known is shown again.
                Raised {
                    joined,
                    folded: None,
                    zero: false,
                }
            }
            Reported::Unchanged(_) => {
                return Ok(Plan {
                    unchanged: Some(topic),
                    ..Plan::default()
                });
            }
            Reported::Stale => {
                self.metrics.clicks_stale.add(1);
                return Ok(Plan {
                    unchanged: Some(topic),
                    ..Plan::default()
                });
            }
        };
        let payload = match joined == reported {
            true => payload,
            // Each colour's larger count came in another message: neither says it all.
            false => payload.with_bytes(text(joined)),
        };
        let mut steps = vec![Step::Publish {
            topic,
            payload,
            retain: Retain::LAST,
            stored: true,
            at: None,
        }];
        if let Some((record, fallen)) = folded {
            for incarnation in fallen {
                steps.push(Step::Forget {
                    topic: own_topic(ClickTopic::Count {
                        room,
                        device,
                        incarnation,
                    }),
                    payload: Payload::default(),
                });
            }
            steps.push(Step::derived(ClickTopic::Floor { room, device }, record));
        }
        if zero {
            steps.push(self.zero_step(room, device));
        }
        self.changed_rooms.insert(room.to_owned());
        Ok(Plan {
            steps,
            device: Some((room.to_owned(), device.to_owned())),
            zero,
            ..Plan::default()
        })
    }

    /// What is shown of a device's zero.
    pub(super) fn zero_step(&self, room: &str, device: &str) -> Step {
        let topic = zero_topic(room, device);
        match self.rooms.zero(room, device) {
            Some(zero) if zero.is_said() && !self.rooms.is_hidden(room, device) => {
                Step::state(topic, zero)
            }
            _ => Step::forget(topic),
        }
    }

    pub(super) fn plan_press(
        &mut self,
        publish: Publish,
        source: Source,
        (room, device): (&str, &str),
    ) -> Result<Plan, PublishRefused> {
        let press = Press::parse(&publish.payload)
            .map_err(|error| self.malformed("press", publish.topic.as_str(), &error))?;
        let shown = own_topic(ClickTopic::Pressed { room, device });
        self.check_room(&shown, Counter::MAX_JSON_BYTES, Retain::LAST)?;
        let now = self.now();
        let Some(pressed) = self.rooms.press((room, device), press, now)? else {
            self.metrics.presses_repeated.add(1);
            return Ok(Plan {
                unchanged: Some(publish.topic),
                ..Plan::default()
            });
        };
        let press_id = pressed.id_order.zip(press.id.map(str::to_owned));
        let shown = Step::state(shown, pressed.value);
        // A press is an event whatever its publisher says: retained, it would be counted again by
        // whoever replays it. So nobody holds it.
        let source = Source {
            holder: None,
            ..source
        };
        let (topic, payload) = Payload::arrive(publish, source, self.deadline_now());
        let event = Step::Publish {
            stored: self.shared.owes(topic.borrowed(), payload.qos()),
            topic,
            payload,
            retain: Retain::No,
            at: None,
        };
        let mut steps = vec![event, shown];
        if pressed.zero {
            steps.push(self.zero_step(room, device));
        }
        self.changed_rooms.insert(room.to_owned());
        Ok(Plan {
            steps,
            zero: pressed.zero,
            device: Some((room.to_owned(), device.to_owned())),
            press_ids: press_id.into_iter().collect(),
            ..Plan::default()
        })
    }
}
