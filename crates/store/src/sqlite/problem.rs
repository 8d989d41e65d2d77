//! What goes wrong below the surface, before it is known in which file.

use crate::StoreError;
use ethogram_model::ContainerKey;
use rusqlite::ErrorCode;
use std::path::Path;

/// An error without the path that makes it a [`StoreError`].
#[derive(Debug)]
pub(super) enum Problem {
    Sqlite(rusqlite::Error),
    /// SQLite is content, but what it returned cannot be ours.
    Damaged(String),
    /// The file system cannot share memory between processes, as some network ones.
    NoLog,
    Superseded {
        run: String,
        container: Box<ContainerKey>,
    },
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Problem {
    /// The error to show, with the file it happened to.
    pub(super) fn at(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Damaged(detail) => StoreError::Corrupt { path, detail },
            Self::Superseded { run, container } => StoreError::SupersededRun { run, container },
            Self::NoLog => StoreError::Database {
                path,
                source: "its file system does not allow a write-ahead log: use a local one".into(),
            },
            Self::Sqlite(error) => match kind_of(&error) {
                Kind::Full => StoreError::DiskFull { path },
                Kind::Locked => StoreError::Locked { path },
                Kind::Damaged => StoreError::Corrupt {
                    path,
                    detail: error.to_string(),
                },
                Kind::Other => StoreError::Database {
                    path,
                    source: Box::new(error),
                },
            },
        }
    }
}

enum Kind {
    Full,
    Locked,
    Damaged,
    Other,
}

fn kind_of(error: &rusqlite::Error) -> Kind {
    // A column of the wrong type, or text that is not UTF-8, in a table whose types are
    // declared: the page was overwritten.
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    if matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..)
    ) {
        return Kind::Damaged;
    }
    match error.sqlite_error() {
        // SQLite reports a full disk under the second code when it is the shared-memory
        // file of the log that cannot grow.
        Some(e)
            if e.code == ErrorCode::DiskFull
                || e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE =>
        {
            Kind::Full
        }
        Some(e) => match e.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Kind::Locked,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Kind::Damaged,
            _ => Kind::Other,
        },
        None => Kind::Other,
    }
}
