//! The daemon of one machine.
//!
//! ```text
//! kernel, runtimes ─▶ watch ──reports──▶ keeper ─▶ store ─▶ API (unix socket, TCP)
//!                     (this thread)      (thread)            (tokio)
//!                       ▲──────────── "what is new?" ──────────┘
//! ```
//!
//! The watch ticks a few times a second on the main thread and hands reports to the
//! keeper, which joins them and writes them once a second. A question to the API makes
//! both act at once and waits for them, so that an answer holds all that had happened
//! when it was asked.

mod api;
mod keeper;
mod metrics;
mod neighbours;
mod notify;
mod pending;
mod reporting;
mod rights;
mod signals;
mod socket;
mod status;
mod totals;

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ethogram_cluster::SenderStatus;
use ethogram_identity::{Bounds, RuntimeStatus, Scope, cgroups::Hierarchies};
use ethogram_model::Run;
use ethogram_neighbours::Exported;
use ethogram_sensor::{HookStatus, Sensor};
use ethogram_store::{SqliteStore, Store, StoreError, move_aside};
use tokio::sync::{oneshot, watch};

use crate::{
    clock::now,
    config::Settings,
    names::NamedStore,
    watch::{Watch, v1_controller},
};
use keeper::{Desk, Keeper, PENDING_ROWS_MAX, Receipt};
use neighbours::Neighbours;
use notify::Notifier;
use reporting::Reporter;
pub(crate) use rights::KEPT;
use rights::Rights;
use signals::Signals;
use socket::Socket;
use totals::{Adder, Totals};

/// How often the watch ticks.
const TICK: Duration = Duration::from_millis(200);
/// How long a question may wait until it is noticed.
const NOTICE: Duration = Duration::from_millis(50);
/// How often what is too old or too much is removed from the store.
const RETAIN_EVERY: Duration = Duration::from_secs(300);
/// Threads that answer questions and talk to runtimes.
const WORKERS: usize = 2;
/// How long answers that are on their way may take when the agent ends.
const ANSWERS_WAIT: Duration = Duration::from_secs(2);

/// What those who answer questions know.
pub(crate) struct Shared {
    settings: Settings,
    run: Run,
    /// What the agent may still do.
    rights: Rights,
    store: Arc<dyn Store>,
    desk: Arc<Desk>,
    snapshot: Mutex<Snapshot>,
    /// How reporting to the collector goes, if there is one.
    reporting: Option<watch::Receiver<SenderStatus>>,
    /// How telling an OTLP receiver goes, if there is one.
    exported: watch::Sender<Exported>,
    /// Where to ask for what is new.
    questions: Sender<Receipt>,
}

/// How the watch was doing when it was last asked.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    hooks: Vec<HookStatus>,
    /// How the host's cgroups are set up.
    cgroups: &'static str,
    runtimes: Vec<RuntimeStatus>,
    /// Behaviours counted at the moment.
    rows: usize,
    /// Containers that are alive.
    watched: usize,
    losses_unattributed: u64,
    bounds: Bounds,
    totals: Totals,
}

impl Snapshot {
    fn of(watch: &Watch, totals: &Totals) -> Self {
        let identity = watch.identity();
        Self {
            hooks: watch.sensor().hooks().to_vec(),
            cgroups: identity.hierarchies().mode().as_str(),
            runtimes: identity.runtimes().cloned().collect(),
            rows: watch.sensor().rows(),
            watched: identity.containers().filter(|c| c.ended.is_none()).count(),
            losses_unattributed: watch.unattributed_losses(),
            bounds: identity.bounds(),
            totals: totals.clone(),
        }
    }
}

