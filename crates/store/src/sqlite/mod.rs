//! The store that lives in one SQLite file.
//!
//! One connection writes, behind a mutex; readers have their own and see the last
//! committed state without waiting (write-ahead log). A report is one transaction. What
//! was applied survives a killed process at any moment; a power cut may take the last
//! transactions, never the file. See `store.rs` for what that means for counts.

mod open;
mod problem;
mod read;
mod recent;
mod retain;
mod spool;
mod write;

pub use open::{SCHEMA_VERSION, move_aside};

use crate::{
    Changes, KeptContainer, Limits, Overview, PageLimits, Peer, Position, Removed, Report, Spool,
    Stats, Store, StoreError,
};
use ethogram_model::{
    BootId, Container, ContainerKey, Endpoint, Loss, Observation, Resolution, Run, Selection,
    Timestamp,
};
use open::WriterLock;
use problem::Problem;
use rusqlite::Connection;
use std::{
    net::IpAddr,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use write::Writer;

/// Reading connections kept open for the next query. More may be open at a time, one for
/// each query that runs.
const READERS_IDLE_MAX: usize = 4;

/// A store in one SQLite file (and its companions `-wal`, `-shm` and `.lock`).
pub struct SqliteStore {
    path: PathBuf,
    // Readers close before the writer, so that the writer is the last to leave and
    // clears the log away; the lock goes last of all.
    readers: Mutex<Vec<Connection>>,
    writer: Option<Mutex<Writer>>,
    /// Held while waiting for the writer, so that whoever waits is next: a mutex alone
    /// would let retention, which takes it again and again, keep reports out.
    next_writer: Mutex<()>,
    retaining: Mutex<()>,
    _lock: Option<WriterLock>,
}

impl SqliteStore {
    /// Opens a store for reading and writing; makes the directory and the file if they
    /// are not there, readable by their owner only.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if somebody has it open for writing,
    /// [`StoreError::NewerSchema`], [`StoreError::NotAStore`] or [`StoreError::Corrupt`]
    /// if the file is not what it should be (the last can be repaired with
    /// [`move_aside`]), and others if the file system refuses.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        open::create_directory_of(path)?;
        let lock = WriterLock::take(path)?;
        open::create_file(path)?;
        let writer = Writer::new(open::connect_writer(path)?);
        Ok(Self {
            path: path.to_owned(),
            readers: Mutex::default(),
            writer: Some(Mutex::new(writer)),
            next_writer: Mutex::default(),
            retaining: Mutex::default(),
            _lock: Some(lock),
        })
    }

    /// Opens a store for reading only, also while somebody else writes to it.
    ///
    /// # Errors
    /// As [`SqliteStore::open`], and [`StoreError::OlderSchema`] or [`StoreError::Io`]
    /// where that would upgrade or create the file.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let reader = open::connect_reader(path)?;
        Ok(Self {
            path: path.to_owned(),
            readers: Mutex::new(vec![reader]),
            writer: None,
            next_writer: Mutex::default(),
            retaining: Mutex::default(),
            _lock: None,
        })
    }

    /// Reads the whole file and checks that its structure is sound. SQLite keeps no
    /// checksums: damage within a value goes unnoticed.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first finding.
    pub fn check(&self) -> Result<(), StoreError> {
        self.read(|connection| {
            let verdict: String =
                connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            match verdict.as_str() {
                "ok" => Ok(()),
                _ => Err(Problem::Damaged(verdict)),
            }
        })
    }

    /// Answers a query from one consistent state of the store.
    fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Problem>,
    ) -> Result<T, StoreError> {
        let idle = lock(&self.readers).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open::connect_reader(&self.path)?,
        };
        let answer = connection
            .transaction()
            .map_err(Problem::from)
            .and_then(|snapshot| query(&snapshot))
            .map_err(|problem| problem.at(&self.path));
        let mut idle = lock(&self.readers);
        if answer.is_ok() && idle.len() < READERS_IDLE_MAX {
            idle.push(connection);
        }
        answer
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Problem>,
    ) -> Result<T, StoreError> {
        let Some(writer) = &self.writer else {
            return Err(StoreError::ReadOnly {
                path: self.path.clone(),
            });
        };
        let next = lock(&self.next_writer);
        let mut writer = writer.lock().unwrap_or_else(|poisoned| {
            // Whoever panicked had its transaction rolled back on the way out.
            let mut writer = poisoned.into_inner();
            writer.forget();
            writer
        });
        drop(next);
        work(&mut writer).map_err(|problem| problem.at(&self.path))
    }
}

