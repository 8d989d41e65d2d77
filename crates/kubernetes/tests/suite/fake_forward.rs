//! An API server of ours that knows one service and passes bytes on to its pod, as real ones
//! speak it to `kubectl port-forward`: a web socket with the subprotocol `v4.channel.k8s.io`,
//! whose messages begin with a channel's number (0 data, 1 what went wrong). The first message
//! on each channel is the port, two bytes, little end first.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    response::Response,
};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const TROUBLE: u8 = 1;
/// A pod that is there and ready.
pub(crate) const POD: &str = "ethogram-collector-0";
/// The port that its container names `api`.
pub(crate) const POD_PORT: u16 = 8687;

/// The fake.
#[derive(Clone)]
pub(crate) struct FakeCluster(Arc<Mutex<State>>);

struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    pods: Vec<Value>,
    /// Who answers in the pod.
    backend: SocketAddr,
    /// Parts of paths that the user may not ask for.
    forbidden: BTreeSet<&'static str>,
    requests: Vec<String>,
}

/// A pod of the collector's service.
pub(crate) fn pod(name: &str, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "ethogram",
            "labels": {"app.kubernetes.io/name": "ethogram-collector"},
        },
        "spec": {"containers": [{
            "name": "collector",
            "ports": [
                {"name": "ingest", "containerPort": 8688},
                {"name": "api", "containerPort": POD_PORT},
            ],
        }]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": ready}],
        },
    })
}

impl FakeCluster {
    /// A cluster with the collector's service, and behind it a pod that is `backend`.
    pub(crate) fn new(backend: SocketAddr) -> Self {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "ethogram-collector", "namespace": "ethogram"},
            "spec": {
                "selector": {"app.kubernetes.io/name": "ethogram-collector"},
                "ports": [
                    {"name": "ingest", "port": 8688, "targetPort": "ingest"},
                    {"name": "api", "port": 443, "targetPort": "api"},
                    {"name": "number", "port": 444, "targetPort": POD_PORT},
                    {"name": "same", "port": POD_PORT},
                    {"name": "nowhere", "port": 445, "targetPort": "nowhere"},
                ],
            },
        });
        let objects = [(
            "/api/v1/namespaces/ethogram/services/ethogram-collector".to_owned(),
            service,
        )];
        Self(Arc::new(Mutex::new(State {
            objects: objects.into(),
            pods: vec![pod(POD, true)],
            backend,
            forbidden: BTreeSet::new(),
            requests: Vec::new(),
        })))
    }

    /// Has these pods behind the service.
    pub(crate) fn set_pods(&self, pods: &[Value]) {
        self.state().pods = pods.to_vec();
    }

    /// Keeps a secret beside the service; `data` is encoded already.
    pub(crate) fn keep_secret(&self, name: &str, data: &Value) {
        let path = format!("/api/v1/namespaces/ethogram/secrets/{name}");
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": "ethogram"},
            "data": data,
        });
        self.state().objects.insert(path, secret);
    }

    /// Refuses whoever asks for what has this in its path.
    pub(crate) fn forbid(&self, part: &'static str) {
        self.state().forbidden.insert(part);
    }

    /// Lets the user ask for everything again.
    pub(crate) fn allow_all(&self) {
        self.state().forbidden.clear();
    }

    /// Requests since the last call, with their queries.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    /// Serves it on a loopback port as long as the runtime lives.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let fake = self.clone();
        let answer = move |request: Request| {
            let fake = fake.clone();
            async move { fake.answer(request) }
        };
        let router = Router::new().fallback(answer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn answer(&self, request: Request) -> Response {
        let uri = request.uri().clone();
        self.state().requests.push(uri.to_string());
        if request.headers()[header::AUTHORIZATION] != "Bearer secret" {
            return refusal(401, "Unauthorized");
        }
        let path = uri.path();
        let state = self.state();
        if state.forbidden.iter().any(|part| path.contains(part)) {
            let message = format!("User \"ada\" cannot do that to {path:?}");
            return refusal(403, &message);
        }
        if let Some(rest) = path.strip_prefix("/api/v1/namespaces/ethogram/pods/") {
            let pod = rest.strip_suffix("/portforward").unwrap();
            let is_there = state.pods.iter().any(|one| one["metadata"]["name"] == pod);
            let backend = state.backend;
            drop(state);
            return match is_there {
                true => forward(request, backend),
                false => refusal(404, "no such pod"),
            };
        }
        if path == "/api/v1/namespaces/ethogram/pods" {
            let selector = "labelSelector=app.kubernetes.io%2Fname%3Dethogram-collector";
            assert!(uri.query().unwrap().contains(selector), "{uri}");
            let list = json!({
                "apiVersion": "v1", "kind": "PodList",
                "metadata": {"resourceVersion": "1"}, "items": state.pods,
            });
            return json_of(StatusCode::OK, &list);
        }
        match state.objects.get(path) {
            Some(object) => json_of(StatusCode::OK, object),
            None => refusal(404, &format!("{path} not found")),
        }
    }
}

fn json_of(status: StatusCode, value: &Value) -> Response {
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    response.body(Body::from(value.to_string())).unwrap()
}

fn refusal(code: u16, message: &str) -> Response {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        _ => "NotFound",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    json_of(StatusCode::from_u16(code).unwrap(), &status)
}

/// Agrees to a web socket and passes on what comes.
fn forward(mut request: Request, backend: SocketAddr) -> Response {
    let headers = request.headers();
    let asked = headers["sec-websocket-protocol"].to_str().unwrap();
    assert!(asked.split(", ").any(|one| one == PROTOCOL), "{asked}");
    let accept = derive_accept_key(headers["sec-websocket-key"].as_bytes());
    let query = request.uri().query().unwrap().trim_start_matches('&');
    let port: u16 = query.strip_prefix("ports=").unwrap().parse().unwrap();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let socket = TokioIo::new(upgrade.await.unwrap());
        let socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
        pass_on(socket, port, backend).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header("sec-websocket-accept", accept)
        .header("sec-websocket-protocol", PROTOCOL)
        .body(Body::empty())
        .unwrap()
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn pass_on(mut socket: Socket, port: u16, backend: SocketAddr) {
    for channel in [DATA, TROUBLE] {
        let [low, high] = port.to_le_bytes();
        let head = Message::binary(vec![channel, low, high]);
        socket.send(head).await.unwrap();
    }
    let connected = match port {
        POD_PORT => TcpStream::connect(backend).await.map_err(|e| e.to_string()),
        other => Err(format!("nobody listens on {other}")),
    };
    let mut pod = match connected {
        Ok(pod) => pod,
        Err(why) => {
            // A kubelet's words.
            let why = format!("error forwarding port {port} to pod x, uid y: {why}\n");
            let message = Message::binary([&[TROUBLE], why.as_bytes()].concat());
            socket.send(message).await.unwrap();
            let _gone = socket.close(None).await;
            return;
        }
    };
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            read = pod.read(&mut buffer) => match read {
                Ok(0) | Err(_) => {
                    let _gone = socket.close(None).await;
                    return;
                }
                Ok(length) => {
                    let message = [&[DATA], &buffer[..length]].concat();
                    socket.send(Message::binary(message)).await.unwrap();
                }
            },
            told = socket.next() => match told {
                Some(Ok(Message::Binary(bytes))) => {
                    assert_eq!(bytes[0], DATA);
                    pod.write_all(&bytes[1..]).await.unwrap();
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
}
