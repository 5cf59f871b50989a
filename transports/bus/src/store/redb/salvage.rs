//! Whether all records can be read, and what is left without those that cannot.

use redb::{Database, Durability};

use super::meta::Meta;
use super::opening::load;
use super::tables::{Tables, Topic, decode, write};
use super::{EARLIER_FORMAT, FORMAT, StoreError, StoredValue, failed};
use crate::rooms::Record;

/// Reads all records.
pub(in crate::store) fn look(database: &Database) -> Result<(), StoreError> {
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
pub(in crate::store) struct Salvaged {
    /// By table.
    pub(in crate::store) left_out: Vec<(&'static str, u64)>,
    pub(in crate::store) kept: Vec<(&'static str, u64)>,
}

/// Takes out the records that cannot be read, and gives what is left a new epoch.
pub(in crate::store) fn salvage(database: &Database, epoch: u64) -> Result<Salvaged, StoreError> {
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
