//! `ethogram summary --db`.

use crate::support::*;
use ethogram_model::{ContainerKey, Kind, Loss, LossReason, Name, Resolution, Status};
use serde_json::Value;

/// Subjects as `namespace/pod/container`, and their rows as `table: source -> target`.
fn rows(options: &[&str]) -> Vec<String> {
    let options = [options, &["-o", "json"]].concat();
    rows_of(&Known::world().ask("summary", &options).ok().json())
}

fn rows_of(document: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows = Vec::new();
    for subject in document["subjects"].as_array().expect("subjects") {
        for (table, lines) in subject["tables"].as_object().expect("tables") {
            for row in lines.as_array().expect("rows") {
                let who = text(&subject["containers"][0]);
                rows.push(format!(
                    "{who} {table}: {} -> {}",
                    text(&row["source"]),
                    text(&row["target"])
                ));
            }
        }
    }
    rows
}

fn subjects(options: &[&str]) -> Vec<String> {
    let options = [options, &["-o", "json"]].concat();
    let document = Known::world().ask("summary", &options).ok().json();
    let all = document["subjects"].as_array().expect("subjects").clone();
    let name = |subject: &Value| {
        let part = |key: &str| subject[key][0].as_str().unwrap_or("-").to_owned();
        format!("{}/{}", part("pods"), part("containers"))
    };
    all.iter().map(name).collect()
}

#[test]
fn each_filter_selects_subjects() {
    let web = ["web-1/web", "web-2/web"];
    for (options, expected) in [
        (
            &[][..],
            &[
                "-/cache",
                "db-1/db",
                "web-1/web",
                "web-2/web",
                "resolver-1/resolver",
            ][..],
        ),
        (&["-n", "dvwa"], &["db-1/db", "web-1/web", "web-2/web"]),
        (&["--namespace", "tools"], &["resolver-1/resolver"]),
        (&["-n", ""], &["-/cache"]),
        (&["-p", "web-1"], &web[..1]),
        (&["-p", "web-*"], &web),
        (&["-c", "web"], &web),
        (&["-c", "0000000000000000*"], &[]),
        (&["-l", "app=web"], &web),
        (&["-l", "app=web,tier=test"], &web),
        (&["-l", "app=web,tier=prod"], &[]),
        (&["-w", "deployment/db"], &["db-1/db"]),
        (&["-w", "web"], &web),
        (&["--node", "node-2"], &[]),
        (&["--status", "deny"], &["db-1/db", "web-1/web"]),
        (&["--by", "workload", "-w", "web"], &web[..1]),
        (&["-p", "web-1", "--all"], &["web-1/POD", "web-1/web"]),
    ] {
        assert_eq!(subjects(options), expected, "{options:?}");
    }
}

#[test]
fn each_filter_selects_rows() {
    let dash_ping = "web process: /bin/dash -> /bin/ping";
    for (options, expected) in [
        (
            &["-t", "capability,syscall"][..],
            &[
                "web capability: /bin/ping -> CAP_NET_RAW",
                "web syscall: /bin/ping -> setuid",
            ][..],
        ),
        (
            &["-t", "network", "-n", "dvwa"],
            &[
                "db ingress: /usr/sbin/mysqld -> 10.0.0.1",
                "web bind: /usr/sbin/apache2 -> ::",
                "web egress: /usr/sbin/apache2 -> 192.0.2.7",
                "web egress: /usr/sbin/apache2 -> 10.0.0.2",
            ],
        ),
        (
            &["-t", "ingress"],
            &["db ingress: /usr/sbin/mysqld -> 10.0.0.1"],
        ),
        (
            &["-t", "Bind", "-n", "tools"],
            &["resolver bind: /bin/resolver -> 0.0.0.0"],
        ),
        (
            &["--status", "deny"],
            &["web file: /bin/cat -> /etc/shadow"],
        ),
        (
            &["--status", "Deny,AUDIT"],
            &[
                "web file: /bin/cat -> /etc/audited",
                "web file: /bin/cat -> /etc/shadow",
            ],
        ),
        (
            &["--status", "failed"],
            &["web egress: /usr/sbin/apache2 -> 192.0.2.9"],
        ),
        (&["--source", "/bin/dash"], &[dash_ping, dash_ping]),
        (&["--source", "/bin/d*", "-p", "web-2"], &[dash_ping]),
        (
            &["--since", "2023-01-04T12:45:00Z"],
            &["db ingress: /usr/sbin/mysqld -> 10.0.0.1"],
        ),
        (
            &["--until", "2023-01-04T12:02:00Z"],
            &["web bind: /usr/sbin/apache2 -> ::"],
        ),
        (&["--since", "7d", "--all"], &[]),
        (
            &["--since", "36500d", "-t", "bind", "-n", "tools"],
            &["resolver bind: /bin/resolver -> 0.0.0.0"],
        ),
    ] {
        assert_eq!(rows(options), expected, "{options:?}");
    }
}

