//! A Unix socket: a file that is there while the server listens.

use core::task::{Context, Poll};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use crate::settings::UnixMode;

/// The file of a socket. It is removed with this, unless another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(target: "server", path = %self.path.display(), %error, "the socket cannot be removed");
        }
    }
}

/// A socket with its name, on which nothing listens yet.
#[derive(Debug)]
pub(super) struct Bound {
    socket: Socket,
    file: SocketFile,
}

impl Bound {
    /// Takes the name. The file of a server that was killed is replaced.
    ///
    /// # Errors
    /// When somebody listens there, something else has that name, or the system refuses.
    pub(super) fn bind(path: &Path, mode: UnixMode) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile {
            path: path.to_owned(),
            inode: fs::symlink_metadata(path)?.ino(),
        };
        // Before it listens, so that nobody else comes in between.
        fs::set_permissions(path, fs::Permissions::from_mode(mode.0))?;
        Ok(Self { socket, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    pub(super) fn listen(self, backlog: u16) -> io::Result<Listener> {
        self.socket.listen(backlog.into())?;
        let listener = UnixListener::from_std(self.socket.into())?;
        Ok(Listener {
            listener,
            _file: self.file,
        })
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        let error = "there is a file of this name, and it is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, error));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

/// Accepts connections; the file is removed with it.
#[derive(Debug)]
pub(super) struct Listener {
    listener: UnixListener,
    _file: SocketFile,
}

impl Listener {
    pub(super) fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<tokio::net::UnixStream>> {
        let accepted = self.listener.poll_accept(cx);
        accepted.map(|accepted| accepted.map(|(stream, _)| stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_file_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let bind = || Bound::bind(&path, UnixMode(0o600));
        let listener = bind().unwrap().listen(8).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(bind().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists());

        // A server that was killed leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = bind().unwrap().listen(8).unwrap();
        // Somebody else has replaced it meanwhile.
        fs::remove_file(&path).unwrap();
        let second = bind().unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);

        fs::write(&path, "a file").unwrap();
        assert_eq!(bind().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }
}
