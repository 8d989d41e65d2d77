//! Many reports, one insert.
//!
//! ClickHouse likes a few large inserts a second and hates many small ones. Callers of
//! [`Batcher::write`] each bring a report's rows and wait; whoever finds nobody writing
//! writes what all have brought. While that is under way the next batch gathers, so
//! batches grow with the load. Nobody waits for a batch to fill.

use crate::{
    problem::Problem,
    rows::Rows,
    schema::{CONTAINER, ENDPOINT, LOSS, OBSERVATION, RESOLUTION, RUN},
    server::Server,
};
use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Rows that wait for the next batch at most: some 100 MB. Further callers wait before
/// they add theirs.
const GATHERED_ROWS_MAX: usize = 500_000;

/// Inserts a batch. What is needed to understand a row goes before it, and the run last:
/// "watched until" is not said before what was seen until then is there.
pub(crate) fn insert(server: &Server, batch: &Rows) -> Result<(), Problem> {
    server.insert(&ENDPOINT, &batch.endpoints)?;
    server.insert(&RESOLUTION, &batch.resolutions)?;
    server.insert(&CONTAINER, &batch.containers)?;
    server.insert(&LOSS, &batch.losses)?;
    server.insert(&OBSERVATION, &batch.observations)?;
    server.insert(&RUN, &batch.runs)
}

/// Gathers rows into batches.
pub(crate) struct Batcher {
    interval: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    gathered: Rows,
    /// Of the batch that is gathered.
    outcome: Outcome,
    writing: bool,
    begun: Option<Instant>,
}

/// How a batch ended, once it has.
type Outcome = Arc<OnceLock<Result<(), Problem>>>;

impl Batcher {
    /// Batches begin at least `interval` apart.
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            interval,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Adds rows to a batch and returns when it is written; `insert` writes it if this
    /// caller is the one to do so.
    pub(crate) fn write(
        &self,
        rows: Rows,
        insert: impl FnOnce(&Rows) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let mut state = self.lock();
        while state.gathered.len() >= GATHERED_ROWS_MAX {
            state = self.wait(state);
        }
        state.gathered.append(rows);
        let outcome = Arc::clone(&state.outcome);
        while state.writing {
            if let Some(outcome) = outcome.get() {
                return outcome.clone();
            }
            state = self.wait(state);
        }
        if let Some(outcome) = outcome.get() {
            return outcome.clone();
        }
        state.writing = true;
        let begun = state.begun;
        drop(state);
        let turn = Turn {
            batcher: self,
            outcome: &outcome,
        };
        if let Some(begun) = begun {
            thread::sleep(self.interval.saturating_sub(begun.elapsed()));
        }
        let batch = self.take();
        let result = insert(&batch);
        outcome.get_or_init(|| result.clone());
        drop(turn);
        result
    }

    /// The gathered rows; what comes from now on is the next batch's.
    fn take(&self) -> Rows {
        let mut state = self.lock();
        state.begun = Some(Instant::now());
        state.outcome = Outcome::default();
        let rows = mem::take(&mut state.gathered);
        drop(state);
        self.changed.notify_all();
        rows
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic is done while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn of one writer; its end, even by a panic, lets the next one write.
struct Turn<'a> {
    batcher: &'a Batcher,
    outcome: &'a Outcome,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Only a panic leaves it open, and then nobody knows what was written.
        self.outcome
            .get_or_init(|| Err(Problem::Damaged("writing a batch failed".into())));
        self.batcher.lock().writing = false;
        self.batcher.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::{BootId, Run, Timestamp};
    use ethogram_store::Report;
    use std::sync::mpsc;

    fn one_row() -> Rows {
        let run = Run {
            id: "run".into(),
            boot: BootId::new("boot"),
            node: String::new(),
            hooks: String::new(),
            started: Timestamp(0),
            last_alive: Timestamp(0),
            ended_cleanly: false,
        };
        Rows::of(&Report::empty(run), 1)
    }

    fn waiting(batcher: &Batcher) -> usize {
        batcher.lock().gathered.len()
    }

    /// Starts a batch that is being written until `end` is sent to, and `more` callers that
    /// gather meanwhile; gives what each was told, and the sizes of the batches written.
    fn first_and_more(more: usize, first: Result<(), Problem>) -> (Vec<bool>, Vec<usize>) {
        let batcher = Batcher::new(Duration::ZERO);
        let sizes = Mutex::new(Vec::new());
        let insert = |batch: &Rows, result| {
            sizes.lock().unwrap().push(batch.len());
            result
        };
        let told = thread::scope(|scope| {
            let (started, has_started) = mpsc::channel();
            let (end, may_end) = mpsc::channel::<()>();
            let (batcher, insert) = (&batcher, &insert);
            let slow = scope.spawn(move || {
                batcher.write(one_row(), |batch| {
                    started.send(()).unwrap();
                    may_end.recv().unwrap();
                    insert(batch, first)
                })
            });
            has_started.recv().unwrap();
            let others: Vec<_> = (0..more)
                .map(|_| {
                    scope.spawn(move || batcher.write(one_row(), |batch| insert(batch, Ok(()))))
                })
                .collect();
            while waiting(batcher) < more {
                thread::yield_now();
            }
            end.send(()).unwrap();
            [slow]
                .into_iter()
                .chain(others)
                .map(|caller| caller.join().unwrap().is_ok())
                .collect()
        });
        (told, sizes.into_inner().unwrap())
    }

    #[test]
    fn what_comes_while_a_batch_is_written_is_the_next_batch() {
        let (told, sizes) = first_and_more(7, Ok(()));
        assert_eq!(sizes, [1, 7]);
        assert_eq!(told, [true; 8]);
    }

    #[test]
    fn a_batch_that_fails_is_its_own_callers_failure() {
        let (told, sizes) = first_and_more(3, Err(Problem::DiskFull));
        assert_eq!(sizes, [1, 3]);
        assert_eq!(told, [false, true, true, true]);
    }

    #[test]
    fn a_writer_that_panics_lets_the_next_one_write() {
        let batcher = Batcher::new(Duration::ZERO);
        let outcome = thread::scope(|scope| {
            let broken = scope.spawn(|| batcher.write(one_row(), |_| panic!("broken")));
            broken.join()
        });
        assert!(outcome.is_err());
        assert!(
            batcher
                .write(one_row(), |batch| {
                    assert_eq!(batch.len(), 1);
                    Ok(())
                })
                .is_ok()
        );
    }
}
