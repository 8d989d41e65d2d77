//! What was measured, as a page and as plots.

use crate::{
    fleet::{Activity, BEHAVIOURS, CONTAINERS, EVENTS_PER_SECOND, LIFETIME_S},
    measure::{REPORT_EVERY_S, Step, StoreKind, Stretch},
};
use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use std::{fmt::Write, fs, path::Path};

/// The part of the page that is measured begins after this line.
const MARKER: &str = "<!-- measured -->";
/// The size of a plot.
const SIZE: (u32, u32) = (720, 420);
/// Lines of a plot in order.
const COLOURS: [RGBColor; 4] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
];

type Results = [(StoreKind, Vec<Step>)];

/// Writes everything into a page, after its marker, and plots beside it.
pub(crate) fn write(page: &Path, results: &Results) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let (kept, _) = text
        .split_once(MARKER)
        .with_context(|| format!("{} has no line {MARKER}", page.display()))?;
    fs::write(page, format!("{kept}{MARKER}\n\n{}", tables(results)?))?;
    let plots = page.with_extension("");
    fs::create_dir_all(&plots)?;
    let series = |of: fn(&Step) -> f64| series(results, of);
    plot(
        &plots.join("cores.svg"),
        "Processors used at 5 s reports",
        ("nodes", "cores"),
        &series(cores),
    )?;
    plot(
        &plots.join("memory.svg"),
        "Memory of the collector",
        ("nodes", "MB"),
        &series(|step| step.collector_resident as f64 / 1e6),
    )?;
    plot(
        &plots.join("disk.svg"),
        "Disk",
        ("nodes", "GB"),
        &series(|step| step.disk as f64 / 1e9),
    )?;
    plot(
        &plots.join("answers.svg"),
        "Processor time of a summary of 3,000 rows",
        ("million rows", "ms"),
        &answers(results),
    )?;
    plot(
        &plots.join("interval.svg"),
        "What a node sends, by how often it reports",
        ("seconds between reports", "rows a second"),
        &intervals(),
    )
}

fn tables(results: &Results) -> Result<String> {
    let mut out = String::new();
    writeln!(
        out,
        "Measured {} with `make bench-cluster`: {}.\n",
        jiff::Zoned::now().strftime("%F"),
        machine()?
    )?;
    writeln!(out, "### Reports\n")?;
    writeln!(
        out,
        "| store | nodes | what | rows | rows/s | collector, rows per cpu s | server, rows per cpu s | slowest report ms |"
    )?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for (kind, steps) in results {
        for step in steps {
            for (what, stretch) in [
                ("all told", &step.fill),
                ("at their pace", &step.steady),
                ("without a pause", &step.rush),
            ] {
                writeln!(
                    out,
                    "| {} | {} | {what} | {} | {:.0} | {:.0} | {} | {} |",
                    kind.name(),
                    step.nodes,
                    stretch.rows,
                    stretch.rows as f64 / stretch.seconds,
                    stretch.rows as f64 / stretch.collector_s.max(0.01),
                    if stretch.server_s > 0.0 {
                        format!("{:.0}", stretch.rows as f64 / stretch.server_s)
                    } else {
                        "-".to_owned()
                    },
                    stretch.slowest.as_millis(),
                )?;
            }
        }
    }
    writeln!(out, "\n### As nodes are added\n")?;
    writeln!(
        out,
        "| store | nodes | rows kept | cores at 5 s reports | kept pace | collector MB | server MB | disk GB | MB per million rows | bytes a report | bytes a second and node |"
    )?;
    writeln!(
        out,
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )?;
    for (kind, steps) in results {
        for step in steps {
            let steady = &step.steady;
            writeln!(
                out,
                "| {} | {} | {:.1} M | {:.2} | {} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} |",
                kind.name(),
                step.nodes,
                step.rows as f64 / 1e6,
                cores(step),
                if keeps_pace(step) { "yes" } else { "no" },
                step.collector_resident as f64 / 1e6,
                step.server_resident as f64 / 1e6,
                step.disk as f64 / 1e9,
                step.disk as f64 / step.rows as f64,
                sent(steady) / steady.batches.max(1) as f64,
                sent(steady) / steady.batches.max(1) as f64 / REPORT_EVERY_S,
            )?;
        }
    }
    writeln!(out, "\n### Answers\n")?;
    writeln!(
        out,
        "`/v1/summary?namespace=...` as JSON; median of 7, and processor time of collector and server together.\n"
    )?;
    writeln!(
        out,
        "| store | million rows kept | rows of the namespace | ms | cpu ms | KB of JSON |"
    )?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- |")?;
    for (kind, steps) in results {
        for step in steps {
            for answer in &step.answers {
                writeln!(
                    out,
                    "| {} | {:.1} | {} | {:.0} | {:.0} | {} |",
                    kind.name(),
                    step.rows as f64 / 1e6,
                    answer.rows,
                    answer.median.as_secs_f64() * 1e3,
                    answer.cpu_s * 1e3,
                    answer.bytes / 1000,
                )?;
            }
        }
    }
    arithmetic(&mut out, results)?;
    Ok(out)
}

