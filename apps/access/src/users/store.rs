//! The password file on the disk: how it is read, and how it is replaced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::file::{FileError, PasswordFile};
use crate::stamp::Stamp;

/// The largest password file, in bytes.
pub const MAX_FILE_BYTES: u64 = 268_435_456;

/// A password file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("{path}: cannot {what}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its text is none of a password file.
    #[error("{path}", path = path.display())]
    Text {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: FileError,
    },
    /// It is larger than [`MAX_FILE_BYTES`].
    #[error("{path}: larger than {MAX_FILE_BYTES} bytes", path = path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// Another program is writing it.
    #[error("{path}: another program is changing it", path = path.display())]
    Busy {
        /// Which file.
        path: PathBuf,
    },
}

impl StoreError {
    fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, what, source }
    }

    /// Whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a password file.
///
/// # Errors
/// When it cannot be read, or one of its lines cannot.
pub fn read(path: &Path) -> Result<PasswordFile, StoreError> {
    read_with_stamp(path).map(|(file, _)| file)
}

/// Reads a password file. Also says how it was before it was read.
pub(super) fn read_with_stamp(path: &Path) -> Result<(PasswordFile, Stamp), StoreError> {
    let cannot_read = || StoreError::io(path, "read it");
    let file = File::open(path).map_err(cannot_read())?;
    let stamp = Stamp::new(&file.metadata().map_err(cannot_read())?);
    let mut bytes = Vec::new();
    let mut file = file.take(MAX_FILE_BYTES + 1);
    file.read_to_end(&mut bytes).map_err(cannot_read())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(StoreError::TooLarge { path: path.into() });
    }
    let file = PasswordFile::from_bytes(&bytes).map_err(|source| StoreError::Text {
        path: path.into(),
        source,
    })?;
    Ok((file, stamp))
}

/// Whether to wait for another program that is changing the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Yes,
    No,
}

/// Changes a password file; one that does not exist is empty. Two programs that do so at once do it one after the other, and
/// whoever reads the file meanwhile finds it as it was before or after. Nothing is written where `change` changes nothing.
///
/// The file is readable by its owner alone, and by its group where it was before. It keeps its owner, where the system
/// allows that: an administrator can change the file of a server that runs under another account.
///
/// # Errors
/// When it cannot be read or written. It is then as it was.
pub fn update<T>(
    path: &Path,
    change: impl FnOnce(&mut PasswordFile) -> T,
) -> Result<T, StoreError> {
    update_with(path, Wait::Yes, change).map(|(changed, _)| changed)
}

/// The same. Also says how the file is afterwards.
pub(super) fn update_with<T>(
    path: &Path,
    wait: Wait,
    change: impl FnOnce(&mut PasswordFile) -> T,
) -> Result<(T, Option<Stamp>), StoreError> {
    // A link stays a link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let _lock = lock(path, wait)?;
    let before = match read(path) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => PasswordFile::default(),
        Err(error) => return Err(error),
    };
    let mut file = before.clone();
    let changed = change(&mut file);
    if file == before && path.exists() {
        return Ok((changed, None));
    }
    let stamp = replace(path, file.to_string().as_bytes())?;
    Ok((changed, Some(stamp)))
}