#[test]
fn folding_is_the_readers_choice() {
    let files = |options: &[&str]| {
        rows(&[&["-t", "file", "-p", "web-1", "--status", "allow"], options].concat())
    };
    let spaces = "web file: /usr/sbin/apache2 -> /srv/a file with spaces";
    let folded = [
        "web file: /usr/sbin/apache2 -> /srv/a file with spaces",
        "web file: /usr/sbin/apache2 -> /var/www/",
    ];
    assert_eq!(files(&[]), folded);
    assert_eq!(files(&["--agg"]), folded);
    assert_eq!(
        files(&["--fold", "1"]),
        [
            "web file: /usr/sbin/apache2 -> /srv/a file with spaces",
            "web file: /usr/sbin/apache2 -> /var/www/"
        ]
    );
    let whole: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| format!("web file: /usr/sbin/apache2 -> /var/www/{name}.php"))
        .into();
    let whole = [vec![spaces.to_owned()], whole].concat();
    assert_eq!(files(&["--fold", "none"]), whole);
    assert_eq!(files(&["--fold", "4"]), whole);
}

#[test]
fn agg_with_nothing_to_fold_keeps_every_path() {
    let known = one(vec![
        seen(1, Kind::File, "/bin/a", "/srv/x", 1),
        seen(1, Kind::File, "/bin/a", "/srv/y z", 1),
        seen(1, Kind::File, "/bin/b", "/srv/y z", 1),
    ]);
    let document = known.ask("summary", &["--agg", "-o", "json"]).ok().json();
    assert_eq!(
        rows_of(&document),
        [
            "one file: /bin/a -> /srv/x",
            "one file: /bin/a -> /srv/y z",
            "one file: /bin/b -> /srv/y z"
        ]
    );
}

#[test]
fn a_pod_that_only_binds_is_printed() {
    let text = Known::world().ask("summary", &["-n", "tools"]).ok().out;
    for expected in [
        "resolver-1",
        "Bind Points",
        "| UDP ",
        "/bin/resolver",
        "| 53 ",
        "0.0.0.0",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains("Process Data"), "{text}");
}

#[test]
fn text_has_titles_peers_and_what_is_missing() {
    let text = Known::world().ask("summary", &["-n", "dvwa"]).ok().out;
    for expected in [
        "Pod Name",
        "Process Data",
        "File Data",
        "Ingress connections",
        "Egress connections",
        "Bind Points",
        "Capabilities",
        "System calls",
        "pod/db-1",
        "/srv/a file with spaces",
        "/bin/my shell",
        "7 events not counted (ring_full 7)",
        "Complete: nothing was lost since",
        "Wed Jan  4 12:05:00 UTC 2023",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains("1970"), "{text}");
    assert!(!text.contains('\x1b'), "colours are for terminals: {text}");
    assert!(
        !text.contains('…'),
        "nothing is shortened in a pipe: {text}"
    );
}

