//! A container runtime that serves CRI as the test tells it to.

use std::{
    collections::HashMap,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    runtime::Runtime,
    sync::mpsc,
};
use tonic::{Request, Response, Status, codegen::tokio_stream::Stream, transport::Server};

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_imports)]
pub(crate) mod proto {
    include!(concat!(env!("OUT_DIR"), "/server/runtime.v1.rs"));
}
use proto::runtime_service_server::{RuntimeService, RuntimeServiceServer};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) sandboxes: Vec<proto::PodSandbox>,
    pub(crate) containers: Vec<proto::Container>,
    /// Addresses by sandbox, and whether it is on the node's network.
    pub(crate) network: HashMap<String, (Vec<String>, bool)>,
    /// What `ContainerStatus` tells of images.
    pub(crate) images: HashMap<String, String>,
    pub(crate) hangs: bool,
    /// Whether it has a stream of events.
    pub(crate) announces: bool,
    listener: Option<mpsc::UnboundedSender<()>>,
}

impl State {
    /// Adds a pod with one container.
    pub(crate) fn add_pod(&mut self, pod: &str, sandbox: &str, container: Option<&str>, ip: &str) {
        let text = |pairs: &[(&str, &str)]| {
            let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
            pairs.iter().map(own).collect()
        };
        self.sandboxes.push(proto::PodSandbox {
            id: sandbox.into(),
            metadata: Some(proto::PodSandboxMetadata {
                name: pod.into(),
                uid: "0d7a1c52-3f7e-4c1b-9a55-6f1e2d3c4b5a".into(),
                namespace: "shop".into(),
            }),
            state: proto::PodSandboxState::SandboxReady.into(),
            created_at: 5,
            labels: text(&[("app", "web"), ("pod-template-hash", "abc")]),
        });
        self.network
            .insert(sandbox.into(), (vec![ip.into()], false));
        self.containers.extend(container.map(|id| proto::Container {
            id: id.into(),
            pod_sandbox_id: sandbox.into(),
            metadata: Some(proto::ContainerMetadata {
                name: "main".into(),
            }),
            image: Some(proto::ImageSpec {
                image: "localhost/web:1".into(),
                ..Default::default()
            }),
            labels: text(&[("io.kubernetes.container.name", "main")]),
        }));
    }

    /// Announces that something happened.
    pub(crate) fn announce(&self) {
        self.listener.as_ref().unwrap().send(()).unwrap();
    }

    pub(crate) fn has_listener(&self) -> bool {
        self.listener.is_some()
    }
}

/// Ends when it is dropped, and its socket's file stays behind, as after a crash.
pub(crate) struct FakeCri {
    pub(crate) state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
}

impl FakeCri {
    pub(crate) fn start(socket: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let _ = std::fs::remove_file(socket);
        let guard = runtime.enter();
        let listener = UnixListener::bind(socket).unwrap();
        drop(guard);
        let service = RuntimeServiceServer::new(Service(Arc::clone(&state)));
        runtime.spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(Incoming(listener)),
        );
        Self {
            state,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for FakeCri {
    fn drop(&mut self) {
        // At once, without waiting for calls that hang.
        self.runtime.take().unwrap().shutdown_background();
    }
}

struct Incoming(UnixListener);

impl Stream for Incoming {
    type Item = std::io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0
            .poll_accept(context)
            .map(|accepted| Some(accepted.map(|(stream, _)| stream)))
    }
}

pub(crate) struct Announcements(mpsc::UnboundedReceiver<()>);

impl Stream for Announcements {
    type Item = Result<proto::ContainerEventResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = |()| Ok(proto::ContainerEventResponse::default());
        self.0.poll_recv(context).map(|told| told.map(event))
    }
}

struct Service(Arc<Mutex<State>>);

impl Service {
    /// What the state says, after the wait that a hanging runtime makes its callers endure.
    async fn with<T>(&self, tell: impl FnOnce(&mut State) -> T) -> Result<Response<T>, Status> {
        let hangs = self.0.lock().unwrap().hangs;
        if hangs {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        Ok(Response::new(tell(&mut self.0.lock().unwrap())))
    }
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(
        &self,
        _: Request<proto::VersionRequest>,
    ) -> Result<Response<proto::VersionResponse>, Status> {
        Ok(Response::new(proto::VersionResponse {
            runtime_name: "containerd".into(),
            runtime_version: "0.0".into(),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        _: Request<proto::ListPodSandboxRequest>,
    ) -> Result<Response<proto::ListPodSandboxResponse>, Status> {
        self.with(|state| proto::ListPodSandboxResponse {
            items: state.sandboxes.clone(),
        })
        .await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<proto::PodSandboxStatusRequest>,
    ) -> Result<Response<proto::PodSandboxStatusResponse>, Status> {
        let id = request.into_inner().pod_sandbox_id;
        let known = self.0.lock().unwrap().network.get(&id).cloned();
        let (mut ips, on_node) = known.ok_or_else(|| Status::not_found(id))?;
        let mode = if on_node {
            proto::NamespaceMode::Node
        } else {
            proto::NamespaceMode::Pod
        };
        Ok(Response::new(proto::PodSandboxStatusResponse {
            status: Some(proto::PodSandboxStatus {
                network: Some(proto::PodSandboxNetworkStatus {
                    ip: ips.remove(0),
                    additional_ips: ips.into_iter().map(|ip| proto::PodIp { ip }).collect(),
                }),
                linux: Some(proto::LinuxPodSandboxStatus {
                    namespaces: Some(proto::Namespace {
                        options: Some(proto::NamespaceOption {
                            network: mode.into(),
                        }),
                    }),
                }),
            }),
        }))
    }

    async fn list_containers(
        &self,
        _: Request<proto::ListContainersRequest>,
    ) -> Result<Response<proto::ListContainersResponse>, Status> {
        self.with(|state| proto::ListContainersResponse {
            containers: state.containers.clone(),
        })
        .await
    }

    async fn container_status(
        &self,
        request: Request<proto::ContainerStatusRequest>,
    ) -> Result<Response<proto::ContainerStatusResponse>, Status> {
        let id = request.into_inner().container_id;
        let image = self.0.lock().unwrap().images.get(&id).cloned();
        let image = image.ok_or_else(|| Status::not_found(id))?;
        Ok(Response::new(proto::ContainerStatusResponse {
            status: Some(proto::ContainerStatus {
                image: Some(proto::ImageSpec {
                    image,
                    ..Default::default()
                }),
            }),
        }))
    }

    type GetContainerEventsStream = Announcements;

    async fn get_container_events(
        &self,
        _: Request<proto::GetEventsRequest>,
    ) -> Result<Response<Announcements>, Status> {
        let mut state = self.0.lock().unwrap();
        if !state.announces {
            return Err(Status::unimplemented("unknown method GetContainerEvents"));
        }
        let (listener, announcements) = mpsc::unbounded_channel();
        state.listener = Some(listener);
        Ok(Response::new(Announcements(announcements)))
    }
}
