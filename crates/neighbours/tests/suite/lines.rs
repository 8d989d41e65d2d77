//! Lines of JSON.

use crate::support::{TIME, World, ended, network, run, seen, soon, until};
use ethogram_model::{Kind, Loss, LossReason, Protocol, Status};
use ethogram_neighbours::{Feed, write_lines};
use ethogram_store::{Report, Store};
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

/// Somewhere to write to that a test can read.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A writer whose reader is gone.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn more() -> Report {
    let mut refused = ended(
        seen(1, Kind::File, "/bin/cat", "/etc/shadow", 12),
        Status::Deny,
    );
    refused.behaviour.access = ethogram_model::Access::READ;
    let udp = network(
        seen(5, Kind::Egress, "/bin/redis", "192.0.2.1", 1),
        Protocol::Udp,
        53,
    );
    let loss = Loss {
        reason: LossReason::RingFull,
        count: 7,
    };
    let mut again = Report::empty(run("run-2", TIME + 60_000_000_000, TIME + 61_000_000_000));
    again.losses = vec![(refused.container.clone(), loss)];
    again.observations = vec![refused, udp];
    again
}

#[tokio::test]
async fn each_change_is_a_line() {
    let world = World::open().await;
    let feed = Feed::start(world.store.clone());
    let (stop, stopped) = watch::channel(false);
    let paper = Paper::default();
    let out = Box::new(paper.clone());
    let task = tokio::spawn(write_lines(feed.clone(), "c1".into(), out, stopped));
    until("it listens", || feed.listeners() == 1).await;
    world.store.apply(&more()).unwrap();
    until("all is written", || paper.lines().len() == 4).await;
    // What comes last is written before it ends.
    let mut last = more();
    last.observations.truncate(1);
    last.observations[0].tally.count = 13;
    last.losses.clear();
    world.store.apply(&last).unwrap();
    stop.send_replace(true);
    soon(task).await.unwrap().unwrap();
    let last = &paper.lines()[4];
    assert_eq!((&last["count"], &last["new"]), (&json!(13), &json!(false)));

    let mut lines = paper.lines();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        assert_eq!(line.remove("schema").unwrap(), "ethogram.event/v1");
        assert!(
            line.remove("time")
                .unwrap()
                .as_str()
                .unwrap()
                .ends_with('Z')
        );
    }
    let who = json!({
        "cluster": "c1", "node": "node-1", "namespace": "shop", "pod": "web-0",
        "container": "web", "container_id": format!("{:064x}", 1),
        "image": "example.org/web:1", "runtime": "containerd", "workload": "deployment/web",
        "labels": {"app": "web", "pod-template-hash": "5d4f"},
    });
    let with = |mut what: Value| {
        let fields = what.as_object_mut().unwrap();
        fields.extend(who.as_object().unwrap().clone());
        what
    };
    assert_eq!(
        lines[0],
        json!({
            "event": "gap", "cluster": "c1", "node": "node-1",
            "from": "2023-01-04T12:35:38Z", "until": "2023-01-04T12:36:38Z",
        })
    );
    assert_eq!(
        lines[1],
        with(json!({
            "event": "row", "new": true, "kind": "file", "source": "/bin/cat", "target": "/etc/shadow",
            "access": ["read"], "status": "Deny", "count": 12,
            "first_seen": "2023-01-04T12:35:37Z", "last_seen": "2023-01-04T12:35:38Z",
        }))
    );
    assert_eq!(
        lines[2],
        with(json!({"event": "loss", "reason": "ring_full", "count": 7}))
    );
    assert_eq!(lines[3]["new"], true);
    assert_eq!(lines[3]["protocol"], "UDP");
    assert_eq!(lines[3]["port"], 53);
    assert_eq!(lines[3].get("pod"), None);
}

#[tokio::test]
async fn a_reader_that_is_gone_is_an_error() {
    let world = World::open().await;
    let feed = Feed::start(world.store.clone());
    let (_stop, stopped) = watch::channel(false);
    let out = Box::new(Broken);
    let task = tokio::spawn(write_lines(feed.clone(), String::new(), out, stopped));
    until("it listens", || feed.listeners() == 1).await;
    // One to be written, and more to notice that it was not.
    for count in 13..16 {
        let mut report = more();
        report.observations[0].tally.count = count;
        world.store.apply(&report).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    }
    let error = soon(task).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("cannot write a line"), "{error}");
}
