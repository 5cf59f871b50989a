//! The store of a directory: the log, which every commit is appended to, and the checkpoint, which it is folded into.
//!
//! A commit is durable when its record in the log is. When the log is long enough, at each start and at an orderly
//! stop, one transaction of the checkpoint takes over what it says, together with the number of its newest
//! record; the log then begins at its beginning. A crash at any moment leaves a checkpoint and the records behind it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::log::FileLog;
use super::redb::{Mark, RedbStore};
use super::{Change, Commit, Disk, Loaded, Sizes, Store, StoreError};

/// The log and the checkpoint of one directory.
#[derive(Debug)]
pub(crate) struct FileStore {
    log: FileLog,
    checkpoint: RedbStore,
    index: Index,
}

impl FileStore {
    /// Opens the store of a disk, which may be empty, and loads what it holds. A new one, and one of a format before
    /// revisions, gets this epoch.
    pub(crate) fn open(
        mut disk: Disk,
        epoch: u64,
        tombstones: usize,
    ) -> Result<(Self, Loaded), StoreError> {
        // In this order: whoever has the log open has the store.
        let file = disk.open_log()?;
        let mark = disk.check()?;
        let (file, mark, found) = match (file, mark.key) {
            (Some(file), key) if key != 0 => {
                let found = FileLog::find(&*file, key, mark.applied)?;
                found.check()?;
                (file, mark, Some(found))
            }
            (None, key) if key != 0 => {
                return Err(StoreError::Corrupted {
                    reason: "the log is missing".into(),
                });
            }
            (file, _) => {
                // A crash while the store was made has left zeros, or nothing.
                if let Some(file) = &file
                    && !FileLog::is_new(&**file)?
                {
                    return Err(StoreError::Corrupted {
                        reason: "the log belongs to another database".into(),
                    });
                }
                let file = disk.create_log(file)?;
                let mark = Mark {
                    key: fastrand::u64(1..),
                    applied: 0,
                };
                (file, mark, None)
            }
        };
        let commits = match &found {
            Some(found) => found.payloads().map(decode).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        let mark = Mark {
            applied: found.as_ref().map_or(mark.applied, |found| found.highest),
            ..mark
        };
        let limits = (disk.log_limits, disk.synchronises());
        let (checkpoint, loaded) = RedbStore::open(disk, epoch, tombstones, (&commits, mark))?;
        let log = FileLog::begin(file, limits, mark.key, mark.applied)?;
        let index = Index::of(&loaded);
        let store = Self {
            log,
            checkpoint,
            index,
        };
        Ok((store, loaded))
    }

    /// Takes what the log says over into the checkpoint.
    fn fold(&mut self) -> Result<(), StoreError> {
        let bytes = self.log.read()?;
        let payloads = self.log.payloads(&bytes)?;
        let commits: Vec<_> = (payloads.into_iter())
            .map(decode)
            .collect::<Result<_, _>>()?;
        self.checkpoint.fold(&commits, self.log.newest())?;
        self.log.restart();
        Ok(())
    }
}

pub(super) fn decode(payload: &[u8]) -> Result<Commit<'_>, StoreError> {
    postcard::from_bytes(payload).map_err(|error| StoreError::Damaged {
        table: "log",
        reason: error.to_string(),
    })
}

impl Store for FileStore {
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError> {
        if self.log.is_full() {
            self.fold()?;
        }
        let payload = super::redb::encode(commit)?;
        self.log.append(&payload, commit.sync)?;
        self.index.take(commit);
        if commit.stops.is_some() {
            // The next start finds it faster so. Where it fails, the log has it all.
            let _in_the_log = self.fold();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.log.sync()
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            oldest_event: self.index.events.first().copied(),
            notes: self.index.notes_stored,
            bytes: self.checkpoint.bytes() + self.log.bytes(),
        }
    }
}

type OwnerAndClient = (Box<str>, Box<str>);

/// What has to be known of what is stored while it is written.
#[derive(Debug, Default)]
struct Index {
    events: BTreeSet<u64>,
    /// The parts of each client, by owner and client.
    notes: HashMap<OwnerAndClient, HashSet<Box<[u8]>>>,
    notes_stored: u64,
}

impl Index {
    fn of(loaded: &Loaded) -> Self {
        let mut index = Self::default();
        for (rev, _, item) in &loaded.items {
            index
                .events
                .extend(matches!(item, super::Item::Event(_)).then_some(*rev));
        }
        for note in &loaded.notes {
            index.keep_note(&note.owner, &note.client, &note.part);
        }
        index
    }

    fn take(&mut self, commit: &Commit<'_>) {
        for change in &commit.changes {
            match change {
                Change::Event { rev, .. } => {
                    self.events.insert(*rev);
                }
                Change::Trim { confirmed, left } => {
                    self.events = self.events.split_off(&(confirmed.max(left) + 1));
                }
                Change::Note {
                    owner,
                    client,
                    part: Some(part),
                    value: Some(_),
                } => self.keep_note(owner, client, part),
                Change::Note {
                    owner,
                    client,
                    part,
                    ..
                } => self.forget_notes(owner, client, *part),
                _ => {}
            }
        }
    }

    fn keep_note(&mut self, owner: &str, client: &str, part: &[u8]) {
        let parts = self.notes.entry((owner.into(), client.into())).or_default();
        self.notes_stored += u64::from(parts.insert(part.into()));
    }

    fn forget_notes(&mut self, owner: &str, client: &str, part: Option<&[u8]>) {
        let key = (owner.into(), client.into());
        let Some(parts) = self.notes.get_mut(&key) else {
            return;
        };
        let before = parts.len();
        match part {
            Some(part) => drop(parts.remove(part)),
            None => parts.clear(),
        }
        self.notes_stored -= (before - parts.len()) as u64;
        if parts.is_empty() {
            self.notes.remove(&key);
        }
    }
}
