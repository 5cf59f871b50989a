//! An export, written line by line.

use core::mem;

use latchbus_bus::backup::Export;

use super::Totals;
use super::line::{self, End, Head, VERSION};

/// Pieces are about so long, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// The lines of a snapshot, made piece by piece as they are asked for.
#[derive(Debug)]
pub struct Writer {
    records: Export,
    written: Totals,
    begun: bool,
    ended: bool,
}

impl Writer {
    /// Writes this snapshot.
    pub const fn new(records: Export) -> Self {
        Self {
            records,
            written: Totals {
                values: 0,
                devices: 0,
                rooms: 0,
            },
            begun: false,
            ended: false,
        }
    }

    /// What the pieces hold so far.
    pub const fn written(&self) -> Totals {
        self.written
    }

    /// The next piece, of some tens of kilobytes; `None` at the end.
    ///
    /// # Errors
    /// None that a record causes; the result keeps the caller free of an unproven promise.
    pub fn piece(&mut self) -> serde_json::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        let mut piece = Vec::new();
        if !mem::replace(&mut self.begun, true) {
            serde_json::to_writer(
                &mut piece,
                &Head {
                    latchbus: "export",
                    version: VERSION,
                    program: concat!("latchbus/", env!("CARGO_PKG_VERSION")),
                    epoch: &format!("{:x}", self.records.epoch()),
                    revision: self.records.revision(),
                    at: self.records.at(),
                },
            )?;
            piece.push(b'\n');
        }
        while piece.len() < PIECE_BYTES {
            let Some(record) = self.records.next() else {
                self.ended = true;
                let Totals {
                    values,
                    devices,
                    rooms,
                } = self.written;
                let end = true;
                serde_json::to_writer(
                    &mut piece,
                    &End {
                        end,
                        values,
                        devices,
                        rooms,
                    },
                )?;
                piece.push(b'\n');
                break;
            };
            self.written.add(&record);
            line::write(&mut piece, &record)?;
        }
        Ok(Some(piece))
    }
}
