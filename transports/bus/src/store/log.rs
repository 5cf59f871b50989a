//! The append-only log: what was committed since the last checkpoint, one record a commit, in a file that is
//! allocated beforehand and written over from its beginning after each checkpoint.
//!
//! An append overwrites bytes that the file has already, so that one `fdatasync` makes it durable and the file
//! system has nothing to note of its own. A record is
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC-32 of the log's key and of the rest of these 32 bytes |
//! | 4 | CRC-32 of the log's key and of the payload |
//! | 8 | length of the payload |
//! | 8 | the number of the record, from 1, one more than that of the record before |
//! | 8 | the newest record that was known to be synchronised when this one was written |
//! | … | the payload, and zeros up to a multiple of 8 |
//!
//! all little-endian. Records of before the last checkpoint, which may still lie behind the newest one, have
//! numbers that the checkpoint holds. The log ends where no record with the next number stands. Where a later
//! record says that the missing one was synchronised, the file is damaged; else it never was, and nobody was told
//! otherwise. The key is known to the store alone, so that no published payload can pass for a record.

use core::{fmt, ops::Range};
use std::io;

use crc::{CRC_32_ISCSI, Crc, Table};
use redb::StorageBackend;

use super::StoreError;

const CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

const HEADER_BYTES: usize = 32;
const ALIGNMENT: usize = 8;

/// Zeros that are written at once while the file is allocated: a page, since Linux keeps what was written in one piece in
/// one piece, and then counts the whole of it for each append.
const ZEROS: [u8; 4 << 10] = [0; 4 << 10];

/// The bounds of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogLimits {
    /// A log of so many bytes is folded into the checkpoint. It may be longer by one record.
    pub(crate) checkpoint_bytes: u64,
    /// The file grows by so many bytes at a time.
    pub(crate) allocate_bytes: u64,
    /// Records that are not synchronised have at most so many bytes together.
    pub(crate) unsynced_bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            checkpoint_bytes: 8 << 20,
            allocate_bytes: 256 << 10,
            unsynced_bytes: 1 << 20,
        }
    }
}

/// When a record is to be on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Before the append returns.
    #[default]
    Now,
    /// With a later record, or with [`FileLog::sync`].
    Later,
}

/// The log, open for appending.
pub(super) struct FileLog {
    file: Box<dyn StorageBackend>,
    limits: LogLimits,
    /// False for a test of durability, which must notice.
    synchronises: bool,
    key: u64,
    /// The number of the newest record.
    newest: u64,
    /// The newest record that is on disk.
    synced: u64,
    /// Where the next record goes.
    end: u64,
    allocated: u64,
    /// The records that are not synchronised; they end at `end`. After a failure all of them are written again, for
    /// what a failed `fdatasync` has left of them is unknown.
    unsynced: Vec<u8>,
    failed: bool,
}

/// What was found in a log.
#[derive(Debug, Default)]
pub(super) struct Found {
    bytes: Vec<u8>,
    /// Where the payloads stand, in the order of their numbers.
    payloads: Vec<Range<usize>>,
    /// The highest number of any record, whether it is part of the log or not.
    pub(super) highest: u64,
    /// Where the log goes on behind a record that was synchronised and is not there.
    damaged: Option<usize>,
}

impl Found {
    pub(super) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let ranges = self.payloads.iter();
        ranges.filter_map(|range| self.bytes.get(range.clone()))
    }

    /// Whether every record that was synchronised is there.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.damaged {
            None => Ok(()),
            Some(at) => Err(StoreError::Corrupted {
                reason: format!("the log has a record missing before byte {at}"),
            }),
        }
    }
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy)]
struct Header {
    payload_crc: u32,
    length: u64,
    number: u64,
    synced: u64,
}

impl Header {
    fn to_bytes(self, key: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields = (self.payload_crc.to_le_bytes().into_iter())
            .chain(self.length.to_le_bytes())
            .chain(self.number.to_le_bytes())
            .chain(self.synced.to_le_bytes());
        for (byte, field) in bytes.iter_mut().skip(4).zip(fields) {
            *byte = field;
        }
        let crc = bytes.split_first_chunk::<4>();
        let crc = crc.map_or(0, |(_, covered)| checksum(key, covered));
        for (byte, of_crc) in bytes.iter_mut().zip(crc.to_le_bytes()) {
            *byte = of_crc;
        }
        bytes
    }

