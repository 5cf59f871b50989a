//! The way of a publish behind the access check: clicks are merged, state is stored, the hub shows it.
//!
//! A batch goes through in three steps: [`Pipeline::plan`] merges each message into what is known and
//! says what follows; the store commits the changes of all plans together; [`Pipeline::apply`] shows
//! them. Where nothing is stored, the second step is missing and a batch is one message.

use core::{
    fmt::{self, Display},
    time::Duration,
};
use std::{collections::BTreeSet, sync::Arc, time::Instant};

use bytes::Bytes;
use latchbus_core::clicks::{
    ClickTopic, Counter, Incarnation, MalformedTopic, Press, Shares, is_reserved,
};
use latchbus_core::hub::{PublishError, Retain};
use latchbus_core::topic::TopicName;
use tracing::{error, warn};

use crate::bus::{Accepted, HistoryRule, Options};
use crate::clock::unix_ms;
use crate::metrics::Metrics;
use crate::refusal::PublishRefused;
use crate::rooms::{Raised, Reported, Rooms};
use crate::shared::{Changes, Shared};
use crate::store::{Change, Loaded, StoredValue};
use crate::{Payload, Publish};

/// Places of the hub's log that are kept for its own topics: values, shares, rates, floors. Peers are
/// refused when only so many are free; of a small log it is an eighth.
const RESERVED_PLACES: usize = 4_096;

/// Between two log lines about malformed messages.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    rooms: Rooms,
    history: Vec<HistoryRule>,
    /// Rooms whose values have changed since they were shown.
    changed_rooms: BTreeSet<String>,
    /// Places that the plans of this batch need at most.
    planned_places: usize,
    malformed_log: SparseLog,
}

/// What follows from one message.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// In order; the answer carries the revision of the first.
    steps: Vec<Step>,
    /// The device whose record has changed: room and name.
    device: Option<(String, String)>,
    press_id: Option<(u64, String)>,
    /// When there are no steps: the topic whose value stands.
    unchanged: Option<TopicName<String>>,
}

#[derive(Debug)]
enum Step {
    Publish {
        topic: TopicName<String>,
        payload: Bytes,
        qos: u8,
        retain: Retain,
        stored: bool,
    },
    /// On a topic that keeps nothing it is an event with an empty payload.
    Clear { topic: TopicName<String>, qos: u8 },
}

impl Pipeline {
    /// A pipeline that begins with what was stored, and shows it.
    pub(crate) fn new(
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
        options: &Options,
        loaded: Loaded,
    ) -> Self {
        let own = Incarnation::new(loaded.start.max(1), fastrand::u32(..));
        let own = own.unwrap_or_else(|| unreachable!("a start number is at least 1"));
        let mut rooms = Rooms::new(options.clicks, own);
        for room in &options.rooms {
            rooms.open_room(room);
        }
        let mut derived = Vec::new();
        for (room, device, record) in loaded.devices {
            derived.extend(own_topics(&room, &device, &record));
            rooms.restore(&room, &device, record);
        }
        for (room, device, id) in loaded.press_ids {
            rooms.restore_press_id(&room, &device, &id);
        }
        let mut pipeline = Self {
            changed_rooms: rooms.names().map(str::to_owned).collect(),
            shared: Arc::clone(&shared),
            metrics,
            rooms,
            history: options.history.clone(),
            planned_places: 0,
            malformed_log: SparseLog::default(),
        };
        shared.change(|changes| {
            for (topic, history, value) in loaded.values {
                let payload = Payload::new(value.payload.into(), value.qos);
                let restored = TopicName::parse(topic.as_str())
                    .map_err(|error| error.to_string())
                    .and_then(|topic| {
                        let kept = changes.publish(topic, payload, Retain::Last(history), value.at);
                        kept.map_err(|error| error.to_string())
                    });
                if let Err(reason) = restored {
                    error!(
                        topic,
                        reason, "a stored value cannot be shown; it stays in the store"
                    );
                }
            }
            for step in derived {
                pipeline.show(changes, step, unix_ms());
            }
        });
        pipeline.finish(Vec::new());
        pipeline
    }

    /// Takes one message all the way, where nothing is stored.
    pub(crate) fn accept(&mut self, publish: Publish) -> Result<Accepted, PublishRefused> {
        let plan = self.plan(publish)?;
        let accepted = self.finish(vec![plan]).pop();
        accepted.unwrap_or(Err(PublishRefused::Closed))
    }

