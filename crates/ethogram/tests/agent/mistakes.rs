//! What an agent says that cannot start, or not as it was.

use std::{fs, path::Path};

use crate::{
    container::Container,
    daemon::{Agent, ethogram, isolated, reads, refusal},
};

#[test]
fn a_wrong_option_in_the_file_names_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(
        &file,
        "# mine\nretention-age = \"7d\"\nretention_size = \"1GiB\"\n",
    )
    .unwrap();
    let text = refusal(ethogram().args(["agent", "--config"]).arg(&file));
    let place = format!("{}:3:1: unknown field `retention_size`", file.display());
    assert!(text.contains(&place), "{text}");
    assert!(text.contains("`retention-size`"), "{text}");

    let text = refusal(ethogram().args(["agent", "--config", "/nonexistent/agent.toml"]));
    assert!(text.contains("/nonexistent/agent.toml"), "{text}");
}

#[test]
fn two_agents_do_not_share_a_store_or_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &[]);
    let who = format!("process {} ", agent.pid());

    let mut same = isolated(folder.path(), ethogram());
    let text = refusal(&mut same);
    assert!(text.contains(&who) && text.contains("/socket"), "{text}");

    let mut same_data = isolated(folder.path(), ethogram());
    let other = folder.path().join("other.sock");
    same_data.arg("--socket").arg(&other);
    let text = refusal(&mut same_data);
    assert!(
        text.contains(&who) && text.contains("ethogram.db"),
        "{text}"
    );
    assert!(!other.exists());

    assert_eq!(agent.get("/v1/health").status, 200);
    agent.stop();
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data"), "a file").unwrap();
    let text = refusal(&mut isolated(folder.path(), ethogram()));
    let data = folder.path().join("data");
    assert!(text.contains(&data.display().to_string()), "{text}");
}

#[test]
fn the_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = refusal(isolated(folder.path(), ethogram()).args(["--listen", "0.0.0.0:8686"]));
    assert!(text.contains("TLS") && text.contains("tunnel"), "{text}");
}

fn moved_aside(data: &Path) -> usize {
    let names = fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let is_store = |name: &std::ffi::OsString| {
        let name = name.to_str().unwrap();
        name.starts_with("ethogram.db.corrupt-")
            && !name.ends_with("-wal")
            && !name.ends_with("-shm")
    };
    names.filter(is_store).count()
}

#[test]
fn a_damaged_store_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = data.join("ethogram.db");
    fs::create_dir(&data).unwrap();
    fs::write(&store, "this was a database once".repeat(1_000)).unwrap();
    let container = Container::new();

    let agent = Agent::start(folder.path(), &[]);
    container.read(5);
    assert_eq!(reads(&agent.subject(&container)), 5);
    assert_eq!(moved_aside(&data), 1);
    assert!(agent.log().contains("is damaged"), "{}", agent.log());

    // A disk that damages pages within: looked for because the agent did not end well.
    agent.stop();
    Agent::start(folder.path(), &[]).kill();
    let mut pages = fs::read(&store).unwrap();
    let middle = pages.len() / 4..pages.len() / 4 * 3;
    pages[middle].fill(0x5a);
    fs::write(&store, pages).unwrap();

    let agent = Agent::start(folder.path(), &[]);
    container.read(6);
    assert_eq!(reads(&agent.subject(&container)), 6);
    assert_eq!(moved_aside(&data), 2);
    agent.stop();
}
