//! What a reader asks: the same on the command line, in the agent's API and for a recording.

use anyhow::{Context, Result, bail};
use ethogram_model::{Fold, Group, Kind, Selection, Status, Timestamp};

use crate::clock::{self, parse_moment};

/// What is asked of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) selection: Selection,
    pub(crate) fold: Fold,
    pub(crate) group: Group,
    /// The cluster's name. Whoever answers knows it, so it is no part of the query.
    pub(crate) cluster: String,
    /// Show the containers that only hold a pod's namespaces.
    pub(crate) sandboxes: bool,
    /// Show containers without rows and losses.
    pub(crate) empty: bool,
}

/// The tables one can ask for, with what each word stands for. `network` is karmor's.
pub(crate) const TABLES: &[(&str, &[Kind])] = &[
    ("process", &[Kind::Process]),
    ("file", &[Kind::File]),
    ("network", &[Kind::Ingress, Kind::Egress, Kind::Bind]),
    ("ingress", &[Kind::Ingress]),
    ("egress", &[Kind::Egress]),
    ("bind", &[Kind::Bind]),
    ("capability", &[Kind::Capability]),
    ("syscall", &[Kind::Syscall]),
];

/// What makes one subject, by the word for it.
pub(crate) const GROUPS: &[(&str, Group)] =
    &[("pod", Group::Container), ("workload", Group::Workload)];

/// The kinds of several tables, each once.
pub(crate) fn kinds_of(words: &[String]) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for word in words {
        let found = find(TABLES, word)
            .with_context(|| format!("unknown type {word:?}: use {}", words_of(TABLES)))?;
        for &kind in found {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    Ok(kinds)
}

/// The outcomes of several words, each once.
pub(crate) fn statuses_of(words: &[String]) -> Result<Vec<Status>> {
    let mut statuses = Vec::new();
    for word in words {
        let status = Status::from_word(word).with_context(|| {
            format!("unknown status {word:?}: use allow, deny, audit or failed")
        })?;
        if !statuses.contains(&status) {
            statuses.push(status);
        }
    }
    Ok(statuses)
}

/// `key=value`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !key.ends_with('!') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(format!("{text:?} is no label: write key=value")),
    }
}

fn find<T: Copy>(words: &[(&str, T)], wanted: &str) -> Option<T> {
    let mut words = words.iter();
    let found = words.find(|(word, _)| word.eq_ignore_ascii_case(wanted));
    found.map(|(_, value)| *value)
}

fn words_of<T>(words: &[(&str, T)]) -> String {
    words
        .iter()
        .map(|(word, _)| *word)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Finds a field of a selection.
type FieldOf<T> = fn(&mut Selection) -> &mut Option<T>;

/// The texts of a selection, by their keys in a query.
const TEXTS: &[(&str, FieldOf<String>)] = &[
    ("namespace", |s| &mut s.namespace),
    ("pod", |s| &mut s.pod),
    ("container", |s| &mut s.container),
    ("workload", |s| &mut s.workload),
    ("node", |s| &mut s.node),
    ("source", |s| &mut s.source),
];

/// The times of a selection, by their keys in a query.
const TIMES: &[(&str, FieldOf<Timestamp>)] =
    &[("since", |s| &mut s.since), ("until", |s| &mut s.until)];

/// Keys that may come several times: each adds to what is asked for.
const LISTS: &[&str] = &["label", "type", "status"];

/// The other keys.
const SHAPES: &[&str] = &["fold", "by", "sandboxes", "empty"];

impl Question {
    /// The query of a URL that asks this, without the `?`. What is at its default is left out.
    pub(crate) fn to_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let mut selection = self.selection.clone();
        for (key, text) in TEXTS {
            query.extend_pairs(text(&mut selection).iter().map(|text| (key, text)));
        }
        for (key, time) in TIMES {
            query.extend_pairs(time(&mut selection).map(|time| (key, clock::rfc3339(time))));
        }
        for (key, value) in &selection.labels {
            query.append_pair("label", &format!("{key}={value}"));
        }
        for kind in &selection.kinds {
            query.append_pair("type", kind.as_str());
        }
        for status in &selection.statuses {
            query.append_pair("status", &status.as_str().to_lowercase());
        }
        if self.fold != Fold::default() {
            query.append_pair("fold", &self.fold.to_string());
        }
        for (word, _) in GROUPS
            .iter()
            .filter(|(_, group)| *group == self.group && *group != Group::default())
        {
            query.append_pair("by", word);
        }
        for (key, asked) in [("sandboxes", self.sandboxes), ("empty", self.empty)] {
            if asked {
                query.append_pair(key, "true");
            }
        }
        query.finish()
    }

    /// What the query of a URL asks. Times may be relative, as on the command line.
    ///
    /// Unknown and repeated keys are errors: a filter that is misspelt and passed over
    /// would answer another question than the one that was asked.
    pub(crate) fn from_query(query: &str) -> Result<Self> {
        let mut question = Self::default();
        let mut seen = Vec::new();
        let (mut tables, mut statuses) = (Vec::new(), Vec::new());
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if seen.contains(&key) && !LISTS.contains(&&*key) {
                bail!("{key:?} is given twice");
            }
            match &*key {
                "label" => question.add_labels(&value)?,
                "type" => tables.extend(value.split(',').map(str::to_owned)),
                "status" => statuses.extend(value.split(',').map(str::to_owned)),
                _ => question.set(&key, &value)?,
            }
            seen.push(key);
        }
        question.selection.kinds = kinds_of(&tables)?;
        question.selection.statuses = statuses_of(&statuses)?;
        Ok(question)
    }

    fn add_labels(&mut self, text: &str) -> Result<()> {
        let (key, value) = parse_label(text).map_err(anyhow::Error::msg)?;
        self.selection.labels.insert(key, value);
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if let Some(text) = find(TEXTS, key) {
            *text(&mut self.selection) = Some(value.to_owned());
        } else if let Some(time) = find(TIMES, key) {
            let moment = parse_moment(value, clock::now());
            *time(&mut self.selection) =
                Some(moment.map_err(|why| anyhow::anyhow!("{key}: {why}"))?);
        } else {
            match key {
                "fold" => self.fold = value.parse()?,
                "by" => {
                    self.group = find(GROUPS, value).with_context(|| {
                        format!("cannot group by {value:?}: use {}", words_of(GROUPS))
                    })?;
                }
                "sandboxes" => self.sandboxes = parse_bool(key, value)?,
                "empty" => self.empty = parse_bool(key, value)?,
                _ => bail!("unknown key {key:?}: use {}", known_keys()),
            }
        }
        Ok(())
    }

    /// All that is kept of the selected containers: what folds, and whether something is
    /// missing, is decided over all of it.
    pub(crate) fn whole(&self) -> Selection {
        Selection {
            kinds: Vec::new(),
            statuses: Status::ALL.to_vec(),
            source: None,
            since: None,
            until: None,
            ..self.selection.clone()
        }
    }
}

