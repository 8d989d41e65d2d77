//! The proof: a known program does known things in a control group of its own, and the
//! kernel must have counted each. That hooks attach is not enough: some attach and never fire.

use std::{
    net::{TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use ethogram_identity::{Scope, cgroups::Hierarchies};
use ethogram_model::{Budget, Kind, Observation};
use ethogram_sensor::{HookChoice, HookStatus, Limits, Sensor};

use super::{Check, Level};
use crate::{
    cgroup::OwnCgroup,
    watch::{Watch, v1_controller},
};

/// What a test of a few dozen events needs.
const LIMITS: Limits = Limits {
    behaviours_max: 4096,
    behaviours_per_cgroup_max: 4096,
    ring_bytes: 256 * 1024,
    executables_max: 4096,
    budget: Budget::DEFAULT,
};

/// The names of what the known program makes.
const FILE: &str = "known-file";
const SOCKET: &str = "known-socket";

/// What must be seen of the known program: the kind, and how the target ends. That it is
/// executed is one of its deeds, whatever its file is called.
const DEEDS: &[(Kind, &str)] = &[
    (Kind::Process, ""),
    (Kind::File, FILE),
    (Kind::Bind, SOCKET),
    (Kind::Egress, "127.0.0.1"),
    (Kind::Ingress, "127.0.0.1"),
    (Kind::Syscall, "setgroups"),
];

/// What came of it.
#[derive(Default)]
pub(super) struct Tested {
    pub(super) checks: Vec<Check>,
    /// Those that were in use; none if nothing could be watched.
    pub(super) hooks: Vec<HookStatus>,
    /// What was seen of the known program.
    pub(super) seen: Vec<Kind>,
}

/// Tries it.
pub(super) fn run(choice: HookChoice) -> Tested {
    match watch_known_program(choice) {
        Err(why) => Tested {
            checks: vec![Check::missing(
                "self-test",
                format!("{why:#}"),
                "See the checks above.",
            )],
            ..Tested::default()
        },
        Ok((hooks, seen)) => {
            let mut checks: Vec<_> = hooks.iter().map(of_hook).collect();
            checks.push(verdict(&seen));
            let seen = seen.iter().map(|observation| observation.behaviour.kind);
            Tested {
                checks,
                hooks,
                seen: seen.collect(),
            }
        }
    }
}

fn of_hook(hook: &HookStatus) -> Check {
    let id = format!("hook {}", hook.hook);
    if hook.attached {
        Check::ok(&id, "attached")
    } else {
        Check::degraded(&id, format!("not there: {}", hook.note), "")
    }
}

fn verdict(seen: &[Observation]) -> Check {
    let is_seen = |(kind, ending): &&(Kind, &str)| {
        seen.iter().any(|observation| {
            let behaviour = &observation.behaviour;
            behaviour.kind == *kind && behaviour.target.as_str().ends_with(ending)
        })
    };
    let words = |deeds: Vec<&(Kind, &str)>| {
        deeds
            .iter()
            .map(|(kind, _)| kind.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (seen, unseen): (Vec<_>, Vec<_>) = DEEDS.iter().partition(is_seen);
    if unseen.is_empty() {
        return Check::ok(
            "self-test",
            format!("a known program was watched: {} seen", words(seen)),
        );
    }
    let level = if seen.is_empty() {
        Level::Missing
    } else {
        Level::Degraded
    };
    Check {
        level,
        remedy: "This is a defect, or a very unusual kernel: please report it with the output of `ethogram doctor -o json`.".to_owned(),
        ..Check::ok("self-test", format!("a known program was watched: {} not seen", words(unseen)))
    }
}

fn watch_known_program(choice: HookChoice) -> Result<(Vec<HookStatus>, Vec<Observation>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let hierarchies = Hierarchies::of_this_host().context("cannot find the cgroup hierarchies")?;
    let sensor = ethogram_sensor::Options {
        limits: LIMITS,
        track_unknown: false,
        v1_controller: v1_controller(&hierarchies),
        watch_self: false,
        hooks: choice,
    };
    let cgroup = OwnCgroup::create(&hierarchies)?;
    let identity = ethogram_identity::Options {
        scope: Scope::Recorded {
            path: cgroup.path().to_vec(),
            command: "self-test".to_owned(),
        },
        runtimes: Some(Vec::new()),
        ..Default::default()
    };
    let watch = Watch::start(Sensor::start(&sensor)?, identity, runtime.handle())?;
    let hooks = watch.sensor().hooks().to_vec();
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let own = std::env::current_exe().context("cannot find ethogram's own executable")?;
    let status = Command::new(&own)
        .arg("run-in")
        .arg("--procs")
        .arg(cgroup.procs())
        .arg("--")
        .arg(&own)
        .arg("self-test")
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot start the known program")?;
    ensure!(status.success(), "the known program failed: {status}");
    Ok((hooks, watch.finish()?.observations))
}

/// The known program's part.
pub(crate) fn act(folder: &Path) -> Result<()> {
    std::fs::write(folder.join(FILE), "known").context("cannot write a file")?;
    let _unix = UnixListener::bind(folder.join(SOCKET)).context("cannot bind a unix socket")?;
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    let _client =
        TcpStream::connect(listener.local_addr()?).context("cannot connect to 127.0.0.1")?;
    listener.accept().context("cannot accept a connection")?;
    // The groups it has already: whether that is allowed does not matter, it is asked for.
    let groups = rustix::process::getgroups()?;
    let _ = rustix::thread::set_thread_groups(&groups);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::{Behaviour, BootId, ContainerKey, Name, Tally, Timestamp};

    fn seen(deeds: &[(Kind, &str)]) -> Vec<Observation> {
        let observation = |(kind, ending): &(Kind, &str)| Observation {
            container: ContainerKey {
                boot: BootId::new("b"),
                cgroup: 1,
                incarnation: 0,
            },
            behaviour: Behaviour::new(*kind, "/x".into(), ending.to_owned().into()),
            tally: Tally::at(Timestamp(1), 1),
            example: Name::default(),
        };
        deeds.iter().map(observation).collect()
    }

    #[test]
    fn all_must_be_seen() {
        assert_eq!(verdict(&seen(DEEDS)).level, Level::Ok);
        assert_eq!(verdict(&[]).level, Level::Missing);
        for missing in 0..DEEDS.len() {
            let mut deeds = DEEDS.to_vec();
            let (kind, _) = deeds.remove(missing);
            let check = verdict(&seen(&deeds));
            assert_eq!(check.level, Level::Degraded);
            assert!(
                check.finding.contains(&format!("{kind} not seen")),
                "{}",
                check.finding
            );
        }
    }
}
