//! `ethogram record`: what does this command do?

use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ethogram_identity::{Scope, cgroups::Hierarchies};
use ethogram_model::{Behaviour, Container, Kind, Selection};
use ethogram_store::{Report, SqliteStore, Store};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    args::{RecordArgs, RunInArgs},
    cgroup::OwnCgroup,
    present::{self, Question},
    watch::{Watch, v1_controller},
};

/// How often the counters are read and the live line is written.
const TICK: Duration = Duration::from_millis(200);
/// How long the command has between the polite end and the other one.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// Exit statuses of shells for a command that cannot be run, or is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Records a command.
pub(crate) fn run(args: &RecordArgs) -> Result<ExitCode> {
    let user = args.user.as_deref().map(find_user).transpose()?;
    let place = Place::choose(args.output.as_deref())?;
    let store = place.open()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let hierarchies = Hierarchies::of_this_host().context("cannot find the cgroup hierarchies")?;
    let cgroup = OwnCgroup::create(&hierarchies)?;
    let program = args.command.first().context("no command was given")?;
    let scope = Scope::Recorded {
        path: cgroup.path().to_vec(),
        command: Path::new(program)
            .file_name()
            .unwrap_or(program)
            .to_string_lossy()
            .into_owned(),
    };
    let sensor = ethogram_sensor::Options {
        limits: args.limits.limits(),
        track_unknown: false,
        v1_controller: v1_controller(&hierarchies),
        watch_self: false,
        hooks: args.limits.hooks,
    };
    let identity = ethogram_identity::Options {
        scope,
        runtimes: Some(Vec::new()),
        ..Default::default()
    };
    let mut watch = Watch::start(
        ethogram_sensor::Sensor::start(&sensor)?,
        identity,
        runtime.handle(),
    )?;
    let own = own_executable()?;

    let signals = Signals::catch()?;
    let mut child = spawn(&own, &cgroup, user, &args.command)?;
    let mut ending = Ending::new(args.timeout);
    let mut line = LiveLine::new();
    let status = loop {
        watch.wait(TICK);
        let report = watch.tick()?;
        line.show(&report);
        apply(store.as_ref(), report, &own)?;
        if let Some(status) = child.try_wait().context("cannot wait for the command")? {
            break status;
        }
        ending.enforce(&mut child, &cgroup, &signals)?;
    };
    line.clear();
    let left: Vec<i32> = cgroup.processes();
    if !left.is_empty() {
        eprintln!(
            "ethogram: {} still running in the background and no longer watched: {}",
            if left.len() == 1 {
                "1 process is".to_owned()
            } else {
                format!("{} processes are", left.len())
            },
            left.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        );
    }
    let mut report = watch.finish()?;
    if left.is_empty() {
        // Its cgroup still is there, but what ran in it has ended.
        for kept in store.containers(&Selection::default())? {
            let ended = Some(report.run.last_alive);
            report.containers.push(Container {
                ended,
                ..kept.container
            });
        }
    }
    apply(store.as_ref(), report, &own)?;
    if !args.quiet {
        let question = Question {
            fold: args.look.fold,
            ..Question::default()
        };
        present::print(&present::document(store.as_ref(), &question)?, &args.look)?;
    }
    if let Some(output) = &args.output {
        eprintln!(
            "ethogram: recorded in {}; read it with: ethogram summary --db {0}",
            output.display()
        );
    }
    Ok(exit_code(status))
}

/// Writes a report, without what ethogram itself did in the cgroup before it became the command.
fn apply(store: &dyn Store, mut report: Report, own: &Path) -> Result<()> {
    let own = ethogram_model::Name::from_bytes(own.as_os_str().as_encoded_bytes());
    let is_ours = |b: &Behaviour| b.source == own && b.kind != Kind::Process;
    report
        .observations
        .retain(|observation| !is_ours(&observation.behaviour));
    for container in &mut report.containers {
        // Its cgroup was there before the watch began, but nothing ran in it.
        container.present_at_start = false;
    }
    store.apply(&report).context("cannot keep the recording")
}

/// Where the recording goes.
enum Place {
    File(PathBuf),
    /// Removed at the end.
    Temporary(tempfile::TempDir),
}

impl Place {
    fn choose(output: Option<&Path>) -> Result<Self> {
        let Some(file) = output else {
            return Ok(Self::Temporary(
                tempfile::tempdir().context("cannot make a temporary folder")?,
            ));
        };
        if file.exists() {
            bail!(
                "{} is there already: remove it, or choose another name",
                file.display()
            );
        }
        Ok(Self::File(file.to_owned()))
    }

    fn open(&self) -> Result<Box<dyn Store>> {
        let file = match self {
            Self::File(file) => file.clone(),
            Self::Temporary(folder) => folder.path().join("recording.db"),
        };
        Ok(Box::new(SqliteStore::open(&file)?))
    }
}

fn own_executable() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find ethogram's own executable")
}

fn spawn(
    own: &Path,
    cgroup: &OwnCgroup,
    user: Option<(u32, u32)>,
    command: &[OsString],
) -> Result<Child> {
    let mut starter = Command::new(own);
    starter.arg("run-in").arg("--procs").arg(cgroup.procs());
    if let Some((uid, gid)) = user {
        starter.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
    }
    starter.arg("--").args(command);
    starter.spawn().context("cannot start the command")
}

