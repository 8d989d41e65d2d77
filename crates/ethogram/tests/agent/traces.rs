//! What is left in the kernel when a process is gone that watched: nothing.

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, ChildStdin, Command, Stdio},
};

use ethogram_identity::cgroups::Hierarchies;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::daemon::{Agent, ethogram, until};

/// A kind of object in the kernel, as bpftool(8) calls it, and its number.
type Object = (&'static str, u64);

/// How proc(5) begins the line of a descriptor's object.
const LINES: [(&str, &str); 4] = [
    ("prog_id:", "prog"),
    ("map_id:", "map"),
    ("link_id:", "link"),
    ("btf_id:", "btf"),
];

/// The objects that a process has made: those it has open, and the maps of its programs.
fn objects(pid: u32) -> BTreeSet<Object> {
    let mut found = BTreeSet::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let text = fs::read_to_string(descriptor.unwrap().path()).unwrap_or_default();
        for line in text.lines() {
            let kind = LINES.iter().find(|(begin, _)| line.starts_with(begin));
            if let Some((begin, kind)) = kind {
                found.insert((*kind, line[begin.len()..].trim().parse().unwrap()));
            }
        }
    }
    let programs: Vec<_> = found.iter().filter(|(kind, _)| *kind == "prog").collect();
    let maps: Vec<_> = programs.into_iter().flat_map(maps_of).collect();
    found.extend(maps);
    for kind in ["prog", "map", "link"] {
        let count = found.iter().filter(|(other, _)| *other == kind).count();
        assert!(count > 3, "only {count} of kind {kind} were found");
    }
    found
}

fn maps_of(program: &Object) -> Vec<Object> {
    let shown = show(*program).unwrap();
    let ids = shown["map_ids"].as_array().into_iter().flatten();
    ids.map(|id| ("map", id.as_u64().unwrap())).collect()
}

/// What bpftool says of an object; `None` if there is no such object.
fn show((kind, id): Object) -> Option<Value> {
    let output = Command::new("bpftool")
        .args(["--json", kind, "show", "id", &id.to_string()])
        .output()
        .expect("bpftool is needed: apt-get install bpftool");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    match said["error"].as_str() {
        None => Some(said),
        Some(why) if why.contains("No such file") => None,
        Some(why) => panic!("bpftool cannot show {kind} {id}: {why}"),
    }
}

/// The kernel frees what nobody holds after a grace period or two. A pin, or a descriptor in
/// another process, would keep it for good.
fn assert_gone(objects: &BTreeSet<Object>) {
    for &object in objects {
        until(&format!("{object:?} is still there"), || {
            show(object).is_none().then_some(())
        });
    }
}

#[test]
fn an_agent_leaves_nothing_behind() {
    for end in [Agent::stop, Agent::kill] {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start(folder.path(), &[]);
        let objects = objects(agent.pid());
        end(agent);
        assert_gone(&objects);
    }
}

/// A recording of a command that runs until its standard input is closed.
fn record() -> (Child, ChildStdin) {
    let mut command = ethogram();
    command.args(["record", "--quiet", "--", "sh", "-c", "echo ready; cat"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 6];
    let output = child.stdout.as_mut().unwrap();
    std::io::Read::read_exact(output, &mut line).unwrap();
    let input = child.stdin.take().unwrap();
    (child, input)
}

#[test]
fn a_recording_leaves_nothing_behind() {
    let (mut child, input) = record();
    let seen = objects(child.id());
    drop(input);
    assert!(child.wait().unwrap().success());
    assert_gone(&seen);

    let (mut child, input) = record();
    let seen = objects(child.id());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    child.wait().unwrap();
    assert_gone(&seen);
    drop(input);
}

#[test]
fn a_recording_that_is_killed_leaves_the_command_but_no_program() {
    let (mut child, input) = record();
    let seen = objects(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    // While the command still runs: it must not have inherited anything of the recorder's.
    assert_gone(&seen);
    drop(input);
    let hierarchies = Hierarchies::of_this_host().unwrap();
    let name = format!("ethogram-record-{}", child.id());
    let cgroup = hierarchies.mounts[0].at.join(name);
    until("the command's cgroup is not empty", || {
        fs::remove_dir(&cgroup).is_ok().then_some(())
    });
}
