//! Between pages of a spool, batches of the protocol, and reports for a store.

use crate::{
    proto,
    strings::{Numbers, Strings},
};
use ethogram_model::{
    Access, Behaviour, BootId, Container, ContainerKey, Endpoint, Kind, Labels, Loss, LossReason,
    Name, Observation, Protocol, Resolution, Run, Runtime, Status, Tally, Timestamp, Workload,
};
use ethogram_store::{Changes, ContainerChanges, Report};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Labels of one container or address beyond these bytes are not sent: their author could
/// keep a node's reports from fitting into a batch.
const LABEL_BYTES_MAX: usize = 64 * 1024;

/// Puts a page into a batch; sequence and stamp are the caller's.
pub(crate) fn encode(changes: &Changes, clock: Timestamp, numbers: &mut Numbers) -> proto::Batch {
    let forget_strings = numbers.is_crowded();
    if forget_strings {
        numbers.forget();
    }
    let containers = changes.containers.iter();
    let endpoints = changes.endpoints.iter();
    let runs = changes.runs.iter();
    let resolutions = changes.resolutions.iter();
    proto::Batch {
        clock_ns: clock.0,
        caught_up: changes.position.is_at_rest(),
        forget_strings,
        containers: containers
            .map(|c| encode_container(c, clock, numbers))
            .collect(),
        endpoints: endpoints.map(|e| encode_endpoint(e, numbers)).collect(),
        runs: runs.map(|r| encode_run(r, numbers)).collect(),
        resolutions: resolutions.map(|r| encode_resolution(r, numbers)).collect(),
        strings: numbers.take_new(),
        ..proto::Batch::default()
    }
}

fn encode_container(
    changes: &ContainerChanges,
    clock: Timestamp,
    numbers: &mut Numbers,
) -> proto::Container {
    let container = &changes.container;
    let observations = changes.observations.iter();
    let losses = changes.losses.iter();
    proto::Container {
        boot_string: numbers.number(container.key.boot.as_str()),
        cgroup: container.key.cgroup,
        incarnation: container.key.incarnation,
        runtime_string: numbers.number(container.runtime.as_str()),
        id_string: numbers.number(&container.id),
        name_string: numbers.number(&container.name),
        image_string: numbers.number(&container.image),
        namespace_string: numbers.number(&container.namespace),
        pod_string: numbers.number(&container.pod),
        pod_uid_string: numbers.number(&container.pod_uid),
        workload_kind_string: numbers.number(&container.workload.kind),
        workload_name_string: numbers.number(&container.workload.name),
        label_strings: encode_labels(&container.labels, numbers),
        cgroup_path_string: numbers.number(container.cgroup_path.as_str()),
        watched_since_ns: container.watched_since.0,
        present_at_start: container.present_at_start,
        ended_ns: container.ended.map(|time| time.0),
        observations: observations
            .map(|o| encode_observation(o, clock, numbers))
            .collect(),
        losses: losses
            .map(|loss| proto::Loss {
                reason: loss.reason.number().into(),
                count: loss.count,
            })
            .collect(),
    }
}

fn encode_labels(labels: &Labels, numbers: &mut Numbers) -> Vec<u32> {
    let mut bytes = 0;
    labels
        .iter()
        .take_while(|(key, value)| {
            bytes += key.len() + value.len();
            bytes <= LABEL_BYTES_MAX
        })
        .flat_map(|(key, value)| [numbers.number(key), numbers.number(value)])
        .collect()
}

fn encode_observation(
    observation: &Observation,
    clock: Timestamp,
    numbers: &mut Numbers,
) -> proto::Observation {
    let behaviour = &observation.behaviour;
    proto::Observation {
        kind: behaviour.kind.number().into(),
        source_string: numbers.number(behaviour.source.as_str()),
        target_string: numbers.number(behaviour.target.as_str()),
        protocol: behaviour.protocol.number().into(),
        port: behaviour.port.into(),
        access: behaviour.access.bits().into(),
        status: behaviour.status.number().into(),
        count: observation.tally.count,
        // Wraps where it cannot be expressed, and so does its way back.
        first_before_ns: clock.0.wrapping_sub(observation.tally.first.0),
        last_before_ns: clock.0.wrapping_sub(observation.tally.last.0),
        example_string: numbers.number(observation.example.as_str()),
    }
}

