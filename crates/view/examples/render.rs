//! Prints how long it takes to summarize and to render 50,000 rows.

use ethogram_model::{
    Behaviour, BootId, Container, ContainerKey, Facts, Fold, Kind, Name, Observation,
    SummaryOptions, Tally, Timestamp, summarize,
};
use ethogram_view::{Document, Format, TextOptions, render};
use std::time::Instant;

const ROWS: u64 = 50_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = ContainerKey {
        boot: BootId::new("boot"),
        cgroup: 1,
        incarnation: 0,
    };
    let observation = |n: u64| Observation {
        container: key.clone(),
        behaviour: Behaviour::new(
            Kind::File,
            format!("/usr/bin/program-{}", n % 97).as_str().into(),
            format!("/srv/data/{}/{}/file-{n}", n % 13, n % 101)
                .as_str()
                .into(),
        ),
        tally: Tally::at(Timestamp(n as i64 * 1_000_000_007), n + 1),
        example: Name::default(),
    };
    let observations: Vec<_> = (0..ROWS).map(observation).collect();
    let mut container = Container::unknown(key.clone(), Name::default(), Timestamp(0));
    container.name = "bench".into();
    let facts = Facts {
        containers: &[container],
        observations: &observations,
        ..Facts::default()
    };

    let timed = |what: &str, work: &mut dyn FnMut() -> usize| {
        let start = Instant::now();
        let size = work();
        println!(
            "{what:<22} {:>8.1} ms {size:>10}",
            start.elapsed().as_secs_f64() * 1e3
        );
    };
    println!("{ROWS} rows; bytes written, or rows left");
    let mut options = SummaryOptions::default();
    timed("summarize, fold auto", &mut || {
        summarize(&facts, &options, Timestamp(0)).subjects[0]
            .rows
            .len()
    });
    options.fold = Fold::None;
    let mut summary = None;
    timed("summarize, fold none", &mut || {
        let new = summary.insert(summarize(&facts, &options, Timestamp(0)));
        new.subjects[0].rows.len()
    });
    let document = Document::from(&summary.ok_or("summarized above")?);
    let mut out = Vec::new();
    for (format, word) in Format::WORDS {
        for width in [None, Some(120)] {
            let text = TextOptions {
                width,
                ..TextOptions::default()
            };
            if width.is_some() && *format != Format::Text {
                continue;
            }
            out.clear();
            let what = format!(
                "{word} {}",
                width.map_or(String::new(), |w| format!("width {w}"))
            );
            timed(
                &what,
                &mut || match render(&document, *format, &text, &mut out) {
                    Ok(()) => out.len(),
                    Err(error) => panic!("memory takes everything: {error}"),
                },
            );
            if *format == Format::Json {
                timed("parse json", &mut || {
                    Document::from_json(&out).map_or(0, |d| d.subjects[0].table(Kind::File).len())
                });
            }
        }
    }
    Ok(())
}
