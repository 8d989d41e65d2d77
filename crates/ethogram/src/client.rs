//! Asks an agent over its unix socket, or a collector over the network.

mod forwarded;

pub(crate) use forwarded::{ForwardedCollector, ServiceName};

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use ethogram_cluster::dial::{Authority, Duplex, dial};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use crate::{args::SourceArgs, http::WARNING_HEADER};

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The agent at this socket.
    Agent(PathBuf),
    /// A collector.
    Collector(Collector),
    /// A collector in a cluster, by the cluster's API server.
    Forwarded(ForwardedCollector),
}

/// A collector, and what is shown to and asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collector {
    host: String,
    port: u16,
    /// Whose certificates are believed; `None` without TLS.
    ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(socket) => write!(f, "the agent at {}", socket.display()),
            Self::Collector(collector) => {
                write!(f, "the collector at {}:{}", collector.host, collector.port)
            }
            Self::Forwarded(collector) => collector.fmt(f),
        }
    }
}

impl Collector {
    /// What the options say of the collector at `url`.
    pub(crate) fn new(url: &str, args: &SourceArgs) -> Result<Self> {
        let uri: Uri = url
            .parse()
            .with_context(|| format!("{url:?} is no address"))?;
        let (Some(scheme), Some(host), Some(port)) = (uri.scheme_str(), uri.host(), uri.port_u16())
        else {
            bail!("{url:?} is no collector: write https://HOST:PORT, or http://HOST:PORT");
        };
        let ca = match (scheme, &args.ca) {
            ("https", Some(ca)) => Some(ca.clone()),
            ("https", None) => bail!(
                "an https collector needs --ca, the file of its certificate authority (ca.crt of \
                 `ethogram certs`)"
            ),
            ("http", _) if args.token_file.is_some() && !is_here(host) => {
                bail!(
                    "over http everybody on the way could read the token: write https://HOST:PORT"
                )
            }
            ("http", _) => None,
            _ => bail!("{url:?} is no collector: write https://HOST:PORT, or http://HOST:PORT"),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            ca,
            token_file: args.token_file.clone(),
        })
    }

    async fn reach(&self) -> Result<Reached> {
        let ca = self.ca.as_deref().map(Authority::of_file).transpose()?;
        Ok(Reached {
            stream: dial(&self.host, self.port, ca.as_ref()).await?,
            host: format!("{}:{}", self.host, self.port),
            token: self.token_file.as_deref().map(read_token).transpose()?,
            is_secure: ca.is_some(),
        })
    }
}

fn read_token(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read the token in {}", file.display()))
}

/// A connection to a server, and what to say on it first.
struct Reached {
    stream: Box<dyn Duplex>,
    host: String,
    token: Option<String>,
    /// Whether by TLS.
    is_secure: bool,
}

/// Whether a host is this machine, where nobody else listens on the way.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Asks for `/path?query`, and returns what is answered.
pub(crate) fn get(server: &Server, path_and_query: &str) -> Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(async { timeout(ANSWER_WAIT, ask(server, path_and_query)).await })
        .with_context(|| format!("{server} does not answer; its log may say why"))?
}

async fn ask(server: &Server, path_and_query: &str) -> Result<Vec<u8>> {
    let reached = match server {
        Server::Agent(socket) => reach_agent(socket).await?,
        Server::Collector(collector) => collector
            .reach()
            .await
            .with_context(|| format!("cannot reach {server}"))?,
        Server::Forwarded(collector) => collector
            .reach()
            .await
            .with_context(|| format!("cannot reach {server}"))?,
    };
    let mut request = Request::get(path_and_query).header("host", reached.host);
    if let Some(token) = reached.token {
        request = request.header("authorization", format!("Bearer {}", token.trim()));
    }
    let lost = || match server {
        Server::Forwarded(collector) if !reached.is_secure => {
            format!("lost {server}{}", forwarded::WITHOUT_TLS)
        }
        _ => format!("lost {server}"),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(reached.stream))
        .await
        .with_context(lost)?;
    let request = request
        .body(Empty::<Bytes>::new())
        .context("the token is none: it has characters that no token has")?;
    let talk = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let warning = response.headers().get(WARNING_HEADER).cloned();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((status, warning, body))
    };
    // A server that hangs up without TLS's farewell after its answer has answered.
    let (talked, _) = tokio::join!(talk, connection);
    let (status, warning, body) = talked.with_context(lost)?;
    if let Some(warning) = warning.as_ref().and_then(|text| text.to_str().ok()) {
        eprintln!("ethogram: {warning}");
    }
    if status != StatusCode::OK {
        bail!("{server} says: {}", complaint(status, &body));
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

async fn reach_agent(socket: &Path) -> Result<Reached> {
    let stream = UnixStream::connect(socket).await;
    Ok(Reached {
        stream: Box::new(stream.map_err(|error| unreachable(socket, error))?),
        host: "ethogram".to_owned(),
        token: None,
        is_secure: false,
    })
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
