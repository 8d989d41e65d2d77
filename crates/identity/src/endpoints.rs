//! Who had which IP address, from when to when.

use crate::facts::{Addresses, Facts};
use ethogram_model::{Container, Endpoint, Timestamp};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

/// The addresses that the containers and pods of this node hold now. An address has one
/// holder at a time: who claims it ends the claim of whoever had it.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    /// The holder of an address, by the runtime's id, and its endpoint.
    held: BTreeMap<IpAddr, (String, Endpoint)>,
    by_holder: HashMap<String, Vec<IpAddr>>,
    changed: Vec<Endpoint>,
}

impl Endpoints {
    /// Takes what a runtime tells. `newest` is the newest instance of that container whose
    /// cgroup was seen, if any was: the kernel's word on when it began and ended is more
    /// exact than the runtime's, which may be told after the end or before a restart.
    pub(crate) fn told(&mut self, facts: &Facts, newest: Option<&Container>, now: Timestamp) {
        match &facts.addresses {
            Addresses::Untold => {}
            Addresses::Released => self.released(&facts.id, now),
            Addresses::Held { ips, since } => {
                if let Some(ended) = newest.and_then(|container| container.ended) {
                    return self.released(&facts.id, ended);
                }
                let seen = newest.filter(|container| !container.present_at_start);
                let from = seen.map_or(*since, |container| container.watched_since);
                let known = self.by_holder.get(&facts.id).cloned().unwrap_or_default();
                for ip in known.iter().filter(|ip| !ips.contains(ip)) {
                    self.end(*ip, now);
                }
                for ip in ips.iter().filter(|ip| is_own(**ip)) {
                    self.claim(*ip, facts, from);
                }
            }
        }
    }

    /// Ends what a container or pod held.
    pub(crate) fn released(&mut self, id: &str, now: Timestamp) {
        for ip in self.by_holder.get(id).cloned().unwrap_or_default() {
            self.end(ip, now);
        }
    }

    /// The endpoints that began or ended since the last call.
    pub(crate) fn changed(&mut self) -> Vec<Endpoint> {
        std::mem::take(&mut self.changed)
    }

    fn claim(&mut self, ip: IpAddr, facts: &Facts, from: Timestamp) {
        let (kind, name) = if facts.pod.is_empty() {
            ("container", &facts.name)
        } else {
            ("pod", &facts.pod)
        };
        let mut endpoint = Endpoint {
            ip,
            name: format!("{kind}/{name}"),
            namespace: facts.namespace.clone(),
            labels: facts.labels.clone(),
            from,
            until: None,
        };
        if let Some((holder, known)) = self.held.get(&ip) {
            if *holder == facts.id {
                endpoint.from = known.from;
                if *known == endpoint {
                    return;
                }
            } else if endpoint.from <= known.from {
                // Stale word of an earlier holder, or two that share an address.
                return;
            } else {
                self.end(ip, from);
            }
        }
        self.changed.push(endpoint.clone());
        if self.held.insert(ip, (facts.id.clone(), endpoint)).is_none() {
            self.by_holder.entry(facts.id.clone()).or_default().push(ip);
        }
    }

    fn end(&mut self, ip: IpAddr, time: Timestamp) {
        let Some((holder, mut endpoint)) = self.held.remove(&ip) else {
            return;
        };
        endpoint.until = Some(time.max(endpoint.from));
        self.changed.push(endpoint);
        if let Some(ips) = self.by_holder.get_mut(&holder) {
            ips.retain(|held| *held != ip);
            if ips.is_empty() {
                self.by_holder.remove(&holder);
            }
        }
    }
}

