//! Which workload a pod belongs to, and its labels.

use super::claims::Who;
use crate::objects::{Owner, Pod, Uid};
use ethogram_model::{Labels, Timestamp, Workload};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

/// For how long an ended pod is remembered: an agent that was cut off reports late.
pub const DEAD_PODS_KEPT_S: i64 = 86_400;
/// How many ended pods are remembered; beyond it the oldest go early
/// ([`Bounds::dead_pods_forgotten_early`](super::Bounds::dead_pods_forgotten_early)).
pub const DEAD_PODS_KEPT_MAX: usize = 16_384;

/// What is known of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodFacts<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What it belongs to: `deployment/NAME`, `statefulset/NAME`, `cronjob/NAME`, whatever
    /// its topmost controller is; `pod/NAME` if it has none or is a static pod.
    pub workload: &'a Workload,
    /// Its labels, without those that only controllers read.
    pub labels: &'a Labels,
}

#[derive(Debug)]
struct Known {
    who: Arc<Who>,
    workload: Arc<Workload>,
    /// Its ReplicaSet or Job: what owns that is the workload.
    through: Option<Uid>,
    /// The uid by which its node knows it, if it is another.
    node_uid: Option<Uid>,
    /// When it was last told.
    seen: Timestamp,
    gone: bool,
}

/// The table of pods.
#[derive(Debug)]
pub(super) struct Pods {
    known: HashMap<Uid, Known>,
    /// The API server's uid of the pods that their nodes know by another.
    by_node_uid: HashMap<Uid, Uid>,
    /// What owns each ReplicaSet and Job, or the same itself.
    owners: HashMap<Uid, Arc<Workload>>,
    /// The pods of each ReplicaSet and Job.
    owned: HashMap<Uid, Vec<Uid>>,
    /// Pods that are no more, oldest first.
    dead: VecDeque<(Timestamp, Uid)>,
    changed: BTreeSet<Uid>,
    forgotten_early: u64,
}

impl Pods {
    pub(super) fn new() -> Self {
        Self {
            known: HashMap::new(),
            by_node_uid: HashMap::new(),
            owners: HashMap::new(),
            owned: HashMap::new(),
            dead: VecDeque::new(),
            changed: BTreeSet::new(),
            forgotten_early: 0,
        }
    }

    pub(super) fn set(&mut self, uid: &Uid, who: &Arc<Who>, pod: Pod, now: Timestamp) {
        let through = pod.owner.as_ref().filter(|owner| is_between(owner));
        let through = through.map(|owner| owner.uid.clone());
        let known = self.known.get(uid);
        let workload = match through.as_ref().and_then(|owner| self.owners.get(owner)) {
            Some(top) => Arc::clone(top),
            None => {
                let best = told_workload(&pod, &who.name);
                // What its ReplicaSet said once is worth more than what its name suggests.
                match known.filter(|known| through.is_some() && known.through == through) {
                    Some(known) => Arc::clone(&known.workload),
                    None => Arc::new(best),
                }
            }
        };
        let is_new = known.is_none_or(|k| k.who != *who || k.workload != workload);
        if let Some(owner) = through.as_ref().filter(|_| known.is_none()) {
            let pods = self.owned.entry(owner.clone()).or_default();
            pods.push(uid.clone());
        }
        if let Some(node_uid) = &pod.node_uid {
            self.by_node_uid.insert(node_uid.clone(), uid.clone());
        }
        let known = Known {
            who: Arc::clone(who),
            workload,
            through,
            node_uid: pod.node_uid,
            seen: now,
            gone: false,
        };
        if is_new {
            self.changed.insert(known.uid(uid));
        }
        self.known.insert(uid.clone(), known);
    }

    /// The pod is no more, but may still be reported of.
    pub(super) fn removed(&mut self, uid: &Uid, now: Timestamp) {
        if let Some(known) = self.known.get_mut(uid).filter(|known| !known.gone) {
            known.gone = true;
            self.dead.push_back((now, uid.clone()));
        }
    }

