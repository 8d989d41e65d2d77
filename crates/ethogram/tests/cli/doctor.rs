//! `ethogram doctor`, `completion`, `man`.

use crate::support::*;

#[test]
fn findings_and_blind_spots_are_data() {
    let said = said(ethogram().args(["doctor", "-o", "json"]));
    let diagnosis = said.json();
    assert_eq!(diagnosis["schema"], "ethogram.doctor/v1");
    let checks = diagnosis["checks"].as_array().expect("checks");
    let level = |id: &str| {
        let check = checks.iter().find(|check| check["id"] == id);
        check.unwrap_or_else(|| panic!("no check {id} in {diagnosis}"))["level"].clone()
    };
    for id in [
        "kernel",
        "btf",
        "privileges",
        "lockdown",
        "lsm",
        "self-test",
        "cgroups",
        "agent",
        "disk",
    ] {
        assert!(
            ["ok", "degraded", "missing"]
                .iter()
                .any(|word| level(id) == *word),
            "{id}"
        );
    }
    let missing = checks.iter().any(|check| check["level"] == "missing");
    assert_eq!(diagnosis["can_watch"], !missing);
    assert_eq!(said.code, Some(i32::from(missing)));
    let spots = diagnosis["blind_spots"].as_array().expect("blind spots");
    assert!(spots.iter().any(|spot| spot["id"] == "io-uring"));
    for kind in diagnosis["kinds"].as_array().expect("a list of kinds") {
        let is_capability = kind["kind"] == "capability";
        let hooks = kind["hooks"].as_array().expect("a list of hooks");
        assert!(!hooks.is_empty() || is_capability, "{kind}");
        assert_eq!(kind["seen"] == true, !is_capability, "{kind}");
    }
    for spot in spots {
        for key in ["id", "text", "remedy"] {
            assert!(
                spot[key].as_str().is_some_and(|text| !text.is_empty()),
                "{key} of {spot}"
            );
        }
        assert!(!spot["kinds"].as_array().expect("kinds").is_empty());
    }
}

#[test]
fn the_self_test_sees_all_where_programs_may_be_loaded() {
    let diagnosis = said(ethogram().args(["doctor", "-o", "json"])).ok().json();
    let checks = diagnosis["checks"].as_array().expect("checks");
    let test = checks
        .iter()
        .find(|check| check["id"] == "self-test")
        .expect("a self-test");
    assert_eq!(test["level"], "ok", "{test}");
}

#[test]
fn the_text_says_the_same() {
    let text = said(ethogram().arg("doctor")).ok().out;
    for expected in [
        "kernel",
        "self-test",
        "What cannot be seen here:",
        "io-uring",
        "→ ",
        "can be watched here",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    assert!(
        text.lines().all(|line| line.trim_end() == line),
        "no spaces at ends: {text}"
    );
}

#[test]
fn shells_are_told_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = said(ethogram().args(["completion", shell])).ok().out;
        for expected in ["summary", "doctor", "rev-dns-lookup", "capability"] {
            assert!(script.contains(expected), "{expected} for {shell}");
        }
    }
}

#[test]
fn every_command_has_a_page_and_examples() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    said(ethogram().arg("man").arg(folder.path())).ok();
    let commands = [
        "record",
        "agent",
        "summary",
        "containers",
        "doctor",
        "completion",
    ];
    for command in commands {
        let page = folder.path().join(format!("ethogram-{command}.1"));
        let page = std::fs::read_to_string(&page).unwrap_or_else(|why| panic!("{page:?}: {why}"));
        assert!(page.contains("Examples:"), "{page}");
        let help = said(ethogram().args([command, "--help"])).ok().out;
        assert!(help.contains("Examples:"), "{help}");
    }
    let main = std::fs::read_to_string(folder.path().join("ethogram.1")).expect("the main page");
    for command in commands {
        assert!(main.contains(command), "{command} in {main}");
    }
    assert!(
        !folder.path().join("ethogram-run-in.1").exists(),
        "hidden commands have no page"
    );
}
