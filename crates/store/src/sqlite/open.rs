//! Files: creating, locking, recognising, migrating, moving aside.

use super::problem::Problem;
use crate::StoreError;
use ethogram_model::Timestamp;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// Schema changes, each a step from one version to the next; the first makes version 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../sql/0001_initial.sql"),
    include_str!("../sql/0002_changes.sql"),
    include_str!("../sql/0003_added.sql"),
    include_str!("../sql/0004_resolutions.sql"),
];

/// The schema version this program writes.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// "Etho": marks a SQLite file as ours (`PRAGMA application_id`).
const APPLICATION_ID: u32 = 0x4574_686f;

/// Stores tell what programs do, so nobody but their owner may read them.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o750;

/// How long to wait for another process that touches the file, `sqlite3` for instance.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The writer's page cache: a few of the largest containers' rows.
const WRITER_CACHE_KIB: u32 = 8 * 1024;

/// The log is cut to this size when its content has moved to the main file.
const LOG_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Different statements one connection keeps prepared.
const STATEMENTS_CACHED_MAX: usize = 32;

/// The right to write to a store, as long as it lives. The kernel takes it back from a
/// process that dies, however it dies.
///
/// The lock is on a file of its own, `FILE.lock`: SQLite's locks come and go with each
/// transaction, and closing any handle of the database file would drop them.
pub(super) struct WriterLock {
    _file: File,
    path: PathBuf,
}

impl WriterLock {
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let path = with_suffix(database, ".lock");
        let io_error = |doing| {
            let path = path.clone();
            move |source| io_or_full(doing, path, source)
        };
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(FILE_MODE)
                .open(&path)
                .map_err(io_error("create the lock file"))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Locked {
                        path: database.to_owned(),
                    });
                }
                Err(TryLockError::Error(source)) => {
                    return Err(io_error("lock")(source));
                }
            }
            // The former owner may have removed the name between our open and our lock;
            // then we hold what nobody else will ever meet.
            let ours = file.metadata().map_err(io_error("examine"))?.ino();
            if fs::metadata(&path).is_ok_and(|named| named.ino() == ours) {
                return Ok(Self { _file: file, path });
            }
        }
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // A lock file left behind locks nobody out: failing to remove it is harmless.
        let _ = fs::remove_file(&self.path);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn io_or_full(doing: &'static str, path: PathBuf, source: io::Error) -> StoreError {
    if source.kind() == io::ErrorKind::StorageFull {
        StoreError::DiskFull { path }
    } else {
        StoreError::Io {
            doing,
            path,
            source,
        }
    }
}

/// Creates the file so that only its owner may read it; SQLite gives its companions the
/// same mode.
pub(super) fn create_file(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(path)
        .map(drop)
        .map_err(|source| io_or_full("create", path.to_owned(), source))
}

pub(super) fn create_directory_of(path: &Path) -> Result<(), StoreError> {
    let Some(directory) = path.parent().filter(|p| !p.as_os_str().is_empty()) else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|source| io_or_full("create the directory", directory.to_owned(), source))
}

/// Connects for writing, and brings the schema up to date.
pub(super) fn connect_writer(path: &Path) -> Result<Connection, StoreError> {
    let connect = || -> Result<(Connection, u32), Problem> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        configure(&connection)?;
        let found = schema_version(&connection)?;
        Ok((connection, found))
    };
    let (mut connection, found) = connect().map_err(|problem| problem.at(path))?;
    check_identity(&connection, path)?;
    if found > SCHEMA_VERSION {
        return Err(newer(path, found));
    }
    prepare_for_writing(&mut connection, found).map_err(|problem| problem.at(path))?;
    Ok(connection)
}

fn prepare_for_writing(connection: &mut Connection, found: u32) -> Result<(), Problem> {
    if found == 0 {
        // Can be set only while there is no table.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Problem::NoLog);
    }
    // With a write-ahead log NORMAL cannot damage the file; a power cut may take the last
    // transactions, a killed process none.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -i64::from(WRITER_CACHE_KIB))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_MAX, |_| Ok(()))?;
    migrate(connection)
}

