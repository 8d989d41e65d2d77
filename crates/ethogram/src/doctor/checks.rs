//! Checks that only look.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use ethogram_identity::{
    Identity, RuntimeState, RuntimeStatus,
    cgroups::{Hierarchies, Hierarchy, Mode, Mount},
};

use super::{Check, Level};
use crate::{agent::KEPT, clock::now, config, source};

/// The oldest kernel whose BPF has all that the programs need.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// How long runtimes have to answer.
const RUNTIMES_WAIT: Duration = Duration::from_secs(3);

/// How often it is looked whether they have.
const RUNTIMES_POLL: Duration = Duration::from_millis(50);

/// Less free room than this for the store is worth a word.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// Capabilities by their numbers (`linux/capability.h`).
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// Kernel, its BTF, what it allows.
pub(super) fn of_the_kernel() -> Vec<Check> {
    let uname = rustix::system::uname();
    vec![
        kernel(&uname.release().to_string_lossy()),
        btf(Path::new("/sys/kernel/btf/vmlinux")),
        privileges(&read("/proc/self/status")),
        lockdown(&read("/sys/kernel/security/lockdown")),
        security_modules(&read("/sys/kernel/security/lsm")),
    ]
}

/// Control groups, runtimes, agent, disk.
pub(super) fn of_the_machine() -> Vec<Check> {
    let mut checks = vec![match Hierarchies::of_this_host() {
        Ok(hierarchies) => cgroups(&hierarchies),
        Err(why) => no_cgroups(&format!("cannot read the mounts: {why}")),
    }];
    checks.extend(match runtimes() {
        Ok(statuses) => of_runtimes(&statuses),
        Err(why) => vec![Check::degraded(
            "runtimes",
            format!("cannot ask: {why:#}"),
            "",
        )],
    });
    checks.push(agent(Path::new(config::SOCKET)));
    checks.push(disk(Path::new(config::DATA_DIR)));
    checks
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn kernel(release: &str) -> Check {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse::<u32>().ok());
    let version = numbers.next().zip(numbers.next());
    let (major, minor) = KERNEL_MIN;
    match version {
        Some(version) if version >= KERNEL_MIN => Check::ok("kernel", format!("Linux {release}")),
        _ => Check::missing(
            "kernel",
            format!("Linux {release}, and {major}.{minor} or newer is needed"),
            "Use a newer kernel.",
        ),
    }
}

fn btf(path: &Path) -> Check {
    if path.exists() {
        Check::ok("btf", format!("{} is there", path.display()))
    } else {
        Check::missing(
            "btf",
            format!(
                "{} is not there, so the programs cannot be fitted to the kernel",
                path.display()
            ),
            "Use a kernel built with CONFIG_DEBUG_INFO_BTF, as those of Debian, Ubuntu and Fedora are.",
        )
    }
}

fn privileges(status: &str) -> Check {
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = field.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return Check::degraded(
            "privileges",
            "cannot read /proc/self/status",
            "Mount /proc.",
        );
    };
    let absent = |wanted: u64| effective & wanted == 0;
    // CAP_SYS_ADMIN includes the two that it was divided into.
    let needed = [
        ("CAP_BPF", CAP_BPF | CAP_SYS_ADMIN),
        ("CAP_PERFMON", CAP_PERFMON | CAP_SYS_ADMIN),
    ];
    let absent_needed: Vec<_> = needed
        .iter()
        .filter(|(_, any)| absent(*any))
        .map(|(name, _)| *name)
        .collect();
    if !absent_needed.is_empty() {
        Check::missing(
            "privileges",
            format!("{} not granted", absent_needed.join(" and ")),
            "Run as root, e.g. with sudo, or grant the capabilities.",
        )
    } else {
        let kept: Vec<_> = KEPT.iter().map(|(_, name)| *name).collect();
        Check::ok(
            "privileges",
            format!(
                "all capabilities that loading needs; once it watches, an agent keeps only {}",
                kept.join(" and ")
            ),
        )
    }
}