#[test]
fn every_format_has_every_row() {
    let known = Known::world();
    for (format, beginning) in [
        ("text", "  Container Name"),
        ("json", "{\n  \"schema\": \"ethogram.summary/v1\""),
        ("yaml", "schema: ethogram.summary/v1"),
        ("csv", "cluster,namespace,pods"),
        ("html", "<!DOCTYPE html>"),
    ] {
        let said = known.ask("summary", &["-o", format]).ok();
        assert!(said.out.starts_with(beginning), "{format}: {}", said.out);
        for row in [
            "/srv/a file with spaces",
            "CAP_NET_RAW",
            "192.0.2.7",
            "/etc/shadow",
            "/bin/resolver",
            "/data/dump",
        ] {
            assert!(said.out.contains(row), "{row} as {format}");
        }
        assert_eq!(said.err, "", "{format}");
    }
}

#[test]
fn numbers_are_numbers_and_times_are_rfc3339() {
    let document = Known::world()
        .ask("summary", &["-n", "tools", "-o", "json"])
        .ok()
        .json();
    let row = &document["subjects"][0]["tables"]["bind"][0];
    assert_eq!(row["count"], 2);
    assert_eq!(row["port"], 53);
    assert_eq!(row["last_seen"], "2023-01-04T12:02:00Z");
}

#[test]
fn colours_only_on_demand_in_a_pipe() {
    let known = Known::world();
    let options = ["--color", "always", "--status", "deny"];
    assert!(
        known
            .ask("summary", &options)
            .ok()
            .out
            .contains("\x1b[31mDeny")
    );
    assert!(
        !known
            .ask("summary", &["--status", "deny"])
            .ok()
            .out
            .contains('\x1b')
    );
}

#[test]
fn a_selection_that_matches_nothing_says_what_there_is() {
    let known = Known::world();
    for (options, expected) in [
        (
            &["-n", "dwva"][..],
            "namespaces that are known: dvwa, tools",
        ),
        (
            &["-p", "web"],
            "pods that are known: db-1, resolver-1, web-1, web-2",
        ),
        (
            &["-c", "webb"],
            "containers that are known: POD, cache, db, resolver, web",
        ),
        (&["-w", "x"], "workloads that are known: deployment/db"),
        (
            &[
                "-t", "bind", "--status", "deny", "--source", "x", "--until", "1m", "-l", "app=web",
            ],
            "6 containers are known",
        ),
    ] {
        let said = known.ask("summary", options).ok();
        assert!(
            said.out.starts_with("Nothing to show"),
            "{options:?}: {}",
            said.out
        );
        assert!(said.err.contains(expected), "{options:?}: {}", said.err);
    }
    let json = known
        .ask("summary", &["-n", "dwva", "-o", "json"])
        .ok()
        .json();
    assert_eq!(json["subjects"], serde_json::json!([]));
}

#[test]
fn hostile_names_cannot_reach_the_terminal() {
    let name = Name::from_bytes(b"/tmp2/\x1b]0;owned\x07\n\xff<script>=1+1,\"\xe2\x80\xae");
    let mut row = seen(1, Kind::File, "/bin/a", "x", 1);
    row.behaviour.target = name;
    let known = one(vec![row]);
    for format in ["text", "json", "yaml", "csv", "html"] {
        let out = known.ask("summary", &["-o", format]).ok().out;
        let bad = |c: char| (c.is_control() && c != '\n' && c != '\r') || c == '\u{202e}';
        assert!(!out.contains(bad), "{format}: {out:?}");
        assert!(!out.contains("<script>") || format != "html", "{out}");
        assert!(out.contains("owned"), "{format}: {out}");
    }
    let said = known.ask("summary", &["-n", "\x1b[31mred"]).ok();
    assert!(!said.err.contains('\x1b'), "{said:?}");
}

#[test]
fn many_rows_are_all_shown() {
    let row = |n| seen(1, Kind::File, "/bin/a", &format!("/srv/{n:05}/x"), 1);
    let known = one((0..20_000).map(row).collect());
    let text = known.ask("summary", &["--fold", "none"]).ok().out;
    let lines = text.lines().filter(|line| line.contains("/srv/"));
    assert_eq!(lines.count(), 20_000);
}

