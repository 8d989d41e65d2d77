//! containerd and CRI-O, over the Kubernetes Container Runtime Interface.

use super::{ANSWER_BYTES_MAX, Failure, Line, Told, addresses, answer};
use crate::facts::{Addresses, Facts, SANDBOX_NAME, Source, pod_owner, printable, shown_labels};
use ethogram_model::{Runtime, Timestamp};
use hyper_util::rt::TokioIo;
use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    path::PathBuf,
    pin::Pin,
};
use tokio::net::UnixStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_imports)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/client/runtime.v1.rs"));
}
use proto::runtime_service_client::RuntimeServiceClient;

type Client = RuntimeServiceClient<Channel>;
type Stream = tonic::Streaming<proto::ContainerEventResponse>;

pub(super) async fn serve(line: &mut Line) -> Result<Infallible, Failure> {
    let mut client = connect(line.endpoint.path.clone()).await?;
    let version = answer("Version", async {
        let asked = client.version(proto::VersionRequest {}).await;
        asked
            .map(tonic::Response::into_inner)
            .map_err(|status| match status.code() {
                Code::Unimplemented => Failure::NoCri(status.message().to_owned()),
                _ => failure("Version", &status),
            })
    })
    .await?;
    let mut details = Details::default();
    let mut events = Events::subscribe(client.clone());
    loop {
        line.asking();
        let facts = ask(&mut client, &mut details, &version.runtime_name).await?;
        line.tell_all(Told {
            version: printable(&format!(
                "{} {}",
                version.runtime_name, version.runtime_version
            )),
            announces: matches!(events, Events::Open(_)),
            facts,
        })
        .await?;
        // An event says only that something is new: the answer to a question is the truth.
        line.wake(events.next()).await?;
    }
}

async fn connect(path: PathBuf) -> Result<Client, Failure> {
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    answer("connect", async {
        let connected = endpoint.connect_with_connector(connector).await;
        let channel = connected.map_err(|error| Failure::Connect(io_cause(&error)))?;
        Ok(RuntimeServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    })
    .await
}

/// What the operating system said, which the transport's own message hides.
fn io_cause(error: &dyn std::error::Error) -> std::io::Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    std::io::Error::other(text)
}

fn failure(question: &'static str, status: &Status) -> Failure {
    match status.code() {
        Code::OutOfRange => Failure::TooLarge { question },
        Code::Internal | Code::DataLoss => Failure::Nonsense {
            question,
            why: status.message().to_owned(),
        },
        code => Failure::Refused {
            question,
            why: format!("{code:?}: {}", status.message()),
        },
    }
}

/// The runtime's announcements of containers that come and go.
enum Events {
    /// Asked for. Some runtimes answer only with the first event.
    Opening(Pin<Box<dyn Future<Output = Result<Stream, Status>> + Send>>),
    Open(Box<Stream>),
    /// It has none (containerd before 1.7), or stopped them.
    None,
}

impl Events {
    fn subscribe(mut client: Client) -> Self {
        Self::Opening(Box::pin(async move {
            let asked = client
                .get_container_events(proto::GetEventsRequest {})
                .await?;
            Ok(asked.into_inner())
        }))
    }

    /// Waits for the next event, or for the end of all events. May be dropped and called
    /// again without losing one.
    async fn next(&mut self) {
        let status = match self {
            Self::Opening(opening) => match opening.await {
                Ok(stream) => {
                    *self = Self::Open(Box::new(stream));
                    return;
                }
                Err(status) => Some(status),
            },
            Self::Open(stream) => match stream.message().await {
                Ok(Some(_)) => return,
                Ok(None) => None,
                Err(status) => Some(status),
            },
            Self::None => std::future::pending().await,
        };
        tracing::debug!(
            ?status,
            "runtime announces no containers, it is asked instead"
        );
        *self = Self::None;
    }
}

/// What never changes and takes a question for each container, so it is asked once.
#[derive(Default)]
struct Details {
    /// Addresses of a ready sandbox.
    addresses: HashMap<String, Vec<String>>,
    /// Names of images that the list tells only the digest of.
    images: HashMap<String, String>,
}

