//! Backups: `latchbus export` and `latchbus import`, and the file between them.
//!
//! | module | what it holds |
//! |---|---|
//! | `line` | one line of the file, read and written |
//! | [`Reader`] | the lines in their order, from the head to the last one that counts them |
//! | [`Writer`] | the same, written |
//! | [`export`], [`import`] | the two commands |
//! | `server` | a running server, asked over HTTP |
//!
//! # The file
//! JSON lines in UTF-8. The first says what it is; values by revision and devices by name follow; the last counts
//! them, so that a file that was cut off is known as one.
//! ```json
//! {"latchbus":"export","version":1,"program":"latchbus/0.1.0","epoch":"9f3c","revision":1043,"at":1732305000123}
//! {"topic":"lab/temp","payload":{"c":21.5},"at":1732305000123,"rev":1042,"qos":1}
//! {"device":"kiosk-1","room":"main","counts":{"floor":5,"base":[40,2],"live":[["6-0badcafe",12,7]]},
//!  "pressed":{"floor":0,"base":[0,0],"live":[["1-5eed5eed",3,0]]},"press_ids":["a1"]}
//! {"reset_room":"main","reset":1732305000123,"given":[0,0],"taken":[52,9]}
//! {"end":true,"values":1,"devices":1,"rooms":1}
//! ```
//! (The device stands in one line.) A payload is `payload`, `text` or `base64` as everywhere, byte by byte what was
//! published. `qos` is left out where it is 2, `history`, the number of values that the topic keeps, where it is 1.
//! `expires_at` and `properties` are there if the publisher gave them. `holder` says whose the value is where what users hold is
//! bounded (`limits.user_retained_topics`): `{"user":"anna"}`, or `{"address":"192.0.2.1"}` of who has no name; only administrators
//! see it, and import it. Counts are red, blue.
//!
//! A room that an administrator has reset has a line behind the devices, and the last line counts these (`rooms` is left out where it
//! is 0). `counts` and `pressed` of a device then have `reset`, which orders resets, and `zero`, what each incarnation had by then;
//! `"removed":true` stands in the line of a device that was removed. None of that is in files of earlier versions, which are read.

pub mod export;
pub mod import;
mod line;
mod reader;
pub(crate) mod server;
mod writer;

pub use line::{FormatError, Problem};
pub use reader::{Reader, Totals};
pub use writer::Writer;

use core::{fmt::Display, time::Duration};
use std::io::Write as _;
use std::time::Instant;
use std::{io, path::PathBuf};

use anyhow::bail;
use latchbus_bus::{Bus, OpenError, StoreError, StoreKind};

use crate::remote::Remote;
use crate::settings::Settings;

/// Where records come from or go to.
#[derive(Debug)]
pub enum Place {
    /// The store that these settings name, which no server has open.
    Store(Box<Settings>),
    /// A running server.
    Server(Remote),
}

/// The directory of the store. Anything else keeps nothing to export.
fn directory(settings: &Settings) -> anyhow::Result<PathBuf> {
    match &settings.bus.store {
        StoreKind::Directory(directory) => Ok(directory.clone()),
        StoreKind::Memory => bail!("the settings keep nothing on disk: name --data-dir or --url"),
    }
}

/// Opens a store that no server has open.
fn open(settings: &Settings) -> anyhow::Result<Bus> {
    match Bus::open(settings.bus.clone()) {
        Err(OpenError::Store {
            directory,
            source: StoreError::Locked,
        }) => bail!(
            "{} is in use: if a server runs on it, name that with --url http://HOST:PORT",
            directory.display()
        ),
        bus => Ok(bus?),
    }
}

/// Says on the standard error how far it is, about once a second.
#[derive(Debug)]
struct Progress {
    doing: &'static str,
    next: Instant,
}

impl Progress {
    const INTERVAL: Duration = Duration::from_secs(1);

    fn new(doing: &'static str) -> Self {
        Self {
            doing,
            next: Instant::now() + Self::INTERVAL,
        }
    }

    fn tell(&mut self, how_far: impl Display) {
        if Instant::now() >= self.next {
            self.next = Instant::now() + Self::INTERVAL;
            say(format_args!("{} {how_far}", self.doing));
        }
    }
}

/// A line on the standard error. Where it cannot be written, nobody reads it.
fn say(line: core::fmt::Arguments<'_>) {
    let _unread = writeln!(io::stderr(), "{line}");
}
