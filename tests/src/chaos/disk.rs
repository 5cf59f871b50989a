//! The server's disk: a small one of its own where this process may mount one, else a directory.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Room for the store of a short run, and little more.
const SIZE: &str = "size=32m";

/// A directory for the server. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Disk {
    mounted: bool,
    directory: PathBuf,
}

impl Disk {
    /// Makes it below `parent`.
    pub(super) fn new(parent: &Path) -> Self {
        let directory = parent.join("disk");
        fs::create_dir(&directory).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", SIZE, "latchbus-chaos"])
            .arg(&directory);
        let mounted = mount
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        Self { mounted, directory }
    }

    /// Whether it has an end that can be reached.
    pub(super) fn can_be_full(&self) -> bool {
        self.mounted
    }

    /// Where the server keeps its data.
    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Leaves no room for another byte.
    pub(super) fn fill(&self) {
        assert!(self.mounted, "this is everybody's disk");
        let mut ballast = File::create(self.ballast()).unwrap();
        // In ever smaller pieces, to the last byte.
        let mut piece = vec![0; 1 << 20];
        while !piece.is_empty() {
            if ballast.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
    }

    /// Gives the room back.
    pub(super) fn free(&self) {
        // There is none where it was not full.
        let _not_there = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a server that was killed may not have ended yet.
            let _status = Command::new("umount")
                .arg("--lazy")
                .arg(&self.directory)
                .status();
        }
    }
}
