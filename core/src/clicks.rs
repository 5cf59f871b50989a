//! Clicks: who clicked which colour, counted so that no message can be counted twice.
//!
//! A click that travels as "+1" is counted twice when it is retransmitted and never when it is
//! lost. So every clicker publishes a [`Counter`] of all its clicks since its boot as retained
//! state, and merging takes the larger count: duplicates, reordering and replays change nothing.
//!
//! | type | what it is |
//! |---|---|
//! | [`Counter`] | clicks per colour; [`Counter::join`] is the merge |
//! | [`Incarnation`] | one run of one device, from boot to boot; each has a counter of its own |
//! | [`Clicks`] | all that is known of one device; [`Clicks::join`] merges two views of it |
//! | [`Zero`] | from where a device's clicks count since an operator has reset them |
//! | [`FloorRecord`] | the retained remains of incarnations that were folded away |
//! | [`Press`] | a click of a publisher without a counter |
//! | [`Shares`], [`Rate`] | what is derived: percent, and clicks per second |
//! | [`ClickTopic`] | the topics of all these, told apart from ordinary ones |
//!
//! # Invariants
//! - No count exceeds [`MAX_COUNT`]: sums saturate, larger numbers from outside are refused.
//! - [`Clicks::join`] is commutative, associative and idempotent, and never lowers
//!   [`Clicks::value`]. Folding is not part of it: see [`Clicks::fold`].
//! - A reset changes no counter: [`Zero`] says what is to be subtracted, so that neither an old report brings a
//!   click back nor is a new one lost.
//! - No input panics, whatever its bytes, and none is read beyond [`MAX_PAYLOAD_BYTES`].
//!
//! # Example
//! ```
//! use latchbus_core::clicks::{Clicks, Counter, DEFAULT_MAX_LIVE, FixedLive, Shares};
//!
//! let mut kiosk: Clicks<FixedLive<8>> = Clicks::default();
//! let first_boot = "1-0badcafe".parse()?;
//! let second_boot = "2-5eed5eed".parse()?;
//!
//! kiosk.report(first_boot, Counter::parse(br#"{"red":12,"blue":7}"#)?, DEFAULT_MAX_LIVE)?;
//! // A late duplicate of an older report changes nothing.
//! kiosk.report(first_boot, Counter::parse(br#"{"red":9,"blue":7}"#)?, DEFAULT_MAX_LIVE)?;
//! // After a reboot the device counts from zero, in an incarnation of its own.
//! kiosk.report(second_boot, Counter::parse(br#"{"red":0,"blue":1}"#)?, DEFAULT_MAX_LIVE)?;
//!
//! assert_eq!(kiosk.value(), Counter::new(12, 8));
//! assert_eq!(Shares::of(kiosk.value()).to_string(), r#"{"red":60.0,"blue":40.0}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod color;
mod counter;
mod device;
mod floor;
mod incarnation;
mod json;
mod live;
mod misspelt;
mod press;
mod rate;
mod shares;
mod topic;
mod varint;
mod zero;

pub use color::{Color, ColorNames, UnknownColor};
pub use counter::{Counter, CounterTooLarge, MAX_COUNT, ReportError};
pub use device::{Clicks, DEFAULT_MAX_LIVE, FOLD_WINDOW_BOOTS, Fold, Outcome};
pub use floor::FloorRecord;
pub use incarnation::{Incarnation, InvalidIncarnation};
pub use json::JsonError;
#[cfg(feature = "alloc")]
pub use live::GrowingLive;
pub use live::{FixedLive, Full, Live};
pub use misspelt::{MalformedTopic, NearMiss};
pub use press::{MAX_ID_BYTES, MAX_PRESS, Press, PressError};
pub use rate::{PerSecond, RATE_WINDOW_MS, Rate};
pub use shares::Shares;
pub use topic::{ClickTopic, MAX_NAME_BYTES, is_name, is_reserved};
pub use zero::{Taken, Zero};

/// The longest payload that any parser here reads, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 256;
