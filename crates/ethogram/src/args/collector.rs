//! The options of what a cluster needs beside its agents.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use ethogram_clickhouse::Address;

use super::parse_duration;
use crate::{
    config::parse_size,
    names::Reach,
    neighbours::{parse_kubearmor, parse_observability, parse_source},
};

/// Keeps what agents report, and answers for all of them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ethogram certs --out certs --server collector.example --node node-1
  ethogram collector --listen 0.0.0.0:8688 --tls-cert certs/collector.crt --tls-key certs/collector.key \\
      --client-ca certs/ca.crt
  ethogram collector --store clickhouse://localhost:8123/ethogram
  curl -s localhost:8687/v1/agents")]
pub(crate) struct CollectorArgs {
    /// Listen for agents here
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "ETHOGRAM_LISTEN",
        default_value = "127.0.0.1:8688"
    )]
    pub(crate) listen: SocketAddr,
    /// Answer questions here, as an agent does
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "ETHOGRAM_API_LISTEN",
        default_value = "127.0.0.1:8687"
    )]
    pub(crate) api_listen: SocketAddr,
    /// Keep it here: sqlite:PATH, or clickhouse://USER:PASSWORD@HOST:PORT/DATABASE
    #[arg(
        long,
        value_name = "STORE",
        env = "ETHOGRAM_STORE",
        hide_env_values = true,
        default_value = "sqlite:/var/lib/ethogram/collector.db"
    )]
    pub(crate) store: StoreAddress,
    /// Count what this KubeArmor agent or relay streams: HOST[:PORT], or https://HOST:PORT;
    /// several times for several [default port: 32767]
    #[arg(long, value_name = "HOST[:PORT]", env = "ETHOGRAM_FROM_KUBEARMOR", value_delimiter = ',', value_parser = parse_source)]
    pub(crate) from_kubearmor: Vec<String>,
    /// Believe a KubeArmor whose certificate this authority signed
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_FROM_KUBEARMOR_CA")]
    pub(crate) from_kubearmor_ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) neighbours: NeighbourArgs,
    /// The server's certificate, a PEM file; read again when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "ETHOGRAM_TLS_CERT",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(
        long,
        value_name = "FILE",
        env = "ETHOGRAM_TLS_KEY",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// Believe agents' certificates that this authority signed; each reports for the node
    /// that its certificate names
    #[arg(
        long,
        value_name = "FILE",
        env = "ETHOGRAM_CLIENT_CA",
        requires = "tls_cert"
    )]
    pub(crate) client_ca: Option<PathBuf>,
    /// Let in bearers of the tokens in this file; see docs/cluster.md
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_TOKENS")]
    pub(crate) tokens: Option<PathBuf>,
    /// Append who read what to this file, one JSON object a line
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_AUDIT_LOG")]
    pub(crate) audit_log: Option<PathBuf>,
    /// Take names, owners and labels from this API server: auto (the cluster's own, where this
    /// runs in a pod with a service account), in-cluster, off, or a kubeconfig's path
    #[arg(
        long,
        value_name = "auto|in-cluster|off|FILE",
        env = "ETHOGRAM_KUBERNETES",
        default_value = "auto"
    )]
    pub(crate) kubernetes: Reach,
    /// The cluster's name, shown in summaries
    #[arg(
        long,
        value_name = "NAME",
        env = "ETHOGRAM_CLUSTER",
        default_value = ""
    )]
    pub(crate) cluster: String,
    /// Forget what was not seen for this time (12h, 30d)
    #[arg(long, value_name = "TIME", env = "ETHOGRAM_RETENTION_AGE", default_value = "30d", value_parser = parse_duration)]
    pub(crate) retention_age: Duration,
    /// Forget the oldest above this size (500MiB, 20GiB)
    #[arg(long, value_name = "SIZE", env = "ETHOGRAM_RETENTION_SIZE", default_value = "20GiB", value_parser = parse_size)]
    pub(crate) retention_size: u64,
    #[command(flatten)]
    pub(crate) limits: AgentLimitArgs,
}

/// Where to speak the neighbours' protocols; nowhere unless asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct NeighbourArgs {
    /// Answer `karmor summary` here, as discovery-engine did; everybody on a loopback
    /// address, elsewhere those with a token [default port: 9089]
    #[arg(long, value_name = "ADDR[:PORT]", env = "ETHOGRAM_OBSERVABILITY_LISTEN", value_parser = parse_observability)]
    pub(crate) observability_listen: Option<SocketAddr>,
    /// Stream what changes here, to `karmor logs` and `karmor profile`, as KubeArmor does
    /// its events; to whom as above [default port: 32767]
    #[arg(long, value_name = "ADDR[:PORT]", env = "ETHOGRAM_KUBEARMOR_LISTEN", value_parser = parse_kubearmor)]
    pub(crate) kubearmor_listen: Option<SocketAddr>,
    /// Append a line of JSON for each row that is new or counted on to this file; - writes
    /// them to standard output
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_EVENTS")]
    pub(crate) events: Option<PathBuf>,
    /// Tell this OpenTelemetry receiver what changes, by OTLP over gRPC: http://HOST:4317, or
    /// https://
    #[arg(long, value_name = "URL", env = "ETHOGRAM_OTLP")]
    pub(crate) otlp: Option<String>,
    /// Believe a receiver whose certificate this authority signed
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_OTLP_CA")]
    pub(crate) otlp_ca: Option<PathBuf>,
}

/// What a collector takes of one agent.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Limits of one agent")]
pub(crate) struct AgentLimitArgs {
    /// Rows in a batch
    #[arg(long, value_name = "N", default_value_t = ethogram_cluster::Limits::default().batch_rows_max, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_rows_max: u32,
    /// Bytes of a batch, before compression
    #[arg(long, value_name = "BYTES", default_value_t = ethogram_cluster::Limits::default().batch_bytes_max, value_parser = clap::value_parser!(u32).range(65_536..))]
    pub(crate) batch_bytes_max: u32,
    /// Rows a second; above, an agent is read more slowly
    #[arg(long, value_name = "N", default_value_t = ethogram_cluster::Limits::default().rows_per_second_max, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rows_per_second_max: u32,
    /// Different containers in a day; more are refused
    #[arg(long, value_name = "N", default_value_t = ethogram_cluster::Limits::default().containers_per_day_max)]
    pub(crate) containers_per_day_max: usize,
}

/// Where a collector keeps what it is told.
#[derive(Clone, Debug)]
pub(crate) enum StoreAddress {
    /// In a file.
    Sqlite(PathBuf),
    /// In a ClickHouse server or cluster.
    ClickHouse(Box<Address>),
}

impl FromStr for StoreAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some(("clickhouse", _)) => match text.parse::<Address>() {
                Ok(address) => Ok(Self::ClickHouse(Box::new(address))),
                Err(error) => Err(error.to_string()),
            },
            _ => Err("write sqlite:PATH or clickhouse://HOST:PORT/DATABASE".into()),
        }
    }
}

/// Makes certificates for a cluster: an authority, a collector's, and one for each node.
/// Run it again to add nodes or to renew; the authority stays.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ethogram certs --out certs --server collector.example --server 10.0.0.7 --node node-1 --node node-2")]
pub(crate) struct CertsArgs {
    /// Write the files to this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// A name or address by which agents reach the collector
    #[arg(long, value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1", "ethogram-collector"])]
    pub(crate) server: Vec<String>,
    /// A node whose agent is to report
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Vec<String>,
}