async fn ask(
    client: &mut Client,
    details: &mut Details,
    runtime: &str,
) -> Result<Vec<Facts>, Failure> {
    // Containers first: the sandbox of each is then in the second answer.
    let containers = answer("ListContainers", async {
        let asked = client
            .list_containers(proto::ListContainersRequest {})
            .await;
        let asked = asked.map_err(|status| failure("ListContainers", &status))?;
        Ok(asked.into_inner().containers)
    })
    .await?;
    let sandboxes = answer("ListPodSandbox", async {
        let asked = client
            .list_pod_sandbox(proto::ListPodSandboxRequest {})
            .await;
        let asked = asked.map_err(|status| failure("ListPodSandbox", &status))?;
        Ok(asked.into_inner().items)
    })
    .await?;
    details.keep(&containers, &sandboxes);
    let runtime = match runtime {
        "containerd" => Runtime::Containerd,
        "cri-o" => Runtime::CriO,
        "docker" => Runtime::Docker,
        _ => Runtime::Unknown,
    };
    let mut facts = Vec::with_capacity(containers.len() + sandboxes.len());
    let mut pods = HashMap::with_capacity(sandboxes.len());
    for sandbox in &sandboxes {
        let addresses = details.addresses(client, sandbox).await?;
        let pod = Facts {
            addresses,
            ..sandbox_facts(sandbox, runtime)
        };
        pods.insert(sandbox.id.as_str(), pod.clone());
        facts.push(pod);
    }
    for container in &containers {
        let Some(pod) = pods.get(container.pod_sandbox_id.as_str()) else {
            // Its pod was removed between the two answers, and so was it.
            continue;
        };
        facts.push(Facts {
            id: container.id.clone(),
            name: container
                .metadata
                .as_ref()
                .map_or_else(String::new, |m| printable(&m.name)),
            image: printable(&details.image(client, container).await?),
            addresses: Addresses::Untold,
            ..pod.clone()
        });
    }
    Ok(facts)
}

/// What is known of a pod's sandbox, and shared by the pod's containers.
fn sandbox_facts(sandbox: &proto::PodSandbox, runtime: Runtime) -> Facts {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    Facts {
        source: Source::Cri,
        id: sandbox.id.clone(),
        runtime,
        name: SANDBOX_NAME.to_owned(),
        image: String::new(),
        namespace: printable(&metadata.namespace),
        pod: printable(&metadata.name),
        pod_uid: printable(&metadata.uid),
        workload: pod_owner(&metadata.name, |key| sandbox.labels.get(key)),
        labels: shown_labels(&sandbox.labels),
        addresses: Addresses::Untold,
    }
}

impl Details {
    /// Forgets what is of containers that are no more.
    fn keep(&mut self, containers: &[proto::Container], sandboxes: &[proto::PodSandbox]) {
        let containers: HashSet<_> = containers.iter().map(|c| c.id.as_str()).collect();
        let sandboxes: HashSet<_> = sandboxes.iter().map(|s| s.id.as_str()).collect();
        self.images.retain(|id, _| containers.contains(id.as_str()));
        self.addresses
            .retain(|id, _| sandboxes.contains(id.as_str()));
    }

    /// The addresses of a pod: none if it uses the node's.
    async fn addresses(
        &mut self,
        client: &mut Client,
        sandbox: &proto::PodSandbox,
    ) -> Result<Addresses, Failure> {
        if sandbox.state() != proto::PodSandboxState::SandboxReady {
            return Ok(Addresses::Released);
        }
        if !self.addresses.contains_key(&sandbox.id) {
            let status = sandbox_status(client, &sandbox.id).await?;
            let Some(status) = status else {
                return Ok(Addresses::Untold);
            };
            let Some(ips) = ips_of(status) else {
                return Ok(Addresses::Untold);
            };
            self.addresses.insert(sandbox.id.clone(), ips);
        }
        Ok(addresses(
            &self.addresses[&sandbox.id],
            Timestamp(sandbox.created_at),
        ))
    }

    /// The image's name. A kubelet asks for images by digest, which then is all that the
    /// list tells.
    async fn image(
        &mut self,
        client: &mut Client,
        container: &proto::Container,
    ) -> Result<String, Failure> {
        let listed = container.image.clone().unwrap_or_default();
        let name = image_name(&listed);
        if !is_digest(name) {
            return Ok(name.to_owned());
        }
        if let Some(known) = self.images.get(&container.id) {
            return Ok(known.clone());
        }
        let status = answer("ContainerStatus", async {
            let container_id = container.id.clone();
            let asked = client.container_status(proto::ContainerStatusRequest { container_id });
            found("ContainerStatus", asked.await)
        })
        .await?;
        let told = status
            .and_then(|s| s.status)
            .and_then(|s| s.image)
            .unwrap_or_default();
        let told = image_name(&told);
        let best = if told.is_empty() { name } else { told }.to_owned();
        self.images.insert(container.id.clone(), best.clone());
        Ok(best)
    }
}

