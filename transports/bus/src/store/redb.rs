//! The store on disk: one redb file. Only here is its layout known.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | number: `format`, `start` |
//! | `values` | topic | [`Topic`], postcard |
//! | `devices` | room, device | `rooms::Record`, postcard |
//! | `press_ids` | room, device, slot | order, id |

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::{Change, Disk, Loaded, Store, StoreError, StoredValue};
use crate::rooms::PRESS_IDS as PRESS_ID_SLOTS;

/// The layout that this program reads and writes.
const FORMAT: u64 = 2;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
const DEVICES: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("devices");
const PRESS_IDS: TableDefinition<'_, (&str, &str, u16), (u64, &str)> =
    TableDefinition::new("press_ids");

/// What is stored of a topic: its kept values, oldest first, with their place in the order of all.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Topic {
    history: u16,
    values: Vec<(u64, StoredValue)>,
}

/// One database, locked against other processes while it is open.
#[derive(Debug)]
pub(crate) struct RedbStore {
    disk: Disk,
    /// None after a failure that the database does not recover from without being opened again.
    database: Option<Database>,
    /// The place of the next value in the order of all.
    next: u64,
}

impl RedbStore {
    /// Opens the store of a disk, which may be empty, and loads what it holds.
    pub(crate) fn open(mut disk: Disk) -> Result<(Self, Loaded), StoreError> {
        let database = disk.open()?;
        let start = begin(&database)?;
        let (loaded, next) = load(&database, start)?;
        let database = Some(database);
        Ok((
            Self {
                disk,
                database,
                next,
            },
            loaded,
        ))
    }

    fn try_commit(&mut self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.disk.open()?,
        };
        let database = self.database.insert(database);
        let mut next = self.next;
        write(database, self.disk.durability, |transaction| {
            for change in changes {
                apply(transaction, change, &mut next)?;
            }
            Ok(())
        })?;
        self.next = next;
        Ok(())
    }
}

impl Store for RedbStore {
    fn commit(&mut self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        let result = self.try_commit(changes);
        if result.is_err() {
            self.database = None;
        }
        result
    }
}

/// Checks the format and counts this start.
fn begin(database: &Database) -> Result<u32, StoreError> {
    let mut start = 0;
    write(database, Durability::Immediate, |transaction| {
        transaction.open_table(VALUES).map_err(failed)?;
        transaction.open_table(DEVICES).map_err(failed)?;
        transaction.open_table(PRESS_IDS).map_err(failed)?;
        let mut meta = transaction.open_table(META).map_err(failed)?;
        let number = |name| -> Result<Option<u64>, StoreError> {
            Ok(meta.get(name).map_err(failed)?.map(|number| number.value()))
        };
        let (found, before) = (number("format")?, number("start")?.unwrap_or(0));
        if let Some(found) = found.filter(|found| *found != FORMAT) {
            return Err(StoreError::Version {
                found,
                known: FORMAT,
            });
        }
        // A boot number has 32 bits; a hub that has started that often goes on with the last one.
        start = u32::try_from(before + 1).unwrap_or(u32::MAX);
        meta.insert("format", FORMAT).map_err(failed)?;
        meta.insert("start", u64::from(start)).map_err(failed)?;
        Ok(())
    })?;
    Ok(start)
}

/// Everything, and the place after that of the newest value.
fn load(database: &Database, start: u32) -> Result<(Loaded, u64), StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let mut loaded = Loaded {
        start,
        ..Loaded::default()
    };

    let mut values = Vec::new();
    for row in transaction
        .open_table(VALUES)
        .map_err(failed)?
        .iter()
        .map_err(failed)?
    {
        let (topic, stored) = row.map_err(failed)?;
        let stored: Topic = decode("values", stored.value())?;
        for (place, value) in stored.values {
            values.push((place, (topic.value().to_owned(), stored.history, value)));
        }
    }
    values.sort_unstable_by_key(|(place, _)| *place);
    let next = values.last().map_or(0, |(place, _)| place + 1);
    loaded.values = values.into_iter().map(|(_, value)| value).collect();

    for row in transaction
        .open_table(DEVICES)
        .map_err(failed)?
        .iter()
        .map_err(failed)?
    {
        let (key, record) = row.map_err(failed)?;
        let (room, device) = key.value();
        let record = decode("devices", record.value())?;
        loaded
            .devices
            .push((room.to_owned(), device.to_owned(), record));
    }

    let mut ids = Vec::new();
    for row in transaction
        .open_table(PRESS_IDS)
        .map_err(failed)?
        .iter()
        .map_err(failed)?
    {
        let (key, id) = row.map_err(failed)?;
        let ((room, device, _), (order, id)) = (key.value(), id.value());
        ids.push((order, (room.to_owned(), device.to_owned(), id.to_owned())));
    }
    ids.sort_by_key(|(order, _)| *order);
    loaded.press_ids = ids.into_iter().map(|(_, id)| id).collect();
    Ok((loaded, next))
}

