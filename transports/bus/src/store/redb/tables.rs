//! The tables, and how each change is made in them.

use std::collections::HashSet;

use redb::{
    Database, Durability, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::meta::Meta;
use super::{Change, Commit, StoreError, StoredValue, failed};
use crate::rooms::PRESS_IDS as PRESS_ID_SLOTS;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
const CLEARED: TableDefinition<'_, u64, (&str, u64, bool)> = TableDefinition::new("cleared");
const CLEARED_TOPICS: TableDefinition<'_, &str, u64> = TableDefinition::new("cleared_topics");
const EVENTS: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("events");
pub(super) const DEVICES: TableDefinition<'_, (&str, &str), &[u8]> =
    TableDefinition::new("devices");
pub(super) const PRESS_IDS: TableDefinition<'_, (&str, &str, u16), (u64, &str)> =
    TableDefinition::new("press_ids");
const LOST: TableDefinition<'_, u64, u64> = TableDefinition::new("lost");
const ZEROS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("zeros");
const RESETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("resets");
const NOTES: TableDefinition<'_, (&str, &str, &[u8]), &[u8]> = TableDefinition::new("notes");

/// What is stored of a topic: its kept values, oldest first, with their revisions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Topic {
    pub(super) history: u16,
    pub(super) values: Vec<(u64, StoredValue)>,
}