fn parse_bool(key: &str, value: &str) -> Result<bool> {
    value
        .parse()
        .with_context(|| format!("{key}: use true or false, not {value:?}"))
}

fn known_keys() -> String {
    let texts = TEXTS.iter().map(|(key, _)| *key);
    let times = TIMES.iter().map(|(key, _)| *key);
    let others = LISTS.iter().chain(SHAPES).copied();
    texts
        .chain(times)
        .chain(others)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(".{0,20}")
    }

    fn time() -> impl Strategy<Value = Option<Timestamp>> {
        proptest::option::of(any::<i64>().prop_map(Timestamp))
    }

    prop_compose! {
        fn selection()(
            texts in (text(), text(), text(), text(), text(), text()),
            labels in proptest::collection::btree_map("[^=!]{1,9}", ".{0,9}", 0..4),
            kinds in proptest::sample::subsequence(Kind::ALL, 0..=Kind::ALL.len()),
            statuses in proptest::sample::subsequence(Status::ALL, 0..=Status::ALL.len()),
            since in time(),
            until in time(),
        ) -> Selection {
            let (namespace, pod, container, workload, node, source) = texts;
            Selection { namespace, labels, pod, container, workload, node, kinds, statuses, source, since, until }
        }
    }

    prop_compose! {
        fn question()(
            selection in selection(),
            fold in prop_oneof![Just(Fold::None), Just(Fold::Auto), (1..u32::MAX).prop_map(Fold::Over)],
            group in proptest::sample::select(&[Group::Container, Group::Workload]),
            sandboxes in any::<bool>(),
            empty in any::<bool>(),
        ) -> Question {
            Question { selection, fold, group, cluster: String::new(), sandboxes, empty }
        }
    }

    proptest! {
        #[test]
        fn a_query_leads_back(question in question()) {
            let query = question.to_query();
            prop_assert!(query.is_ascii() && !query.contains([' ', '#', '\n']), "{query}");
            prop_assert_eq!(Question::from_query(&query).unwrap(), question);
        }

        #[test]
        fn no_query_is_too_strange_to_refuse(query in "\\PC{0,60}") {
            let _ = Question::from_query(&query);
        }
    }

    #[test]
    fn nothing_asks_for_everything() {
        assert_eq!(Question::default().to_query(), "");
        assert_eq!(Question::from_query("").unwrap(), Question::default());
    }

    #[test]
    fn words_for_people() {
        let question = Question::from_query("type=network,file&type=bind&status=DENY&by=workload&label=a%3Db&since=2023-01-04T12:00:00Z").unwrap();
        assert_eq!(
            question.selection.kinds,
            [Kind::Ingress, Kind::Egress, Kind::Bind, Kind::File]
        );
        assert_eq!(question.selection.statuses, [Status::Deny]);
        assert_eq!(question.group, Group::Workload);
        assert_eq!(question.selection.labels["a"], "b");
        assert_eq!(
            question.selection.since,
            Some(Timestamp(1_672_833_600_000_000_000))
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (query, expected) in [
            ("namespaces=a", "unknown key \"namespaces\""),
            ("pod=a&pod=b", "\"pod\" is given twice"),
            (
                "type=files",
                "unknown type \"files\": use process, file, network",
            ),
            ("status=blocked", "unknown status"),
            ("label=a", "key=value"),
            ("label=a!%3Db", "key=value"),
            ("fold=0", "cannot fold"),
            ("by=node", "use pod, workload"),
            ("since=yesterday", "since: "),
            ("empty=yes", "true or false"),
            ("cluster=x", "unknown key"),
        ] {
            let error = format!("{:#}", Question::from_query(query).unwrap_err());
            assert!(error.contains(expected), "{query}: {error}");
        }
    }

    #[test]
    fn every_kind_can_be_asked_for() {
        for kind in Kind::ALL {
            assert_eq!(find(TABLES, kind.as_str()), Some(&[*kind][..]));
        }
    }
}
