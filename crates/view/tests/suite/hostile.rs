//! Names chosen by an attacker.

use crate::{rendered, sample};
use ethogram_model::{Container, Facts, Fold, Kind, Name, SummaryOptions, summarize};
use ethogram_view::{Document, Format, Printable, Row, TextOptions};
use proptest::prelude::*;

const HOSTILE: &[&str] = &[
    "/tmp/\x1b[31mred\x1b[0m",
    "/tmp/new\nline\r\n",
    "/tmp/\u{202e}gpj.exe",
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "&lt;b&gt;",
    "=HYPERLINK(\"http://x\")",
    "+1+1",
    "-1",
    "@SUM(A1)",
    "a,b\",c",
    "\t=1",
    " lead",
    "no",
    "1e3",
    "key: value # comment",
    "- item",
    "back\\slash \\x1b",
    "\0",
    "…日本",
];

/// A document in which every text is the given one.
fn full_of(text: &str) -> Document {
    let name = Name::from(text);
    let text = name.to_string();
    let mut container = Container {
        node: text.clone(),
        id: text.clone(),
        name: text.clone(),
        image: text.clone(),
        namespace: text.clone(),
        pod: text.clone(),
        cgroup_path: name.clone(),
        ..sample::web()
    };
    container.labels.insert(text.clone(), text.clone());
    container.workload.name = text.clone();
    let observations: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| {
            let mut observation = sample::seen(*kind, "", "", 1, 0);
            observation.behaviour.source = name.clone();
            observation.behaviour.target = name.clone();
            observation.example = name.clone();
            observation
        })
        .collect();
    let facts = Facts {
        containers: &[container],
        observations: &observations,
        ..Facts::default()
    };
    let options = SummaryOptions {
        fold: Fold::None,
        cluster: text,
        ..SummaryOptions::default()
    };
    Document::from(&summarize(&facts, &options, sample::second(0)))
}

fn everything(document: &Document, format: Format) -> String {
    let options = TextOptions {
        wide: true,
        width: Some(100),
        ..TextOptions::default()
    };
    rendered(document, format, &options)
}

/// The records of a CSV text, by RFC 4180.
fn csv_records(csv: &str) -> Vec<Vec<String>> {
    let mut records = vec![vec![String::new()]];
    let mut quoted = false;
    let mut chars = csv.chars().peekable();
    while let Some(c) = chars.next() {
        let record = records.last_mut().unwrap();
        let cell = record.last_mut().unwrap();
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.push(chars.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(String::new()),
            '\r' if !quoted => {
                assert_eq!(chars.next(), Some('\n'));
                records.push(vec![String::new()]);
            }
            c => cell.push(c),
        }
    }
    assert_eq!(records.pop(), Some(vec![String::new()]), "a last line end");
    records
}

fn check_all(document: &Document) {
    for (format, _) in Format::WORDS {
        let shown = everything(document, *format);
        let is_raw = |c: &char| c.is_control() && *c != '\n' && *c != '\r';
        assert_eq!(shown.chars().find(is_raw), None, "{format}: {shown:?}");
        assert!(!shown.contains('\u{202e}'), "{format}");
    }
    let csv = everything(document, Format::Csv);
    let records = csv_records(&csv);
    for record in &records {
        assert_eq!(record.len(), records[0].len(), "{record:?}");
        for cell in record {
            assert!(
                !cell.starts_with(['=', '+', '-', '@', '\t', '\r']),
                "{cell:?}"
            );
        }
    }
    let json = everything(document, Format::Json);
    assert_eq!(&Document::from_json(json.as_bytes()).unwrap(), document);
    let yaml = everything(document, Format::Yaml);
    let parsed: Document = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(&parsed, document, "{yaml}");
}

