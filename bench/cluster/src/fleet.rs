//! A cluster that does not exist: nodes, their containers, and what these do how often.
//!
//! Everything is a function of numbers, so that 5,000 nodes need no memory, and two runs
//! see the same cluster. Nothing here is measured; it is the load.

use ethogram_cluster::proto;
use std::collections::HashMap;

/// Containers of a node at a time.
pub(crate) const CONTAINERS: u32 = 30;
/// Behaviours of a container.
pub(crate) const BEHAVIOURS: u32 = 300;
/// Different images.
const APPS: u64 = 200;
/// How fast the activity of a node falls from its busiest container to the next.
const CONTAINER_SKEW: f64 = 1.2;
/// How fast the activity of a container falls from its commonest behaviour to the next.
const BEHAVIOUR_SKEW: f64 = 1.5;
/// What all containers of a node do in a second.
pub(crate) const EVENTS_PER_SECOND: f64 = 1_000.0;
/// How long a container lives on average before it is replaced, in seconds.
pub(crate) const LIFETIME_S: f64 = 6.0 * 3_600.0;

/// Half of what a stream may remember: the other half is for what one batch brings. The
/// real sender forgets at the same point.
const STRINGS_BEFORE_FORGETTING: usize = 8_192;
const STRING_BYTES_BEFORE_FORGETTING: usize = 512 * 1024;

/// Mixes a number, so that neighbours have nothing in common.
pub(crate) fn scattered(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 32
}

/// A row of a node: which container, which of its behaviours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: u32,
    pub(crate) behaviour: u32,
}

/// How likely each row changes between two reports.
pub(crate) struct Activity {
    /// By slot and behaviour, in 2^-32.
    thresholds: Vec<u64>,
    restart_threshold: u64,
}

impl Activity {
    pub(crate) fn new(interval_s: f64) -> Self {
        let containers = zipf(CONTAINERS, CONTAINER_SKEW);
        let behaviours = zipf(BEHAVIOURS, BEHAVIOUR_SKEW);
        let threshold = |events: f64| ((1.0 - (-events).exp()) * f64::from(u32::MAX)) as u64;
        let events = EVENTS_PER_SECOND * interval_s;
        let of_container = |share: &f64| {
            let share = *share;
            behaviours.iter().map(move |part| events * share * part)
        };
        Self {
            thresholds: containers
                .iter()
                .flat_map(of_container)
                .map(threshold)
                .collect(),
            restart_threshold: threshold(f64::from(CONTAINERS) * interval_s / LIFETIME_S),
        }
    }

    /// Rows of one node that change in an interval, on average.
    pub(crate) fn rows_expected(&self) -> f64 {
        self.thresholds
            .iter()
            .map(|t| *t as f64 / f64::from(u32::MAX))
            .sum()
    }
}

