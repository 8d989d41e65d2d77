//! Tables for people.

use crate::{rendered, sample};
use ethogram_model::{Facts, Fold, Group, Kind, SummaryOptions, summarize};
use ethogram_view::{Document, Format, TextOptions};

fn text(document: &Document, options: &TextOptions) -> String {
    rendered(document, Format::Text, options)
}

#[test]
fn a_pods_summary() {
    let document = sample::calm_document();
    insta::assert_snapshot!(text(&document, &TextOptions::default()));
}

#[test]
fn several_subjects_and_what_is_missing() {
    let document = sample::document(|_| {});
    insta::assert_snapshot!(text(&document, &TextOptions::default()));
}

#[test]
fn wide() {
    let document = sample::document(|o| {
        o.group = Group::Workload;
        o.fold = Fold::None;
        o.selection.namespace = Some("dvwa".into());
    });
    let options = TextOptions {
        wide: true,
        ..TextOptions::default()
    };
    insta::assert_snapshot!(text(&document, &options));
}

#[test]
fn fitted_to_a_terminal() {
    let document = sample::calm_document();
    let shown = |width| {
        let options = TextOptions {
            width: Some(width),
            ..TextOptions::default()
        };
        text(&document, &options)
    };
    insta::assert_snapshot!(shown(120));
    for width in [120, 140, 200] {
        let is_table = |line: &&str| line.starts_with(['|', '+']);
        for line in shown(width).lines().filter(is_table) {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
    assert_eq!(shown(1000), text(&document, &TextOptions::default()));
}

#[test]
fn colours_only_when_told() {
    let document = sample::calm_document();
    let plain = text(&document, &TextOptions::default());
    assert!(!plain.contains('\x1b'));
    let options = TextOptions {
        color: true,
        ..TextOptions::default()
    };
    let colored = text(&document, &options);
    assert!(colored.contains("| \x1b[32mAllow\x1b[0m  |"), "{colored}");
    assert!(colored.contains("| \x1b[31mDeny\x1b[0m   |"), "{colored}");
    let stripped = ["\x1b[32m", "\x1b[31m", "\x1b[0m"]
        .iter()
        .fold(colored, |text, escape| text.replace(escape, ""));
    assert_eq!(stripped, plain);
}

#[test]
fn nothing_to_show_says_what_to_do() {
    let nothing = summarize(
        &Facts::default(),
        &SummaryOptions::default(),
        sample::second(0),
    );
    let shown = text(&Document::from(&nothing), &TextOptions::default());
    assert!(shown.contains("ethogram doctor"), "{shown}");
}

#[test]
fn a_pod_that_only_binds_is_shown() {
    let document = sample::document(|o| o.selection.kinds = vec![Kind::Bind]);
    let shown = text(&document, &TextOptions::default());
    assert!(shown.contains("resolver"), "{shown}");
    assert!(shown.contains("Bind Points"));
    assert!(!shown.contains("Process Data"));
}

#[test]
fn columns_line_up_whatever_the_script() {
    let mut document = sample::calm_document();
    let subject = &mut document.subjects[0];
    for rows in subject.tables.values_mut() {
        for row in rows {
            row.target = "/日本語/é\u{301}/🦀".into();
        }
    }
    let shown = text(&document, &TextOptions::default());
    let widths: Vec<_> = shown
        .lines()
        .filter(|line| line.starts_with("| /bin/rm"))
        .map(unicode_width::UnicodeWidthStr::width)
        .collect();
    let title = shown.lines().find(|line| line.contains("FILE PATH"));
    assert_eq!(widths, [title.unwrap().len()]);
}
