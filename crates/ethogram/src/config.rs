//! The agent's options: each is a flag, an environment variable and a key of the
//! configuration file, defined once. Flags win over the environment, and that over the file.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use ethogram_identity::{RuntimeEndpoint, facts::Source};
use ethogram_model::Budget;
use serde::{Deserialize, Deserializer, de};

use ethogram_sensor::HookChoice;

use crate::{
    args::{parse_behaviours, parse_duration, parse_ring_kib, parse_rows},
    names::Reach,
    neighbours::{otlp_receiver, parse_kubearmor, parse_observability},
};

/// Where an agent keeps its store, unless told otherwise.
pub(crate) const DATA_DIR: &str = "/var/lib/ethogram";
/// Where an agent answers, unless told otherwise.
pub(crate) const SOCKET: &str = "/run/ethogram/ethogram.sock";
/// The store's file in the data folder.
pub(crate) const STORE_FILE: &str = "ethogram.db";
/// Read if it is there and no other file is named.
const CONFIG_FILE: &str = "/etc/ethogram/agent.toml";
/// One container may have this part of the behaviours that the kernel counts at a time.
const CGROUP_SHARE: u32 = 4;
/// How long rows are kept that are not seen any more, unless told otherwise.
const RETENTION_AGE: Duration = Duration::from_secs(30 * 86_400);
/// How large the store may become, unless told otherwise.
const RETENTION_BYTES: u64 = 1 << 30;