fn encode_ip(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn encode_resolution(resolution: &Resolution, numbers: &mut Numbers) -> proto::Resolution {
    proto::Resolution {
        boot_string: numbers.number(resolution.container.boot.as_str()),
        cgroup: resolution.container.cgroup,
        incarnation: resolution.container.incarnation,
        ip: encode_ip(resolution.ip),
        name: resolution.name.as_str().to_owned(),
        first_ns: resolution.first.0,
        last_ns: resolution.last.0,
    }
}

fn encode_endpoint(endpoint: &Endpoint, numbers: &mut Numbers) -> proto::Endpoint {
    proto::Endpoint {
        ip: encode_ip(endpoint.ip),
        name_string: numbers.number(&endpoint.name),
        namespace_string: numbers.number(&endpoint.namespace),
        label_strings: encode_labels(&endpoint.labels, numbers),
        from_ns: endpoint.from.0,
        until_ns: endpoint.until.map(|time| time.0),
    }
}

fn encode_run(run: &Run, numbers: &mut Numbers) -> proto::Run {
    proto::Run {
        id_string: numbers.number(&run.id),
        boot_string: numbers.number(run.boot.as_str()),
        hooks_string: numbers.number(&run.hooks),
        started_ns: run.started.0,
        last_alive_ns: run.last_alive.0,
        ended_cleanly: run.ended_cleanly,
    }
}

/// Whose batches these are, as the collector has convinced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The machine's name.
    pub(crate) node: String,
    /// The identity of the agent's store.
    pub(crate) store: String,
    /// The boot that is running.
    pub(crate) boot: String,
}

impl Origin {
    /// The boot as the collector keeps it. Machines cloned while they ran have the same
    /// boot id, and anyone could claim another's; with its node it is the node's own.
    fn boot(&self, boot: &str) -> BootId {
        BootId::new(&format!("{}/{boot}", self.node))
    }

    /// What the names of the sources of totals of this store begin with. The latest that one
    /// of them was alive is the highest stamp that a collector's store holds.
    pub(crate) fn source_prefix(&self) -> String {
        format!("totals/{}/{}/", self.node, self.store)
    }

    /// The source of totals for containers of one boot: what the store takes for their one
    /// run. It watched nothing itself, so it has no boot and no node that would say so.
    /// When an agent's store begins anew, so do its counts, under a new source.
    fn source(&self, boot: &str, stamp: i64) -> Run {
        Run {
            id: self.source_prefix() + boot,
            boot: BootId::new(""),
            node: String::new(),
            hooks: String::new(),
            started: Timestamp(0),
            last_alive: Timestamp(stamp),
            ended_cleanly: true,
        }
    }
}

/// A batch that no agent should have sent: what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What a batch says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// To be applied one after the other.
    pub(crate) reports: Vec<Report>,
    /// Rows of kinds that this version does not know.
    pub(crate) unknown: u64,
}

/// Reads a batch whose strings are learned.
pub(crate) fn decode(
    batch: &proto::Batch,
    strings: &Strings,
    origin: &Origin,
) -> Result<Decoded, Malformed> {
    let mut decoded = Decoded::default();
    let mut by_boot: BTreeMap<&str, Report> = BTreeMap::new();
    let mut own = Report::empty(origin.source(&origin.boot, batch.stamp));
    for endpoint in &batch.endpoints {
        own.endpoints.push(decode_endpoint(endpoint, strings)?);
    }
    by_boot.insert(&origin.boot, own);
    // The report of the running boot comes last and alone has the stamp, so that the stamp
    // never stands for what a power cut may have taken.
    let earlier = batch.stamp.saturating_sub(1);
    for container in &batch.containers {
        let boot = text(strings, container.boot_string)?;
        let report = by_boot
            .entry(boot)
            .or_insert_with(|| Report::empty(origin.source(boot, earlier)));
        let described = decode_container(container, strings, origin)?;
        for row in &container.observations {
            match decode_observation(row, &described.key, batch.clock_ns, strings)? {
                Some(observation) => report.observations.push(observation),
                None => decoded.unknown += 1,
            }
        }
        for loss in &container.losses {
            let reason = u8::try_from(loss.reason)
                .ok()
                .and_then(LossReason::from_number);
            match reason {
                Some(reason) => {
                    let count = loss.count;
                    report
                        .losses
                        .push((described.key.clone(), Loss { reason, count }));
                }
                None => decoded.unknown += 1,
            }
        }
        report.containers.push(described);
    }
    for resolution in &batch.resolutions {
        let boot = text(strings, resolution.boot_string)?;
        let report = by_boot
            .entry(boot)
            .or_insert_with(|| Report::empty(origin.source(boot, earlier)));
        let decoded = decode_resolution(resolution, origin.boot(boot))?;
        report.resolutions.push(decoded);
    }
    for run in &batch.runs {
        let run = decode_run(run, strings, origin)?;
        decoded.reports.push(Report::empty(run));
    }
    let own = by_boot.remove(origin.boot.as_str());
    decoded.reports.extend(by_boot.into_values());
    decoded.reports.extend(own);
    Ok(decoded)
}

fn name(strings: &Strings, number: u32) -> Result<Name, Malformed> {
    strings
        .name(number)
        .cloned()
        .ok_or(Malformed("a string that was never sent"))
}

