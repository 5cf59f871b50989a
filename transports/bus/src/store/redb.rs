//! The store on disk: one redb file. Only here is its layout known.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | number: see [`Meta`] |
//! | `values` | topic | [`Topic`], postcard |
//! | `cleared` | revision | topic, Unix milliseconds, whether it expired |
//! | `cleared_topics` | topic | revision |
//! | `events` | revision | topic; `StoredValue`, postcard |
//! | `devices` | room, device | `rooms::Record`, postcard |
//! | `press_ids` | room, device, slot | order, id |
//! | `notes` | owner, client, part | the owner's own |
//!
//! Format 2 had `values`, whose numbers were places from 0 instead of revisions, `devices` and `press_ids`.

use core::ops::Range;

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::{
    Change, Commit, Disk, Item, Loaded, Sizes, Store, StoreError, StoredNote, StoredValue,
};
use crate::rooms::{PRESS_IDS as PRESS_ID_SLOTS, Record};

/// The layout that this program writes, and reads.
const FORMAT: u64 = 3;
/// One that it turns into its own when it opens it.
const EARLIER_FORMAT: u64 = 2;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
const CLEARED: TableDefinition<'_, u64, (&str, u64, bool)> = TableDefinition::new("cleared");
const CLEARED_TOPICS: TableDefinition<'_, &str, u64> = TableDefinition::new("cleared_topics");
const EVENTS: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("events");
const DEVICES: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("devices");
const PRESS_IDS: TableDefinition<'_, (&str, &str, u16), (u64, &str)> =
    TableDefinition::new("press_ids");
const NOTES: TableDefinition<'_, (&str, &str, &[u8]), &[u8]> = TableDefinition::new("notes");

/// What is stored of a topic: its kept values, oldest first, with their revisions.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Topic {
    history: u16,
    values: Vec<(u64, StoredValue)>,
}

/// The numbers of the table `meta`.
#[derive(Debug, Clone, Copy, Default)]
struct Meta {
    format: u64,
    /// How often the hub has started.
    start: u64,
    epoch: u64,
    /// The newest revision that something here has.
    revision: u64,
    /// No revision beyond it was used.
    ceiling: u64,
    /// The first revision of the last commit, unless a later one has confirmed it; 0: none.
    doubt: u64,
    /// The newest clear that is not here any more.
    forgotten: u64,
    /// The newest event that was owed and is not here any more.
    left: u64,
    /// After a clean stop: one more than the revision of the newest event of all.
    events: u64,
}

