//! The numbers that the store keeps of itself.

use redb::ReadableTable;

use super::tables::Tables;
use super::{Mark, StoreError, failed};

/// The numbers of the table `meta`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meta {
    pub(super) format: u64,
    /// How often the hub has started.
    pub(super) start: u64,
    pub(super) epoch: u64,
    /// The newest revision that anything is known to have had.
    pub(super) revision: u64,
    /// The newest clear that is not here any more.
    pub(super) forgotten: u64,
    /// The newest event that was owed and is not here any more.
    pub(super) left: u64,
    /// After a clean stop: one more than the revision of the newest event of all.
    pub(super) events: u64,
    /// The key of the log; 0: there is none yet.
    pub(super) log: u64,
    /// The newest record of the log that is in here.
    pub(super) applied: u64,
}

impl Meta {
    fn fields(&mut self) -> [(&'static str, &mut u64); 9] {
        [
            ("format", &mut self.format),
            ("start", &mut self.start),
            ("epoch", &mut self.epoch),
            ("revision", &mut self.revision),
            ("forgotten", &mut self.forgotten),
            ("left", &mut self.left),
            ("events", &mut self.events),
            ("log", &mut self.log),
            ("applied", &mut self.applied),
        ]
    }

    pub(super) fn mark(self) -> Mark {
        Mark {
            key: self.log,
            applied: self.applied,
        }
    }

    pub(super) fn read(table: &impl ReadableTable<&'static str, u64>) -> Result<Self, StoreError> {
        let mut meta = Self::default();
        for (name, field) in meta.fields() {
            let number = table.get(name).map_err(failed)?;
            *field = number.map_or(0, |number| number.value());
        }
        Ok(meta)
    }

    /// Writes what differs from `before`.
    pub(super) fn write(
        mut self,
        mut before: Self,
        tables: &mut Tables<'_>,
    ) -> Result<(), StoreError> {
        for ((name, now), (_, before)) in self.fields().into_iter().zip(before.fields()) {
            if now != before {
                tables.meta.insert(name, *now).map_err(failed)?;
            }
        }
        Ok(())
    }
}