    /// Merges a message into what is known. What it says afterwards must be applied.
    pub(crate) fn plan(&mut self, publish: Publish) -> Result<Plan, PublishRefused> {
        let planned_places = self.planned_places;
        let plan = self.try_plan(publish);
        if let Err(refused) = &plan {
            self.planned_places = planned_places;
            self.metrics.publishes_refused.add(1);
            if matches!(refused, PublishRefused::Malformed { .. }) {
                self.metrics.clicks_malformed.add(1);
            }
        }
        plan
    }

    /// What the store has to commit before the plans are applied.
    pub(crate) fn changes<'a>(&'a self, plans: &'a [Plan]) -> Vec<Change<'a>> {
        let mut changes = Vec::new();
        let mut devices = BTreeSet::new();
        let at = unix_ms();
        for plan in plans {
            changes.extend(plan.steps.iter().filter_map(|step| step.change(at)));
            let Some((room, device)) = &plan.device else {
                continue;
            };
            if devices.insert((room, device))
                && let Some(record) = self.rooms.record(room, device)
            {
                changes.push(Change::Device {
                    room,
                    device,
                    record,
                });
            }
            if let Some((order, id)) = &plan.press_id {
                changes.push(Change::PressId {
                    room,
                    device,
                    order: *order,
                    id,
                });
            }
        }
        changes
    }

    /// Shows what was planned, and the values of the rooms that it changed. The answers are in the order
    /// of the plans.
    pub(crate) fn finish(&mut self, plans: Vec<Plan>) -> Vec<Result<Accepted, PublishRefused>> {
        let at = unix_ms();
        let shared = Arc::clone(&self.shared);
        let accepted = shared.change(|changes| {
            let accepted = plans
                .into_iter()
                .map(|plan| self.apply(changes, plan, at))
                .collect();
            for room in core::mem::take(&mut self.changed_rooms) {
                let value = self.rooms.value(&room);
                let values = ClickTopic::Values { room: &room };
                let share = ClickTopic::Share { room: &room };
                self.show(changes, Step::derived(values, value), at);
                self.show(changes, Step::derived(share, Shares::of(value)), at);
            }
            accepted
        });
        self.planned_places = 0;
        let (rooms, devices) = self.rooms.sizes();
        self.metrics.rooms.set(rooms as u64);
        self.metrics.devices.set(devices as u64);
        accepted
    }

    /// Shows the rates; to be called about every second.
    pub(crate) fn tick(&mut self) {
        let at = unix_ms();
        let rates = self.rooms.rates(at);
        let shared = Arc::clone(&self.shared);
        shared.change(|changes| {
            for (room, rate) in rates {
                let topic = ClickTopic::Rate { room: &room };
                self.show(changes, Step::derived(topic, rate), at);
            }
        });
    }

    fn try_plan(&mut self, publish: Publish) -> Result<Plan, PublishRefused> {
        let topic = publish.topic.as_str().to_owned();
        match ClickTopic::parse(&topic) {
            Err(malformed) => Err(self.malformed_topic(&topic, malformed)),
            Ok(Some(ClickTopic::Count {
                room,
                device,
                incarnation,
            })) if !publish.payload.is_empty() => {
                self.plan_count(publish, (room, device), incarnation)
            }
            Ok(Some(ClickTopic::Press { room, device })) => {
                self.plan_press(publish, (room, device))
            }
            // An empty count says nothing: the topic is cleared, and the count stays.
            Ok(_) => self.plan_plain(publish),
        }
    }

    fn plan_plain(&mut self, publish: Publish) -> Result<Plan, PublishRefused> {
        let Publish {
            topic,
            payload,
            retain,
            qos,
        } = publish;
        let retain = match retain {
            true => Retain::Last(self.history_of(&topic)),
            false => Retain::No,
        };
        self.check_room(&topic, payload.len(), retain)?;
        let step = match retain {
            Retain::Last(_) if payload.is_empty() => Step::Clear { topic, qos },
            _ => Step::Publish {
                topic,
                payload,
                qos,
                retain,
                stored: true,
            },
        };
        Ok(Plan {
            steps: vec![step],
            ..Plan::default()
        })
    }

