#![no_std]
#![cfg_attr(not(test), warn(clippy::std_instead_of_core))]
//! The heart of Latchbus: a pub/sub hub that keeps the last value of every topic, and a click model
//! that never loses a click and never counts one twice.
//!
//! Nothing here knows a transport, a clock, an executor or JSON. Time (`at`, in milliseconds) and
//! the hub's epoch come in as arguments, and every structure is driven through `&mut self`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`topic`] | topic names and filters, parsed once |
//! | [`hub`] | publish, subscribe, take: the compacted log and its cursors |
//! | [`clicks`] | colours, counters, the merge law, shares and rates |
//! | [`wire`] | postcard messages, and their frames for byte links |
//!
//! # Features
//! Without features the crate neither allocates nor needs atomics: [`hub::FixedHub`] runs on a
//! Cortex-M0. With `alloc` there is also `hub::Hub`, which grows with its topics and shares
//! its values between subscribers.
//!
//! # A hub on a microcontroller
//! ```
//! use latchbus_core::fixed_hub;
//! use latchbus_core::hub::{Mode, Retain, Start, Step};
//! use latchbus_core::topic::{TopicFilter, TopicName};
//!
//! type Hub = fixed_hub! {
//!     retained: 8,
//!     tombstones: 2,
//!     recent: 4,
//!     subscriptions: 2,
//!     topic_bytes: 32,
//!     payload_bytes: 24,
//! };
//! let mut hub = Hub::new(1);
//! let temperature = TopicName::parse("lab/temp")?;
//! hub.publish(temperature, b"21.5", Retain::LAST, 0)?;
//!
//! let late = hub.subscribe(TopicFilter::parse("lab/#")?, Mode::Latest, Start::Snapshot)?;
//! match hub.next(late)? {
//!     Some(Step::Entry { entry, retained }) => {
//!         assert_eq!(entry.payload, b"21.5");
//!         assert!(retained);
//!     }
//!     other => unreachable!("{other:?}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, doctest))]
extern crate std;

pub mod clicks;
pub mod hub;
pub mod topic;
pub mod wire;
