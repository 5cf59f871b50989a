//! `latchbus import`: an export, merged into what is kept.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;

use anyhow::Context as _;
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
    pending: Vec<(u64, Receipt)>,
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
    pub(crate) const fn new(client: Client) -> Self {
        Self {
            client,
            pending: Vec::new(),
        }
    }

    /// Gives a record to the bus. Waits now and then until those before it are on disk.
    pub(crate) async fn take(&mut self, line: u64, record: Record) -> Result<(), MergeError> {
        let receipt = self.client.import(record).await;
        self.pending.push((line, receipt));
        match self.pending.len() >= PENDING {
            true => self.finish().await,
            false => Ok(()),
        }
    }

    /// Waits until all are on disk.
    pub(crate) async fn finish(&mut self) -> Result<(), MergeError> {
        for (line, receipt) in self.pending.drain(..) {
            let accepted = receipt.await;
            accepted.map_err(|refused| MergeError { line, refused })?;
        }
        Ok(())
    }
}
