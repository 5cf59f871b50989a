//! Where the bytes of the store on disk are: a file of a directory, or whatever a simulation puts in its
//! place.

use core::fmt;
use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process,
};

use redb::{
    Database, DatabaseError, Durability, StorageBackend, StorageError, backends::FileBackend,
};

use super::StoreError;
use super::check::{check, refused};
use super::redb::{failed, look};

pub(super) const FILE: &str = "latchbus.redb";

/// What the database may keep in memory of itself: the pages of its trees that commits come back to. All values
/// are in the hub anyway.
const CACHE_BYTES: usize = 64 << 20;

/// How the database is opened, at the start and again after a failure.
pub(crate) struct Disk {
    open: Box<dyn FnMut(What) -> Result<Option<Database>, StoreError> + Send>,
    /// The file, if it is one.
    path: Option<PathBuf>,
    pub(super) durability: Durability,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// Whether its bytes are those that were written.
    Check,
    /// And whether its records can be read.
    Look,
    Open,
}

impl Disk {
    /// A file in a directory, both of which are made if they are not there.
    pub(crate) fn directory(directory: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(StoreError::Directory)?;
        let path = directory.join(FILE);
        if !path.try_exists().map_err(StoreError::Directory)? {
            create(directory, &path)?;
        }
        let file = path.clone();
        let mut disk = Self::new(move || open_file(&file));
        disk.path = Some(path);
        Ok(disk)
    }

    /// Whether a directory holds a store.
    pub(crate) fn is_in(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// Bytes that `open` gives, which is asked for them again after each failure, and twice at the start.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn backend<B: StorageBackend>(
        mut open: impl FnMut() -> io::Result<B> + Send + 'static,
    ) -> Self {
        Self::new(move || {
            let bytes = open().map_err(StorageError::Io)?;
            // The magic number is what redb writes last of a new database. A file gets its name only then.
            let mut magic = [0; 9];
            if bytes.len().map_err(StorageError::Io)? >= magic.len() as u64 {
                bytes.read(0, &mut magic).map_err(StorageError::Io)?;
                if magic == [0; 9] {
                    bytes.set_len(0).map_err(StorageError::Io)?;
                }
            }
            Ok(bytes)
        })
    }

    fn new<B: StorageBackend>(
        mut open: impl FnMut() -> Result<B, DatabaseError> + Send + 'static,
    ) -> Self {
        let open = move |what| {
            let bytes = open().map_err(failed)?;
            if what != What::Open {
                let is_new = bytes
                    .len()
                    .map_err(|error| failed(StorageError::Io(error)))?
                    == 0;
                return match is_new {
                    true => Ok(None),
                    false if what == What::Check => check(bytes, |_| Ok(())).map(|()| None),
                    false => check(bytes, look).map(|()| None),
                };
            }
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(bytes);
            database.map(Some).map_err(refused)
        };
        Self {
            open: Box::new(open),
            path: None,
            durability: Durability::Immediate,
        }
    }

    /// The same with commits that promise nothing: what a test of durability must notice.
    #[cfg(feature = "simulation")]
    pub(crate) fn without_durability(self) -> Self {
        Self {
            durability: Durability::None,
            ..self
        }
    }

    /// Whether the database is whole, found out without changing anything.
    pub(super) fn check(&mut self) -> Result<(), StoreError> {
        (self.open)(What::Check).map(drop)
    }

    /// Whether the records can be read too, in the same way.
    pub(super) fn look(&mut self) -> Result<(), StoreError> {
        (self.open)(What::Look).map(drop)
    }

    pub(super) fn open(&mut self) -> Result<Database, StoreError> {
        let database = (self.open)(What::Open)?;
        Ok(database.unwrap_or_else(|| unreachable!("it was asked to open")))
    }

    /// Its size; 0 where it is no file.
    pub(super) fn bytes(&self) -> u64 {
        let metadata = self.path.as_ref().and_then(|path| fs::metadata(path).ok());
        metadata.map_or(0, |file| file.len())
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("path", &self.path)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

fn open_file(path: &Path) -> Result<FileBackend, DatabaseError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    FileBackend::new(file)
}

/// Makes a new database under another name, and gives it its own when it is on disk: a power cut leaves no half
/// of one.
fn create(directory: &Path, path: &Path) -> Result<(), StoreError> {
    let new = directory.join(format!("{FILE}.{}.new", process::id()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::Directory(error));
        }
        _ => {}
    }
    let created = Database::create(&new).map(drop).map_err(failed);
    let named = created.and_then(|()| name(directory, &new, path).map_err(StoreError::Directory));
    if named.is_err() {
        // What is in the way of this is said by the other error.
        let _left = fs::remove_file(&new);
    }
    named
}

fn name(directory: &Path, new: &Path, path: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    // A link does not replace what another process has made meanwhile; some file systems have none.
    match fs::hard_link(new, path) {
        Ok(()) => fs::remove_file(new)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(new)?,
        Err(_) => fs::rename(new, path)?,
    }
    sync(directory)
}

/// Makes the names in a directory durable, where that can be asked for.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(directory)?.sync_all(),
        false => Ok(()),
    }
}
