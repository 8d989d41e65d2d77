//! A table of boxes drawn with ASCII lines: titles centred, cells to the left.

use super::fit;
use std::{borrow::Cow, fmt};
use unicode_width::UnicodeWidthStr;

/// How a cell looks besides its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Green,
    Yellow,
    Red,
    Dim,
}

impl Style {
    /// The escape sequence (ECMA-48 SGR) that begins it, or nothing.
    fn escape(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Red => "\x1b[31m",
            Self::Dim => "\x1b[2m",
        }
    }
}

/// The escape sequence that ends every style.
const STYLE_END: &str = "\x1b[0m";

/// How narrow a column may become to fit a terminal. Narrower ones say nothing.
const COLUMN_WIDTH_MIN: usize = 12;

/// How many columns a text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.width()
    }
}

struct GridColumn {
    title: &'static str,
    shrinks: bool,
    /// As wide as its widest text.
    width: usize,
    width_max: usize,
}

struct GridCell<'a> {
    text: Cow<'a, str>,
    width: usize,
    style: Style,
}

/// Cells by rows, all rows equally long.
pub(super) struct Grid<'a> {
    columns: Vec<GridColumn>,
    cells: Vec<GridCell<'a>>,
}

impl<'a> Grid<'a> {
    /// Titles, and whether their columns may be shortened.
    pub(super) fn new(columns: impl IntoIterator<Item = (&'static str, bool)>) -> Self {
        let column = |(title, shrinks)| GridColumn {
            title,
            shrinks,
            width: width(title),
            width_max: usize::MAX,
        };
        Self {
            columns: columns.into_iter().map(column).collect(),
            cells: Vec::new(),
        }
    }

    /// Adds the next cell of the current row.
    pub(super) fn push(&mut self, text: Cow<'a, str>, style: Style) {
        let at = self.cells.len() % self.columns.len();
        let column = &mut self.columns[at];
        let width = width(&text);
        column.width = column.width.max(width);
        self.cells.push(GridCell { text, width, style });
    }

    /// Narrows the columns that may be until the table fits, the widest first. Says whether
    /// it does: what cannot be shortened may be too much for a narrow terminal.
    pub(super) fn fit(&mut self, width_max: usize) -> bool {
        let borders = 3 * self.columns.len() + 1;
        let fixed = self.columns.iter().filter(|c| !c.shrinks);
        let taken: usize = borders + fixed.map(|c| c.width).sum::<usize>();
        let shrinking = self.columns.iter().filter(|c| c.shrinks);
        let widths: Vec<_> = shrinking.map(|c| c.width).collect();
        let Some(limit) = fit::limit(&widths, width_max.saturating_sub(taken)) else {
            return true;
        };
        let columns_count = self.columns.len();
        for column in &mut self.columns {
            let title_width = width(column.title);
            if column.shrinks {
                column.width_max = limit.max(COLUMN_WIDTH_MIN).max(title_width);
                column.width = title_width;
            }
        }
        for (at, cell) in self.cells.iter_mut().enumerate() {
            let column = &mut self.columns[at % columns_count];
            if cell.width > column.width_max {
                let short = fit::shorten(&cell.text, column.width_max);
                cell.width = width(&short);
                cell.text = short.into();
            }
            column.width = column.width.max(cell.width);
        }
        borders + self.columns.iter().map(|c| c.width).sum::<usize>() <= width_max
    }

    fn rule(&self) -> String {
        let mut rule = String::from("+");
        for column in &self.columns {
            rule.extend(std::iter::repeat_n('-', column.width + 2));
            rule.push('+');
        }
        rule.push('\n');
        rule
    }
}

impl fmt::Display for Grid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.rule();
        f.write_str(&rule)?;
        for column in &self.columns {
            write!(f, "| {:^1$} ", column.title, column.width)?;
        }
        write!(f, "|\n{rule}")?;
        for row in self.cells.chunks(self.columns.len()) {
            for (cell, column) in row.iter().zip(&self.columns) {
                let escape = cell.style.escape();
                let end = if escape.is_empty() { "" } else { STYLE_END };
                let padding = column.width - cell.width;
                write!(f, "| {escape}{}{end}{:padding$} ", cell.text, "")?;
            }
            f.write_str("|\n")?;
        }
        f.write_str(&rule)
    }
}
