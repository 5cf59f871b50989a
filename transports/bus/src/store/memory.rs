//! The store in memory: what the one on disk is checked against, and the disk of simulations that need no
//! bytes.

use core::mem;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use super::{Change, Commit, Item, Loaded, Sizes, Store, StoreError, StoredNote};
use crate::rooms::{DeviceZero, PRESS_IDS, Record, RoomReset};
use crate::wake::lock;

/// What was committed. Clones are one store: what one commits, the next [`open`](Self::open) finds.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
    tombstones: usize,
}

#[derive(Debug, Clone, Default)]
struct Tables {
    start: u32,
    epoch: u64,
    revision: u64,
    forgotten: u64,
    left: u64,
    stopped: Option<u64>,
    lost: Vec<(u64, u64)>,
    items: BTreeMap<u64, (String, Item)>,
    devices: BTreeMap<(String, String), Record>,
    zeros: BTreeMap<(String, String), DeviceZero>,
    resets: BTreeMap<String, RoomReset>,
    /// By room, device and slot: order and id.
    press_ids: BTreeMap<(String, String, u64), (u64, String)>,
    /// By owner, client and part.
    notes: BTreeMap<(String, String, Vec<u8>), Vec<u8>>,
}

impl MemoryStore {
    /// A store of its own that holds the same.
    #[cfg(feature = "simulation")]
    pub(crate) fn copy(&self) -> Self {
        Self {
            tables: Arc::new(Mutex::new(lock(&self.tables).clone())),
            tombstones: self.tombstones,
        }
    }

    /// Counts this start, and gives out what is stored.
    pub(crate) fn open(&mut self, epoch: u64, tombstones: usize) -> Loaded {
        self.tombstones = tombstones;
        let mut tables = lock(&self.tables);
        if tables.start == 0 {
            tables.epoch = epoch;
            tables.stopped = Some(0);
        }
        tables.start = tables.start.saturating_add(1);
        let mut ids: Vec<_> = tables.press_ids.iter().collect();
        ids.sort_unstable_by_key(|((room, device, _), (order, _))| (order, room, device));
        let items = tables.items.iter();
        let devices = tables.devices.iter();
        let (zeros, resets) = (tables.zeros.iter(), tables.resets.iter());
        let notes = tables.notes.iter();
        let mut loaded = Loaded {
            start: tables.start,
            epoch: tables.epoch,
            items: items
                .map(|(rev, (topic, item))| (*rev, topic.clone(), item.clone()))
                .collect(),
            devices: devices
                .map(|((room, device), record)| (room.clone(), device.clone(), record.clone()))
                .collect(),
            zeros: zeros
                .map(|((room, device), zero)| (room.clone(), device.clone(), zero.clone()))
                .collect(),
            resets: resets
                .map(|(room, reset)| (room.clone(), reset.clone()))
                .collect(),
            press_ids: (ids.into_iter())
                .map(|((room, device, _), (_, id))| (room.clone(), device.clone(), id.clone()))
                .collect(),
            notes: notes
                .map(|((owner, client, part), value)| StoredNote {
                    owner: owner.clone(),
                    client: client.clone(),
                    part: part.clone(),
                    value: value.clone(),
                })
                .collect(),
            ..Loaded::default()
        };
        loaded.life.forgotten = tables.forgotten;
        loaded.life.left = tables.left;
        let (lost, stopped) = (mem::take(&mut tables.lost), tables.stopped.take());
        loaded.begin(tables.revision, stopped, lost);
        tables.lost = loaded.life.lost.clone();
        tables.revision = loaded.life.revision;
        loaded
    }
}

impl Store for MemoryStore {
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let mut tables = lock(&self.tables);
        for change in &commit.changes {
            tables.apply(change, self.tombstones);
        }
        tables.revision = commit.revision;
        tables.stopped = commit.stops;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn sizes(&self) -> Sizes {
        let tables = lock(&self.tables);
        let mut items = tables.items.iter();
        Sizes {
            oldest_event: items
                .find(|(_, (_, item))| matches!(item, Item::Event(_)))
                .map(|(rev, _)| *rev),
            notes: tables.notes.len() as u64,
            bytes: 0,
        }
    }
}

