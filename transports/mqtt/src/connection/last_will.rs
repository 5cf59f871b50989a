//! The will of a connection.

use std::sync::{Arc, Mutex, PoisonError};

use crate::packet::Will;

/// A will that is published once: when the connection ends, or before, by a server that stops. Clones are handles to
/// one will.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastWill(Option<Arc<Mutex<Option<Will>>>>);

impl LastWill {
    pub(crate) fn new(will: Option<Will>) -> Self {
        Self(will.map(|will| Arc::new(Mutex::new(Some(will)))))
    }

    /// Looks at it, if it is there still.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Will) -> T) -> Option<T> {
        let will = self.0.as_ref()?.lock();
        will.unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(read)
    }

    /// Takes it, to be published or because it is not to be.
    pub(crate) fn take(&self) -> Option<Will> {
        self.take_if(|_| true)
    }

    /// The same, if it is such a one.
    pub(crate) fn take_if(&self, is_meant: impl FnOnce(&Will) -> bool) -> Option<Will> {
        let will = self.0.as_ref()?.lock();
        will.unwrap_or_else(PoisonError::into_inner)
            .take_if(|will| is_meant(will))
    }
}
