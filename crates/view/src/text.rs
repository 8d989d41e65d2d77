//! Tables for people, in the shape `karmor summary` gave them.

mod fit;
mod grid;

use crate::{
    Document, Row, Subject,
    row::{self, Cell, Column},
    words::{self, Clock, Zone},
};
use ethogram_model::Kind;
use grid::{Grid, Style};
use std::io::{self, Write};

/// How text looks. The default is what a pipe gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// The terminal's width in columns; tables that are wider are shortened. `None` keeps
    /// every text whole.
    pub width: Option<usize>,
    /// Colour the status.
    pub color: bool,
    /// Also show when a row was first seen, arguments, marks, rows behind it, whole ids.
    pub wide: bool,
    /// The zone of times.
    pub zone: Zone,
}

pub(crate) fn write(
    document: &Document,
    options: &TextOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    if document.subjects.is_empty() {
        return writeln!(out, "{}", words::NOTHING);
    }
    let clock = Clock::new(options.zone);
    for (at, subject) in document.subjects.iter().enumerate() {
        if at > 0 {
            out.write_all(b"\n\n")?;
        }
        write_subject(subject, options, &clock, out)?;
    }
    Ok(())
}

fn write_subject(
    subject: &Subject,
    options: &TextOptions,
    clock: &Clock,
    out: &mut dyn Write,
) -> io::Result<()> {
    let header = words::header(subject, options.wide);
    let key_width = header.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    for (key, value) in header {
        writeln!(out, "  {key:key_width$}  {value}")?;
    }
    for &kind in Kind::ALL {
        let rows = subject.table(kind);
        if !rows.is_empty() {
            let table = table(kind, rows, options, clock);
            write!(out, "\n{}\n{table}\n", row::title(kind))?;
        }
    }
    writeln!(
        out,
        "\n{}",
        words::completeness(&subject.completeness, clock)
    )
}

fn table(kind: Kind, rows: &[Row], options: &TextOptions, clock: &Clock) -> String {
    let columns = row::columns(kind);
    let mut columns: Vec<_> = columns
        .iter()
        .filter(|c| options.wide || !c.wide || c.tells_folded(rows))
        .collect();
    let mut table = grid(&columns, rows, options, clock, false);
    if let Some(width) = options.width
        && !table.fit(width)
    {
        // Shorter titles and times, and nothing that says nothing.
        columns.retain(|column| rows.iter().any(|row| !column.cell(row).is_empty()));
        table = grid(&columns, rows, options, clock, true);
        while !table.fit(width)
            && let Some(spare) = columns.iter().rposition(|column| column.spare)
        {
            columns.remove(spare);
            table = grid(&columns, rows, options, clock, true);
        }
    }
    table.to_string()
}

fn grid<'a>(
    columns: &[&Column],
    rows: &'a [Row],
    options: &TextOptions,
    clock: &Clock,
    narrow: bool,
) -> Grid<'a> {
    let title = |c: &Column| if narrow { c.narrow_title } else { c.title };
    let mut grid = Grid::new(columns.iter().map(|c| (title(c), c.shrinks)));
    for row in rows {
        for column in columns {
            let text = match column.cell(row) {
                Cell::Text(text) => text,
                Cell::Number(number) => number.to_string().into(),
                Cell::Time(time) if narrow => clock.show_briefly(time).into(),
                Cell::Time(time) => clock.show(time).into(),
            };
            grid.push(text, style(column, row, options));
        }
    }
    grid
}

fn style(column: &Column, row: &Row, options: &TextOptions) -> Style {
    if !options.color || !column.is_status() {
        return Style::Plain;
    }
    match row.status.as_str() {
        "Allow" => Style::Green,
        "Audit" => Style::Yellow,
        "Deny" => Style::Red,
        "Failed" => Style::Dim,
        _ => Style::Plain,
    }
}
