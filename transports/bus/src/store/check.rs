//! Whether a database is whole, found out without changing a byte of it.
//!
//! redb repairs what it opens, and where the last commit is damaged it goes back to the one before: what was
//! acknowledged would be gone in silence. So a database is opened and checked first with all writes kept in
//! memory; only one that is whole is then opened for good.

use core::ops::Bound;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use std::{collections::BTreeMap, io, panic::catch_unwind, sync::Mutex};

use redb::{BackendError, Database, DatabaseError, StorageBackend, StorageError};

use super::{StoreError, redb::failed};
use crate::wake::lock;

const PAGE_BYTES: u64 = 4_096;

/// Checks every page of a database, and whatever else `look` looks at. Crashes are no damage: redb recovers from
/// them, here in memory.
pub(super) fn check<T>(
    bytes: impl StorageBackend,
    look: fn(&Database) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let overlay = Overlay::new(bytes).map_err(|error| failed(StorageError::Io(error)))?;
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let mut database = Database::builder()
            .create_with_backend(overlay)
            .map_err(refused)?;
        match database.check_integrity().map_err(refused)? {
            true => look(&database),
            false => Err(StoreError::Corrupted {
                reason: "checksums do not agree".into(),
            }),
        }
    }));
    // redb takes some damage for impossible.
    checked.unwrap_or_else(|_| {
        Err(StoreError::Corrupted {
            reason: "it cannot be made sense of".into(),
        })
    })
}

/// Why a database could not be opened.
pub(super) fn refused(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked,
        DatabaseError::Storage(StorageError::Corrupted(reason)) => StoreError::Corrupted { reason },
        error => failed(error),
    }
}

/// Bytes that can be changed without changing those below.
#[derive(Debug)]
struct Overlay<B> {
    below: B,
    len: AtomicU64,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    /// By number.
    pages: BTreeMap<u64, Box<[u8]>>,
    /// From here on the bytes below are void.
    below_to: u64,
}

impl<B: StorageBackend> Overlay<B> {
    fn new(below: B) -> io::Result<Self> {
        let len = below.len()?;
        Ok(Self {
            below,
            len: AtomicU64::new(len),
            changed: Mutex::new(Changed {
                pages: BTreeMap::new(),
                below_to: len,
            }),
        })
    }

    /// A page as it is now; zeros behind the end of what is below.
    fn page(&self, changed: &Changed, number: u64) -> io::Result<Box<[u8]>> {
        if let Some(page) = changed.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = vec![0; PAGE_BYTES as usize].into_boxed_slice();
        let start = number * PAGE_BYTES;
        let there = changed.below_to.saturating_sub(start).min(PAGE_BYTES) as usize;
        if let Some(there) = page.get_mut(..there).filter(|there| !there.is_empty()) {
            self.below.read(start, there)?;
        }
        Ok(page)
    }
}

/// The pages that a run of bytes touches: number, offset in the page, offset in the run, and length.
fn touched(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let part = (len - done).min(PAGE_BYTES as usize - within);
        let this = (at / PAGE_BYTES, within, done, part);
        done += part;
        (part > 0).then_some(this)
    })
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Relaxed))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.len.load(Ordering::Relaxed)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let changed = lock(&self.changed);
        for (number, within, at, part) in touched(offset, out.len()) {
            let page = self.page(&changed, number)?;
            if let Some((from, to)) = page
                .get(within..within + part)
                .zip(out.get_mut(at..at + part))
            {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changed = lock(&self.changed);
        if len < self.len.swap(len, Ordering::Relaxed) {
            changed.below_to = changed.below_to.min(len);
            let kept = len.div_ceil(PAGE_BYTES);
            changed.pages.split_off(&kept);
            if let Some(last) = changed.pages.get_mut(&(len / PAGE_BYTES))
                && let Some(void) = last.get_mut((len % PAGE_BYTES) as usize..)
            {
                void.fill(0);
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = lock(&self.changed);
        for (number, within, at, part) in touched(offset, data.len()) {
            let mut page = self.page(&changed, number)?;
            if let Some((to, from)) = page
                .get_mut(within..within + part)
                .zip(data.get(at..at + part))
            {
                to.copy_from_slice(from);
            }
            changed.pages.insert(number, page);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.below.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.query_lock_range(start, end)
    }
}
