//! What an agent tells those who speak the neighbours' protocols: the same counts as a summary.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use ethogram_neighbours::{
    discovery::{Request, observability_client::ObservabilityClient},
    publishing::{SummaryRequest, publisher_client::PublisherClient},
};
use serde_json::Value;
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    container::{Container, FILE, shell},
    daemon::{Agent, reads, until},
};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where containers are that no orchestrator runs.
const NAMESPACE: &str = "container_namespace";

/// The count that the last line about the file tells.
fn last_count(events: &Path, container: &Container) -> Option<u64> {
    let text = fs::read_to_string(events).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let mut ours = lines.filter(|line: &Value| {
        line["container_id"] == container.id
            && line["target"] == FILE
            && line["source"] == shell().to_str().unwrap()
    });
    ours.next_back()?["count"].as_u64()
}

#[test]
fn all_who_are_told_are_told_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let events = folder.path().join("events.jsonl");
    let options = [
        "--observability-listen",
        &address,
        "--events",
        &events.display().to_string(),
    ];
    let agent = Agent::start(folder.path(), &options);
    let runtime = Runtime::new().unwrap();
    let url = format!("http://{address}");
    let mut differences = runtime.block_on(async {
        let mut client = PublisherClient::connect(url.clone()).await.unwrap();
        let request = SummaryRequest {
            namespace: NAMESPACE.into(),
            operation: "File".into(),
            ..SummaryRequest::default()
        };
        client.get_summary(request).await.unwrap().into_inner()
    });
    let container = Container::new();
    let (rounds, each) = (2, 250);
    let mut told = 0;
    for round in 1..=rounds {
        container.read(each);
        // What was told adds up to what was done so far, neither less nor more.
        while told < round * each {
            let next = runtime.block_on(async { timeout(PATIENCE, differences.message()).await });
            let next = next.unwrap().unwrap().unwrap();
            if next.pod_name == container.id && next.destination == FILE {
                assert_eq!(Path::new(&next.source), shell());
                assert_eq!(next.action, "Allow");
                told += u64::try_from(next.count).unwrap();
            }
        }
        assert_eq!(told, round * each);
    }
    let done = rounds * each;
    assert_eq!(reads(&agent.subject(&container)), done);
    let answer = runtime.block_on(async {
        let mut client = ObservabilityClient::connect(url).await.unwrap();
        let request = Request {
            name_space: NAMESPACE.into(),
            pod_name: container.id.clone(),
            ..Request::default()
        };
        client.summary(request).await.unwrap().into_inner()
    });
    let rows = answer.file_data.iter();
    let counts: Vec<_> = rows
        .filter(|row| row.destination == FILE && Path::new(&row.source) == shell())
        .map(|row| row.count.clone())
        .collect();
    assert_eq!(counts, [done.to_string()]);
    until("the lines tell another count", || {
        (last_count(&events, &container) == Some(done)).then_some(())
    });
    agent.stop();
    assert_eq!(last_count(&events, &container), Some(done));
}
