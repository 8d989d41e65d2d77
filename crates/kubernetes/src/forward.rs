//! Reaches a service of the cluster from outside, as `kubectl port-forward svc/NAME` does.
//!
//! The API server passes the bytes on to one of the service's pods, whether or not the pod
//! can be reached from here. Who may do that is the cluster's matter: `deploy/kubernetes`
//! has the role.

use crate::reason::{chain, reason};
use k8s_openapi::{
    api::core::v1::{Pod, Secret, Service},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{Api, Client, api::ListParams};
use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// How many pods of a service are looked at for one that is ready.
const PODS_MAX: u32 = 100;

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Where the service is.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// The port's name.
    pub port: String,
}

/// Why a service is not reached.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// There is no such service.
    #[error("there is no service {service} in the namespace {namespace} of the cluster")]
    NoService {
        /// Where it was looked for.
        namespace: String,
        /// Its name.
        service: String,
    },
    /// The service has no port by this name.
    #[error("the service {service} has no port named {port:?}: it has {has}")]
    NoPort {
        /// The service.
        service: String,
        /// The port's name.
        port: String,
        /// Those it has.
        has: String,
    },
    /// None of its pods can be talked to.
    #[error("no pod of the service {service} is ready: {pods}")]
    NoPod {
        /// The service.
        service: String,
        /// Its pods and how they are.
        pods: String,
    },
    /// The user may not.
    #[error("the API server does not let you {what}: {why}; a role must allow to {rights}")]
    Forbidden {
        /// What was tried.
        what: String,
        /// What it said.
        why: String,
        /// The verbs and resources that are needed.
        rights: &'static str,
    },
    /// All else.
    #[error("the API server cannot be asked to {what}: {why}")]
    Failed {
        /// What was tried.
        what: String,
        /// What is wrong.
        why: String,
    },
}

/// Connects to a port of one of a service's pods that is ready.
///
/// # Errors
/// If there is none, or the user may not.
pub async fn forward(client: &Client, to: &ServicePort) -> Result<Forwarded, ForwardError> {
    let service = find_service(client, to).await?;
    let pod = find_pod(client, to, &service).await?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let port = pod_port(to, &service, &pod)?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &to.namespace);
    let forwarder = pods.portforward(name, &[port]).await;
    let mut forwarder = forwarder.map_err(|why| {
        let what = format!("forward port {port} of the pod {}", reason(name));
        failed(what, "get and create pods/portforward", &why)
    })?;
    let (stream, trouble) = (forwarder.take_stream(port), forwarder.take_error(port));
    Ok(Forwarded {
        stream: stream.expect("the port was asked for, and is taken once"),
        trouble: trouble.map(|trouble| Box::pin(trouble) as Trouble),
    })
}

/// What a secret holds; nothing if there is none, or this user may not read it.
///
/// # Errors
/// If the API server cannot be asked.
pub async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<BTreeMap<String, Vec<u8>>, ForwardError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match secrets.get(name).await {
        Ok(secret) => {
            let data = secret.data.unwrap_or_default().into_iter();
            Ok(data.map(|(key, value)| (key, value.0)).collect())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_forbidden() => {
            Ok(BTreeMap::new())
        }
        Err(why) => Err(failed(
            format!("get the secret {name}"),
            "get that secret",
            &why,
        )),
    }
}

async fn find_service(client: &Client, to: &ServicePort) -> Result<Service, ForwardError> {
    let services: Api<Service> = Api::namespaced(client.clone(), &to.namespace);
    services.get(&to.service).await.map_err(|why| match why {
        kube::Error::Api(status) if status.is_not_found() => ForwardError::NoService {
            namespace: to.namespace.clone(),
            service: to.service.clone(),
        },
        why => {
            let what = format!("get the service {} in {}", to.service, to.namespace);
            failed(what, "get services", &why)
        }
    })
}

/// The first by name of those that are ready.
async fn find_pod(
    client: &Client,
    to: &ServicePort,
    service: &Service,
) -> Result<Pod, ForwardError> {
    let none = |pods: String| ForwardError::NoPod {
        service: to.service.clone(),
        pods,
    };
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    let selector = selector.filter(|selector| !selector.is_empty());
    let selector = selector.ok_or_else(|| none("it selects none".to_owned()))?;
    let labels: Vec<_> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &to.namespace);
    let params = ListParams::default()
        .labels(&labels.join(","))
        .limit(PODS_MAX);
    let listed = pods.list(&params).await.map_err(|why| {
        let what = format!("list the pods of the service {}", to.service);
        failed(what, "list pods", &why)
    })?;
    let mut pods = listed.items;
    pods.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    let known: Vec<_> = pods.iter().map(state).collect();
    match pods.into_iter().find(is_ready) {
        Some(pod) => Ok(pod),
        None if known.is_empty() => Err(none("there are none".to_owned())),
        None => Err(none(known.join(", "))),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let mut conditions = status
        .iter()
        .filter_map(|s| s.conditions.as_ref())
        .flatten();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|one| one.type_ == "Ready" && one.status == "True")
}

/// A pod and how it is, for people.
fn state(pod: &Pod) -> String {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_ref());
    let phase = phase.map_or("unknown", String::as_str);
    let phase = match &pod.metadata.deletion_timestamp {
        Some(_) => "being deleted",
        None => phase,
    };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    reason(&format!("{name} ({phase})"))
}

/// The number of the pod's port behind the service's.
fn pod_port(to: &ServicePort, service: &Service, pod: &Pod) -> Result<u16, ForwardError> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let ports = ports.map_or(&[][..], Vec::as_slice);
    let port = ports
        .iter()
        .find(|port| port.name.as_deref() == Some(&to.port));
    let number = port.and_then(|port| match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => container_port(pod, name),
    });
    let number = number.and_then(|number| u16::try_from(number).ok());
    number.ok_or_else(|| {
        let names = ports.iter().filter_map(|port| port.name.as_deref());
        let names: Vec<_> = names.map(reason).collect();
        ForwardError::NoPort {
            service: to.service.clone(),
            port: to.port.clone(),
            has: match names.is_empty() {
                true => "none with a name".to_owned(),
                false => names.join(", "),
            },
        }
    })
}

fn container_port(pod: &Pod, name: &str) -> Option<i32> {
    let containers = pod.spec.as_ref()?.containers.iter();
    let mut ports = containers.filter_map(|c| c.ports.as_ref()).flatten();
    let port = ports.find(|port| port.name.as_deref() == Some(name))?;
    Some(port.container_port)
}

fn failed(what: String, rights: &'static str, error: &kube::Error) -> ForwardError {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => ForwardError::Forbidden {
            what,
            why: reason(&status.message),
            rights,
        },
        kube::Error::Api(status) => ForwardError::Failed {
            what,
            why: reason(&status.message),
        },
        other => ForwardError::Failed {
            what,
            why: reason(&chain(other)),
        },
    }
}

/// What the API server says is wrong, if it says so.
type Trouble = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// A connection that the API server passes on.
pub struct Forwarded {
    stream: DuplexStream,
    trouble: Option<Trouble>,
}

impl Forwarded {
    /// Why the stream has ended, if it was not the pod that ended it: it is told before.
    fn end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(mut trouble) = self.trouble.take() else {
            return Ok(());
        };
        match trouble.as_mut().poll(context) {
            Poll::Ready(Some(why)) => Err(io::Error::other(format!(
                "the API server says: {}",
                reason(why.trim())
            ))),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let is_end = buffer.filled().len() == before && buffer.remaining() > 0;
        Poll::Ready(if is_end { self.end(context) } else { Ok(()) })
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