/// The word in brackets is in force: `[none] integrity confidentiality`.
fn lockdown(text: &str) -> Check {
    let mode = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    match mode.map(|(mode, _)| mode) {
        None => Check::ok("lockdown", "the kernel has none, or does not tell"),
        Some("confidentiality") => Check::missing(
            "lockdown",
            "confidentiality: programs may not read the kernel's memory",
            "Boot with lockdown=integrity, or without lockdown.",
        ),
        Some(mode) => Check::ok("lockdown", mode),
    }
}

fn security_modules(list: &str) -> Check {
    let list = list.trim();
    if list.is_empty() {
        return Check::ok(
            "lsm",
            "the kernel does not tell its security modules; tracepoints need none",
        );
    }
    let bpf = if list.split(',').any(|module| module == "bpf") {
        "bpf is among them"
    } else {
        "bpf is not among them; tracepoints do without it"
    };
    Check::ok("lsm", format!("{list} ({bpf})"))
}

fn cgroups(hierarchies: &Hierarchies) -> Check {
    let Some(best) = hierarchies.mounts.first() else {
        return no_cgroups("no hierarchy is mounted where this process can see it");
    };
    let mode = hierarchies.mode();
    let name = |mount: &Mount| match mount.hierarchy {
        Hierarchy::V2 => "v2",
        Hierarchy::Memory => "v1 memory",
        Hierarchy::Pids => "v1 pids",
    };
    let mut finding = format!(
        "{}: containers are told apart by the {} hierarchy at {}",
        mode.as_str(),
        name(best),
        best.at.display()
    );
    if mode == Mode::Hybrid {
        let others = hierarchies.mounts.iter().skip(1).map(name);
        finding += &format!(
            ", or by {} where it does not know them",
            others.collect::<Vec<_>>().join(" and ")
        );
    }
    match best.is_whole() {
        Ok(true) => Check::ok("cgroups", finding),
        _ => Check::degraded(
            "cgroups",
            finding + ", of which only a part can be seen",
            "In a container, mount the host's /sys/fs/cgroup and use the host's cgroup namespace.",
        ),
    }
}

fn no_cgroups(why: &str) -> Check {
    Check::missing(
        "cgroups",
        why,
        "Mount one: mount -t cgroup2 none /sys/fs/cgroup.",
    )
}

/// Asks the runtimes that are there, until all have answered or the time is up.
fn runtimes() -> Result<Vec<RuntimeStatus>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let expected = ethogram_identity::well_known(Path::new("/")).len();
    let mut identity = Identity::start(
        ethogram_identity::Options::default(),
        runtime.handle(),
        now(),
    )?;
    let deadline = Instant::now() + RUNTIMES_WAIT;
    while identity.runtimes().count() < expected && Instant::now() < deadline {
        std::thread::sleep(RUNTIMES_POLL);
        identity.poll(now());
    }
    Ok(identity.runtimes().cloned().collect())
}

fn of_runtimes(statuses: &[RuntimeStatus]) -> Vec<Check> {
    let check = |status: &RuntimeStatus| {
        let id = format!("runtime {}", status.endpoint.path.display());
        match &status.state {
            RuntimeState::Absent => None,
            RuntimeState::Answers {
                version,
                containers,
                ..
            } => Some(Check::ok(
                &id,
                format!("{version} answers, containers: {containers}"),
            )),
            RuntimeState::Fails { why } => Some(Check::degraded(
                &id,
                why.clone(),
                "Its containers have no names until it answers.",
            )),
        }
    };
    let checks: Vec<_> = statuses.iter().filter_map(check).collect();
    if checks.is_empty() {
        return vec![Check::degraded(
            "runtimes",
            "no container runtime is where they usually are",
            "If one is elsewhere, tell the agent: --cri-socket, --docker-socket, --podman-storage. Containers without a known runtime are shown by their control group.",
        )];
    }
    checks
}

fn agent(socket: &Path) -> Check {
    match source::probe(socket) {
        source::Agent::Answers => Check::ok("agent", format!("answers at {}", socket.display())),
        source::Agent::Absent(why) => Check::degraded(
            "agent",
            format!(
                "does not answer at {} ({why}), so nothing is kept",
                socket.display()
            ),
            "Start it: systemctl start ethogram, or ethogram agent.",
        ),
    }
}

