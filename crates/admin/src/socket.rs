//! The Unix socket of those who run the server.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::{UnixListener, UnixStream};

use crate::{
    control::Control,
    routes,
    serve::{Accept, serve},
};

/// `admin.sock` in the data directory: mode 0600, and every caller must be the user of the server or root.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("another server is running on {0}: stop that one, or use another data_dir")]
    Running(PathBuf),
    /// The path holds something else.
    #[error("{0} exists and is not a socket: move it away")]
    NotASocket(PathBuf),
    /// A Unix socket's path must be shorter.
    #[error("{0} is longer than the 107 bytes that a socket may have: use a shorter data_dir")]
    TooLong(PathBuf),
    /// The operating system refused.
    #[error("cannot open the admin socket {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Where the socket of a data directory is.
pub fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

impl AdminSocket {
    /// Opens the socket. One that a dead server left behind is replaced. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn open(data_dir: &Path) -> Result<Self, SocketError> {
        let path = path_in(data_dir);
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(SocketError::TooLong(path));
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path)),
            Ok(_) if std::os::unix::net::UnixStream::connect(&path).is_ok() => {
                return Err(SocketError::Running(path));
            }
            Ok(_) => {
                fs::remove_file(&path).map_err(|source| SocketError::Io { path: path.clone(), source })?
            }
            Err(_) => {}
        }
        // Between these two calls others may connect, but the check of the caller keeps them out.
        let listener = UnixListener::bind(&path)
            .and_then(|listener| {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map(|()| listener)
            })
            .map_err(|source| SocketError::Io { path: path.clone(), source })?;
        Ok(Self { listener, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers calls for as long as the future is polled. The file is removed with it.
    pub async fn serve(self, control: Arc<dyn Control>) {
        let own = nix::unistd::geteuid().as_raw();
        let remove = RemoveAtEnd(self.path);
        serve(OwnerOnly { listener: self.listener, own }, routes::router(control), CONNECTIONS).await;
        drop(remove);
    }
}

struct OwnerOnly {
    listener: UnixListener,
    own: u32,
}

impl Accept for OwnerOnly {
    type Io = UnixStream;

    async fn accept(&self) -> io::Result<Option<UnixStream>> {
        let (stream, _) = self.listener.accept().await?;
        let caller = stream.peer_cred()?.uid();
        if may_call(caller, self.own) {
            return Ok(Some(stream));
        }
        tracing::warn!(event = "admin_call_refused", uid = caller, "a call by another user was refused");
        Ok(None)
    }
}

/// The server's own user, and root.
fn may_call(caller: u32, own: u32) -> bool {
    caller == own || caller == 0
}

struct RemoveAtEnd(PathBuf);

impl Drop for RemoveAtEnd {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// `sun_path` holds 108 bytes with the one that ends it.
const LONGEST_PATH: usize = 107;
/// At a time.
const CONNECTIONS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_root_may_call() {
        assert!(may_call(1_000, 1_000) && may_call(0, 1_000));
        assert!(!may_call(1_001, 1_000) && !may_call(1_000, 0));
    }

    #[tokio::test]
    async fn the_socket_is_private_and_replaces_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        let socket = AdminSocket::open(dir.path()).unwrap();
        let mode = fs::metadata(socket.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(AdminSocket::open(dir.path()), Err(SocketError::Running(_))));
        drop(socket);
        assert!(path_in(dir.path()).exists());
        assert!(AdminSocket::open(dir.path()).is_ok());
    }

    #[tokio::test]
    async fn says_what_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path_in(dir.path()), "x").unwrap();
        assert!(matches!(AdminSocket::open(dir.path()), Err(SocketError::NotASocket(_))));
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(AdminSocket::open(&long), Err(SocketError::TooLong(_))));
        assert!(matches!(AdminSocket::open(Path::new("/does/not/exist")), Err(SocketError::Io { .. })));
    }
}
