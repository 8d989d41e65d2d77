//! How the watch gets through what API servers and networks do.

use crate::{
    fake_api::{FakeApi, GoneAs, Mood},
    naming::pod,
    reader::{Reader, START},
};
use ethogram_kubernetes::{IDLE_MAX_S, Kind, REQUEST_TIMEOUT_S, State};
use ethogram_model::Timestamp;
use serde_json::json;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const EARLY: &str = "2026-01-01T12:00:00Z";

fn after(time: Duration) -> Timestamp {
    Timestamp(START.0 + i64::try_from(time.as_nanos()).unwrap())
}

fn lists(requests: &[String]) -> usize {
    requests.iter().filter(|r| !r.contains("watch=")).count()
}

#[tokio::test(start_paused = true)]
async fn everything_is_listed_once_in_pages_and_then_watched() {
    let fake = FakeApi::recorded();
    fake.set_page_max(3);
    let mut reader = Reader::start(&fake).await;
    let requests = fake.requests();
    let of = |prefix: &str| requests.iter().filter(|r| r.starts_with(prefix)).count();
    assert_eq!(
        of("/api/v1/pods?"),
        3 + 1,
        "nine pods by three, and a watch: {requests:#?}"
    );
    assert_eq!(of("metadata /apis/apps/v1/replicasets?"), 1 + 1);
    assert_eq!(of("metadata /apis/batch/v1/jobs?"), 1 + 1);
    assert_eq!(of("metadata /api/v1/namespaces?"), 1 + 1);
    assert_eq!(fake.open_watches(), 7);
    assert_eq!(
        reader.name("10.244.2.2"),
        "pod/coredns-7d764666f9-b2c4d",
        "the last page"
    );
    // Whatever happens, nothing is listed again.
    for n in 0..100 {
        fake.put(pod("p", "p", &format!("10.9.0.{n}"), EARLY));
    }
    reader.settle().await;
    assert_eq!(reader.name("10.9.0.99"), "pod/p");
    assert_eq!(reader.name("10.9.0.98"), "");
    assert_eq!(fake.requests(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_taken_up_where_it_ended() {
    for breaks in [FakeApi::end_watches, FakeApi::break_watches] {
        let fake = FakeApi::recorded();
        let mut reader = Reader::start(&fake).await;
        fake.put(pod("a", "a", "10.9.0.1", EARLY));
        reader.settle().await;
        fake.requests();
        breaks(&fake);
        fake.put(pod("b", "b", "10.9.0.2", EARLY));
        fake.delete(Kind::Pod, "a");
        reader.run(MINUTE / 2).await;
        assert_eq!(reader.name("10.9.0.1"), "");
        assert_eq!(reader.name("10.9.0.2"), "pod/b");
        let requests = fake.requests();
        assert_eq!(lists(&requests), 0, "{requests:#?}");
        assert!(reader.is_current());
        assert!(
            reader
                .silences()
                .iter()
                .all(|s| s.until.is_some() && !s.relisted)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn bookmarks_keep_a_quiet_watch_fresh() {
    let fake = FakeApi::recorded();
    let mut reader = Reader::start(&fake).await;
    // Others were busy, and the API server forgets; it told the quiet how far it was.
    fake.put(pod("a", "a", "10.9.0.1", EARLY));
    fake.compact(GoneAs::Event);
    fake.bookmark();
    reader.settle().await;
    fake.requests();
    fake.end_watches();
    reader.run(MINUTE / 2).await;
    let requests = fake.requests();
    assert_eq!(lists(&requests), 0, "{requests:#?}");
    assert_eq!(requests.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn when_changes_are_gone_all_is_listed_and_what_is_missing_ended() {
    for gone_as in [GoneAs::Event, GoneAs::Status] {
        let fake = FakeApi::recorded();
        let mut reader = Reader::start(&fake).await;
        fake.end_watches();
        fake.delete(Kind::Pod, "toolbox");
        fake.delete(Kind::Service, "dvwa-mysql-service");
        fake.delete(Kind::Node, "n2");
        fake.put(pod("b", "b", "10.9.0.2", EARLY));
        fake.compact(gone_as);
        fake.requests();
        reader.run(MINUTE).await;
        assert_eq!(reader.name("10.244.1.10"), "");
        assert_eq!(reader.name("10.96.44.3"), "");
        assert_eq!(reader.name("10.9.0.2"), "pod/b");
        // What was hidden by the node's claim comes forth.
        assert_eq!(reader.name("192.168.1.12"), "svc/dvwa-web");
        assert_eq!(lists(&fake.requests()), 7, "{gone_as:?}");
        let silences = reader.silences();
        assert_eq!(silences.len(), 7);
        assert!(
            silences.iter().all(|s| s.relisted && s.until.is_some()),
            "{silences:#?}"
        );
        reader.check_no_overlap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_grows_too_old_between_its_pages_is_begun_anew() {
    let fake = FakeApi::recorded();
    fake.set_page_max(2);
    fake.set_mood(Mood::Breaking);
    let mut reader = Reader::start(&fake).await;
    assert!(!reader.is_current());
    fake.set_mood(Mood::Well);
    // Run just far enough for some first pages.
    reader.run_for(Duration::from_millis(600)).await;
    fake.compact(GoneAs::Status);
    reader.run(MINUTE).await;
    assert!(reader.is_current());
    assert_eq!(reader.name("10.244.2.2"), "pod/coredns-7d764666f9-b2c4d");
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_the_api_server_changes_no_name_and_is_stated() {
    let fake = FakeApi::recorded();
    let mut reader = Reader::start(&fake).await;
    let web = "10.244.1.5";
    reader.run_for(MINUTE).await;
    fake.bookmark();
    reader.settle().await;
    let heard = reader.now();
    fake.set_mood(Mood::Unreachable);
    fake.requests();
    reader.run_for(MINUTE * 60).await;
    // Meanwhile one pod went and another got its address, eleven minutes in.
    fake.change(Kind::Pod, "toolbox", |pod| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:11:00Z");
    });
    fake.delete(Kind::Pod, "toolbox");
    fake.put(pod("heir", "heir", "10.244.1.10", "2026-01-02T00:12:00Z"));
    assert_eq!(reader.name(web), "pod/dvwa-web-6b8d9c4f75-q8x2p", "still");
    let away = reader.names.coverage().next().unwrap();
    let State::Away { why } = &away.state else {
        panic!("{away:?}");
    };
    assert!(why.contains("refused"), "{why}");
    let tries = fake.requests().len() / 7;
    assert!(
        (120..300).contains(&tries),
        "{tries} tries of each kind within an hour"
    );
    fake.set_mood(Mood::Well);
    reader.run(MINUTE).await;
    assert!(reader.is_current());
    assert_eq!(lists(&fake.requests()), 0, "taken up where it ended");
    for silence in reader.silences() {
        let s = |t: Timestamp| t.seconds() - START.seconds();
        let until = silence.until.unwrap();
        assert!(
            (s(heard) - 1..=s(heard)).contains(&s(silence.from)),
            "{silence:?}"
        );
        assert!((3660..3700).contains(&s(until)), "{silence:?}");
        assert!(!silence.relisted);
    }
    assert_eq!(reader.silences().len(), 7);
    // All is well again, so the next loss is made good at once.
    fake.bookmark();
    reader.settle().await;
    fake.break_watches();
    reader.run_for(Duration::from_secs(1)).await;
    assert!(reader.is_current());
    // Told late, but with the times at which it happened.
    assert_eq!(
        reader.name_at("10.244.1.10", after(MINUTE * 10)),
        "pod/toolbox"
    );
    assert_eq!(
        reader.name_at("10.244.1.10", after(MINUTE * 13)),
        "pod/heir"
    );
    reader.check_no_overlap();
}

#[tokio::test(start_paused = true)]
async fn an_address_that_changed_hands_while_nobody_watched() {
    let fake = FakeApi::recorded();
    let mut reader = Reader::start(&fake).await;
    fake.set_mood(Mood::Unreachable);
    reader.run_for(MINUTE * 60).await;
    fake.delete(Kind::Pod, "toolbox");
    fake.put(pod("heir", "heir", "10.244.1.10", "2026-01-02T00:12:00Z"));
    fake.compact(GoneAs::Event);
    fake.set_mood(Mood::Well);
    reader.run(MINUTE).await;
    assert_eq!(
        reader.name_at("10.244.1.10", after(MINUTE * 10)),
        "pod/toolbox"
    );
    assert_eq!(
        reader.name_at("10.244.1.10", after(MINUTE * 13)),
        "pod/heir"
    );
    reader.check_no_overlap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_tried_again() {
    let fake = FakeApi::recorded();
    fake.set_mood(Mood::Hanging);
    let mut reader = Reader::start(&fake).await;
    reader
        .run_for(Duration::from_secs(REQUEST_TIMEOUT_S + 1))
        .await;
    let coverage = reader.names.coverage().next().unwrap();
    assert!(
        matches!(&coverage.state, State::Away { why } if why.contains("within 60 s")),
        "{coverage:?}"
    );
    fake.set_mood(Mood::Well);
    reader.run_for(MINUTE * 2).await;
    assert!(reader.is_current());
    assert_eq!(reader.name("10.244.1.5"), "pod/dvwa-web-6b8d9c4f75-q8x2p");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_died_without_a_word_is_found_out() {
    let fake = FakeApi::recorded();
    let mut reader = Reader::start(&fake).await;
    fake.requests();
    // No end and no word, not even a bookmark.
    reader
        .run_for(Duration::from_secs(IDLE_MAX_S) + MINUTE / 2)
        .await;
    let requests = fake.requests();
    assert!(
        requests.len() >= 7 && lists(&requests) == 0,
        "{requests:#?}"
    );
    let silences = reader.silences();
    assert!(!silences.is_empty() && silences.iter().all(|s| s.from <= after(MINUTE)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_is_asked_again() {
    let fake = FakeApi::recorded();
    fake.set_mood(Mood::Breaking);
    let mut reader = Reader::start(&fake).await;
    assert!(reader.kept.is_empty());
    fake.set_mood(Mood::Well);
    reader.run(MINUTE).await;
    assert!(reader.is_current());
    // Half a line, and then nothing: it is sent again, and not taken for garbage.
    fake.send_raw(Kind::Pod, "{\"type\":\"ADDED\",\"obj");
    fake.break_watches();
    fake.put(pod("a", "a", "10.9.0.1", EARLY));
    reader.run(MINUTE).await;
    assert_eq!(reader.name("10.9.0.1"), "pod/a");
    assert_eq!(reader.malformed(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_watched_is_said_and_the_rest_works() {
    let fake = FakeApi::recorded();
    fake.set_mood(Mood::Refusing(403));
    let mut reader = Reader::start(&fake).await;
    for one in reader.names.coverage() {
        let role = format!(
            "its role must allow to list and watch {}",
            one.kind.plural()
        );
        assert!(
            matches!(&one.state, State::Away { why } if why.contains("403") && why.contains(&role)),
            "{one:?}"
        );
    }
    fake.set_mood(Mood::Well);
    reader.run(MINUTE).await;
    assert!(reader.is_current());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_at_once_is_not_overrun() {
    let fake = FakeApi::recorded();
    fake.set_mood(Mood::Ending);
    let mut reader = Reader::start(&fake).await;
    reader.run_for(MINUTE).await;
    let requests = fake.requests();
    assert!((28..140).contains(&requests.len()), "{}", requests.len());
    assert_eq!(lists(&requests), 7);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_a_pause_gets_it() {
    let fake = FakeApi::recorded();
    fake.set_mood(Mood::Refusing(429));
    fake.set_retry_after_s(120);
    let mut reader = Reader::start(&fake).await;
    fake.requests();
    reader.run_for(Duration::from_secs(119)).await;
    assert_eq!(fake.requests().len(), 0);
    reader.run_for(Duration::from_secs(2)).await;
    assert_eq!(fake.requests().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn odd_objects_are_skipped_counted_and_said() {
    let fake = FakeApi::recorded();
    let odd = |uid: &str| {
        json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": uid, "namespace": "dvwa", "uid": uid, "labels": ["not", "a map"]},
        })
    };
    fake.put(odd("odd-in-list"));
    let mut reader = Reader::start(&fake).await;
    assert_eq!(reader.malformed(), 1);
    assert_eq!(
        reader.name("10.244.1.5"),
        "pod/dvwa-web-6b8d9c4f75-q8x2p",
        "others count"
    );
    fake.put(odd("odd-in-watch"));
    fake.put(pod("a", "a", "10.9.0.1", EARLY));
    fake.send_raw(Kind::Pod, "what?\n");
    fake.send_raw(Kind::Pod, "{\"type\":\"SURPRISE\",\"object\":{}}\n");
    fake.send_raw(Kind::Pod, "{\"type\":\"BOOKMARK\",\"object\":{}}\n");
    reader.settle().await;
    assert_eq!(reader.malformed(), 4);
    assert_eq!(reader.name("10.9.0.1"), "pod/a");
    let pods = reader.names.coverage().next().unwrap();
    let why = pods.malformed_why.as_deref().unwrap();
    assert!(why.contains("SURPRISE"), "{why}");
    // A known object that turns odd stays what it was until it ends, also over a new list.
    fake.change(Kind::Pod, "a", |pod| pod["metadata"]["labels"] = json!(7));
    reader.settle().await;
    assert_eq!(reader.name("10.9.0.1"), "pod/a");
    fake.end_watches();
    fake.compact(GoneAs::Event);
    reader.run(MINUTE).await;
    assert_eq!(reader.name("10.9.0.1"), "pod/a");
    fake.delete(Kind::Pod, "a");
    reader.settle().await;
    assert_eq!(
        reader.name("10.9.0.1"),
        "",
        "its end needs no more than its uid"
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_not_gone_is_a_pause_and_not_a_new_list() {
    let fake = FakeApi::recorded();
    let mut reader = Reader::start(&fake).await;
    fake.requests();
    let message = format!("etcd is unwell\u{1b}[31m{}", "!".repeat(5000));
    let error = json!({"type": "ERROR", "object": {"code": 500, "message": message}});
    fake.send_raw(Kind::Pod, &format!("{error}\n"));
    reader.run(MINUTE / 2).await;
    let requests = fake.requests();
    assert_eq!((lists(&requests), requests.len()), (0, 1), "{requests:#?}");
    let silences = reader.silences();
    let why = &silences[0].why;
    assert!(
        why.contains("500 etcd is unwell\\x1b[31m!") && why.ends_with("!…"),
        "{why}"
    );
    assert!(why.len() < 1100, "no more than can be read");
    assert!(reader.is_current());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_loses_nothing() {
    let fake = FakeApi::recorded();
    for n in 0..5_000 {
        let ip = format!("10.8.{}.{}", n / 250, n % 250 + 1);
        fake.put(pod(&format!("p{n}"), &format!("p{n}"), &ip, EARLY));
    }
    let client = crate::reader::client(&fake);
    let watch = ethogram_kubernetes::Watch::start(&client, &ethogram_kubernetes::Scope::Cluster);
    tokio::time::sleep(MINUTE).await;
    let pages = fake.requests();
    let pods = pages
        .iter()
        .filter(|r| r.starts_with("/api/v1/pods?"))
        .count();
    assert!(
        pods <= 3,
        "{pods} pages were asked for while nobody took the first"
    );
    drop(watch);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(
        fake.requests().len() + fake.open_watches(),
        0,
        "all tasks ended"
    );
}
