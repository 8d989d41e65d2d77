//! Names that DNS has for addresses which nobody here answers to.
//!
//! A name like that is chosen by whoever owns the address: it is shown beside the address,
//! never instead of it, and escaped like every name from outside.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use ethogram_model::Kind;
use ethogram_view::{Document, Printable, Row, Table};

/// What may be spent on names.
#[derive(Clone, Copy, Debug)]
struct Budget {
    /// Questions at a time.
    concurrency: usize,
    /// Addresses in all.
    addresses_max: usize,
    /// Time in all; a resolver that does not answer may take its own time.
    time: Duration,
}

const BUDGET: Budget = Budget {
    concurrency: 16,
    addresses_max: 1024,
    time: Duration::from_secs(5),
};

/// Asks for a name.
type Lookup = fn(IpAddr) -> Option<String>;

/// Asks the system's resolver, and adds the names to the rows. Returns how that went.
pub(crate) fn add_names(document: &mut Document) -> String {
    add(document, ask_resolver, BUDGET)
}

fn ask_resolver(address: IpAddr) -> Option<String> {
    dns_lookup::lookup_addr(&address).ok()
}

fn add(document: &mut Document, lookup: Lookup, budget: Budget) -> String {
    let mut addresses = BTreeSet::new();
    for_nameless_rows(document, |address, _| {
        addresses.insert(address);
    });
    let known = addresses.len();
    let asked: Vec<_> = addresses.into_iter().take(budget.addresses_max).collect();
    let answers = ask_all(&asked, lookup, budget);
    for_nameless_rows(document, |address, row| {
        if let Some(Some(name)) = answers.get(&address) {
            row.dns_name = name.clone();
        }
    });
    note(known, asked.len(), &answers, budget)
}

fn note(
    known: usize,
    asked: usize,
    answers: &HashMap<IpAddr, Option<Printable>>,
    budget: Budget,
) -> String {
    let named = answers.values().flatten().count();
    let mut note = format!("reverse DNS: names for {named} of {known} addresses");
    if asked > answers.len() {
        let silent = asked - answers.len();
        note += &format!(
            "; no answer for {silent} within {} s",
            budget.time.as_secs_f32()
        );
    }
    if known > asked {
        note += &format!("; {} not asked for, {asked} is the limit", known - asked);
    }
    note
}

/// Visits each row that has the address of somebody else.
fn for_nameless_rows(document: &mut Document, mut visit: impl FnMut(IpAddr, &mut Row)) {
    for subject in &mut document.subjects {
        for kind in [Kind::Ingress, Kind::Egress] {
            for row in subject.tables.get_mut(&Table(kind)).into_iter().flatten() {
                let address = row.target.as_str().parse().ok().filter(is_elsewhere);
                let nameless = row.peer.is_empty() && row.dns_names.is_empty();
                if let Some(address) = address.filter(|_| nameless) {
                    visit(address, row);
                }
            }
        }
    }
}