/// What may be set. As keys of the file they have the names of the flags, without dashes
/// in front.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Options {
    /// Keep the store in this folder [default: /var/lib/ethogram]
    #[arg(long, value_name = "DIR", env = "ETHOGRAM_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Answer on this unix socket [default: /run/ethogram/ethogram.sock]
    #[arg(long, value_name = "PATH", env = "ETHOGRAM_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Answer on this TCP address too; only a loopback address, e.g. 127.0.0.1:8686
    #[arg(long, value_name = "ADDR:PORT", env = "ETHOGRAM_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// Answer `karmor summary` here, as discovery-engine did; only a loopback address
    /// [default port: 9089]
    #[arg(long, value_name = "ADDR[:PORT]", env = "ETHOGRAM_OBSERVABILITY_LISTEN", value_parser = parse_observability)]
    #[serde(deserialize_with = "observability")]
    pub(crate) observability_listen: Option<SocketAddr>,
    /// Stream what changes here, to `karmor logs` and `karmor profile`, as KubeArmor does
    /// its events; only a loopback address [default port: 32767]
    #[arg(long, value_name = "ADDR[:PORT]", env = "ETHOGRAM_KUBEARMOR_LISTEN", value_parser = parse_kubearmor)]
    #[serde(deserialize_with = "kubearmor")]
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
    /// Ask this CRI runtime (containerd, CRI-O); naming any runtime replaces looking in
    /// the usual places
    #[arg(
        long,
        value_name = "PATH",
        env = "ETHOGRAM_CRI_SOCKET",
        value_delimiter = ','
    )]
    pub(crate) cri_socket: Vec<PathBuf>,
    /// Ask the Docker API here: Docker, or Podman's service
    #[arg(
        long,
        value_name = "PATH",
        env = "ETHOGRAM_DOCKER_SOCKET",
        value_delimiter = ','
    )]
    pub(crate) docker_socket: Vec<PathBuf>,
    /// Read the files of Podman's storage here
    #[arg(
        long,
        value_name = "DIR",
        env = "ETHOGRAM_PODMAN_STORAGE",
        value_delimiter = ','
    )]
    pub(crate) podman_storage: Vec<PathBuf>,
    /// Watch the host's own services too, not only containers
    #[arg(long, value_name = "BOOL", env = "ETHOGRAM_HOST", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) host: Option<bool>,
    /// Watch only what is below this cgroup, on a machine of several nodes [default: /]
    #[arg(long, value_name = "PATH", env = "ETHOGRAM_CGROUP_ROOT")]
    pub(crate) cgroup_root: Option<String>,
    /// This machine's name [default: its host name]
    #[arg(long, value_name = "NAME", env = "ETHOGRAM_NODE")]
    pub(crate) node: Option<String>,
    /// The cluster's name, shown in summaries
    #[arg(long, value_name = "NAME", env = "ETHOGRAM_CLUSTER")]
    pub(crate) cluster: Option<String>,
    /// Take names, owners and labels from this API server: in-cluster, or a kubeconfig's path.
    /// Each agent that does watches the whole cluster: where there is a collector, it does so
    /// for all of them [default: off]
    #[arg(long, value_name = "off|in-cluster|FILE", env = "ETHOGRAM_KUBERNETES")]
    pub(crate) kubernetes: Option<Reach>,
    /// Report to this collector: https://HOST:PORT, or http:// on a network that others
    /// may read
    #[arg(long, value_name = "URL", env = "ETHOGRAM_COLLECTOR")]
    pub(crate) collector: Option<String>,
    /// Believe collectors whose certificate this authority signed
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_COLLECTOR_CA")]
    pub(crate) collector_ca: Option<PathBuf>,
    /// Show the collector this certificate, which names the node
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_COLLECTOR_CERT")]
    pub(crate) collector_cert: Option<PathBuf>,
    /// The certificate's key
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_COLLECTOR_KEY")]
    pub(crate) collector_key: Option<PathBuf>,
    /// Show the collector the token in this file
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Forget what was not seen for this time (12h, 30d) [default: 30d]
    #[arg(long, value_name = "TIME", env = "ETHOGRAM_RETENTION_AGE", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub(crate) retention_age: Option<Duration>,
    /// Forget the oldest above this size (500MiB, 2GiB) [default: 1GiB]
    #[arg(long, value_name = "SIZE", env = "ETHOGRAM_RETENTION_SIZE", value_parser = parse_size)]
    #[serde(deserialize_with = "size")]
    pub(crate) retention_size: Option<u64>,
    /// Behaviours counted in the kernel at a time (about 160 bytes each); more take a
    /// slower way [default: 262144]
    #[arg(long, value_name = "N", env = "ETHOGRAM_BEHAVIOURS_MAX", value_parser = parse_behaviours)]
    #[serde(deserialize_with = "behaviours")]
    pub(crate) behaviours_max: Option<u32>,
    /// Size of the ring buffer for new names, in KiB; a power of two [default: 16384]
    #[arg(long, value_name = "KIB", env = "ETHOGRAM_RING_KIB", value_parser = parse_ring_kib)]
    #[serde(deserialize_with = "ring_kib")]
    pub(crate) ring_kib: Option<u32>,
    /// Rows of one kind and outcome of a container; where there are more, directories and
    /// addresses fold [default: 32768]
    #[arg(long, value_name = "N", env = "ETHOGRAM_ROWS_PER_CONTAINER_MAX", value_parser = parse_rows)]
    #[serde(deserialize_with = "rows")]
    pub(crate) rows_per_container_max: Option<u32>,
    /// By which hooks to watch [default: auto, i.e. trampolines where they load and fire]
    #[arg(
        long,
        value_name = "auto|tracepoint|trampoline",
        env = "ETHOGRAM_HOOKS"
    )]
    #[serde(deserialize_with = "hooks")]
    pub(crate) hooks: Option<HookChoice>,
    /// How log lines look [default: text]
    #[arg(long, value_name = "FORMAT", env = "ETHOGRAM_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    checked(from, parse_duration)
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    checked(from, parse_size)
}

fn behaviours<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    checked(from, parse_behaviours)
}

fn rows<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    checked(from, parse_rows)
}

fn ring_kib<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    checked(from, parse_ring_kib)
}

fn hooks<'de, D: Deserializer<'de>>(from: D) -> Result<Option<HookChoice>, D::Error> {
    checked(from, str::parse)
}

fn observability<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    checked(from, parse_observability)
}

fn kubearmor<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    checked(from, parse_kubearmor)
}

