//! A summary from stored facts to what a reader sees.

#![expect(clippy::unwrap_used, reason = "a test that fails should panic")]

mod formats;
mod hostile;
mod sample;
mod schema;
mod text;

use ethogram_view::{Document, Format, TextOptions, render};

/// What a reader gets.
fn rendered(document: &Document, format: Format, options: &TextOptions) -> String {
    let mut out = Vec::new();
    render(document, format, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}
