//! A disk in memory whose power can fail: of what was not synchronised then, any part may have reached it, sector by
//! sector. It holds the two files of a store, each of which is synchronised by itself.
//!
//! It fails when it is to synchronise. That is as good as at any write before: whatever part of the writes can be on
//! the disk then, can be there now. And it makes a seed a run, since a database may write its pages in any order.

use core::ops::Range;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use latchbus_bus::simulation::StoreFile;
use redb::StorageBackend;

/// What a disk writes whole, in bytes.
const SECTOR: usize = 512;

/// A disk. Clones are handles to one.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

/// What is on a disk: the bytes of each file.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image([Vec<u8>; 2]);

impl Image {
    /// A checkpoint without a log.
    pub fn of(checkpoint: Vec<u8>) -> Self {
        Self([checkpoint, Vec::new()])
    }
}

/// One file of a disk.
#[derive(Debug, Clone)]
pub struct DiskFile {
    disk: Disk,
    file: StoreFile,
}

#[derive(Debug, Default)]
struct State {
    files: [Bytes; 2],
    power: Power,
    /// No more bytes than this.
    capacity: Option<usize>,
    /// It fails to synchronise once, after it has done so so many times more.
    stumbles_after: Option<u64>,
    /// Says that it has synchronised, and has not.
    lies: bool,
}

