use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn who(name: &str) -> Arc<Who> {
    Arc::new(Who {
        name: name.into(),
        namespace: "".into(),
        labels: Arc::default(),
    })
}

fn want(key: u8, right: Right, from: i64, since: i64) -> Wanted<u8> {
    Wanted {
        key,
        right,
        from: Timestamp(from),
        since: Timestamp(since),
    }
}

/// What a reader of all that was told knows: by name and beginning, the newest word.
#[derive(Default)]
struct Reader(BTreeMap<(u8, String, i64), Option<i64>>);

impl Reader {
    fn take(&mut self, claims: &mut Claims<u8>) {
        for interval in claims.changed() {
            let name = interval.who.name.to_string();
            let until = interval.until.map(|until| until.0);
            self.0.insert((interval.key, name, interval.from.0), until);
        }
    }

    fn shown(&self) -> Vec<String> {
        let show = |((key, name, from), until): (&(u8, String, i64), &Option<i64>)| {
            let until = until.map_or("now".into(), |until| until.to_string());
            format!("{key} {name} {from}-{until}")
        };
        self.0.iter().map(show).collect()
    }
}

#[test]
fn nothing_is_named_before_all_is_heard() {
    let mut claims = Claims::new();
    let (service, node): (Uid, Uid) = ("s".into(), "n".into());
    claims.set(
        &service,
        &who("svc"),
        &[want(1, Right::External, 5, 5)],
        Timestamp(10),
    );
    assert!(claims.changed().is_empty());
    claims.set(
        &node,
        &who("node"),
        &[want(1, Right::Node, 3, 3)],
        Timestamp(10),
    );
    claims.open(Timestamp(11));
    let mut reader = Reader::default();
    reader.take(&mut claims);
    assert_eq!(reader.shown(), ["1 node 3-now"]);
}

#[test]
fn who_loses_a_better_claim_to_a_key_gets_it_back() {
    let mut claims = Claims::new();
    claims.open(Timestamp(0));
    let mut reader = Reader::default();
    let (service, node): (Uid, Uid) = ("s".into(), "n".into());
    claims.set(
        &service,
        &who("svc"),
        &[want(1, Right::External, 5, 5)],
        Timestamp(10),
    );
    claims.set(
        &node,
        &who("node"),
        &[want(1, Right::Node, 20, 20)],
        Timestamp(21),
    );
    claims.end(&node, Timestamp(30));
    reader.take(&mut claims);
    assert_eq!(
        reader.shown(),
        ["1 node 20-30", "1 svc 5-20", "1 svc 30-now"]
    );
}

#[test]
fn a_better_claim_that_is_told_late_changes_nothing_before_that() {
    let mut claims = Claims::new();
    claims.open(Timestamp(0));
    let mut reader = Reader::default();
    let service = [want(1, Right::External, 5, 5)];
    claims.set(&"s".into(), &who("svc"), &service, Timestamp(10));
    let node = [want(1, Right::Node, 3, 3)];
    claims.set(&"n".into(), &who("node"), &node, Timestamp(21));
    reader.take(&mut claims);
    assert_eq!(reader.shown(), ["1 node 21-now", "1 svc 5-21"]);
}

#[test]
fn what_is_shared_stays_with_the_first_and_what_is_not_goes_to_the_last() {
    for (right, shown) in [(Right::External, "1 a 5-now"), (Right::Pod, "1 b 7-now")] {
        let mut claims = Claims::new();
        claims.set(
            &"b".into(),
            &who("b"),
            &[want(1, right, 7, 7)],
            Timestamp(10),
        );
        claims.set(
            &"a".into(),
            &who("a"),
            &[want(1, right, 5, 5)],
            Timestamp(10),
        );
        claims.open(Timestamp(10));
        let mut reader = Reader::default();
        reader.take(&mut claims);
        assert_eq!(reader.shown(), [shown]);
    }
}

#[test]
fn ends_are_forgotten_in_time_or_when_there_are_too_many() {
    let mut claims = Claims::new();
    claims.open(Timestamp(0));
    let one = |claims: &mut Claims<u32>, key: u32, now: i64| {
        let holder = Uid::from(key.to_string());
        let wanted = Wanted {
            key,
            right: Right::Pod,
            from: Timestamp(now),
            since: Timestamp(now),
        };
        claims.set(&holder, &who("p"), &[wanted], Timestamp(now));
        claims.end(&holder, Timestamp(now));
        claims.tick(Timestamp(now));
    };
    for key in 0..u32::try_from(FREED_KEPT_MAX).unwrap() + 5 {
        one(&mut claims, key, 1);
    }
    assert_eq!(
        (claims.keys.len(), claims.forgotten_early),
        (FREED_KEPT_MAX, 5)
    );
    claims.tick(Timestamp(1 + FREED_KEPT_S * 1_000_000_000));
    assert_eq!((claims.keys.len(), claims.forgotten_early), (0, 5));
    assert!(claims.freed.is_empty() && claims.by_holder.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, Vec<(u8, u8, i64, i64)>),
    End(u8, i64),
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = proptest::collection::vec((0..3_u8, 0..5_u8, 0..60_i64, 0..9_i64), 0..3);
    let step = prop_oneof![
        6 => (0..6_u8, keys).prop_map(|(holder, keys)| Step::Set(holder, keys)),
        3 => (0..6_u8, 0..60_i64).prop_map(|(holder, ago)| Step::End(holder, ago)),
        1 => Just(Step::Tick),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    /// Whatever is claimed, released and told in whatever order: intervals of one key never
    /// overlap, and exactly the keys with a claim have a name.
    #[test]
    fn one_name_at_a_time(steps in steps(), open_at in 0..40_usize) {
        let mut claims = Claims::new();
        let mut reader = Reader::default();
        for (n, step) in steps.iter().enumerate() {
            let now = 100 + 10 * i64::try_from(n).unwrap();
            if n >= open_at {
                claims.open(Timestamp(now));
            }
            match step {
                Step::Set(holder, keys) => {
                    let rights = [Right::Slice, Right::External, Right::Pod, Right::Service, Right::Node];
                    let mut wanted: Vec<Wanted<u8>> = Vec::new();
                    for (key, right, ago, later) in keys {
                        if wanted.iter().all(|w| w.key != *key) {
                            let from = now - ago;
                            wanted.push(want(*key, rights[*right as usize], from, (from + later).min(now)));
                        }
                    }
                    let holder = holder.to_string();
                    claims.set(&holder.as_str().into(), &who(&holder), &wanted, Timestamp(now));
                }
                Step::End(holder, ago) => {
                    claims.end(&holder.to_string().into(), Timestamp(now - ago));
                }
                Step::Tick => claims.tick(Timestamp(now)),
            }
            reader.take(&mut claims);
        }
        claims.open(Timestamp(10_000));
        reader.take(&mut claims);
        for key in 0..3_u8 {
            let of_key = reader.0.iter().filter(|((k, ..), _)| *k == key);
            let mut intervals: Vec<_> = of_key
                .map(|((_, name, from), until)| (*from, until.unwrap_or(i64::MAX), name))
                .collect();
            intervals.sort();
            for pair in intervals.windows(2) {
                prop_assert!(pair[0].1 <= pair[1].0, "{intervals:?}");
            }
            let open = intervals.iter().filter(|(_, until, _)| *until == i64::MAX).count();
            let claimed = claims.by_holder.values().any(|keys| keys.contains(&key));
            prop_assert_eq!(open, usize::from(claimed), "{:?}", intervals);
        }
    }
}