/// Takes the steps that are missing, each wholly or not at all.
fn migrate(connection: &mut Connection) -> Result<(), Problem> {
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = schema_version(&transaction)?;
        let Some(step) = MIGRATIONS.get(version as usize) else {
            return Ok(());
        };
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()?;
    }
}

/// Connects for reading.
pub(super) fn connect_reader(path: &Path) -> Result<Connection, StoreError> {
    let connect = |target: &Path, flags| -> Result<(Connection, u32), Problem> {
        let connection = Connection::open_with_flags(target, flags)?;
        configure(&connection)?;
        let found = schema_version(&connection)?;
        Ok((connection, found))
    };
    if let Err(source) = File::open(path) {
        return Err(io_or_full("open", path.to_owned(), source));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connected = connect(path, flags).or_else(|problem| {
        // Reading needs the shared-memory file of the log, which cannot be made on a
        // read-only medium or in somebody else's directory. Without a log nobody writes
        // at the moment, so the file can be read as it stands.
        if is_cannot_open(&problem) && !with_suffix(path, "-wal").exists() {
            connect(&immutable_uri(path), flags | OpenFlags::SQLITE_OPEN_URI)
        } else {
            Err(problem)
        }
    });
    let (connection, found) = connected.map_err(|problem| problem.at(path))?;
    check_identity(&connection, path)?;
    let known = SCHEMA_VERSION;
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Ok(connection),
        std::cmp::Ordering::Greater => Err(newer(path, found)),
        std::cmp::Ordering::Less => Err(StoreError::OlderSchema {
            path: path.to_owned(),
            found,
            known,
        }),
    }
}

fn is_cannot_open(problem: &Problem) -> bool {
    matches!(problem, Problem::Sqlite(error)
        if matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly)))
}

/// The path as a URI that tells SQLite that nobody changes the file.
fn immutable_uri(path: &Path) -> PathBuf {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02x}"));
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

fn configure(connection: &Connection) -> Result<(), Problem> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED_MAX);
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A file may come from elsewhere; its schema must not be able to run functions.
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

fn schema_version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Ours, or empty.
fn check_identity(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let look = || -> Result<bool, Problem> {
        let id: u32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables: u32 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok(id == APPLICATION_ID || (id == 0 && tables == 0))
    };
    if look().map_err(|problem| problem.at(path))? {
        Ok(())
    } else {
        Err(StoreError::NotAStore {
            path: path.to_owned(),
        })
    }
}

fn newer(path: &Path, found: u32) -> StoreError {
    StoreError::NewerSchema {
        path: path.to_owned(),
        found,
        known: SCHEMA_VERSION,
    }
}

/// Moves a damaged store out of the way, to `FILE.corrupt-SECONDS` (seconds since 1970),
/// together with its log, and returns the new name. Nothing is deleted.
///
/// # Errors
/// [`StoreError::Locked`] while somebody has it open for writing, or if the file cannot
/// be renamed.
pub fn move_aside(path: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let _lock = WriterLock::take(path)?;
    let stem = with_suffix(path, &format!(".corrupt-{}", now.seconds()));
    let aside = (1..)
        .map(|n| match n {
            1 => stem.clone(),
            n => with_suffix(&stem, &format!("-{n}")),
        })
        .find(|name| !name.exists())
        .expect("some number is free, directories are finite");
    let rename = |from: &Path, to: &Path| {
        fs::rename(from, to).map_err(|source| StoreError::Io {
            doing: "move aside",
            path: from.to_owned(),
            source,
        })
    };
    // The log first: without its file it is nothing, but with a new file it would be
    // taken for that file's.
    for companion in ["-wal", "-shm"] {
        let from = with_suffix(path, companion);
        if from.exists() {
            rename(&from, &with_suffix(&aside, companion))?;
        }
    }
    rename(path, &aside)?;
    Ok(aside)
}

/// What the store's files take on disk.
pub(super) fn bytes_on_disk(path: &Path) -> u64 {
    ["", "-wal"]
        .iter()
        .filter_map(|companion| fs::metadata(with_suffix(path, companion)).ok())
        .map(|metadata| metadata.len())
        .sum()
}