#[derive(Debug, Default)]
struct Bytes {
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    /// What was done to it since, in order.
    unsynced: Vec<Change>,
    /// What a reader sees.
    seen: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Power {
    #[default]
    On,
    /// It fails after it has synchronised so many more times.
    FailsAfter(u64),
    Off,
}

#[derive(Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Disk {
    /// A disk that holds an image.
    pub fn holding(image: Image) -> Self {
        let files = image.0.map(|bytes| Bytes {
            synced: bytes.clone(),
            unsynced: Vec::new(),
            seen: bytes,
        });
        let state = State {
            files,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// One of its files.
    pub fn file(&self, file: StoreFile) -> DiskFile {
        let disk = self.clone();
        DiskFile { disk, file }
    }

    /// The power fails when it has synchronised so many times more and is to do so once again.
    pub fn fail_after(&self, times: u64) {
        self.lock().power = Power::FailsAfter(times);
    }

    /// The power fails now, if it has not before.
    pub fn cut(&self) {
        self.lock().power = Power::Off;
    }

    /// Whether the power has failed.
    pub fn is_off(&self) -> bool {
        self.lock().power == Power::Off
    }

    /// There is room for so many bytes more than there are; none: for as many as one likes.
    pub fn limit(&self, more: Option<usize>) {
        let mut state = self.lock();
        state.capacity = more.map(|more| state.length() + more);
    }

    /// It fails once to synchronise, after it has done so so many times more; none: no more. What was written then is
    /// read again, and reaches the disk with the next time.
    pub fn stumble_after(&self, times: Option<u64>) {
        self.lock().stumbles_after = times;
    }

    /// From now on it forgets to synchronise: what a test of durability must notice.
    pub fn lie(&self) {
        self.lock().lies = true;
    }

    /// What is on it when the power is back: all that was synchronised, and of the rest any part.
    pub fn image(&self, random: &mut Rng) -> Image {
        let state = self.lock();
        Image([0, 1].map(|file| state.files[file].image(random)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bytes {
    fn image(&self, random: &mut Rng) -> Vec<u8> {
        let mut image = self.synced.clone();
        let seed = random.u64(..);
        // Nearly nothing, nearly everything, or anything between.
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0][random.usize(..5)];
        let mut times = BTreeMap::new();
        for change in &self.unsynced {
            // Chance belongs to the place, not to the order of the writes.
            let place = match change {
                Change::Length(_) => usize::MAX,
                Change::Write(offset, _) => *offset,
            };
            let time = times.entry(place).or_insert(0_u64);
            *time += 1;
            let mut random =
                Rng::with_seed(seed ^ (place as u64).rotate_left(20) ^ time.rotate_left(50));
            match change {
                Change::Length(length) if random.f64() < kept => image.resize(*length, 0),
                Change::Length(_) => {}
                Change::Write(offset, bytes) => {
                    let torn = random.f64() < 0.5;
                    let whole = random.f64() < kept;
                    for sector in sectors(*offset, bytes.len()) {
                        if if torn { random.f64() < kept } else { whole } {
                            put(&mut image, *offset, bytes, sector);
                        }
                    }
                }
            }
        }
        image
    }

    fn read(&self, offset: usize, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.seen.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn synchronise(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Length(length) => self.synced.resize(length, 0),
                Change::Write(offset, bytes) => {
                    let end = offset + bytes.len();
                    self.synced[offset..end].copy_from_slice(&bytes);
                }
            }
        }
    }
}

/// The parts of a write that each reach the disk whole, or not at all: up to each border of a sector.
fn sectors(offset: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    let (first, end) = (offset / SECTOR, offset + length);
    let sectors = first..end.div_ceil(SECTOR);
    sectors.map(move |sector| (sector * SECTOR).max(offset)..((sector + 1) * SECTOR).min(end))
}

/// Copies a part of a write. What lies behind the end of the file is lost with the length that it needed.
fn put(image: &mut [u8], offset: usize, bytes: &[u8], part: Range<usize>) {
    if let Some(place) = image.get_mut(part.clone()) {
        place.copy_from_slice(&bytes[part.start - offset..part.end - offset]);
    }
}

impl State {
    fn length(&self) -> usize {
        self.files.iter().map(|file| file.seen.len()).sum()
    }

    fn has_power(&self) -> io::Result<()> {
        match self.power {
            Power::Off => Err(no_power()),
            Power::On | Power::FailsAfter(_) => Ok(()),
        }
    }

    /// Whether the power holds until it has synchronised.
    fn may_synchronise(&mut self) -> io::Result<()> {
        self.power = match self.power {
            Power::FailsAfter(0) => Power::Off,
            Power::FailsAfter(more) => Power::FailsAfter(more - 1),
            power => power,
        };
        self.has_power()?;
        match &mut self.stumbles_after {
            Some(0) => {
                self.stumbles_after = None;
                return Err(io::Error::other("a passing fault"));
            }
            Some(more) => *more -= 1,
            None => {}
        }
        Ok(())
    }
}

fn no_power() -> io::Error {
    io::Error::other("no power")
}

impl DiskFile {
    /// What it does, if it has power.
    fn with<T>(&self, what: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.lock();
        state.has_power()?;
        what(&mut state, self.file as usize)
    }
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, file| Ok(state.files[file].seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.with(|state, file| state.files[file].read(offset, out))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        self.with(|state, file| {
            let more = length.saturating_sub(state.files[file].seen.len());
            let full = |most| state.length() + more > most;
            if more > 0 && state.capacity.is_some_and(full) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let bytes = &mut state.files[file];
            bytes.seen.resize(length, 0);
            bytes.unsynced.push(Change::Length(length));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, file| {
            state.may_synchronise()?;
            if !state.lies {
                state.files[file].synchronise();
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.with(|state, file| {
            // A file system that places what is written anew needs room for it, however long the file is.
            if state.capacity == Some(state.length()) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let bytes = &mut state.files[file];
            let place = bytes.seen.get_mut(offset..offset + data.len());
            place
                .ok_or(io::ErrorKind::UnexpectedEof)?
                .copy_from_slice(data);
            bytes.unsynced.push(Change::Write(offset, data.to_vec()));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk whose checkpoint holds some bytes, and that file.
    fn holding(bytes: Vec<u8>) -> (Disk, DiskFile) {
        let disk = Disk::holding(Image([bytes, Vec::new()]));
        let file = disk.file(StoreFile::Checkpoint);
        (disk, file)
    }

    fn images(disk: &Disk) -> Vec<Vec<u8>> {
        let mut random = Rng::with_seed(7);
        let image = |_| disk.image(&mut random).0[0].clone();
        let mut images: Vec<_> = (0..200).map(image).collect();
        images.sort();
        images.dedup();
        images
    }

    #[test]
    fn what_was_synchronised_stays_and_the_rest_may_be_torn() {
        let (disk, file) = holding(Vec::new());
        file.set_len(2_048).unwrap();
        file.write(0, &[1; 1_024]).unwrap();
        // The other file is not this one.
        disk.file(StoreFile::Log).sync_data().unwrap();
        assert!(images(&disk).len() > 1);
        file.sync_data().unwrap();
        assert_eq!(images(&disk).len(), 1);
        file.write(256, &[2; 512]).unwrap();
        let images = images(&disk);
        // Each of the two sectors that it touches, or both, or none.
        assert_eq!(images.len(), 4);
        for image in &images {
            assert_eq!((image.len(), image[0], image[1_023]), (2_048, 1, 1));
            assert!([1, 2].contains(&image[300]) && [1, 2].contains(&image[600]));
        }
    }

    #[test]
    fn a_length_may_be_lost_with_what_lies_behind_it() {
        let (disk, file) = holding(vec![1; 512]);
        file.set_len(1_024).unwrap();
        file.write(512, &[2; 512]).unwrap();
        let ends: Vec<_> = images(&disk)
            .iter()
            .map(|image| image.get(512).copied())
            .collect();
        assert_eq!(ends, [None, Some(0), Some(2)]);
    }

    #[test]
    fn without_power_nothing_is_done() {
        let (disk, file) = holding(vec![1; 512]);
        disk.fail_after(1);
        file.sync_data().unwrap();
        file.write(0, &[2]).unwrap();
        file.sync_data().unwrap_err();
        file.write(1, &[2]).unwrap_err();
        assert!(disk.is_off() && file.len().is_err() && file.read(0, &mut [0]).is_err());
        assert_eq!(images(&disk).len(), 2);
    }
}
