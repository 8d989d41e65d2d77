//! Writes what was counted into the store, on a thread of its own, so that a slow or full
//! disk never keeps the kernel's records waiting.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ethogram_model::Run;
use ethogram_store::{Report, Store, StoreError};
use tokio::sync::oneshot;

use super::pending::Pending;

/// How often what was counted is written.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How often a run without news says that it is alive. Readers take a run for ended that
/// is silent for 30 s.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// How soon a store that failed is tried again; doubled with every failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest time between two tries.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long a failing store is tried when the agent ends.
const CLOSE_WAIT: Duration = Duration::from_secs(10);
/// Rows that may wait for a store that fails, about 300 bytes each. While there are more,
/// the agent takes no more from the kernel, which goes on counting what it knows and
/// charges what it cannot hold to the containers as lost.
pub(crate) const PENDING_ROWS_MAX: usize = 262_144;

/// How writing goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// Why the last try failed; `None` if it did not.
    pub(crate) failure: Option<String>,
    /// Whether trying again is of no use.
    pub(crate) is_fatal: bool,
    /// Reports applied.
    pub(crate) flushes: u64,
    /// Tries that failed.
    pub(crate) failures: u64,
    /// Time spent applying.
    pub(crate) flush_time: Duration,
    /// Rows that wait.
    pub(crate) pending_rows: usize,
}

/// Told when everything handed over before is in the store; dropped if it could not be put there.
pub(crate) type Receipt = oneshot::Sender<()>;

/// The thread that writes.
pub(crate) struct Keeper {
    desk: Arc<Desk>,
    thread: JoinHandle<Result<()>>,
}

/// Where work is handed over.
pub(crate) struct Desk {
    work: Mutex<Work>,
    wake: Condvar,
}

struct Work {
    pending: Pending,
    receipts: Vec<Receipt>,
    health: Health,
    closing: bool,
}

impl Keeper {
    /// Starts to write a run's reports.
    pub(crate) fn start(store: Arc<dyn Store>, run: Run) -> Result<Self> {
        let desk = Arc::new(Desk {
            work: Mutex::new(Work {
                pending: Pending::new(run),
                receipts: Vec::new(),
                health: Health::default(),
                closing: false,
            }),
            wake: Condvar::new(),
        });
        let theirs = Arc::clone(&desk);
        let thread = thread::Builder::new()
            .name("keeper".into())
            .spawn(move || theirs.serve(store.as_ref()))
            .context("cannot start a thread")?;
        Ok(Self { desk, thread })
    }

    /// Where to look how it goes.
    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// Writes the rest and ends.
    pub(crate) fn close(self) -> Result<()> {
        self.desk.lock().closing = true;
        self.desk.wake.notify_one();
        self.thread.join().unwrap_or_else(|_| {
            bail!("the thread that writes the store has panicked: its last rows are lost")
        })
    }
}

impl Desk {
    /// Takes a report, and receipts to be given when it is written.
    pub(crate) fn hand_over(&self, report: Report, receipts: Vec<Receipt>) {
        let mut work = self.lock();
        work.pending.take_in(report);
        work.receipts.extend(receipts);
        if !work.receipts.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Gives receipts when all that was handed over is written.
    pub(crate) fn ask(&self, receipts: Vec<Receipt>) {
        let mut work = self.lock();
        work.receipts.extend(receipts);
        self.wake.notify_one();
    }

    /// Whether so much waits that no more should be collected.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lock().pending.rows() > PENDING_ROWS_MAX
    }

    /// How writing goes.
    pub(crate) fn health(&self) -> Health {
        let work = self.lock();
        Health {
            pending_rows: work.pending.rows(),
            ..work.health.clone()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        // Every change under the lock is whole, whoever panicked.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, store: &dyn Store) -> Result<()> {
        let mut schedule = Schedule::new();
        while self.await_work(&schedule) {
            schedule.outcome(self.flush(store));
        }
        let deadline = Instant::now() + CLOSE_WAIT;
        while !self.flush(store) {
            let health = self.health();
            if health.is_fatal || Instant::now() > deadline {
                bail!(
                    "{} rows are lost that the store did not take: {}",
                    health.pending_rows,
                    health.failure.unwrap_or_default()
                );
            }
            thread::sleep(RETRY_FIRST.min(CLOSE_WAIT));
        }
        Ok(())
    }

    /// Waits until something is to be written; false when the agent ends.
    fn await_work(&self, schedule: &Schedule) -> bool {
        let mut work = self.lock();
        loop {
            if work.closing {
                return false;
            }
            let until = schedule.next(work.pending.rows() > 0, !work.receipts.is_empty());
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if schedule.is_failing() {
                // Whoever asks now learns that the store lags behind.
                work.receipts.clear();
            }
            (work, _) = self
                .wake
                .wait_timeout(work, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes all that waits; false if the store refused, and everything waits on.
    fn flush(&self, store: &dyn Store) -> bool {
        let (report, receipts) = {
            let mut work = self.lock();
            (work.pending.take(), std::mem::take(&mut work.receipts))
        };
        let started = Instant::now();
        let applied = store.apply(&report);
        let mut work = self.lock();
        match applied {
            Ok(()) => {
                work.health.flushes += 1;
                work.health.flush_time += started.elapsed();
                if work.health.failure.take().is_some() {
                    tracing::info!("the store takes what was counted again; nothing of it is lost");
                }
                for receipt in receipts {
                    // Whoever asked may have given up.
                    let _ = receipt.send(());
                }
                true
            }
            Err(error) => {
                work.pending.put_back(report);
                work.health.failed(error);
                false
            }
        }
    }
}

impl Health {
    fn failed(&mut self, error: StoreError) {
        self.failures += 1;
        self.is_fatal = matches!(error, StoreError::Corrupt { .. });
        let text = format!("{:#}", anyhow::Error::from(error));
        if self.failure.as_ref() != Some(&text) {
            tracing::error!("cannot keep what was counted, will try again: {text}");
        }
        self.failure = Some(text);
    }
}

/// When to write next.
struct Schedule {
    last: Instant,
    /// The wait after a failure; zero while all is well.
    backoff: Duration,
}

impl Schedule {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            backoff: Duration::ZERO,
        }
    }

    fn is_failing(&self) -> bool {
        !self.backoff.is_zero()
    }

    fn outcome(&mut self, is_written: bool) {
        self.last = Instant::now();
        self.backoff = if is_written {
            Duration::ZERO
        } else {
            (self.backoff * 2).clamp(RETRY_FIRST, RETRY_MAX)
        };
    }

    fn next(&self, has_news: bool, is_asked: bool) -> Instant {
        self.last
            + match (self.is_failing(), is_asked, has_news) {
                (true, _, _) => self.backoff,
                (_, true, _) => Duration::ZERO,
                (_, _, true) => FLUSH_EVERY,
                (_, _, false) => ALIVE_EVERY,
            }
    }
}
