//! What can be saved of a damaged store.

use core::fmt;
use core::panic::AssertUnwindSafe;
use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use redb::{Database, StorageBackend};

use super::check::refused;
use super::disk::{FILE, LOG, sync};
use super::file::decode;
use super::log::{FileLog, Found};
use super::redb::{Mark, Salvaged, mark, salvage};
use super::{Disk, StoreError};
use crate::Clock;

/// What [`repair`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Where the database that was there is now.
    pub original: PathBuf,
    /// And the log, if there was one.
    pub original_log: Option<PathBuf>,
    /// Whether the newest changes may be missing: the database was damaged, and not just records in it.
    pub may_have_gone_back: bool,
    /// Records that could not be read and were left out, by table.
    pub left_out: Vec<(&'static str, u64)>,
    /// Records that are there, by table.
    pub kept: Vec<(&'static str, u64)>,
}

impl fmt::Display for Repaired {
    /// A line for each thing that there is to know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the damaged file is now {}", self.original.display())?;
        if let Some(log) = &self.original_log {
            writeln!(f, "its log is now {}", log.display())?;
        }
        if self.may_have_gone_back {
            writeln!(f, "the newest changes may be missing")?;
        }
        for (table, records) in &self.left_out {
            writeln!(
                f,
                "{records} records of `{table}` could not be read and were left out"
            )?;
        }
        for (table, records) in &self.kept {
            writeln!(f, "{records} records of `{table}` are there")?;
        }
        write!(f, "clients that come back get everything anew")
    }
}

/// Saves what can be saved of the store in a directory that no bus has open. `None`: nothing is wrong with it,
/// and nothing was changed. A store that is repaired has a new epoch, since it may have lost what clients know.
///
/// The damaged file is never changed, only renamed, once a repaired copy stands beside it.
///
/// # Errors
/// When there is no store or it is in use, when the disk fails, and when the database is beyond repair: then all is
/// as it was.
pub fn repair(directory: &Path) -> Result<Option<Repaired>, StoreError> {
    let path = directory.join(FILE);
    fs::metadata(&path).map_err(StoreError::Directory)?;
    let mut disk = Disk::directory(directory)?;
    let log = disk.open_log()?;
    let may_have_gone_back = match disk.look() {
        Ok(mark) if log_is_whole(log.as_deref(), mark)? => return Ok(None),
        Ok(_) | Err(StoreError::Corrupted { .. }) => true,
        Err(StoreError::Damaged { .. }) => false,
        Err(error) => return Err(error),
    };
    let copy = directory.join(format!("{FILE}.repairing"));
    let repaired = fs::copy(&path, &copy)
        .map_err(StoreError::Directory)
        .and_then(|_| repair_copy(&copy, log.as_deref()));
    let salvaged = match repaired {
        Ok(salvaged) => salvaged,
        Err(error) => {
            // It is of no use to anyone.
            let _left = fs::remove_file(&copy);
            return Err(error);
        }
    };
    let (original, original_log) = free_names(directory)?;
    let original_log = log.map(|_| original_log);
    fs::File::open(&copy)
        .and_then(|copy| copy.sync_all())
        // In this order there is a store under its name at any moment. A repaired one refers to no log.
        .and_then(|()| fs::hard_link(&path, &original).or_else(|_| fs::rename(&path, &original)))
        .and_then(|()| fs::rename(&copy, &path))
        .and_then(|()| match &original_log {
            Some(original) => fs::rename(directory.join(LOG), original),
            None => Ok(()),
        })
        .and_then(|()| sync(directory))
        .map_err(StoreError::Directory)?;
    Ok(Some(Repaired {
        original,
        original_log,
        may_have_gone_back,
        left_out: salvaged.left_out,
        kept: salvaged.kept,
    }))
}

/// Whether the log has everything that was synchronised, in a form that can be read.
fn log_is_whole(log: Option<&dyn StorageBackend>, mark: Mark) -> Result<bool, StoreError> {
    let Some(log) = log else {
        return Ok(mark.key == 0);
    };
    if mark.key == 0 {
        return FileLog::is_new(log);
    }
    let found = FileLog::find(log, mark.key, mark.applied)?;
    Ok(found.check().is_ok() && found.payloads().all(|payload| decode(payload).is_ok()))
}

/// Lets redb repair a database, leaves out the records that cannot be read, and takes over what can be read of the
/// log.
fn repair_copy(path: &Path, log: Option<&dyn StorageBackend>) -> Result<Salvaged, StoreError> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        // Which trusts nothing that it finds.
        Database::builder()
            .set_check_integrity_on_open(true)
            .open(path)
    }));
    let beyond = |reason: &str| StoreError::Corrupted {
        reason: format!("beyond repair: {reason}"),
    };
    let database = match opened.map(|opened| opened.map_err(refused)) {
        Ok(Ok(database)) => database,
        Ok(Err(StoreError::Corrupted { reason })) => return Err(beyond(&reason)),
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(beyond("it cannot be made sense of")),
    };
    let mark = mark(&database)?;
    let found = match log {
        Some(log) if mark.key != 0 => FileLog::salvage(log, mark.key, mark.applied)?,
        _ => Found::default(),
    };
    let commits: Vec<_> = found.payloads().map(decode).collect();
    let unreadable = commits.iter().filter(|commit| commit.is_err()).count() as u64;
    let commits: Vec<_> = commits.into_iter().flatten().collect();
    let epoch = fastrand::u64(1..=u64::from(u32::MAX));
    let mut salvaged = salvage(&database, epoch, &commits)?;
    (salvaged.left_out).extend((unreadable > 0).then_some(("log", unreadable)));
    Ok(salvaged)
}

