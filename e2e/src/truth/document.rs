//! The part of a summary's JSON document that the comparison needs.

use super::{Ledger, ledger::Row};
use ethogram_model::Kind;
use serde_json::Value;

/// The rows of a summary and what it says was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Every row of every subject.
    pub seen: Ledger,
    /// Events reported as not counted, over all subjects and reasons.
    pub lost: u64,
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
    /// Reads a document, as `ethogram summary -o json --fold none` prints it.
    ///
    /// # Errors
    /// The part that is missing or not as documented.
    pub fn read(text: &str) -> Result<Self, DocumentError> {
        let whole: Value = serde_json::from_str(text)?;
        let mut document = Self::default();
        for (index, subject) in array(&whole, "subjects", "")?.iter().enumerate() {
            let at = format!("subjects[{index}]");
            for kind in Kind::ALL {
                document.take_rows(subject, *kind, &at)?;
            }
            document.take_losses(subject, &at)?;
        }
        Ok(document)
    }

    fn take_rows(&mut self, subject: &Value, kind: Kind, at: &str) -> Result<(), DocumentError> {
        if subject.get(kind.as_str()).is_none() {
            return Ok(());
        }
        for (index, row) in array(subject, kind.as_str(), at)?.iter().enumerate() {
            let wrong = |reason: String| DocumentError::Shape {
                part: format!("{at}.{kind}[{index}]"),
                reason,
            };
            let mut row: Row =
                serde_json::from_value(row.clone()).map_err(|e| wrong(e.to_string()))?;
            row.kind = kind.as_str().into();
            let (behaviour, count) = row.behaviour().map_err(wrong)?;
            self.seen.add(behaviour, count);
        }
        Ok(())
    }

    fn take_losses(&mut self, subject: &Value, at: &str) -> Result<(), DocumentError> {
        if subject.get("lost").is_none() {
            return Ok(());
        }
        for (index, loss) in array(subject, "lost", at)?.iter().enumerate() {
            let count = loss.get("count").and_then(Value::as_u64);
            self.lost += count.ok_or_else(|| DocumentError::Shape {
                part: format!("{at}.lost[{index}]"),
                reason: "has no count".into(),
            })?;
        }
        Ok(())
    }
}

fn array<'a>(value: &'a Value, key: &str, at: &str) -> Result<&'a [Value], DocumentError> {
    let found = value.get(key).and_then(Value::as_array);
    found
        .map(Vec::as_slice)
        .ok_or_else(|| DocumentError::Shape {
            part: format!("{at}{}{key}", if at.is_empty() { "" } else { "." }),
            reason: "is no list".into(),
        })
}
