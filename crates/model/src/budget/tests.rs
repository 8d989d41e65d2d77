use super::*;
use proptest::prelude::*;

fn file(source: &str, path: &str) -> Behaviour {
    Behaviour::new(Kind::File, source.into(), path.into())
}

fn peer(kind: Kind, address: &str, port: u16) -> Behaviour {
    Behaviour {
        protocol: Protocol::Tcp,
        port,
        ..Behaviour::new(kind, "/bin/a".into(), address.into())
    }
}

/// Keeps rows as the sensor does, and a store as an agent does that reports now and then.
struct Keeper {
    folding: Folding,
    /// Count, and how much of it is in the store.
    rows: BTreeMap<Behaviour, (u64, u64)>,
    store: BTreeMap<Behaviour, u64>,
    most_rows: usize,
}

impl Keeper {
    fn new(rows_max: u32) -> Self {
        Self {
            folding: Folding::new(Budget::new(rows_max)),
            rows: BTreeMap::new(),
            store: BTreeMap::new(),
            most_rows: 0,
        }
    }

    fn event(&mut self, behaviour: &Behaviour) {
        let mut row = self.folding.row(behaviour).into_owned();
        while !self.rows.contains_key(&row) && self.folding.admit(&row) {
            self.refold();
            row = self.folding.row(behaviour).into_owned();
        }
        self.rows.entry(row).or_default().0 += 1;
        self.most_rows = self.most_rows.max(self.rows.len());
    }

    fn refold(&mut self) {
        let mut settled = false;
        while !settled {
            let admit = |row: &Behaviour| {
                let shown = self.folding.row(row).into_owned();
                shown.access.contains(Access::FOLDED) && self.folding.admit(&shown)
            };
            settled = self.rows.keys().map(admit).filter(|again| *again).count() == 0;
        }
        for (row, (count, reported)) in std::mem::take(&mut self.rows) {
            let shown = self.folding.row(&row).into_owned();
            if shown == row {
                self.rows.insert(row, (count, reported));
            } else if count > reported {
                self.rows.entry(shown).or_default().0 += count - reported;
            }
        }
    }

    fn report(&mut self) {
        for (row, (count, reported)) in &mut self.rows {
            *reported = *count;
            self.store.insert(row.clone(), *count);
        }
    }

    /// What a summary shows.
    fn shown(&mut self) -> BTreeMap<Behaviour, u64> {
        self.report();
        let folding = Folding::of(self.store.keys());
        let mut shown = BTreeMap::new();
        for (row, count) in &self.store {
            *shown.entry(folding.row(row).into_owned()).or_default() += count;
        }
        shown
    }
}

/// Takes all events, reporting after every `report_every`.
fn kept(rows_max: u32, events: &[Behaviour], report_every: usize) -> Keeper {
    let mut keeper = Keeper::new(rows_max);
    for (at, event) in events.iter().enumerate() {
        keeper.event(event);
        if (at + 1) % report_every == 0 {
            keeper.report();
        }
    }
    keeper
}

fn targets(keeper: &mut Keeper) -> Vec<String> {
    let line = |(row, count): (Behaviour, u64)| {
        format!("{} {}:{} {count}", row.source, row.target, row.port)
    };
    keeper.shown().into_iter().map(line).collect()
}

#[test]
fn a_flood_of_files_folds_their_directory_and_nothing_else() {
    let mut events = vec![
        file("/bin/a", "/tmp/app/config"),
        file("/bin/a", "/etc/passwd"),
    ];
    events.extend((0..100).map(|n| file("/bin/a", &format!("/tmp/{n}"))));
    assert_eq!(
        targets(&mut kept(1024, &events, 7)),
        [
            "/bin/a /etc/passwd:0 1",
            "/bin/a /tmp/*:0 100",
            "/bin/a /tmp/app/config:0 1"
        ]
    );
}

#[test]
fn a_flood_of_directories_folds_what_they_are_in() {
    let events: Vec<_> = (0..3000)
        .map(|n| file("/bin/a", &format!("/srv/data/{n}/x")))
        .collect();
    assert_eq!(
        targets(&mut kept(1024, &events, 7)),
        ["/bin/a /srv/data/:0 3000"]
    );
}

