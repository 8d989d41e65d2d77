//! Docker, and Podman's service, which speaks Docker's API.

use super::{ANSWER_BYTES_MAX, Failure, Line, Report, Told, Wake, addresses, answer};
use crate::facts::{Addresses, Facts, Source, container_owner, printable, shown_labels};
use bytes::Bytes;
use ethogram_model::{Runtime, Timestamp};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Request, Response, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use std::{collections::BTreeMap, convert::Infallible, path::Path};
use tokio::net::UnixStream;

/// The longest event that is read.
const EVENT_BYTES_MAX: usize = 1 << 20;

const VERSION: &str = "/version";
const CONTAINERS: &str = "/containers/json?all=1";
/// Events of containers only: `filters={"type":["container"]}`.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D";

pub(super) async fn serve(line: &mut Line) -> Result<Infallible, Failure> {
    let path = line.endpoint.path.clone();
    let version: Version = get_json(&path, VERSION).await?;
    let runtime = version.runtime();
    // Events first, so that what happens while the list is on its way is not missed.
    let mut events = Events {
        body: get(&path, EVENTS).await?.into_body(),
        unread: Vec::new(),
    };
    loop {
        line.asking();
        let listed: Vec<Listed> = get_json(&path, CONTAINERS).await?;
        line.tell_all(Told {
            version: printable(&format!("{} {}", runtime.as_str(), version.version)),
            announces: true,
            facts: listed.iter().map(|listed| listed.facts(runtime)).collect(),
        })
        .await?;
        // A container that is removed when it ends may be in no list: its events are all
        // that ever names it.
        while let Wake::Event(event) = line.wake(events.next()).await? {
            if let Some(facts) = event?.facts(runtime) {
                line.tell(Report::One(facts)).await?;
                break;
            }
        }
    }
}

async fn get(socket: &Path, question: &'static str) -> Result<Response<Incoming>, Failure> {
    answer(question, async {
        let broken = |error: hyper::Error| Failure::Nonsense {
            question,
            why: error.to_string(),
        };
        let stream = UnixStream::connect(socket)
            .await
            .map_err(Failure::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends when the body is read or dropped; its error is the body's error.
        tokio::spawn(connection);
        let request = Request::get(question)
            .header(header::HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .expect("the paths of this module are valid");
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            Ok(response)
        } else {
            let why = response.status().to_string();
            Err(Failure::Refused { question, why })
        }
    })
    .await
}

async fn get_json<T: DeserializeOwned>(
    socket: &Path,
    question: &'static str,
) -> Result<T, Failure> {
    let response = get(socket, question).await?;
    let body = answer(question, async {
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        body.collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Failure::TooLarge { question }
            } else {
                let why = error.to_string();
                Failure::Nonsense { question, why }
            }
        })
    })
    .await?;
    parse(question, &body.to_bytes())
}

fn parse<T: DeserializeOwned>(question: &'static str, text: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(text).map_err(|error| Failure::Nonsense {
        question,
        why: error.to_string(),
    })
}

/// The stream of events: one JSON text per line.
struct Events {
    body: Incoming,
    unread: Vec<u8>,
}

impl Events {
    /// Waits for the next event. May be dropped and called again without losing one.
    async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Some(end) = self.unread.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return parse(EVENTS, &line);
            }
            if self.unread.len() > EVENT_BYTES_MAX {
                return Err(Failure::TooLarge { question: EVENTS });
            }
            let frame = self.body.frame().await.ok_or(Failure::EventsEnded)?;
            let frame = frame.map_err(|_| Failure::EventsEnded)?;
            if let Some(data) = frame.data_ref() {
                self.unread.extend_from_slice(data);
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
    #[serde(default)]
    components: Option<Vec<Component>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: String,
}

impl Version {
    fn runtime(&self) -> Runtime {
        let components = self.components.iter().flatten();
        if components.into_iter().any(|c| c.name.starts_with("Podman")) {
            Runtime::Podman
        } else {
            Runtime::Docker
        }
    }
}

type Texts = BTreeMap<String, String>;

/// A container in the list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    state: String,
    /// Seconds since 1970.
    #[serde(default)]
    created: i64,
    labels: Option<Texts>,
    network_settings: Option<NetworkSettings>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    networks: Option<BTreeMap<String, Network>>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(rename = "IPAddress", default)]
    ipv4: String,
    #[serde(rename = "GlobalIPv6Address", default)]
    ipv6: String,
}

impl Listed {
    fn facts(&self, runtime: Runtime) -> Facts {
        // A linked container has its links' names too; they have one more slash.
        let names = self
            .names
            .iter()
            .flatten()
            .map(|name| name.trim_start_matches('/'));
        let name = names
            .min_by_key(|name| name.matches('/').count())
            .unwrap_or_default();
        let addresses = if self.state == "running" || self.state == "paused" {
            let networks = self
                .network_settings
                .iter()
                .filter_map(|s| s.networks.as_ref());
            let texts = networks
                .flat_map(|n| n.values())
                .flat_map(|n| [&n.ipv4, &n.ipv6]);
            addresses(texts, Timestamp(self.created.saturating_mul(1_000_000_000)))
        } else {
            Addresses::Released
        };
        let labels = self.labels.clone().unwrap_or_default();
        Facts {
            addresses,
            ..facts(runtime, &self.id, name, &self.image, &labels)
        }
    }
}

