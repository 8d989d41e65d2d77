//! What was heard of the API server, and when nothing was.

use crate::objects::Kind;
use ethogram_model::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many silences are remembered; beyond it the oldest go
/// ([`Bounds::silences_forgotten`](super::Bounds::silences_forgotten)).
pub const SILENCES_KEPT_MAX: usize = 256;

/// How well one kind of object is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Which kind.
    pub kind: Kind,
    /// How it stands.
    pub state: State,
    /// When the API server was last heard on it; `None` if never.
    pub heard: Option<Timestamp>,
    /// How many objects there were when all were listed last.
    pub listed: usize,
    /// How many objects could not be understood and were skipped.
    pub malformed: u64,
    /// Why the last of them was not.
    pub malformed_why: Option<String>,
}

/// How one kind of object stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not all of it was listed yet.
    #[default]
    Listing,
    /// Changes arrive as they happen.
    Current,
    /// The API server does not answer, or refuses.
    Away {
        /// Why, and what to do about it.
        why: String,
    },
}

/// A time in which nothing was heard of one kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Which kind.
    pub kind: Kind,
    /// When it was heard last; the time of the first try if it never was.
    pub from: Timestamp,
    /// When it was heard again; `None` while it is not.
    pub until: Option<Timestamp>,
    /// Whether all had to be listed anew at the end. If so, what began and ended within is
    /// not known; if not, it was told late, and times within are those of the telling.
    pub relisted: bool,
    /// The last reason that was given.
    pub why: String,
}

/// Coverage of all kinds that are watched.
#[derive(Debug)]
pub(super) struct Coverages {
    of: BTreeMap<Kind, Coverage>,
    /// Kinds of which a list has begun and not ended.
    listing: BTreeSet<Kind>,
    silences: VecDeque<Silence>,
    forgotten: u64,
}

impl Coverages {
    pub(super) fn new(kinds: &[Kind]) -> Self {
        let unknown = |kind: &Kind| Coverage {
            kind: *kind,
            state: State::Listing,
            heard: None,
            listed: 0,
            malformed: 0,
            malformed_why: None,
        };
        Self {
            of: kinds.iter().map(|kind| (*kind, unknown(kind))).collect(),
            listing: BTreeSet::new(),
            silences: VecDeque::new(),
            forgotten: 0,
        }
    }

    pub(super) fn heard(&mut self, kind: Kind, now: Timestamp) {
        // Pages of a list do not mean that changes arrive.
        if self.listing.contains(&kind) {
            return;
        }
        let Some(one) = self.of.get_mut(&kind) else {
            return;
        };
        one.heard = Some(now);
        one.state = State::Current;
        self.end_silence(kind, now, false);
    }

    /// All objects are being listed: what was known of the kind may be out of date.
    pub(super) fn listing(&mut self, kind: Kind, now: Timestamp) {
        let Some(one) = self.of.get_mut(&kind) else {
            return;
        };
        self.listing.insert(kind);
        // Who was away is away until it has answered.
        if one.state == State::Current {
            one.state = State::Listing;
        }
        if one.heard.is_some() {
            self.begin_silence(kind, now, "the API server no longer had the changes");
        }
    }

    pub(super) fn listed(&mut self, kind: Kind, objects: usize, now: Timestamp) {
        let Some(one) = self.of.get_mut(&kind) else {
            return;
        };
        self.listing.remove(&kind);
        one.state = State::Current;
        one.heard = Some(now);
        one.listed = objects;
        self.end_silence(kind, now, true);
    }

    pub(super) fn away(&mut self, kind: Kind, why: &str, now: Timestamp) {
        let Some(one) = self.of.get_mut(&kind) else {
            return;
        };
        let why_text = why.to_owned();
        one.state = State::Away { why: why_text };
        self.begin_silence(kind, now, why);
        if let Some(silence) = self.open_silence(kind) {
            why.clone_into(&mut silence.why);
        }
    }

    pub(super) fn malformed(&mut self, kind: Kind, why: String) {
        if let Some(one) = self.of.get_mut(&kind) {
            one.malformed += 1;
            one.malformed_why = Some(why);
        }
    }

    /// Whether every kind was listed, or failed to be, so that waiting longer for a
    /// better claim is vain.
    pub(super) fn is_settled(&self) -> bool {
        let settled = |c: &Coverage| c.heard.is_some() || matches!(c.state, State::Away { .. });
        self.of.values().all(settled)
    }

    /// Whether every kind was listed at least once.
    pub(super) fn is_complete(&self) -> bool {
        self.of.values().all(|coverage| coverage.heard.is_some())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Coverage> {
        self.of.values()
    }

    pub(super) fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.silences.iter()
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn open_silence(&mut self, kind: Kind) -> Option<&mut Silence> {
        let open = |s: &&mut Silence| s.kind == kind && s.until.is_none();
        self.silences.iter_mut().rev().find(open)
    }

    fn begin_silence(&mut self, kind: Kind, now: Timestamp, why: &str) {
        if self.open_silence(kind).is_some() {
            return;
        }
        if self.silences.len() >= SILENCES_KEPT_MAX {
            self.silences.pop_front();
            self.forgotten += 1;
        }
        let heard = self.of.get(&kind).and_then(|coverage| coverage.heard);
        self.silences.push_back(Silence {
            kind,
            from: heard.unwrap_or(now),
            until: None,
            relisted: false,
            why: why.to_owned(),
        });
    }

    fn end_silence(&mut self, kind: Kind, now: Timestamp, relisted: bool) {
        if let Some(silence) = self.open_silence(kind) {
            silence.until = Some(now.max(silence.from));
            silence.relisted = relisted;
        }
    }
}
