//! Who watches: ourselves, and the tools people use instead.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::work::Operation;

/// A way to run the loop.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) name: &'static str,
    kind: Kind,
    /// Stops the process for each event, so that it gets fewer of them.
    pub(crate) slow: bool,
}

#[derive(Debug)]
enum Kind {
    Nothing,
    Ethogram(PathBuf),
    Bpftrace {
        program: fn(Operation) -> Option<&'static str>,
    },
    Strace,
}

/// Those that are installed; nothing attached comes first, twice, to show the noise.
pub(crate) fn available(ethogram: &Path, quick: bool) -> Result<Vec<Watcher>> {
    let ethogram = ethogram.canonicalize().with_context(|| {
        format!(
            "{} is not there: run make, or give --ethogram",
            ethogram.display()
        )
    })?;
    let mut watchers = vec![
        Watcher {
            name: "nothing",
            kind: Kind::Nothing,
            slow: false,
        },
        Watcher {
            name: "nothing again",
            kind: Kind::Nothing,
            slow: false,
        },
        Watcher {
            name: "ethogram",
            kind: Kind::Ethogram(ethogram),
            slow: false,
        },
    ];
    if quick {
        return Ok(watchers);
    }
    if !installed("bpftrace") || !installed("strace") {
        bail!(
            "bpftrace and strace are needed for the comparison: apt-get install bpftrace strace, or give --quick"
        );
    }
    watchers.push(Watcher {
        name: "bpftrace count()",
        kind: Kind::Bpftrace { program: counting },
        slow: false,
    });
    watchers.push(Watcher {
        name: "bpftrace printf()",
        kind: Kind::Bpftrace { program: printing },
        slow: false,
    });
    watchers.push(Watcher {
        name: "strace -f",
        kind: Kind::Strace,
        slow: true,
    });
    Ok(watchers)
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
    /// The command that runs `work` under this watcher; `None` where it has nothing to say.
    pub(crate) fn command(&self, operation: Operation, work: &[String]) -> Option<Vec<String>> {
        let owned = |parts: &[&str]| parts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let prefix = match &self.kind {
            Kind::Nothing => Vec::new(),
            Kind::Ethogram(binary) => {
                let mut prefix = vec![binary.to_string_lossy().into_owned()];
                prefix.extend(owned(&["record", "--quiet", "--"]));
                prefix
            }
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
