//! What can go wrong with a store, and what to do about it.

use ethogram_model::ContainerKey;
use std::{io, path::PathBuf};

/// Why a store refused. After any of these nothing of the request counts as applied:
/// applying it again is safe, and needed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room. The report is still the caller's: keep it and apply it again.
    #[error(
        "no space left for {path}: free some space or lower the store's size limit; nothing was applied, the report can be applied again"
    )]
    DiskFull {
        /// The store's file.
        path: PathBuf,
    },
    /// Another process has the store open for writing.
    #[error(
        "{path} is in use by another writer: stop it, or choose another file (reading alongside it is possible)"
    )]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is no SQLite file, or is damaged.
    #[error(
        "{path} is damaged ({detail}): move it aside to start anew, or try to save its content with `sqlite3 {path} .recover`"
    )]
    Corrupt {
        /// The store's file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A healthy SQLite file, but another program's.
    #[error("{path} is not an Ethogram store: choose another file")]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// Written by a version of Ethogram that is newer than this one.
    #[error(
        "{path} has schema version {found}, this program knows versions up to {known}: use a newer ethogram or another file"
    )]
    NewerSchema {
        /// The store's file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version this program knows.
        known: u32,
    },
    /// Opened only for reading, and written by an older version of Ethogram.
    #[error(
        "{path} has schema version {found}, this program reads version {known}: open it for writing once to bring it up to date"
    )]
    OlderSchema {
        /// The store's file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The version this program reads.
        known: u32,
    },
    /// A run reported a container that a newer run has taken over, so its counts could
    /// be in the store already.
    #[error(
        "run {run} reports {container:?}, but a newer run has reported it since: one run after another may report a container, never two at a time"
    )]
    SupersededRun {
        /// The older run.
        run: String,
        /// The container it no longer owns.
        container: Box<ContainerKey>,
    },
    /// The store is open for reading only.
    #[error("{path} is open for reading only")]
    ReadOnly {
        /// The store's file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A database server does not answer, or not in time.
    #[error(
        "cannot reach {endpoint}: see whether the server runs and whether address and port are right; the report can be applied again"
    )]
    Unreachable {
        /// The server's address, without the password.
        endpoint: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database refused for a reason of its own.
    #[error("the database {path} refused")]
    Database {
        /// The store's file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
