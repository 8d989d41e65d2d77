//! Where everything lies below the actor's directory.

use anyhow::{Result, ensure};
use ethogram_model::Name;
use serde::{Deserialize, Serialize};
use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// How long the directory's path may be, so that socket addresses (108 bytes) and the
/// first line of a script (256 bytes) have room for what lies below it.
const DIR_BYTES_MAX: usize = 60;

/// The plain tools; tool 1 is a hard link of tool 0, so two executables share an inode.
const TOOLS: usize = 3;

/// A tool whose name wants to break tables and terminals.
const HOSTILE_TOOL: &[u8] = b"tool 3\n\x1b[31m\xff";

/// What a worker process must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) operations: u64,
    pub(crate) threads: usize,
    pub(crate) processes: usize,
    pub(crate) only: Vec<String>,
    pub(crate) except: Vec<String>,
    /// Whether the network namespace is the actor's own.
    pub(crate) own_network: bool,
    pub(crate) layout: Layout,
}

/// Names of everything below the directory, as bytes: some are no text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Takes an absolute path without symbolic links.
    pub(crate) fn new(dir: PathBuf) -> Result<Self> {
        let bytes = dir.as_os_str().as_bytes();
        ensure!(
            bytes.len() <= DIR_BYTES_MAX,
            "{} is too long for the sockets below it: use a directory of at most {DIR_BYTES_MAX} bytes",
            dir.display()
        );
        ensure!(
            bytes.iter().all(|b| b.is_ascii_graphic() && *b != b'\\'),
            "{} cannot be the interpreter's place in a script: use plain letters",
            dir.display()
        );
        Ok(Self { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn worker(&self, worker: usize) -> PathBuf {
        self.bin().join(format!("worker-{worker}"))
    }

    /// The tools: plain names first, the hostile one last.
    pub(crate) fn tools(&self) -> Vec<PathBuf> {
        let mut tools: Vec<_> = (0..TOOLS)
            .map(|tool| self.bin().join(format!("tool-{tool}")))
            .collect();
        tools.push(self.bin().join(OsStr::from_bytes(HOSTILE_TOOL)));
        tools
    }

    /// The tool that runs the scripts.
    pub(crate) fn interpreter(&self) -> PathBuf {
        self.tools().swap_remove(TOOLS - 1)
    }

    /// A script with the interpreter above.
    pub(crate) fn script(&self) -> PathBuf {
        self.data().join("script")
    }

    /// A symbolic link to the first tool.
    pub(crate) fn tool_link(&self) -> PathBuf {
        self.data().join("link-to-tool")
    }

    /// A program that nobody may execute.
    pub(crate) fn not_executable(&self) -> PathBuf {
        self.data().join("not executable")
    }

    /// The current directory of a worker.
    pub(crate) fn worker_dir(&self, worker: usize) -> PathBuf {
        self.data().join(format!("w{worker}"))
    }

    /// The directory in which one thread does as it likes.
    pub(crate) fn thread_dir(&self, worker: usize, thread: usize) -> PathBuf {
        self.worker_dir(worker).join(format!("t{thread}"))
    }

    /// Files that all threads open, with plain and hostile names.
    pub(crate) fn shared(&self) -> PathBuf {
        self.data().join("shared")
    }

    /// A directory so deep that a path in it is about 4,000 bytes long.
    pub(crate) fn deep(&self) -> PathBuf {
        /// With the file's name the path stays below PATH_MAX, 4096 with its final NUL.
        const DEEP_BYTES: usize = 3980;
        /// NAME_MAX.
        const COMPONENT_BYTES_MAX: usize = 255;
        let mut path = self.data().join("deep");
        loop {
            let left = DEEP_BYTES - path.as_os_str().len();
            if left < 2 {
                return path;
            }
            path.push("d".repeat(COMPONENT_BYTES_MAX.min(left - 1)));
        }
    }
}

/// A path as the kernel wants it.
pub(crate) fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("paths of the actor have no NUL")
}

/// A path as a summary shows it.
pub(crate) fn shown(path: &Path) -> Name {
    Name::from_bytes(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deep_directory_is_as_long_as_a_path_with_a_file_may_be() {
        for dir in ["/d", "/a/directory/that/is/quite/long/but/not/too/long"] {
            let path = Layout::new(dir.into()).unwrap().deep();
            let length = path.as_os_str().len();
            assert!((3970..=3980).contains(&length), "{length}");
        }
    }

    #[test]
    fn a_directory_that_leaves_no_room_is_refused() {
        for dir in [
            "x".repeat(DIR_BYTES_MAX + 1),
            "/two words".into(),
            "/back\\slash".into(),
        ] {
            assert!(Layout::new(dir.into()).is_err());
        }
    }
}