/// A value of the file, as text or number, checked as the flag's value is.
fn checked<'de, D: Deserializer<'de>, T>(
    from: D,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, D::Error> {
    let text = match toml::Value::deserialize(from)? {
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        other => {
            let unfit = format!("a text or a number is needed, not a {}", other.type_str());
            return Err(de::Error::custom(unfit));
        }
    };
    parse(&text).map(Some).map_err(de::Error::custom)
}

/// `1048576`, `512KiB`, `500MiB`, `2GiB`, `1TiB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "KiB" | "K" => 10,
        "MiB" | "M" => 20,
        "GiB" | "G" => 30,
        "TiB" | "T" => 40,
        unit => return Err(format!("unknown unit {unit:?}: use KiB, MiB, GiB or TiB")),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| "a size is needed, e.g. 500MiB, 2GiB".to_owned())?;
    count
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".to_owned())
}

/// What the agent goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) listen: Option<SocketAddr>,
    /// Where `karmor summary` is answered.
    pub(crate) observability_listen: Option<SocketAddr>,
    /// Where `karmor logs` is streamed to.
    pub(crate) kubearmor_listen: Option<SocketAddr>,
    /// Where a line for each change is written to.
    pub(crate) events: Option<PathBuf>,
    /// Whom to tell by OTLP what changes.
    pub(crate) otlp: Option<ethogram_neighbours::Receiver>,
    /// Only these are asked; `None`: those in the usual places.
    pub(crate) runtimes: Option<Vec<RuntimeEndpoint>>,
    pub(crate) host: bool,
    /// Without a slash at its end, so empty for the whole machine.
    pub(crate) cgroup_root: Vec<u8>,
    pub(crate) node: Option<String>,
    pub(crate) cluster: String,
    pub(crate) kubernetes: Reach,
    pub(crate) collector: Option<Collector>,
    pub(crate) retention: ethogram_store::Limits,
    pub(crate) limits: ethogram_sensor::Limits,
    pub(crate) hooks: HookChoice,
    pub(crate) log_format: LogFormat,
}

/// Where to report to, and what proves who is who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collector {
    pub(crate) url: String,
    pub(crate) ca: Option<PathBuf>,
    /// The certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) token_file: Option<PathBuf>,
}

impl Settings {
    /// From the command line and environment, and the file they name, if any.
    pub(crate) fn new(given: Options, file: Option<&Path>) -> Result<Self> {
        let kept = match file {
            Some(file) => read(file)?,
            None => read_if_there(Path::new(CONFIG_FILE))?,
        };
        given.over(kept).resolve()
    }
}

impl Settings {
    /// The store's file.
    pub(crate) fn store_file(&self) -> PathBuf {
        self.data_dir.join(STORE_FILE)
    }
}

