//! One page that needs nothing but itself.
//!
//! The page has no scripts, and its content security policy forbids them, so that even a
//! mistake in escaping could not run what a workload put into a name. Its filters are CSS.

use crate::{
    Document, Row, Subject, Zone,
    row::{self, Cell, Column},
    words::{self, Clock},
};
use ethogram_model::{Kind, Status};
use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

const STYLE: &str = include_str!("page.css");

pub(crate) fn write(document: &Document, zone: Zone, out: &mut dyn Write) -> io::Result<()> {
    let clock = Clock::new(zone);
    let generated = clock.show(document.generated);
    write!(
        out,
        "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">
<title>Ethogram summary</title>
<style>
{STYLE}</style>
</head>
<body>
<h1>What was seen <small>{generated}</small></h1>
"
    )?;
    if document.subjects.is_empty() {
        writeln!(out, "<p>{}</p>", escape(words::NOTHING))?;
    } else {
        write_filters(out)?;
        write_contents(document, out)?;
    }
    let mut section = String::new();
    for (at, subject) in document.subjects.iter().enumerate() {
        push_subject(&mut section, at, subject, &clock);
        out.write_all(section.as_bytes())?;
        section.clear();
    }
    out.write_all(b"</body>\n</html>\n")
}

/// Check boxes that hide the rows of an outcome, and columns for the curious.
fn write_filters(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"<form class=\"filters\">Show")?;
    for status in Status::ALL {
        write!(
            out,
            " <label><input type=\"checkbox\" id=\"show-{status}\" checked> {status}</label>"
        )?;
    }
    out.write_all(
        b" <label><input type=\"checkbox\" id=\"show-wide\"> more columns</label></form>\n",
    )
}

fn write_contents(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    if document.subjects.len() < 2 {
        return Ok(());
    }
    out.write_all(b"<nav><ul>\n")?;
    for (at, subject) in document.subjects.iter().enumerate() {
        let name = name(subject);
        writeln!(
            out,
            "<li><a href=\"#subject-{at}\">{}</a></li>",
            escape(&name)
        )?;
    }
    out.write_all(b"</ul></nav>\n")
}

/// What to call a subject in one line.
fn name(subject: &Subject) -> String {
    let header = words::header(subject, false);
    let parts = [
        "Namespace Name",
        "Pod Name",
        "Container Name",
        "Control Group",
    ];
    let value = |wanted| header.iter().find(|(key, _)| *key == wanted);
    let parts: Vec<_> = parts.into_iter().filter_map(value).collect();
    let parts: Vec<_> = parts.iter().map(|(_, value)| value.as_str()).collect();
    parts.join(" / ")
}

fn push_subject(page: &mut String, at: usize, subject: &Subject, clock: &Clock) {
    push(
        page,
        format_args!(
            "<section id=\"subject-{at}\">\n<h2>{}</h2>\n<dl>\n",
            escape(&name(subject))
        ),
    );
    for (key, value) in words::header(subject, true) {
        push(
            page,
            format_args!("<dt>{key}</dt><dd>{}</dd>\n", escape(&value)),
        );
    }
    page.push_str("</dl>\n");
    let completeness = words::completeness(&subject.completeness, clock);
    let class = if subject.completeness.complete {
        "complete"
    } else {
        "incomplete"
    };
    push(
        page,
        format_args!("<p class=\"{class}\">{}</p>\n", escape(&completeness)),
    );
    for &kind in Kind::ALL {
        let rows = subject.table(kind);
        if !rows.is_empty() {
            push_table(page, kind, rows, clock);
        }
    }
    page.push_str("</section>\n");
}

fn push_table(page: &mut String, kind: Kind, rows: &[Row], clock: &Clock) {
    let title = row::title(kind);
    let columns = row::columns(kind);
    push(
        page,
        format_args!(
            "<details open><summary>{title} <small>{}</small></summary>\n<table>\n<thead><tr>",
            rows.len()
        ),
    );
    for column in columns {
        push(
            page,
            format_args!("<th{}>{}</th>", class(column), column.title),
        );
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        // Only statuses that this version knows are classes: a class is no place for text.
        let status = Status::from_word(row.status.as_str());
        push(
            page,
            format_args!("<tr class=\"{}\">", status.map_or("", Status::as_str)),
        );
        for column in columns {
            push_cell(page, column, row, clock);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</details>\n");
}

fn push_cell(page: &mut String, column: &Column, row: &Row, clock: &Clock) {
    let class = class(column);
    match column.cell(row) {
        Cell::Text(text) => push(page, format_args!("<td{class}>{}</td>", escape(&text))),
        Cell::Number(number) => push(page, format_args!("<td{class}>{number}</td>")),
        Cell::Time(time) => {
            let shown = clock.show(time);
            push(
                page,
                format_args!("<td{class}><time datetime=\"{time}\">{shown}</time></td>"),
            );
        }
    }
}

fn class(column: &Column) -> &'static str {
    match (column.wide, column.is_status()) {
        (true, _) => " class=\"wide\"",
        (_, true) => " class=\"status\"",
        _ => "",
    }
}

fn push(page: &mut String, text: std::fmt::Arguments) {
    page.write_fmt(text)
        .expect("writing to a String cannot fail");
}

/// Text as HTML, in elements and in quoted attributes.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped.into()
}
