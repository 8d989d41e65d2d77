//! The unix socket the agent answers on.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{fs::Mode, net::sockopt::socket_peercred, process::umask};

/// What the socket's file allows nobody to do: only root and its group may ask what
/// programs do here.
const FORBIDDEN: Mode = Mode::from_raw_mode(0o117);

/// A socket's file, removed when this is dropped. Drop its listener first.
pub(crate) struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Makes the socket. One that is there is replaced if nobody answers on it.
    ///
    /// Call it before there are other threads: it changes the process's umask for a moment.
    pub(crate) fn claim(path: &Path) -> Result<(Self, UnixListener)> {
        remove_stale(path)?;
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let former = umask(FORBIDDEN);
        let bound = UnixListener::bind(path);
        umask(former);
        let at = || format!("cannot listen on {}", path.display());
        let listener = bound.with_context(at)?;
        listener.set_nonblocking(true).with_context(at)?;
        let socket = Self {
            path: path.to_owned(),
        };
        Ok((socket, listener))
    }
}

fn remove_stale(path: &Path) -> Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    if !kind.is_socket() {
        bail!(
            "{} is there and is no socket: choose another --socket",
            path.display()
        );
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .with_context(|| format!("cannot remove the old socket {}", path.display())),
        Err(error) => Err(error).with_context(|| format!("cannot examine {}", path.display())),
        Ok(theirs) => bail!(
            "process {} answers on {} already: stop it, or choose another --socket and --data-dir",
            socket_peercred(theirs).map_or(0, |peer| peer.pid.as_raw_nonzero().get()),
            path.display()
        ),
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Nobody listens on it any more, unless somebody else has put another one there.
        if let Err(error) = remove_stale(&self.path) {
            tracing::warn!("{} is left alone: {error:#}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_is_private_replaced_when_stale_and_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        let (first, listener) = Socket::claim(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);

        let refused = Socket::claim(&path).err().unwrap().to_string();
        assert!(refused.contains("answers on"), "{refused}");

        drop(listener);
        let (second, listener) = Socket::claim(&path).unwrap();
        drop(first);
        assert!(path.exists(), "it is the second's");
        drop((listener, second));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "mine").unwrap();
        let refused = Socket::claim(&path).err().unwrap().to_string();
        assert!(refused.contains("no socket"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
