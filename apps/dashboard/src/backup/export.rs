//! `latchbus export`: all that is kept, into a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use latchbus_bus::Principal;
use tokio::runtime::Runtime;

use super::{Place, Progress, Reader, Totals, Writer, directory, open, say, server};
use crate::remote::Server;
use crate::settings::Settings;

/// Writes an export to a file, or to the standard output. The file is replaced when the export is whole and on
/// disk; until then it stays as it is.
///
/// # Errors
/// When there is nothing to read, or the file cannot be written.
pub fn run(from: Place, file: Option<&Path>) -> anyhow::Result<()> {
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let (totals, to) = match file {
        Some(path) => {
            let mut target = Target::create(path)?;
            let totals = runtime.block_on(write(from, &mut target.file))?;
            target.keep()?;
            (totals, path.display().to_string())
        }
        None => {
            let mut out = io::stdout().lock();
            let totals = runtime.block_on(write(from, &mut out))?;
            out.flush().context("cannot write to the standard output")?;
            (totals, "the standard output".to_owned())
        }
    };
    say(format_args!("exported {totals} to {to}"));
    Ok(())
}

async fn write(from: Place, out: &mut impl Write) -> anyhow::Result<Totals> {
    match from {
        Place::Store(settings) => from_store(&settings, out).await,
        Place::Server(remote) => from_server(&remote.open()?, out).await,
    }
}

async fn from_store(settings: &Settings, out: &mut impl Write) -> anyhow::Result<Totals> {
    let directory = directory(settings)?;
    if !settings.bus.store.is_there() {
        bail!("there is no store in {}", directory.display());
    }
    let bus = open(settings)?;
    let client = bus.client(Principal::process())?;
    let mut writer = Writer::new(client.export().await?);
    let mut progress = Progress::new("exported");
    while let Some(piece) = writer.piece()? {
        out.write_all(&piece).context("cannot write the export")?;
        progress.tell(writer.written());
    }
    bus.close().await;
    Ok(writer.written())
}

/// What comes is read on its way, so that an answer that was cut off is known as one.
async fn from_server(remote: &Server, out: &mut impl Write) -> anyhow::Result<Totals> {
    let mut answer = server::export(remote).await?;
    let mut reader = Reader::default();
    let mut progress = Progress::new("exported");
    while let Some(piece) = answer.piece().await? {
        let read = reader.feed(&piece, |_, _| ());
        read.context("the server sent what is no export")?;
        out.write_all(&piece).context("cannot write the export")?;
        progress.tell(reader.read());
    }
    reader.finish().context("the server sent no whole export")
}

/// A file that takes its name when it is whole.
#[derive(Debug)]
struct Target {
    file: File,
    path: PathBuf,
    temporary: Option<PathBuf>,
}

impl Target {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let name = path.file_name();
        let mut name = name
            .with_context(|| format!("{} names no file", path.display()))?
            .to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = create(path, &temporary)
            .with_context(|| format!("cannot write {}", temporary.display()))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            temporary: Some(temporary),
        })
    }

    fn keep(mut self) -> anyhow::Result<()> {
        self.replace()
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn replace(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path)?;
            self.temporary = None;
        }
        let parent = self.path.parent().filter(|path| *path != Path::new(""));
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// A file for its owner alone, or for whom the one may be read by that it takes the place of.
fn create(path: &Path, temporary: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(temporary)?;
    if let Ok(replaced) = fs::metadata(path)
        && replaced.is_file()
    {
        file.set_permissions(replaced.permissions())?;
    }
    Ok(file)
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It was not finished; that is the error that is shown.
            let _left_behind = fs::remove_file(temporary);
        }
    }
}
