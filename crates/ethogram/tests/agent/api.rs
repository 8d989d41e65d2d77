//! What the API answers, and what it refuses.

use std::net::{TcpListener, TcpStream};

use crate::daemon::{Agent, ask};

#[test]
fn the_agent_says_how_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &["--node", "n1", "--cluster", "c1"]);
    let status = agent.get_fresh("/v1/status").json();
    assert_eq!(status["schema"], "ethogram.status/v1");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&status["node"], &status["cluster"]),
        (&"n1".into(), &"c1".into())
    );
    let hooks = status["hooks"].as_array().unwrap();
    assert!(
        hooks.iter().all(|hook| hook["attached"] == true),
        "{hooks:?}"
    );
    assert!(
        hooks.iter().any(|hook| hook["hook"] == "tp_btf/sys_exit"),
        "{hooks:?}"
    );
    assert_eq!(status["runtimes"].as_array().unwrap().len(), 1);
    assert_eq!(status["runtimes"][0]["state"], "absent");
    assert!(status["store"]["bytes"].as_u64().unwrap() > 0);
    assert_eq!(status["store"]["retention"]["age_s_max"], 30 * 86_400);
    assert_eq!(agent.get("/v1/health").json()["status"], "ok");

    let metrics = agent.get_fresh("/metrics");
    assert!(
        metrics.head.contains("application/openmetrics-text"),
        "{}",
        metrics.head
    );
    assert!(metrics.body.ends_with("# EOF\n"));
    for name in [
        "ethogram_events_total{kind=\"file\"}",
        "ethogram_events_lost_total{reason=\"ring_full\"}",
        "ethogram_behaviours ",
        "ethogram_containers_watched ",
        "ethogram_store_size_bytes ",
        "ethogram_store_flush_seconds_total ",
        "ethogram_runtime_up{",
        "ethogram_build_info{",
    ] {
        assert!(
            metrics.body.contains(name),
            "{name} is not in {}",
            metrics.body
        );
    }
    agent.stop();
}

#[test]
fn every_format_has_its_type_and_every_mistake_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &[]);
    for (path, kind) in [
        ("/v1/summary", "application/json"),
        ("/v1/summary?format=text", "text/plain; charset=utf-8"),
        ("/v1/summary?format=yaml", "application/yaml"),
        (
            "/v1/summary?format=csv&fold=none",
            "text/csv; charset=utf-8",
        ),
        ("/v1/summary?format=html", "text/html; charset=utf-8"),
        ("/", "text/html; charset=utf-8"),
        ("/v1/containers", "application/json"),
    ] {
        let answer = agent.get_fresh(path);
        let line = format!("\r\ncontent-type: {kind}\r\n");
        assert!(answer.head.contains(&line), "{path}: {}", answer.head);
    }
    let long = format!("/v1/summary?pod={}", "x".repeat(100_000));
    for (path, status, word) in [
        ("/nothing", 404, "nothing here"),
        ("/v1/summary?nonsense=1", 400, "nonsense"),
        ("/v1/summary?format=pdf", 400, "pdf"),
        ("/v1/containers?type=files", 400, "files"),
    ] {
        let answer = agent.get(path);
        assert_eq!(answer.status, status, "{path}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(word), "{path}: {error}");
    }
    assert_eq!(agent.get(&long).status, 414);
    agent.stop();
}

#[test]
fn browsers_may_ask_this_machine_by_its_own_names_only() {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let agent = Agent::start(folder.path(), &["--listen", &address]);
    let get = |method: &str, host: &str| {
        let stream = TcpStream::connect(&address).unwrap();
        ask(stream, &format!("{method} / HTTP/1.1\r\n{host}\r\n\r\n"))
    };
    let page = get("GET", &format!("Host: {address}"));
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with("<!DOCTYPE html>"));
    for header in [
        "content-security-policy: default-src 'none'; style-src 'unsafe-inline'",
        "x-content-type-options: nosniff",
    ] {
        assert!(page.head.contains(header), "{}", page.head);
    }
    assert_eq!(get("GET", "Host: localhost").status, 200);
    assert_eq!(get("GET", "Host: rebound.example").status, 421);
    assert_eq!(get("GET", "X-Nothing: x").status, 421);
    let refused = get("POST", "Host: localhost");
    assert_eq!(refused.status, 405);
    assert!(refused.json()["error"].as_str().unwrap().contains("GET"));
    agent.stop();
}
