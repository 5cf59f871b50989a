//! The way of a publish behind the access check: clicks are merged, state is stored, the hub shows it.
//!
//! A batch goes through in three steps: [`Pipeline::plan`] merges each message into what is known and
//! says what follows; the store commits the changes of all plans together, with the revisions that they are
//! to get; [`Pipeline::finish`] shows them. Where nothing is stored, the second step is missing and a batch is
//! one message.

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
use crate::store::{Change, Item, Loaded, StoredValue};
use crate::troubles::Troubles;
use crate::{Note, Payload, Properties, Publish};

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
    /// Topics that the plans of this batch clear.
    planned_clears: BTreeSet<String>,
    note_bytes: usize,
    /// Notes that are stored, and those that the plans of this batch add.
    notes: u64,
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
    notes: Vec<Note>,
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
    /// A pipeline that begins with what was stored, and what is to be shown besides. `nonce` is random: it tells
    /// the presses that this start counts from those of another with its number.
    pub(crate) fn new(
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
        options: &Options,
        loaded: Loaded,
        nonce: u32,
    ) -> (Self, Vec<Plan>) {
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
            planned_clears: BTreeSet::new(),
            note_bytes: Note::value_limit(options),
            notes: loaded.notes_stored,
            malformed_log: SparseLog::default(),
            troubles: Troubles::default(),
        };
        shared.change(|changes| {
            for (rev, topic, item) in loaded.items {
                changes.skip_to(rev - 1);
                if let Err(reason) = pipeline.restore(changes, &topic, item) {
                    error!(
                        topic,
                        reason, "what is stored cannot be shown; it stays in the store"
                    );
                }
            }
            changes.restored(loaded.life);
        });
        derived.extend(pipeline.plan_rooms().steps);
        let is_news = |step: &Step| {
            let Step::Publish { topic, payload, .. } = step else {
                return true;
            };
            let last = shared.read(|hub| hub.last(topic.borrowed()));
            last.is_none_or(|last| last.payload.bytes() != payload.bytes())
        };
        let begin = Plan {
            steps: derived.into_iter().filter(is_news).collect(),
            ..Plan::default()
        };
        (pipeline, vec![begin])
    }

    /// Puts back what has stood in the hub's order.
    fn restore(
        &mut self,
        changes: &mut Changes<'_>,
        topic: &str,
        item: Item,
    ) -> Result<(), String> {
        let name = TopicName::parse(topic).map_err(|error| error.to_string())?;
        let restored = match item {
            Item::Value(history, value) => {
                // One whose time is over is cleared by the next tick, so that those who had it hear of it.
                self.expiring.set(topic, value.expires_at);
                let (at, payload) = value.into_payload();
                changes
                    .publish(name, payload, Retain::Last(history), at)
                    .map(drop)
            }
            Item::Event(value) => {
                let (at, payload) = value.into_payload();
                changes.publish(name, payload, Retain::No, at).map(drop)
            }
            Item::Cleared { at, expired } => {
                let payload = match expired {
                    true => Payload::expiry(),
                    false => Payload::default(),
                };
                changes.restore_clear(name, payload, at)
            }
        };
        restored.map_err(|error| error.to_string())
    }

    /// Takes one message all the way, where nothing is stored.
    pub(crate) fn accept(
        &mut self,
        publish: Publish,
        origin: u64,
    ) -> Result<Accepted, PublishRefused> {
        let plan = self.plan(publish, origin)?;
        self.accept_plan(plan)
    }

    fn accept_plan(&mut self, plan: Plan) -> Result<Accepted, PublishRefused> {
        let mut plans = vec![plan];
        if !self.changed_rooms.is_empty() {
            plans.push(self.plan_rooms());
        }
        let accepted = self.finish(plans, self.now(), None).ok();
        let first = accepted.and_then(|accepted| accepted.into_iter().next());
        first.unwrap_or(Err(PublishRefused::Closed))
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

    /// What follows for the rooms from what was planned: the last plan of a batch.
    pub(crate) fn plan_rooms(&mut self) -> Plan {
        let mut steps = Vec::new();
        for room in core::mem::take(&mut self.changed_rooms) {
            let value = self.rooms.value(&room);
            steps.push(Step::derived(ClickTopic::Values { room: &room }, value));
            let share = ClickTopic::Share { room: &room };
            steps.push(Step::derived(share, Shares::of(value)));
        }
        Plan {
            steps,
            ..Plan::default()
        }
    }

    /// What a transport remembers or forgets by itself.
    pub(crate) fn plan_notes(&mut self, notes: Vec<Note>) -> Result<Plan, PublishRefused> {
        self.check_notes(&notes)?;
        Ok(Plan {
            notes,
            ..Plan::default()
        })
    }

    /// As many notes are stored after a batch.
    pub(crate) fn set_notes(&mut self, stored: u64) {
        self.notes = stored;
    }

    /// The number of revisions that the plans take.
    pub(crate) fn revisions(plans: &[Plan]) -> u64 {
        plans.iter().map(|plan| plan.steps.len() as u64).sum()
    }

    /// What the store has to commit before the plans are applied, at this time and with revisions from
    /// `base` on.
    pub(crate) fn changes<'a>(&'a self, plans: &'a [Plan], at: u64, base: u64) -> Vec<Change<'a>> {
        let mut changes = Vec::new();
        let mut devices = BTreeSet::new();
        let mut revs = base..;
        for plan in plans {
            let steps = plan.steps.iter().zip(&mut revs);
            changes.extend(steps.filter_map(|(step, rev)| step.change(at, rev)));
            changes.extend(plan.notes.iter().map(Note::change));
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

    /// Shows what was planned. The answers are in the order of the plans.
    ///
    /// # Errors
    /// With the plans, when they were committed with revisions from `base` on, and the hub has gone beyond.
    pub(crate) fn finish(
        &mut self,
        plans: Vec<Plan>,
        at: u64,
        base: Option<u64>,
    ) -> Result<Vec<Result<Accepted, PublishRefused>>, Vec<Plan>> {
        let shared = Arc::clone(&self.shared);
        let accepted = shared.change(|changes| {
            if base.is_some_and(|base| base <= changes.hub().revision()) {
                return Err(plans);
            }
            let mut next = base;
            let plans = plans.into_iter();
            Ok(plans
                .map(|plan| self.apply(changes, plan, at, &mut next))
                .collect())
        })?;
        self.planned.clear();
        self.planned_places = 0;
        self.planned_clears.clear();
        let (rooms, devices) = self.rooms.sizes();
        self.metrics.rooms.set(rooms as u64);
        self.metrics.devices.set(devices as u64);
        Ok(accepted)
    }

    /// Shows the rates and what was malformed; to be called about every second.
    pub(crate) fn tick(&mut self) {
        let at = self.now();
        let rates = self.rooms.rates(at);
        let troubles = self.troubles.changed();
        let shared = Arc::clone(&self.shared);
        shared.change(|changes| {
            if !changes.may_go_on() {
                return;
            }
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

    fn try_plan(&mut self, mut publish: Publish, origin: u64) -> Result<Plan, PublishRefused> {
        check_properties(&publish)?;
        let notes = core::mem::take(&mut publish.notes);
        self.check_notes(&notes)?;
        let mut plan = self.plan_message(publish, origin)?;
        plan.notes = notes.into_vec();
        Ok(plan)
    }

    /// Whether there is room for notes, which then are counted.
    fn check_notes(&mut self, notes: &[Note]) -> Result<(), PublishRefused> {
        notes
            .iter()
            .try_for_each(|note| note.check(self.note_bytes))?;
        let kept = notes.iter().filter(|note| note.keeps()).count() as u64;
        // Those that take the place of others are counted too: the next commit says how many there are.
        if kept > 0 && self.notes + kept > Note::MOST as u64 {
            return Err(PublishRefused::NotesFull { limit: Note::MOST });
        }
        self.notes += kept;
        Ok(())
    }

    fn plan_message(&mut self, publish: Publish, origin: u64) -> Result<Plan, PublishRefused> {
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
                stored: retain != Retain::No || self.shared.owes(topic.borrowed(), payload.qos()),
                topic,
                payload,
                retain,
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
                    if self.planned_clears.contains(topic.as_str())
                        || self.shared.read(|hub| hub.last(topic.borrowed()).is_none()) =>
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
            stored: self.shared.owes(topic.borrowed(), payload.qos()),
            topic,
            payload,
            retain: Retain::No,
            at: None,
        };
        self.changed_rooms.insert(room.to_owned());
        Ok(Plan {
            steps: vec![event, shown],
            device: Some((room.to_owned(), device.to_owned())),
            press_ids: press_id.into_iter().collect(),
            ..Plan::default()
        })
    }

    fn apply(
        &mut self,
        changes: &mut Changes<'_>,
        plan: Plan,
        at: u64,
        next: &mut Option<u64>,
    ) -> Result<Accepted, PublishRefused> {
        let mut first = None;
        for step in plan.steps {
            if let Some(rev) = next {
                changes.skip_to(*rev - 1);
                *rev += 1;
            }
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

    /// Counts the places that a plan takes, and notes what it clears.
    fn reserve(&mut self, plan: &Plan) {
        for step in &plan.steps {
            match step {
                Step::Publish { topic, retain, .. } => {
                    if self.grows(topic, *retain) {
                        *self.planned.entry(topic.as_str().to_owned()).or_default() += 1;
                        self.planned_places += 1;
                    }
                    if *retain != Retain::No && !self.planned_clears.is_empty() {
                        self.planned_clears.remove(topic.as_str());
                    }
                }
                Step::Clear { topic, .. } | Step::Forget { topic, .. } => {
                    self.planned_clears.insert(topic.as_str().to_owned());
                }
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

/// Accepts an event that is not a click, and gives it back if it needs the store.
pub(crate) fn accept_event(
    shared: &Shared,
    metrics: &Metrics,
    publish: Publish,
    origin: u64,
) -> Result<Result<Accepted, PublishRefused>, Publish> {
    let accepted = match check_properties(&publish) {
        Err(refused) => Err(refused),
        Ok(()) => {
            let now = shared.clock.unix_ms();
            shared
                .change(|changes| {
                    if !changes.goes_straight(publish.topic.borrowed(), publish.qos) {
                        return Err(publish);
                    }
                    let (topic, payload) = Payload::arrive(publish, origin, now);
                    Ok(changes.publish(topic.borrowed(), payload, Retain::No, now))
                })?
                .map_err(PublishRefused::from)
        }
    };
    Ok(match accepted {
        Ok(entry) => Ok(Accepted { rev: entry.rev }),
        Err(refused) => {
            metrics.publishes_refused.add(1);
            Err(refused)
        }
    })
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
    /// A topic that the hub writes itself. It is stored for the sake of its revision: after a restart the hub
    /// derives it again, and says nothing where it comes out the same.
    fn derived(topic: ClickTopic<'_>, value: impl Display) -> Self {
        Self::Publish {
            topic: own_topic(topic),
            payload: Payload::new(text(value), Publish::STATE_QOS),
            retain: Retain::LAST,
            stored: true,
            at: None,
        }
    }

    fn change(&self, at: u64, rev: u64) -> Option<Change<'_>> {
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

impl StoredValue {
    fn new(at: u64, payload: &Payload) -> Self {
        Self {
            at,
            qos: payload.qos(),
            expires_at: payload.expires_at(),
            properties: payload.properties().map(|said| (**said).clone()),
            payload: payload.bytes().to_vec(),
        }
    }

    fn into_payload(self) -> (u64, Payload) {
        let payload = Payload::restore(
            self.payload.into(),
            self.qos,
            self.expires_at,
            self.properties.map(Arc::new),
        );
        (self.at, payload)
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
