//! The checkpoint of the store: one redb file. Only here is its layout known.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | number: see `meta::Meta` |
//! | `values` | topic | `tables::Topic`, postcard |
//! | `cleared` | revision | topic, Unix milliseconds, whether it expired |
//! | `cleared_topics` | topic | revision |
//! | `events` | revision | topic; `StoredValue`, postcard |
//! | `devices` | room, device | `rooms::Record`, postcard |
//! | `zeros` | room, device | `rooms::DeviceZero`, postcard |
//! | `resets` | room | `rooms::RoomReset`, postcard |
//! | `press_ids` | room, device, slot | order, id |
//! | `notes` | owner, client, part | the owner's own |
//! | `lost` | revision | revision: what was shown after the first, up to the second, may have been lost in a crash |
//!
//! Format 5 knew no holder of a value (`Said::Held`). Format 4 had neither `zeros` nor `resets`. Format 3 is described at `format_3`. Format 2 had `values`, whose numbers were places from 0 instead of revisions, `devices` and `press_ids`.

mod format_3;
mod meta;
mod opening;
mod salvage;
mod tables;

pub(super) use self::salvage::{Salvaged, look, salvage};
pub(super) use self::tables::encode;

use core::ops::RangeInclusive;

use redb::{Database, ReadableDatabase, TableError};

use self::meta::Meta;
use self::opening::begin;
use self::tables::{META, write};
use super::{Change, Commit, Disk, Item, Loaded, StoreError, StoredNote, StoredValue};

/// The layout that this program writes.
const FORMAT: u64 = 6;
/// Those that it reads, and turns into its own when it opens them.
const FORMATS: RangeInclusive<u64> = 2..=FORMAT;

/// How much of which log the database holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The key of the log; 0: there is none yet.
    pub(super) key: u64,
    /// The number of its newest record that the database holds.
    pub(super) applied: u64,
}

/// The checkpoint: one database, locked against other processes while it is open.
#[derive(Debug)]
pub(super) struct RedbStore {
    disk: Disk,
    /// None after a failure that the database does not recover from without being opened again.
    database: Option<Database>,
    meta: Meta,
    bytes: u64,
    /// Cleared topics that are remembered.
    tombstones: u64,
}

