//! A full disk.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    container::Container,
    daemon::{Agent, isolated, reads, until},
};

#[test]
fn a_full_disk_loses_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    // A small disk that only the agent sees.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount -t tmpfs -o size=64m none \"$1\" && shift && exec \"$@\"")
        .arg("sh")
        .arg(&data)
        .arg(env!("CARGO_BIN_EXE_ethogram"));
    let agent = Agent::start_as(folder.path(), isolated(folder.path(), command));
    let container = Container::new();
    container.read(3);
    assert_eq!(reads(&agent.subject(&container)), 3);

    let inside = PathBuf::from(format!("/proc/{}/root{}", agent.pid(), data.display()));
    let ballast = inside.join("ballast");
    let full = fs::write(&ballast, vec![0; 80 << 20]);
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    container.read(4);
    until("the full disk goes unnoticed", || {
        // More and more names, until what the store's files hold already is used up.
        container.run("i=0; while [ $i -lt 2000 ]; do : > /dev/shm/ethogram-$$-$i; rm /dev/shm/ethogram-$$-$i; i=$((i+1)); done");
        let answer = agent.get("/v1/health");
        (answer.status == 503 && answer.body.contains("no space left")).then_some(())
    });
    let stale = agent.get("/v1/summary?fold=none&type=process");
    assert!(
        stale.is_stale() && stale.head.contains("no space left"),
        "{}",
        stale.head
    );
    let status = agent.get("/v1/status").json();
    assert!(
        status["store"]["pending_rows"].as_u64().unwrap() > 0,
        "{status}"
    );

    fs::remove_file(&ballast).unwrap();
    let subject = agent.subject(&container);
    assert_eq!(reads(&subject), 7);
    assert!(subject.completeness.complete, "{:?}", subject.completeness);
    agent.stop();
}
