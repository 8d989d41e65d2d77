//! Who watches: ourselves, and the tools people use instead.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::work::Operation;

/// How long a peer may take to attach, or to end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// A way to run the loop.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) name: String,
    kind: Kind,
    /// Stops the process for each event, so that it gets fewer of them.
    pub(crate) slow: bool,
}

#[derive(Debug)]
enum Kind {
    Nothing,
    Ethogram {
        binary: PathBuf,
        hooks: String,
    },
    /// Runs beside the loop.
    Beside(Peer),
    Bpftrace {
        program: fn(Operation) -> Option<&'static str>,
    },
    Strace,
}

/// Those that are installed; nothing attached comes first, twice, to show the noise.
pub(crate) fn available(ethogram: &Path, hooks: &[String], quick: bool) -> Result<Vec<Watcher>> {
    let binary = ethogram.canonicalize().with_context(|| {
        format!(
            "{} is not there: run make, or give --ethogram",
            ethogram.display()
        )
    })?;
    let watcher = |name: &str, kind| Watcher {
        name: name.to_owned(),
        slow: matches!(kind, Kind::Strace),
        kind,
    };
    let mut watchers = vec![
        watcher("nothing", Kind::Nothing),
        watcher("nothing again", Kind::Nothing),
    ];
    watchers.extend(hooks.iter().map(|hooks| {
        let kind = Kind::Ethogram {
            binary: binary.clone(),
            hooks: hooks.clone(),
        };
        watcher(&format!("ethogram, {hooks}s"), kind)
    }));
    if quick {
        return Ok(watchers);
    }
    for program in ["bpftrace", "strace", "opensnoop", "execsnoop"] {
        ensure!(
            installed(program),
            "{program} is needed for the comparison: apt-get install bpftrace strace libbpf-tools, or give --quick"
        );
    }
    watchers.push(watcher(
        "bpftrace count()",
        Kind::Bpftrace { program: counting },
    ));
    watchers.push(watcher(
        "bpftrace printf()",
        Kind::Bpftrace { program: printing },
    ));
    watchers.push(watcher("opensnoop (libbpf-tools)", Kind::Beside(OPENSNOOP)));
    watchers.push(watcher("execsnoop (libbpf-tools)", Kind::Beside(EXECSNOOP)));
    watchers.push(watcher("strace -f", Kind::Strace));
    Ok(watchers)
}

/// Somebody who prints every event of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    command: &'static [&'static str],
    sees: Operation,
}

const OPENSNOOP: Peer = Peer {
    name: "opensnoop (libbpf-tools)",
    command: &["stdbuf", "-oL", "opensnoop", "-n", "ethogram-bench"],
    sees: Operation::Open,
};
const EXECSNOOP: Peer = Peer {
    name: "execsnoop (libbpf-tools)",
    command: &["stdbuf", "-oL", "execsnoop"],
    sees: Operation::Exec,
};
const BPFTRACE: Peer = Peer {
    name: "bpftrace printf()",
    command: &[
        "bpftrace",
        "-B",
        "line",
        "-e",
        "tracepoint:syscalls:sys_enter_openat /comm == \"ethogram-bench\"/ { printf(\"%s %s\\n\", comm, str(args->filename)); }",
    ],
    sees: Operation::Open,
};

/// Those who print every open.
pub(crate) const OPEN_PRINTERS: [Peer; 2] = [BPFTRACE, OPENSNOOP];

/// A peer at work; ended when dropped.
pub(crate) struct Running(Child);

impl Peer {
    /// Starts it, and waits until it prints what this process does.
    pub(crate) fn start(&self, output: &Path) -> Result<Running> {
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"])
            .args(self.command)
            .stdin(Stdio::null())
            .stdout(File::create(output)?)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.name.to_owned())?;
        let mut running = Running(child);
        let deadline = Instant::now() + PATIENCE;
        // Its heading, if it prints one, is shorter than a few events.
        while fs::metadata(output)?.len() < 400 {
            match self.sees {
                Operation::Exec => drop(Command::new("/bin/true").status()?),
                _ => drop(File::open("/etc/hostname")?),
            }
            if let Some(status) = running.0.try_wait()? {
                bail!("it ended with {status}");
            }
            ensure!(Instant::now() < deadline, "it prints nothing");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(running)
    }
}