    fn plan_count(
        &mut self,
        publish: Publish,
        (room, device): (&str, &str),
        incarnation: Incarnation,
    ) -> Result<Plan, PublishRefused> {
        let topic = publish.topic;
        let reported = Counter::parse(&publish.payload)
            .map_err(|error| self.malformed("count", topic.as_str(), &error))?;
        self.check_room(&topic, publish.payload.len(), Retain::LAST)?;
        let Raised { joined, folded } =
            match self
                .rooms
                .report((room, device), incarnation, reported, unix_ms())?
            {
                Reported::Raised(raised) => raised,
                Reported::Unchanged(joined)
                    if self.shared.read(|hub| hub.last(topic.borrowed()).is_none()) =>
                {
                    // The topic was cleared, which says nothing of the count, or the message that raised
                    // it is of this batch: what is known is shown again.
                    Raised {
                        joined,
                        folded: None,
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
            true => publish.payload,
            // Each colour's larger count came in another message: neither says it all.
            false => text(joined),
        };
        let mut steps = vec![Step::Publish {
            topic,
            payload,
            qos: publish.qos,
            retain: Retain::LAST,
            stored: true,
        }];
        if let Some((record, fallen)) = folded {
            for incarnation in fallen {
                steps.push(Step::Clear {
                    topic: own_topic(ClickTopic::Count {
                        room,
                        device,
                        incarnation,
                    }),
                    qos: Publish::STATE_QOS,
                });
            }
            steps.push(Step::derived(ClickTopic::Floor { room, device }, record));
        }
        self.changed_rooms.insert(room.to_owned());
        Ok(Plan {
            steps,
            device: Some((room.to_owned(), device.to_owned())),
            ..Plan::default()
        })
    }

    fn plan_press(
        &mut self,
        publish: Publish,
        (room, device): (&str, &str),
    ) -> Result<Plan, PublishRefused> {
        let press = Press::parse(&publish.payload)
            .map_err(|error| self.malformed("press", publish.topic.as_str(), &error))?;
        let pressed = own_topic(ClickTopic::Pressed { room, device });
        self.check_room(&pressed, Counter::MAX_JSON_BYTES, Retain::LAST)?;
        let Some(pressed) = self.rooms.press((room, device), press, unix_ms())? else {
            self.metrics.presses_repeated.add(1);
            return Ok(Plan {
                unchanged: Some(publish.topic),
                ..Plan::default()
            });
        };
        let press_id = pressed.id_order.zip(press.id.map(str::to_owned));
        let shown = Step::derived(ClickTopic::Pressed { room, device }, pressed.value);
        // A press is an event whatever its publisher says: retained, it would be counted again by
        // whoever replays it.
        let event = Step::Publish {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: Retain::No,
            stored: false,
        };
        self.changed_rooms.insert(room.to_owned());
        Ok(Plan {
            steps: vec![event, shown],
            device: Some((room.to_owned(), device.to_owned())),
            press_id,
            unchanged: None,
        })
    }

    fn apply(
        &self,
        changes: &mut Changes<'_>,
        plan: Plan,
        at: u64,
    ) -> Result<Accepted, PublishRefused> {
        let mut first = None;
        for step in plan.steps {
            let rev = step.publish(changes, at).inspect_err(|error| {
                error!(%error, "an accepted message cannot be shown");
            });
            first.get_or_insert(rev);
        }
        let standing = || {
            let hub = changes.hub();
            let standing = plan.unchanged.and_then(|topic| hub.last(topic.borrowed()));
            Ok(standing.map_or(hub.revision(), |entry| entry.rev))
        };
        let rev = first.unwrap_or_else(standing)?;
        Ok(Accepted { rev })
    }

    fn show(&self, changes: &mut Changes<'_>, step: Step, at: u64) {
        if let Err(error) = step.publish(changes, at) {
            error!(%error, "a derived topic cannot be shown");
        }
    }

    fn history_of(&self, topic: &TopicName<String>) -> u16 {
        let rule = self.history.iter().find(|rule| rule.filter.matches(topic));
        rule.map_or(1, |rule| rule.keep.max(1))
    }

    /// Whether the hub has room for a message, with that of the other plans of the batch.
    fn check_room(
        &mut self,
        topic: &TopicName<String>,
        bytes: usize,
        retain: Retain,
    ) -> Result<(), PublishRefused> {
        let planned = self.planned_places;
        let places = self.shared.limits.places;
        let free_for_peers = places - RESERVED_PLACES.min(places / 8);
        let needs_place = self.shared.read(|hub| {
            hub.check(topic.borrowed(), bytes, retain)?;
            let is_new = retain != Retain::No && hub.last(topic.borrowed()).is_none();
            match is_new && hub.places_taken() + planned >= free_for_peers {
                true => Err(PublishError::Full { places }),
                false => Ok(is_new),
            }
        })?;
        self.planned_places += usize::from(needs_place);
        Ok(())
    }

    fn malformed_topic(&mut self, topic: &str, malformed: MalformedTopic) -> PublishRefused {
        self.malformed("click topic", topic, &malformed)
    }

    fn malformed(
        &mut self,
        kind: &'static str,
        topic: &str,
        reason: &dyn Display,
    ) -> PublishRefused {
        self.malformed_log.warn(kind, topic, reason);
        PublishRefused::Malformed {
            kind,
            reason: reason.to_string(),
        }
    }
}

/// Accepts an event that needs no store and is not a click.
pub(crate) fn accept_event(
    shared: &Shared,
    metrics: &Metrics,
    publish: Publish,
) -> Result<Accepted, PublishRefused> {
    let payload = Payload::new(publish.payload, publish.qos);
    let entry = shared
        .change(|changes| changes.publish(publish.topic.borrowed(), payload, Retain::No, unix_ms()))
        .inspect_err(|_| metrics.publishes_refused.add(1))?;
    Ok(Accepted { rev: entry.rev })
}

impl Step {
    /// A topic that the hub writes itself and derives again after a restart.
    fn derived(topic: ClickTopic<'_>, value: impl Display) -> Self {
        Self::Publish {
            topic: own_topic(topic),
            payload: text(value),
            qos: Publish::STATE_QOS,
            retain: Retain::LAST,
            stored: false,
        }
    }

    fn change(&self, at: u64) -> Option<Change<'_>> {
        match self {
            Self::Publish {
                topic,
                payload,
                qos,
                retain: Retain::Last(history),
                stored: true,
            } => Some(Change::Keep {
                topic: topic.as_str(),
                value: StoredValue {
                    at,
                    qos: *qos,
                    payload: payload.to_vec(),
                },
                history: *history,
            }),
            Self::Publish { .. } => None,
            Self::Clear { topic, .. } => Some(Change::Clear {
                topic: topic.as_str(),
            }),
        }
    }

    fn publish(self, changes: &mut Changes<'_>, at: u64) -> Result<u64, PublishError> {
        match self {
            Self::Publish {
                topic,
                payload,
                qos,
                retain,
                ..
            } => {
                let payload = Payload::new(payload, qos);
                let entry = changes.publish(topic.borrowed(), payload, retain, at)?;
                Ok(entry.rev)
            }
            Self::Clear { topic, qos } => {
                if let Some(cleared) = changes.clear(topic.borrowed(), at)? {
                    return Ok(cleared.rev);
                }
                let payload = Payload::new(Bytes::new(), qos);
                let entry = changes.publish(topic.borrowed(), payload, Retain::No, at)?;
                Ok(entry.rev)
            }
        }
    }
}

/// The topics that the hub derives of one device's record.
fn own_topics(room: &str, device: &str, record: &crate::rooms::Record) -> Vec<Step> {
    let floor = record.counts.floor_record();
    let pressed = record.pressed.value();
    let mut topics = Vec::new();
    if floor.floor > 0 {
        topics.push(Step::derived(ClickTopic::Floor { room, device }, floor));
    }
    if !pressed.is_zero() {
        topics.push(Step::derived(ClickTopic::Pressed { room, device }, pressed));
    }
    topics
}

fn own_topic(topic: ClickTopic<'_>) -> TopicName<String> {
    let text = topic.to_string();
    debug_assert!(is_reserved(&text) || matches!(topic, ClickTopic::Count { .. }));
    TopicName::parse(text)
        .unwrap_or_else(|_| unreachable!("names of click topics hold no wildcard"))
}

fn text(value: impl fmt::Display) -> Bytes {
    Bytes::from(value.to_string())
}

/// Warnings about what peers send wrongly: at most one in [`LOG_INTERVAL`], with the number of those
/// that it stands for.
#[derive(Debug, Default)]
struct SparseLog {
    last: Option<Instant>,
    left_out: u64,
}

impl SparseLog {
    fn warn(&mut self, kind: &str, topic: &str, reason: &dyn Display) {
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            self.left_out += 1;
            return;
        }
        warn!(
            topic,
            left_out = self.left_out,
            "malformed {kind}: {reason}"
        );
        (self.last, self.left_out) = (Some(Instant::now()), 0);
    }
}
