//! The part of a summary's JSON document that the comparison needs.

use super::{Ledger, ledger::Row};
use ethogram_model::Kind;
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of the document that is read here.
const SCHEMA: &str = "ethogram.summary/v1";

/// The rows of a summary and what it says was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Every row of every subject.
    pub seen: Ledger,
    /// Events reported as not counted, by reason, over all subjects.
    pub losses: BTreeMap<String, u64>,
}

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not JSON.
    #[error("the summary is not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A part is missing or has another shape than documented.
    #[error("the summary's {part}: {reason}")]
    Shape {
        /// Where.
        part: String,
        /// What is wrong.
        reason: String,
    },
}

impl Document {
    /// All events it accounts for, in the scope of a truth or not: those it counted and
    /// those it says were lost.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.seen.total() + self.lost()
    }

    /// Events reported as not counted, for whatever reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.losses.values().sum()
    }

    /// Reads a document, as `ethogram summary -o json --fold none` prints it.
    ///
    /// It is read by its description, not by the code that writes it, so that a mistake in
    /// that code shows.
    ///
    /// # Errors
    /// The part that is missing or not as documented.
    pub fn read(text: &str) -> Result<Self, DocumentError> {
        let whole: Value = serde_json::from_str(text)?;
        must_be(&whole, "schema", SCHEMA)?;
        must_be(&whole, "fold", "none")?;
        let mut document = Self::default();
        for (index, subject) in array(&whole["subjects"], "subjects")?.iter().enumerate() {
            let at = format!("subjects[{index}]");
            for kind in Kind::ALL {
                let rows = &subject["tables"][kind.as_str()];
                document.take_rows(rows, *kind, &format!("{at}.tables.{kind}"))?;
            }
            let losses = &subject["completeness"]["losses"];
            document.take_losses(losses, &format!("{at}.completeness.losses"))?;
        }
        Ok(document)
    }

    fn take_rows(&mut self, rows: &Value, kind: Kind, at: &str) -> Result<(), DocumentError> {
        for (index, row) in array(rows, at)?.iter().enumerate() {
            let wrong = |reason: String| shape(&format!("{at}[{index}]"), reason);
            let mut row: Row =
                serde_json::from_value(row.clone()).map_err(|e| wrong(e.to_string()))?;
            row.kind = kind.as_str().into();
            let (behaviour, count) = row.behaviour().map_err(wrong)?;
            self.seen.add(behaviour, count);
        }
        Ok(())
    }

    fn take_losses(&mut self, losses: &Value, at: &str) -> Result<(), DocumentError> {
        for (index, loss) in array(losses, at)?.iter().enumerate() {
            let wrong = |reason: &str| shape(&format!("{at}[{index}]"), reason.into());
            let reason = loss["reason"]
                .as_str()
                .ok_or_else(|| wrong("has no reason"))?;
            let count = loss["count"]
                .as_u64()
                .ok_or_else(|| wrong("has no count"))?;
            *self.losses.entry(reason.to_owned()).or_default() += count;
        }
        Ok(())
    }
}

fn shape(part: &str, reason: String) -> DocumentError {
    DocumentError::Shape {
        part: part.into(),
        reason,
    }
}

fn array<'a>(value: &'a Value, at: &str) -> Result<&'a [Value], DocumentError> {
    let found = value.as_array().map(Vec::as_slice);
    found.ok_or_else(|| shape(at, "is no list".into()))
}

fn must_be(whole: &Value, part: &str, wanted: &str) -> Result<(), DocumentError> {
    let found = &whole[part];
    if found == wanted {
        return Ok(());
    }
    Err(shape(part, format!("is {found} and must be {wanted:?}")))
}
