//! How a summary looks: text, JSON, YAML, CSV and HTML.
//!
//! A [`Document`] is the wire form of a summary, documented in `docs/summary.md`. It comes
//! from a model's `Summary`, or from the JSON of an agent, and [`render`] writes it in any
//! [`Format`]. What a table's line consists of is defined once, in `row.rs`.
//!
//! **Architecture invariant:** every text in a document is printable. It is made so where
//! the document is made or parsed, so no format needs to think of terminal escapes.

#![forbid(unsafe_code)]

mod csv;
mod document;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod html;
mod printable;
mod row;
mod text;
mod words;

pub use document::{
    Completeness, Document, Gap, Loss, ParseError, SCHEMA, Subject, Table, Workload,
};
pub use printable::Printable;
pub use row::{Field, Row};
pub use text::TextOptions;
pub use words::Zone;

use std::{
    fmt,
    io::{self, Write},
    str::FromStr,
};

/// How to write a summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Tables for people.
    #[default]
    Text,
    /// The documented JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// One flat table.
    Csv,
    /// A page for a browser.
    Html,
}

impl Format {
    /// Every format with the word that options use.
    pub const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Text, "text"),
        (Self::Json, "json"),
        (Self::Yaml, "yaml"),
        (Self::Csv, "csv"),
        (Self::Html, "html"),
    ];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(format, _)| format == self);
        f.pad(word.map_or("", |(_, word)| word))
    }
}

impl FromStr for Format {
    type Err = RenderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::WORDS
            .iter()
            .find(|(_, word)| *word == text)
            .map(|(format, _)| *format)
            .ok_or_else(|| RenderError::UnknownFormat { text: text.into() })
    }
}

/// Why a summary could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The writer failed.
    #[error("cannot write the summary")]
    Io(#[from] io::Error),
    /// The text names no format.
    #[error("cannot write a summary as {text:?}: use text, json, yaml, csv or html")]
    UnknownFormat {
        /// What was asked for.
        text: String,
    },
    /// The YAML writer refused.
    #[error("cannot write the summary as YAML")]
    Yaml(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Writes a document. The text options mean nothing for JSON, YAML and CSV, whose times
/// are UTC; of them, a page respects the time zone.
///
/// # Errors
/// If the writer fails; a reader that closed its pipe is the caller's to forgive.
pub fn render(
    document: &Document,
    format: Format,
    options: &TextOptions,
    out: &mut dyn Write,
) -> Result<(), RenderError> {
    match format {
        Format::Text => text::write(document, options, out)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, document).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        }
        Format::Yaml => {
            let yaml = serde_saphyr::to_string(document)
                .map_err(|error| RenderError::Yaml(error.into()))?;
            out.write_all(yaml.as_bytes())?;
        }
        Format::Csv => csv::write(document, out)?,
        Format::Html => html::write(document, options.zone, out)?,
    }
    Ok(())
}
