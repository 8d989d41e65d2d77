//! How well the cluster's names are known, for `/v1/status` and `/metrics`.

use std::collections::BTreeMap;

use ethogram_kubernetes::{Coverage, Names, Silence, State};
use serde::Serialize;

use crate::clock::rfc3339;

/// Silences shown at most, the newest; how many there were is shown in any case.
const SILENCES_SHOWN_MAX: usize = 16;

/// What a watch of the API server knows, and what it missed.
#[derive(Debug, Serialize)]
pub(crate) struct NamesState {
    /// By kind of object.
    pub(crate) kinds: BTreeMap<&'static str, KindState>,
    /// Times in which nothing was heard of a kind: what is named by it may be late or, where
    /// all had to be listed anew, missing.
    silences: Vec<SilenceState>,
    pub(crate) silences_total: u64,
    /// How often more had to be remembered than is allowed.
    pub(crate) bounds_hit: u64,
}

/// How one kind of object stands.
#[derive(Debug, Serialize)]
pub(crate) struct KindState {
    /// `listing`, `current` or `away`.
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heard: Option<String>,
    /// How many there were when all were listed.
    pub(crate) listed: usize,
    /// How many were not understood.
    pub(crate) malformed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed_why: Option<String>,
}

#[derive(Debug, Serialize)]
struct SilenceState {
    kind: &'static str,
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    relisted: bool,
    why: String,
}

/// Why the API server is not heard; `None` while it is.
pub(super) fn away(names: &Names) -> Option<&str> {
    names.coverage().find_map(|coverage| match &coverage.state {
        State::Away { why } => Some(why.as_str()),
        State::Listing | State::Current => None,
    })
}

impl NamesState {
    pub(super) fn of(names: &Names) -> Self {
        let silences: Vec<_> = names.silences().collect();
        let newest = silences.iter().rev().take(SILENCES_SHOWN_MAX).rev();
        let bounds = names.bounds();
        Self {
            kinds: names
                .coverage()
                .map(|coverage| (coverage.kind.plural(), KindState::of(coverage)))
                .collect(),
            silences: newest.map(|silence| SilenceState::of(silence)).collect(),
            silences_total: silences.len() as u64 + bounds.silences_forgotten,
            bounds_hit: bounds.freed_forgotten_early + bounds.dead_pods_forgotten_early,
        }
    }
}

impl KindState {
    fn of(coverage: &Coverage) -> Self {
        let (state, why) = match &coverage.state {
            State::Listing => ("listing", None),
            State::Current => ("current", None),
            State::Away { why } => ("away", Some(why.clone())),
        };
        Self {
            state,
            why,
            heard: coverage.heard.map(rfc3339),
            listed: coverage.listed,
            malformed: coverage.malformed,
            malformed_why: coverage.malformed_why.clone(),
        }
    }
}

impl SilenceState {
    fn of(silence: &Silence) -> Self {
        Self {
            kind: silence.kind.plural(),
            from: rfc3339(silence.from),
            until: silence.until.map(rfc3339),
            relisted: silence.relisted,
            why: silence.why.clone(),
        }
    }
}
