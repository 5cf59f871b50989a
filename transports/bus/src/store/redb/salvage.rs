//! Whether all records can be read, and what is left without those that cannot.

use redb::{Database, Durability};

use super::meta::Meta;
use super::opening::load;
use super::tables::{Tables, Topic, decode, write};
use super::{Commit, FORMAT, FORMATS, Mark, StoreError, StoredValue, failed};
use crate::rooms::{DeviceZero, Record, RoomReset};

/// Reads all records, and says how much of the log they hold.
pub(in crate::store) fn look(database: &Database) -> Result<Mark, StoreError> {
    let transaction = database.begin_write().map_err(failed)?;
    let mark = {
        let tables = Tables::open(&transaction)?;
        let meta = Meta::read(&tables.meta)?;
        let found = meta.format;
        if found != 0 && !FORMATS.contains(&found) {
            let known = FORMAT;
            return Err(StoreError::Version { found, known });
        }
        load(&tables)?;
        meta.mark()
    };
    transaction.abort().map_err(failed)?;
    Ok(mark)
}

/// What there is after [`salvage`].
#[derive(Debug, Default)]
pub(in crate::store) struct Salvaged {
    /// By table.
    pub(in crate::store) left_out: Vec<(&'static str, u64)>,
    pub(in crate::store) kept: Vec<(&'static str, u64)>,
}

/// Takes out the records that cannot be read, takes over what there is of the log, and gives what is left a new
/// epoch.
pub(in crate::store) fn salvage(
    database: &Database,
    epoch: u64,
    log: &[Commit<'_>],
) -> Result<Salvaged, StoreError> {
    let mut salvaged = Salvaged::default();
    write(database, Durability::Immediate, |tables| {
        let before = Meta::read(&tables.meta)?;
        let mut meta = before;
        if meta.format > 2 {
            meta.epoch = epoch;
        }
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
        (tables.zeros)
            .retain(|_, zero| decode::<DeviceZero>("", zero).is_ok())
            .map_err(failed)?;
        (tables.resets)
            .retain(|_, reset| decode::<RoomReset>("", reset).is_ok())
            .map_err(failed)?;
        let left = tables.counts()?;
        let both = counts.iter().zip(left);
        let gone = both.map(|((table, before), (_, after))| (*table, before - after));
        salvaged.left_out = gone.filter(|(_, records)| *records > 0).collect();
        tables.fold(log, &mut meta, u64::MAX)?;
        (meta.log, meta.applied) = (0, 0);
        meta.write(before, tables)?;
        salvaged.kept = tables.counts()?.to_vec();
        Ok(())
    })?;
    Ok(salvaged)
}