impl RedbStore {
    /// Opens the database of a disk, which may be empty, takes over what the log says, and loads what it holds then.
    /// A new one, and one without revisions, gets this epoch.
    pub(super) fn open(
        mut disk: Disk,
        epoch: u64,
        tombstones: usize,
        log: (&[Commit<'_>], Mark),
    ) -> Result<(Self, Loaded), StoreError> {
        let database = disk.open()?;
        let (mut begun, tombstones) = (None, tombstones as u64);
        write(&database, disk.durability, |tables| {
            begun = Some(begin(tables, epoch, tombstones, log)?);
            Ok(())
        })?;
        let (meta, loaded) = begun.ok_or(StoreError::Closed)?;
        let store = Self {
            bytes: disk.bytes(),
            disk,
            database: Some(database),
            meta,
            tombstones,
        };
        Ok((store, loaded))
    }

    /// Makes all changes of the commits durable, or none. The newest of them is the record `applied` of the log.
    ///
    /// # Errors
    /// When it cannot say that they are durable. A later call begins anew, and may then find that they were.
    pub(super) fn fold(&mut self, log: &[Commit<'_>], applied: u64) -> Result<(), StoreError> {
        let folded = self.try_fold(log, applied);
        if folded.is_err() {
            self.database = None;
        }
        folded
    }

    fn try_fold(&mut self, log: &[Commit<'_>], applied: u64) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        let database = self.database.insert(database);
        if self.meta.applied == applied {
            return Ok(());
        }
        let (before, tombstones) = (self.meta, self.tombstones);
        let mut meta = before;
        write(database, self.disk.durability, |tables| {
            tables.fold(log, &mut meta, tombstones)?;
            meta.applied = applied;
            meta.write(before, tables)
        })?;
        self.bytes = self.disk.bytes();
        self.meta = meta;
        Ok(())
    }

    /// Opens the database again after a failure, and looks how the transaction that failed has ended.
    fn reopen(&mut self) -> Result<Database, StoreError> {
        let database = self.disk.open()?;
        let meta = read_meta(&database)?;
        if (meta.format, meta.epoch) != (FORMAT, self.meta.epoch) {
            return Err(StoreError::Replaced);
        }
        self.meta = meta;
        Ok(database)
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// How much of which log a database holds.
pub(super) fn mark(database: &Database) -> Result<Mark, StoreError> {
    read_meta(database).map(Meta::mark)
}

fn read_meta(database: &Database) -> Result<Meta, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    match transaction.open_table(META) {
        Ok(meta) => Meta::read(&meta),
        Err(TableError::TableDoesNotExist(_)) => Ok(Meta::default()),
        Err(error) => Err(failed(error)),
    }
}

pub(super) fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(Box::new(error.into()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::{borrow::Cow, fs, path::Path};

    use latchbus_core::clicks::Counter;
    use latchbus_core::hub::EarlierLife;
    use redb::{Durability, TableHandle as _};

    use super::tables::{DEVICES, PRESS_IDS, Topic, VALUES, encode};
    use crate::rooms::Record;
    use crate::store::{FileStore, Store, position};

    const FILE: &str = "latchbus.redb";
    const EPOCH: u64 = 7;

    fn open(directory: &Path) -> Result<(FileStore, Loaded), StoreError> {
        FileStore::open(Disk::directory(directory)?, EPOCH, 2)
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
            said: crate::store::Said::By(
                u64::MAX,
                Some(crate::Properties {
                    user: vec![("k".into(), "v".into())],
                    ..crate::Properties::default()
                }),
            ),
            payload: payload.into(),
        }
    }

    fn commit(changes: Vec<Change<'_>>, revision: u64) -> Commit<'_> {
        Commit {
            changes,
            revision,
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
        store.commit(&commit(first, 3)).unwrap();
        let id = |order, id| Change::PressId {
            room: "main",
            device: "k",
            order,
            id,
        };
        let device = Change::Device {
            room: "main",
            device: "k",
            record: Cow::Borrowed(&record),
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
        store.commit(&commit(second, 7)).unwrap();
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
                revision: position::start(7, false),
                events: position::last(7),
                lost: vec![(position::last(7), position::start(7, false) - 1)],
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
    fn each_life_begins_behind_all_that_may_have_been_used_before() {
        let directory = tempfile::tempdir().unwrap();
        let begin = || {
            let (store, loaded) = open(directory.path()).unwrap();
            (store, loaded.life.revision, loaded.life.lost)
        };
        let (mut store, first, lost) = begin();
        assert_eq!((first, lost), (position::next(0), Vec::new()));
        let stops = Commit {
            stops: Some(0),
            ..commit(Vec::new(), first + 3)
        };
        store.commit(&stops).unwrap();
        drop(store);
        let (mut store, second, lost) = begin();
        assert_eq!((second, lost), (position::next(first), Vec::new()));
        let newest = position::next(second);
        store
            .commit(&commit(vec![keep("a", newest, 1)], newest))
            .unwrap();
        drop(store);
        let (store, third, lost) = begin();
        assert!(position::of(third) > position::of(newest) + position::MAX_UNSYNCED);
        assert_eq!(lost, [(position::last(newest), third - 1)]);
        drop(store);
        // Nothing was stored since.
        let (_store, fourth, lost) = begin();
        assert_eq!(lost, [(position::last(newest), fourth - 1)]);
    }

    #[test]
    fn what_format_3_had_in_doubt_gets_revisions_that_nobody_had() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path()).unwrap();
        let event = Change::Event {
            topic: "e",
            rev: 3,
            value: value("3"),
        };
        let changes = vec![keep("a", 1, 2), keep("a", 2, 2), event, keep("b", 4, 1)];
        store.commit(&commit(changes, 4)).unwrap();
        drop(store);
        drop(open(directory.path()).unwrap());
        fs::remove_file(directory.path().join("latchbus.log")).unwrap();
        let database = Database::open(directory.path().join(FILE)).unwrap();
        write(&database, Durability::Immediate, |tables| {
            for (name, number) in [
                ("format", 3),
                ("revision", 4),
                ("doubt", 2),
                ("ceiling", 1_000),
                ("log", 0),
                ("applied", 0),
                ("events", 0),
            ] {
                tables.meta.insert(name, number).unwrap();
            }
            Ok(())
        })
        .unwrap();
        drop(database);
        let mut began = 0;
        for _ in 0..2 {
            let (_store, loaded) = open(directory.path()).unwrap();
            let revs: Vec<_> = (loaded.items.iter())
                .map(|(rev, topic, _)| (*rev, topic.as_str()))
                .collect();
            assert_eq!(revs, [(1, "a"), (1_001, "a"), (1_002, "e"), (1_003, "b")]);
            assert!(loaded.life.revision > began.max(1_003));
            began = loaded.life.revision;
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
            assert!(loaded.life.revision > 4);
            assert_eq!(loaded.press_ids, [("main".into(), "k".into(), "p".into())]);
        }
    }

    /// Format 4 had fewer tables, and neither it nor format 5 knew who holds a value.
    #[test]
    fn a_store_of_formats_4_and_5_is_taken_over() {
        for (format, missing) in [(4, &["zeros", "resets"][..]), (5, &[])] {
            let directory = tempfile::tempdir().unwrap();
            let (mut store, _) = open(directory.path()).unwrap();
            store.commit(&commit(vec![keep("a", 1, 1)], 1)).unwrap();
            drop(store);
            drop(open(directory.path()).unwrap());
            let database = Database::open(directory.path().join(FILE)).unwrap();
            let mut transaction = database.begin_write().unwrap();
            transaction.set_durability(Durability::Immediate).unwrap();
            for table in missing {
                let tables = transaction.list_tables().unwrap();
                let handle = tables.into_iter().find(|found| found.name() == *table);
                assert!(transaction.delete_table(handle.unwrap()).unwrap());
            }
            transaction
                .open_table(META)
                .unwrap()
                .insert("format", format)
                .unwrap();
            transaction.commit().unwrap();
            drop(database);
            let (store, loaded) = open(directory.path()).unwrap();
            assert_eq!(loaded.items.len(), 1);
            drop(store);
            let database = Database::open(directory.path().join(FILE)).unwrap();
            assert_eq!(read_meta(&database).unwrap().format, FORMAT);
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
        store.commit(&commit(all.into(), 0)).unwrap();
        assert_eq!(store.sizes().notes, 4);
        let forget = vec![note("a", None, None)];
        store.commit(&commit(forget, 0)).unwrap();
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
