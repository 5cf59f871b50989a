//! The users of a running server.

use core::fmt;
use core::hash::BuildHasher as _;
use core::net::IpAddr;
use core::time::Duration;
use std::collections::HashMap;
use std::hash::RandomState;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use latchbus_bus::threads;
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::{info, warn};

use super::cache::Cache;
use super::file::PasswordFile;
use super::hash::PasswordHash;
use super::store::{self, StoreError, Wait};
use super::throttle::{Attempt, Delays, Throttle};
use crate::stamp::Stamp;

/// How often the file is looked at. It is read when it has changed and has stayed the same from one look to the next, so
/// that one who writes it in parts is not read in the middle.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The most passwords that are hashed at a time; at most half of the machine's processors are used.
pub const MAX_VERIFICATIONS: usize = threads::MAX_THREADS;

/// The most sign-ins that wait for that. Further ones are refused as [`Refused::Busy`].
pub const MAX_WAITING: usize = 4_096;

/// The users of a running server, as its password file says. The file is read again when it changes; where it cannot be
/// read, the users stay as they were.
///
/// Cloning it gives another handle to the same.
#[derive(Clone)]
pub struct Users(Arc<Inner>);

struct Inner {
    path: PathBuf,
    table: Mutex<Arc<Table>>,
    /// Held while the file is read or written, with what was seen of it.
    seen: Mutex<Seen>,
    versions: watch::Sender<u64>,
    verifications: Arc<Semaphore>,
    waiting: Semaphore,
    throttle: Mutex<Throttle>,
    cache: Mutex<Cache>,
    keys: RandomState,
}

#[derive(Debug, Default)]
struct Table {
    users: HashMap<String, User>,
    /// All names, for one who has none to be verified as long as one of them.
    names: Vec<String>,
}

#[derive(Debug, Clone)]
struct User {
    hash: Arc<PasswordHash>,
    version: u64,
}

#[derive(Debug, Default)]
struct Seen {
    /// What was read, or could not be.
    read: Option<Stamp>,
    /// What the last look has found.
    last_look: Option<Stamp>,
    is_missing: bool,
    version: u64,
}

/// Why someone is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such user, or the password is another.
    #[error("unknown user or wrong password")]
    Wrong,
    /// There were too many failures before. Nothing was verified.
    #[error("too many failures before, wait {}s", .0.as_secs_f32().ceil())]
    Throttled(Duration),
    /// [`MAX_WAITING`] others wait already.
    #[error("too many sign-ins at a time")]
    Busy,
}

