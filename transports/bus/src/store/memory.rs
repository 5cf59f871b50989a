//! The store in memory: what the one on disk is checked against, and the disk of simulations that need no
//! bytes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::{Change, Loaded, Store, StoreError, StoredValue};
use crate::rooms::{PRESS_IDS, Record};
use crate::wake::lock;

/// What was committed. Clones are one store: what one commits, the next [`open`](Self::open) finds.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryStore(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    start: u32,
    next: u64,
    values: BTreeMap<u64, (String, u16, StoredValue)>,
    devices: BTreeMap<(String, String), Record>,
    /// By room, device and slot: order and id.
    press_ids: BTreeMap<(String, String, u64), (u64, String)>,
}

impl MemoryStore {
    /// Counts this start, and gives out what is stored.
    pub(crate) fn open(&self) -> Loaded {
        let mut tables = lock(&self.0);
        tables.start = tables.start.saturating_add(1);
        let devices = tables.devices.iter();
        let mut ids: Vec<_> = tables.press_ids.iter().collect();
        ids.sort_unstable_by_key(|((room, device, _), (order, _))| (order, room, device));
        let ids = ids.into_iter();
        Loaded {
            start: tables.start,
            values: tables.values.values().cloned().collect(),
            devices: devices
                .map(|((room, device), record)| (room.clone(), device.clone(), record.clone()))
                .collect(),
            press_ids: ids
                .map(|((room, device, _), (_, id))| (room.clone(), device.clone(), id.clone()))
                .collect(),
        }
    }
}

impl Store for MemoryStore {
    fn commit(&mut self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        for change in changes {
            tables.apply(change);
        }
        Ok(())
    }
}

impl Tables {
    fn apply(&mut self, change: &Change<'_>) {
        match change {
            Change::Keep {
                topic,
                value,
                history,
            } => {
                let stored = ((*topic).to_owned(), *history, value.clone());
                self.values.insert(self.next, stored);
                self.next += 1;
                let of_topic = self.values.iter_mut().filter(|(_, (of, ..))| of == topic);
                let places: Vec<_> = of_topic
                    .map(|(place, (_, keeps, _))| {
                        *keeps = *history;
                        *place
                    })
                    .collect();
                let surplus = places.len().saturating_sub(usize::from((*history).max(1)));
                for place in places.iter().take(surplus) {
                    self.values.remove(place);
                }
            }
            Change::Start(start) => self.start = self.start.max(*start),
            Change::Clear { topic } => self.values.retain(|_, (of, ..)| of != topic),
            Change::Device {
                room,
                device,
                record,
            } => {
                let device = ((*room).to_owned(), (*device).to_owned());
                self.devices.insert(device, (*record).clone());
            }
            Change::PressId {
                room,
                device,
                order,
                id,
            } => {
                let slot = order % PRESS_IDS as u64;
                let slot = ((*room).to_owned(), (*device).to_owned(), slot);
                self.press_ids.insert(slot, (*order, (*id).to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Disk, RedbStore};
    use latchbus_core::clicks::Counter;
    use proptest::prelude::*;
    use redb::{StorageBackend, backends::InMemoryBackend};
    use std::io;

    /// The real database's bytes, which outlive it.
    #[derive(Debug, Clone, Default)]
    struct Bytes(Arc<InMemoryBackend>);

    impl StorageBackend for Bytes {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write(offset, data)
        }
    }

    #[derive(Debug, Clone)]
    enum Operation {
        Keep { topic: usize, history: u16 },
        Clear { topic: usize },
        Device { device: usize, red: u64 },
        PressId { device: usize },
        Commit,
        Restart,
    }

    const NAMES: [&str; 3] = ["a", "a/b", "c"];

    fn operation() -> impl Strategy<Value = Operation> {
        let name = 0..NAMES.len();
        prop_oneof![
            6 => (name.clone(), 0..4_u16).prop_map(|(topic, history)| Operation::Keep { topic, history }),
            2 => name.clone().prop_map(|topic| Operation::Clear { topic }),
            2 => (name.clone(), 1..9_u64).prop_map(|(device, red)| Operation::Device { device, red }),
            2 => name.prop_map(|device| Operation::PressId { device }),
            3 => Just(Operation::Commit),
            1 => Just(Operation::Restart),
        ]
    }

    fn run(operations: Vec<Operation>) {
        let (bytes, memory) = (Bytes::default(), MemoryStore::default());
        let open = || {
            let bytes = bytes.clone();
            RedbStore::open(Disk::backend(move || Ok(bytes.clone()))).unwrap()
        };
        let (mut real, mut model) = (Some(open().0), memory.clone());
        memory.open();
        let (mut written, mut record) = (0_u64, Record::default());
        let mut batch: Vec<Operation> = Vec::new();
        for operation in operations.into_iter().chain([Operation::Restart]) {
            let restart = matches!(operation, Operation::Restart);
            if !restart && !matches!(operation, Operation::Commit) {
                batch.push(operation);
                continue;
            }
            let (mut texts, mut changes) = (Vec::new(), Vec::new());
            for operation in &batch {
                written += 1;
                texts.push(written.to_string());
                if let Operation::Device { red, .. } = operation {
                    let run = "1-0000beef".parse().unwrap();
                    record
                        .counts
                        .report(run, Counter::new(*red, 0), 64)
                        .unwrap();
                }
            }
            for (operation, text) in batch.iter().zip(&texts) {
                changes.push(match operation {
                    Operation::Keep { topic, history } => Change::Keep {
                        topic: NAMES[*topic],
                        value: StoredValue {
                            at: 1,
                            qos: 0,
                            expires_at: None,
                            properties: None,
                            payload: text.clone().into(),
                        },
                        history: *history,
                    },
                    Operation::Clear { topic } => Change::Clear {
                        topic: NAMES[*topic],
                    },
                    Operation::Device { device, .. } => Change::Device {
                        room: "main",
                        device: NAMES[*device],
                        record: &record,
                    },
                    Operation::PressId { device } => Change::PressId {
                        room: "main",
                        device: NAMES[*device],
                        order: text.parse().unwrap(),
                        id: text,
                    },
                    Operation::Commit | Operation::Restart => continue,
                });
            }
            real.as_mut().unwrap().commit(&changes).unwrap();
            model.commit(&changes).unwrap();
            drop(changes);
            batch.clear();
            if restart {
                drop(real.take());
                let (store, loaded) = open();
                assert_eq!(loaded, memory.open());
                real = Some(store);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn the_store_on_disk_agrees(operations in proptest::collection::vec(operation(), 0..60)) {
            run(operations);
        }
    }
}