impl Tables {
    fn apply(&mut self, change: &Change<'_>, tombstones: usize) {
        match change {
            Change::Keep {
                topic,
                rev,
                value,
                history,
            } => {
                let item = Item::Value(*history, value.clone());
                self.items.insert(*rev, ((*topic).to_owned(), item));
                let mut values = BTreeSet::new();
                self.items.retain(|rev, (of, item)| match item {
                    Item::Value(keeps, _) if of == topic => {
                        *keeps = *history;
                        values.insert(*rev);
                        true
                    }
                    Item::Cleared { .. } => of != topic,
                    Item::Value(..) | Item::Event(_) => true,
                });
                let surplus = values.len().saturating_sub(usize::from((*history).max(1)));
                for rev in values.into_iter().take(surplus) {
                    self.items.remove(&rev);
                }
            }
            Change::Start(start) => self.start = self.start.max(*start),
            Change::Clear {
                topic,
                rev,
                at,
                expired,
            } => {
                let before = self.items.len();
                (self.items)
                    .retain(|_, (of, item)| of != topic || !matches!(item, Item::Value(..)));
                if self.items.len() == before {
                    return;
                }
                let (at, expired) = (*at, *expired);
                let cleared = Item::Cleared { at, expired };
                self.items.insert(*rev, ((*topic).to_owned(), cleared));
                let cleared = self.items.iter();
                let cleared = cleared.filter(|(_, (_, item))| matches!(item, Item::Cleared { .. }));
                let cleared: Vec<_> = cleared.map(|(rev, _)| *rev).collect();
                let surplus = cleared.len().saturating_sub(tombstones);
                for rev in cleared.into_iter().take(surplus) {
                    self.items.remove(&rev);
                    self.forgotten = rev;
                }
            }
            Change::Event { topic, rev, value } => {
                let event = Item::Event(value.clone());
                self.items.insert(*rev, ((*topic).to_owned(), event));
            }
            Change::Trim { confirmed, left } => {
                let mut newest_lost = None;
                self.items.retain(|rev, (_, item)| {
                    let owed = !matches!(item, Item::Event(_)) || rev > confirmed.max(left);
                    if !owed && rev > confirmed {
                        newest_lost = Some(*rev);
                    }
                    owed
                });
                self.left = newest_lost.unwrap_or(self.left);
            }
            Change::Device {
                room,
                device,
                record,
            } => {
                let device = ((*room).to_owned(), (*device).to_owned());
                self.devices.insert(device, Record::clone(record));
            }
            Change::Zero { room, device, zero } => {
                let device = ((*room).to_owned(), (*device).to_owned());
                self.zeros.insert(device, DeviceZero::clone(zero));
            }
            Change::Reset { room, reset } => {
                let room = (*room).to_owned();
                self.resets.insert(room, RoomReset::clone(reset));
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
            Change::Note {
                owner,
                client,
                part,
                value,
            } => {
                let of = |part: &[u8]| ((*owner).to_owned(), (*client).to_owned(), part.to_vec());
                match (part, value) {
                    (Some(part), Some(value)) => {
                        self.notes.insert(of(part), value.to_vec());
                    }
                    (Some(part), None) => {
                        self.notes.remove(&of(part));
                    }
                    (None, _) => self
                        .notes
                        .retain(|(whose, of, _), _| whose != owner || of != client),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Disk, FileStore, LogLimits, StoredValue, Sync};
    use latchbus_core::clicks::Counter;
    use proptest::prelude::*;
    use redb::{StorageBackend, backends::InMemoryBackend};
    use std::borrow::Cow;
    use std::io;

    /// The bytes of one file of the real store, which outlive it.
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
        Keep {
            topic: usize,
            history: u16,
        },
        Clear {
            topic: usize,
        },
        Event {
            topic: usize,
        },
        Trim {
            confirmed: u64,
            left: u64,
        },
        Device {
            device: usize,
            red: u64,
        },
        Zero {
            device: usize,
        },
        Reset {
            room: usize,
        },
        PressId {
            device: usize,
        },
        Note {
            client: usize,
            part: Option<u8>,
            keep: bool,
        },
        /// The next revisions come later.
        Skip {
            by: u64,
        },
        Commit,
        Restart,
    }

    const NAMES: [&str; 3] = ["a", "a/b", "c"];
    const TOMBSTONES: usize = 2;

    fn operation() -> impl Strategy<Value = Operation> {
        let name = 0..NAMES.len();
        let part = proptest::option::weighted(0.9, 0..3_u8);
        prop_oneof![
            6 => (name.clone(), 0..4_u16).prop_map(|(topic, history)| Operation::Keep { topic, history }),
            3 => name.clone().prop_map(|topic| Operation::Clear { topic }),
            3 => name.clone().prop_map(|topic| Operation::Event { topic }),
            2 => (0..9_u64, 0..9_u64).prop_map(|(confirmed, left)| Operation::Trim { confirmed, left }),
            2 => (name.clone(), 1..9_u64).prop_map(|(device, red)| Operation::Device { device, red }),
            1 => name.clone().prop_map(|device| Operation::Zero { device }),
            1 => name.clone().prop_map(|room| Operation::Reset { room }),
            2 => name.clone().prop_map(|device| Operation::PressId { device }),
            3 => (name, part, any::<bool>()).prop_map(|(client, part, keep)| Operation::Note { client, part, keep }),
            1 => (1..9_u64).prop_map(|by| Operation::Skip { by }),
            5 => Just(Operation::Commit),
            2 => Just(Operation::Restart),
        ]
    }

    fn value(rev: u64) -> StoredValue {
        StoredValue {
            at: rev * 10,
            qos: 0,
            expires_at: None,
            said: crate::store::Said::Nothing,
            payload: rev.to_string().into(),
        }
    }

    fn without_bytes(sizes: Sizes) -> Sizes {
        Sizes { bytes: 0, ..sizes }
    }

    fn run(operations: Vec<Operation>) {
        let files = [Bytes::default(), Bytes::default()];
        let mut model = MemoryStore::default();
        let open = |epoch| {
            let files = files.clone();
            let limits = LogLimits {
                checkpoint_bytes: 512,
                allocate_bytes: 256,
                unsynced_bytes: 64,
            };
            let disk = Disk::backend(move |file| Ok(files[file as usize].clone()), limits);
            FileStore::open(disk, epoch, TOMBSTONES).unwrap()
        };
        let mut real = Some(open(7).0);
        let loaded = model.open(7, TOMBSTONES);
        let (mut rev, mut record) = (loaded.life.revision, Record::default());
        let mut batch: Vec<Operation> = Vec::new();
        for operation in operations.into_iter().chain([Operation::Restart]) {
            match operation {
                Operation::Commit | Operation::Restart => {}
                Operation::Skip { by } => {
                    rev += by;
                    continue;
                }
                operation => {
                    batch.push(operation);
                    continue;
                }
            }
            let first = rev + 1;
            let mut revs = Vec::new();
            for operation in &batch {
                rev += 1;
                revs.push((rev, rev.to_string()));
                if let Operation::Device { red, .. } = operation {
                    let run = "1-0000beef".parse().unwrap();
                    record
                        .counts
                        .report(run, Counter::new(*red, 0), 64)
                        .unwrap();
                }
            }
            let parts = [[0_u8], [1], [2]];
            let change = |(operation, (rev, text)): (&Operation, &'_ (u64, String))| match operation
            {
                Operation::Keep { topic, history } => Change::Keep {
                    topic: NAMES[*topic],
                    rev: *rev,
                    value: value(*rev),
                    history: *history,
                },
                Operation::Clear { topic } => Change::Clear {
                    topic: NAMES[*topic],
                    rev: *rev,
                    at: *rev,
                    expired: rev % 2 == 0,
                },
                Operation::Event { topic } => Change::Event {
                    topic: NAMES[*topic],
                    rev: *rev,
                    value: value(*rev),
                },
                // Not what this commit brings.
                Operation::Trim { confirmed, left } => Change::Trim {
                    confirmed: first.saturating_sub(*confirmed + 1),
                    left: first.saturating_sub(*left + 1),
                },
                Operation::Device { device, .. } => Change::Device {
                    room: "main",
                    device: NAMES[*device],
                    record: Cow::Borrowed(&record),
                },
                Operation::Zero { device } => {
                    let mut zero = DeviceZero::default();
                    zero.counts.reset(&mut record.counts.clone(), *rev);
                    Change::Zero {
                        room: "main",
                        device: NAMES[*device],
                        zero: Cow::Owned(zero),
                    }
                }
                Operation::Reset { room } => {
                    let (newest, given) = (*rev, Counter::new(*rev, 1));
                    Change::Reset {
                        room: NAMES[*room],
                        reset: Cow::Owned(RoomReset {
                            newest,
                            given,
                            ..RoomReset::default()
                        }),
                    }
                }
                Operation::PressId { device } => Change::PressId {
                    room: "main",
                    device: NAMES[*device],
                    order: *rev,
                    id: if text.len() > 1 { "long" } else { "short" },
                },
                Operation::Note { client, part, keep } => Change::Note {
                    owner: "test",
                    client: NAMES[*client],
                    part: part.map(|part| parts[usize::from(part)].as_slice()),
                    value: keep.then_some(b"x".as_slice()).filter(|_| part.is_some()),
                },
                Operation::Skip { .. } | Operation::Commit | Operation::Restart => unreachable!(),
            };
            let commit = Commit {
                changes: batch.iter().zip(&revs).map(change).collect(),
                revision: rev,
                stops: (rev % 4 == 0).then_some(first),
                sync: [Sync::Now, Sync::Later][(rev % 2) as usize],
            };
            let real_store = real.as_mut().unwrap();
            real_store.commit(&commit).unwrap();
            model.commit(&commit).unwrap();
            assert_eq!(without_bytes(real_store.sizes()), model.sizes());
            batch.clear();
            if matches!(operation, Operation::Restart) {
                drop(real.take());
                let (store, again) = open(8);
                assert_eq!(again, model.open(8, TOMBSTONES));
                assert_eq!(
                    (again.epoch, without_bytes(store.sizes())),
                    (7, model.sizes())
                );
                real = Some(store);
                rev = again.life.revision;
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
