//! The way of a publish behind the access check: clicks are merged, state is stored, the hub shows it.
//!
//! A batch goes through in three steps: [`Pipeline::plan`] merges each message into what is known and
//! says what follows; the store commits the changes of all plans together, with the revisions that they are
//! to get; [`Pipeline::finish`] shows them. Where nothing is stored, the second step is missing and a batch is
//! one message.

mod admission;
mod clicks;
mod holding;
mod import;
mod operate;
mod plan;
mod restoring;

use core::fmt::Display;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use latchbus_core::clicks::{ClickTopic, MalformedTopic, Shares};
use latchbus_core::hub::{Hub, PublishError, Retain};
use latchbus_core::topic::TopicName;
use tracing::error;

pub(crate) use self::admission::{accept_event, check_form};
use self::holding::Planned;
pub(crate) use self::plan::Plan;
use self::plan::Step;
use crate::bus::{Accepted, HistoryRule};
use crate::capacity;
use crate::expiring::Expiring;
use crate::holdings::{Source, Value};
use crate::metrics::Metrics;
use crate::refusal::{PublishRefused, Rejected};
use crate::rooms::Rooms;
use crate::shared::{Changes, Shared};
use crate::store::Change;
use crate::troubles::Troubles;
use crate::{Note, Payload, Publish};

#[derive(Debug)]
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    rooms: Rooms,
    history: Vec<HistoryRule>,
    expiring: Expiring,
    /// Rooms whose values have changed since they were shown.
    changed_rooms: BTreeSet<String>,
    /// Values of peers that may be retained.
    places: usize,
    /// Values that the plans of this batch add to topics, and their sum.
    planned: BTreeMap<String, usize>,
    planned_places: usize,
    planned_held: Planned,
    /// Topics that the plans of this batch clear.
    planned_clears: BTreeSet<String>,
    note_bytes: usize,
    /// Notes that are stored, and those that the plans of this batch add.
    notes: u64,
    troubles: Troubles,
}

impl Pipeline {
    /// Takes one message all the way, where nothing is stored.
    pub(crate) fn accept(
        &mut self,
        publish: Publish,
        source: Source,
    ) -> Result<Accepted, Rejected> {
        if let Ok(None) = ClickTopic::parse(publish.topic.as_str()) {
            return self.accept_plain(publish, source);
        }
        let (topic, bytes) = (publish.topic.clone(), publish.payload.len());
        // Nothing is planned besides, for which places would have to be kept.
        let accepted = self
            .checked_plan(publish, source, &[])
            .and_then(|plan| self.accept_plan(plan));
        accepted.map_err(|refused| Rejected {
            refused,
            topic: Some(topic),
            bytes,
        })
    }

    fn accept_plan(&mut self, plan: Plan) -> Result<Accepted, PublishRefused> {
        let mut plans = vec![plan];
        if !self.changed_rooms.is_empty() {
            plans.push(self.plan_rooms());
        }
        let accepted = self.finish(plans, self.now(), None);
        let first = accepted.into_iter().next();
        first.unwrap_or(Err(PublishRefused::Closed))
    }

    /// The same for what is no click: most messages, and nothing is allocated for one.
    fn accept_plain(&mut self, publish: Publish, source: Source) -> Result<Accepted, Rejected> {
        let bytes = publish.payload.len();
        let admitted = self.admit(&publish, &[]);
        if let Err(refused) = admitted.and_then(|()| self.check_plain(&publish, &source)) {
            self.metrics.refused(&refused);
            return Err(Rejected {
                refused,
                topic: Some(publish.topic),
                bytes,
            });
        }
        let step = self.plain_step(publish, source);
        self.note_expiry(&step);
        let at = self.now();
        let rev = self.shared.change(|changes| step.publish(changes, at));
        // What was checked fits.
        let rev = rev.map_err(|error| Rejected {
            refused: error.into(),
            topic: None,
            bytes,
        })?;
        Ok(Accepted { rev })
    }

    /// Merges a message into what is known, behind those of its batch that were planned before. What it says afterwards
    /// must be applied.
    pub(crate) fn plan(
        &mut self,
        publish: Publish,
        source: Source,
        batch: &[Plan],
    ) -> Result<Plan, PublishRefused> {
        let plan = self.checked_plan(publish, source, batch)?;
        self.reserve(&plan);
        Ok(plan)
    }

