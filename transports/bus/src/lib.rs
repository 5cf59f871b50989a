//! The shared Latchbus hub on tokio, and everything that a transport plugs into.
//!
//! A program that embeds the bus publishes and subscribes in process; a transport gives each connection
//! a [`Client`] and a [`Session`] and lets [`Session::run`] drive its [`LinkReceiver`] and [`LinkSender`].
//! Either way a publish takes one straight line: may this principal? ([`Authorizer`]), is it a click? (merged,
//! or refused), is it to be durable? (committed), then the hub, the wake-ups, the writers.
//!
//! ```
//! use latchbus_bus::Bus;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let bus = Bus::builder().open()?; // `.directory("data")` keeps state over a restart
//! bus.publish_state("lab/temp", "21.5").await?;
//!
//! // Whoever comes later gets the last value first.
//! let mut lab = bus.watch("lab/+")?;
//! let value = lab.next().await.ok_or("the bus is closed")?;
//! assert_eq!((value.topic(), value.text()), ("lab/temp", Some("21.5")));
//!
//! let accepted = bus.publish_state("lab/temp", "22.0").await?;
//! let value = lab.next().await.ok_or("the bus is closed")?;
//! assert_eq!((value.text(), value.revision()), (Some("22.0"), accepted.rev));
//! # bus.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! | a program wants | it calls |
//! |---|---|
//! | to set up a bus | [`Bus::builder`] |
//! | to publish | [`Bus::publish_state`], [`Bus::publish_event`], [`Bus::clear`] |
//! | the newest values, as they change | [`Bus::watch`], [`Bus::value`] |
//! | each publish, the end of the snapshot, gaps, to resume | [`Bus::subscribe`] |
//! | to let others in | [`Builder::authenticator`], [`Builder::authorizer`], [`Bus::sign_in`] |
//! | to speak for someone else | [`Bus::client`] with a [`Principal`] |
//! | to reset a room, to remove a device, to undo that | [`Client::operate`] |
//! | to publish on without waiting for each answer | [`Client::enqueue`] |
//! | topics, filters, the hub and the click model themselves | [`topic`], [`hub`], [`clicks`], [`wire`]: those of `latchbus-core` |
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

pub mod accept;
mod access;
mod alarm;
pub mod audit;
mod backoff;
pub mod backup;
mod batch;
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
mod holdings;
mod link;
pub mod log;
mod log_limit;
pub mod memory;
mod message;
mod metrics;
mod note;
mod operate;
mod outbox;
mod pacing;
mod pipeline;
pub mod proxy;
mod quota;
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
pub mod threads;
mod troubles;
mod vec_map;
mod wake;
mod writer;

pub use futures_util::future::BoxFuture;
pub use latchbus_core::hub::{Limits, Mode, Start};
pub use latchbus_core::topic::{TopicFilter, TopicName};
pub use latchbus_core::{clicks, hub, topic, wire};

pub use access::{
    AllowAll, AnonymousOnly, Authenticator, Authorizer, Certificate, Claims, Credentials, Grant,
    Identity, Principal, PublishRequest, ReadRules, Reader, SignIn, SignInRefused, SignedIn,
};
pub use alarm::Alarm;
pub use backoff::Backoff;
pub use batch::BatchEstimate;
pub use budget::{Budget, BudgetExceeded, Hold};
pub use bus::{
    Accepted, AdminError, Behind, Builder, Bus, CLIENTS_PAGE, ClickLimits, Client, Connected,
    Farewell, HISTORY_PAGE, HISTORY_PAGE_BYTES, HistoryPage, HistoryRule, Lost, MAX_CLIENTS_PAGE,
    MAX_HISTORY_PAGE, OpenError, Options, Receipt, SIGN_IN_TIMEOUT, SessionLimits, StoreKind,
    Subscribed, Value, Watch,
};
pub use capacity::{Capacity, Table};
pub use clock::Clock;
pub use histogram::Histogram;
pub use holdings::Holder;
pub use link::{Close, Event, LinkReceiver, LinkSender, Request, Subscribe};
pub use log_limit::LogLimit;
pub use message::{Delivery, Encoding, Expected, Payload, PayloadFormat, Properties, Publish};
pub use metrics::{Counter, Gauge, Metrics, SignInsRefused};
pub use note::{Note, Remembered};
pub use operate::{Operate, Operated, OperationError};
pub use quota::{Quotas, subscriber};
pub use refusal::{ConnectRefused, Forbidden, PublishRefused, SubscribeRefused};
pub use session::{Confirmations, Ended, Session, SignedOut, Traffic};
pub use store::{Repaired, StoreError, create_directory, repair};
pub use subscription::Subscription;
pub use vec_map::VecMap;
pub use wake::Wake;

/// The programs of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