/// What is left of a page when all that a browser takes for markup is removed, checking
/// that the markup is ours.
fn html_text(page: &str) -> String {
    let mut text = String::new();
    let body = page.split_once("<body>").unwrap().1;
    let mut rest = body;
    while let Some((before, after)) = rest.split_once('<') {
        text.push_str(before);
        let (tag, after) = after.split_once('>').unwrap();
        let word = |c: char| c.is_ascii_alphanumeric() || " =\"-#/:.".contains(c);
        assert!(tag.chars().all(word), "<{tag}>");
        let name = tag.trim_start_matches('/').split(' ').next().unwrap();
        assert!(
            [
                "a", "body", "dd", "details", "dl", "dt", "form", "h1", "h2", "html", "input",
                "label", "li", "nav", "p", "section", "small", "summary", "table", "tbody", "td",
                "th", "thead", "time", "tr", "ul",
            ]
            .contains(&name),
            "<{tag}>"
        );
        for attribute in tag.split(' ').skip(1) {
            let key = attribute.split('=').next().unwrap();
            let known = ["checked", "class", "datetime", "href", "id", "open", "type"];
            assert!(known.contains(&key), "<{tag}>");
        }
        rest = after;
    }
    text.push_str(rest);
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

#[test]
fn every_format_survives_every_name() {
    for text in HOSTILE {
        let document = full_of(text);
        check_all(&document);
        let page = everything(&document, Format::Html);
        let escaped = Name::from(*text).to_string();
        assert!(html_text(&page).contains(&escaped), "{escaped} in {page}");
    }
}

#[test]
fn formulas_are_defused_and_readable() {
    let csv = everything(&full_of("@SUM(A1)"), Format::Csv);
    assert!(
        csv_records(&csv)[1].contains(&"'@SUM(A1)".to_owned()),
        "{csv}"
    );
}

#[test]
fn a_tampered_document_is_made_printable() {
    let json = everything(&full_of("PLACE"), Format::Json);
    let tampered = json.replace("PLACE", "\\u001b[31m<script>\\n\\u202e");
    let document = Document::from_json(tampered.as_bytes()).unwrap();
    for (format, _) in Format::WORDS {
        let shown = everything(&document, *format);
        assert!(!shown.contains(['\x1b', '\u{202e}']), "{format}");
    }
    html_text(&everything(&document, Format::Html));
}

#[test]
fn a_tampered_status_is_no_class() {
    let mut document = full_of("x");
    let rows = document.subjects[0].tables.values_mut().flatten();
    for row in rows {
        row.status = "Allow\" onclick=\"alert(1)".into();
    }
    html_text(&everything(&document, Format::Html));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_name(raw in "(\\PC|[\\x00-\\x7f]|\u{202e}|\u{85}|[<>&\"'=+@-]){0,12}") {
        let document = full_of(&raw);
        check_all(&document);
        html_text(&everything(&document, Format::Html));
    }

    #[test]
    fn printable_is_printable(raw in any::<String>()) {
        let text = Printable::new(&raw);
        prop_assert!(!text.as_str().chars().any(char::is_control));
        let json = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(serde_json::from_str::<Printable>(&json).unwrap(), text);
    }

    #[test]
    fn rows_come_back(
        source in any::<String>(),
        words in proptest::collection::vec("\\PC{0,5}", 0..3),
        port in any::<Option<u16>>(),
        count in any::<u64>(),
        nanoseconds in any::<i64>(),
    ) {
        let time = jiff::Timestamp::from_nanosecond(nanoseconds.into()).unwrap();
        let row = Row {
            source: (&source).into(),
            target: (&source).into(),
            protocol: words.concat().as_str().into(),
            port,
            peer: "".into(),
            peer_namespace: "".into(),
            peer_labels: words.iter().map(|w| (w.into(), w.into())).collect(),
            dns_name: (&source).into(),
            dns_names: words.iter().map(Printable::from).collect(),
            access: words.iter().map(Printable::from).collect(),
            marks: Vec::new(),
            status: "Allow".into(),
            count,
            first_seen: time,
            last_seen: time,
            args: "".into(),
            rows: 1,
        };
        let json = serde_json::to_string(&row).unwrap();
        prop_assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), row);
    }
}