impl Users {
    /// Reads a password file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(path, Delays::default())
    }

    /// The same with other delays after failures.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open_with(path: impl Into<PathBuf>, delays: Delays) -> Result<Self, StoreError> {
        let path = path.into();
        let (file, stamp) = store::read_with_stamp(&path)?;
        let users = Self(Arc::new(Inner {
            path,
            table: Mutex::default(),
            seen: Mutex::default(),
            versions: watch::Sender::new(0),
            verifications: Arc::new(Semaphore::new(threads::count())),
            waiting: Semaphore::new(MAX_WAITING),
            throttle: Mutex::new(Throttle::new(delays)),
            cache: Mutex::new(Cache::new()),
            keys: RandomState::new(),
        }));
        users.take_over(&mut lock(&users.0.seen), &file, stamp);
        Ok(users)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.table().users.len()
    }

    /// Whether there are none: then nobody can sign in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The version of a user's password: another when it was changed in the file, none when the user was removed. A hash
    /// that was replaced by a better one of the same password is no change.
    pub fn version(&self, name: &str) -> Option<u64> {
        self.table().users.get(name).map(|user| user.version)
    }

    /// Changes whenever users were removed or changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.versions.subscribe()
    }

    /// Verifies a password: the [version](Self::version) of it. It waits until a thread is free, and no thread that serves
    /// connections does the work. It takes the same time for a user who does not exist.
    ///
    /// When the future is dropped, a verification that has begun goes on and counts.
    ///
    /// # Errors
    /// When the password is wrong, or is not to be tried now.
    pub async fn sign_in(
        &self,
        name: &str,
        password: &[u8],
        address: Option<IpAddr>,
    ) -> Result<u64, Refused> {
        // Before anything is looked at: while somebody has to wait, a right guess is answered as a wrong one.
        let (attempt, is_quiet) = {
            let (throttle, now) = (lock(&self.0.throttle), Instant::now());
            let attempt = throttle.attempt(address, name);
            let admitted = throttle.admit(now, attempt);
            admitted.map_err(Refused::Throttled)?;
            (attempt, throttle.is_quiet(now, attempt))
        };
        if is_quiet && let Some(version) = self.cached(name, password) {
            return Ok(version);
        }
        let waiting = self.0.waiting.try_acquire().map_err(|_| Refused::Busy)?;
        let pending = Pending::new(self, attempt);
        let permit = Arc::clone(&self.0.verifications).acquire_owned().await;
        let permit = permit.map_err(|_| Refused::Busy)?;
        drop(waiting);
        // Others with the same credentials, or from the same address, may have been here meanwhile.
        let admitted = lock(&self.0.throttle).admit(Instant::now(), attempt);
        admitted.map_err(Refused::Throttled)?;
        if let Some(version) = self.cached(name, password) {
            lock(&self.0.throttle).remember(Instant::now(), attempt);
            return Ok(version);
        }
        let (answer, answered) = oneshot::channel();
        let (users, name, password) = (self.clone(), name.to_owned(), password.to_owned());
        // Of a thread of the runtime the priority could not be raised again.
        let thread = thread::Builder::new().name("password".to_owned());
        let spawned = thread.spawn(move || {
            threads::lower_priority();
            let verified = users.verify(&name, &password, attempt);
            // Whoever does not wait for the answer does not get around the delays.
            drop(pending);
            let _nobody_waits = answer.send(verified);
            drop(permit);
        });
        if let Err(error) = spawned {
            warn!(target: "access", %error, "no thread to verify a password");
        }
        answered.await.unwrap_or(Err(Refused::Busy))
    }

    fn cached(&self, name: &str, password: &[u8]) -> Option<u64> {
        let version = self.version(name)?;
        let cache = lock(&self.0.cache);
        let proof = cache.proof(name, password)?;
        cache
            .contains(&proof, version, Instant::now())
            .then_some(version)
    }

    /// On a thread that may block.
    fn verify(&self, name: &str, password: &[u8], attempt: Attempt) -> Result<u64, Refused> {
        let table = self.table();
        let user = table.users.get(name);
        let is_right = match table.compared(name, self.0.keys.hash_one(name)) {
            Some(compared) => compared.hash.verify(password),
            None => false,
        };
        let now = Instant::now();
        let mut throttle = lock(&self.0.throttle);
        let Some(user) = user.filter(|_| is_right) else {
            throttle.fail(now, attempt);
            return Err(Refused::Wrong);
        };
        throttle.succeed(now, attempt);
        drop(throttle);
        let mut cache = lock(&self.0.cache);
        if let Some(proof) = cache.proof(name, password) {
            cache.insert(proof, user.version, now);
        }
        drop(cache);
        if user.hash.is_outdated() {
            self.rewrite(name, user, password);
        }
        Ok(user.version)
    }

    /// Replaces the hash of another program, or one of a lower cost, by a new one. What cannot be written is left to the
    /// next sign-in.
    fn rewrite(&self, name: &str, user: &User, password: &[u8]) {
        let Ok(new) = PasswordHash::new(password) else {
            return;
        };
        // Nobody reads the file until the table says that the new hash is no change.
        let mut seen = lock(&self.0.seen);
        let written = store::update_with(&self.0.path, Wait::No, |file| {
            let is_unchanged = file.hash(name) == Some(&*user.hash);
            is_unchanged && file.set(name, new.clone()).is_ok()
        });
        match written {
            Ok((true, Some(_))) => {
                let mut table = lock(&self.0.table);
                let mut changed = Table {
                    users: table.users.clone(),
                    names: table.names.clone(),
                };
                if let Some(user) = changed.users.get_mut(name) {
                    user.hash = Arc::new(new);
                }
                *table = Arc::new(changed);
                drop(table);
                // Others may have changed the file just before.
                seen.read = None;
                drop(seen);
                info!(target: "access", user = name, "the password hash is replaced by an argon2id hash");
            }
            Ok(_) => {}
            Err(error) => {
                drop(seen);
                warn!(target: "access", user = name, error = &error as &dyn core::error::Error, "the password hash stays as it is");
            }
        }
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&lock(&self.0.table))
    }

    /// Reads the file again, changed or not: on SIGHUP. Where it cannot be read, the users stay as they were, and a
    /// warning says why. It blocks for the time of reading a file.
    pub fn reload(&self) {
        self.read_again(&mut lock(&self.0.seen));
    }

    /// Looks whether the file has changed, and reads it when it has.
    pub fn look(&self) {
        let mut seen = lock(&self.0.seen);
        match Stamp::of(&self.0.path) {
            Ok(now) if seen.read == Some(now) => {}
            Ok(now) if seen.last_look == Some(now) => self.read_again(&mut seen),
            Ok(now) => seen.last_look = Some(now),
            Err(error) => {
                if !seen.is_missing {
                    warn!(target: "access", file = %self.0.path.display(), %error, "the users stay as they were");
                }
                (seen.is_missing, seen.read, seen.last_look) = (true, None, None);
            }
        }
    }

    fn read_again(&self, seen: &mut Seen) {
        let before = Stamp::of(&self.0.path).ok();
        match store::read_with_stamp(&self.0.path) {
            Ok((file, stamp)) => self.take_over(seen, &file, stamp),
            Err(error) => {
                // Not again until it has changed.
                seen.read = before;
                seen.is_missing = before.is_none();
                warn!(target: "access", error = &error as &dyn core::error::Error, "the users stay as they were");
            }
        }
    }

    fn take_over(&self, seen: &mut Seen, file: &PasswordFile, stamp: Stamp) {
        let old = self.table();
        let mut table = Table::default();
        let mut changed = 0_usize;
        for (name, hash) in file.iter() {
            let before = old.users.get(name);
            let user = match before.filter(|user| *user.hash == *hash) {
                Some(same) => same.clone(),
                None => {
                    changed += usize::from(before.is_some());
                    seen.version += 1;
                    User {
                        hash: Arc::new(hash.clone()),
                        version: seen.version,
                    }
                }
            };
            table.names.push(name.to_owned());
            table.users.insert(name.to_owned(), user);
        }
        let is_gone = |name: &&String| !table.users.contains_key(*name);
        let removed = old.names.iter().filter(is_gone).count();
        let users = table.users.len();
        let added = table
            .names
            .iter()
            .filter(|name| !old.users.contains_key(*name));
        let added = added.count();
        *lock(&self.0.table) = Arc::new(table);
        (seen.read, seen.is_missing) = (Some(stamp), false);
        let path = self.0.path.display();
        if users == 0 {
            warn!(target: "access", file = %path, "no users: nobody can sign in with a password");
        }
        if store::is_open_to_others(&self.0.path) {
            warn!(target: "access", file = %path, "everybody on this machine may read or write the password file: chmod o= it");
        }
        if added + changed + removed > 0 {
            info!(target: "access", file = %path, users, added, changed, removed, "users read");
        }
        if changed + removed > 0 {
            self.0.versions.send_modify(|version| *version += 1);
        }
    }
}

/// An attempt whose verification has not ended.
struct Pending(Users, Attempt);

impl Pending {
    fn new(users: &Users, attempt: Attempt) -> Self {
        lock(&users.0.throttle).begin(attempt);
        Self(users.clone(), attempt)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        lock(&self.0.0.throttle).end(self.1);
    }
}

impl Table {
    /// Whose hash a password is compared with: a name that is none takes as long as one that is.
    fn compared(&self, name: &str, key: u64) -> Option<&User> {
        self.users.get(name).or_else(|| self.stand_in(key))
    }

    /// The user whose hash is computed for a name that is none: for the same name always the same.
    fn stand_in(&self, key: u64) -> Option<&User> {
        let count = u64::try_from(self.names.len()).ok()?;
        let index = usize::try_from(key.checked_rem(count)?).ok()?;
        self.users.get(self.names.get(index)?)
    }
}

/// Shows the file and the number of users.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("path", &self.0.path)
            .field("users", &self.len())
            .finish_non_exhaustive()
    }
}

/// No panic leaves these halfway changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
