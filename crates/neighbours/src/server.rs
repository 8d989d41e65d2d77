//! Serving: what all services share, and how they are put on a listener.

use crate::{
    discovery::observability_server::ObservabilityServer, feed::Feed,
    feeder::log_service_server::LogServiceServer, guard::Guard, log_service::Streams,
    observability::Answers, publisher::Publishing, publishing::publisher_server::PublisherServer,
    wire::DESCRIPTORS,
};
use ethogram_cluster::listen::Connection;
use ethogram_store::{Store, StoreError};
use std::{io, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, server::NamedService, transport::Server};

/// Answers computed at a time, because each may need much memory; more wait.
const ANSWERS_MAX: usize = 2;
/// Questions on one connection at a time.
const STREAMS_PER_CONNECTION_MAX: u32 = 32;
/// How often a line is tried on which nothing comes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);

/// What is served from, and to whom.
pub struct Served {
    pub(crate) store: Arc<dyn Store>,
    /// The cluster's name, or empty.
    pub(crate) cluster: String,
    pub(crate) guard: Guard,
    turns: Semaphore,
}

impl Served {
    /// Serves what is in a store to those whom the guard lets in.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, cluster: String, guard: Guard) -> Arc<Self> {
        Arc::new(Self {
            store,
            cluster,
            guard,
            turns: Semaphore::new(ANSWERS_MAX),
        })
    }

    /// Computes something that blocks when it is its turn.
    pub(crate) async fn in_turn<T: Send + 'static>(
        &self,
        compute: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let _turn = self.turns.acquire().await;
        let computed = tokio::task::spawn_blocking(compute).await;
        let computed =
            computed.map_err(|_| Status::internal("the answer could not be computed"))?;
        computed.map_err(|error| {
            tracing::error!("cannot answer: {error}");
            Status::unavailable(error.to_string())
        })
    }
}

/// Answers `karmor summary` on these connections until `stop` turns true, and publishes what
/// a feed tells, if there is one.
///
/// # Errors
/// If no more connections can be taken.
pub async fn serve_observability(
    served: Arc<Served>,
    feed: Option<Arc<Feed>>,
    connections: ReceiverStream<io::Result<Connection>>,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let (health, healthy) = tonic_health::server::health_reporter();
    health.set_serving::<ObservabilityServer<Answers>>().await;
    let mut names = vec![ObservabilityServer::<Answers>::NAME];
    if feed.is_some() {
        names.push(PublisherServer::<Publishing>::NAME);
        health.set_serving::<PublisherServer<Publishing>>().await;
    }
    let publisher = feed.map(|feed| {
        let publishing = Publishing::new(served.clone(), feed, stop.clone());
        PublisherServer::new(publishing)
    });
    server()
        .add_service(ObservabilityServer::new(Answers(served)))
        .add_optional_service(publisher)
        .add_service(healthy)
        .add_service(reflection(&names))
        .serve_with_incoming_shutdown(connections, stopped(stop))
        .await
}

/// Streams to `karmor logs` and `karmor profile` on these connections what a feed tells,
/// until `stop` turns true.
///
/// # Errors
/// If no more connections can be taken.
pub async fn serve_log_service(
    served: Arc<Served>,
    feed: Arc<Feed>,
    connections: ReceiverStream<io::Result<Connection>>,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let (health, healthy) = tonic_health::server::health_reporter();
    health.set_serving::<LogServiceServer<Streams>>().await;
    server()
        .add_service(LogServiceServer::new(Streams::new(
            served,
            feed,
            stop.clone(),
        )))
        .add_service(healthy)
        .add_service(reflection(&[LogServiceServer::<Streams>::NAME]))
        .serve_with_incoming_shutdown(connections, stopped(stop))
        .await
}

fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .tcp_nodelay(true)
}

/// Tells which services there are, so that they can be asked without the files.
fn reflection(
    names: &[&str],
) -> tonic_reflection::server::v1::ServerReflectionServer<
    impl tonic_reflection::server::v1::ServerReflection,
> {
    let all = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS);
    names
        .iter()
        .fold(all, |some, name| some.with_service_name(*name))
        .build_v1()
        .expect("the descriptors were written by our build")
}

/// Returns when told to stop, also by whoever could tell being gone.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the other end is dropped.
    let _ = stop.wait_for(|stop| *stop).await;
}