/// The lock is a file of its own beside it, since the file itself is replaced. It ends when it is dropped.
fn lock(path: &Path, wait: Wait) -> Result<File, StoreError> {
    let path = &beside(path, ".lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path);
    let file = file.map_err(StoreError::io(path, "open it"))?;
    if wait == Wait::Yes {
        file.lock().map_err(StoreError::io(path, "lock it"))?;
        // An administrator's lock must not keep the server from its own.
        keep_owner(&file, path.with_extension("").as_path());
        return Ok(file);
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy { path: path.clone() }),
        Err(TryLockError::Error(source)) => Err(StoreError::io(path, "lock it")(source)),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<Stamp, StoreError> {
    let new = &beside(path, ".new");
    let cannot_write = || StoreError::io(new, "write it");
    // What an earlier writer has left that was killed.
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot_write()(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode(path));
    let mut file = options.open(new).map_err(cannot_write())?;
    keep_owner(&file, path);
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(cannot_write())?;
    fs::rename(new, path).map_err(StoreError::io(path, "replace it"))?;
    let stamp = file.metadata().map_err(cannot_write())?;
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        let directory = match directory.as_os_str().is_empty() {
            true => Path::new("."),
            false => directory,
        };
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(StoreError::io(directory, "sync it"))?;
    }
    Ok(Stamp::new(&stamp))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Of a file before, the group's rights stay.
#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt as _;

    fs::metadata(path).map_or(0o600, |before| 0o600 | (before.mode() & 0o060))
}

/// Gives a file that root has written to the owner of the file before it, or of the directory.
#[cfg(unix)]
fn keep_owner(file: &File, path: &Path) {
    use std::os::unix::fs::{MetadataExt as _, fchown};

    let directory = path.parent().map(fs::metadata);
    let before = fs::metadata(path).ok().or_else(|| directory?.ok());
    let Some(before) = before else { return };
    let is_same = file
        .metadata()
        .is_ok_and(|now| (now.uid(), now.gid()) == (before.uid(), before.gid()));
    if !is_same {
        // Who may not give files away keeps them.
        let _ = fchown(file, Some(before.uid()), Some(before.gid()));
    }
}

#[cfg(not(unix))]
fn keep_owner(_file: &File, _path: &Path) {}

/// Whether everybody on the machine may read or write this file.
#[cfg(unix)]
pub(super) fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    fs::metadata(path).is_ok_and(|now| now.mode() & 0o007 != 0)
}

#[cfg(not(unix))]
pub(super) fn is_open_to_others(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::users::hash::PasswordHash;

    const HASH: &str = "$2y$05$MFSMmI2PqSL9QjgAtX0dJ.ZlE7EIzily2QeWpbwG6P9LKZmHYwEDW";

    fn add(path: &Path, name: &str) {
        let hash = PasswordHash::parse(HASH).unwrap();
        update(path, |file| file.set(name, hash)).unwrap().unwrap();
    }

    #[test]
    fn two_writers_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = &directory.path().join("users");
        thread::scope(|scope| {
            for writer in 0..4 {
                scope.spawn(move || {
                    for number in 0..8 {
                        add(path, &format!("{writer}-{number}"));
                    }
                });
            }
        });
        assert_eq!(read(path).unwrap().len(), 32);
        assert!(!beside(path, ".new").exists());
    }

    #[test]
    fn who_does_not_wait_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = &directory.path().join("users");
        let held = lock(path, Wait::Yes).unwrap();
        let busy = update_with(path, Wait::No, |_| ());
        assert!(matches!(busy, Err(StoreError::Busy { .. })));
        drop(held);
        assert!(update_with(path, Wait::No, |_| ()).is_ok());
    }

    #[test]
    fn a_broken_file_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = &directory.path().join("users");
        fs::write(path, "anna\n").unwrap();
        assert!(matches!(update(path, |_| ()), Err(StoreError::Text { .. })));
        assert_eq!(fs::read(path).unwrap(), b"anna\n");
    }

    #[cfg(unix)]
    #[test]
    fn it_is_not_for_others() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

        let directory = tempfile::tempdir().unwrap();
        let path = &directory.path().join("users");
        let mode = || fs::metadata(path).unwrap().mode() & 0o777;
        add(path, "anna");
        assert_eq!(mode(), 0o600);
        assert!(!is_open_to_others(path));
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(is_open_to_others(path));
        add(path, "ben");
        assert_eq!(mode(), 0o640, "the group may still read");
        let link = &directory.path().join("link");
        symlink(path, link).unwrap();
        add(link, "zoe");
        assert!(link.is_symlink());
        assert_eq!(read(path).unwrap().len(), 3);
    }
}