/// Locks what is whole at every moment, whoever panicked while holding it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for SqliteStore {
    fn apply(&self, report: &Report) -> Result<(), StoreError> {
        self.write(|writer| writer.apply(report))
    }

    fn describe(&self, containers: &[Container], endpoints: &[Endpoint]) -> Result<(), StoreError> {
        self.write(|writer| writer.describe(containers, endpoints))
    }

    fn containers(&self, selection: &Selection) -> Result<Vec<KeptContainer>, StoreError> {
        self.read(|connection| {
            let numbered = read::containers(connection, selection)?;
            Ok(numbered.into_iter().map(|(_, kept)| kept).collect())
        })
    }

    fn observations(
        &self,
        selection: &Selection,
        visit: &mut dyn FnMut(Observation) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.read(|connection| read::observations(connection, selection, visit))
    }

    fn losses(&self, selection: &Selection) -> Result<Vec<(ContainerKey, Loss)>, StoreError> {
        self.read(|connection| read::losses(connection, selection))
    }

    fn endpoints(&self, ips: Option<&[IpAddr]>) -> Result<Vec<Endpoint>, StoreError> {
        self.read(|connection| read::endpoints(connection, ips))
    }

    fn resolutions(&self, selection: &Selection) -> Result<Vec<Resolution>, StoreError> {
        self.read(|connection| read::resolutions(connection, selection))
    }

    fn runs(&self) -> Result<Vec<Run>, StoreError> {
        self.read(read::runs)
    }

    fn runs_around(&self, boots: &[&BootId]) -> Result<Vec<Run>, StoreError> {
        self.read(|connection| read::runs_around(connection, boots))
    }

    fn last_alive(&self, id_prefix: &str) -> Result<Option<Timestamp>, StoreError> {
        self.read(|connection| read::last_alive(connection, id_prefix))
    }

    fn stats(&self, selection: &Selection) -> Result<Vec<(ContainerKey, Stats)>, StoreError> {
        self.read(|connection| read::stats(connection, selection))
    }

    fn overview(&self) -> Result<Overview, StoreError> {
        let overview = self.read(read::overview)?;
        Ok(Overview {
            bytes: open::bytes_on_disk(&self.path),
            ..overview
        })
    }

    fn retain(&self, limits: &Limits, now: Timestamp) -> Result<Removed, StoreError> {
        // Two at a time would spare and remove each other's texts.
        let _one_at_a_time = lock(&self.retaining);
        retain::retain(self, limits, now)
    }
}

impl Spool for SqliteStore {
    fn identity(&self) -> Result<String, StoreError> {
        self.read(spool::identity)
    }

    fn head(&self) -> Result<Position, StoreError> {
        self.read(spool::head)
    }

    fn changes_since(
        &self,
        position: &Position,
        limits: PageLimits,
    ) -> Result<Changes, StoreError> {
        self.read(|connection| spool::changes_since(connection, *position, limits))
    }

    fn peer(&self, collector: &str) -> Result<Peer, StoreError> {
        self.write(|writer| spool::peer(writer.connection(), collector))
    }

    fn acknowledge(
        &self,
        collector: &str,
        position: &Position,
        stamp: i64,
    ) -> Result<(), StoreError> {
        self.write(|writer| spool::acknowledge(writer.connection(), collector, position, stamp))
    }
}