/// Watches until it is told to end.
pub(crate) fn run(settings: Settings) -> Result<()> {
    let signals = Signals::catch()?;
    let mut notifier = Notifier::from_environment();
    let (socket, listener) = Socket::claim(&settings.socket)?;
    let store = open_store(&settings.store_file())?;
    let tcp = settings.listen.map(listen).transpose()?;
    let neighbours = Neighbours::open(&settings)?;
    let hierarchies = Hierarchies::of_this_host().context("cannot find the cgroup hierarchies")?;
    let sensor = start_sensor(&settings, &hierarchies)?;
    // While this thread is the only one.
    let rights = rights::give_up(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()?;

    let kept = named(&settings, &store, &runtime)?;

    let mut watch = start_watch(&settings, sensor, hierarchies, runtime.handle())?;
    let keeper = Keeper::start(kept, watch.run().clone())?;
    let (questions, asked) = mpsc::channel();
    let mut adder = Adder::default();
    write_first(&mut watch, &mut adder, keeper.desk())?;
    let reporter = Reporter::start(&settings, &store, watch.run(), runtime.handle())?;
    let shared = Arc::new(Shared {
        reporting: reporter.as_ref().map(Reporter::status),
        exported: watch::Sender::default(),
        run: watch.run().clone(),
        rights,
        store: Arc::clone(&store) as Arc<dyn Store>,
        desk: Arc::clone(keeper.desk()),
        snapshot: Mutex::new(Snapshot::of(&watch, adder.totals())),
        questions,
        settings,
    });
    let retention = start_retention(&shared)?;
    let api = api::start(&shared, listener, tcp, runtime.handle())?;
    let neighbours = neighbours.serve(&store, &shared, runtime.handle())?;
    notifier.ready();
    tracing::info!(
        socket = %shared.settings.socket.display(),
        run = shared.run.id,
        "ready: hooks are attached, what ran already is looked at"
    );

    let watched = attend(
        &mut watch,
        &mut adder,
        &shared,
        &asked,
        &signals,
        &mut notifier,
    );
    notifier.stopping();
    tracing::info!("ending: writing the rest");
    drop(retention);
    runtime.block_on(api.stop(ANSWERS_WAIT));
    let finished = watch
        .finish()
        .map(|rest| shared.desk.hand_over(rest, Vec::new()));
    let closed = keeper.close();
    runtime.block_on(neighbours.stop(ANSWERS_WAIT));
    if let Some(reporter) = reporter {
        runtime.block_on(reporter.stop());
    }
    runtime.shutdown_timeout(ANSWERS_WAIT);
    drop(socket);
    watched.and(closed)?;
    finished.context("what happened last is lost")?;
    tracing::info!("ended: everything is written");
    Ok(())
}

/// The store, with the names that an API server gives, if the settings name one.
fn named(
    settings: &Settings,
    store: &Arc<SqliteStore>,
    runtime: &tokio::runtime::Runtime,
) -> Result<Arc<dyn Store>> {
    let store = Arc::clone(store) as Arc<dyn Store>;
    let Some(client) = runtime.block_on(settings.kubernetes.client())? else {
        return Ok(store);
    };
    let named = Arc::new(NamedStore::new(store)?);
    runtime.spawn(Arc::clone(&named).listen(client));
    Ok(named)
}

fn listen(address: std::net::SocketAddr) -> Result<TcpListener> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn start_sensor(settings: &Settings, hierarchies: &Hierarchies) -> Result<Sensor> {
    let options = ethogram_sensor::Options {
        limits: settings.limits,
        track_unknown: true,
        v1_controller: v1_controller(hierarchies),
        watch_self: false,
        hooks: settings.hooks,
    };
    Ok(Sensor::start(&options)?)
}

fn start_watch(
    settings: &Settings,
    sensor: Sensor,
    hierarchies: Hierarchies,
    runtime: &tokio::runtime::Handle,
) -> Result<Watch> {
    let identity = ethogram_identity::Options {
        scope: Scope::Machine {
            host: settings.host,
            root: settings.cgroup_root.clone(),
        },
        node: settings.node.clone(),
        runtimes: settings.runtimes.clone(),
        hierarchies: Some(hierarchies),
        ..Default::default()
    };
    let watch = Watch::start(sensor, identity, runtime)?;
    let (attached, missing): (Vec<_>, Vec<_>) = watch
        .sensor()
        .hooks()
        .iter()
        .partition(|hook| hook.attached);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = watch.run().node,
        data_dir = %settings.data_dir.display(),
        hooks = attached.len(),
        behaviours_max = settings.limits.behaviours_max,
        ring_bytes = settings.limits.ring_bytes,
        cgroups = watch.identity().hierarchies().mode().as_str(),
        "watching"
    );
    for hook in missing {
        tracing::warn!("{} is not attached: {}", hook.hook, hook.note);
    }
    Ok(watch)
}

/// Writes what is there already, and that this run began.
fn write_first(watch: &mut Watch, adder: &mut Adder, desk: &Desk) -> Result<()> {
    let report = watch.tick()?;
    adder.add(&report);
    let (receipt, written) = oneshot::channel();
    desk.hand_over(report, vec![receipt]);
    if written.blocking_recv().is_err() {
        tracing::warn!("the store cannot be written yet");
    }
    Ok(())
}

