//! The same API server over real connections.

use crate::fake_api::FakeApi;
use axum::{Router, body::Body, extract::Request, response::Response};
use std::net::SocketAddr;
use tokio::{net::TcpListener, task::JoinHandle};

/// Serves it on a loopback port until the task is aborted.
pub(crate) async fn serve(fake: &FakeApi) -> (SocketAddr, JoinHandle<()>) {
    serve_at(fake, "127.0.0.1:0").await
}

/// Serves it on an address of this machine.
pub(crate) async fn serve_at(fake: &FakeApi, address: &str) -> (SocketAddr, JoinHandle<()>) {
    let fake = fake.clone();
    let answer = move |request: Request| {
        let fake = fake.clone();
        async move {
            match fake.answer(request.into_parts().0).await {
                Ok(answer) => answer.map(Body::new),
                Err(_) => Response::builder().status(502).body(Body::empty()).unwrap(),
            }
        }
    };
    let router = Router::new().fallback(answer);
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, serving)
}

/// A file that leads there.
pub(crate) fn kubeconfig(address: SocketAddr) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), kubeconfig_text(address)).unwrap();
    file
}

/// What such a file says.
pub(crate) fn kubeconfig_text(address: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: t\n\
         clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n\
         users: [{{name: u, user: {{token: secret}}}}]\n\
         contexts: [{{name: t, context: {{cluster: c, user: u}}}}]\n"
    )
}
