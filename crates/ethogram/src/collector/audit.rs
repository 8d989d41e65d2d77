//! Who read and reported what: a file of JSON lines, one for each question and two for each
//! stream of reports, refused ones too.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result};
use ethogram_cluster::Reporting;
use serde::Serialize;
use tonic::Code;

use crate::clock::{now, rfc3339};

/// The file. Other programs may move it away and have it made anew by a restart.
pub(super) struct Audit {
    file: File,
}

/// The HTTP status that means what a gRPC code does.
pub(super) fn status_of(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::DeadlineExceeded => 408,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unavailable => 503,
        _ => 500,
    }
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

    /// Appends that somebody began to report, stopped, or was not let in.
    pub(super) fn write_reporting(&self, reporting: &Reporting) {
        let node = &reporting.node;
        self.write(&Line {
            who: &reporting.who,
            role: reporting.role.clone(),
            what: &match reporting.rows {
                None => format!("Report node={node:?}"),
                Some(rows) => format!("Report node={node:?} ended rows={rows}"),
            },
            status: status_of(reporting.outcome),
        });
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
