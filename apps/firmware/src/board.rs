//! The boards. Each gives the same few things: see [`Hardware`].

#[cfg(board = "mps2")]
mod lan9118;
#[cfg(board = "microbit")]
mod microbit;
#[cfg(board = "mps2")]
mod mps2;
mod queue;

#[cfg(board = "mps2")]
pub use lan9118::Ethernet;
#[cfg(board = "microbit")]
pub use microbit::Board;
#[cfg(board = "mps2")]
pub use mps2::Board;

use latchbus_core::clicks::{Color, Counter};

/// What the button needs of a board.
pub trait Hardware {
    /// Milliseconds since the start.
    fn now(&mut self) -> u64;

    /// Whatever is unpredictable: a random number, or a fast timer.
    fn chance(&mut self) -> u32;

    /// Which buttons are closed at this moment, in the order of [`Color::ALL`].
    fn closed(&mut self) -> [bool; Color::COUNT];

    /// The next byte from the link.
    fn receive(&mut self) -> Option<u8>;

    /// How many bytes [`send`](Self::send) takes.
    fn room(&self) -> usize;

    /// Sends bytes over the link; those beyond [`room`](Self::room) are lost.
    fn send(&mut self, bytes: &[u8]);

    /// Shows which buttons are down, in the order of [`Color::ALL`].
    fn show_pressed(&mut self, pressed: [bool; Color::COUNT]);

    /// Shows what the room has counted.
    fn show_values(&mut self, values: Counter);

    /// Sleeps until something has happened or this time has come.
    fn sleep_until(&mut self, ms: u64);
}
