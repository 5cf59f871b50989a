//! How a pipeline begins: with what was stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use latchbus_core::clicks::Incarnation;
use latchbus_core::hub::Retain;
use latchbus_core::topic::TopicName;
use tracing::error;

use super::Pipeline;
use super::holding::Planned;
use super::plan::{Plan, Step, own_topics, reset_topic};
use crate::bus::Options;
use crate::expiring::Expiring;
use crate::metrics::Metrics;
use crate::rooms::Rooms;
use crate::shared::{Changes, Shared};
use crate::store::{Item, Loaded};
use crate::troubles::Troubles;
use crate::{Note, Payload};

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
        let devices: Vec<_> = (loaded.devices.into_iter())
            .map(|(room, device, record)| {
                rooms.restore(&room, &device, record);
                (room, device)
            })
            .collect();
        for (room, device, zero) in loaded.zeros {
            rooms.restore_zero(&room, &device, zero);
        }
        for (room, reset) in loaded.resets {
            rooms.restore_reset(&room, reset);
        }
        rooms.recount();
        for (room, device) in &devices {
            derived.extend(own_topics(&rooms, room, device));
        }
        let names: BTreeSet<_> = rooms.names().collect();
        for room in names {
            let reset = rooms.last_reset(room);
            derived.extend(reset.map(|reset| Step::state(reset_topic(room), reset)));
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
            places: options.limits.places,
            planned: BTreeMap::new(),
            planned_places: 0,
            planned_held: Planned::default(),
            planned_clears: BTreeSet::new(),
            note_bytes: Note::value_limit(options),
            notes: loaded.notes_stored,
            troubles: Troubles::default(),
        };
        shared.change(|changes| {
            for (rev, topic, item) in loaded.items {
                changes.skip_to(rev - 1);
                if let Err(reason) = pipeline.restore(changes, &topic, item) {
                    error!(
                        target: "store",
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
}
