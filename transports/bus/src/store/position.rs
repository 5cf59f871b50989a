//! Positions in the log, and the revisions that each of them has.
//!
//! `revision = position · 2^14 + i`: the first numbers of a position go to what its record stores, in order, and the
//! rest to what follows in the hub without a record of its own. So nothing that needs no record can overtake one, and
//! a revision is used once. A record with more has as many positions as it needs. Below 2^53, which JSON numbers
//! carry in every language, there are 2^39 positions: at 1,000 commits a second they last 17 years.

/// Bits of a revision that number what has one position.
const BITS: u32 = 14;

/// Positions of records that were appended and not synchronised. A start after a crash leaves out as many, since they
/// may have been seen and lost.
pub(crate) const MAX_UNSYNCED: u64 = 1 << 15;

/// When only so many numbers are left of a position, a record is appended that does nothing but begin the next one.
pub(crate) const FEW: u64 = 1 << (BITS - 2);

/// The position of a revision.
pub(crate) const fn of(revision: u64) -> u64 {
    revision >> BITS
}

/// The first revision of the position behind that of `revision`.
pub(crate) const fn next(revision: u64) -> u64 {
    first(of(revision) + 1)
}

/// The last revision of the position of `revision`.
pub(crate) const fn last(revision: u64) -> u64 {
    next(revision) - 1
}

/// The revision at which a life begins, when `newest` is the newest that is known of those before.
pub(crate) const fn start(newest: u64, was_stopped: bool) -> u64 {
    match was_stopped {
        true => next(newest),
        false => first(of(newest) + MAX_UNSYNCED + 2),
    }
}

const fn first(position: u64) -> u64 {
    position << BITS
}
