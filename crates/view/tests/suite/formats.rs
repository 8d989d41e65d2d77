//! JSON, YAML, CSV and HTML.

use crate::{rendered, sample};
use ethogram_model::{Facts, Fold, SummaryOptions, summarize};
use ethogram_view::{Document, Format, RenderError, SCHEMA, TextOptions, render};

fn shown(document: &Document, format: Format) -> String {
    rendered(document, format, &TextOptions::default())
}

#[test]
fn json() {
    insta::assert_snapshot!(shown(&sample::document(|_| {}), Format::Json));
}

#[test]
fn yaml() {
    insta::assert_snapshot!(shown(&sample::document(|_| {}), Format::Yaml));
}

#[test]
fn csv() {
    insta::assert_snapshot!(shown(&sample::document(|_| {}), Format::Csv));
}

#[test]
fn html() {
    insta::assert_snapshot!(shown(&sample::document(|_| {}), Format::Html));
}

#[test]
fn documents_come_back_from_json_and_yaml() {
    for fold in [Fold::None, Fold::Auto, Fold::Over(1)] {
        let document = sample::document(|o| o.fold = fold);
        let json = shown(&document, Format::Json);
        assert_eq!(Document::from_json(json.as_bytes()).unwrap(), document);
        let yaml = shown(&document, Format::Yaml);
        let parsed: Document = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(parsed, document);
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason() {
    for (json, reason) in [
        ("", "this is no ethogram.summary/v1 document"),
        ("[]", "this is no ethogram.summary/v1 document"),
        (
            r#"{"schema":"ethogram.summary/v1"}"#,
            "this is no ethogram.summary/v1 document",
        ),
        (
            r#"{"schema":"ethogram.summary/v2","subjects":7}"#,
            r#"this document is "ethogram.summary/v2" and this version reads "ethogram.summary/v1""#,
        ),
    ] {
        let error = Document::from_json(json.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(reason), "{json}: {error}");
    }
}

#[test]
fn a_later_minor_version_can_be_read() {
    let json = shown(&sample::document(|_| {}), Format::Json);
    let newer = json.replacen('{', r#"{"added_later": {"x": 1},"#, 1);
    assert_eq!(
        Document::from_json(newer.as_bytes())
            .unwrap()
            .schema
            .as_str(),
        SCHEMA
    );
}

#[test]
fn every_format_says_something_about_nothing() {
    let nothing = summarize(
        &Facts::default(),
        &SummaryOptions::default(),
        sample::second(0),
    );
    let nothing = Document::from(&nothing);
    assert!(shown(&nothing, Format::Json).contains(r#""subjects": []"#));
    assert!(shown(&nothing, Format::Yaml).contains("subjects: []"));
    assert_eq!(shown(&nothing, Format::Csv).lines().count(), 1);
    assert!(shown(&nothing, Format::Html).contains("Nothing to show"));
}

#[test]
fn a_format_is_known_by_its_word() {
    for (format, word) in Format::WORDS {
        assert_eq!(word.parse::<Format>().unwrap(), *format);
        assert_eq!(format.to_string(), *word);
    }
    let error = "xml".parse::<Format>().unwrap_err().to_string();
    assert!(error.contains("text, json, yaml, csv or html"), "{error}");
}

#[test]
fn a_writer_that_fails_is_reported() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let document = sample::calm_document();
    for (format, _) in Format::WORDS {
        let result = render(&document, *format, &TextOptions::default(), &mut Full);
        let Err(RenderError::Io(error)) = result else {
            panic!("{format}: {result:?}");
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{format}");
    }
}