#[test]
fn failed_and_denied_rows_stay_apart() {
    let known = one(vec![
        seen(1, Kind::File, "/bin/a", "/srv/x", 1),
        ended(seen(1, Kind::File, "/bin/a", "/srv/x", 2), Status::Deny),
    ]);
    let document = known.ask("summary", &["-o", "json"]).ok().json();
    let rows = document["subjects"][0]["tables"]["file"]
        .as_array()
        .expect("rows")
        .clone();
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row["status"].as_str(), row["count"].as_u64()))
        .collect();
    assert_eq!(told, [(Some("Allow"), Some(2)), (Some("Deny"), Some(2))]);
}

#[test]
fn mistakes_on_the_command_line_say_what_is_right() {
    let known = Known::world();
    for (options, expected) in [
        (
            &["-t", "files"][..],
            "possible values: process, file, network",
        ),
        (&["--status", "blocked"], "possible values: allow, deny"),
        (&["-l", "app"], "write key=value"),
        (&["--since", "yesterday"], "30m, 2h, 7d"),
        (&["--fold", "some"], "none, auto"),
        (&["-o", "xml"], "possible values: text, json"),
        (&["--agg", "--fold", "3"], "cannot be used with"),
    ] {
        let said = known.ask("summary", options);
        assert_eq!(said.code, Some(2), "{options:?}");
        assert!(said.err.contains(expected), "{options:?}: {}", said.err);
    }
}

#[test]
fn a_file_that_is_no_store_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("notes.txt");
    std::fs::write(
        &file,
        "this is not a database, but it is long enough to be looked at".repeat(20),
    )
    .expect("a file");
    let missing = folder.path().join("missing.db");
    for file in [file, missing] {
        let said = said(ethogram().args(["summary", "--db"]).arg(&file));
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(&*file.to_string_lossy()), "{said:?}");
        assert_eq!(said.out, "");
    }
    assert!(
        !folder.path().join("missing.db").exists(),
        "reading creates nothing"
    );
}

#[test]
fn an_absent_agent_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("none.sock");
    for command in ["summary", "containers"] {
        let said = said(ethogram().arg(command).arg("--socket").arg(&socket));
        assert_eq!(said.code, Some(1), "{said:?}");
        for expected in ["none.sock", "ethogram agent", "--db"] {
            assert!(said.err.contains(expected), "{expected} in {said:?}");
        }
    }
}

#[test]
fn names_from_dns_are_asked_for_once_and_counted() {
    let said = Known::world()
        .ask("summary", &["-t", "egress", "--rev-dns-lookup"])
        .ok();
    // 192.0.2.7 is for documentation (RFC 5737); the database has a name here already.
    assert!(said.err.contains(" of 1 addresses"), "{}", said.err);
    assert!(
        said.out.contains("192.0.2.7") && said.out.contains("pod/db-1"),
        "{}",
        said.out
    );
}

#[test]
fn a_name_that_was_asked_for_stands_before_its_address_and_a_lost_one_is_told() {
    let mut world = world();
    let (key, _) = world.losses[0].clone();
    let web = ContainerKey { cgroup: 1, ..key };
    world.resolutions.push(Resolution {
        container: web.clone(),
        ip: "192.0.2.7".parse().unwrap(),
        name: "api.example.org".into(),
        first: minute(1),
        last: minute(2),
    });
    let loss = Loss {
        reason: LossReason::Names,
        count: 4,
    };
    world.losses.push((web, loss));
    let known = Known::of(&world);
    let ask = |options: &[&str]| known.ask("summary", &[&["-p", "web-1"], options].concat());
    let text = ask(&[]).ok().out;
    for expected in [
        "| api.example.org (192.0.2.7) |",
        "Complete: nothing was lost since",
        "Names may be missing beside addresses: 4 DNS answers were not taken in.",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let csv = ask(&["-o", "csv"]).ok().out;
    assert!(
        csv.contains(",192.0.2.7,TCPv6,443,,,,,api.example.org,"),
        "{csv}"
    );
    let json = ask(&["-o", "json"]).ok().json();
    assert_eq!(json["subjects"][0]["completeness"]["complete"], true);
    // What is known is not asked for.
    let reverse = ask(&["--rev-dns-lookup"]).ok().err;
    assert!(reverse.contains("names for 0 of 0 addresses"), "{reverse}");
}
