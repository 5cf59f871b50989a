//! What follows from a message: steps that are stored first, and then shown.

use core::fmt::{Display, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use latchbus_core::clicks::{ClickTopic, is_reserved};
use latchbus_core::hub::{PublishError, Retain};
use latchbus_core::topic::TopicName;

use crate::message::Standing;
use crate::rooms::Rooms;
use crate::shared::Changes;
use crate::store::{Change, Said, StoredValue};
use crate::{Note, Payload, Publish};

/// Longer topics and values are seldom.
const USUAL_BYTES: usize = 64;

/// What follows from one message.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// In order; the answer carries the revision of the first.
    pub(super) steps: Vec<Step>,
    /// The device whose record has changed: room and name.
    pub(super) device: Option<(String, String)>,
    /// Press ids that were counted, each with the number of those before it.
    pub(super) press_ids: Vec<(u64, String)>,
    /// The zero of that device has changed too.
    pub(super) zero: bool,
    /// The room of which all of `devices` have changed, and what operations have left of it.
    pub(super) reset: Option<(String, Vec<String>)>,
    /// The hub counts presses under this start number from now on.
    pub(super) start: Option<u32>,
    pub(super) notes: Vec<Note>,
    /// When there are no steps: the topic whose value stands.
    pub(super) unchanged: Option<TopicName<String>>,
}

#[derive(Debug)]
pub(super) enum Step {
    Publish {
        topic: TopicName<String>,
        payload: Payload,
        retain: Retain,
        stored: bool,
        /// When it was accepted, if that was not now.
        at: Option<u64>,
    },
    /// On a topic that keeps nothing it is an event with an empty payload.
    Clear {
        topic: TopicName<String>,
        payload: Payload,
    },
    /// Nothing where the topic keeps nothing: the hub's own doing.
    Forget {
        topic: TopicName<String>,
        payload: Payload,
    },
}

impl Plan {
    /// What it makes of a topic, if it changes what that retains.
    pub(super) fn standing(&self, topic: TopicName<&str>) -> Option<Standing> {
        let steps = self.steps.iter().rev();
        steps
            .filter_map(Step::standing)
            .find_map(|(of, standing)| (of.borrowed() == topic).then_some(standing))
    }

    /// Whether what it says may be shown before it is durable: state that was published at QoS 0, and the ends of
    /// values whose time is over.
    pub(crate) fn may_be_lost(&self) -> bool {
        let alone = self.device.is_none()
            && self.reset.is_none()
            && self.press_ids.is_empty()
            && self.start.is_none()
            && self.notes.is_empty();
        alone && self.steps.iter().all(Step::may_be_lost)
    }
}

impl Step {
    fn standing(&self) -> Option<(&TopicName<String>, Standing)> {
        match self {
            Self::Publish {
                retain: Retain::No, ..
            } => None,
            Self::Publish { topic, .. } => Some((topic, Standing::Kept(None))),
            Self::Clear { topic, .. } | Self::Forget { topic, .. } => {
                Some((topic, Standing::Cleared))
            }
        }
    }

    fn may_be_lost(&self) -> bool {
        match self {
            Self::Publish {
                payload,
                stored,
                at,
                ..
            } => !stored || (payload.qos() == 0 && at.is_none()),
            Self::Clear { payload, .. } => payload.qos() == 0,
            Self::Forget { .. } => true,
        }
    }

    /// A topic that the hub writes itself. It is stored for the sake of its revision: after a restart the hub
    /// derives it again, and says nothing where it comes out the same.
    pub(super) fn derived(topic: ClickTopic<'_>, value: impl Display) -> Self {
        Self::state(own_topic(topic), value)
    }

    /// A topic that the hub writes itself and begins anew with each life: it is not stored.
    pub(super) fn shown(topic: ClickTopic<'_>, value: impl Display) -> Self {
        let mut step = Self::derived(topic, value);
        if let Self::Publish { stored, .. } = &mut step {
            *stored = false;
        }
        step
    }

    /// Clears a topic if it keeps something.
    pub(super) fn forget(topic: TopicName<String>) -> Self {
        Self::Forget {
            topic,
            payload: Payload::default(),
        }
    }

    /// The same where the topic is written already.
    pub(super) fn state(topic: TopicName<String>, value: impl Display) -> Self {
        Self::Publish {
            topic,
            payload: Payload::new(text(value), Publish::STATE_QOS),
            retain: Retain::LAST,
            stored: true,
            at: None,
        }
    }

