//! Asks an agent over its unix socket.

use std::{io, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use crate::http::WARNING_HEADER;

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Asks the agent at a socket for `/path?query`, and returns what it answers.
pub(crate) fn get(socket: &Path, path_and_query: &str) -> Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(async { timeout(ANSWER_WAIT, ask(socket, path_and_query)).await })
        .with_context(|| {
            format!(
                "the agent at {} does not answer; its log may say why",
                socket.display()
            )
        })?
}

async fn ask(socket: &Path, path_and_query: &str) -> Result<Vec<u8>> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| unreachable(socket, error))?;
    let lost = || format!("lost the agent at {}", socket.display());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .with_context(lost)?;
    let request = Request::get(path_and_query)
        .header("host", "ethogram")
        .body(Empty::<Bytes>::new())?;
    let talk = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let warning = response.headers().get(WARNING_HEADER).cloned();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((status, warning, body))
    };
    let (talked, _) = tokio::join!(talk, connection);
    let (status, warning, body) = talked.with_context(lost)?;
    if let Some(warning) = warning.as_ref().and_then(|text| text.to_str().ok()) {
        eprintln!("ethogram: {warning}");
    }
    if status != StatusCode::OK {
        bail!("the agent says: {}", complaint(status, &body));
    }
    Ok(body.to_vec())
}

/// What the body of an error says.
fn complaint(status: StatusCode, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Complaint {
        error: ethogram_view::Printable,
    }
    serde_json::from_slice(body).map_or_else(
        |_| status.to_string(),
        |Complaint { error }| error.as_str().to_owned(),
    )
}

fn unreachable(socket: &Path, error: io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is the agent running? sudo systemctl start ethogram, or give --db FILE"
        }
        io::ErrorKind::PermissionDenied => "only root and the socket's group may ask: try sudo",
        _ => "no agent can be asked there",
    };
    anyhow::Error::from(error).context(format!("cannot ask {}: {advice}", socket.display()))
}