/// Whether an address can be that of another machine.
fn is_elsewhere(address: &IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// Asks for each address once. Who did not answer in time is not in the result.
fn ask_all(
    addresses: &[IpAddr],
    lookup: Lookup,
    budget: Budget,
) -> HashMap<IpAddr, Option<Printable>> {
    let deadline = Instant::now() + budget.time;
    let queue = Arc::new(Mutex::new(addresses.to_vec()));
    let (answer, answers) = mpsc::channel();
    for _ in 0..budget.concurrency.min(addresses.len()) {
        let (queue, answer) = (Arc::clone(&queue), answer.clone());
        // Never joined: one that waits for a silent server ends with the process.
        thread::spawn(move || {
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            while let Some(address) = next() {
                let name = lookup(address).filter(|name| name.parse::<IpAddr>().is_err());
                let name = name.map(|name| Printable::from(name.trim_end_matches('.')));
                if answer
                    .send((address, name.filter(|name| !name.is_empty())))
                    .is_err()
                {
                    return;
                }
            }
        });
    }
    drop(answer);
    let mut found = HashMap::new();
    while let Ok((address, name)) =
        answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        found.insert(address, name);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::{
        Behaviour, BootId, Container, ContainerKey, Endpoint, Facts, Labels, Name, Observation,
        SummaryOptions, Tally, Timestamp,
    };

    const PATIENT: Budget = Budget {
        time: Duration::from_secs(3600),
        ..BUDGET
    };

    /// A container that talked to these addresses, of which 10.0.0.1 is a pod's.
    fn document(targets: &[&str]) -> Document {
        let key = ContainerKey {
            boot: BootId::new("b"),
            cgroup: 1,
            incarnation: 0,
        };
        let observation = |(at, target): (usize, &&str)| {
            let kind = [Kind::Egress, Kind::Ingress, Kind::Bind][at % 3];
            Observation {
                container: key.clone(),
                behaviour: Behaviour::new(kind, "/bin/a".into(), (*target).into()),
                tally: Tally::at(Timestamp(5), 1),
                example: Name::default(),
            }
        };
        let observations: Vec<_> = targets.iter().enumerate().map(observation).collect();
        let pod = Endpoint {
            ip: [10, 0, 0, 1].into(),
            name: "pod/a".into(),
            namespace: String::new(),
            labels: Labels::new(),
            from: Timestamp(0),
            until: None,
        };
        let facts = Facts {
            containers: &[Container::unknown(key.clone(), "/c".into(), Timestamp(0))],
            observations: &observations,
            endpoints: &[pod],
            ..Facts::default()
        };
        let summary = ethogram_model::summarize(&facts, &SummaryOptions::default(), Timestamp(9));
        Document::from(&summary)
    }

    fn names(document: &Document) -> Vec<(String, String)> {
        let subject = &document.subjects[0];
        let rows = Kind::ALL.iter().flat_map(|kind| subject.table(*kind));
        rows.map(|row| (row.target.to_string(), row.dns_name.to_string()))
            .collect()
    }

    #[test]
    fn only_addresses_of_others_are_asked_for() {
        let mut document = document(&[
            "192.0.2.7",
            "192.0.2.8",
            "192.0.2.9",
            "2001:db8::1",
            "127.0.0.1",
            "@abstract",
            "10.0.0.1",
            "/run/socket",
            "0.0.0.0",
            "224.0.0.1",
        ]);
        let lookup: Lookup = |address| match address.to_string().as_str() {
            "192.0.2.8" => None,
            "2001:db8::1" => Some("six.example.".to_owned()),
            other => Some(format!("host-{other}.example")),
        };
        let note = add(&mut document, lookup, PATIENT);
        assert_eq!(note, "reverse DNS: names for 2 of 3 addresses");
        let named: Vec<_> = names(&document)
            .into_iter()
            .filter(|(_, name)| !name.is_empty())
            .collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            named,
            [
                pair("192.0.2.7", "host-192.0.2.7.example"),
                pair("2001:db8::1", "six.example")
            ]
        );
    }

    #[test]
    fn a_hostile_name_is_escaped_and_a_number_is_no_name() {
        let mut document = document(&["192.0.2.7", "192.0.2.8"]);
        let lookup: Lookup = |address| {
            let is_first = address.to_string().ends_with('7');
            Some(if is_first { "\x1b[31mx\n" } else { "192.0.2.8" }.to_owned())
        };
        add(&mut document, lookup, PATIENT);
        let mut names: Vec<_> = names(&document).into_iter().map(|(_, name)| name).collect();
        names.sort();
        assert_eq!(names, ["", "\\x1b[31mx\\x0a"]);
    }

    #[test]
    fn silence_is_counted_and_so_is_what_was_not_asked_for() {
        let mut document = document(&["192.0.2.7", "192.0.2.8", "x", "192.0.2.9"]);
        let silent: Lookup = |_| loop {
            thread::park();
        };
        let budget = Budget {
            concurrency: 2,
            addresses_max: 2,
            time: Duration::from_millis(1),
        };
        let note = add(&mut document, silent, budget);
        assert!(
            note.contains("names for 0 of 3 addresses; no answer for 2 within"),
            "{note}"
        );
        assert!(note.contains("1 not asked for, 2 is the limit"), "{note}");
    }
}