    pub(super) fn change(&self, at: u64, rev: u64) -> Option<Change<'_>> {
        match self {
            Self::Publish {
                topic,
                payload,
                retain,
                stored: true,
                at: accepted,
            } => {
                let (topic, value) = (
                    topic.as_str(),
                    StoredValue::new(accepted.unwrap_or(at), payload),
                );
                Some(match retain {
                    Retain::Last(history) => Change::Keep {
                        topic,
                        rev,
                        value,
                        history: *history,
                    },
                    Retain::No => Change::Event { topic, rev, value },
                })
            }
            Self::Publish { .. } => None,
            Self::Clear { topic, payload } | Self::Forget { topic, payload } => {
                Some(Change::Clear {
                    topic: topic.as_str(),
                    rev,
                    at,
                    expired: payload.is_expiry(),
                })
            }
        }
    }

    pub(super) fn publish(self, changes: &mut Changes<'_>, at: u64) -> Result<u64, PublishError> {
        match self {
            Self::Publish {
                topic,
                payload,
                retain,
                at: accepted,
                ..
            } => {
                let at = accepted.unwrap_or(at);
                let entry = changes.publish(topic.borrowed(), payload, retain, at)?;
                Ok(entry.rev)
            }
            Self::Forget { topic, payload } => {
                let cleared = changes.clear(topic.borrowed(), payload, at)?;
                Ok(cleared.map_or(changes.hub().revision(), |cleared| cleared.rev))
            }
            Self::Clear { topic, payload } => {
                let keeps = changes.hub().last(topic.borrowed()).is_some();
                if keeps {
                    let cleared = changes.clear(topic.borrowed(), payload, at)?;
                    return Ok(cleared.map_or(changes.hub().revision(), |cleared| cleared.rev));
                }
                let payload = payload.clearing();
                let entry = changes.publish(topic.borrowed(), payload, Retain::No, at)?;
                Ok(entry.rev)
            }
        }
    }
}

impl StoredValue {
    pub(super) fn new(at: u64, payload: &Payload) -> Self {
        Self {
            at,
            qos: payload.qos(),
            expires_at: payload.expires_at(),
            said: Said::new(
                payload.origin(),
                payload.properties().map(|said| (**said).clone()),
                payload.holder().map(|holder| (**holder).clone()),
            ),
            payload: payload.bytes().to_vec(),
        }
    }

    pub(super) fn into_payload(self) -> (u64, Payload) {
        let (origin, properties, holder) = self.said.into_parts();
        let payload = Payload::restore(
            self.payload.into(),
            self.qos,
            self.expires_at,
            properties.map(Arc::new),
        );
        let payload = payload.with_origin(origin);
        (self.at, payload.with_holder(holder.map(Arc::new)))
    }
}

/// The topics that the hub derives of what it knows of one device.
pub(super) fn own_topics(rooms: &Rooms, room: &str, device: &str) -> Vec<Step> {
    let (Some(record), Some(zero)) = (rooms.record(room, device), rooms.zero(room, device)) else {
        return Vec::new();
    };
    let mut topics = Vec::new();
    let floor = record.counts.floor_record();
    if floor.floor > 0 {
        topics.push(Step::derived(ClickTopic::Floor { room, device }, floor));
    }
    let pressed = zero.pressed.value_of(&record.pressed);
    if !pressed.is_zero() {
        topics.push(Step::derived(ClickTopic::Pressed { room, device }, pressed));
    }
    if zero.is_said() && !rooms.is_hidden(room, device) {
        topics.push(Step::state(zero_topic(room, device), zero));
    }
    topics
}

/// And those that it does not derive.
pub(super) fn cleared_topics(rooms: &Rooms, room: &str, device: &str) -> Vec<TopicName<String>> {
    let mut topics = vec![
        own_topic(ClickTopic::Floor { room, device }),
        own_topic(ClickTopic::Pressed { room, device }),
        zero_topic(room, device),
    ];
    for step in own_topics(rooms, room, device) {
        if let Step::Publish { topic: derived, .. } = step {
            topics.retain(|topic| *topic != derived);
        }
    }
    topics
}

/// `clicks/<room>/<device>/zero`: from which count each of its incarnations counts.
pub(super) fn zero_topic(room: &str, device: &str) -> TopicName<String> {
    hub_topic(format!("clicks/{room}/{device}/zero"))
}

/// `clicks/<room>/reset`: the room's last reset, and what operations have given and taken.
pub(super) fn reset_topic(room: &str) -> TopicName<String> {
    hub_topic(format!("clicks/{room}/reset"))
}

fn hub_topic(topic: String) -> TopicName<String> {
    debug_assert!(is_reserved(&topic));
    TopicName::parse(topic).unwrap_or_else(|_| unreachable!("names hold no wildcard"))
}

pub(super) fn own_topic(topic: ClickTopic<'_>) -> TopicName<String> {
    let text = write_at_once(topic);
    debug_assert!(is_reserved(&text) || matches!(topic, ClickTopic::Count { .. }));
    TopicName::parse(text)
        .unwrap_or_else(|_| unreachable!("names of click topics hold no wildcard"))
}

pub(super) fn text(value: impl Display) -> Bytes {
    Bytes::from(write_at_once(value).into_bytes().into_boxed_slice())
}

/// Most of a storm of clicks is the writing of what follows from it: this text grows once, and not with each part.
fn write_at_once(value: impl Display) -> String {
    let mut text = String::with_capacity(USUAL_BYTES);
    // A string takes everything.
    let _always = write!(text, "{value}");
    text
}
