//! Where the bytes of the store on disk are: a file of a directory, or whatever a simulation puts in its
//! place.

use core::{fmt, ops::Bound};
use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process,
};

use redb::{
    BackendError, Database, DatabaseError, Durability, StorageBackend, StorageError,
    backends::FileBackend,
};

use super::StoreError;
use super::check::{check, refused};
use super::log::{FileLog, LogLimits};
use super::redb::{Mark, failed, look, mark};

/// The checkpoint.
pub(super) const FILE: &str = "latchbus.redb";
/// The log.
pub(super) const LOG: &str = "latchbus.log";

/// What the database may keep in memory of itself: the pages of its trees that commits come back to. All values
/// are in the hub anyway.
const CACHE_BYTES: usize = 64 << 20;

/// One of the two files of a store.
#[cfg(any(test, feature = "simulation"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFile {
    /// The database.
    Checkpoint,
    /// What was committed since.
    Log,
}

/// How the files are opened: the database at the start and again after a failure, the log at the start.
pub(crate) struct Disk {
    open: Box<dyn FnMut(What) -> Result<Opened, StoreError> + Send>,
    log: LogPlace,
    /// The database, if it is a file.
    path: Option<PathBuf>,
    pub(super) durability: Durability,
    pub(super) log_limits: LogLimits,
}

enum LogPlace {
    /// In a directory.
    File(PathBuf),
    #[cfg(any(test, feature = "simulation"))]
    Bytes(Box<dyn FnMut() -> io::Result<Box<dyn StorageBackend>> + Send>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// Whether its bytes are those that were written.
    Check,
    /// And whether its records can be read.
    Look,
    Open,
}

enum Opened {
    Checked(Mark),
    Database(Database),
}

impl Disk {
    /// A file in a directory, both of which are made if they are not there.
    pub(crate) fn directory(directory: &Path) -> Result<Self, StoreError> {
        create_directory(directory).map_err(StoreError::Directory)?;
        let (path, log) = (directory.join(FILE), directory.join(LOG));
        if !path.try_exists().map_err(StoreError::Directory)? {
            // The log is made after the database.
            if log.try_exists().map_err(StoreError::Directory)? {
                return Err(StoreError::Corrupted {
                    reason: format!("{FILE} is missing, and {LOG} is there"),
                });
            }
            create(directory, &path)?;
        }
        let file = path.clone();
        let log = LogPlace::File(log);
        let mut disk = Self::new(log, move || open_file(&file));
        disk.path = Some(path);
        Ok(disk)
    }

    /// Whether a directory holds a store.
    pub(crate) fn is_in(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// Bytes that `open` gives: those of the database twice at the start and again after each failure, those of the
    /// log once.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn backend<B: StorageBackend>(
        open: impl Fn(StoreFile) -> io::Result<B> + Send + Sync + 'static,
        log_limits: LogLimits,
    ) -> Self {
        let open = std::sync::Arc::new(open);
        let open_log = std::sync::Arc::clone(&open);
        let log = move || Ok(Box::new(open_log(StoreFile::Log)?) as Box<dyn StorageBackend>);
        let mut disk = Self::new(LogPlace::Bytes(Box::new(log)), move || {
            let bytes = open(StoreFile::Checkpoint).map_err(StorageError::Io)?;
            // The magic number is what redb writes last of a new database. A file gets its name only then.
            let mut magic = [0; 9];
            if bytes.len().map_err(StorageError::Io)? >= magic.len() as u64 {
                bytes.read(0, &mut magic).map_err(StorageError::Io)?;
                if magic == [0; 9] {
                    bytes.set_len(0).map_err(StorageError::Io)?;
                }
            }
            Ok(bytes)
        });
        disk.log_limits = log_limits;
        disk
    }

