//! The state file: what a device must not forget, on disk.
//!
//! A write replaces the whole file: a temporary file beside it is written and synchronised, takes its name,
//! and the directory is synchronised. Whoever is killed at any moment leaves the old file or the new one. A
//! lock on a second file beside it (`<name>.lock`, which stays) keeps a second client out; the system
//! releases it when the process ends, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use latchbus_core::clicks::{Counter, Incarnation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::device::Record;
use crate::simulation::Run;

/// The form of the file that this program writes, and the only one that it reads.
const VERSION: u32 = 1;

/// No state file is longer, in bytes.
const MAX_BYTES: u64 = 4_096;

/// Why there is no state to begin with. Nothing was changed.
#[derive(Debug, Error)]
pub(crate) enum StateError {
    #[error("neither XDG_STATE_HOME nor HOME is an absolute path: name a state file with --state")]
    NoHome,
    #[error("{} names no file", .0.display())]
    NoFile(PathBuf),
    #[error("cannot use the directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot lock {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is in use by another latchbus-device", .0.display())]
    Locked(PathBuf),
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged ({reason}): move it away to begin anew", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} is of room {room} and id {id}: name another file with --state", path.display())]
    OfAnother {
        path: PathBuf,
        room: String,
        id: String,
    },
}

/// A device's state file, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct StateFile {
    room: String,
    id: String,
    path: PathBuf,
    temporary: PathBuf,
    /// The directory, to be synchronised after each replacement.
    directory: File,
    _lock: File,
}

impl StateFile {
    /// Where the state of a device is when the user names no place:
    /// `$XDG_STATE_HOME/latchbus/<room>-<id>.json`, or below `~/.local/state`. The directories are made.
    pub(crate) fn default_path(
        room: &str,
        id: &str,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<PathBuf, StateError> {
        // The XDG Base Directory Specification ignores relative paths.
        let absolute = |name| variable(name).filter(|path| path.is_absolute());
        let home = || absolute("HOME").map(|home| home.join(".local/state"));
        let state = absolute("XDG_STATE_HOME").or_else(home);
        let directory = state.ok_or(StateError::NoHome)?.join("latchbus");
        make_directory(&directory).map_err(|source| StateError::Directory {
            path: directory.clone(),
            source,
        })?;
        Ok(directory.join(format!("{room}-{id}.json")))
    }

    /// Locks the state file of a device and reads it. `None` when there is no such file yet.
    ///
    /// # Errors
    /// When it is in use, cannot be read, is damaged, or belongs to another device. It is left as it was.
    pub(crate) fn open(
        path: &Path,
        room: &str,
        id: &str,
    ) -> Result<(Self, Option<Record>), StateError> {
        let path = resolve(path)?;
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(StateError::NoFile(path));
        };
        // Before a lock file is made beside it.
        if path.is_dir() {
            return Err(StateError::NoFile(path));
        }
        let directory = File::open(directory).map_err(|source| StateError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let beside = |suffix: &str| {
            let mut name = name.to_owned();
            name.push(suffix);
            path.with_file_name(name)
        };
        let file = Self {
            room: room.to_owned(),
            id: id.to_owned(),
            temporary: beside(".tmp"),
            _lock: lock(&path, &beside(".lock"))?,
            directory,
            path,
        };
        let record = file.read()?;
        Ok((file, record))
    }

    /// The file's path, symbolic links resolved.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file. When this returns, the record is on disk.
    ///
    /// # Errors
    /// When the disk does not take it; then the file holds the record before it.
    pub(crate) fn save(&mut self, record: &Record) -> io::Result<()> {
        let mut text = serde_json::to_vec(&Form::new(self, record))?;
        text.push(b'\n');
        let mut temporary = File::create(&self.temporary)?;
        temporary.write_all(&text)?;
        temporary.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.directory.sync_all()
    }

    fn read(&self) -> Result<Option<Record>, StateError> {
        let failed = |source| StateError::Read {
            path: self.path.clone(),
            source,
        };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut text = Vec::new();
        let mut bounded = file.take(MAX_BYTES + 1);
        bounded.read_to_end(&mut text).map_err(failed)?;
        let damaged = |reason| StateError::Damaged {
            path: self.path.clone(),
            reason,
        };
        if u64::try_from(text.len()).is_ok_and(|bytes| bytes > MAX_BYTES) {
            return Err(damaged(format!("longer than {MAX_BYTES} bytes")));
        }
        let form = parse(&text).map_err(damaged)?;
        if (form.room.as_str(), form.id.as_str()) != (&self.room, &self.id) {
            let (room, id) = (form.room, form.id);
            let path = self.path.clone();
            return Err(StateError::OfAnother { path, room, id });
        }
        form.record().map(Some).map_err(|e| damaged(e.to_owned()))
    }
}

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
struct Form {
    version: u32,
    room: String,
    id: String,
    boot: u32,
    /// Eight hex digits, as in the topic.
    nonce: String,
    /// Takes every other key, and accepts those of the colours alone.
    #[serde(flatten)]
    count: Counter,
    offered: Counter,
    simulation: Option<Run>,
}

/// What tells the form, before the rest is looked at.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn parse(text: &[u8]) -> Result<Form, String> {
    let Version { version } = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    if version != VERSION {
        return Err(format!("version {version}, this program reads {VERSION}"));
    }
    serde_json::from_slice(text).map_err(|e| e.to_string())
}