fn write(
    database: &Database,
    durability: Durability,
    changes: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(durability).map_err(failed)?;
    changes(&transaction)?;
    transaction.commit().map_err(failed)
}

fn apply(
    transaction: &WriteTransaction,
    change: &Change<'_>,
    next: &mut u64,
) -> Result<(), StoreError> {
    match change {
        Change::Keep {
            topic,
            value,
            history,
        } => {
            let mut values = transaction.open_table(VALUES).map_err(failed)?;
            let mut stored = Topic::default();
            if *history > 1
                && let Some(before) = values.get(*topic).map_err(failed)?
            {
                stored = decode("values", before.value())?;
            }
            stored.history = *history;
            stored.values.push((*next, value.clone()));
            *next += 1;
            let surplus = stored
                .values
                .len()
                .saturating_sub(usize::from((*history).max(1)));
            stored.values.drain(..surplus);
            values
                .insert(*topic, encode(&stored)?.as_slice())
                .map_err(failed)?;
        }
        Change::Clear { topic } => {
            let mut values = transaction.open_table(VALUES).map_err(failed)?;
            values.remove(*topic).map_err(failed)?;
        }
        Change::Start(start) => {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            let before = meta
                .get("start")
                .map_err(failed)?
                .map_or(0, |row| row.value());
            meta.insert("start", before.max(u64::from(*start)))
                .map_err(failed)?;
        }
        Change::Device {
            room,
            device,
            record,
        } => {
            let mut devices = transaction.open_table(DEVICES).map_err(failed)?;
            let record = encode(record)?;
            devices
                .insert((*room, *device), record.as_slice())
                .map_err(failed)?;
        }
        Change::PressId {
            room,
            device,
            order,
            id,
        } => {
            let mut ids = transaction.open_table(PRESS_IDS).map_err(failed)?;
            let slot = (order % PRESS_ID_SLOTS as u64) as u16;
            ids.insert((*room, *device, slot), (*order, *id))
                .map_err(failed)?;
        }
    }
    Ok(())
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
mod tests {
    use super::*;
    use std::{fs, path::Path};

    use latchbus_core::clicks::Counter;

    use crate::rooms::Record;

    const FILE: &str = "latchbus.redb";

    fn open(directory: &Path) -> Result<(RedbStore, Loaded), StoreError> {
        RedbStore::open(Disk::directory(directory)?)
    }

    fn keep<'a>(topic: &'a str, payload: &str, history: u16) -> Change<'a> {
        Change::Keep {
            topic,
            value: value(payload),
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

    #[test]
    fn what_was_committed_is_loaded_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, loaded) = open(directory.path()).unwrap();
        assert_eq!((loaded.start, loaded.values.len()), (1, 0));
        let mut record = Record::default();
        let run = "4-0000abcd".parse().unwrap();
        record.counts.report(run, Counter::new(1, 2), 64).unwrap();
        store
            .commit(&[keep("b", "1", 1), keep("a", "2", 2), keep("gone", "3", 1)])
            .unwrap();
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
        store
            .commit(&[
                keep("b", "4", 1),
                keep("a", "5", 2),
                keep("a", "6", 2),
                Change::Clear { topic: "gone" },
                device,
                id(1023, "old"),
                id(1024, "new"),
            ])
            .unwrap();
        drop(store);

        let (_store, loaded) = open(directory.path()).unwrap();
        assert_eq!(loaded.start, 2);
        let values = [("b", 1, "4"), ("a", 2, "5"), ("a", 2, "6")];
        let values =
            values.map(|(topic, history, payload)| (topic.to_owned(), history, value(payload)));
        assert_eq!(loaded.values, values);
        assert_eq!(loaded.devices, [("main".into(), "k".into(), record)]);
        let ids: Vec<_> = loaded
            .press_ids
            .iter()
            .map(|(_, _, id)| id.as_str())
            .collect();
        assert_eq!(ids, ["old", "new"]);
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
        write(&database, Durability::Immediate, |transaction| {
            transaction
                .open_table(META)
                .unwrap()
                .insert("format", 99)
                .unwrap();
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
