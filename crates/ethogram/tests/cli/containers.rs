//! `ethogram containers --db`.

use crate::support::*;

#[test]
fn what_is_not_over_is_listed() {
    let text = Known::world().ask("containers", &[]).ok().out;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].starts_with("CONTAINER"),
        "no column for pods where there is none: {text}"
    );
    let cells: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "cache",
            "docker",
            "unwatched",
            "2023-01-04",
            "12:00Z",
            "1",
            "2",
            "0"
        ],
        "{text}"
    );
}

#[test]
fn all_are_listed_with_what_is_kept_and_lost() {
    let document = Known::world()
        .ask("containers", &["--all", "-n", "dvwa", "-o", "json"])
        .ok()
        .json();
    assert_eq!(document["schema"], "ethogram.containers/v1");
    let told: Vec<_> = document["containers"]
        .as_array()
        .expect("containers")
        .iter()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().expect("text").to_owned();
            (
                text("pod"),
                text("name"),
                text("state"),
                entry["rows"].as_u64(),
                entry["events"].as_u64(),
            )
        })
        .collect();
    let entry = |pod: &str, name: &str, rows: u64| {
        (
            pod.to_owned(),
            name.to_owned(),
            "ended".to_owned(),
            Some(rows),
            Some(rows * 2),
        )
    };
    assert_eq!(
        told,
        [
            entry("db-1", "db", 1),
            entry("web-1", "POD", 0),
            entry("web-1", "web", 15),
            entry("web-2", "web", 1)
        ]
    );
    assert_eq!(
        document["containers"][0]["losses"][0]["reason"],
        "ring_full"
    );
    assert_eq!(document["containers"][0]["losses"][0]["count"], 7);
}

#[test]
fn an_empty_list_says_why() {
    let known = Known::world();
    let ended = known.ask("containers", &["-n", "dvwa"]).ok().out;
    assert!(ended.contains("--all lists 4"), "{ended}");
    let none = known.ask("containers", &["-n", "nowhere"]).ok().out;
    assert!(none.contains("No container is known"), "{none}");
}