impl Form {
    fn new(file: &StateFile, record: &Record) -> Self {
        Self {
            version: VERSION,
            room: file.room.clone(),
            id: file.id.clone(),
            boot: record.incarnation.boot(),
            nonce: format!("{:08x}", record.incarnation.nonce()),
            count: record.count,
            offered: record.offered,
            simulation: record.run,
        }
    }

    fn record(&self) -> Result<Record, &'static str> {
        let incarnation: Incarnation = format!("{}-{}", self.boot, self.nonce)
            .parse()
            .map_err(|_| "boot and nonce are no incarnation")?;
        if !self.count.covers(self.offered) {
            return Err("more clicks offered than made");
        }
        if self.simulation.is_some_and(|run| !run.is_sound()) {
            return Err("more clicks simulated than meant");
        }
        Ok(Record {
            incarnation,
            count: self.count,
            offered: self.offered,
            run: self.simulation,
        })
    }
}

/// The path without symbolic links, so that whoever names the same file finds the same lock, and a
/// replacement replaces the file and not the link.
fn resolve(path: &Path) -> Result<PathBuf, StateError> {
    match fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name();
            let name = name.ok_or_else(|| StateError::NoFile(path.to_owned()))?;
            let directory = match path.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            let failed = |source| StateError::Directory {
                path: directory.to_owned(),
                source,
            };
            Ok(fs::canonicalize(directory).map_err(failed)?.join(name))
        }
        Err(source) => Err(StateError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn lock(path: &Path, lock_path: &Path) -> Result<File, StateError> {
    let failed = |source| StateError::Lock {
        path: lock_path.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let lock = options.open(lock_path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StateError::Locked(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes a directory and those above it, each durably.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    make_directory(parent)?;
    match fs::create_dir(path) {
        // Another client was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = concat!(
        r#"{"version":1,"room":"main","id":"k1","boot":3,"nonce":"0badcafe","red":12,"blue":7,"#,
        r#""offered":{"red":10,"blue":7},"simulation":{"seed":7,"count":500,"made":19}}"#,
        "\n"
    );

    fn record() -> Record {
        let mut run = Run::resume(None, Some(500), Some(7), || unreachable!());
        for _ in 0..19 {
            run.click();
        }
        Record {
            incarnation: "3-0badcafe".parse().unwrap(),
            count: Counter::new(12, 7),
            offered: Counter::new(10, 7),
            run: Some(run),
        }
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let (mut file, none) = StateFile::open(&path, "main", "k1").unwrap();
        assert_eq!(none, None);
        assert!(!path.exists(), "opening makes no state");
        file.save(&record()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), GOLDEN);
        drop(file);
        let (mut file, read) = StateFile::open(&path, "main", "k1").unwrap();
        assert_eq!(read, Some(record()));
        let bare = Record::new(1).unwrap();
        file.save(&bare).unwrap();
        drop(file);
        assert_eq!(StateFile::open(&path, "main", "k1").unwrap().1, Some(bare));
    }

    #[test]
    fn a_left_over_temporary_file_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let temporary = directory.path().join("state.json.tmp");
        fs::write(&path, GOLDEN).unwrap();
        fs::write(&temporary, "{\"version\":1,\"room\"").unwrap();
        let (mut file, read) = StateFile::open(&path, "main", "k1").unwrap();
        assert_eq!(read, Some(record()));
        file.save(&record()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), GOLDEN);
        assert!(!temporary.exists());
    }

    #[test]
    fn one_client_at_a_time_also_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let link = directory.path().join("link.json");
        let (mut file, _) = StateFile::open(&path, "main", "k1").unwrap();
        file.save(&record()).unwrap();
        std::os::unix::fs::symlink("state.json", &link).unwrap();
        for path in [&path, &link] {
            let second = StateFile::open(path, "main", "k1");
            assert!(matches!(second, Err(StateError::Locked(_))));
        }
        drop(file);
        let (mut file, _) = StateFile::open(&link, "main", "k1").unwrap();
        file.save(&Record::new(1).unwrap()).unwrap();
        assert!(link.is_symlink());
        assert_ne!(fs::read_to_string(&path).unwrap(), GOLDEN);
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let changed = |from: &str, to: &str| {
            assert!(GOLDEN.contains(from), "{from}");
            GOLDEN.replacen(from, to, 1)
        };
        for text in [
            String::new(),
            "null".to_owned(),
            GOLDEN.get(..GOLDEN.len() - 2).unwrap().to_owned(),
            format!("{GOLDEN}x"),
            " ".repeat(5_000),
            changed("\"version\":1", "\"version\":2"),
            changed("\"version\":1,", ""),
            changed("\"boot\":3", "\"boot\":0"),
            changed("\"boot\":3", "\"boot\":-3"),
            changed("\"boot\":3", "\"boot\":4294967296"),
            changed("0badcafe", "BADCAFE0"),
            changed("0badcafe", "badcafe"),
            changed("\"red\":12", "\"red\":12.0"),
            changed("\"red\":12", "\"red\":9007199254740992"),
            changed("\"red\":12", "\"red\":9"),
            changed("\"red\":12", "\"red\":12,\"red\":13"),
            changed("\"red\":12", "\"red\":12,\"green\":1"),
            changed("\"blue\":7,", ""),
            changed("\"made\":19", "\"made\":501"),
            changed("\"seed\":7", "\"seed\":-7"),
        ] {
            fs::write(&path, &text).unwrap();
            let opened = StateFile::open(&path, "main", "k1");
            assert!(matches!(opened, Err(StateError::Damaged { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn the_file_of_another_device_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        fs::write(&path, GOLDEN).unwrap();
        for (room, id) in [("main", "k2"), ("other", "k1")] {
            let opened = StateFile::open(&path, room, id);
            assert!(matches!(opened, Err(StateError::OfAnother { .. })));
        }
    }

    #[test]
    fn the_default_place_follows_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("home");
        let xdg = directory.path().join("xdg");
        let path = |home: Option<&Path>, xdg: Option<&Path>| {
            StateFile::default_path("main", "k1", |name| match name {
                "HOME" => home.map(Path::to_owned),
                "XDG_STATE_HOME" => xdg.map(Path::to_owned),
                _ => None,
            })
        };
        let below_home = home.join(".local/state/latchbus/main-k1.json");
        let below_xdg = xdg.join("latchbus/main-k1.json");
        assert_eq!(path(Some(&home), None).unwrap(), below_home);
        assert_eq!(path(Some(&home), Some(&xdg)).unwrap(), below_xdg);
        let relative = Path::new("x");
        assert_eq!(path(Some(&home), Some(relative)).unwrap(), below_home);
        assert!(below_home.parent().unwrap().is_dir());
        assert!(below_xdg.parent().unwrap().is_dir());
        assert!(matches!(
            path(None, Some(relative)),
            Err(StateError::NoHome)
        ));
    }

    #[test]
    fn places_that_cannot_be_used_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing/state.json");
        let opened = StateFile::open(&missing, "main", "k1");
        assert!(matches!(opened, Err(StateError::Directory { .. })));
        let below = directory.path().join("below");
        fs::create_dir(&below).unwrap();
        let opened = StateFile::open(&below, "main", "k1");
        assert!(matches!(opened, Err(StateError::NoFile(_))));
        let left = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 1, "nothing is left beside it");
    }
}
