//! What changes in a store, for those who watch it: one reader of the spool, many listeners.
//!
//! Nobody waits for a slow listener: pages are kept in a ring, and who falls behind by more
//! than the ring misses pages and is told how many rows were in them.

use ethogram_model::{Run, Timestamp};
use ethogram_store::{Changes, PageLimits, Position, Spool, Store, StoreError};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::sleep,
};

/// How often changes are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long to wait after each page while somebody is behind.
const PACE: Duration = Duration::from_millis(20);
/// Pages that a listener may be behind; with the bytes of a page at most 64 MiB for all
/// listeners together.
const PAGES_MAX: usize = 64;
/// How large a page may be.
const PAGE: PageLimits = PageLimits {
    rows_max: 512,
    bytes_max: 1 << 20,
};

/// A store's changes.
pub struct Feed {
    store: Arc<dyn Store>,
    spool: Arc<dyn Spool>,
    state: Mutex<State>,
    /// Held by whoever tells a page: one after the other.
    telling: Mutex<()>,
}

struct State {
    pages: broadcast::Sender<Arc<Page>>,
    /// Up to where all listeners were told; none while nobody listens.
    position: Option<Position>,
    rows: u64,
    /// Runs that were told: as many as ran while somebody listened.
    runs: HashSet<String>,
}

/// Some changes.
pub(crate) struct Page {
    pub(crate) changes: Changes,
    /// Between the watches in this page that were not told of before and those before them.
    pub(crate) gaps: Vec<Unwatched>,
    /// Rows in all pages up to and with this one.
    rows_until: u64,
    rows: u64,
}

/// A time in which nobody watched a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unwatched {
    pub(crate) node: String,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

/// What a listener hears.
pub(crate) enum Heard {
    Page(Arc<Page>),
    /// So many rows were missed because the listener was too slow.
    Missed(u64),
}

/// Somebody who listens.
pub(crate) struct Listener {
    pages: broadcast::Receiver<Arc<Page>>,
    rows: u64,
    missed: bool,
    next: Option<Arc<Page>>,
}

impl Feed {
    /// Follows a store as long as this lives. Call it in a runtime.
    #[must_use]
    pub fn start<S: Store + Spool + 'static>(store: Arc<S>) -> Arc<Self> {
        let feed = Arc::new(Self {
            store: store.clone(),
            spool: store,
            state: Mutex::new(State {
                pages: broadcast::Sender::new(PAGES_MAX),
                position: None,
                rows: 0,
                runs: HashSet::new(),
            }),
            telling: Mutex::new(()),
        });
        tokio::spawn(follow(Arc::downgrade(&feed)));
        feed
    }

    /// Listens to what changes from now on. It blocks.
    pub(crate) fn listen(&self) -> Result<Listener, StoreError> {
        let mut state = self.lock();
        if state.position.is_none() {
            state.position = Some(self.spool.head()?);
        }
        Ok(Listener {
            pages: state.pages.subscribe(),
            rows: state.rows,
            missed: false,
            next: None,
        })
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.lock().pages.receiver_count()
    }

    /// Tells the next page; whether there is more. It blocks.
    fn tell(&self) -> Result<bool, StoreError> {
        let _one_at_a_time = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let position = {
            let mut state = self.lock();
            if state.pages.receiver_count() == 0 {
                state.position = None;
                state.runs.clear();
            }
            state.position
        };
        let Some(position) = position else {
            return Ok(false);
        };
        let changes = self.spool.changes_since(&position, PAGE)?;
        let next = changes.position;
        let rows = rows(&changes);
        let gaps = self.gaps(&changes.runs)?;
        let mut state = self.lock();
        state.position = Some(next);
        if !changes.is_empty() {
            state.rows += rows;
            let page = Page {
                changes,
                gaps,
                rows_until: state.rows,
                rows,
            };
            // An error means that nobody listens any more.
            let _ = state.pages.send(Arc::new(page));
        }
        Ok(!next.is_at_rest())
    }

    /// Tells all that changed until now. It blocks.
    pub(crate) fn catch_up(&self) -> Result<(), StoreError> {
        while self.tell()? {}
        Ok(())
    }

    fn gaps(&self, runs: &[Run]) -> Result<Vec<Unwatched>, StoreError> {
        // A run is in a page whenever it says that it is alive.
        let new: Vec<_> = {
            let mut state = self.lock();
            let is_new = |run: &&Run| state.runs.insert(run.id.clone());
            runs.iter().filter(is_new).collect()
        };
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.store.runs()?;
        let gap = |run: &&Run| {
            let earlier = all.iter().filter(|other| {
                other.boot == run.boot && other.node == run.node && other.started < run.started
            });
            let from = earlier.map(|other| other.last_alive).max()?;
            Some(Unwatched {
                node: run.node.clone(),
                from,
                until: run.started,
            })
        };
        Ok(new.iter().filter_map(gap).collect())
    }

    fn is_behind(&self) -> bool {
        self.lock().pages.len() > PAGES_MAX / 2
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change under the lock is whole, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rows(changes: &Changes) -> u64 {
    let rows = changes.containers.iter();
    rows.map(|c| (c.observations.len() + c.losses.len()) as u64)
        .sum()
}

async fn follow(feed: Weak<Feed>) {
    while let Some(feed) = feed.upgrade() {
        let is_behind = feed.is_behind();
        let told = tokio::task::spawn_blocking(move || feed.tell()).await;
        let wait = match told {
            Ok(Ok(true)) if is_behind => PACE,
            Ok(Ok(true)) => continue,
            Ok(Ok(false)) => LOOK_EVERY,
            Ok(Err(error)) => {
                tracing::warn!("cannot read what changed, will try again: {error}");
                LOOK_EVERY
            }
            // The runtime ends.
            Err(_) => return,
        };
        sleep(wait).await;
    }
}

impl Listener {
    /// What is next; nothing when the feed has ended.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        if let Some(page) = self.next.take() {
            return Some(self.hear(page));
        }
        loop {
            match self.pages.recv().await {
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(_)) => self.missed = true,
                Ok(page) if self.missed => {
                    self.missed = false;
                    let missed = (page.rows_until - page.rows).saturating_sub(self.rows);
                    self.next = Some(page);
                    return Some(Heard::Missed(missed));
                }
                Ok(page) => return Some(self.hear(page)),
            }
        }
    }

    fn hear(&mut self, page: Arc<Page>) -> Heard {
        self.rows = page.rows_until;
        Heard::Page(page)
    }
}
