//! What an event says: who did what, and how it ended.

use super::words::value;
use crate::{
    feeder::{Alert, Log, Podowner},
    words::parse_labels,
};
use ethogram_model::{
    Access, Behaviour, BootId, Container, ContainerKey, Kind, Labels, Name, Protocol, Runtime,
    Status, Timestamp, Workload,
};
use std::net::IpAddr;

/// Where KubeArmor puts containers that no orchestrator runs.
const NO_NAMESPACE: &str = "container_namespace";
/// The longest text that is kept; of longer ones the end is.
const TEXT_BYTES_MAX: usize = 4_096;
/// The bits of a key that are made of a hash: the top byte means something in a cgroup id.
const KEY_BITS: u32 = 56;

/// Which of the two streams an event came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Log,
    Alert,
}

/// An event of either stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Event {
    pub(super) side: Side,
    pub(super) host: String,
    pub(super) host_pid: i32,
    namespace: String,
    pod: String,
    pub(super) container_id: String,
    container_name: String,
    image: String,
    labels: String,
    owner: Option<(String, String)>,
    updated: String,
    seconds: i64,
    pub(super) r#type: String,
    source: String,
    pub(super) operation: String,
    pub(super) resource: String,
    pub(super) data: String,
    action: String,
    result: String,
    process: String,
    parent: String,
}

/// What an event is for us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Something was done.
    Done {
        behaviour: Behaviour,
        example: Name,
        /// A connect of which TCP has an event of its own, if it is TCP's.
        maybe_tcp: bool,
    },
    /// A notice that alerts are left out.
    LeftOut,
    /// Something that we have no row for.
    Other,
}