/// Whether an address can name one container: not the loopback that all of them have.
fn is_own(ip: IpAddr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::{BootId, ContainerKey, Name};

    fn pod(id: &str, name: &str, ips: &[&str], since: i64) -> Facts {
        Facts {
            id: id.into(),
            pod: name.into(),
            namespace: "shop".into(),
            addresses: Addresses::Held {
                ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
                since: Timestamp(since),
            },
            ..Facts::default()
        }
    }

    fn told(endpoints: &mut Endpoints, facts: &Facts, now: i64) -> Vec<String> {
        endpoints.told(facts, None, Timestamp(now));
        drain(endpoints)
    }

    fn drain(endpoints: &mut Endpoints) -> Vec<String> {
        let show = |e: &Endpoint| {
            let until = e.until.map_or("now".into(), |t| t.0.to_string());
            format!("{} {} {}-{until}", e.ip, e.name, e.from.0)
        };
        endpoints.changed().iter().map(show).collect()
    }

    #[test]
    fn an_address_that_is_used_again_names_one_pod_at_a_time() {
        let mut endpoints = Endpoints::default();
        let a = pod("a", "web", &["10.0.0.5", "fd00::5"], 100);
        assert_eq!(
            told(&mut endpoints, &a, 110),
            ["10.0.0.5 pod/web 100-now", "fd00::5 pod/web 100-now"]
        );
        assert!(told(&mut endpoints, &a, 120).is_empty());
        // The end of the first is told late, after the second has the address.
        let b = pod("b", "db", &["10.0.0.5"], 200);
        assert_eq!(
            told(&mut endpoints, &b, 210),
            ["10.0.0.5 pod/web 100-200", "10.0.0.5 pod/db 200-now"]
        );
        assert!(
            told(&mut endpoints, &a, 215).is_empty(),
            "stale word of the first"
        );
        endpoints.released("a", Timestamp(220));
        assert_eq!(drain(&mut endpoints), ["fd00::5 pod/web 100-220"]);
        endpoints.released("a", Timestamp(230));
        assert!(drain(&mut endpoints).is_empty());
        let moved = pod("b", "db", &["10.0.0.6"], 200);
        assert_eq!(
            told(&mut endpoints, &moved, 240),
            ["10.0.0.5 pod/db 200-240", "10.0.0.6 pod/db 200-now"]
        );
        let silent = Facts {
            addresses: Addresses::Untold,
            ..moved.clone()
        };
        assert!(told(&mut endpoints, &silent, 250).is_empty());
        let ended = Facts {
            addresses: Addresses::Released,
            ..moved
        };
        assert_eq!(
            told(&mut endpoints, &ended, 260),
            ["10.0.0.6 pod/db 200-260"]
        );
        assert!(endpoints.held.is_empty() && endpoints.by_holder.is_empty());
    }

    #[test]
    fn shared_addresses_name_nobody() {
        let mut endpoints = Endpoints::default();
        let odd = pod("a", "web", &["127.0.0.1", "::1", "0.0.0.0", "224.0.0.1"], 1);
        assert!(told(&mut endpoints, &odd, 2).is_empty());
    }

    #[test]
    fn the_kernel_is_believed_over_the_runtime() {
        let mut endpoints = Endpoints::default();
        let told = Facts {
            pod: String::new(),
            name: "web".into(),
            ..pod("a", "", &["10.0.0.5"], 1)
        };
        let key = ContainerKey {
            boot: BootId::new("b"),
            cgroup: 7,
            incarnation: 0,
        };
        let mut seen = Container::unknown(key, Name::default(), Timestamp(50));
        endpoints.told(&told, Some(&seen), Timestamp(60));
        assert_eq!(drain(&mut endpoints), ["10.0.0.5 container/web 50-now"]);
        // The runtime's list is older than the end that the kernel told.
        seen.ended = Some(Timestamp(70));
        endpoints.told(&told, Some(&seen), Timestamp(80));
        assert_eq!(drain(&mut endpoints), ["10.0.0.5 container/web 50-70"]);
        endpoints.told(&told, Some(&seen), Timestamp(90));
        assert!(drain(&mut endpoints).is_empty());
        // What was there before the watch began longer ago than that.
        seen.ended = None;
        seen.present_at_start = true;
        endpoints.told(&told, Some(&seen), Timestamp(100));
        assert_eq!(drain(&mut endpoints), ["10.0.0.5 container/web 1-now"]);
    }
}
