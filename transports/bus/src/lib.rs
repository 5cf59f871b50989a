//! The shared Latchbus hub on tokio, and everything that a transport plugs into.
//!
//! A program that embeds the bus publishes and subscribes in process; a transport gives each connection
//! a [`Client`] and a [`Session`] and lets [`Session::run`] drive its [`LinkReceiver`] and [`LinkSender`].
//! Either way a publish takes one straight line: may this principal? ([`Authorizer`]), is it a click? (merged,
//! or refused), is it to be durable? (committed), then the hub, the wake-ups, the writers.
//!
//! ```
//! use futures_util::StreamExt;
//! use latchbus_bus::{Bus, Options, Publish};
//! use latchbus_core::hub::{Mode, Start, Step};
//! use latchbus_core::topic::{TopicFilter, TopicName};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let bus = Bus::open(Options::default())?;
//! let topic = TopicName::parse("lab/temp".to_owned())?;
//! bus.publish(Publish::state(topic, "21.5")).await?;
//!
//! // Whoever subscribes later gets the last value first.
//! let mut temperatures = bus.subscribe(TopicFilter::parse("lab/+")?, Mode::Latest, Start::Snapshot)?;
//! let Some(Step::Entry { entry, retained: true }) = temperatures.next().await else {
//!     unreachable!("the topic has a value");
//! };
//! assert_eq!(entry.payload.bytes(), "21.5");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! With the feature `simulation` a test opens a bus on a disk of its own and makes each step of its store: see
//! `simulation`.
//!
//! # Invariants
//! - Nothing reaches the hub but through [`Client::publish`], and no acknowledgement ([`Receipt`]) comes
//!   before the step that it promises: with a store, before the commit to disk.
//! - What the hub shows is never ahead of the disk, but for events and for state that was published at QoS 0:
//!   see [`Options::sync_interval`].
//! - No lock is held over an await. A slow peer costs its cursor and its link's bounded buffer.

mod access;
mod alarm;
mod backoff;
pub mod backup;
mod bell;
mod budget;
mod bus;
mod capacity;
mod clock;
mod commits;
mod durable;
mod expiring;
pub mod faulty;
pub mod frames;
mod group;
mod health;
mod histogram;
mod link;
pub mod log;
mod log_limit;
pub mod memory;
mod message;
mod metrics;
mod note;
mod outbox;
mod pipeline;
pub mod proxy;
mod refusal;
mod rooms;
mod session;
mod shared;
#[cfg(feature = "simulation")]
pub mod simulation;
mod store;
mod subscription;
mod sys;
pub mod tcp;
mod troubles;
mod vec_map;
mod wake;
mod writer;

pub use access::{Authorizer, Identity, Principal, ReservedTopics};
pub use alarm::Alarm;
pub use backoff::Backoff;
pub use budget::{Budget, BudgetExceeded, Hold};
pub use bus::{
    Accepted, Behind, Bus, ClickLimits, Client, Farewell, HistoryRule, Lost, OpenError, Options,
    Receipt, SessionLimits, StoreKind,
};
pub use capacity::Capacity;
pub use clock::Clock;
pub use histogram::Histogram;
pub use link::{Close, Event, LinkReceiver, LinkSender, Request, Subscribe};
pub use log_limit::LogLimit;
pub use message::{Delivery, Encoding, Payload, PayloadFormat, Properties, Publish};
pub use metrics::{Counter, Gauge, Metrics};
pub use note::{Note, Remembered};
pub use refusal::{ConnectRefused, PublishRefused, SubscribeRefused};
pub use session::{Confirmations, Ended, Session};
pub use store::{Repaired, StoreError, repair};
pub use subscription::Subscription;
pub use vec_map::VecMap;
pub use wake::Wake;
