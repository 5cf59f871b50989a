use super::counter::Counter;
use super::incarnation::Incarnation;
use thiserror::Error;

/// Live incarnations in memory of a fixed size, without a heap.
pub type FixedLive<const N: usize> = heapless::Vec<(Incarnation, Counter), N>;

/// Live incarnations on the heap, for servers.
#[cfg(feature = "alloc")]
pub type GrowingLive = alloc::vec::Vec<(Incarnation, Counter)>;

/// The memory of [`Clicks`](super::Clicks): a small map from incarnation to counter, kept as a list
/// in ascending order. Implemented for [`FixedLive`] and, with `alloc`, for `GrowingLive`.
///
/// Sealed, because the order is kept by `Clicks` and not by the implementation.
pub trait Live: Default + sealed::Sealed {
    /// The most entries that this memory ever holds.
    const CAPACITY: usize;

    /// The entries, ascending by incarnation, none twice.
    fn entries(&self) -> &[(Incarnation, Counter)];

    #[doc(hidden)]
    fn entries_mut(&mut self) -> &mut [(Incarnation, Counter)];

    /// Inserts before `index`, which is at most the number of entries.
    #[doc(hidden)]
    fn insert_at(&mut self, index: usize, entry: (Incarnation, Counter)) -> Result<(), Full>;

    #[doc(hidden)]
    fn remove_first(&mut self, n: usize);
}

/// No room for another live incarnation: the report was refused and changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many live incarnations of one device")]
pub struct Full;

impl<const N: usize> Live for FixedLive<N> {
    const CAPACITY: usize = N;

    fn entries(&self) -> &[(Incarnation, Counter)] {
        self
    }

    fn entries_mut(&mut self) -> &mut [(Incarnation, Counter)] {
        self
    }

    fn insert_at(&mut self, index: usize, entry: (Incarnation, Counter)) -> Result<(), Full> {
        self.insert(index, entry).map_err(|_| Full)
    }

    fn remove_first(&mut self, n: usize) {
        self.drain(..n.min(self.len()));
    }
}

#[cfg(feature = "alloc")]
impl Live for GrowingLive {
    const CAPACITY: usize = usize::MAX;

    fn entries(&self) -> &[(Incarnation, Counter)] {
        self
    }

    fn entries_mut(&mut self) -> &mut [(Incarnation, Counter)] {
        self
    }

    fn insert_at(&mut self, index: usize, entry: (Incarnation, Counter)) -> Result<(), Full> {
        self.insert(index, entry);
        Ok(())
    }

    fn remove_first(&mut self, n: usize) {
        self.drain(..n.min(self.len()));
    }
}

mod sealed {
    pub trait Sealed {}
    impl<const N: usize> Sealed for super::FixedLive<N> {}
    #[cfg(feature = "alloc")]
    impl Sealed for super::GrowingLive {}
}