    /// The header that stands at `at`, if one does.
    fn read(bytes: &[u8], at: usize, key: u64) -> Option<Self> {
        let header = bytes.get(at..)?.first_chunk::<HEADER_BYTES>()?;
        let (crc, covered) = header.split_first_chunk()?;
        let (payload_crc, rest) = covered.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (synced, _) = rest.split_first_chunk()?;
        let header = Self {
            payload_crc: u32::from_le_bytes(*payload_crc),
            length: u64::from_le_bytes(*length),
            number: u64::from_le_bytes(*number),
            synced: u64::from_le_bytes(*synced),
        };
        // No number is 0, and zeros are most of what is no header.
        let is_one = header.number > header.synced;
        (is_one && checksum(key, covered) == u32::from_le_bytes(*crc)).then_some(header)
    }
}

struct Record {
    number: u64,
    payload: Range<usize>,
    /// Where the next one begins.
    end: usize,
}

impl Record {
    /// The record that begins at `at`, if a whole one does.
    fn read(bytes: &[u8], at: usize, key: u64) -> Option<Self> {
        let header = Header::read(bytes, at, key)?;
        let begins = at + HEADER_BYTES;
        let ends = begins.checked_add(usize::try_from(header.length).ok()?)?;
        let payload = bytes.get(begins..ends)?;
        (checksum(key, payload) == header.payload_crc).then(|| Self {
            number: header.number,
            payload: begins..ends,
            end: ends.next_multiple_of(ALIGNMENT),
        })
    }
}

fn checksum(key: u64, bytes: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&key.to_le_bytes());
    digest.update(bytes);
    digest.finalize()
}

impl FileLog {
    /// Reads what a log holds behind the record `applied`; nothing is changed.
    pub(super) fn find(
        file: &dyn StorageBackend,
        key: u64,
        applied: u64,
    ) -> Result<Found, StoreError> {
        let bytes = read_all(file)?;
        let mut found = Found {
            highest: applied,
            ..Found::default()
        };
        let mut at = 0;
        while let Some(record) = Record::read(&bytes, at, key)
            && record.number == found.highest + 1
        {
            found.highest = record.number;
            found.payloads.push(record.payload);
            at = record.end;
        }
        let missing = found.highest + 1;
        for at in (at..bytes.len()).step_by(ALIGNMENT) {
            let header = Header::read(&bytes, at, key);
            if let Some(later) = header.filter(|header| header.number >= missing) {
                found.highest = found.highest.max(later.number);
                if later.synced >= missing {
                    found.damaged.get_or_insert(at);
                }
            }
        }
        found.bytes = bytes;
        Ok(found)
    }

    /// All records behind `applied` that can be read, whatever is missing between them.
    pub(super) fn salvage(
        file: &dyn StorageBackend,
        key: u64,
        applied: u64,
    ) -> Result<Found, StoreError> {
        let mut found = Self::find(file, key, applied)?;
        let mut records: Vec<_> = (0..found.bytes.len())
            .step_by(ALIGNMENT)
            .filter_map(|at| Record::read(&found.bytes, at, key))
            .filter(|record| record.number > applied)
            .collect();
        records.sort_by_key(|record| record.number);
        found.payloads = records.into_iter().map(|record| record.payload).collect();
        Ok(found)
    }

    /// Begins a log whose records are all in the checkpoint, up to `applied`.
    pub(super) fn begin(
        file: Box<dyn StorageBackend>,
        (limits, synchronises): (LogLimits, bool),
        key: u64,
        applied: u64,
    ) -> Result<Self, StoreError> {
        let allocated = file.len().map_err(StoreError::Log)?;
        Ok(Self {
            file,
            limits,
            synchronises,
            key,
            newest: applied,
            synced: applied,
            end: 0,
            allocated,
            unsynced: Vec::new(),
            failed: false,
        })
    }

    /// Makes a file of zeros that is durable, for a log that nothing refers to yet.
    pub(super) fn create(file: &dyn StorageBackend, limits: LogLimits) -> io::Result<()> {
        file.set_len(0)?;
        allocate(file, 0..limits.allocate_bytes)?;
        file.sync_data()
    }

    /// Whether nothing was ever appended.
    pub(super) fn is_new(file: &dyn StorageBackend) -> Result<bool, StoreError> {
        Ok(read_all(file)?.iter().all(|byte| *byte == 0))
    }