#[test]
fn peers_fold_into_their_prefix_and_keep_the_port() {
    let near = (0..2000).map(|n| peer(Kind::Ingress, &format!("10.1.{}.{}", n / 250, n % 250), 80));
    let mut events: Vec<_> = near.collect();
    events.push(peer(Kind::Ingress, "192.0.2.1", 80));
    events.push(peer(Kind::Ingress, "10.1.0.1", 443));
    assert_eq!(
        targets(&mut kept(1024, &events, 7)),
        [
            "/bin/a 10.1.0.0/16:80 2000",
            "/bin/a 10.1.0.1:443 1",
            "/bin/a 192.0.2.1:80 1"
        ]
    );
    let everywhere: Vec<_> = (0..5000u32)
        .map(|n| {
            peer(
                Kind::Egress,
                &std::net::Ipv4Addr::from(n * 800_003).to_string(),
                443,
            )
        })
        .collect();
    assert_eq!(
        targets(&mut kept(1024, &everywhere, 7)),
        ["/bin/a 0.0.0.0/0:443 5000"]
    );
}

#[test]
fn a_scan_folds_the_ports_of_the_host() {
    let mut events: Vec<_> = (1..5000)
        .map(|port| peer(Kind::Egress, "10.1.2.3", port))
        .collect();
    events.push(peer(Kind::Egress, "10.1.2.4", 443));
    assert_eq!(
        targets(&mut kept(1024, &events, 7)),
        ["/bin/a 10.1.2.3:0 4999", "/bin/a 10.1.2.4:443 1"]
    );
}

#[test]
fn a_flood_of_executables_folds_into_any() {
    let events: Vec<_> = (0..1000)
        .map(|n| file(&format!("/tmp/test-{n}"), "/etc/ld.so.cache"))
        .collect();
    assert_eq!(targets(&mut kept(1024, &events, 7)), ["* /etc/*:0 1000"]);
}

#[test]
fn refused_rows_have_a_budget_of_their_own() {
    let denied = |n: u32| Behaviour {
        status: Status::Deny,
        ..file("/bin/a", &format!("/tmp/{n}"))
    };
    let mut events: Vec<_> = (0..1000)
        .map(|n| file("/bin/a", &format!("/tmp/{n}")))
        .collect();
    events.extend((0..5).map(denied));
    let mut keeper = kept(1024, &events, 7);
    let shown = keeper.shown();
    assert_eq!(
        shown
            .keys()
            .filter(|row| row.status == Status::Deny)
            .count(),
        5
    );
    assert_eq!(shown.len(), 6);
}

prop_compose! {
    fn any_file()(
        source in "/bin/[a-f]",
        path in prop_oneof!["(/[a-d]){0,3}/[a-f]", "/[ab]/[0-9]{2}", "[a-c]"],
        status in prop::sample::select(vec![Status::Allow, Status::Deny]),
        access in 0..3u16,
    ) -> Behaviour {
        Behaviour { status, access: Access::from_bits(access), ..file(&source, &path) }
    }
}

prop_compose! {
    fn any_peer()(
        kind in prop::sample::select(vec![Kind::Ingress, Kind::Egress, Kind::Bind]),
        source in "/bin/[a-c]",
        target in prop_oneof!["[12].[12].[12].[1-8]", "[12]::[1-4]:[1-4]"],
        port in 0..6u16,
        protocol in prop::sample::select(vec![Protocol::Tcp6, Protocol::Udp]),
    ) -> Behaviour {
        Behaviour { protocol, port, ..Behaviour::new(kind, source.as_str().into(), target.as_str().into()) }
    }
}

/// Events, and the same in another order.
fn any_orders() -> impl Strategy<Value = (Vec<Behaviour>, Vec<Behaviour>)> {
    proptest::collection::vec(prop_oneof![any_file(), any_peer()], 0..300)
        .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn order_does_not_matter((events, shuffled) in any_orders(), a in 1..50usize, b in 1..50usize) {
        prop_assert_eq!(kept(128, &events, a).shown(), kept(128, &shuffled, b).shown());
    }

    #[test]
    fn nothing_is_lost_or_misplaced((events, _) in any_orders(), every in 1..50usize) {
        let mut keeper = kept(128, &events, every);
        let shown = keeper.shown();
        let folding = Folding::of(shown.keys());
        let mut truth = BTreeMap::new();
        for event in &events {
            *truth.entry(folding.row(event).into_owned()).or_default() += 1;
        }
        prop_assert_eq!(shown, truth);
    }

    #[test]
    fn the_budget_is_kept((events, _) in any_orders()) {
        let keeper = kept(128, &events, 1000);
        // Three kinds of peers and two outcomes of files.
        let trees = keeper.folding.trees.len();
        prop_assert!(keeper.most_rows <= trees * 128, "{} rows", keeper.most_rows);
    }

    #[test]
    fn what_was_shown_folds_no_further((events, _) in any_orders()) {
        let shown = kept(128, &events, 7).shown();
        let folding = Folding::of(shown.keys());
        for row in shown.keys() {
            let again = folding.row(row);
            prop_assert_eq!(again.as_ref(), row);
        }
    }
}
