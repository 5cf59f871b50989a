//! The gate that every publish passes, however it goes on: what has to hold of any of them is checked in
//! [`admit`], and there alone.

use core::fmt::Display;

use latchbus_core::clicks::{ClickTopic, Counter, Press};
use latchbus_core::hub::{Hub, Retain};
use latchbus_core::topic::TopicName;

use super::Pipeline;
use super::plan::Plan;
use crate::bus::Accepted;
use crate::holdings::Source;
use crate::message::Standing;
use crate::metrics::Metrics;
use crate::refusal::{PublishRefused, Rejected};
use crate::shared::Shared;
use crate::{Payload, Properties, Publish};

impl Pipeline {
    /// Lets a publish in behind those of its batch that were planned before.
    pub(super) fn admit(&self, publish: &Publish, batch: &[Plan]) -> Result<(), PublishRefused> {
        self.shared.read(|hub| admit(publish, hub, batch))
    }
}

/// Whether a publish may come in, given what stands in the hub and what the plans of its batch are about to make of it.
fn admit(publish: &Publish, hub: &Hub<Payload>, batch: &[Plan]) -> Result<(), PublishRefused> {
    let topic = publish.topic.borrowed();
    check_sizes(
        hub,
        topic,
        publish.payload.len(),
        publish.properties.as_deref(),
    )?;
    let Some(expected) = &publish.expected else {
        return Ok(());
    };
    let mut planned = batch.iter().rev();
    let planned = planned.find_map(|plan| plan.standing(topic));
    let standing = planned.unwrap_or_else(|| match hub.last(topic) {
        Some(entry) => Standing::Kept(Some(entry.rev)),
        None => Standing::Cleared,
    });
    match expected.holds(standing) {
        true => Ok(()),
        false => Err(PublishRefused::Raced(publish.topic.as_str().into())),
    }
}

/// Whether a message is small enough to be kept and passed on.
pub(super) fn check_sizes(
    hub: &Hub<Payload>,
    topic: TopicName<&str>,
    bytes: usize,
    properties: Option<&Properties>,
) -> Result<(), PublishRefused> {
    let (said, limit) = (
        properties.map_or(0, Properties::bytes),
        Properties::MAX_BYTES,
    );
    if said > limit {
        return Err(PublishRefused::PropertiesTooLarge { bytes: said, limit });
    }
    hub.check(topic, bytes, Retain::No)?;
    Ok(())
}

/// Accepts an event that is not a click, and gives it back if it needs the store.
pub(crate) fn accept_event(
    shared: &Shared,
    metrics: &Metrics,
    publish: Publish,
    origin: u64,
) -> Result<Result<Accepted, Rejected>, Publish> {
    // Nobody holds an event.
    let source = Source {
        origin,
        ..Source::default()
    };
    let bytes = publish.payload.len();
    let (now, deadline_now) = (shared.clock.unix_ms(), shared.clock.deadline_ms());
    let (topic, outcome) = shared.change(|changes| {
        if !changes.goes_straight(publish.topic.borrowed(), publish.qos) {
            return Err(publish);
        }
        if let Err(refused) = admit(&publish, changes.hub(), &[]) {
            return Ok((publish.topic, Err(refused)));
        }
        let (topic, payload) = Payload::arrive(publish, source, deadline_now);
        let published = changes.publish(topic.borrowed(), payload, Retain::No, now);
        Ok((topic, published.map_err(PublishRefused::from)))
    })?;
    Ok(match outcome {
        Ok(entry) => Ok(Accepted { rev: entry.rev }),
        Err(refused) => {
            metrics.refused(&refused);
            Err(Rejected {
                refused,
                topic: Some(topic),
                bytes,
            })
        }
    })
}

/// Whether a publish could be accepted at another time, as far as that can be told without doing it: its sizes, and
/// the form of a click.
pub(crate) fn check_form(shared: &Shared, publish: &Publish) -> Result<(), PublishRefused> {
    let (topic, bytes) = (publish.topic.borrowed(), publish.payload.len());
    shared.read(|hub| check_sizes(hub, topic, bytes, publish.properties.as_deref()))?;
    let malformed = |kind, reason: &dyn Display| PublishRefused::Malformed {
        kind,
        reason: reason.to_string(),
    };
    match ClickTopic::parse(publish.topic.as_str()) {
        Err(error) => Err(malformed("click topic", &error)),
        Ok(Some(ClickTopic::Count { .. })) if bytes > 0 => Counter::parse(&publish.payload)
            .map(drop)
            .map_err(|error| malformed("count", &error)),
        Ok(Some(ClickTopic::Press { .. })) => Press::parse(&publish.payload)
            .map(drop)
            .map_err(|error| malformed("press", &error)),
        Ok(_) => Ok(()),
    }
}
