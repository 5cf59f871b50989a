//! The way of a publish behind the access check: clicks are merged, state is stored, the hub shows it.
//!
//! A batch goes through in three steps: [`Pipeline::plan`] merges each message into what is known and
//! says what follows; the store commits the changes of all plans together; [`Pipeline::apply`] shows
//! them. Where nothing is stored, the second step is missing and a batch is one message.

mod import;

use core::{
    fmt::{self, Display},
    time::Duration,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use latchbus_core::clicks::{
    ClickTopic, Counter, Incarnation, MalformedTopic, Press, Shares, is_reserved,
};
use latchbus_core::hub::{PublishError, Retain};
use latchbus_core::topic::TopicName;
use tracing::{error, warn};

use crate::bus::{Accepted, HistoryRule, Options};
use crate::expiring::Expiring;
use crate::metrics::Metrics;
use crate::refusal::PublishRefused;
use crate::rooms::{Raised, Reported, Rooms};
use crate::shared::{Changes, Shared};
use crate::store::{Change, Loaded, StoredValue};
use crate::troubles::Troubles;
use crate::{Payload, Properties, Publish};

/// Places of the hub's log that are kept for its own topics, besides those of every room: floors, presses,
/// `$SYS`. Peers are refused when only so many are free; of a small log it is an eighth.
const RESERVED_PLACES: usize = 4_096;

/// Values, share and rate.
const PLACES_OF_A_ROOM: usize = 3;

/// Between two log lines about malformed messages.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    rooms: Rooms,
    history: Vec<HistoryRule>,
    expiring: Expiring,
    /// Rooms whose values have changed since they were shown.
    changed_rooms: BTreeSet<String>,
    /// Places that peers may fill.
    places: usize,
    /// Values that the plans of this batch add to topics, and their sum.
    planned: BTreeMap<String, usize>,
    planned_places: usize,
    malformed_log: SparseLog,
    troubles: Troubles,
}

/// What follows from one message.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// In order; the answer carries the revision of the first.
    steps: Vec<Step>,
    /// The device whose record has changed: room and name.
    device: Option<(String, String)>,
    /// Press ids that were counted, each with the number of those before it.
    press_ids: Vec<(u64, String)>,
    /// The hub counts presses under this start number from now on.
    start: Option<u32>,
    /// When there are no steps: the topic whose value stands.
    unchanged: Option<TopicName<String>>,
}

#[derive(Debug)]
enum Step {
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

impl Pipeline {
    /// A pipeline that begins with what was stored, and shows it. `nonce` is random: it tells the presses
    /// that this start counts from those of another with its number.
    pub(crate) fn new(
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
        options: &Options,
        loaded: Loaded,
        nonce: u32,
    ) -> Self {
        let own = Incarnation::new(loaded.start.max(1), nonce);
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
            expiring: Expiring::default(),
            places: {
                let places = options.limits.places;
                let reserved = RESERVED_PLACES + PLACES_OF_A_ROOM * options.clicks.rooms;
                places - reserved.min(places / 8)
            },
            planned: BTreeMap::new(),
            planned_places: 0,
            malformed_log: SparseLog::default(),
            troubles: Troubles::default(),
        };
        let now = shared.clock.unix_ms();
        shared.change(|changes| {
            for (topic, history, value) in loaded.values {
                pipeline.expiring.set(&topic, value.expires_at);
                let payload = Payload::restore(
                    value.payload.into(),
                    value.qos,
                    value.expires_at,
                    value.properties.map(Arc::new),
                );
                if payload.has_expired(now) {
                    // The next tick removes it from the store.
                    continue;
                }
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
                pipeline.show(changes, step, now);
            }
        });
        pipeline.finish(Vec::new());
        pipeline
    }

    /// Takes one message all the way, where nothing is stored.
    pub(crate) fn accept(
        &mut self,
        publish: Publish,
        origin: u64,
    ) -> Result<Accepted, PublishRefused> {
        let plan = self.plan(publish, origin)?;
        let accepted = self.finish(vec![plan]).pop();
        accepted.unwrap_or(Err(PublishRefused::Closed))
    }

    /// Merges a message into what is known. What it says afterwards must be applied.
    pub(crate) fn plan(&mut self, publish: Publish, origin: u64) -> Result<Plan, PublishRefused> {
        let plan = self.try_plan(publish, origin);
        if let Ok(plan) = &plan {
            self.reserve(plan);
        }
        if let Err(refused) = &plan {
            self.metrics.publishes_refused.add(1);
            if matches!(refused, PublishRefused::Malformed { .. }) {
                self.metrics.clicks_malformed.add(1);
            }
        }
        plan
    }

    /// Ends the values whose time is over. The plans must be committed and applied before any other is
    /// made.
    pub(crate) fn plan_expired(&mut self) -> Vec<Plan> {
        let now = self.now();
        let due = self.expiring.due(now);
        let topics = due
            .into_iter()
            .filter_map(|topic| TopicName::parse(topic).ok());
        topics
            .map(|topic| Plan {
                steps: vec![Step::Forget {
                    topic,
                    payload: Payload::expiry(),
                }],
                ..Plan::default()
            })
            .collect()
    }

