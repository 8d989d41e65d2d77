//! What can be seen on this machine, what cannot, and what to do about it.
//!
//! Each check looks at one thing and says it as data; the command shows them.

pub(crate) mod blind_spots;
mod checks;
mod kinds;
mod self_test;

pub(crate) use self_test::act;

use ethogram_sensor::HookChoice;
use serde::Serialize;

use blind_spots::BlindSpot;
pub(crate) use kinds::SeenKind;

/// The name and version of the JSON form. Fields may be added within a version.
const SCHEMA: &str = "ethogram.doctor/v1";

/// All findings.
#[derive(Debug, Serialize)]
pub(crate) struct Diagnosis {
    pub(crate) schema: &'static str,
    pub(crate) version: &'static str,
    /// Whether nothing makes watching impossible.
    pub(crate) can_watch: bool,
    pub(crate) checks: Vec<Check>,
    /// Which hooks see what, and whether the self-test was seen by them.
    pub(crate) kinds: Vec<SeenKind>,
    pub(crate) blind_spots: Vec<BlindSpot>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Stable, for programs.
    pub(crate) id: String,
    pub(crate) level: Level,
    /// What was found.
    pub(crate) finding: String,
    /// What to do about it; empty if there is nothing to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) remedy: String,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Something is not seen, or not named.
    Degraded,
    /// Without it nothing can be watched.
    Missing,
}

impl Level {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

impl Check {
    fn ok(id: &str, finding: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            level: Level::Ok,
            finding: finding.into(),
            remedy: String::new(),
        }
    }

    fn degraded(id: &str, finding: impl Into<String>, remedy: &str) -> Self {
        Self {
            level: Level::Degraded,
            remedy: remedy.to_owned(),
            ..Self::ok(id, finding)
        }
    }

    fn missing(id: &str, finding: impl Into<String>, remedy: &str) -> Self {
        Self {
            level: Level::Missing,
            remedy: remedy.to_owned(),
            ..Self::ok(id, finding)
        }
    }
}

/// Looks at everything, with this choice of hooks.
pub(crate) fn diagnose(choice: HookChoice) -> Diagnosis {
    let mut checks = checks::of_the_kernel();
    let tested = self_test::run(choice);
    checks.extend(tested.checks);
    checks.extend(checks::of_the_machine());
    Diagnosis {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        can_watch: checks.iter().all(|check| check.level != Level::Missing),
        checks,
        kinds: kinds::of(&tested.hooks, &tested.seen),
        blind_spots: blind_spots::of(&tested.hooks),
    }
}