    fn checked_plan(
        &mut self,
        publish: Publish,
        source: Source,
        batch: &[Plan],
    ) -> Result<Plan, PublishRefused> {
        let plan = self.try_plan(publish, source, batch);
        plan.inspect_err(|refused| self.metrics.refused(refused))
    }

    /// Ends the values whose time is over. The plans must be committed and applied before any other is
    /// made.
    pub(crate) fn plan_expired(&mut self) -> Vec<Plan> {
        let now = self.deadline_now();
        let due = self.expiring.due(now);
        let topics = due
            .into_iter()
            .filter_map(|topic| TopicName::parse(topic).ok());
        topics
            .map(|topic| {
                let payload = Payload::expiry();
                let step = Step::Forget { topic, payload };
                // What is published in the same batch finds its room.
                self.reserve_held(&step);
                Plan {
                    steps: vec![step],
                    ..Plan::default()
                }
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
            if let Some((room, of_room)) = &plan.reset {
                if let Some(reset) = self.rooms.last_reset(room) {
                    let reset = Cow::Borrowed(reset);
                    changes.push(Change::Reset { room, reset });
                }
                for device in of_room {
                    devices.insert((room, device));
                    changes.extend(self.device_changes(room, device));
                }
            }
            let Some((room, device)) = &plan.device else {
                continue;
            };
            if plan.zero {
                devices.insert((room, device));
                changes.extend(self.device_changes(room, device));
            } else if devices.insert((room, device))
                && let Some(record) = self.rooms.record(room, device)
            {
                changes.push(Change::Device {
                    room,
                    device,
                    record: Cow::Borrowed(record),
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

    /// All that is known of a device's clicks.
    fn device_changes<'a>(
        &'a self,
        room: &'a str,
        device: &'a str,
    ) -> impl Iterator<Item = Change<'a>> {
        let record = self
            .rooms
            .record(room, device)
            .map(|record| Change::Device {
                room,
                device,
                record: Cow::Borrowed(record),
            });
        let zero = self.rooms.zero(room, device).map(|zero| Change::Zero {
            room,
            device,
            zero: Cow::Borrowed(zero),
        });
        record.into_iter().chain(zero)
    }

    /// Shows what was planned, with revisions from `base` on where a log has given them. The answers are in the order
    /// of the plans.
    pub(crate) fn finish(
        &mut self,
        plans: Vec<Plan>,
        at: u64,
        base: Option<u64>,
    ) -> Vec<Result<Accepted, PublishRefused>> {
        let shared = Arc::clone(&self.shared);
        let accepted = shared.change(|changes| {
            let mut next = base;
            let plans = plans.into_iter();
            plans
                .map(|plan| self.apply(changes, plan, at, &mut next))
                .collect()
        });
        self.planned.clear();
        self.planned_places = 0;
        self.planned_held.clear();
        self.planned_clears.clear();
        let (rooms, devices) = self.rooms.sizes();
        self.metrics.rooms.set(rooms as u64);
        self.metrics.devices.set(devices as u64);
        let (devices, incarnations) = self.rooms.fullest();
        self.metrics.room_devices.set(devices as u64);
        self.metrics.device_incarnations.set(incarnations as u64);
        accepted
    }

    /// The rates and what was malformed, as far as they have changed; to be called about every second.
    pub(crate) fn plan_tick(&mut self) -> Plan {
        let rates = self.rooms.rates(self.now());
        let rates = (rates.into_iter())
            .map(|(room, rate)| Step::shown(ClickTopic::Rate { room: &room }, rate));
        let troubles = self.troubles.changed().into_iter();
        let troubles = troubles.map(|(room, device, trouble)| {
            let (room, device) = (&*room, &*device);
            Step::shown(ClickTopic::Trouble { room, device }, trouble)
        });
        let troubles: Vec<_> = troubles.filter(|step| self.has_place(step)).collect();
        Plan {
            steps: troubles.into_iter().chain(rates).collect(),
            ..Plan::default()
        }
    }

    /// The time of day.
    fn now(&self) -> u64 {
        self.shared.clock.unix_ms()
    }

    /// The time by which values expire.
    fn deadline_now(&self) -> u64 {
        self.shared.clock.deadline_ms()
    }

    /// Whether anything that is stored may end by the clock.
    pub(crate) fn has_deadlines(&self) -> bool {
        self.notes > 0 || !self.expiring.is_empty()
    }

    fn try_plan(
        &mut self,
        mut publish: Publish,
        source: Source,
        batch: &[Plan],
    ) -> Result<Plan, PublishRefused> {
        self.admit(&publish, batch)?;
        let notes = core::mem::take(&mut publish.notes);
        self.check_notes(&notes)?;
        let mut plan = self.plan_message(publish, source)?;
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

    fn plan_message(&mut self, publish: Publish, source: Source) -> Result<Plan, PublishRefused> {
        let topic = publish.topic.as_str().to_owned();
        match ClickTopic::parse(&topic) {
            Err(malformed) => Err(self.malformed_topic(&topic, malformed)),
            Ok(Some(ClickTopic::Count {
                room,
                device,
                incarnation,
            })) if !publish.payload.is_empty() => {
                self.plan_count(publish, source, (room, device), incarnation)
            }
            Ok(Some(ClickTopic::Press { room, device })) => {
                self.plan_press(publish, source, (room, device))
            }
            // An empty count says nothing: the topic is cleared, and the count stays.
            Ok(_) => self.plan_plain(publish, source),
        }
    }

    fn plan_plain(&mut self, publish: Publish, source: Source) -> Result<Plan, PublishRefused> {
        self.check_plain(&publish, &source)?;
        let step = self.plain_step(publish, source);
        Ok(Plan {
            steps: vec![step],
            ..Plan::default()
        })
    }

    fn check_plain(&self, publish: &Publish, source: &Source) -> Result<(), PublishRefused> {
        // A clear needs no place; it makes one.
        let needed = match publish.payload.is_empty() {
            true => Retain::No,
            false => self.retain_of(publish),
        };
        self.check_place(&publish.topic, needed)?;
        let value = || Value::published(publish, source);
        self.check_held(&publish.topic, (source, value), needed)
    }

    fn retain_of(&self, publish: &Publish) -> Retain {
        match publish.retain {
            true => Retain::Last(self.history_of(&publish.topic)),
            false => Retain::No,
        }
    }

    /// What was checked.
    fn plain_step(&self, publish: Publish, source: Source) -> Step {
        let retain = self.retain_of(&publish);
        let (topic, payload) = Payload::arrive(publish, source, self.deadline_now());
        match retain {
            Retain::Last(_) if payload.bytes().is_empty() => Step::Clear { topic, payload },
            _ => Step::Publish {
                stored: retain != Retain::No || self.shared.owes(topic.borrowed(), payload.qos()),
                topic,
                payload,
                retain,
                at: None,
            },
        }
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
                error!(target: "bus", %error, "an accepted message cannot be shown");
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

    /// Whether the hub has room for what a peer's mistake makes it say: no more than for what peers say
    /// themselves.
    fn has_place(&self, step: &Step) -> bool {
        let Step::Publish { topic, .. } = step else {
            return true;
        };
        self.shared.read(|hub| {
            hub.last(topic.borrowed()).is_some() || !self.is_full(hub, self.planned_places)
        })
    }

    fn history_of(&self, topic: &TopicName<String>) -> u16 {
        let rule = self.history.iter().find(|rule| rule.filter.matches(topic));
        rule.map_or(1, |rule| rule.keep.max(1))
    }

    /// Whether the hub has room for a message besides those that are planned, and takes one of this size.
    fn check_room(
        &self,
        topic: &TopicName<String>,
        bytes: usize,
        retain: Retain,
    ) -> Result<(), PublishRefused> {
        let fits = |hub: &Hub<Payload>| hub.check(topic.borrowed(), bytes, Retain::No);
        self.shared.read(fits)?;
        self.check_place(topic, retain)
    }

    /// Whether the hub has room for a message besides those that are planned.
    fn check_place(&self, topic: &TopicName<String>, retain: Retain) -> Result<(), PublishRefused> {
        let grows = self.grows(topic, retain);
        let is_full = grows && (self.shared).read(|hub| self.is_full(hub, self.planned_places));
        match is_full {
            true => Err(PublishRefused::Hub(PublishError::Full {
                places: self.places,
            })),
            false => Ok(()),
        }
    }

    /// Whether peers have filled all places that they may, besides those that are planned.
    fn is_full(&self, hub: &Hub<Payload>, planned: usize) -> bool {
        // Seldom are there so many that it matters which are the hub's own.
        hub.places_taken() + planned >= self.places
            && capacity::taken_by_peers(hub, &self.metrics) + planned >= self.places
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
            self.reserve_held(step);
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
        self.troubles
            .note(topic, reason, self.shared.clock.unix_ms(), &self.rooms);
        PublishRefused::Malformed {
            kind,
            reason: reason.to_string(),
        }
    }
}