impl Options {
    /// These, and where they say nothing, the others.
    fn over(self, other: Self) -> Self {
        let either = |ours: Vec<_>, theirs| if ours.is_empty() { theirs } else { ours };
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            socket: self.socket.or(other.socket),
            listen: self.listen.or(other.listen),
            observability_listen: self.observability_listen.or(other.observability_listen),
            kubearmor_listen: self.kubearmor_listen.or(other.kubearmor_listen),
            events: self.events.or(other.events),
            otlp: self.otlp.or(other.otlp),
            otlp_ca: self.otlp_ca.or(other.otlp_ca),
            cri_socket: either(self.cri_socket, other.cri_socket),
            docker_socket: either(self.docker_socket, other.docker_socket),
            podman_storage: either(self.podman_storage, other.podman_storage),
            host: self.host.or(other.host),
            cgroup_root: self.cgroup_root.or(other.cgroup_root),
            node: self.node.or(other.node),
            cluster: self.cluster.or(other.cluster),
            kubernetes: self.kubernetes.or(other.kubernetes),
            collector: self.collector.or(other.collector),
            collector_ca: self.collector_ca.or(other.collector_ca),
            collector_cert: self.collector_cert.or(other.collector_cert),
            collector_key: self.collector_key.or(other.collector_key),
            token_file: self.token_file.or(other.token_file),
            retention_age: self.retention_age.or(other.retention_age),
            retention_size: self.retention_size.or(other.retention_size),
            behaviours_max: self.behaviours_max.or(other.behaviours_max),
            ring_kib: self.ring_kib.or(other.ring_kib),
            rows_per_container_max: self.rows_per_container_max.or(other.rows_per_container_max),
            hooks: self.hooks.or(other.hooks),
            log_format: self.log_format.or(other.log_format),
        }
    }

    fn resolve(self) -> Result<Settings> {
        let asked = [
            self.listen,
            self.observability_listen,
            self.kubearmor_listen,
        ];
        let mut asked = asked.into_iter().flatten();
        if let Some(address) = asked.find(|address| !address.ip().is_loopback()) {
            bail!(
                "will not listen on {address}: without TLS, which is not available yet, what \
                 programs do would be readable by the whole network; listen on 127.0.0.1 and \
                 reach it by a tunnel, e.g. ssh -L 8686:127.0.0.1:8686 HOST"
            );
        }
        let default = ethogram_sensor::Limits::default();
        let behaviours_max = self.behaviours_max.unwrap_or(default.behaviours_max);
        let otlp = self.otlp.as_deref();
        let otlp = otlp.map(|url| otlp_receiver(url, self.otlp_ca.as_deref()));
        let otlp = otlp.transpose()?;
        Ok(Settings {
            runtimes: self.runtimes(),
            collector: self.collector()?,
            data_dir: self.data_dir.unwrap_or_else(|| DATA_DIR.into()),
            socket: self.socket.unwrap_or_else(|| SOCKET.into()),
            listen: self.listen,
            observability_listen: self.observability_listen,
            kubearmor_listen: self.kubearmor_listen,
            events: self.events,
            otlp,
            host: self.host.unwrap_or(false),
            cgroup_root: cgroup_root(self.cgroup_root.as_deref())?,
            node: self.node,
            cluster: self.cluster.unwrap_or_default(),
            kubernetes: self.kubernetes.unwrap_or(Reach::Off),
            retention: ethogram_store::Limits {
                age_max: Some(self.retention_age.unwrap_or(RETENTION_AGE)),
                bytes_max: Some(self.retention_size.unwrap_or(RETENTION_BYTES)),
            },
            hooks: self.hooks.unwrap_or_default(),
            limits: ethogram_sensor::Limits {
                behaviours_max,
                behaviours_per_cgroup_max: behaviours_max.div_ceil(CGROUP_SHARE),
                ring_bytes: self.ring_kib.map_or(default.ring_bytes, |kib| kib * 1024),
                budget: self
                    .rows_per_container_max
                    .map_or(default.budget, Budget::new),
                ..default
            },
            log_format: self.log_format.unwrap_or_default(),
        })
    }

    fn collector(&self) -> Result<Option<Collector>> {
        let Some(url) = self.collector.clone() else {
            return Ok(None);
        };
        let identity = match (self.collector_cert.clone(), self.collector_key.clone()) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => bail!("collector-cert and collector-key belong together: set both or none"),
        };
        let is_secret = url.starts_with("https://");
        if !is_secret && !url.starts_with("http://") {
            bail!("{url:?} is no collector: write https://HOST:PORT, or http://HOST:PORT");
        }
        if is_secret && self.collector_ca.is_none() {
            bail!("an https collector needs collector-ca, the file of its certificate authority");
        }
        if !is_secret && identity.is_some() {
            bail!("collector-cert proves nothing over http: write https://HOST:PORT");
        }
        Ok(Some(Collector {
            url,
            ca: self.collector_ca.clone(),
            identity,
            token_file: self.token_file.clone(),
        }))
    }

    fn runtimes(&self) -> Option<Vec<RuntimeEndpoint>> {
        let of = |source, paths: &[PathBuf]| {
            let endpoint = move |path: &PathBuf| RuntimeEndpoint {
                source,
                path: path.clone(),
            };
            paths.iter().map(endpoint).collect::<Vec<_>>()
        };
        let named = [
            of(Source::Cri, &self.cri_socket),
            of(Source::Docker, &self.docker_socket),
            of(Source::PodmanFiles, &self.podman_storage),
        ]
        .concat();
        (!named.is_empty()).then_some(named)
    }
}

