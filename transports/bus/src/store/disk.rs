//! Where the bytes of the store on disk are: a file of a directory, or whatever a simulation puts in its
//! place.

use core::fmt;
use std::{fs, path::Path};

use redb::{Database, DatabaseError, Durability};

use super::{StoreError, redb::failed};

const FILE: &str = "latchbus.redb";

/// How the database is opened, at the start and again after a failure.
pub(crate) struct Disk {
    open: Box<dyn FnMut() -> Result<Database, StoreError> + Send>,
    pub(super) durability: Durability,
}

impl Disk {
    /// A file in a directory, which is made if it is not there.
    pub(crate) fn directory(directory: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(StoreError::Directory)?;
        let path = directory.join(FILE);
        Ok(Self::new(move || Database::create(&path)))
    }

    /// Whether a directory holds a store.
    pub(crate) fn is_in(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// Bytes that `open` gives, which is asked for it again after each failure.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn backend<B: redb::StorageBackend>(
        mut open: impl FnMut() -> std::io::Result<B> + Send + 'static,
    ) -> Self {
        Self::new(move || {
            let backend = open().map_err(redb::StorageError::Io)?;
            Database::builder().create_with_backend(backend)
        })
    }

    fn new(mut open: impl FnMut() -> Result<Database, DatabaseError> + Send + 'static) -> Self {
        Self {
            open: Box::new(move || {
                open().map_err(|error| match error {
                    DatabaseError::DatabaseAlreadyOpen => StoreError::Locked,
                    error => failed(error),
                })
            }),
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

    pub(super) fn open(&mut self) -> Result<Database, StoreError> {
        (self.open)()
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}