fn zipf(ranks: u32, skew: f64) -> Vec<f64> {
    let weights: Vec<f64> = (1..=ranks)
        .map(|rank| f64::from(rank).powf(-skew))
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// The strings of a stream, by what they stand for.
#[derive(Default)]
struct Numbers {
    known: HashMap<u64, u32>,
    bytes: usize,
    new: Vec<String>,
}

impl Numbers {
    fn number(&mut self, identity: u64, text: impl FnOnce() -> String) -> u32 {
        if let Some(&number) = self.known.get(&identity) {
            return number;
        }
        let number = u32::try_from(self.known.len() + 1).expect("the limit is 16,384");
        let text = text();
        self.known.insert(identity, number);
        self.bytes += text.len();
        self.new.push(text);
        number
    }

    fn is_crowded(&self) -> bool {
        self.known.len() > STRINGS_BEFORE_FORGETTING || self.bytes > STRING_BYTES_BEFORE_FORGETTING
    }
}

/// One node, and how far its stream is.
pub(crate) struct Node {
    pub(crate) index: u64,
    /// How often each slot's container was replaced.
    generations: [u32; CONTAINERS as usize],
    numbers: Numbers,
    pub(crate) tick: u64,
    sequence: u64,
    stamp: i64,
}

impl Node {
    pub(crate) fn new(index: u64) -> Self {
        Self {
            index,
            generations: [0; CONTAINERS as usize],
            numbers: Numbers::default(),
            tick: 0,
            sequence: 0,
            stamp: 0,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("node-{:04}", self.index)
    }

    pub(crate) fn boot(&self) -> String {
        let random = scattered(self.index + 1);
        format!(
            "{:08x}-1f3a-4d52-8d0a-{:012x}",
            random >> 32,
            random & 0xffff_ffff_ffff
        )
    }

    /// All rows: what an agent says that was never heard before.
    pub(crate) fn everything() -> impl Iterator<Item = Place> {
        (0..CONTAINERS)
            .flat_map(|slot| (0..BEHAVIOURS).map(move |behaviour| Place { slot, behaviour }))
    }

    /// One interval passes: the rows that changed in it.
    pub(crate) fn step(&mut self, activity: &Activity) -> Vec<Place> {
        self.tick += 1;
        let mut seed = scattered(self.index << 32 | self.tick);
        let mut random = || {
            // A step of a linear generator; its upper half is random enough for a load.
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            seed >> 32
        };
        let replaced = (random() < activity.restart_threshold)
            .then(|| (random() % u64::from(CONTAINERS)) as u32);
        if let Some(slot) = replaced {
            self.generations[slot as usize] += 1;
        }
        let busy = Self::everything().zip(&activity.thresholds);
        // A container that starts does all it ever does.
        busy.filter(|(place, threshold)| replaced == Some(place.slot) || random() < **threshold)
            .map(|(place, _)| place)
            .collect()
    }

    /// A batch of rows, as the sender would put it.
    pub(crate) fn batch(&mut self, rows: &[Place], clock_ns: i64, caught_up: bool) -> proto::Batch {
        let forget_strings = self.numbers.is_crowded();
        if forget_strings {
            self.numbers = Numbers::default();
        }
        self.sequence += 1;
        self.stamp = clock_ns.max(self.stamp + 1);
        let mut containers = Vec::new();
        for of_slot in rows.chunk_by(|a, b| a.slot == b.slot) {
            containers.push(self.container(of_slot, clock_ns));
        }
        let is_first = self.sequence == 1;
        let endpoints = if is_first {
            (0..CONTAINERS).map(|slot| self.endpoint(slot)).collect()
        } else {
            Vec::new()
        };
        let run = self.run(clock_ns);
        proto::Batch {
            sequence: self.sequence,
            stamp: self.stamp,
            clock_ns,
            caught_up,
            forget_strings,
            containers,
            endpoints,
            runs: vec![run],
            strings: std::mem::take(&mut self.numbers.new),
            ..proto::Batch::default()
        }
    }

    fn text(&mut self, text: &str) -> u32 {
        let identity = text
            .bytes()
            .fold(0, |hash, byte| scattered(hash ^ u64::from(byte)));
        self.numbers.number(identity, || text.to_owned())
    }

    fn run(&mut self, clock_ns: i64) -> proto::Run {
        proto::Run {
            id_string: self.text("run-1"),
            boot_string: {
                let boot = self.boot();
                self.text(&boot)
            },
            hooks_string: self.text("tracepoint"),
            started_ns: clock_ns - 3_600_000_000_000,
            last_alive_ns: clock_ns,
            ended_cleanly: false,
        }
    }

    fn app(&self, slot: u32) -> u64 {
        scattered(self.index * u64::from(CONTAINERS) + u64::from(slot)) % APPS
    }

    /// Three namespaces have a known size; what else runs is spread over one for each image.
    fn namespace(&self, slot: u32) -> String {
        match NAMESPACES.get(slot as usize) {
            Some((name, containers)) if self.index < *containers => (*name).to_owned(),
            _ => format!("team-{}", self.app(slot)),
        }
    }

    fn pod(&self, slot: u32) -> String {
        let own = self.own(slot, 0);
        format!(
            "app-{}-{:09x}-{:05x}",
            self.app(slot),
            own & 0xf_ffff_ffff,
            own >> 44
        )
    }

    /// What no other container has.
    fn own(&self, slot: u32, number: u32) -> u64 {
        let generation = u64::from(self.generations[slot as usize]);
        scattered(self.index << 40 ^ generation << 24 ^ u64::from(slot) << 16 ^ u64::from(number))
    }

    fn endpoint(&mut self, slot: u32) -> proto::Endpoint {
        let (pod, namespace) = (self.pod(slot), self.namespace(slot));
        proto::Endpoint {
            ip: address(self.index * u64::from(CONTAINERS) + u64::from(slot))
                .to_be_bytes()
                .into(),
            name_string: self.text(&format!("pod/{pod}")),
            namespace_string: self.text(&namespace),
            label_strings: self.labels(slot),
            from_ns: 1_764_000_000_000_000_000,
            until_ns: None,
        }
    }

    fn labels(&mut self, slot: u32) -> Vec<u32> {
        let app = self.app(slot);
        let pairs = [
            ("app".to_owned(), format!("app-{app}")),
            ("tier".to_owned(), format!("tier-{}", app % 3)),
            (
                "pod-template-hash".to_owned(),
                format!("{:x}", scattered(app) >> 24),
            ),
        ];
        pairs
            .iter()
            .flat_map(|(key, value)| [self.text(key), self.text(value)])
            .collect()
    }

    fn container(&mut self, rows: &[Place], clock_ns: i64) -> proto::Container {
        let slot = rows[0].slot;
        let (app, own) = (self.app(slot), self.own(slot, 0));
        let (namespace, pod, boot) = (self.namespace(slot), self.pod(slot), self.boot());
        proto::Container {
            boot_string: self.text(&boot),
            cgroup: 4_000
                + u64::from(slot)
                + u64::from(self.generations[slot as usize] * CONTAINERS),
            runtime_string: self.text("containerd"),
            id_string: self.text(&format!("{own:016x}{:048x}", u128::from(own) * 7)),
            name_string: self.text("main"),
            image_string: self.text(&format!("registry.example/app-{app}:1.{}", app % 17)),
            namespace_string: self.text(&namespace),
            pod_string: self.text(&pod),
            pod_uid_string: self.text(&format!(
                "{:08x}-0000-4000-8000-{:012x}",
                own >> 32,
                own & 0xffff_ffff_ffff
            )),
            workload_kind_string: self.text("deployment"),
            workload_name_string: self.text(&format!("app-{app}")),
            label_strings: self.labels(slot),
            cgroup_path_string: self.text(&format!("/kubepods/burstable/pod{own:016x}/{own:016x}")),
            watched_since_ns: 1_764_000_000_000_000_000,
            observations: rows
                .iter()
                .map(|row| self.observation(*row, clock_ns))
                .collect(),
            ..proto::Container::default()
        }
    }

    fn observation(&mut self, place: Place, _clock_ns: i64) -> proto::Observation {
        let Place { slot, behaviour } = place;
        let (app, own) = (self.app(slot), self.own(slot, behaviour + 1));
        let kind = kind(behaviour);
        let program = u64::from(behaviour % 5);
        let source_string = self
            .numbers
            .number(scattered(1 << 60 | app << 16 | program), || {
                format!("/usr/bin/app-{app}-{program}")
            });
        // What all images share, what containers of one image share, and what is one's own.
        let shared = 2 << 60 | u64::from(behaviour);
        let of_image = 3 << 60 | app << 16 | u64::from(behaviour);
        let numbers = &mut self.numbers;
        let mut target = |identity: u64, text: String| numbers.number(scattered(identity), || text);
        let (target_string, protocol, port) = match kind {
            PROCESS => (target(shared, format!("/usr/bin/tool-{behaviour}")), 0, 0),
            FILE if behaviour % 10 == 3 => (
                target(own, format!("/var/lib/app-{app}/{own:016x}/segment.log")),
                0,
                0,
            ),
            FILE if behaviour.is_multiple_of(3) => (
                target(
                    shared,
                    format!("/usr/lib/x86_64-linux-gnu/libsomething-{behaviour}.so.6"),
                ),
                0,
                0,
            ),
            FILE => (
                target(
                    of_image,
                    format!("/srv/app-{app}/share/modules/module-{behaviour}/data.json"),
                ),
                0,
                0,
            ),
            INGRESS => {
                let ip = address(own % (5_000 * u64::from(CONTAINERS)));
                (
                    target(
                        4 << 60 | u64::from(ip),
                        std::net::Ipv4Addr::from(ip).to_string(),
                    ),
                    1,
                    8080,
                )
            }
            EGRESS => {
                let ip = 0x0a60_0000 | (scattered(of_image) % 0xffff) as u32;
                (
                    target(
                        4 << 60 | u64::from(ip),
                        std::net::Ipv4Addr::from(ip).to_string(),
                    ),
                    1,
                    5432,
                )
            }
            BIND => (target(5 << 60, "0.0.0.0".to_owned()), 1, 8_000 + behaviour),
            CAPABILITY => (target(shared, format!("CAP_NUMBER_{behaviour}")), 0, 0),
            _ => (target(shared, format!("syscall_{behaviour}")), 0, 0),
        };
        let rate = 1 + own % 7;
        proto::Observation {
            kind,
            source_string,
            target_string,
            protocol,
            port,
            access: u32::from(kind == FILE),
            count: 1 + self.tick * rate,
            first_before_ns: 3_600_000_000_000 + (own >> 24) as i64,
            last_before_ns: (own >> 32) as i64,
            ..proto::Observation::default()
        }
    }
}

/// Namespaces whose size is known: a container on each of that many nodes.
pub(crate) const NAMESPACES: [(&str, u64); 3] = [("small", 10), ("medium", 100), ("large", 1_000)];

const PROCESS: u32 = 1;
const FILE: u32 = 2;
const INGRESS: u32 = 3;
const EGRESS: u32 = 4;
const BIND: u32 = 5;
const CAPABILITY: u32 = 6;
const SYSCALL: u32 = 7;

fn kind(behaviour: u32) -> u32 {
    match behaviour % 30 {
        0..=1 => PROCESS,
        2..=21 => FILE,
        22..=23 => INGRESS,
        24..=26 => EGRESS,
        27 => BIND,
        28 => CAPABILITY,
        _ => SYSCALL,
    }
}

/// The address of a pod.
fn address(number: u64) -> u32 {
    0x0a80_0000 | (number as u32 & 0x7f_ffff)
}