    /// What the store has to commit before the plans are applied.
    pub(crate) fn changes<'a>(&'a self, plans: &'a [Plan]) -> Vec<Change<'a>> {
        let mut changes = Vec::new();
        let mut devices = BTreeSet::new();
        let at = self.now();
        for plan in plans {
            changes.extend(plan.steps.iter().filter_map(|step| step.change(at)));
            changes.extend(plan.start.map(Change::Start));
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
            for (order, id) in &plan.press_ids {
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
        let at = self.now();
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
        self.planned.clear();
        self.planned_places = 0;
        let (rooms, devices) = self.rooms.sizes();
        self.metrics.rooms.set(rooms as u64);
        self.metrics.devices.set(devices as u64);
        accepted
    }

    /// Shows the rates and what was malformed; to be called about every second.
    pub(crate) fn tick(&mut self) {
        let at = self.now();
        let rates = self.rooms.rates(at);
        let troubles = self.troubles.changed();
        let shared = Arc::clone(&self.shared);
        shared.change(|changes| {
            for (room, device, trouble) in troubles {
                let (room, device) = (&*room, &*device);
                let step = Step::derived(ClickTopic::Trouble { room, device }, trouble);
                if self.has_place(changes, &step) {
                    self.show(changes, step, at);
                }
            }
            for (room, rate) in rates {
                let topic = ClickTopic::Rate { room: &room };
                self.show(changes, Step::derived(topic, rate), at);
            }
        });
    }

    fn now(&self) -> u64 {
        self.shared.clock.unix_ms()
    }

    fn try_plan(&mut self, publish: Publish, origin: u64) -> Result<Plan, PublishRefused> {
        check_properties(&publish)?;
        let topic = publish.topic.as_str().to_owned();
        match ClickTopic::parse(&topic) {
            Err(malformed) => Err(self.malformed_topic(&topic, malformed)),
            Ok(Some(ClickTopic::Count {
                room,
                device,
                incarnation,
            })) if !publish.payload.is_empty() => {
                self.plan_count(publish, origin, (room, device), incarnation)
            }
            Ok(Some(ClickTopic::Press { room, device })) => {
                self.plan_press(publish, origin, (room, device))
            }
            // An empty count says nothing: the topic is cleared, and the count stays.
            Ok(_) => self.plan_plain(publish, origin),
        }
    }

    fn plan_plain(&mut self, publish: Publish, origin: u64) -> Result<Plan, PublishRefused> {
        let retain = match publish.retain {
            true => Retain::Last(self.history_of(&publish.topic)),
            false => Retain::No,
        };
        // A clear needs no place; it makes one.
        let needed = match publish.payload.is_empty() {
            true => Retain::No,
            false => retain,
        };
        self.check_room(&publish.topic, publish.payload.len(), needed)?;
        let (topic, payload) = Payload::arrive(publish, origin, self.now());
        let step = match retain {
            Retain::Last(_) if payload.bytes().is_empty() => Step::Clear { topic, payload },
            _ => Step::Publish {
                topic,
                payload,
                retain,
                stored: true,
                at: None,
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
        origin: u64,
        (room, device): (&str, &str),
        incarnation: Incarnation,
    ) -> Result<Plan, PublishRefused> {
        let reported = Counter::parse(&publish.payload)
            .map_err(|error| self.malformed("count", publish.topic.as_str(), &error))?;
        self.check_room(&publish.topic, publish.payload.len(), Retain::LAST)?;
        // What was counted does not expire.
        let (topic, payload) = Payload::arrive(
            Publish {
                expires_in: None,
                ..publish
            },
            origin,
            self.now(),
        );
        let now = self.now();
        let Raised { joined, folded } =
            match self
                .rooms
                .report((room, device), incarnation, reported, now)?
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
        origin: u64,
        (room, device): (&str, &str),
    ) -> Result<Plan, PublishRefused> {
        let press = Press::parse(&publish.payload)
            .map_err(|error| self.malformed("press", publish.topic.as_str(), &error))?;
        let pressed = own_topic(ClickTopic::Pressed { room, device });
        self.check_room(&pressed, Counter::MAX_JSON_BYTES, Retain::LAST)?;
        let now = self.now();
        let Some(pressed) = self.rooms.press((room, device), press, now)? else {
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
        let (topic, payload) = Payload::arrive(publish, origin, now);
        let event = Step::Publish {
            topic,
            payload,
            retain: Retain::No,
            stored: false,
            at: None,
        };
        self.changed_rooms.insert(room.to_owned());
        Ok(Plan {
            steps: vec![event, shown],
            device: Some((room.to_owned(), device.to_owned())),
            press_ids: press_id.into_iter().collect(),
            start: None,
            unchanged: None,
        })
    }

    fn apply(
        &mut self,
        changes: &mut Changes<'_>,
        plan: Plan,
        at: u64,
    ) -> Result<Accepted, PublishRefused> {
        let mut first = None;
        for step in plan.steps {
            self.note_expiry(&step);
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

    /// Remembers when what a topic is about to keep expires, or that it does not.
    fn note_expiry(&mut self, step: &Step) {
        match step {
            Step::Publish {
                topic,
                payload,
                retain: Retain::Last(_),
                ..
            } => self.expiring.set(topic.as_str(), payload.expires_at()),
            Step::Clear { topic, .. } => self.expiring.set(topic.as_str(), None),
            Step::Publish { .. } | Step::Forget { .. } => {}
        }
    }

    fn show(&self, changes: &mut Changes<'_>, step: Step, at: u64) {
        if let Err(error) = step.publish(changes, at) {
            error!(%error, "a derived topic cannot be shown");
        }
    }

    /// Whether the hub has room for what a peer's mistake makes it say: no more than for what peers say
    /// themselves.
    fn has_place(&self, changes: &Changes<'_>, step: &Step) -> bool {
        let hub = changes.hub();
        let Step::Publish { topic, .. } = step else {
            return true;
        };
        hub.places_taken() < self.places || hub.last(topic.borrowed()).is_some()
    }

    fn history_of(&self, topic: &TopicName<String>) -> u16 {
        let rule = self.history.iter().find(|rule| rule.filter.matches(topic));
        rule.map_or(1, |rule| rule.keep.max(1))
    }

    /// Whether the hub has room for a message besides those that are planned.
    fn check_room(
        &self,
        topic: &TopicName<String>,
        bytes: usize,
        retain: Retain,
    ) -> Result<(), PublishRefused> {
        let grows = self.grows(topic, retain);
        self.shared.read(|hub| {
            hub.check(topic.borrowed(), bytes, Retain::No)?;
            match grows && hub.places_taken() + self.planned_places >= self.places {
                true => Err(PublishError::Full {
                    places: self.shared.limits.places,
                }),
                false => Ok(()),
            }
        })?;
        Ok(())
    }

    /// Whether a message takes a place of the log, and not that of an older value.
    fn grows(&self, topic: &TopicName<String>, retain: Retain) -> bool {
        let Retain::Last(history) = retain else {
            return false;
        };
        let planned = self.planned.get(topic.as_str()).copied().unwrap_or(0);
        let kept = self.shared.read(|hub| hub.values_kept(topic.borrowed()));
        kept + planned < usize::from(history.max(1))
    }

    /// Counts the places that a plan takes.
    fn reserve(&mut self, plan: &Plan) {
        for step in &plan.steps {
            if let Step::Publish { topic, retain, .. } = step
                && self.grows(topic, *retain)
            {
                *self.planned.entry(topic.as_str().to_owned()).or_default() += 1;
                self.planned_places += 1;
            }
        }
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
        self.troubles
            .note(topic, reason, self.shared.clock.unix_ms(), &self.rooms);
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
    origin: u64,
) -> Result<Accepted, PublishRefused> {
    let accepted = check_properties(&publish).and_then(|()| {
        let now = shared.clock.unix_ms();
        let (topic, payload) = Payload::arrive(publish, origin, now);
        let publish =
            |changes: &mut Changes<'_>| changes.publish(topic.borrowed(), payload, Retain::No, now);
        Ok(shared.change(publish)?)
    });
    let entry = accepted.inspect_err(|_| metrics.publishes_refused.add(1))?;
    Ok(Accepted { rev: entry.rev })
}

fn check_properties(publish: &Publish) -> Result<(), PublishRefused> {
    let properties = publish.properties.as_ref();
    let (bytes, limit) = (
        properties.map_or(0, |properties| properties.bytes()),
        Properties::MAX_BYTES,
    );
    if bytes > limit {
        return Err(PublishRefused::PropertiesTooLarge { bytes, limit });
    }
    Ok(())
}

impl Step {
    /// A topic that the hub writes itself and derives again after a restart.
    fn derived(topic: ClickTopic<'_>, value: impl Display) -> Self {
        Self::Publish {
            topic: own_topic(topic),
            payload: Payload::new(text(value), Publish::STATE_QOS),
            retain: Retain::LAST,
            stored: false,
            at: None,
        }
    }

    fn change(&self, at: u64) -> Option<Change<'_>> {
        match self {
            Self::Publish {
                topic,
                payload,
                retain: Retain::Last(history),
                stored: true,
                at: accepted,
            } => Some(Change::Keep {
                topic: topic.as_str(),
                value: StoredValue {
                    at: accepted.unwrap_or(at),
                    qos: payload.qos(),
                    expires_at: payload.expires_at(),
                    properties: payload.properties().map(|said| (**said).clone()),
                    payload: payload.bytes().to_vec(),
                },
                history: *history,
            }),
            Self::Publish { .. } => None,
            Self::Clear { topic, .. } | Self::Forget { topic, .. } => Some(Change::Clear {
                topic: topic.as_str(),
            }),
        }
    }

    fn publish(self, changes: &mut Changes<'_>, at: u64) -> Result<u64, PublishError> {
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