fn disk(folder: &Path) -> Check {
    let existing = folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(disk) => room(folder, disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(why) => Check::degraded(
            "disk",
            format!("cannot look at {}: {why}", existing.display()),
            "",
        ),
    }
}

fn room(folder: &Path, free_bytes: u64) -> Check {
    let finding = format!("{} MiB free for {}", free_bytes >> 20, folder.display());
    Check {
        level: if free_bytes < FREE_BYTES_MIN {
            Level::Degraded
        } else {
            Level::Ok
        },
        remedy: if free_bytes < FREE_BYTES_MIN {
            "Free some, lower the agent's --retention-bytes, or choose another --data-dir."
                .to_owned()
        } else {
            String::new()
        },
        ..Check::ok("disk", finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        for (release, level) in [
            ("6.17.0-1-cloud-amd64", Level::Ok),
            ("6.1", Level::Ok),
            ("6.1.0-rc1", Level::Ok),
            ("5.19.0-50-generic", Level::Missing),
            ("strange", Level::Missing),
        ] {
            assert_eq!(kernel(release).level, level, "{release}");
        }
    }

    #[test]
    fn capabilities() {
        for (effective, level, finding) in [
            ("000001ffffffffff", Level::Ok, "all"),
            ("000000c000000000", Level::Ok, "all"),
            ("0000000000200000", Level::Ok, "only CAP_DAC_READ_SEARCH"),
            (
                "0000000000000000",
                Level::Missing,
                "CAP_BPF and CAP_PERFMON not",
            ),
            ("0000008000080000", Level::Missing, "CAP_PERFMON not"),
            ("zz", Level::Degraded, "/proc/self/status"),
        ] {
            let check = privileges(&format!("Name:\tx\nCapEff:\t{effective}\n"));
            assert_eq!(check.level, level, "{effective}");
            assert!(check.finding.contains(finding), "{}", check.finding);
        }
    }

    #[test]
    fn lockdowns() {
        for (text, level) in [
            ("", Level::Ok),
            ("[none] integrity confidentiality\n", Level::Ok),
            ("none [integrity] confidentiality\n", Level::Ok),
            ("none integrity [confidentiality]\n", Level::Missing),
        ] {
            assert_eq!(lockdown(text).level, level, "{text}");
        }
    }

    #[test]
    fn modules_and_room_and_hierarchies() {
        assert!(
            security_modules("capability,bpf,landlock\n")
                .finding
                .contains("is among")
        );
        assert!(
            security_modules("capability,xbpf")
                .finding
                .contains("is not among")
        );
        assert_eq!(
            room(Path::new("/x"), FREE_BYTES_MIN - 1).level,
            Level::Degraded
        );
        assert_eq!(room(Path::new("/x"), FREE_BYTES_MIN).level, Level::Ok);
        assert_eq!(cgroups(&Hierarchies::default()).level, Level::Missing);
        assert_eq!(btf(Path::new("/nonexistent")).level, Level::Missing);
        assert_eq!(agent(Path::new("/nonexistent")).level, Level::Degraded);
    }

    #[test]
    fn runtimes_that_are_there_are_told() {
        let status = |path: &str, state| RuntimeStatus {
            endpoint: format!("cri:{path}").parse().expect("an endpoint"),
            state,
        };
        let absent = status("/a", RuntimeState::Absent);
        let answers = RuntimeState::Answers {
            version: "containerd 2".into(),
            containers: 3,
            announces: true,
        };
        let fails = RuntimeState::Fails { why: "no".into() };
        let levels = |statuses: &[RuntimeStatus]| {
            let checks = of_runtimes(statuses);
            checks.iter().map(|check| check.level).collect::<Vec<_>>()
        };
        assert_eq!(levels(std::slice::from_ref(&absent)), [Level::Degraded]);
        let all = [absent, status("/b", answers), status("/c", fails)];
        assert_eq!(levels(&all), [Level::Ok, Level::Degraded]);
    }
}
