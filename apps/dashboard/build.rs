//! Lists the files of the page, so that whatever is put into `page/` is served.

use core::error::Error;
use core::fmt::Write as _;
use core::hash::{Hash as _, Hasher as _};
use std::hash::DefaultHasher;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let page = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("page");
    println!("cargo::rerun-if-changed={}", page.display());
    let mut files = Vec::new();
    collect(&page, &mut files)?;
    files.sort();

    let mut list = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&page)?;
        let name = name
            .to_str()
            .ok_or("a file name of the page is not UTF-8")?;
        let path = format!("/{}", name.replace('\\', "/"));
        let content_type = content_type(&file)
            .ok_or_else(|| format!("page{path}: no content type is known for it; see build.rs"))?;
        let mut hasher = DefaultHasher::new();
        fs::read(&file)?.hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        writeln!(
            list,
            "    Asset {{ path: {path:?}, content_type: {content_type:?}, etag: {etag:?}, bytes: include_bytes!({file:?}) }},"
        )?;
    }
    list.push(']');
    let target = PathBuf::from(env::var("OUT_DIR")?).join("page.rs");
    fs::write(target, list)?;
    Ok(())
}

/// What only the npm package needs, and tools that check the scripts outside a browser.
const NOT_SERVED: [&str; 3] = ["package.json", "README.md", "types"];

/// Every file, but for those whose names begin with a dot and those that are not served.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if NOT_SERVED.contains(&name.as_ref()) || name.starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn content_type(file: &Path) -> Option<&'static str> {
    Some(match file.extension()?.to_str()? {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        _ => return None,
    })
}