impl Meta {
    fn fields(&mut self) -> [(&'static str, &mut u64); 9] {
        [
            ("format", &mut self.format),
            ("start", &mut self.start),
            ("epoch", &mut self.epoch),
            ("revision", &mut self.revision),
            ("ceiling", &mut self.ceiling),
            ("doubt", &mut self.doubt),
            ("forgotten", &mut self.forgotten),
            ("left", &mut self.left),
            ("events", &mut self.events),
        ]
    }

    fn read(table: &impl ReadableTable<&'static str, u64>) -> Result<Self, StoreError> {
        let mut meta = Self::default();
        for (name, field) in meta.fields() {
            let number = table.get(name).map_err(failed)?;
            *field = number.map_or(0, |number| number.value());
        }
        Ok(meta)
    }

    /// Writes what differs from `before`.
    fn write(mut self, mut before: Self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        for ((name, now), (_, before)) in self.fields().into_iter().zip(before.fields()) {
            if now != before {
                tables.meta.insert(name, *now).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// One database, locked against other processes while it is open.
#[derive(Debug)]
pub(crate) struct RedbStore {
    disk: Disk,
    /// None after a failure that the database does not recover from without being opened again.
    database: Option<Database>,
    meta: Meta,
    sizes: Sizes,
    /// Cleared topics that are remembered.
    tombstones: u64,
}

impl RedbStore {
    /// Opens the store of a disk, which may be empty, and loads what it holds. A new one, and one of an earlier
    /// format, gets this epoch.
    pub(crate) fn open(
        mut disk: Disk,
        epoch: u64,
        tombstones: usize,
    ) -> Result<(Self, Loaded), StoreError> {
        disk.check()?;
        let database = disk.open()?;
        let mut begun = None;
        write(&database, disk.durability, |tables| {
            begun = Some((begin(tables, epoch)?, tables.sizes()?));
            Ok(())
        })?;
        let ((meta, loaded), mut sizes) = begun.ok_or(StoreError::Closed)?;
        sizes.bytes = disk.bytes();
        let store = Self {
            disk,
            database: Some(database),
            meta,
            sizes,
            tombstones: tombstones as u64,
        };
        Ok((store, loaded))
    }

    fn try_commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        let database = self.database.insert(database);
        let (before, tombstones) = (self.meta, self.tombstones);
        let mut meta = before;
        meta.doubt = commit.revisions.map_or(0, |(first, _)| first);
        if let Some((_, last)) = commit.revisions {
            meta.revision = last;
        }
        meta.ceiling = commit.ceiling.unwrap_or(meta.ceiling);
        meta.events = commit.stops.map_or(0, |newest_event| newest_event + 1);
        let mut sizes = Sizes::default();
        write(database, self.disk.durability, |tables| {
            let base = commit.revisions.map_or(0, |(first, _)| first);
            let again = commit.again_from.unwrap_or(base)..base;
            if commit.again_from.is_some() {
                let certain = |rev, _: (&str, &[u8])| !again.contains(&rev);
                tables.events.retain(certain).map_err(failed)?;
            }
            for change in &commit.changes {
                tables.apply(change, &mut meta, (tombstones, &again))?;
            }
            meta.write(before, tables)?;
            sizes = tables.sizes()?;
            Ok(())
        })?;
        sizes.bytes = self.disk.bytes();
        (self.meta, self.sizes) = (meta, sizes);
        Ok(())
    }

    /// Opens the database again after a failure, and looks how the commit that failed has ended.
    fn reopen(&mut self) -> Result<Database, StoreError> {
        let database = self.disk.open()?;
        let transaction = database.begin_read().map_err(failed)?;
        let meta = transaction.open_table(META).map_err(failed)?;
        let meta = Meta::read(&meta)?;
        if (meta.format, meta.epoch) != (FORMAT, self.meta.epoch) {
            return Err(StoreError::Replaced);
        }
        self.meta = meta;
        Ok(database)
    }
}

impl Store for RedbStore {
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let result = self.try_commit(commit);
        if result.is_err() {
            self.database = None;
        }
        result
    }

    fn sizes(&self) -> Sizes {
        self.sizes
    }
}

/// Checks the format, loads everything, and counts this start.
fn begin(tables: &mut Tables<'_>, epoch: u64) -> Result<(Meta, Loaded), StoreError> {
    let before = Meta::read(&tables.meta)?;
    let mut meta = before;
    match meta.format {
        // New, unless something is there already.
        0 => (meta.epoch, meta.events) = (epoch, 1),
        EARLIER_FORMAT => {
            meta.epoch = epoch;
            meta.revision = upgrade(tables)?;
            meta.ceiling = meta.revision;
            meta.events = 1;
        }
        FORMAT => {}
        found => {
            return Err(StoreError::Version {
                found,
                known: FORMAT,
            });
        }
    }
    let mut loaded = load(tables)?;
    let doubtful = loaded.settle(meta.doubt, meta.ceiling);
    if doubtful > 0 {
        renumber(tables, meta.doubt, &loaded, doubtful)?;
    }
    loaded.epoch = meta.epoch;
    loaded.life.known = meta.revision.max(meta.forgotten);
    loaded.life.forgotten = meta.forgotten;
    loaded.life.left = meta.left;
    loaded.life.events = meta.events.checked_sub(1).unwrap_or(meta.ceiling);
    // A boot number has 32 bits; a hub that has started that often goes on with the last one.
    loaded.start = u32::try_from(meta.start + 1).unwrap_or(u32::MAX);
    meta.format = FORMAT;
    meta.start = u64::from(loaded.start);
    meta.revision = match doubtful {
        0 => meta.revision,
        _ => loaded.newest(),
    };
    (meta.ceiling, meta.doubt, meta.events) = (loaded.ceiling, 0, 0);
    meta.write(before, tables)?;
    Ok((meta, loaded))
}

/// Reads all records.
pub(super) fn look(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(failed)?;
    {
        let tables = Tables::open(&transaction)?;
        let found = Meta::read(&tables.meta)?.format;
        if ![0, EARLIER_FORMAT, FORMAT].contains(&found) {
            let known = FORMAT;
            return Err(StoreError::Version { found, known });
        }
        load(&tables)?;
    }
    transaction.abort().map_err(failed)
}

/// What there is after [`salvage`].
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    /// By table.
    pub(super) left_out: Vec<(&'static str, u64)>,
    pub(super) kept: Vec<(&'static str, u64)>,
}

/// Takes out the records that cannot be read, and gives what is left a new epoch.
pub(super) fn salvage(database: &Database, epoch: u64) -> Result<Salvaged, StoreError> {
    let mut salvaged = Salvaged::default();
    write(database, Durability::Immediate, |tables| {
        let before = Meta::read(&tables.meta)?;
        let mut meta = before;
        if meta.format == FORMAT {
            meta.epoch = epoch;
        }
        meta.write(before, tables)?;
        let counts = tables.counts()?;
        let reads = |value: &[u8]| decode::<StoredValue>("", value).is_ok();
        (tables.values)
            .retain(|_, topic| decode::<Topic>("", topic).is_ok())
            .map_err(failed)?;
        (tables.events)
            .retain(|_, (_, event)| reads(event))
            .map_err(failed)?;
        (tables.devices)
            .retain(|_, device| decode::<Record>("", device).is_ok())
            .map_err(failed)?;
        salvaged.kept = tables.counts()?.to_vec();
        let both = counts.iter().zip(&salvaged.kept);
        let gone = both.map(|((table, before), (_, after))| (*table, before - after));
        salvaged.left_out = gone.filter(|(_, records)| *records > 0).collect();
        Ok(())
    })?;
    Ok(salvaged)
}

/// Turns format 2 into this one, and says which revision is the newest.
fn upgrade(tables: &mut Tables<'_>) -> Result<u64, StoreError> {
    let mut topics = Vec::new();
    for row in tables.values.iter().map_err(failed)? {
        let (topic, stored) = row.map_err(failed)?;
        let stored: Topic = decode("values", stored.value())?;
        topics.push((topic.value().to_owned(), stored));
    }
    let mut newest = 0;
    for (topic, mut stored) in topics {
        for (place, _) in &mut stored.values {
            *place += 1;
            newest = newest.max(*place);
        }
        tables.keep(&topic, &stored)?;
    }
    Ok(newest)
}

/// Everything that stands in the hub's order, in none, and what stands beside it.
fn load(tables: &Tables<'_>) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    for row in tables.values.iter().map_err(failed)? {
        let (topic, stored) = row.map_err(failed)?;
        let stored: Topic = decode("values", stored.value())?;
        for (rev, value) in stored.values {
            let item = Item::Value(stored.history, value);
            loaded.items.push((rev, topic.value().to_owned(), item));
        }
    }
    for row in tables.cleared.iter().map_err(failed)? {
        let (rev, cleared) = row.map_err(failed)?;
        let (topic, at, expired) = cleared.value();
        let item = Item::Cleared { at, expired };
        loaded.items.push((rev.value(), topic.to_owned(), item));
    }
    for row in tables.events.iter().map_err(failed)? {
        let (rev, event) = row.map_err(failed)?;
        let (topic, event) = event.value();
        let item = Item::Event(decode("events", event)?);
        loaded.items.push((rev.value(), topic.to_owned(), item));
    }
    for row in tables.devices.iter().map_err(failed)? {
        let (key, record) = row.map_err(failed)?;
        let (room, device) = key.value();
        let record = decode("devices", record.value())?;
        let device = (room.to_owned(), device.to_owned(), record);
        loaded.devices.push(device);
    }
    let mut ids = Vec::new();
    for row in tables.press_ids.iter().map_err(failed)? {
        let (key, id) = row.map_err(failed)?;
        let ((room, device, _), (order, id)) = (key.value(), id.value());
        ids.push((order, (room.to_owned(), device.to_owned(), id.to_owned())));
    }
    ids.sort_by_key(|(order, _)| *order);
    loaded.press_ids = ids.into_iter().map(|(_, id)| id).collect();
    for row in tables.notes.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let (owner, client, part) = key.value();
        loaded.notes.push(StoredNote {
            owner: owner.to_owned(),
            client: client.to_owned(),
            part: part.to_vec(),
            value: value.value().to_vec(),
        });
    }
    Ok(loaded)
}

/// Writes the new revisions of what was in doubt.
fn renumber(
    tables: &mut Tables<'_>,
    doubt: u64,
    loaded: &Loaded,
    doubtful: usize,
) -> Result<(), StoreError> {
    tables
        .cleared
        .retain(|rev, _| rev < doubt)
        .map_err(failed)?;
    tables.events.retain(|rev, _| rev < doubt).map_err(failed)?;
    let certain = loaded.items.len() - doubtful;
    for (rev, topic, item) in loaded.items.iter().skip(certain) {
        match item {
            // Its values stand behind each other in both orders: the first that has a doubtful revision is this.
            Item::Value(..) => {
                let mut stored = tables.topic(topic)?.unwrap_or_default();
                let this = stored
                    .values
                    .iter_mut()
                    .find(|(of, _)| (doubt..=loaded.life.revision).contains(of));
                if let Some((of_value, _)) = this {
                    *of_value = *rev;
                }
                tables.keep(topic, &stored)?;
            }
            Item::Cleared { at, expired } => tables.clear(topic, *rev, *at, *expired)?,
            Item::Event(value) => tables.event(topic, *rev, value)?,
        }
    }
    Ok(())
}

/// The tables of one transaction.
struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    values: Table<'t, &'static str, &'static [u8]>,
    cleared: Table<'t, u64, (&'static str, u64, bool)>,
    cleared_topics: Table<'t, &'static str, u64>,
    events: Table<'t, u64, (&'static str, &'static [u8])>,
    devices: Table<'t, (&'static str, &'static str), &'static [u8]>,
    press_ids: Table<'t, (&'static str, &'static str, u16), (u64, &'static str)>,
    notes: Table<'t, (&'static str, &'static str, &'static [u8]), &'static [u8]>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            meta: transaction.open_table(META).map_err(failed)?,
            values: transaction.open_table(VALUES).map_err(failed)?,
            cleared: transaction.open_table(CLEARED).map_err(failed)?,
            cleared_topics: transaction.open_table(CLEARED_TOPICS).map_err(failed)?,
            events: transaction.open_table(EVENTS).map_err(failed)?,
            devices: transaction.open_table(DEVICES).map_err(failed)?,
            press_ids: transaction.open_table(PRESS_IDS).map_err(failed)?,
            notes: transaction.open_table(NOTES).map_err(failed)?,
        })
    }

    fn sizes(&self) -> Result<Sizes, StoreError> {
        Ok(Sizes {
            oldest_event: self.oldest_event()?,
            notes: self.notes.len().map_err(failed)?,
            bytes: 0,
        })
    }

    /// The records of each table that holds what was published or counted.
    fn counts(&self) -> Result<[(&'static str, u64); 4], StoreError> {
        Ok([
            ("values", self.values.len().map_err(failed)?),
            ("events", self.events.len().map_err(failed)?),
            ("devices", self.devices.len().map_err(failed)?),
            ("notes", self.notes.len().map_err(failed)?),
        ])
    }

    fn oldest_event(&self) -> Result<Option<u64>, StoreError> {
        let oldest = self.events.first().map_err(failed)?;
        Ok(oldest.map(|(rev, _)| rev.value()))
    }

    fn apply(
        &mut self,
        change: &Change<'_>,
        meta: &mut Meta,
        (tombstones, again): (u64, &Range<u64>),
    ) -> Result<(), StoreError> {
        match change {
            Change::Keep {
                topic,
                rev,
                value,
                history,
            } => {
                let mut stored = match history {
                    0 | 1 => Topic::default(),
                    _ => self.topic(topic)?.unwrap_or_default(),
                };
                stored.history = *history;
                stored.values.retain(|(of, _)| !again.contains(of));
                stored.values.push((*rev, value.clone()));
                let most = usize::from((*history).max(1));
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
                let kept = self.values.remove(*topic).map_err(failed)?.is_some();
                if !kept && !self.cleared_in(topic, again)? {
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
                let record = encode(record)?;
                let key = (*room, *device);
                self.devices
                    .insert(key, record.as_slice())
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

    fn topic(&self, topic: &str) -> Result<Option<Topic>, StoreError> {
        let stored = self.values.get(topic).map_err(failed)?;
        stored
            .map(|stored| decode("values", stored.value()))
            .transpose()
    }

    fn keep(&mut self, topic: &str, stored: &Topic) -> Result<(), StoreError> {
        let stored = encode(stored)?;
        self.values
            .insert(topic, stored.as_slice())
            .map_err(failed)?;
        Ok(())
    }

    fn clear(&mut self, topic: &str, rev: u64, at: u64, expired: bool) -> Result<(), StoreError> {
        self.forget_clear(topic)?;
        let cleared = (topic, at, expired);
        self.cleared.insert(rev, cleared).map_err(failed)?;
        self.cleared_topics.insert(topic, rev).map_err(failed)?;
        Ok(())
    }

    fn cleared_in(&self, topic: &str, revs: &Range<u64>) -> Result<bool, StoreError> {
        let cleared = self.cleared_topics.get(topic).map_err(failed)?;
        Ok(cleared.is_some_and(|cleared| revs.contains(&cleared.value())))
    }

    fn forget_clear(&mut self, topic: &str) -> Result<(), StoreError> {
        let rev = self.cleared_topics.remove(topic).map_err(failed)?;
        if let Some(rev) = rev.map(|rev| rev.value()) {
            self.cleared.remove(rev).map_err(failed)?;
        }
        Ok(())
    }

    fn event(&mut self, topic: &str, rev: u64, value: &StoredValue) -> Result<(), StoreError> {
        let value = encode(value)?;
        let event = (topic, value.as_slice());
        self.events.insert(rev, event).map_err(failed)?;
        Ok(())
    }
}

fn write(
    database: &Database,
    durability: Durability,
    changes: impl FnOnce(&mut Tables<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(durability).map_err(failed)?;
    changes(&mut Tables::open(&transaction)?)?;
    transaction.commit().map_err(failed)
}

fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_allocvec(record).map_err(|error| StoreError::Damaged {
        table: "new record",
        reason: error.to_string(),
    })
}

fn decode<T: for<'de> Deserialize<'de>>(
    table: &'static str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|error| StoreError::Damaged {
        table,
        reason: error.to_string(),
    })
}

pub(super) fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(Box::new(error.into()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::{fs, path::Path};

    use latchbus_core::clicks::Counter;
    use latchbus_core::hub::EarlierLife;

    use crate::store::HEADROOM;

    const FILE: &str = "latchbus.redb";
    const EPOCH: u64 = 7;

    fn open(directory: &Path) -> Result<(RedbStore, Loaded), StoreError> {
        RedbStore::open(Disk::directory(directory)?, EPOCH, 2)
    }

    /// A record that no program has written.
    pub(in crate::store) fn put_nonsense(directory: &Path) {
        let database = Database::open(directory.join(FILE)).unwrap();
        write(&database, Durability::Immediate, |tables| {
            let nonsense = [0xFF_u8; 40];
            tables
                .values
                .insert("nonsense", nonsense.as_slice())
                .unwrap();
            Ok(())
        })
        .unwrap();
    }

    fn keep<'a>(topic: &'a str, rev: u64, history: u16) -> Change<'a> {
        Change::Keep {
            topic,
            rev,
            value: value(&rev.to_string()),
            history,
        }
    }

    fn value(payload: &str) -> StoredValue {
        StoredValue {
            at: 5,
            qos: 1,
            expires_at: core::num::NonZeroU64::new(u64::MAX),
            properties: Some(crate::Properties {
                user: vec![("k".into(), "v".into())],
                ..crate::Properties::default()
            }),
            payload: payload.into(),
        }
    }

    fn commit(changes: Vec<Change<'_>>, revisions: Option<(u64, u64)>) -> Commit<'_> {
        Commit {
            changes,
            revisions,
            ..Commit::default()
        }
    }

    #[test]
    fn what_was_committed_is_loaded_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, loaded) = open(directory.path()).unwrap();
        assert_eq!((loaded.start, loaded.items.len()), (1, 0));
        let mut record = Record::default();
        let run = "4-0000abcd".parse().unwrap();
        record.counts.report(run, Counter::new(1, 2), 64).unwrap();
        let first = vec![keep("b", 1, 1), keep("a", 2, 2), keep("gone", 3, 1)];
        store.commit(&commit(first, Some((1, 3)))).unwrap();
        let id = |order, id| Change::PressId {
            room: "main",
            device: "k",
            order,
            id,
        };
        let device = Change::Device {
            room: "main",
            device: "k",
            record: &record,
        };
        let second = vec![
            keep("b", 4, 1),
            keep("a", 5, 2),
            keep("a", 6, 2),
            Change::Clear {
                topic: "gone",
                rev: 7,
                at: 9,
                expired: false,
            },
            device,
            id(1023, "old"),
            id(1024, "new"),
        ];
        store.commit(&commit(second, Some((4, 7)))).unwrap();
        // Nothing is in doubt any more.
        store.commit(&commit(Vec::new(), None)).unwrap();
        drop(store);

        let (_store, loaded) = open(directory.path()).unwrap();
        assert_eq!((loaded.start, loaded.epoch), (2, EPOCH));
        let kept = |topic: &str, rev: u64, history| {
            let item = Item::Value(history, value(&rev.to_string()));
            (rev, topic.to_owned(), item)
        };
        let cleared = Item::Cleared {
            at: 9,
            expired: false,
        };
        assert_eq!(
            loaded.items,
            [
                kept("b", 4, 1),
                kept("a", 5, 2),
                kept("a", 6, 2),
                (7, "gone".into(), cleared)
            ]
        );
        assert_eq!(
            loaded.life,
            EarlierLife {
                known: 7,
                revision: HEADROOM,
                events: HEADROOM,
                ..EarlierLife::default()
            }
        );
        assert_eq!(loaded.devices, [("main".into(), "k".into(), record)]);
        let ids: Vec<_> = loaded
            .press_ids
            .iter()
            .map(|(_, _, id)| id.as_str())
            .collect();
        assert_eq!(ids, ["old", "new"]);
    }

    #[test]
    fn what_is_in_doubt_gets_revisions_that_nobody_had() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path()).unwrap();
        let certain = vec![keep("a", 1, 2)];
        store.commit(&commit(certain, Some((1, 1)))).unwrap();
        let event = Change::Event {
            topic: "e",
            rev: 3,
            value: value("3"),
        };
        let doubtful = vec![keep("a", 2, 2), event, keep("b", 4, 1)];
        store.commit(&commit(doubtful, Some((2, 4)))).unwrap();
        drop(store);
        for _ in 0..2 {
            let (_store, loaded) = open(directory.path()).unwrap();
            let revs: Vec<_> = (loaded.items.iter())
                .map(|(rev, topic, _)| (*rev, topic.as_str()))
                .collect();
            let after = HEADROOM;
            assert_eq!(
                revs,
                [
                    (1, "a"),
                    (after + 1, "a"),
                    (after + 2, "e"),
                    (after + 3, "b")
                ]
            );
        }
    }

    #[test]
    fn a_store_of_the_earlier_format_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create(directory.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            // As the program before wrote it: places from 0, and no more tables than these.
            let mut meta = transaction.open_table(META).unwrap();
            meta.insert("format", 2).unwrap();
            meta.insert("start", 5).unwrap();
            let mut values = transaction.open_table(VALUES).unwrap();
            for (topic, places) in [("b", [0].as_slice()), ("a", &[1, 3])] {
                let values_of = places.iter().map(|place| (*place, value("x")));
                let stored = Topic {
                    history: 2,
                    values: values_of.collect(),
                };
                let stored = encode(&stored).unwrap();
                values.insert(topic, stored.as_slice()).unwrap();
            }
            transaction.open_table(DEVICES).unwrap();
            let mut ids = transaction.open_table(PRESS_IDS).unwrap();
            ids.insert(("main", "k", 0), (0, "p")).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);

        for start in [6, 7] {
            let (_store, loaded) = open(directory.path()).unwrap();
            assert_eq!((loaded.start, loaded.epoch), (start, EPOCH));
            let revs: Vec<_> = (loaded.items.iter())
                .map(|(rev, topic, _)| (*rev, topic.as_str()))
                .collect();
            assert_eq!(revs, [(1, "b"), (2, "a"), (4, "a")]);
            assert_eq!(loaded.life.known, 4);
            assert!(loaded.life.revision >= 4);
            assert_eq!(loaded.press_ids, [("main".into(), "k".into(), "p".into())]);
        }
    }

    #[test]
    fn notes_of_one_client_are_forgotten_together() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path()).unwrap();
        let note = |client, part, value| Change::Note {
            owner: "mqtt",
            client,
            part,
            value,
        };
        let keep = |client| note(client, Some(&b"\xff\xff"[..]), Some(&b"x"[..]));
        let all = ["a", "a\u{1}", "ab", "b"].map(keep);
        store.commit(&commit(all.into(), None)).unwrap();
        assert_eq!(store.sizes().notes, 4);
        let forget = vec![note("a", None, None)];
        store.commit(&commit(forget, None)).unwrap();
        drop(store);
        let (_store, loaded) = open(directory.path()).unwrap();
        let clients: Vec<_> = (loaded.notes.iter())
            .map(|note| note.client.as_str())
            .collect();
        assert_eq!(clients, ["a\u{1}", "ab", "b"]);
    }

    #[test]
    fn two_processes_cannot_share_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let _first = open(directory.path()).unwrap();
        assert!(matches!(open(directory.path()), Err(StoreError::Locked)));
    }

    #[test]
    fn an_unknown_format_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path()).unwrap());
        let database = Database::open(directory.path().join(FILE)).unwrap();
        write(&database, Durability::Immediate, |tables| {
            tables.meta.insert("format", 99).unwrap();
            Ok(())
        })
        .unwrap();
        drop(database);
        for _ in 0..2 {
            let refused = open(directory.path()).map(drop);
            assert!(matches!(
                refused,
                Err(StoreError::Version {
                    found: 99,
                    known: FORMAT
                })
            ));
        }
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        fs::write(&path, "not a database").unwrap();
        assert!(open(directory.path()).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"not a database");
    }
}
