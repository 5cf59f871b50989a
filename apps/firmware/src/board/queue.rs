//! Bytes between an interrupt and the main loop.

use core::cell::RefCell;

use critical_section::{CriticalSection, Mutex};
use heapless::Deque;

/// A queue of up to `N` bytes. What comes when it is full is lost, as on any UART.
pub(super) struct Queue<const N: usize>(Mutex<RefCell<Deque<u8, N>>>);

impl<const N: usize> Queue<N> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(RefCell::new(Deque::new())))
    }

    pub(super) fn push(&self, section: CriticalSection<'_>, byte: u8) {
        let _full = self.0.borrow_ref_mut(section).push_back(byte);
    }

    pub(super) fn pop(&self, section: CriticalSection<'_>) -> Option<u8> {
        self.0.borrow_ref_mut(section).pop_front()
    }

    pub(super) fn is_empty(&self, section: CriticalSection<'_>) -> bool {
        self.0.borrow_ref(section).is_empty()
    }

    pub(super) fn room(&self) -> usize {
        critical_section::with(|section| N - self.0.borrow_ref(section).len())
    }
}
