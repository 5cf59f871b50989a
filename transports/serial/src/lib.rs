//! Latchbus over a UART or any other stream of bytes, for microcontrollers.
//!
//! Messages are those of [`latchbus_core::wire`]: postcard with a CRC-32 in COBS frames, so that both ends
//! find the next message again after loss and noise.
//!
//! | module | what it holds |
//! |---|---|
//! | [`address`] | where a device is: a serial port or pty, or a TCP socket |
//! | [`serve`](mod@serve) | opens an address, serves it, and opens it again when it breaks |
//!
//! ```no_run
//! use latchbus_bus::{Bus, Options};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Bus::open(Options::default())?;
//! // Ends when the bus closes.
//! latchbus_serial::serve(bus, "/dev/ttyUSB0@115200".parse()?).await;
//! # Ok(())
//! # }
//! ```
//!
//! # What a device may rely on
//! - The first frame after the port is opened is `Welcome`: what was subscribed before is gone. A device
//!   that starts later, or whose `Welcome` is lost, subscribes all the same; ids are its own, and
//!   subscribing again under an id replaces the subscription.
//! - A frame that is damaged or too long is skipped and answered with `Error { id: None, .. }`, a few
//!   times a second at most: something that was sent has to be sent again. Not every damage shows.
//! - No frame to it is longer than [`MAX_MESSAGE_BYTES`]. Instead of a value that would be, it gets
//!   `Error { id: None, code: TooLarge, .. }` whose text begins with the topic: what it has of that topic is old.
//! - Answers come in the order of the requests. What was acknowledged is kept.
//!
//! # Invariants
//! - Nothing that a device sends ends more than its own frame; nothing that happens to its line ends more
//!   than its link, and the link comes back by itself.
//! - What is kept of a device's input is bounded by [`MAX_MESSAGE_BYTES`], and of its output by one batch:
//!   on a slow line the newest values are never far behind.

pub mod address;
mod link;
mod outgoing;
pub mod serve;

pub use address::{Address, AddressError};
pub use link::MAX_MESSAGE_BYTES;
pub use serve::{serve, serve_stream};
