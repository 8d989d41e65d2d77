//! One flat table (RFC 4180): each row with the subject it belongs to.
//!
//! A cell whose text begins with `=`, `+`, `-` or `@` gets an apostrophe in front, so that
//! a spreadsheet shows it and does not compute it: names are chosen by workloads, and
//! `@` begins every abstract socket. Who needs names to the byte takes JSON.

use crate::{
    Document, Field, Printable, Subject,
    row::{Cell, Row},
    words,
};
use ethogram_model::Kind;
use std::io::{self, Write};

/// The columns that say whose row it is.
type SubjectColumn = (&'static str, fn(&Subject) -> String);

const SUBJECT_COLUMNS: &[SubjectColumn] = &[
    ("cluster", |s| s.cluster.to_string()),
    ("namespace", |s| s.namespace.to_string()),
    ("pods", |s| list(&s.pods)),
    ("containers", |s| list(&s.containers)),
    ("workload", workload),
    ("labels", |s| words::labels(&s.labels)),
    ("images", |s| list(&s.images)),
    ("nodes", |s| list(&s.nodes)),
    ("runtimes", |s| list(&s.runtimes)),
    ("container_ids", |s| list(&s.container_ids)),
    ("cgroup", |s| s.cgroup.to_string()),
    ("complete", |s| s.completeness.complete.to_string()),
];

/// The column that says which table a row is of.
const TABLE_COLUMN: &str = "table";

fn list(texts: &[Printable]) -> String {
    words::joined(texts, " ")
}

fn workload(subject: &Subject) -> String {
    let workload = &subject.workload;
    if workload.name.is_empty() {
        String::new()
    } else {
        format!("{}/{}", workload.kind, workload.name)
    }
}

pub(crate) fn write(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let names = SUBJECT_COLUMNS.iter().map(|(name, _)| *name);
    let names = names
        .chain([TABLE_COLUMN])
        .chain(Field::ALL.iter().map(|f| f.name()));
    let header: Vec<_> = names.collect();
    write!(out, "{}\r\n", header.join(","))?;
    let mut lines = String::new();
    for subject in &document.subjects {
        let mut start = String::new();
        for (_, value) in SUBJECT_COLUMNS {
            push(&mut start, &value(subject));
            start.push(',');
        }
        for &kind in Kind::ALL {
            for row in subject.table(kind) {
                lines.push_str(&start);
                lines.push_str(kind.as_str());
                push_row(&mut lines, row);
            }
        }
        out.write_all(lines.as_bytes())?;
        lines.clear();
    }
    Ok(())
}

fn push_row(line: &mut String, row: &Row) {
    for field in Field::ALL {
        line.push(',');
        match field.cell(row) {
            Cell::Text(text) => push(line, &text),
            Cell::Number(number) => line.push_str(&number.to_string()),
            Cell::Time(time) => line.push_str(&time.to_string()),
        }
    }
    line.push_str("\r\n");
}

fn push(line: &mut String, text: &str) {
    let is_formula = text.starts_with(['=', '+', '-', '@']);
    let guard = if is_formula { "'" } else { "" };
    if text.contains([',', '"', '\r', '\n']) || text.starts_with(' ') || text.ends_with(' ') {
        line.push('"');
        line.push_str(guard);
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(guard);
        line.push_str(text);
    }
}