    fn new<B: StorageBackend>(
        log: LogPlace,
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
                    true => Ok(Opened::Checked(Mark::default())),
                    false if what == What::Check => check(bytes, mark).map(Opened::Checked),
                    false => check(bytes, look).map(Opened::Checked),
                };
            }
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(bytes);
            database.map(Opened::Database).map_err(refused)
        };
        Self {
            open: Box::new(open),
            log,
            path: None,
            durability: Durability::Immediate,
            log_limits: LogLimits::default(),
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

    /// Whether commits promise anything: false for a test of durability.
    pub(super) fn synchronises(&self) -> bool {
        matches!(self.durability, Durability::Immediate)
    }

    /// Whether the database is whole, found out without changing anything, and how much of the log it holds.
    pub(super) fn check(&mut self) -> Result<Mark, StoreError> {
        self.checked(What::Check)
    }

    /// Whether the records can be read too, in the same way.
    pub(super) fn look(&mut self) -> Result<Mark, StoreError> {
        self.checked(What::Look)
    }

    fn checked(&mut self, what: What) -> Result<Mark, StoreError> {
        match (self.open)(what)? {
            Opened::Checked(mark) => Ok(mark),
            Opened::Database(_) => unreachable!("it was asked to check"),
        }
    }

    pub(super) fn open(&mut self) -> Result<Database, StoreError> {
        match (self.open)(What::Open)? {
            Opened::Database(database) => Ok(database),
            Opened::Checked(_) => unreachable!("it was asked to open"),
        }
    }

    /// The log, if there is one, locked against other processes.
    pub(super) fn open_log(&mut self) -> Result<Option<Box<dyn StorageBackend>>, StoreError> {
        match &mut self.log {
            LogPlace::File(path) => match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => lock_log(file).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(StoreError::Log(error)),
            },
            #[cfg(any(test, feature = "simulation"))]
            LogPlace::Bytes(open) => {
                let bytes = open().map_err(StoreError::Log)?;
                let is_new = bytes.len().map_err(StoreError::Log)? == 0;
                Ok((!is_new).then_some(bytes))
            }
        }
    }

    /// A new log, in the file that was opened or one that is made. Nothing refers to it yet.
    pub(super) fn create_log(
        &mut self,
        opened: Option<Box<dyn StorageBackend>>,
    ) -> Result<Box<dyn StorageBackend>, StoreError> {
        let file = match (opened, &mut self.log) {
            (Some(file), _) => file,
            (None, LogPlace::File(path)) => {
                // Another process that has just made it has the store.
                let file = create_file(path);
                lock_log(file.map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => StoreError::Locked,
                    _ => StoreError::Log(error),
                })?)?
            }
            #[cfg(any(test, feature = "simulation"))]
            (None, LogPlace::Bytes(open)) => open().map_err(StoreError::Log)?,
        };
        FileLog::create(&*file, self.log_limits).map_err(StoreError::Log)?;
        if let LogPlace::File(path) = &self.log
            && let Some(directory) = path.parent()
        {
            sync(directory).map_err(StoreError::Log)?;
        }
        Ok(file)
    }

    /// The size of the database; 0 where it is no file.
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

fn lock_log(file: File) -> Result<Box<dyn StorageBackend>, StoreError> {
    let file = FileBackend::new(file).map_err(failed)?;
    match file.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
        // Where files cannot be locked, nothing can be done about it.
        Ok(true) | Err(BackendError::Unsupported) => Ok(Box::new(file)),
        Ok(false) => Err(StoreError::Locked),
        Err(BackendError::Io(error)) => Err(StoreError::Log(error)),
        Err(error) => Err(StoreError::Log(io::Error::other(error.to_string()))),
    }
}

/// Makes the directory of a store, and those above it, where they are not there yet. What is stored is for the account of
/// the server alone, since it may hold what the rules let few read: the mode is 0700, and that of files in it 0600.
///
/// # Errors
/// Those of the file system.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// A new file of a store.
fn create_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
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
    // An empty file is a new database.
    create_file(&new).map_err(StoreError::Directory)?;
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
