//! A folder whose files are served: pages of one's own, and the client of Socket.IO.
//!
//! What a request can name is a path below the folder, symbolic links resolved, that leads to a regular file and in which no
//! name begins with a dot (but `.well-known`). The folder is looked at for each request, so that a new build is served
//! without a restart, also where the folder is a link that is switched over.

mod content_type;
mod encoding;
mod path;

use core::hash::{Hash as _, Hasher as _};
use core::time::Duration;
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::DefaultHasher;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

pub(super) use self::encoding::Accepted;
use self::encoding::Encoding;
pub(super) use self::path::Names;
use super::conditions::is_known;

/// A longer file is not read at once, but as its client takes it.
const AT_ONCE_BYTES: u64 = 64 << 10;

/// A compressed file that is older than its original by more than this is not of it. File systems are less precise than
/// their numbers, and what copies files does so in any order.
const OLDER: Duration = Duration::from_secs(2);

/// A folder whose files are served.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: PathBuf,
}

/// What lies at a path.
#[derive(Debug)]
pub(super) enum Found {
    /// A file.
    File(Box<Opened>),
    /// A folder.
    Folder,
    /// Nothing that is served.
    Nothing,
}

/// A file that is open.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    length: u64,
    /// The whole file, where it is short.
    bytes: Option<Vec<u8>>,
    etag: String,
    content_type: &'static str,
    encoding: Option<Encoding>,
}

/// Why what lies there is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// A symbolic link leads out of the folder.
    #[error("a symbolic link leads out of the folder")]
    Outside,
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What lies at this path, of a file in the best form that the client accepts. Blocks.
    pub(super) fn find(&self, names: &Names, accepted: Accepted) -> Result<Found, FileError> {
        let root = fs::canonicalize(&self.root)?;
        let path = names.below(&root);
        let Some((path, metadata)) = look(&root, &path)? else {
            return Ok(Found::Nothing);
        };
        if metadata.is_dir() {
            return Ok(Found::Folder);
        }
        let content_type = content_type::of(names.last());
        for encoding in accepted.in_order() {
            let compressed = path.with_added_extension(encoding.extension());
            // Whatever is wrong with it, there is the original.
            let Ok(Some((compressed, its_metadata))) = look(&root, &compressed) else {
                continue;
            };
            if is_older(&its_metadata, &metadata) {
                continue;
            }
            if let Ok(Some(opened)) = open(&compressed, content_type, Some(encoding)) {
                return Ok(Found::File(Box::new(opened)));
            }
        }
        Ok(match open(&path, content_type, None)? {
            Some(opened) => Found::File(Box::new(opened)),
            None => Found::Nothing,
        })
    }
}

impl Opened {
    /// The answer to GET or HEAD.
    pub(super) fn answer(self, method: &Method, headers: &HeaderMap) -> Response {
        let is_known = is_known(headers, &self.etag);
        let mut fields: Vec<(HeaderName, String)> = vec![(ETAG, self.etag)];
        if is_known {
            return with(StatusCode::NOT_MODIFIED.into_response(), fields);
        }
        fields.push((CONTENT_TYPE, self.content_type.to_owned()));
        fields.push((CONTENT_LENGTH, self.length.to_string()));
        fields.push((ACCEPT_RANGES, "none".to_owned()));
        if let Some(encoding) = self.encoding {
            fields.push((CONTENT_ENCODING, encoding.name().to_owned()));
        }
        let body = match self.bytes {
            _ if method == Method::HEAD => Body::empty(),
            Some(bytes) => Body::from(bytes),
            None => {
                let file = tokio::fs::File::from_std(self.file).take(self.length);
                let piece_bytes = usize::try_from(AT_ONCE_BYTES).unwrap_or(usize::MAX);
                Body::from_stream(ReaderStream::with_capacity(file, piece_bytes))
            }
        };
        with(body.into_response(), fields)
    }
}

fn with(mut response: Response, fields: Vec<(HeaderName, String)>) -> Response {
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The path without symbolic links, and what lies there: a folder or a regular file.
fn look(root: &Path, path: &Path) -> Result<Option<(PathBuf, Metadata)>, FileError> {
    let found = fs::canonicalize(path).and_then(|path| {
        let metadata = fs::metadata(&path)?;
        Ok((path, metadata))
    });
    let (path, metadata) = match found {
        Ok(found) => found,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !path.starts_with(root) {
        return Err(FileError::Outside);
    }
    Ok((metadata.is_dir() || metadata.is_file()).then_some((path, metadata)))
}

/// Whether there is no file of that name, or can't be one.
fn is_missing(error: &io::Error) -> bool {
    #[cfg(unix)]
    if rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP) {
        return true;
    }
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
    )
}

/// Opens a regular file; `None` where it has been replaced by something else meanwhile.
fn open(
    path: &Path,
    content_type: &'static str,
    encoding: Option<Encoding>,
) -> Result<Option<Opened>, FileError> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A pipe would wait for a writer.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
        options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    }
    let mut file = match options.open(path) {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let mut length = metadata.len();
    let mut bytes = None;
    if length <= AT_ONCE_BYTES {
        let mut whole = Vec::new();
        (&mut file).take(AT_ONCE_BYTES).read_to_end(&mut whole)?;
        length = whole.len() as u64;
        bytes = Some(whole);
    }
    Ok(Some(Opened {
        etag: etag(&metadata, bytes.as_deref(), encoding),
        file,
        length,
        bytes,
        content_type,
        encoding,
    }))
}

/// Of what a short file holds, so that it is the same wherever the file lies. Of a long one, of what changes whenever it is
/// written or replaced.
fn etag(metadata: &Metadata, bytes: Option<&[u8]>, encoding: Option<Encoding>) -> String {
    let mut hasher = DefaultHasher::new();
    match bytes {
        Some(bytes) => bytes.hash(&mut hasher),
        None => {
            (metadata.len(), metadata.modified().ok()).hash(&mut hasher);
            #[cfg(unix)]
            {
                use std::os::unix::fs::MetadataExt as _;
                (metadata.dev(), metadata.ino()).hash(&mut hasher);
                (metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
            }
        }
    }
    let form = encoding.map_or("", Encoding::name);
    form.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn is_older(compressed: &Metadata, original: &Metadata) -> bool {
    let at = |metadata: &Metadata| metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    at(original)
        .duration_since(at(compressed))
        .is_ok_and(|by| by > OLDER)
}