    /// A ReplicaSet or Job, and what owns it.
    pub(super) fn set_owner(&mut self, uid: Uid, kind: &str, name: String, owner: Option<Owner>) {
        let own = || Workload {
            kind: kind.to_owned(),
            name,
        };
        let top = owner.map_or_else(own, |owner| owner.workload);
        if self.owners.get(&uid).is_some_and(|known| **known == top) {
            return;
        }
        let top = Arc::new(top);
        for pod in self.owned.get(&uid).into_iter().flatten() {
            let known = self.known.get_mut(pod);
            let Some(known) = known.filter(|known| known.through.as_ref() == Some(&uid)) else {
                continue;
            };
            if known.workload != top {
                self.changed.insert(known.uid(pod));
            }
            // Equal ones are shared too.
            known.workload = Arc::clone(&top);
        }
        self.owners.insert(uid, top);
    }

    /// A ReplicaSet or Job is no more; its pods stay what they were.
    pub(super) fn remove_owner(&mut self, uid: &Uid) {
        self.owners.remove(uid);
    }

    /// When a pod was last told.
    pub(super) fn seen(&self, uid: &Uid) -> Option<Timestamp> {
        self.known.get(uid).map(|known| known.seen)
    }

    /// The pods that there are.
    pub(super) fn live(&self) -> impl Iterator<Item = &Uid> {
        let live = self.known.iter().filter(|(_, known)| !known.gone);
        live.map(|(uid, _)| uid)
    }

    pub(super) fn facts(&self, uid: &str) -> Option<PodFacts<'_>> {
        let uid = self.by_node_uid.get(uid).map_or(uid, |uid| uid);
        let known = self.known.get(uid)?;
        Some(PodFacts {
            namespace: &known.who.namespace,
            name: pod_name(&known.who.name),
            workload: &known.workload,
            labels: &known.who.labels,
        })
    }

    pub(super) fn changed(&mut self) -> Vec<Uid> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    pub(super) fn forgotten_early(&self) -> u64 {
        self.forgotten_early
    }

    /// Time went on: pods that ended long ago are forgotten.
    pub(super) fn tick(&mut self, now: Timestamp) {
        let forget_before = now.0.saturating_sub(DEAD_PODS_KEPT_S * 1_000_000_000);
        while let Some((removed, _)) = self.dead.front() {
            let expired = removed.0 <= forget_before;
            if !expired && self.dead.len() <= DEAD_PODS_KEPT_MAX {
                break;
            }
            self.forgotten_early += u64::from(!expired);
            let (_, uid) = self.dead.pop_front().expect("it has a front");
            self.forget(&uid);
        }
    }

    fn forget(&mut self, uid: &Uid) {
        // A uid is never used again, but a watch that was resumed may tell the end first.
        let Some(known) = self.known.get(uid).filter(|known| known.gone) else {
            return;
        };
        if let Some(node_uid) = &known.node_uid
            && self.by_node_uid.get(node_uid) == Some(uid)
        {
            self.by_node_uid.remove(node_uid);
        }
        if let Some(owner) = &known.through
            && let Some(pods) = self.owned.get_mut(owner)
        {
            pods.retain(|pod| pod != uid);
            if pods.is_empty() {
                self.owned.remove(owner);
            }
        }
        self.known.remove(uid);
    }
}

impl Known {
    /// The uid by which its node knows it.
    fn uid(&self, uid: &Uid) -> Uid {
        self.node_uid.as_ref().unwrap_or(uid).clone()
    }
}

/// Whether it stands between a pod and its workload.
fn is_between(owner: &Owner) -> bool {
    matches!(owner.workload.kind.as_str(), "replicaset" | "job")
}

/// The workload as far as the pod itself tells it.
fn told_workload(pod: &Pod, who: &str) -> Workload {
    if let Some(deployment) = &pod.guessed_deployment {
        return Workload {
            kind: "deployment".to_owned(),
            name: deployment.clone(),
        };
    }
    // A static pod says that its node owns it.
    match pod.owner.as_ref().filter(|o| o.workload.kind != "node") {
        Some(owner) => owner.workload.clone(),
        None => Workload {
            kind: "pod".to_owned(),
            name: pod_name(who).to_owned(),
        },
    }
}

fn pod_name(who: &str) -> &str {
    who.strip_prefix("pod/").unwrap_or(who)
}
