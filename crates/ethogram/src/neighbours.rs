//! Where the neighbours' protocols are spoken, if that is asked for.

use std::{
    fs::OpenOptions,
    io::{BufWriter, Write},
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use ethogram_cluster::listen::{ServerTls, incoming};
use ethogram_neighbours::{Exported, Feed, Receiver, Served};
use ethogram_store::{Spool, SqliteStore};
use serde::Serialize;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// Where discovery-engine listened.
const OBSERVABILITY_PORT: u16 = 9089;
/// Where KubeArmor's agents and relay listen.
const KUBEARMOR_PORT: u16 = 32767;

/// `ADDR:PORT`, or `ADDR` with discovery-engine's port.
pub(crate) fn parse_observability(text: &str) -> Result<SocketAddr, String> {
    parse(text, OBSERVABILITY_PORT)
}

/// `ADDR:PORT`, or `ADDR` with KubeArmor's port.
pub(crate) fn parse_kubearmor(text: &str) -> Result<SocketAddr, String> {
    parse(text, KUBEARMOR_PORT)
}

/// A KubeArmor's `HOST:PORT`, with KubeArmor's port if there is none, or a URL.
pub(crate) fn parse_source(text: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let is_known = ["http", "https"].contains(&scheme);
    let strange = |c: char| c.is_whitespace() || c == '/';
    if !is_known || rest.is_empty() || rest.contains(strange) {
        return Err(format!(
            "{text:?} is no KubeArmor: write HOST:{KUBEARMOR_PORT}, or https://HOST:PORT"
        ));
    }
    let has_port = match rest.rsplit_once(']') {
        Some((_, after)) => after.starts_with(':'),
        None => rest.contains(':'),
    };
    let port = if has_port {
        String::new()
    } else {
        format!(":{KUBEARMOR_PORT}")
    };
    let scheme = if scheme == "https" { "https://" } else { "" };
    Ok(format!("{scheme}{rest}{port}"))
}

fn parse(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    let address = text.parse().or_else(|_| {
        let ip = text.trim_start_matches('[').trim_end_matches(']');
        ip.parse().map(|ip: IpAddr| (ip, default_port).into())
    });
    address.map_err(|_| format!("{text:?} is no socket address: write 127.0.0.1:{default_port}"))
}

/// A listener, and the TLS it speaks, if any.
pub(crate) struct Listening {
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
}

impl Listening {
    /// Takes a listener that does not block. Call it in a runtime.
    pub(crate) fn new(
        listener: std::net::TcpListener,
        tls: Option<Arc<ServerTls>>,
    ) -> Result<Self> {
        let listener = TcpListener::from_std(listener).context("cannot use a TCP socket")?;
        Ok(Self { listener, tls })
    }
}

/// Answers `karmor summary` until `stop` turns true, and publishes what a feed tells.
pub(crate) fn serve_observability(
    tasks: &mut JoinSet<()>,
    listening: Listening,
    served: Arc<Served>,
    feed: Option<Arc<Feed>>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    tracing::info!(observability = %listening.listener.local_addr()?, "answering karmor summary");
    let connections = incoming(listening.listener, listening.tls);
    tasks.spawn(async move {
        let answered =
            ethogram_neighbours::serve_observability(served, feed, connections, stop).await;
        if let Err(error) = answered {
            tracing::error!("cannot answer karmor summary any more: {error}");
        }
    });
    Ok(())
}

/// Streams what changes to `karmor logs` and `karmor profile` until `stop` turns true.
pub(crate) fn serve_log_service(
    tasks: &mut JoinSet<()>,
    listening: Listening,
    served: Arc<Served>,
    feed: Arc<Feed>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    tracing::info!(kubearmor = %listening.listener.local_addr()?, "streaming to karmor logs");
    let connections = incoming(listening.listener, listening.tls);
    tasks.spawn(async move {
        let streamed =
            ethogram_neighbours::serve_log_service(served, feed, connections, stop).await;
        if let Err(error) = streamed {
            tracing::error!("cannot stream to karmor logs any more: {error}");
        }
    });
    Ok(())
}

/// Where lines are written to: a file that is appended to, or standard output for `-`.
pub(crate) fn open_lines(path: &Path) -> Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdout()));
    }
    let opened = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path);
    let file = opened.with_context(|| format!("cannot write to {}", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

/// Writes a line for each change until `stop` turns true.
pub(crate) fn write_lines(
    tasks: &mut JoinSet<()>,
    out: Box<dyn Write + Send>,
    feed: Arc<Feed>,
    cluster: String,
    stop: watch::Receiver<bool>,
) {
    tasks.spawn(async move {
        if let Err(error) = ethogram_neighbours::write_lines(feed, cluster, out, stop).await {
            tracing::error!("no more lines for --events: {error}");
        }
    });
}

/// Whom to tell what changes, in OpenTelemetry's protocol.
pub(crate) fn otlp_receiver(url: &str, ca: Option<&Path>) -> Result<Receiver> {
    let is_secret = url.starts_with("https://");
    if !is_secret && !url.starts_with("http://") {
        bail!("{url:?} is no OTLP receiver: write http://HOST:4317, or https://HOST:4317");
    }
    if is_secret && ca.is_none() {
        bail!("{url} needs otlp-ca, the file of its certificate authority");
    }
    Ok(Receiver {
        url: url.to_owned(),
        ca: ca.map(Path::to_owned).filter(|_| is_secret),
    })
}

/// Tells a receiver what changes from now on, until `stop` turns true.
pub(crate) fn export(
    tasks: &mut JoinSet<()>,
    spool: Arc<SqliteStore>,
    receiver: Receiver,
    cluster: String,
    status: watch::Sender<Exported>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let from = spool.head()?;
    tasks.spawn(ethogram_neighbours::export(
        spool, from, receiver, cluster, status, stop,
    ));
    Ok(())
}

/// How telling an OTLP receiver goes.
#[derive(Debug, Serialize)]
pub(crate) struct OtlpStatus {
    url: String,
    rows: u64,
    /// Rows that it refused for good.
    dropped_rows: u64,
    /// Tries that failed and were made again.
    retries: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_error: String,
}

impl OtlpStatus {
    pub(crate) fn new(receiver: &Receiver, status: &Exported) -> Self {
        Self {
            url: receiver.url.clone(),
            rows: status.rows,
            dropped_rows: status.dropped,
            retries: status.retries,
            last_error: status.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_without_trust_is_refused() {
        let receiver = otlp_receiver("http://c:4317", None).unwrap();
        assert_eq!(
            (receiver.url.as_str(), receiver.ca),
            ("http://c:4317", None)
        );
        let ca = Path::new("/ca");
        assert!(
            otlp_receiver("https://c:4317", Some(ca))
                .unwrap()
                .ca
                .is_some()
        );
        for (url, words) in [
            ("https://c:4317", "needs otlp-ca"),
            ("c:4317", "http://HOST"),
        ] {
            let error = otlp_receiver(url, None).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_port_may_be_left_out() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:9089"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("::1", "[::1]:9089"),
            ("[::1]", "[::1]:9089"),
            ("[::1]:2", "[::1]:2"),
        ] {
            assert_eq!(parse_observability(text), Ok(address.parse().unwrap()));
        }
        for (text, source) in [
            ("relay.kubearmor", "relay.kubearmor:32767"),
            ("http://relay:1", "relay:1"),
            ("https://relay", "https://relay:32767"),
            ("[::1]", "[::1]:32767"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(parse_source(text), Ok(source.to_owned()));
        }
        for text in ["", "ftp://relay", "relay/x", "a b", "https://"] {
            assert!(parse_source(text).unwrap_err().contains("HOST:32767"));
        }
        let kubearmor = parse_kubearmor("127.0.0.1").unwrap();
        assert_eq!(kubearmor.port(), 32767);
        for text in ["", "localhost", "127.0.0.1:99999", ":9089"] {
            let error = parse_observability(text).unwrap_err();
            assert!(error.contains("127.0.0.1:9089"), "{error}");
        }
    }
}