/// Ticks until a signal says that it is over, or the store cannot be used any more.
fn attend(
    watch: &mut Watch,
    adder: &mut Adder,
    shared: &Shared,
    asked: &Receiver<Receipt>,
    signals: &Signals,
    notifier: &mut Notifier,
) -> Result<()> {
    let mut last = Instant::now();
    let mut complaint = String::new();
    let mut was_crowded = false;
    while !signals.end() {
        notifier.alive();
        if signals.take_reload() {
            tracing::info!("SIGHUP changes nothing: restart the agent to read its options again");
        }
        let is_crowded = shared.desk.is_crowded();
        if is_crowded != was_crowded {
            tell_crowded(is_crowded);
            was_crowded = is_crowded;
        }
        if is_crowded {
            // Even to wait would take records out of the kernel.
            thread::sleep(NOTICE);
            shared.desk.ask(asked.try_iter().collect());
        } else {
            watch.wait(NOTICE);
            let receipts: Vec<Receipt> = asked.try_iter().collect();
            if last.elapsed() < TICK && receipts.is_empty() {
                continue;
            }
            last = Instant::now();
            match watch.tick() {
                Ok(report) => {
                    adder.add(&report);
                    if !receipts.is_empty() {
                        shared.publish(Snapshot::of(watch, adder.totals()));
                    }
                    shared.desk.hand_over(report, receipts);
                }
                Err(error) => complain(&mut complaint, &error),
            }
        }
        let health = shared.desk.health();
        if health.is_fatal {
            bail!(
                "{}; the next start moves it aside and begins anew",
                health.failure.unwrap_or_default()
            );
        }
    }
    Ok(())
}

fn tell_crowded(is_crowded: bool) {
    if is_crowded {
        tracing::error!(
            "more than {PENDING_ROWS_MAX} rows wait for the store: no more is taken from the kernel, and what it cannot hold is counted as lost"
        );
    } else {
        tracing::info!("the store has caught up: reading from the kernel again");
    }
}

/// Says what is wrong, once.
fn complain(last: &mut String, error: &anyhow::Error) {
    let text = format!("{error:#}");
    if *last != text {
        tracing::error!("cannot read from the kernel, will try again: {text}");
        *last = text;
    }
}

impl Shared {
    fn publish(&self, snapshot: Snapshot) {
        *self
            .snapshot
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = snapshot;
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

/// Opens the store; a damaged one is moved aside and a new one begun.
fn open_store(file: &Path) -> Result<Arc<SqliteStore>> {
    let opened = match open_sound(file) {
        Err(StoreError::Corrupt { detail, .. }) => {
            let aside = move_aside(file, now())?;
            tracing::error!(
                "the store {} is damaged ({detail}): it is moved to {}, and a new one begins; what it kept is not shown any more",
                file.display(),
                aside.display()
            );
            SqliteStore::open(file)
        }
        opened => opened,
    };
    opened.map(Arc::new).map_err(|error| {
        let holder = matches!(error, StoreError::Locked { .. }).then(|| holder_of(file));
        let error = anyhow::Error::from(error);
        match holder.flatten() {
            Some(pid) => error.context(format!("process {pid} is an agent with the same data")),
            None => error,
        }
    })
}

/// Opens the store, and checks all of it if its last writer did not end well.
fn open_sound(file: &Path) -> Result<SqliteStore, StoreError> {
    let store = SqliteStore::open(file)?;
    let runs = store.runs()?;
    if runs.last().is_none_or(|run| !run.ended_cleanly) {
        store.check()?;
    }
    Ok(store)
}

/// Who holds a store's lock, as far as proc_locks(5) tells.
fn holder_of(file: &Path) -> Option<u32> {
    let mut lock = file.as_os_str().to_owned();
    lock.push(".lock");
    let inode = fs::metadata(lock).ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // 1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF
        let mut fields = line.split_whitespace().skip(4);
        let pid = fields.next()?.parse().ok()?;
        let place = fields.next()?;
        (place.rsplit(':').next() == Some(&inode)).then_some(pid)
    })
}

/// Removes from time to time what may not be kept; ends when what is returned is dropped.
fn start_retention(shared: &Arc<Shared>) -> Result<Sender<()>> {
    let (end, ended) = mpsc::channel();
    // Between two rounds it holds nothing, so that the store closes with the agent.
    let shared = Arc::downgrade(shared);
    thread::Builder::new()
        .name("retention".into())
        .spawn(move || {
            while let Some(shared) = shared.upgrade() {
                match shared.store.retain(&shared.settings.retention, now()) {
                    Ok(removed) if removed == ethogram_store::Removed::default() => {}
                    Ok(removed) => tracing::info!(?removed, "removed what is too old or too much"),
                    Err(error) => tracing::error!("cannot remove what is too old: {error}"),
                }
                drop(shared);
                if ended.recv_timeout(RETAIN_EVERY) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(end)
}