/// Names for the damaged files that nothing has.
fn free_names(directory: &Path) -> Result<(PathBuf, PathBuf), StoreError> {
    let now = Clock::system().unix_ms();
    for suffix in now.. {
        let [name, log] =
            [FILE, LOG].map(|file| directory.join(format!("{file}.damaged-{suffix}")));
        let exists = |name: &Path| name.try_exists().map_err(StoreError::Directory);
        if !exists(&name)? && !exists(&log)? {
            return Ok((name, log));
        }
    }
    Err(StoreError::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Commit, FileStore, Item, Loaded, Store, StoredValue};

    fn open(directory: &Path) -> Result<(FileStore, Loaded), StoreError> {
        FileStore::open(Disk::directory(directory)?, 7, 2)
    }

    fn value(payload: Vec<u8>) -> StoredValue {
        StoredValue {
            at: 1,
            qos: 0,
            expires_at: None,
            said: crate::store::Said::Nothing,
            payload,
        }
    }

    /// Two commits of so many topics each; the bytes of the file after each.
    fn two_commits(directory: &Path) -> [Vec<u8>; 2] {
        let path = directory.join(FILE);
        [1, 2].map(|round| {
            let (mut store, _) = open(directory).unwrap();
            let topics: Vec<_> = (0..200).map(|n| format!("t/{round}/{n}")).collect();
            let changes = (topics.iter().zip(1..))
                .map(|(topic, rev)| Change::Keep {
                    topic,
                    rev: rev + round * 1_000,
                    value: value(vec![round as u8; 100]),
                    history: 1,
                })
                .collect();
            let commit = Commit {
                changes,
                revision: round * 1_000 + 200,
                // What is in the log is in the database then.
                stops: Some(0),
                ..Commit::default()
            };
            store.commit(&commit).unwrap();
            drop(store);
            fs::read(&path).unwrap()
        })
    }

    #[test]
    fn a_whole_store_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let [_, bytes] = two_commits(directory.path());
        assert_eq!(repair(directory.path()).unwrap(), None);
        assert_eq!(fs::read(directory.path().join(FILE)).unwrap(), bytes);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_damaged_store_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let [_, bytes] = two_commits(directory.path());
        let path = directory.path().join(FILE);
        let mut refused = 0;
        for at in (0..bytes.len()).step_by(bytes.len() / 40) {
            let mut damaged = bytes.clone();
            for byte in damaged.iter_mut().skip(at).take(600) {
                *byte = !*byte;
            }
            fs::write(&path, &damaged).unwrap();
            if open(directory.path()).is_err() {
                refused += 1;
                assert_eq!(fs::read(&path).unwrap(), damaged);
            } else {
                // Nothing was in those pages.
                fs::write(&path, &bytes).unwrap();
                assert_eq!(open(directory.path()).unwrap().1.items.len(), 400);
            }
        }
        assert!(refused > 0);
        fs::write(&path, bytes.split_at(bytes.len() / 2).0).unwrap();
        assert!(open(directory.path()).is_err());
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64 / 2);
    }

    #[test]
    fn a_damaged_store_is_repaired_or_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = two_commits(directory.path());
        let path = directory.path().join(FILE);
        // Behind the header, what the second commit has written and the first has not: one page after the other.
        let differing = (1..second.len() / 4_096).filter(|page| {
            let range = page * 4_096..(page + 1) * 4_096;
            first.get(range.clone()) != second.get(range)
        });
        let mut tried = 0;
        for page in differing {
            let mut damaged = second.clone();
            for byte in damaged.iter_mut().skip(page * 4_096 + 64).take(64) {
                *byte = !*byte;
            }
            fs::write(&path, &damaged).unwrap();
            if open(directory.path()).is_ok() {
                continue;
            }
            match repair(directory.path()) {
                Ok(Some(repaired)) => {
                    assert_eq!(fs::read(&repaired.original).unwrap(), damaged);
                    assert!(repaired.may_have_gone_back);
                    let (_store, loaded) = open(directory.path()).unwrap();
                    assert_ne!(loaded.epoch, 7);
                    assert!(loaded.items.len() >= 200);
                    fs::remove_file(&repaired.original).unwrap();
                    let log = repaired.original_log.unwrap();
                    fs::remove_file(log).unwrap();
                }
                Ok(None) => panic!("it was refused"),
                Err(StoreError::Corrupted { .. }) => {
                    assert_eq!(fs::read(&path).unwrap(), damaged);
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
            tried += 1;
        }
        assert!(tried > 0);
    }

    #[test]
    fn records_that_cannot_be_read_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        two_commits(directory.path());
        super::super::redb::tests::put_nonsense(directory.path());
        let refused = open(directory.path()).map(drop);
        assert!(matches!(refused, Err(StoreError::Damaged { .. })));
        let repaired = repair(directory.path()).unwrap().unwrap();
        assert_eq!(repaired.left_out, [("values", 1)]);
        assert!(!repaired.may_have_gone_back);
        let (store, loaded) = open(directory.path()).unwrap();
        assert_eq!(loaded.items.len(), 400);
        let is_value = |(_, _, item): &(u64, String, Item)| matches!(item, Item::Value(..));
        assert!(loaded.items.iter().all(is_value));
        drop(store);
        assert_eq!(repair(directory.path()).unwrap(), None);
    }

    /// A store whose log holds a hundred commits, and their bytes.
    fn a_log(directory: &Path) -> Vec<u8> {
        let (mut store, _) = open(directory).unwrap();
        for rev in 1..=100 {
            let topic = format!("t/{rev}");
            let commit = Commit {
                changes: vec![Change::Keep {
                    topic: &topic,
                    rev,
                    value: value(vec![7; 100]),
                    history: 1,
                }],
                revision: rev,
                ..Commit::default()
            };
            store.commit(&commit).unwrap();
        }
        drop(store);
        fs::read(directory.join(LOG)).unwrap()
    }

    #[test]
    fn a_damaged_log_is_refused_and_repaired() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = a_log(directory.path());
        let (path, database) = (directory.path().join(LOG), directory.path().join(FILE));
        let whole = fs::read(&database).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for at in (0..used - 200).step_by(used / 50) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            let Err(refused) = open(directory.path()) else {
                // A byte that nothing is written to.
                fs::write(&path, &bytes).unwrap();
                fs::write(&database, &whole).unwrap();
                continue;
            };
            assert!(matches!(refused, StoreError::Corrupted { .. }), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), damaged);
            let repaired = repair(directory.path()).unwrap().unwrap();
            assert!(repaired.may_have_gone_back);
            let log = repaired.original_log.unwrap();
            assert_eq!(fs::read(&log).unwrap(), damaged);
            let (store, loaded) = open(directory.path()).unwrap();
            drop(store);
            // All but the one that was hit.
            assert_eq!(loaded.items.len(), 99);
            fs::remove_file(&log).unwrap();
            fs::remove_file(&repaired.original).unwrap();
            fs::write(&path, &bytes).unwrap();
            fs::write(&database, &whole).unwrap();
        }
    }

    #[test]
    fn a_log_that_is_missing_cut_short_or_anothers_is_refused_and_repaired() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = a_log(directory.path());
        let (path, database) = (directory.path().join(LOG), directory.path().join(FILE));
        let whole = fs::read(&database).unwrap();
        fs::remove_file(&path).unwrap();
        let refused = open(directory.path()).map(drop);
        assert!(matches!(refused, Err(StoreError::Corrupted { .. })));
        assert!(!path.exists());
        assert!(repair(directory.path()).unwrap().is_some());
        assert_eq!(open(directory.path()).unwrap().1.items.len(), 0);
        // The checkpoint of before the last one, whose part of the log is gone.
        fs::write(&path, &bytes).unwrap();
        fs::write(&database, &whole).unwrap();
        let (mut store, _) = open(directory.path()).unwrap();
        for rev in 200..203 {
            let commit = Commit {
                revision: rev,
                ..Commit::default()
            };
            store.commit(&commit).unwrap();
        }
        drop(store);
        fs::write(&database, &whole).unwrap();
        let refused = open(directory.path()).map(drop);
        assert!(matches!(refused, Err(StoreError::Corrupted { .. })));
        assert!(
            repair(directory.path())
                .unwrap()
                .unwrap()
                .may_have_gone_back
        );
    }

    #[test]
    fn a_database_and_a_log_that_do_not_belong_together_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = a_log(directory.path());
        let (path, database) = (directory.path().join(LOG), directory.path().join(FILE));
        fs::remove_file(&database).unwrap();
        let refused = open(directory.path()).map(drop);
        assert!(matches!(refused, Err(StoreError::Corrupted { .. })));
        assert!(!database.exists());
        // A database that has no log yet.
        drop(Database::create(&database).unwrap());
        let refused = open(directory.path()).map(drop);
        assert!(matches!(refused, Err(StoreError::Corrupted { .. })));
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let repaired = repair(directory.path()).unwrap().unwrap();
        assert_eq!(fs::read(repaired.original_log.unwrap()).unwrap(), bytes);
        assert_eq!(open(directory.path()).unwrap().1.items.len(), 0);
    }

    #[test]
    fn where_there_is_no_store_nothing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            repair(directory.path()),
            Err(StoreError::Directory(_))
        ));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
