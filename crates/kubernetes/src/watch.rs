//! Talks to the API server: lists each kind once, then hears of changes.
//!
//! Every kind has a task of its own that goes round this circle:
//!
//! ```text
//!        ┌────── 410 Gone ──────┐
//!        ▼                      │
//!      list ──all pages──▶    watch ──ended or failed──▶ wait, then watch again
//! ```
//!
//! A watch that ends is taken up at the last resource version that was heard, bookmarks
//! included, so nothing is missed and nothing is asked twice. Only the API server's word
//! that it no longer has that version (410, as a status or as an event) leads to a new
//! list, whose end tells what is no more.
//!
//! kube's own `watcher` is not used, because it does not say when a silent watch is
//! connected again, so a silence would have no end; it repeats a watch for ever that is
//! refused with the status 410; and one odd object spoils its whole list.

mod backoff;
pub(crate) mod wire;

pub use backoff::{BACKOFF_MAX_S, BACKOFF_MIN_MS};
pub use wire::{LINE_BYTES_MAX, PAGE_BYTES_MAX};

use crate::{
    names::Event,
    objects::{Kind, Uid, parse},
    reason::reason,
};
use backoff::Backoff;
use kube::Client;
use std::{collections::HashSet, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use wire::{Change, Trouble, Wire};

/// How many objects are asked for at a time.
pub const PAGE_OBJECTS: u32 = 500;
/// How long an answer may take to begin, and a page to arrive.
pub const REQUEST_TIMEOUT_S: u64 = 60;
/// How long the API server is asked to keep a watch open.
pub const WATCH_S: u32 = 290;
/// How long a watch may be silent before its connection counts as dead. A living one is
/// ended by the API server before.
pub const IDLE_MAX_S: u64 = WATCH_S as u64 + 15;
/// How many events wait to be taken; beyond it the tasks wait, and with them the API
/// server's connections, which is no loss.
pub const EVENTS_MAX: usize = 1024;
/// A watch that ends earlier without a word counts as a failure, so that it is not
/// begun anew without a pause.
const SHORT_WATCH: Duration = Duration::from_secs(5);

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything that gives names: for a collector.
    Cluster,
    /// The pods of one node: for an agent. Nobody should let every agent watch the
    /// whole cluster.
    Node(String),
}

impl Scope {
    /// The kinds that are watched, and that roles must allow to `list` and `watch`.
    #[must_use]
    pub fn kinds(&self) -> &'static [Kind] {
        match self {
            Self::Cluster => Kind::ALL,
            Self::Node(_) => &[Kind::Pod],
        }
    }

    fn fields(&self) -> Option<String> {
        match self {
            Self::Cluster => None,
            Self::Node(name) => Some(format!("spec.nodeName={name}")),
        }
    }
}

/// The running tasks; they end when this is dropped.
///
/// ```no_run
/// # use ethogram_kubernetes::{Names, Scope, Watch, connect};
/// # async fn collect(now: fn() -> ethogram_model::Timestamp) -> Result<(), Box<dyn std::error::Error>> {
/// let scope = Scope::Cluster;
/// let mut names = Names::new(scope.kinds(), Vec::new());
/// let mut watch = Watch::start(&connect(None).await?, &scope);
/// loop {
///     names.apply(watch.next().await, now());
///     while let Some(event) = watch.try_next() {
///         names.apply(event, now());
///     }
///     let updates = names.changed(now());
///     // Store updates.endpoints; enrich the containers of updates.pods.
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<Event>,
    _tasks: JoinSet<()>,
}

impl Watch {
    /// Starts to watch. It never gives up: what goes wrong is told as [`Event::Away`] and
    /// tried again.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(client: &Client, scope: &Scope) -> Self {
        let (told, events) = mpsc::channel(EVENTS_MAX);
        let mut tasks = JoinSet::new();
        for &kind in scope.kinds() {
            let line = Line {
                kind,
                wire: Wire::new(client.clone(), kind, scope.fields()),
                told: told.clone(),
                backoff: Backoff::new(),
            };
            tasks.spawn(async move {
                // It ends only when nobody listens any more.
                let _closed = line.run().await;
            });
        }
        Self {
            events,
            _tasks: tasks,
        }
    }

    /// Waits for the next event, which happened a moment ago.
    pub async fn next(&mut self) -> Event {
        let event = self.events.recv().await;
        event.expect("the tasks live as long as this and never end by themselves")
    }

    /// An event that waits already, if there is one.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

/// Nobody listens any more.
struct Closed;

/// Why a list or watch is over.
enum Over {
    Closed,
    Trouble(Trouble),
}