/// What 5,000 nodes need, from what was measured with the most.
fn arithmetic(out: &mut String, results: &Results) -> Result<()> {
    const NODES: f64 = 5_000.0;
    let rows = |interval: f64| Activity::new(interval).rows_expected() / interval;
    writeln!(out, "\n### 5,000 nodes\n")?;
    writeln!(
        out,
        "A node has {CONTAINERS} containers of {BEHAVIOURS} behaviours, {EVENTS_PER_SECOND:.0} events a second and a new container every {:.0} minutes; {:.0} rows of it change in 5 s, {:.0} in 60 s. So 5,000 nodes send\n",
        LIFETIME_S / f64::from(CONTAINERS) / 60.0,
        rows(5.0) * 5.0,
        rows(60.0) * 60.0,
    )?;
    writeln!(
        out,
        "| store | one report every | rows/s | collector cores | server cores | MB/s on the wire |"
    )?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- |")?;
    for (kind, steps) in results {
        let Some(step) = steps.last() else { continue };
        let stretch = &step.steady;
        let (per_row_collector, per_row_server) = (
            stretch.collector_s / stretch.rows as f64,
            stretch.server_s / stretch.rows as f64,
        );
        let bytes_per_row = sent(stretch) / stretch.rows as f64;
        for interval in [5.0, 15.0, 60.0] {
            let rate = rows(interval) * NODES;
            writeln!(
                out,
                "| {} | {interval:.0} s | {rate:.0} | {:.1} | {:.1} | {:.0} |",
                kind.name(),
                rate * per_row_collector,
                rate * per_row_server,
                rate * bytes_per_row / 1e6,
            )?;
        }
    }
    writeln!(
        out,
        "\n(rows/s of the model times what a row cost at the largest number of nodes above.)"
    )?;
    for plot in ["cores", "memory", "disk", "answers", "interval"] {
        write!(out, "\n![{plot}](scale/{plot}.svg)")?;
    }
    writeln!(out)?;
    Ok(())
}

fn sent(stretch: &Stretch) -> f64 {
    (stretch.bytes_sent + stretch.bytes_received) as f64
}

/// Processors that collector and server used while agents reported at their pace.
fn cores(step: &Step) -> f64 {
    (step.steady.collector_s + step.steady.server_s) / step.steady.seconds
}

/// Whether reports were kept within the interval in which they came.
fn keeps_pace(step: &Step) -> bool {
    step.steady.slowest.as_secs_f64() < REPORT_EVERY_S
}

type Series = Vec<(String, Vec<(f64, f64)>)>;

fn series(results: &Results, of: fn(&Step) -> f64) -> Series {
    let points = |steps: &[Step]| {
        steps
            .iter()
            .map(|step| (step.nodes as f64, of(step)))
            .collect()
    };
    results
        .iter()
        .map(|(kind, steps)| (kind.name().to_owned(), points(steps)))
        .collect()
}

fn answers(results: &Results) -> Series {
    let point = |step: &Step| {
        let small = step
            .answers
            .iter()
            .find(|answer| answer.namespace == "small");
        (
            step.rows as f64 / 1e6,
            small.map_or(0.0, |answer| answer.cpu_s * 1e3),
        )
    };
    results
        .iter()
        .map(|(kind, steps)| (kind.name().to_owned(), steps.iter().map(point).collect()))
        .collect()
}

fn intervals() -> Series {
    let points = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0];
    let rate = |interval: f64| (interval, Activity::new(interval).rows_expected() / interval);
    vec![("of a node".to_owned(), points.map(rate).to_vec())]
}

/// Lines over logarithmic axes.
fn plot(file: &Path, title: &str, (x, y): (&str, &str), series: &Series) -> Result<()> {
    let drawn = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", file.display());
    let points = || {
        series
            .iter()
            .flat_map(|(_, points)| points)
            .filter(|(_, y)| *y > 0.0)
    };
    let span = |of: fn(&(f64, f64)) -> f64| {
        let low = points().map(of).fold(f64::INFINITY, f64::min);
        let high = points().map(of).fold(0.0, f64::max);
        low / 1.5..high * 1.5
    };
    if points().next().is_none() {
        return Ok(());
    }
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| drawn(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(span(|p| p.0).log_scale(), span(|p| p.1).log_scale())
        .map_err(|error| drawn(&error))?;
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .draw()
        .map_err(|error| drawn(&error))?;
    for ((name, points), colour) in series.iter().zip(COLOURS) {
        let points = || points.iter().copied().filter(|(_, y)| *y > 0.0);
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)).point_size(3))
            .map_err(|error| drawn(&error))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(|error| drawn(&error))?;
    area.present().map_err(|error| drawn(&error))
}

fn machine() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: Vec<&str> = load.split(' ').take(3).collect();
    Ok(format!(
        "kernel {}, {cores} processors, agents, collector and server on the same machine; load averages at the end {}",
        kernel.trim(),
        load.join(" ")
    ))
}
