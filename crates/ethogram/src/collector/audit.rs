//! Who read what: a file of JSON lines, one for each question, refused ones too.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::clock::{now, rfc3339};

/// The file. Other programs may move it away and have it made anew by a restart.
pub(super) struct Audit {
    file: File,
}

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    /// The token's name; empty for somebody unknown.
    pub(super) who: &'a str,
    /// Its role; empty likewise.
    pub(super) role: String,
    /// What was asked for, the question included.
    pub(super) what: &'a str,
    /// The answer's HTTP status.
    pub(super) status: u16,
}

impl Audit {
    /// Opens a file to append to, made readable by its owner only.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path);
        let file = opened.with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self { file })
    }

    /// Appends a line, in one piece.
    pub(super) fn write(&self, line: &Line<'_>) {
        #[derive(Serialize)]
        struct Timed<'a> {
            time: String,
            #[serde(flatten)]
            line: &'a Line<'a>,
        }
        let timed = Timed {
            time: rfc3339(now()),
            line,
        };
        let written = serde_json::to_vec(&timed)
            .map_err(Into::into)
            .and_then(|mut text| {
                text.push(b'\n');
                (&self.file).write_all(&text)
            });
        if let Err(error) = written {
            tracing::error!(?line, "cannot write to the audit log: {error}");
        }
    }
}