async fn sandbox_status(
    client: &mut Client,
    id: &str,
) -> Result<Option<proto::PodSandboxStatus>, Failure> {
    answer("PodSandboxStatus", async {
        let pod_sandbox_id = id.to_owned();
        let asked = client.pod_sandbox_status(proto::PodSandboxStatusRequest { pod_sandbox_id });
        Ok(found("PodSandboxStatus", asked.await)?.and_then(|answer| answer.status))
    })
    .await
}

/// An answer about one object, which may have gone since it was listed.
fn found<T>(
    question: &'static str,
    asked: Result<tonic::Response<T>, Status>,
) -> Result<Option<T>, Failure> {
    match asked {
        Ok(response) => Ok(Some(response.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(failure(question, &status)),
    }
}

/// A pod's own addresses: none on the node's network, `None` if they are not known yet.
fn ips_of(status: proto::PodSandboxStatus) -> Option<Vec<String>> {
    let namespaces = status.linux.and_then(|linux| linux.namespaces);
    let network = namespaces
        .and_then(|n| n.options)
        .map(|options| options.network());
    if network == Some(proto::NamespaceMode::Node) {
        return Some(Vec::new());
    }
    let network = status.network.unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|more| more.ip);
    let ips: Vec<_> = std::iter::once(network.ip)
        .chain(more)
        .filter(|ip| !ip.is_empty())
        .collect();
    (!ips.is_empty()).then_some(ips)
}

fn image_name(image: &proto::ImageSpec) -> &str {
    if image.user_specified_image.is_empty() {
        &image.image
    } else {
        &image.user_specified_image
    }
}

/// Whether an image is told as `sha256:DIGEST` or as the digits alone.
fn is_digest(image: &str) -> bool {
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    image.is_empty() || (digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What bytes say, taken for each answer that is decoded.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8]) -> Vec<Facts> {
    use prost::Message;
    if let Ok(answer) = proto::ListContainersResponse::decode(bytes) {
        for container in answer.containers {
            let _ = is_digest(image_name(&container.image.unwrap_or_default()));
        }
    }
    if let Ok(answer) = proto::PodSandboxStatusResponse::decode(bytes) {
        let ips = answer.status.and_then(ips_of).unwrap_or_default();
        let _ = addresses(&ips, Timestamp(0));
    }
    let pods = proto::ListPodSandboxResponse::decode(bytes).unwrap_or_default();
    let facts = |sandbox| sandbox_facts(sandbox, Runtime::Containerd);
    pods.items.iter().map(facts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_no_names() {
        let digits = "0123456789abcdef".repeat(4);
        for image in [String::new(), digits.clone(), format!("sha256:{digits}")] {
            assert!(is_digest(&image), "{image}");
        }
        for image in [
            "localhost/web:1".to_owned(),
            "busybox".to_owned(),
            format!("web@sha256:{digits}"),
        ] {
            assert!(!is_digest(&image), "{image}");
        }
    }

    #[test]
    fn pods_on_the_nodes_network_have_no_address_of_their_own() {
        let status = |mode: proto::NamespaceMode| proto::PodSandboxStatus {
            network: Some(proto::PodSandboxNetworkStatus {
                ip: "10.0.0.1".into(),
                additional_ips: vec![proto::PodIp {
                    ip: "fd00::1".into(),
                }],
            }),
            linux: Some(proto::LinuxPodSandboxStatus {
                namespaces: Some(proto::Namespace {
                    options: Some(proto::NamespaceOption {
                        network: mode.into(),
                    }),
                }),
            }),
        };
        let own = ips_of(status(proto::NamespaceMode::Pod)).unwrap();
        assert_eq!(own, ["10.0.0.1", "fd00::1"]);
        assert_eq!(ips_of(status(proto::NamespaceMode::Node)), Some(Vec::new()));
        assert_eq!(ips_of(proto::PodSandboxStatus::default()), None);
    }
}
