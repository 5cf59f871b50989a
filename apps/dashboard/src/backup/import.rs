//! `latchbus import`: an export, merged into what is kept.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use latchbus_bus::backup::Record;
use latchbus_bus::{Client, Principal, PublishRefused, Receipt};
use tokio::runtime::Runtime;

use super::{Place, Progress, Reader, Totals, directory, open, say, server};
use crate::settings::Settings;

/// A file is read in pieces of so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Records that wait for the store.
const PENDING: usize = 1_024;

/// Checks a file from its first line to its last, and merges it then.
///
/// # Errors
/// When the file is not a whole export, which has then changed nothing, or a record is refused.
pub fn run(into: Place, path: &Path) -> anyhow::Result<()> {
    let cannot_read = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(cannot_read)?;
    let totals = check(&mut file).with_context(|| format!("in {}", path.display()))?;
    file.rewind().with_context(cannot_read)?;
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let merged = match into {
        Place::Store(settings) => runtime.block_on(into_store(&settings, file)),
        Place::Server(remote) => runtime.block_on(server::import(&remote.open()?, file)),
    };
    merged.with_context(|| format!("in {}", path.display()))?;
    say(format_args!("imported {totals} from {}", path.display()));
    Ok(())
}

fn check(file: &mut File) -> anyhow::Result<Totals> {
    let mut reader = Reader::default();
    let mut progress = Progress::new("checked");
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(reader.finish()?);
        }
        reader.feed(piece.get(..length).unwrap_or_default(), |_, _| ())?;
        progress.tell(reader.read());
    }
}

async fn into_store(settings: &Settings, mut file: File) -> anyhow::Result<()> {
    directory(settings)?;
    let bus = open(settings)?;
    let mut merge = Merge::new(bus.client(Principal::process())?);
    let mut reader = Reader::default();
    let mut progress = Progress::new("imported");
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            break;
        }
        let mut records = Vec::new();
        let piece = piece.get(..length).unwrap_or_default();
        reader.feed(piece, |line, record| records.push((line, record)))?;
        for (line, record) in records {
            merge.take(line, record).await?;
        }
        progress.tell(reader.read());
    }
    reader.finish()?;
    merge.finish().await?;
    bus.close().await;
    Ok(())
}

/// Records on their way into a bus.
#[derive(Debug)]
pub(crate) struct Merge {
    client: Client,
    pending: Vec<Pending>,
    /// What is on disk.
    merged: Totals,
}

/// A record that was given to the bus.
#[derive(Debug)]
struct Pending {
    line: u64,
    /// 1 of its kind.
    counts: Totals,
    receipt: Receipt,
}

/// A record that the bus does not take.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {refused}")]
pub(crate) struct MergeError {
    /// Where it stands.
    pub(crate) line: u64,
    /// Why.
    #[source]
    pub(crate) refused: PublishRefused,
}

impl Merge {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            pending: Vec::new(),
            merged: Totals::default(),
        }
    }

    /// On whose behalf.
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// What of it is on disk, or on its way there.
    pub(crate) fn merged(&mut self) -> Totals {
        for pending in self.pending.drain(..) {
            if !matches!(pending.receipt.now_or_never(), Some(Err(_))) {
                self.merged.add_all(pending.counts);
            }
        }
        self.merged
    }

    /// Gives a record to the bus. Waits now and then until those before it are on disk.
    pub(crate) async fn take(&mut self, line: u64, record: Record) -> Result<(), MergeError> {
        let mut counts = Totals::default();
        counts.add(&record);
        let receipt = self.client.import(record).await;
        self.pending.push(Pending {
            line,
            counts,
            receipt,
        });
        match self.pending.len() >= PENDING {
            true => self.finish().await,
            false => Ok(()),
        }
    }

    /// Waits until all are on disk. The error is that of the first line that is refused; what came behind it may be merged, too.
    pub(crate) async fn finish(&mut self) -> Result<(), MergeError> {
        let mut first = Ok(());
        for pending in self.pending.drain(..) {
            match pending.receipt.await {
                Ok(_) => self.merged.add_all(pending.counts),
                Err(refused) => {
                    let line = pending.line;
                    first = first.and(Err(MergeError { line, refused }));
                }
            }
        }
        first
    }
}