fn owner(owner: Option<Podowner>) -> Option<(String, String)> {
    let owner = owner.filter(|owner| !owner.name.is_empty())?;
    Some((owner.r#ref, owner.name))
}

impl From<Log> for Event {
    fn from(log: Log) -> Self {
        Self {
            side: Side::Log,
            host: log.host_name,
            host_pid: log.host_pid,
            namespace: log.namespace_name,
            pod: log.pod_name,
            container_id: log.container_id,
            container_name: log.container_name,
            image: log.container_image,
            labels: log.labels,
            owner: owner(log.owner),
            updated: log.updated_time,
            seconds: log.timestamp,
            r#type: log.r#type,
            source: log.source,
            operation: log.operation,
            resource: log.resource,
            data: log.data,
            action: String::new(),
            result: log.result,
            process: log.process_name,
            parent: log.parent_process_name,
        }
    }
}

impl From<Alert> for Event {
    fn from(alert: Alert) -> Self {
        Self {
            side: Side::Alert,
            host: alert.host_name,
            host_pid: alert.host_pid,
            namespace: alert.namespace_name,
            pod: alert.pod_name,
            container_id: alert.container_id,
            container_name: alert.container_name,
            image: alert.container_image,
            labels: alert.labels,
            owner: owner(alert.owner),
            updated: alert.updated_time,
            seconds: alert.timestamp,
            r#type: alert.r#type,
            source: alert.source,
            operation: alert.operation,
            resource: alert.resource,
            data: alert.data,
            action: alert.action,
            result: alert.result,
            process: alert.process_name,
            parent: alert.parent_process_name,
        }
    }
}

impl Event {
    /// When it happened, as far as is told; never 1970.
    pub(super) fn time(&self, now: Timestamp) -> Timestamp {
        let precise = self.updated.parse::<jiff::Timestamp>().ok();
        let precise = precise.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
        let coarse = self.seconds.checked_mul(1_000_000_000);
        let told = precise.or(coarse).filter(|ns| *ns > 0);
        Timestamp(told.map_or(now.0, |ns| ns.min(now.0)))
    }

    pub(super) fn is_of_host(&self) -> bool {
        self.container_id.is_empty() || self.r#type.contains("Host")
    }

    pub(super) fn key(&self, boot: &BootId) -> ContainerKey {
        let id = if self.is_of_host() {
            ""
        } else {
            &self.container_id
        };
        ContainerKey {
            boot: boot.clone(),
            cgroup: hash(&[self.host.as_bytes(), id.as_bytes()]),
            incarnation: 0,
        }
    }

    /// Who did it, as far as this event knows.
    pub(super) fn container(&self, boot: &BootId, watched_since: Timestamp) -> Container {
        let host = printable(&self.host);
        let bare = Container {
            node: host.clone(),
            // What was done before the stream was opened is not known.
            present_at_start: true,
            ..Container::unknown(self.key(boot), Name::default(), watched_since)
        };
        if self.is_of_host() {
            return Container {
                runtime: Runtime::Host,
                name: host.clone(),
                workload: Workload {
                    kind: "host".into(),
                    name: host,
                },
                ..bare
            };
        }
        let in_pod = !self.pod.is_empty() && self.namespace != NO_NAMESPACE;
        let workload = self.owner.as_ref().filter(|_| in_pod);
        Container {
            id: printable(&self.container_id),
            name: printable(&self.container_name),
            image: printable(self.image.split('@').next().unwrap_or_default()),
            namespace: if in_pod {
                printable(&self.namespace)
            } else {
                String::new()
            },
            pod: if in_pod {
                printable(&self.pod)
            } else {
                String::new()
            },
            workload: workload.map_or_else(Workload::default, |(kind, name)| Workload {
                kind: printable(&kind.to_lowercase()),
                name: printable(name),
            }),
            labels: printable_labels(&self.labels),
            ..bare
        }
    }

    pub(super) fn meaning(&self) -> Meaning {
        match self.operation.as_str() {
            "Process" => self.exec(),
            "File" => self.file(),
            "Network" => self.network(),
            "Capabilities" => self.plain(Kind::Capability, &self.resource),
            "Syscall" => self.call(),
            "AlertThreshold" => Meaning::LeftOut,
            _ => Meaning::Other,
        }
    }

    /// How it ended. Whoever refused, a refusal is one.
    pub(super) fn status(&self) -> Status {
        let passed = self.result.is_empty() || self.result == "Passed";
        let refused = ["Permission denied", "Operation not permitted"];
        match self.action.as_str() {
            "Block" => Status::Deny,
            _ if refused.contains(&self.result.as_str()) => Status::Deny,
            _ if !passed => Status::Failed,
            action if action.starts_with("Audit") => Status::Audit,
            _ => Status::Allow,
        }
    }

    fn done(&self, behaviour: Behaviour) -> Meaning {
        Meaning::Done {
            behaviour: Behaviour {
                status: self.status(),
                ..behaviour
            },
            example: Name::default(),
            maybe_tcp: false,
        }
    }

    fn plain(&self, kind: Kind, target: &str) -> Meaning {
        let (source, _) = program(&self.source, &self.process);
        self.done(Behaviour::new(kind, name(source), name(target)))
    }

    fn exec(&self) -> Meaning {
        let (source, _) = program(&self.source, &self.parent);
        let (path, arguments) = program(&self.resource, &self.process);
        let behaviour = Behaviour::new(Kind::Process, name(source), name(path));
        let example = if arguments.is_empty() {
            Name::default()
        } else {
            name(&format!("{path}{arguments}"))
        };
        Meaning::Done {
            behaviour: Behaviour {
                status: self.status(),
                ..behaviour
            },
            example,
            maybe_tcp: false,
        }
    }

    fn file(&self) -> Meaning {
        let (source, _) = program(&self.source, &self.process);
        let mut behaviour = Behaviour::new(Kind::File, name(source), name(&self.resource));
        behaviour.access = self.access();
        self.done(behaviour)
    }

    fn access(&self) -> Access {
        let call = value(&self.data, "syscall").unwrap_or_default();
        let flags = value(&self.data, "flags").unwrap_or_default();
        let mut access = match call {
            _ if flags.contains("O_RDWR") => Access::READ | Access::WRITE,
            _ if flags.contains("O_WRONLY") => Access::WRITE,
            _ if flags.contains("O_RDONLY") => Access::READ,
            "SYS_UNLINK" | "SYS_UNLINKAT" | "SYS_RMDIR" => Access::DELETE,
            "SYS_CHOWN" | "SYS_FCHOWNAT" => Access::ATTR,
            _ => Access::empty(),
        };
        if self.resource.len() > TEXT_BYTES_MAX {
            access |= Access::CUT;
        }
        access
    }

    fn call(&self) -> Meaning {
        let call = value(&self.data, "syscall").unwrap_or_default();
        match call.strip_prefix("SYS_") {
            Some(call) => self.plain(Kind::Syscall, &call.to_lowercase()),
            None => Meaning::Other,
        }
    }

    fn network(&self) -> Meaning {
        let said = |key| value(&self.resource, key).or_else(|| value(&self.data, key));
        let how = ["kprobe", "syscall", "lsm", "kfunc"];
        let how = how.iter().find_map(|key| value(&self.data, key));
        let how = how.unwrap_or_default().to_lowercase();
        let kind = if how.contains("bind") {
            Kind::Bind
        } else if how.contains("accept") {
            Kind::Ingress
        } else if how.contains("connect") || how.contains("udp_sendskb") {
            Kind::Egress
        } else if how.contains("socket") && self.status() == Status::Deny {
            return self.plain(Kind::Syscall, "socket");
        } else {
            return Meaning::Other;
        };
        let is_tcp = how.starts_with("tcp_");
        let address = ["remoteip", "daddr", "sin_addr"].into_iter().find_map(said);
        let port = ["port", "sin_port"].into_iter().find_map(said);
        let family = said("sa_family").or_else(|| said("domain"));
        let family = family.unwrap_or_default();
        let (source, _) = program(&self.source, &self.process);
        let (protocol, target) = match (said("sun_path"), family) {
            (Some(path), _) => (Protocol::Unix, unix_name(path)),
            (None, "AF_NETLINK") => (Protocol::Netlink, String::new()),
            (None, "AF_UNIX") => (Protocol::Unix, String::new()),
            (None, _) => {
                let ip = address.and_then(|text| text.parse::<IpAddr>().ok());
                let target = ip.map_or_else(String::new, |ip| ip.to_canonical().to_string());
                (self.protocol(&how, family), target)
            }
        };
        let behaviour = Behaviour {
            protocol,
            port: port.and_then(|port| port.parse().ok()).unwrap_or_default(),
            ..Behaviour::new(kind, name(source), name(&target))
        };
        let is_ip = !target.is_empty() && protocol != Protocol::Unix;
        match self.done(behaviour) {
            Meaning::Done {
                behaviour, example, ..
            } => Meaning::Done {
                behaviour,
                example,
                maybe_tcp: kind == Kind::Egress && is_ip && !is_tcp && how.contains("connect"),
            },
            other => other,
        }
    }

    /// The protocol as far as it is told: that of a bind or connect is not.
    fn protocol(&self, how: &str, family: &str) -> Protocol {
        let is_six = family == "AF_INET6";
        let told = value(&self.resource, "protocol").and_then(Protocol::from_word);
        match told {
            Some(Protocol::Tcp) if is_six => Protocol::Tcp6,
            Some(protocol) => protocol,
            None if how.contains("udp") && is_six => Protocol::Udp6,
            None if how.contains("udp") => Protocol::Udp,
            None => Protocol::None,
        }
    }
}

/// The program at the beginning of a command line, and what follows it. KubeArmor tells the
/// program's path apart from the line in newer versions; in others it ends at the first space.
fn program<'a>(line: &'a str, path: &str) -> (&'a str, &'a str) {
    let fits = |rest: &str| rest.is_empty() || rest.starts_with(' ');
    if !path.is_empty() && line.strip_prefix(path).is_some_and(fits) {
        return line.split_at(path.len());
    }
    line.split_at(line.find(' ').unwrap_or(line.len()))
}

fn unix_name(path: &str) -> String {
    match path.strip_prefix('\0') {
        Some(name) => format!("@{name}"),
        None => path.to_owned(),
    }
}

fn name(text: &str) -> Name {
    let cut = text.len().saturating_sub(TEXT_BYTES_MAX);
    Name::from_bytes(&text.as_bytes()[cut..])
}

fn printable(text: &str) -> String {
    name(text).to_string()
}

fn printable_labels(text: &str) -> Labels {
    // Whatever is no label is left out: it names nobody.
    let labels = text.split(',').filter_map(|part| parse_labels(part).ok());
    labels
        .flatten()
        .map(|(key, value)| (printable(&key), printable(&value)))
        .collect()
}

/// FNV-1a: the same for ever, whatever the version of Rust.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash & ((1 << KEY_BITS) - 1)
}