impl Running {
    /// Ends it politely, so that it prints what it has.
    pub(crate) fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::INT)?;
        let deadline = Instant::now() + PATIENCE;
        while self.0.try_wait()?.is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where all went well.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    })
}

/// What a person would type to see the operation's events.
fn printing(operation: Operation) -> Option<&'static str> {
    Some(match operation {
        Operation::Open => {
            "tracepoint:syscalls:sys_enter_openat /comm == \"ethogram-bench\"/ { printf(\"%s %s\\n\", comm, str(args->filename)); }"
        }
        Operation::Exec => {
            "tracepoint:syscalls:sys_enter_execve { printf(\"%s %s\\n\", comm, str(args->filename)); }"
        }
        Operation::Tcp | Operation::Unix => {
            "tracepoint:syscalls:sys_enter_connect /comm == \"ethogram-bench\"/ { printf(\"%s %d\\n\", comm, args->fd); }"
        }
        Operation::Udp => {
            "tracepoint:syscalls:sys_enter_sendto /comm == \"ethogram-bench\"/ { printf(\"%s %d\\n\", comm, args->fd); }"
        }
        Operation::Stat | Operation::Getpid => return None,
    })
}

/// The same, counted in the kernel.
fn counting(operation: Operation) -> Option<&'static str> {
    Some(match operation {
        Operation::Open => {
            "tracepoint:syscalls:sys_enter_openat /comm == \"ethogram-bench\"/ { @[comm, str(args->filename)] = count(); }"
        }
        Operation::Exec => {
            "tracepoint:syscalls:sys_enter_execve { @[comm, str(args->filename)] = count(); }"
        }
        Operation::Tcp | Operation::Unix => {
            "tracepoint:syscalls:sys_enter_connect /comm == \"ethogram-bench\"/ { @[comm, args->fd] = count(); }"
        }
        Operation::Udp => {
            "tracepoint:syscalls:sys_enter_sendto /comm == \"ethogram-bench\"/ { @[comm, args->fd] = count(); }"
        }
        Operation::Stat | Operation::Getpid => return None,
    })
}

/// bpftrace looks tracepoints up in tracefs, which not every machine has mounted; a mount
/// namespace of its own leaves the machine as it is.
const WITH_TRACEFS: &str =
    "test -d /sys/kernel/tracing/events || mount -t tracefs none /sys/kernel/tracing; exec \"$@\"";

impl Watcher {
    /// Who has to run beside the loop, if anybody.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        match &self.kind {
            Kind::Beside(peer) => Some(peer),
            _ => None,
        }
    }

    /// The command that runs `work` under this watcher; `None` where it has nothing to say.
    pub(crate) fn command(&self, operation: Operation, work: &[String]) -> Option<Vec<String>> {
        let owned = |parts: &[&str]| parts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let prefix = match &self.kind {
            Kind::Nothing => Vec::new(),
            Kind::Ethogram { binary, hooks } => {
                let mut prefix = vec![binary.to_string_lossy().into_owned()];
                prefix.extend(owned(&["record", "--quiet", "--hooks", hooks, "--"]));
                prefix
            }
            Kind::Beside(peer) if peer.sees != operation => return None,
            Kind::Beside(_) => Vec::new(),
            Kind::Bpftrace { program } => {
                let mut command = owned(&["unshare", "--mount", "sh", "-c", WITH_TRACEFS, "sh"]);
                command.extend(owned(&[
                    "bpftrace",
                    "-o",
                    "/dev/null",
                    "-e",
                    program(operation)?,
                    "-c",
                ]));
                command.push(work.join(" "));
                return Some(command);
            }
            Kind::Strace => owned(&["strace", "-f", "-o", "/dev/null"]),
        };
        Some(prefix.into_iter().chain(work.iter().cloned()).collect())
    }
}
