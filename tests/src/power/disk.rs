//! A disk in memory whose power can fail at any operation: of what was not synchronised then, any part may have
//! reached it, sector by sector.

use core::ops::Range;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use redb::StorageBackend;

/// What a disk writes whole, in bytes.
const SECTOR: usize = 512;

/// A disk. Clones are handles to one.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    /// What was done to it since, in order.
    unsynced: Vec<Change>,
    /// What a reader sees.
    seen: Vec<u8>,
    power: Power,
    /// No more bytes than this.
    capacity: Option<usize>,
    /// Says that it has synchronised, and has not.
    lies: bool,
    /// Operations that have changed something, for the choice of a moment.
    operations: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Power {
    #[default]
    On,
    /// It fails after so many more changes.
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
    pub fn holding(image: Vec<u8>) -> Self {
        let state = State {
            synced: image.clone(),
            seen: image,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The power fails at the change after this many.
    pub fn fail_after(&self, changes: u64) {
        self.lock().power = Power::FailsAfter(changes);
    }

    /// The power fails now, if it has not before.
    pub fn cut(&self) {
        self.lock().power = Power::Off;
    }

    /// Whether the power has failed.
    pub fn is_off(&self) -> bool {
        self.lock().power == Power::Off
    }

    /// Changes so far, over the life of this handle's disk.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// There is room for so many bytes more than there are; none: for as many as one likes.
    pub fn limit(&self, more: Option<usize>) {
        let mut state = self.lock();
        state.capacity = more.map(|more| state.seen.len() + more);
    }

    /// From now on it forgets to synchronise: what a test of durability must notice.
    pub fn lie(&self) {
        self.lock().lies = true;
    }

    /// What is on it when the power is back: all that was synchronised, and of the rest any part.
    pub fn image(&self, random: &mut Rng) -> Vec<u8> {
        let state = self.lock();
        let mut image = state.synced.clone();
        // Nearly nothing, nearly everything, or anything between.
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0][random.usize(..5)];
        for change in &state.unsynced {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn read(&self, offset: usize, out: &mut [u8]) -> io::Result<()> {
        if self.power == Power::Off {
            return Err(no_power());
        }
        let bytes = self.seen.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Counts a change; an error when the power fails before it.
    fn change(&mut self) -> io::Result<()> {
        self.power = match self.power {
            Power::FailsAfter(0) => Power::Off,
            Power::FailsAfter(more) => Power::FailsAfter(more - 1),
            power => power,
        };
        if self.power == Power::Off {
            return Err(no_power());
        }
        self.operations += 1;
        Ok(())
    }
}

fn no_power() -> io::Error {
    io::Error::other("no power")
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let state = self.lock();
        match state.power {
            Power::Off => Err(no_power()),
            _ => Ok(state.seen.len() as u64),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.lock().read(usize::try_from(offset).unwrap(), out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        let mut state = self.lock();
        state.change()?;
        if length > state.seen.len() && state.capacity.is_some_and(|most| length > most) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.seen.resize(length, 0);
        state.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        if state.lies {
            return Ok(());
        }
        let State {
            synced, unsynced, ..
        } = &mut *state;
        for change in unsynced.drain(..) {
            match change {
                Change::Length(length) => synced.resize(length, 0),
                Change::Write(offset, bytes) => {
                    let end = offset + bytes.len();
                    synced[offset..end].copy_from_slice(&bytes);
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let mut state = self.lock();
        state.change()?;
        // A file system that places what is written anew needs room for it, however long the file is.
        if state.capacity == Some(state.seen.len()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let place = state.seen.get_mut(offset..offset + data.len());
        place
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        state.unsynced.push(Change::Write(offset, data.to_vec()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(disk: &Disk) -> Vec<Vec<u8>> {
        let mut random = Rng::with_seed(7);
        let mut images: Vec<_> = (0..200).map(|_| disk.image(&mut random)).collect();
        images.sort();
        images.dedup();
        images
    }

    #[test]
    fn what_was_synchronised_stays_and_the_rest_may_be_torn() {
        let disk = Disk::default();
        disk.set_len(2_048).unwrap();
        disk.write(0, &[1; 1_024]).unwrap();
        disk.sync_data().unwrap();
        assert_eq!(images(&disk).len(), 1);
        disk.write(256, &[2; 512]).unwrap();
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
        let disk = Disk::holding(vec![1; 512]);
        disk.set_len(1_024).unwrap();
        disk.write(512, &[2; 512]).unwrap();
        let ends: Vec<_> = images(&disk)
            .iter()
            .map(|image| image.get(512).copied())
            .collect();
        assert_eq!(ends, [None, Some(0), Some(2)]);
    }

    #[test]
    fn without_power_nothing_is_done() {
        let disk = Disk::holding(vec![1; 512]);
        disk.fail_after(1);
        disk.write(0, &[2]).unwrap();
        disk.write(1, &[2]).unwrap_err();
        assert!(disk.is_off() && disk.len().is_err() && disk.read(0, &mut [0]).is_err());
        assert_eq!(images(&disk).len(), 2);
    }
}
