//! The memory for what is half received, over all connections of all transports.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// What each connection may hold besides: small messages are no matter of the budget.
const FREE_BYTES: usize = 16 << 10;

/// Bytes of unfinished messages that connections may hold together. A message may be large, but not everybody's at once:
/// the connection that would go beyond ends, and the others go on.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
}

/// There is no memory left for what is half received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connections hold {limit} bytes of unfinished messages already")]
pub struct BudgetExceeded {
    /// The bound.
    pub limit: usize,
}

/// What one connection holds. Dropped, it is free again.
#[derive(Debug)]
pub struct Hold {
    budget: Arc<Budget>,
    held: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            held: AtomicUsize::new(0),
        }
    }

    /// The bound.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How much is held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// For one connection.
    pub fn hold(self: &Arc<Self>) -> Hold {
        Hold {
            budget: Arc::clone(self),
            held: 0,
        }
    }
}

impl Hold {
    /// Says how many bytes the connection has buffered of what is unfinished.
    ///
    /// # Errors
    /// When that is more than there is room for: the connection is to end.
    pub fn set(&mut self, bytes: usize) -> Result<(), BudgetExceeded> {
        let wanted = bytes.saturating_sub(FREE_BYTES);
        if wanted == self.held {
            return Ok(());
        }
        let budget = &self.budget;
        if wanted < self.held {
            budget.held.fetch_sub(self.held - wanted, Ordering::Relaxed);
            self.held = wanted;
            return Ok(());
        }
        let more = wanted - self.held;
        let before = budget.held.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > budget.limit {
            // All of it: while that connection ends, it must not be in the way of the others.
            budget.held.fetch_sub(wanted, Ordering::Relaxed);
            self.held = 0;
            return Err(BudgetExceeded {
                limit: budget.limit,
            });
        }
        self.held = wanted;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_holds_is_missing_to_others_until_it_is_free() {
        let budget = Arc::new(Budget::new(100));
        let (mut a, mut b) = (budget.hold(), budget.hold());
        assert_eq!(a.set(FREE_BYTES), Ok(()));
        assert_eq!(budget.held(), 0);
        assert_eq!(a.set(FREE_BYTES + 60), Ok(()));
        assert_eq!(b.set(FREE_BYTES + 40), Ok(()));
        assert_eq!(b.set(FREE_BYTES + 41), Err(BudgetExceeded { limit: 100 }));
        assert_eq!((budget.held(), b.held), (60, 0));
        assert_eq!(a.set(10), Ok(()));
        assert_eq!(b.set(FREE_BYTES + 100), Ok(()));
        drop((a, b));
        assert_eq!(budget.held(), 0);
    }
}
