//! What cannot be counted is counted as lost.

use std::thread;

use serde_json::Value;

use crate::{container::Container, daemon::Agent};

/// Files that a shell opens, each by another name.
const FILES: u32 = 20_000;

fn events(listed: &Value) -> u64 {
    listed["events"].as_u64().unwrap_or(0)
}

fn lost(listed: &Value) -> u64 {
    let losses = listed["losses"].as_array().into_iter().flatten();
    losses.map(|loss| loss["count"].as_u64().unwrap()).sum()
}

#[test]
fn with_no_room_in_the_kernel_counts_and_losses_add_up_to_the_truth() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // Folded, the files would find room.
    let unfolded = ["--rows-per-container-max", "16777216"];
    let roomy = Agent::start(folders[0].path(), &unfolded);
    let tiny = ["--behaviours-max", "8", "--ring-kib", "4"];
    let tiny = Agent::start(folders[1].path(), &[&tiny[..], &unfolded].concat());
    let container = Container::new();
    let names = tempfile::tempdir().unwrap();
    let script = format!(
        "cd {}; i=0; while [ $i -lt {FILES} ]; do : > f$i; i=$((i+1)); done",
        names.path().display()
    );
    let mut seen = 0;
    thread::scope(|scope| {
        let work = scope.spawn(|| container.run(&script));
        while !work.is_finished() {
            let now = lost(&tiny.listed(&container));
            assert!(now >= seen, "losses shrank from {seen} to {now}");
            seen = now;
        }
    });
    let (truth, part) = (roomy.listed(&container), tiny.listed(&container));
    assert_eq!(lost(&truth), 0, "{truth}");
    assert!(events(&truth) >= u64::from(FILES), "{truth}");
    assert!(lost(&part) > 0, "nothing was lost: {part}");
    assert_eq!(
        events(&part) + lost(&part),
        events(&truth),
        "{part} of {truth}"
    );
    let subject = tiny.subject(&container);
    assert!(!subject.completeness.complete);

    let metrics = tiny.get_fresh("/metrics").body;
    let metric = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(metric("ethogram_events_lost_total{reason=\"ring_full\"}") >= lost(&part));
    assert_eq!(metric("ethogram_behaviours_limit"), 8);
    tiny.stop();
    roomy.stop();
}