impl From<Closed> for Over {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<Trouble> for Over {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// The watch of one kind.
struct Line {
    kind: Kind,
    wire: Wire,
    told: mpsc::Sender<Event>,
    backoff: Backoff,
}

impl Line {
    async fn run(mut self) -> Result<(), Closed> {
        let mut version = None;
        loop {
            let over = match &mut version {
                None => self.list().await.map(|listed| version = Some(listed)),
                Some(version) => self.watch(version).await,
            };
            match over {
                Ok(()) => {}
                Err(Over::Closed) => return Err(Closed),
                Err(Over::Trouble(Trouble::Gone)) => {
                    version = None;
                    self.backoff.pause(None).await;
                }
                Err(Over::Trouble(Trouble::Failed { why, wait })) => {
                    let why = reason(&why);
                    tracing::debug!(kind = self.kind.plural(), why, "the API server is away");
                    self.tell(Event::Away(self.kind, why)).await?;
                    self.backoff.pause(wait).await;
                }
            }
        }
    }

    /// Tells all objects, and gives the version from which on to watch.
    async fn list(&mut self) -> Result<String, Over> {
        self.tell(Event::Listing(self.kind)).await?;
        let mut listed = HashSet::new();
        let mut next = None;
        loop {
            let page = self.wire.page(next.as_deref());
            let page = in_time(REQUEST_TIMEOUT_S, "a page of its list", page).await?;
            let page = page.read()?;
            for json in &page.items {
                if let Some(uid) = self.tell_object(json).await? {
                    listed.insert(uid);
                }
            }
            match page.more {
                Some(more) => next = Some(more),
                None => {
                    self.tell(Event::Listed(self.kind, listed)).await?;
                    return Ok(page.version);
                }
            }
        }
    }

    /// Tells changes until the watch ends, and keeps the version at the last one heard.
    async fn watch(&mut self, version: &mut String) -> Result<(), Over> {
        let started = Instant::now();
        let lines = self.wire.watch(version);
        let mut lines = in_time(REQUEST_TIMEOUT_S, "the beginning of a watch", lines).await?;
        self.tell(Event::Heard(self.kind)).await?;
        loop {
            let line = in_time(IDLE_MAX_S, "a word of its watch", lines.next()).await?;
            let Some(line) = line else {
                break;
            };
            self.backoff.reset();
            match line.read() {
                Err(why) => self.tell_malformed(&why).await?,
                Ok(Change::Set(json, at)) => {
                    self.tell_object(json).await?;
                    advance(version, at);
                }
                Ok(Change::Removed(json, at)) => {
                    self.tell_removed(json).await?;
                    advance(version, at);
                }
                Ok(Change::Bookmark(at)) => {
                    self.tell(Event::Heard(self.kind)).await?;
                    advance(version, at);
                }
                Ok(Change::Error(trouble)) => return Err(trouble.into()),
            }
        }
        if started.elapsed() < SHORT_WATCH {
            self.backoff.pause(None).await;
        }
        Ok(())
    }

    /// Tells an object, or that it is not understood; gives its uid, by which even what is
    /// not understood is known to be there.
    async fn tell_object(&self, json: &str) -> Result<Option<Uid>, Closed> {
        match parse(self.kind, json) {
            Ok(object) => {
                let uid = object.uid.clone();
                self.tell(Event::Set(Box::new(object))).await?;
                Ok(Some(uid))
            }
            Err(why) => {
                self.tell_malformed(&why.to_string()).await?;
                Ok(wire::uid(json))
            }
        }
    }

    /// Tells an object's end, even if its last state is not understood.
    async fn tell_removed(&self, json: &str) -> Result<(), Closed> {
        let (uid, ended) = match parse(self.kind, json) {
            Ok(object) => (Some(object.uid.clone()), object.ended()),
            Err(why) => {
                self.tell_malformed(&why.to_string()).await?;
                (wire::uid(json), None)
            }
        };
        match uid {
            Some(uid) => self.tell(Event::Removed(self.kind, uid, ended)).await,
            None => Ok(()),
        }
    }

    async fn tell_malformed(&self, why: &str) -> Result<(), Closed> {
        self.tell(Event::Malformed(self.kind, reason(why))).await
    }

    async fn tell(&self, event: Event) -> Result<(), Closed> {
        self.told.send(event).await.map_err(|_| Closed)
    }
}

fn advance(version: &mut String, at: Option<String>) {
    if let Some(at) = at {
        *version = at;
    }
}

async fn in_time<T>(
    limit_s: u64,
    what: &str,
    answer: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let limit = Duration::from_secs(limit_s);
    timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(Trouble::failed(format!(
            "the API server did not send {what} within {limit_s} s"
        )))
    })
}
