//! The images, built as a user builds them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// What the build prints of an image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) flash_bytes: usize,
    pub(crate) ram_bytes: usize,
}

/// Builds all images. For a newcomer without a way to build them, this is a skipped test, and says so.
///
/// # Panics
/// When they do not build, or where `CI=true` there is no way to.
pub(crate) async fn build() -> Option<HashMap<String, Image>> {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../apps/firmware/run");
    let output = Command::new(run).arg("build").output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && errors.contains("no way to build") {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{errors}");
        eprintln!("skipped: {errors}");
        return None;
    }
    assert!(output.status.success(), "{errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let images = lines.lines().map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let [name, flash, ram, path] = words[..] else {
            panic!("{line:?}")
        };
        let number = |word: &str, key| word.strip_prefix(key).unwrap().parse().unwrap();
        let image = Image {
            name: name.to_owned(),
            path: path.into(),
            flash_bytes: number(flash, "flash="),
            ram_bytes: number(ram, "ram="),
        };
        (name.to_owned(), image)
    });
    Some(images.collect())
}