    /// The number of the newest record.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// The bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.allocated
    }

    /// Whether it is time for a checkpoint.
    pub(super) fn is_full(&self) -> bool {
        self.end >= self.limits.checkpoint_bytes
    }

    /// Whether all records are on disk.
    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty() && !self.failed
    }

    /// Appends a record.
    ///
    /// # Errors
    /// When the file fails. The record then is not part of the log, though it may be found in it after a crash.
    pub(super) fn append(&mut self, payload: &[u8], sync: Sync) -> Result<(), StoreError> {
        let (end, unsynced) = (self.end, self.unsynced.len());
        let appended = self.try_append(payload, sync);
        if appended.is_err() {
            self.unsynced.truncate(unsynced);
            (self.end, self.failed) = (end, true);
            return appended;
        }
        self.newest += 1;
        if self.unsynced.is_empty() {
            self.synced = self.newest;
        }
        Ok(())
    }

    fn try_append(&mut self, payload: &[u8], sync: Sync) -> Result<(), StoreError> {
        let (begin, before) = (self.end, self.unsynced.len());
        let header = Header {
            payload_crc: checksum(self.key, payload),
            length: payload.len() as u64,
            number: self.newest + 1,
            synced: self.synced,
        };
        self.unsynced.extend(header.to_bytes(self.key));
        self.unsynced.extend(payload);
        let padded = (self.unsynced.len() - before).next_multiple_of(ALIGNMENT);
        self.unsynced.resize(before + padded, 0);
        self.end += padded as u64;
        self.allocate()?;
        // What was written before is on its way already, unless something failed since.
        let (from, at) = match self.failed {
            true => (0, self.end - self.unsynced.len() as u64),
            false => (before, begin),
        };
        let bytes = self.unsynced.get(from..).unwrap_or_default();
        self.file.write(at, bytes).map_err(StoreError::Log)?;
        if sync == Sync::Now || self.unsynced.len() > self.limits.unsynced_bytes {
            self.synchronise()?;
        }
        self.failed = false;
        Ok(())
    }

    /// Makes all records durable.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        if self.is_synced() {
            return Ok(());
        }
        let synced = self.try_sync();
        self.failed = synced.is_err();
        synced
    }

    fn try_sync(&mut self) -> Result<(), StoreError> {
        if self.failed {
            let at = self.end - self.unsynced.len() as u64;
            (self.file.write(at, &self.unsynced)).map_err(StoreError::Log)?;
        }
        self.synchronise()?;
        self.synced = self.newest;
        Ok(())
    }

    fn synchronise(&mut self) -> Result<(), StoreError> {
        if self.synchronises {
            self.file.sync_data().map_err(StoreError::Log)?;
        }
        self.unsynced.clear();
        // A large batch is the exception.
        self.unsynced.shrink_to(self.limits.unsynced_bytes);
        Ok(())
    }

    /// What is in the log.
    pub(super) fn read(&self) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; usize::try_from(self.end).unwrap_or(usize::MAX)];
        self.file.read(0, &mut bytes).map_err(StoreError::Log)?;
        // What a failure has left there is known here alone.
        let from = bytes.len().saturating_sub(self.unsynced.len());
        for (byte, known) in bytes.iter_mut().skip(from).zip(&self.unsynced) {
            *byte = *known;
        }
        Ok(bytes)
    }

    /// The payloads of what [`read`](Self::read) gave.
    pub(super) fn payloads<'a>(&self, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, StoreError> {
        let (mut payloads, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let record = Record::read(bytes, at, self.key);
            let read = record.and_then(|record| Some((bytes.get(record.payload)?, record.end)));
            let (payload, end) = read.ok_or_else(|| StoreError::Corrupted {
                reason: format!("the log cannot be read again from byte {at} on"),
            })?;
            payloads.push(payload);
            at = end;
        }
        Ok(payloads)
    }

    /// Begins at the beginning: all records are in the checkpoint.
    pub(super) fn restart(&mut self) {
        self.unsynced.clear();
        (self.end, self.synced, self.failed) = (0, self.newest, false);
    }

    fn allocate(&mut self) -> Result<(), StoreError> {
        if self.end <= self.allocated {
            return Ok(());
        }
        let to = self.end.next_multiple_of(self.limits.allocate_bytes.max(1));
        allocate(&*self.file, self.allocated..to).map_err(StoreError::Log)?;
        self.allocated = to;
        Ok(())
    }
}

fn read_all(file: &dyn StorageBackend) -> Result<Vec<u8>, StoreError> {
    let length = file.len().map_err(StoreError::Log)?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read(0, &mut bytes).map_err(StoreError::Log)?;
    Ok(bytes)
}

/// Writes zeros, so that later writes find the file's bytes in their places.
fn allocate(file: &dyn StorageBackend, range: Range<u64>) -> io::Result<()> {
    file.set_len(range.end)?;
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(ZEROS.len() as u64);
        let zeros = ZEROS.get(..length as usize).unwrap_or_default();
        file.write(at, zeros)?;
        at += length;
    }
    Ok(())
}

impl fmt::Debug for FileLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLog")
            .field("newest", &self.newest)
            .field("synced", &self.synced)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