/// The tables of one transaction.
pub(super) struct Tables<'t> {
    pub(super) meta: Table<'t, &'static str, u64>,
    pub(super) values: Table<'t, &'static str, &'static [u8]>,
    pub(super) cleared: Table<'t, u64, (&'static str, u64, bool)>,
    pub(super) cleared_topics: Table<'t, &'static str, u64>,
    pub(super) events: Table<'t, u64, (&'static str, &'static [u8])>,
    pub(super) devices: Table<'t, (&'static str, &'static str), &'static [u8]>,
    pub(super) zeros: Table<'t, (&'static str, &'static str), &'static [u8]>,
    pub(super) resets: Table<'t, &'static str, &'static [u8]>,
    pub(super) press_ids: Table<'t, (&'static str, &'static str, u16), (u64, &'static str)>,
    pub(super) notes: Table<'t, (&'static str, &'static str, &'static [u8]), &'static [u8]>,
    lost: Table<'t, u64, u64>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            meta: transaction.open_table(META).map_err(failed)?,
            values: transaction.open_table(VALUES).map_err(failed)?,
            cleared: transaction.open_table(CLEARED).map_err(failed)?,
            cleared_topics: transaction.open_table(CLEARED_TOPICS).map_err(failed)?,
            events: transaction.open_table(EVENTS).map_err(failed)?,
            devices: transaction.open_table(DEVICES).map_err(failed)?,
            zeros: transaction.open_table(ZEROS).map_err(failed)?,
            resets: transaction.open_table(RESETS).map_err(failed)?,
            press_ids: transaction.open_table(PRESS_IDS).map_err(failed)?,
            notes: transaction.open_table(NOTES).map_err(failed)?,
            lost: transaction.open_table(LOST).map_err(failed)?,
        })
    }

    /// Revisions that were lost: after the first, up to the second of each pair.
    pub(super) fn lost(&self) -> Result<Vec<(u64, u64)>, StoreError> {
        let rows = self.lost.iter().map_err(failed)?;
        rows.map(|row| {
            let (after, to) = row.map_err(failed)?;
            Ok((after.value(), to.value()))
        })
        .collect()
    }

    pub(super) fn set_lost(&mut self, lost: &[(u64, u64)]) -> Result<(), StoreError> {
        self.lost.retain(|_, _| false).map_err(failed)?;
        for (after, to) in lost {
            self.lost.insert(after, to).map_err(failed)?;
        }
        Ok(())
    }

    /// The records of each table that holds what was published or counted.
    pub(super) fn counts(&self) -> Result<[(&'static str, u64); 6], StoreError> {
        Ok([
            ("values", self.values.len().map_err(failed)?),
            ("events", self.events.len().map_err(failed)?),
            ("devices", self.devices.len().map_err(failed)?),
            ("zeros", self.zeros.len().map_err(failed)?),
            ("resets", self.resets.len().map_err(failed)?),
            ("notes", self.notes.len().map_err(failed)?),
        ])
    }

    fn oldest_event(&self) -> Result<Option<u64>, StoreError> {
        let oldest = self.events.first().map_err(failed)?;
        Ok(oldest.map(|(rev, _)| rev.value()))
    }

    /// Makes the changes of commits, but for those that later ones make void.
    pub(super) fn fold(
        &mut self,
        commits: &[Commit<'_>],
        meta: &mut Meta,
        tombstones: u64,
    ) -> Result<(), StoreError> {
        let mut void = void(commits).into_iter().rev();
        for commit in commits {
            meta.revision = commit.revision;
            meta.events = commit.stops.map_or(0, |newest_event| newest_event + 1);
            for change in &commit.changes {
                match (void.next(), change) {
                    // It says all the same that the topic is not cleared any more.
                    (Some(true), Change::Keep { topic, .. }) => self.forget_clear(topic)?,
                    (Some(true), _) => {}
                    _ => self.apply(change, meta, tombstones)?,
                }
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        change: &Change<'_>,
        meta: &mut Meta,
        tombstones: u64,
    ) -> Result<(), StoreError> {
        match change {
            Change::Keep {
                topic,
                rev,
                value,
                history,
            } => {
                if *history <= 1 {
                    // What a `Topic` of one value is, without copying it.
                    let stored = encode(&(*history, [(*rev, value)].as_slice()))?;
                    let stored = stored.as_slice();
                    self.values.insert(*topic, stored).map_err(failed)?;
                    return self.forget_clear(topic);
                }
                let mut stored = self.topic(topic)?.unwrap_or_default();
                stored.history = *history;
                stored.values.push((*rev, value.clone()));
                let most = usize::from(*history);
                let surplus = stored.values.len().saturating_sub(most);
                stored.values.drain(..surplus);
                self.keep(topic, &stored)?;
                self.forget_clear(topic)
            }
            Change::Clear {
                topic,
                rev,
                at,
                expired,
            } => {
                if self.values.remove(*topic).map_err(failed)?.is_none() {
                    return Ok(());
                }
                self.clear(topic, *rev, *at, *expired)?;
                while self.cleared.len().map_err(failed)? > tombstones
                    && let Some((rev, cleared)) = self.cleared.pop_first().map_err(failed)?
                {
                    let (topic, ..) = cleared.value();
                    self.cleared_topics.remove(topic).map_err(failed)?;
                    meta.forgotten = rev.value();
                }
                Ok(())
            }
            Change::Start(start) => {
                meta.start = meta.start.max(u64::from(*start));
                Ok(())
            }
            Change::Event { topic, rev, value } => self.event(topic, *rev, value),
            Change::Trim { confirmed, left } => {
                let to = (*confirmed).max(*left);
                while let Some(rev) = self.oldest_event()?.filter(|rev| *rev <= to) {
                    self.events.remove(rev).map_err(failed)?;
                    if rev > *confirmed {
                        meta.left = rev;
                    }
                }
                Ok(())
            }
            Change::Device {
                room,
                device,
                record,
            } => {
                let record = encode(&**record)?;
                let key = (*room, *device);
                self.devices
                    .insert(key, record.as_slice())
                    .map_err(failed)?;
                Ok(())
            }
            Change::Zero { room, device, zero } => {
                let (key, zero) = ((*room, *device), encode(&**zero)?);
                self.zeros.insert(key, zero.as_slice()).map_err(failed)?;
                Ok(())
            }
            Change::Reset { room, reset } => {
                let reset = encode(&**reset)?;
                self.resets
                    .insert(*room, reset.as_slice())
                    .map_err(failed)?;
                Ok(())
            }
            Change::PressId {
                room,
                device,
                order,
                id,
            } => {
                let slot = (order % PRESS_ID_SLOTS as u64) as u16;
                let key = (*room, *device, slot);
                self.press_ids.insert(key, (*order, *id)).map_err(failed)?;
                Ok(())
            }
            Change::Note {
                owner,
                client,
                part: Some(part),
                value,
            } => {
                let key = (*owner, *client, *part);
                match value {
                    Some(value) => drop(self.notes.insert(key, *value).map_err(failed)?),
                    None => drop(self.notes.remove(key).map_err(failed)?),
                }
                Ok(())
            }
            Change::Note { owner, client, .. } => {
                // Behind all parts of the client comes the next name, and a name with a zero byte behind it is that.
                let next = format!("{client}\0");
                let all = (*owner, *client, &[][..])..(*owner, next.as_str(), &[][..]);
                self.notes.retain_in(all, |_, _| false).map_err(failed)
            }
        }
    }

    pub(super) fn topic(&self, topic: &str) -> Result<Option<Topic>, StoreError> {
        let stored = self.values.get(topic).map_err(failed)?;
        stored
            .map(|stored| decode("values", stored.value()))
            .transpose()
    }

    pub(super) fn keep(&mut self, topic: &str, stored: &Topic) -> Result<(), StoreError> {
        let stored = encode(stored)?;
        self.values
            .insert(topic, stored.as_slice())
            .map_err(failed)?;
        Ok(())
    }

    pub(super) fn clear(
        &mut self,
        topic: &str,
        rev: u64,
        at: u64,
        expired: bool,
    ) -> Result<(), StoreError> {
        self.forget_clear(topic)?;
        let cleared = (topic, at, expired);
        self.cleared.insert(rev, cleared).map_err(failed)?;
        self.cleared_topics.insert(topic, rev).map_err(failed)?;
        Ok(())
    }

    fn forget_clear(&mut self, topic: &str) -> Result<(), StoreError> {
        if self.cleared_topics.is_empty().map_err(failed)? {
            return Ok(());
        }
        let rev = self.cleared_topics.remove(topic).map_err(failed)?;
        if let Some(rev) = rev.map(|rev| rev.value()) {
            self.cleared.remove(rev).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn event(
        &mut self,
        topic: &str,
        rev: u64,
        value: &StoredValue,
    ) -> Result<(), StoreError> {
        let value = encode(value)?;
        let event = (topic, value.as_slice());
        self.events.insert(rev, event).map_err(failed)?;
        Ok(())
    }
}

/// Of all changes from the last to the first, whether later ones make them void: those of a topic that keeps one value,
/// of a device, of a reset, and of a note.
fn void(commits: &[Commit<'_>]) -> Vec<bool> {
    let (mut topics, mut devices) = (HashSet::new(), HashSet::new());
    let (mut zeros, mut resets) = (HashSet::new(), HashSet::new());
    let (mut notes, mut clients) = (HashSet::new(), HashSet::new());
    let changes = commits
        .iter()
        .rev()
        .flat_map(|commit| commit.changes.iter().rev());
    let is_void = |change| match change {
        &Change::Keep { topic, history, .. } if history <= 1 => !topics.insert(topic),
        &Change::Keep { topic, .. } | &Change::Clear { topic, .. } => {
            topics.remove(topic);
            false
        }
        &Change::Device { room, device, .. } => !devices.insert((room, device)),
        &Change::Zero { room, device, .. } => !zeros.insert((room, device)),
        &Change::Reset { room, .. } => !resets.insert(room),
        &Change::Note {
            owner,
            client,
            part: Some(part),
            ..
        } => clients.contains(&(owner, client)) || !notes.insert((owner, client, part)),
        &Change::Note { owner, client, .. } => !clients.insert((owner, client)),
        Change::Start(_) | Change::Event { .. } | Change::Trim { .. } | Change::PressId { .. } => {
            false
        }
    };
    changes.map(is_void).collect()
}

pub(super) fn write(
    database: &Database,
    durability: Durability,
    changes: impl FnOnce(&mut Tables<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(durability).map_err(failed)?;
    changes(&mut Tables::open(&transaction)?)?;
    transaction.commit().map_err(failed)
}

pub(in crate::store) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_allocvec(record).map_err(|error| StoreError::Damaged {
        table: "new record",
        reason: error.to_string(),
    })
}

pub(super) fn decode<T: for<'de> Deserialize<'de>>(
    table: &'static str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|error| StoreError::Damaged {
        table,
        reason: error.to_string(),
    })
}