fn read(file: &Path) -> Result<Options> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration file {}", file.display()))?;
    parse(&text, file)
}

fn read_if_there(file: &Path) -> Result<Options> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Options::default()),
        _ => read(file),
    }
}

fn parse(text: &str, file: &Path) -> Result<Options> {
    toml::from_str(text).map_err(|error| {
        let place = match error.span() {
            Some(span) => format!(":{}", place_of(text, span.start)),
            None => String::new(),
        };
        // The message of an unknown key lists those that there are.
        anyhow::anyhow!("{}{place}: {}", file.display(), error.message().trim_end())
    })
}

/// `LINE:COLUMN`, from 1, of a byte.
fn place_of(text: &str, byte: usize) -> String {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("{line}:{column}")
}

fn cgroup_root(path: Option<&str>) -> Result<Vec<u8>> {
    let path = path.unwrap_or("/");
    if !path.starts_with('/') {
        bail!(
            "{path:?} is no cgroup: write its path below the hierarchy's root, which begins with /"
        );
    }
    Ok(path.trim_end_matches('/').into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(given: Options, file: &str) -> Result<Settings> {
        given.over(parse(file, Path::new("agent.toml"))?).resolve()
    }

    fn refusal(file: &str) -> String {
        format!("{:#}", settings(Options::default(), file).unwrap_err())
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        let settings = settings(Options::default(), "").unwrap();
        assert_eq!(settings.data_dir, Path::new(DATA_DIR));
        assert_eq!(settings.socket, Path::new(SOCKET));
        assert_eq!(settings.listen, None);
        assert_eq!(settings.runtimes, None);
        assert!(!settings.host);
        assert_eq!(settings.limits, ethogram_sensor::Limits::default());
        assert_eq!(settings.retention.bytes_max, Some(RETENTION_BYTES));
        assert_eq!(settings.log_format, LogFormat::Text);
    }

    #[test]
    fn every_key_of_the_file_counts_and_flags_win() {
        let file = r#"
            data-dir = "/d"
            socket = "/s"
            listen = "127.0.0.1:8686"
            observability-listen = "127.0.0.1"
            kubearmor-listen = "127.0.0.1"
            events = "-"
            otlp = "https://o:4317"
            otlp-ca = "/otlp"
            cri-socket = ["/cri"]
            docker-socket = ["/docker"]
            podman-storage = ["/podman"]
            host = true
            cgroup-root = "/docker/node/"
            node = "n"
            cluster = "c"
            kubernetes = "/kubeconfig"
            collector = "https://c:1"
            collector-ca = "/ca"
            collector-cert = "/cert"
            collector-key = "/key"
            token-file = "/token"
            retention-age = "12h"
            retention-size = "2GiB"
            behaviours-max = 8
            ring-kib = 64
            rows-per-container-max = 1000
            hooks = "tracepoint"
            log-format = "json"
        "#;
        let from_file = settings(Options::default(), file).unwrap();
        let endpoints: Vec<_> = from_file.runtimes.iter().flatten().collect();
        let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(
            endpoints,
            ["cri:/cri", "docker:/docker", "podman-files:/podman"]
        );
        assert_eq!(
            Settings {
                runtimes: None,
                ..from_file.clone()
            },
            Settings {
                data_dir: "/d".into(),
                socket: "/s".into(),
                listen: Some("127.0.0.1:8686".parse().unwrap()),
                observability_listen: Some("127.0.0.1:9089".parse().unwrap()),
                kubearmor_listen: Some("127.0.0.1:32767".parse().unwrap()),
                events: Some("-".into()),
                otlp: Some(ethogram_neighbours::Receiver {
                    url: "https://o:4317".into(),
                    ca: Some("/otlp".into()),
                }),
                runtimes: None,
                host: true,
                cgroup_root: b"/docker/node".to_vec(),
                node: Some("n".into()),
                cluster: "c".into(),
                kubernetes: Reach::Kubeconfig("/kubeconfig".into()),
                collector: Some(Collector {
                    url: "https://c:1".into(),
                    ca: Some("/ca".into()),
                    identity: Some(("/cert".into(), "/key".into())),
                    token_file: Some("/token".into()),
                }),
                retention: ethogram_store::Limits {
                    age_max: Some(Duration::from_secs(43_200)),
                    bytes_max: Some(2 << 30),
                },
                hooks: HookChoice::Tracepoint,
                limits: ethogram_sensor::Limits {
                    behaviours_max: 8,
                    behaviours_per_cgroup_max: 2,
                    ring_bytes: 65_536,
                    budget: Budget::new(1000),
                    ..ethogram_sensor::Limits::default()
                },
                log_format: LogFormat::Json,
            }
        );
        let given = Options {
            data_dir: Some("/flag".into()),
            host: Some(false),
            cri_socket: vec!["/flag.sock".into()],
            ..Options::default()
        };
        let both = settings(given, file).unwrap();
        assert_eq!(both.data_dir, Path::new("/flag"));
        assert!(!both.host);
        assert_eq!(both.runtimes.unwrap()[0].path, Path::new("/flag.sock"));
        assert_eq!(both.socket, Path::new("/s"));
    }

    #[test]
    fn a_wrong_line_is_named_with_what_would_be_right() {
        let unknown = refusal("host = true\ndata_dir = \"/x\"\n");
        assert!(
            unknown.starts_with("agent.toml:2:1: unknown field `data_dir`"),
            "{unknown}"
        );
        for key in [
            "`data-dir`",
            "`retention-size`",
            "`ring-kib`",
            "`rows-per-container-max`",
            "`log-format`",
        ] {
            assert!(unknown.contains(key), "{unknown}");
        }
        for (file, place, words) in [
            ("\nhost = 3", "agent.toml:2:8: ", "boolean"),
            (
                "retention-age = \"5w\"",
                "agent.toml:1:17: ",
                "use s, m, h or d",
            ),
            (
                "retention-size = true",
                "agent.toml:1:18: ",
                "not a boolean",
            ),
            ("rows-per-container-max = 1", "agent.toml:1:26: ", "128 to"),
            ("ring-kib = 100", "agent.toml:1:12: ", "power of two"),
            ("behaviours-max = 0", "agent.toml:1:18: ", "1 to"),
            (
                "log-format = \"xml\"",
                "agent.toml:1:14: ",
                "`text` or `json`",
            ),
            ("listen = \"x\"", "agent.toml:1:10: ", "socket address"),
            ("host = ", "agent.toml:1:8: ", "string"),
            (
                "host = true\nhost = true",
                "agent.toml:2:1: ",
                "duplicate key",
            ),
        ] {
            let text = refusal(file);
            assert!(
                text.starts_with(place) && text.contains(words),
                "{file:?}: {text}"
            );
        }
    }

    #[test]
    fn only_this_machine_may_be_listened_to() {
        for address in ["0.0.0.0:80", "192.168.0.1:80", "[::]:80"] {
            for key in ["listen", "observability-listen", "kubearmor-listen"] {
                let text = refusal(&format!("{key} = {address:?}"));
                assert!(text.contains("TLS") && text.contains("tunnel"), "{text}");
            }
        }
        for address in ["127.0.0.1:80", "127.1.2.3:80", "[::1]:80"] {
            settings(Options::default(), &format!("listen = {address:?}")).unwrap();
        }
    }

    #[test]
    fn a_collector_that_cannot_be_trusted_is_refused() {
        for (rest, words) in [
            ("collector = \"c:1\"", "no collector"),
            ("collector = \"https://c:1\"", "needs collector-ca"),
            (
                "collector = \"http://c:1\"\ncollector-cert = \"/c\"",
                "belong together",
            ),
            (
                "collector = \"http://c:1\"\ncollector-cert = \"/c\"\ncollector-key = \"/k\"",
                "proves nothing",
            ),
        ] {
            let text = refusal(rest);
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("10", 10),
            ("3KiB", 3072),
            ("2M", 2 << 20),
            ("1GiB", 1 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "GiB", "1PB", "-1", "1.5GiB", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