fn facts(runtime: Runtime, id: &str, name: &str, image: &str, labels: &Texts) -> Facts {
    Facts {
        source: Source::Docker,
        id: id.to_owned(),
        runtime,
        name: printable(name),
        image: printable(image),
        workload: container_owner(name, |key| labels.get(key)),
        labels: shown_labels(labels),
        ..Facts::default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    #[serde(default)]
    action: String,
    #[serde(default)]
    actor: Actor,
}

#[derive(Default, Deserialize)]
struct Actor {
    #[serde(rename = "ID", default)]
    id: String,
    /// The container's labels, and some more.
    #[serde(rename = "Attributes", default)]
    attributes: Texts,
}

/// Attributes of events that are no labels.
const NO_LABELS: &[&str] = &[
    "name",
    "image",
    "exitCode",
    "execDuration",
    "signal",
    "oldName",
    "containerExitCode",
    "podId",
];

impl Event {
    /// What it tells of a container; `None` for events that say nothing new, such as the
    /// start of a health check.
    fn facts(mut self, runtime: Runtime) -> Option<Facts> {
        let addresses = match self.action.as_str() {
            "create" | "start" | "rename" => Addresses::Untold,
            "die" | "died" => Addresses::Released,
            _ => return None,
        };
        let name = self.actor.attributes.remove("name")?;
        let image = self.actor.attributes.remove("image").unwrap_or_default();
        self.actor
            .attributes
            .retain(|key, _| !NO_LABELS.contains(&key.as_str()));
        let told = facts(
            runtime,
            &self.actor.id,
            &name,
            &image,
            &self.actor.attributes,
        );
        Some(Facts { addresses, ..told })
    }
}

/// What bytes say, taken for each answer that is parsed.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8]) -> Vec<Facts> {
    let version = parse::<Version>(VERSION, bytes);
    let runtime = version.map_or(Runtime::Docker, |version| version.runtime());
    let listed = parse::<Vec<Listed>>(CONTAINERS, bytes).unwrap_or_default();
    let event = parse::<Event>(EVENTS, bytes).ok();
    let listed = listed.iter().map(|listed| listed.facts(runtime));
    listed
        .chain(event.and_then(|event| event.facts(runtime)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Facts {
        parse::<Listed>(CONTAINERS, text.as_bytes())
            .unwrap()
            .facts(Runtime::Docker)
    }

    #[test]
    fn a_listed_container_is_understood() {
        let told = listed(
            r#"{"Id":"abc","Names":["/other/db","/shop-db-1"],"Image":"postgres:16","State":"running","Created":100,
              "Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"db","x":"a\nb"},
              "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2","GlobalIPv6Address":""},
              "v6":{"IPAddress":"","GlobalIPv6Address":"fd00::2"}}},"Unknown":[1]}"#,
        );
        assert_eq!(told.name, "shop-db-1");
        assert_eq!(told.workload.to_string(), "compose/shop/db");
        assert_eq!(told.labels["x"], r"a\x0ab");
        let ips = vec!["172.17.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(
            told.addresses,
            Addresses::Held {
                ips,
                since: Timestamp(100_000_000_000)
            }
        );
    }

    #[test]
    fn what_a_list_leaves_out_is_empty() {
        let told = listed(
            r#"{"Id":"abc","Names":null,"State":"exited","Labels":null,"NetworkSettings":{"Networks":null}}"#,
        );
        assert_eq!((told.name.as_str(), told.image.as_str()), ("", ""));
        assert_eq!(told.addresses, Addresses::Released);
    }

    #[test]
    fn events_name_a_container_that_is_in_no_list_any_more() {
        let event = |text: &str| {
            parse::<Event>(EVENTS, text.as_bytes())
                .unwrap()
                .facts(Runtime::Docker)
        };
        let told = event(
            r#"{"Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":
              {"name":"quick","image":"busybox:1","exitCode":"0","execDuration":"1","app":"x"}}}"#,
        );
        let told = told.unwrap();
        assert_eq!(
            (told.name.as_str(), told.image.as_str()),
            ("quick", "busybox:1")
        );
        assert_eq!(told.labels.keys().collect::<Vec<_>>(), ["app"]);
        assert_eq!(told.addresses, Addresses::Released);
        assert_eq!(
            event(r#"{"Action":"exec_start: sh","Actor":{"ID":"abc","Attributes":{"name":"x"}}}"#),
            None
        );
        assert_eq!(event("{}"), None);
    }

    #[test]
    fn podman_says_that_it_is_podman() {
        let runtime = |text: &str| {
            parse::<Version>(VERSION, text.as_bytes())
                .unwrap()
                .runtime()
        };
        assert_eq!(
            runtime(r#"{"Version":"4.3.1","Components":[{"Name":"Podman Engine"}]}"#),
            Runtime::Podman
        );
        assert_eq!(
            runtime(r#"{"Version":"20.10","Components":[{"Name":"Engine"}]}"#),
            Runtime::Docker
        );
        assert_eq!(
            runtime(r#"{"Version":"1.13","Components":null}"#),
            Runtime::Docker
        );
    }
}
