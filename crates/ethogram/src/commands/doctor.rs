//! `ethogram doctor`: can everything be seen here?

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Result;
use unicode_width::UnicodeWidthStr;

use crate::{
    args::{DoctorArgs, ListFormat, SelfTestArgs, When},
    doctor::{self, Check, Diagnosis, Level, SeenKind},
    present,
};

/// How wide paragraphs are where no terminal says otherwise.
const WIDTH_DEFAULT: usize = 100;
/// How narrow they become at most.
const WIDTH_MIN: usize = 40;

/// Looks at everything and says what was found. The exit status is 1 if watching is impossible.
pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let diagnosis = doctor::diagnose(args.hooks);
    present::write(|out| {
        match args.output {
            ListFormat::Json => {
                serde_json::to_writer_pretty(&mut *out, &diagnosis)
                    .map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            ListFormat::Text => {
                let width = present::terminal_width()
                    .unwrap_or(WIDTH_DEFAULT)
                    .max(WIDTH_MIN);
                let coloured = present::is_coloured(When::Auto);
                write!(
                    out,
                    "{}",
                    text(&diagnosis, width.min(WIDTH_DEFAULT), coloured)
                )?;
            }
        }
        Ok(())
    })?;
    Ok(if diagnosis.can_watch {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Does what the self-test expects to see.
pub(crate) fn act(args: &SelfTestArgs) -> Result<ExitCode> {
    doctor::act(&args.folder)?;
    Ok(ExitCode::SUCCESS)
}

fn text(diagnosis: &Diagnosis, width: usize, coloured: bool) -> String {
    let mut text = String::new();
    let id_width = diagnosis.checks.iter().map(|check| check.id.width());
    // An id too long for its column has the line for itself.
    let id_width = id_width.filter(|id| *id <= ID_WIDTH_MAX).max().unwrap_or(0);
    for check in &diagnosis.checks {
        push_check(&mut text, check, id_width, width, coloured);
    }
    text.push_str("\nWhat sees what:\n\n");
    for kind in &diagnosis.kinds {
        push_kind(&mut text, kind, width);
    }
    text.push_str("\nWhat cannot be seen here:\n");
    for spot in &diagnosis.blind_spots {
        let kinds = spot.kinds.join(", ");
        push(&mut text, format_args!("\n  {} ({kinds})\n", spot.id));
        push_paragraph(&mut text, spot.text, 4, width);
        push_paragraph(&mut text, &format!("→ {}", spot.remedy), 4, width);
    }
    let verdict = if diagnosis.can_watch {
        "Containers can be watched here."
    } else {
        "Nothing can be watched here until what is missing is there."
    };
    push(&mut text, format_args!("\n{verdict}\n"));
    text
}

/// A kind, whether the self-test was seen doing it, and the hooks it is seen by.
fn push_kind(text: &mut String, kind: &SeenKind, width: usize) {
    const INDENT: usize = 23;
    let seen = match kind.seen {
        Some(true) => "seen",
        Some(false) => "not seen",
        None => "",
    };
    let hooks = if kind.hooks.is_empty() {
        "no hook".to_owned()
    } else {
        kind.hooks.join(" ")
    };
    let mut paragraph = String::new();
    push_paragraph(&mut paragraph, &hooks, INDENT, width);
    push(
        text,
        format_args!("  {:10} {seen:8}  {}", kind.kind, paragraph.trim_start()),
    );
}

/// Ids up to this width share a column.
const ID_WIDTH_MAX: usize = 32;

fn push_check(text: &mut String, check: &Check, id_width: usize, width: usize, coloured: bool) {
    let word = check.level.as_str();
    let level = if coloured {
        let colour = match check.level {
            Level::Ok => 32,
            Level::Degraded => 33,
            Level::Missing => 31,
        };
        format!("\x1b[{colour}m{word:8}\x1b[0m")
    } else {
        format!("{word:8}")
    };
    let indent = 8 + 2 + id_width + 2;
    if check.id.width() > id_width {
        push(text, format_args!("{level}  {}\n", check.id));
        push_paragraph(text, &check.finding, indent, width);
    } else {
        push(text, format_args!("{level}  {:id_width$}  ", check.id));
        let mut paragraph = String::new();
        push_paragraph(&mut paragraph, &check.finding, indent, width);
        text.push_str(paragraph.trim_start());
    }
    if !check.remedy.is_empty() {
        push_paragraph(text, &format!("→ {}", check.remedy), indent, width);
    }
}

/// Words on lines of at most `width` columns, all indented.
fn push_paragraph(text: &mut String, paragraph: &str, indent: usize, width: usize) {
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        if column > 0 && column + 1 + word.width() <= width {
            text.push(' ');
            column += 1;
        } else {
            if column > 0 {
                text.push('\n');
            }
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        }
        text.push_str(word);
        column += word.width();
    }
    text.push('\n');
}

fn push(text: &mut String, what: std::fmt::Arguments) {
    text.write_fmt(what)
        .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_fit() {
        let mut text = String::new();
        push_paragraph(&mut text, "one two three four", 2, 9);
        assert_eq!(text, "  one two\n  three\n  four\n");
        let mut text = String::new();
        push_paragraph(&mut text, "a-word-that-is-too-long b", 2, 9);
        assert_eq!(text, "  a-word-that-is-too-long\n  b\n");
    }
}
