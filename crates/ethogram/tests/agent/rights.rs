//! What a running agent may still do, and that it is enough.

use std::{fs, process::Command};

use crate::{
    container::{Container, FILE},
    daemon::{Agent, isolated, reads, refusal, until},
    docker::Docker,
};

/// CAP_DAC_READ_SEARCH alone, as proc(5) writes a set of capabilities.
const KEPT: &str = "0000000000000004";
const NONE: &str = "0000000000000000";

/// The lines of a thread's status that say what it may do.
fn rights(status: &str) -> Vec<(&str, &str)> {
    let lines = status.lines().filter_map(|line| line.split_once(":\t"));
    let is_right =
        |name: &str| name.starts_with("Cap") || ["NoNewPrivs", "Seccomp"].contains(&name);
    lines.filter(|(name, _)| is_right(name)).collect()
}

fn assert_confined(agent: &Agent) {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let mut threads = 0;
    for task in tasks {
        // A thread of the pool may end meanwhile.
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        threads += 1;
        assert_eq!(
            rights(&status),
            [
                ("CapInh", NONE),
                ("CapPrm", KEPT),
                ("CapEff", KEPT),
                ("CapBnd", KEPT),
                ("CapAmb", NONE),
                ("NoNewPrivs", "1"),
                ("Seccomp", "2"),
            ],
            "{status}"
        );
    }
    assert!(threads > 3, "only {threads} threads were looked at");
}

#[test]
fn no_thread_keeps_more_than_it_needs_and_everything_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker");
    let agent = Agent::start(
        folder.path(),
        &["--docker-socket", &socket.display().to_string()],
    );
    assert_confined(&agent);
    let container = Container::new();
    container.read(3);
    assert_eq!(reads(&agent.subject(&container)), 3);

    let named = |name: &str| {
        until("the container gets no name", || {
            (agent.listed(&container)["name"] == name).then_some(())
        });
    };
    let docker = Docker::start(&socket, &container.id, "first");
    named("first");
    drop(docker);
    until("nobody notices that the runtime is gone", || {
        let status = agent.get_fresh("/v1/status").json();
        let runtimes = status["runtimes"].as_array().unwrap().iter();
        let mut answering = runtimes.filter(|runtime| runtime["state"] == "answers");
        answering.next().is_none().then_some(())
    });
    container.read(4);
    let _docker = Docker::start(&socket, &container.id, "second");
    named("second");
    container.read(5);
    let subject = agent.subject(&container);
    assert_eq!(reads(&subject), 12);
    assert!(subject.completeness.complete, "{:?}", subject.completeness);

    let status = agent.get_fresh("/v1/status").json();
    assert_eq!(
        status["rights"],
        serde_json::json!({"capabilities": ["CAP_DAC_READ_SEARCH"], "calls_filtered": true})
    );
    // Those that were started since are as confined.
    assert_confined(&agent);
    assert!(!agent.log().contains("ERROR"), "{}", agent.log());
    agent.stop();
}

#[test]
fn a_service_with_few_capabilities_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("setpriv");
    let three = "-all,+bpf,+perfmon,+dac_read_search";
    command.args(["--bounding-set", three, "--inh-caps", "-all", "--"]);
    command.arg(env!("CARGO_BIN_EXE_ethogram"));
    let container = Container::new();
    // Somebody else's process that ran before, with an open file.
    let mut earlier = container
        .shell(&format!(
            "exec 3< {FILE}; exec setpriv --reuid 65534 tail -f /dev/null"
        ))
        .spawn()
        .unwrap();
    until("tail does not start", || {
        let name = fs::read_to_string(format!("/proc/{}/comm", earlier.id())).unwrap();
        (name == "tail\n").then_some(())
    });
    let agent = Agent::start_as(folder.path(), isolated(folder.path(), command));
    container.read(3);
    let subject = agent.subject(&container);
    assert_eq!(reads(&subject), 3);
    assert!(subject.completeness.complete, "{:?}", subject.completeness);
    let files = subject.table(ethogram_model::Kind::File);
    let is_open_file = |row: &&ethogram_view::Row| {
        row.source.as_str().ends_with("/tail") && row.target.as_str() == FILE
    };
    assert_eq!(files.iter().filter(is_open_file).count(), 1, "{files:#?}");
    earlier.kill().unwrap();
    earlier.wait().unwrap();
    agent.stop();
}

#[test]
fn a_folder_of_somebody_else_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(65534), None).unwrap();
    let text = refusal(&mut isolated(folder.path(), crate::daemon::ethogram()));
    assert!(text.contains("chown") && text.contains("/data"), "{text}");
}