/// Joins the cgroup and becomes the command; returns only if that fails.
pub(crate) fn become_command(args: &RunInArgs) -> Result<ExitCode> {
    let (program, arguments) = args.command.split_first().context("no command was given")?;
    fs::write(&args.procs, std::process::id().to_string())
        .with_context(|| format!("cannot join the cgroup by {}", args.procs.display()))?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(gid) = args.gid {
        command.gid(gid);
    }
    if let Some(uid) = args.uid {
        command.uid(uid);
    }
    let error = command.exec();
    eprintln!(
        "ethogram: cannot run {}: {error}",
        Path::new(program).display()
    );
    let not_found = error.kind() == io::ErrorKind::NotFound;
    Ok(ExitCode::from(if not_found {
        NOT_FOUND
    } else {
        CANNOT_RUN
    }))
}

/// Numbers of a user and of its group, by name or number, from /etc/passwd.
fn find_user(wanted: &str) -> Result<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        (name == wanted || uid == wanted).then(|| Some((uid.parse().ok()?, gid.parse().ok()?)))?
    });
    match (found, wanted.parse()) {
        (Some(user), _) => Ok(user),
        (None, Ok(number)) => Ok((number, number)),
        (None, Err(_)) => {
            bail!("there is no user {wanted:?} in /etc/passwd; a number would do too")
        }
    }
}

/// The command's status, as a shell would pass it on.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(
        code.and_then(|code| u8::try_from(code).ok())
            .unwrap_or(u8::MAX),
    )
}

/// SIGINT and SIGTERM, counted. A terminal sends SIGINT to the command as well; SIGTERM
/// is passed on.
struct Signals {
    interrupts: Arc<AtomicUsize>,
    terminations: Arc<AtomicUsize>,
}

impl Signals {
    fn catch() -> Result<Self> {
        let count = |signal| -> io::Result<Arc<AtomicUsize>> {
            let counter = Arc::new(AtomicUsize::new(0));
            let seen = Arc::clone(&counter);
            signal_hook::flag::register_usize(signal, seen, 1)?;
            Ok(counter)
        };
        let catch = || -> io::Result<Self> {
            Ok(Self {
                interrupts: count(signal_hook::consts::SIGINT)?,
                terminations: count(signal_hook::consts::SIGTERM)?,
            })
        };
        catch().context("cannot catch signals")
    }

    fn interrupted(&self) -> bool {
        self.interrupts.load(Ordering::Relaxed) > 0
    }

    fn terminated(&self) -> bool {
        self.terminations.load(Ordering::Relaxed) > 0
    }
}

/// When and how the command is made to end.
struct Ending {
    deadline: Option<Instant>,
    /// When it was asked to end.
    asked: Option<Instant>,
}

impl Ending {
    fn new(timeout: Option<Duration>) -> Self {
        Self {
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            asked: None,
        }
    }

    fn enforce(&mut self, child: &mut Child, cgroup: &OwnCgroup, signals: &Signals) -> Result<()> {
        let late = self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline);
        match self.asked {
            None if late || signals.terminated() => {
                if late {
                    eprintln!("ethogram: time is up: ending the command");
                }
                signal_all(cgroup, Signal::TERM);
                self.asked = Some(Instant::now());
            }
            None if signals.interrupted() => self.asked = Some(Instant::now()),
            Some(asked) if asked.elapsed() > KILL_AFTER => {
                signal_all(cgroup, Signal::KILL);
                child.kill().context("cannot end the command")?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Signals every process of the recording's own cgroup, and no other.
fn signal_all(cgroup: &OwnCgroup, signal: Signal) {
    for pid in cgroup.processes().into_iter().filter_map(Pid::from_raw) {
        // It may have ended in the meantime.
        let _ = kill_process(pid, signal);
    }
}

/// A line on the terminal that counts along.
struct LiveLine {
    shown: bool,
    behaviours: std::collections::HashMap<Behaviour, u64>,
    lost: u64,
    started: Instant,
}

impl LiveLine {
    fn new() -> Self {
        Self {
            shown: io::stderr().is_terminal(),
            behaviours: std::collections::HashMap::new(),
            lost: 0,
            started: Instant::now(),
        }
    }

    fn show(&mut self, report: &Report) {
        if !self.shown {
            return;
        }
        for observation in &report.observations {
            self.behaviours
                .insert(observation.behaviour.clone(), observation.tally.count);
        }
        self.lost = report
            .losses
            .iter()
            .map(|(_, loss)| loss.count)
            .max()
            .unwrap_or(self.lost);
        let events: u64 = self.behaviours.values().sum();
        let lost = if self.lost > 0 {
            format!(", {} lost", self.lost)
        } else {
            String::new()
        };
        eprint!(
            "\r\x1b[Kethogram: {} s, {} behaviours, {events} events{lost}",
            self.started.elapsed().as_secs(),
            self.behaviours.len()
        );
        let _ = io::stderr().flush();
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
