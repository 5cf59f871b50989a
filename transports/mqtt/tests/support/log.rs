//! What the program logs, for tests of it.

use std::io;
use std::sync::{Mutex, Once, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static STARTED: Once = Once::new();

#[derive(Debug, Clone, Copy)]
struct Capture;

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Capture {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// Begins to take note of what the process logs, at `info` and above.
pub(crate) fn capture() {
    STARTED.call_once(|| {
        tracing_subscriber::fmt()
            .with_writer(Capture)
            .with_ansi(false)
            .init();
    });
}

/// The lines so far that contain each of `words`.
pub(crate) fn lines(words: &[&str]) -> Vec<String> {
    let bytes = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let text = String::from_utf8_lossy(&bytes);
    let wanted = |line: &&str| words.iter().all(|word| line.contains(word));
    text.lines().filter(wanted).map(str::to_owned).collect()
}