fn text(strings: &Strings, number: u32) -> Result<&str, Malformed> {
    let name = strings.name(number);
    name.map(Name::as_str)
        .ok_or(Malformed("a string that was never sent"))
}

fn decode_labels(strings: &Strings, numbers: &[u32]) -> Result<Labels, Malformed> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Malformed("a label without a value"));
    }
    let text = |number| text(strings, number).map(str::to_owned);
    pairs
        .iter()
        .map(|&[key, value]| Ok((text(key)?, text(value)?)))
        .collect()
}

fn decode_container(
    container: &proto::Container,
    strings: &Strings,
    origin: &Origin,
) -> Result<Container, Malformed> {
    let text = |number| text(strings, number);
    let owned = |number| text(number).map(str::to_owned);
    Ok(Container {
        key: ContainerKey {
            boot: origin.boot(text(container.boot_string)?),
            cgroup: container.cgroup,
            incarnation: container.incarnation,
        },
        node: origin.node.clone(),
        runtime: Runtime::from_word(text(container.runtime_string)?),
        id: owned(container.id_string)?,
        name: owned(container.name_string)?,
        image: owned(container.image_string)?,
        namespace: owned(container.namespace_string)?,
        pod: owned(container.pod_string)?,
        pod_uid: owned(container.pod_uid_string)?,
        workload: Workload {
            kind: owned(container.workload_kind_string)?,
            name: owned(container.workload_name_string)?,
        },
        labels: decode_labels(strings, &container.label_strings)?,
        cgroup_path: name(strings, container.cgroup_path_string)?,
        watched_since: Timestamp(container.watched_since_ns),
        present_at_start: container.present_at_start,
        ended: container.ended_ns.map(Timestamp),
    })
}

/// `None` for a row that only a newer version understands.
fn decode_observation(
    row: &proto::Observation,
    container: &ContainerKey,
    clock_ns: i64,
    strings: &Strings,
) -> Result<Option<Observation>, Malformed> {
    let source = name(strings, row.source_string)?;
    let target = name(strings, row.target_string)?;
    let example = name(strings, row.example_string)?;
    let port = u16::try_from(row.port).map_err(|_| Malformed("a port above 65535"))?;
    let small = |number: u32| u8::try_from(number).ok();
    let known = (
        small(row.kind).and_then(Kind::from_number),
        small(row.protocol).and_then(Protocol::from_number),
        u16::try_from(row.access).ok(),
        small(row.status).and_then(Status::from_number),
    );
    let (Some(kind), Some(protocol), Some(access), Some(status)) = known else {
        return Ok(None);
    };
    Ok(Some(Observation {
        container: container.clone(),
        behaviour: Behaviour {
            kind,
            source,
            target,
            protocol,
            port,
            access: Access::from_bits(access),
            status,
        },
        tally: Tally {
            count: row.count,
            first: Timestamp(clock_ns.wrapping_sub(row.first_before_ns)),
            last: Timestamp(clock_ns.wrapping_sub(row.last_before_ns)),
        },
        example,
    }))
}

fn decode_endpoint(endpoint: &proto::Endpoint, strings: &Strings) -> Result<Endpoint, Malformed> {
    Ok(Endpoint {
        ip: decode_ip(&endpoint.ip)?,
        name: text(strings, endpoint.name_string)?.to_owned(),
        namespace: text(strings, endpoint.namespace_string)?.to_owned(),
        labels: decode_labels(strings, &endpoint.label_strings)?,
        from: Timestamp(endpoint.from_ns),
        until: endpoint.until_ns.map(Timestamp),
    })
}

fn decode_ip(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ok(Ipv4Addr::from(octets).into())
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ok(Ipv6Addr::from(octets).into())
    } else {
        Err(Malformed("an address of neither 4 nor 16 bytes"))
    }
}

fn decode_resolution(
    resolution: &proto::Resolution,
    boot: BootId,
) -> Result<Resolution, Malformed> {
    Ok(Resolution {
        container: ContainerKey {
            boot,
            cgroup: resolution.cgroup,
            incarnation: resolution.incarnation,
        },
        ip: decode_ip(&resolution.ip)?,
        name: Name::from_escaped(&resolution.name),
        first: Timestamp(resolution.first_ns),
        last: Timestamp(resolution.last_ns),
    })
}

fn decode_run(run: &proto::Run, strings: &Strings, origin: &Origin) -> Result<Run, Malformed> {
    Ok(Run {
        id: format!("{}/{}", origin.node, text(strings, run.id_string)?),
        boot: origin.boot(text(strings, run.boot_string)?),
        node: origin.node.clone(),
        hooks: text(strings, run.hooks_string)?.to_owned(),
        started: Timestamp(run.started_ns),
        last_alive: Timestamp(run.last_alive_ns),
        ended_cleanly: run.ended_cleanly,
    })
}

#[cfg(test)]
mod tests;
