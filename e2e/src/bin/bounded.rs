//! What a flood costs the one who watches it: `bounded [MAX [FLOOD…]]` records floods of growing
//! size with `ethogram record` (`ETHOGRAM_BIN`) and prints a table and a plot for the journal.

use std::{
    fmt::Write,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ethogram_e2e::agent::{binary, only, summary_of};
use ethogram_model::Kind;

const FLOODS: [&str; 4] = ["files", "peers", "ports", "programs"];
const FIRST: u32 = 1_000;
const LAST: u32 = 1_000_000;
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One recording.
struct Point {
    flood: &'static str,
    size: u32,
    events: u64,
    counted: u64,
    rows: usize,
    folded: usize,
    complete: bool,
    /// Peak resident set of the recorder, its store included.
    resident_kib: u64,
    /// Peak memory of its maps in the kernel.
    maps_kib: u64,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let last = args.next().map_or(Ok(LAST), |last| last.parse())?;
    let wanted: Vec<String> = args.collect();
    let is_wanted = |flood: &&str| wanted.is_empty() || wanted.iter().any(|w| w == flood);
    let mut points = Vec::new();
    for flood in FLOODS.into_iter().filter(is_wanted) {
        let sizes = std::iter::successors(Some(FIRST), |size| size.checked_mul(10));
        for size in sizes.take_while(|size| *size <= last) {
            let point = record(flood, size)?;
            println!("{}", line(&point));
            points.push(point);
        }
    }
    fs::write("bounded.svg", plot(&points))?;
    println!("\nwrote bounded.svg");
    Ok(())
}

fn record(flood: &'static str, size: u32) -> Result<Point> {
    let flood_binary = std::env::current_exe()?.with_file_name("flood");
    let dir = std::env::temp_dir().join(format!("bounded-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let database = dir.join("recording.db");
    let mut child = Command::new(binary()?)
        .args(["record", "--quiet", "-o"])
        .arg(&database)
        .arg("--")
        .arg(&flood_binary)
        .args([flood, &size.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let process = Path::new("/proc").join(child.id().to_string());
    let (mut resident_kib, mut maps_kib) = (0, 0);
    while child.try_wait()?.is_none() {
        resident_kib = resident(&process).unwrap_or(0).max(resident_kib);
        maps_kib = maps(&process).unwrap_or(0).max(maps_kib);
        thread::sleep(LOOK_EVERY);
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{flood} {size}: {}", output.status);
    let said = String::from_utf8(output.stdout)?;
    let words: Vec<&str> = said.split_whitespace().collect();
    let truth: Vec<(Kind, u64)> = words
        .chunks_exact(2)
        .map(|pair| {
            Ok((
                Kind::from_word(pair[0]).context("a kind")?,
                pair[1].parse()?,
            ))
        })
        .collect::<Result<_>>()?;

    let document = summary_of(&database, &[])?;
    fs::remove_dir_all(&dir)?;
    let subject = only(&document)?;
    let own = |row: &&ethogram_view::Row| {
        let target = row.target.as_str();
        let is_flood = row.source.as_str().ends_with("/flood") || row.source.as_str() == "*";
        // What the program's start reads is not of the flood.
        is_flood
            && !["/etc/", "/usr/", "/lib", "/proc/", "/sys/"]
                .iter()
                .any(|p| target.starts_with(p))
    };
    let rows: Vec<_> = truth
        .iter()
        .flat_map(|(kind, _)| subject.table(*kind).iter().filter(own))
        .collect();
    Ok(Point {
        flood,
        size,
        events: truth.iter().map(|(_, count)| count).sum(),
        counted: rows.iter().map(|row| row.count).sum(),
        rows: rows.len(),
        folded: rows
            .iter()
            .filter(|row| row.marks.iter().any(|mark| mark.as_str() == "folded"))
            .count(),
        complete: subject.completeness.complete,
        resident_kib,
        maps_kib,
    })
}

fn resident(process: &Path) -> Option<u64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Memory of the maps a process holds, in KiB.
fn maps(process: &Path) -> Option<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(process.join("fdinfo")).ok()?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        if field("map_type:").is_some() {
            bytes += field("memlock:").unwrap_or(0);
        }
    }
    Some(bytes / 1024)
}

fn line(point: &Point) -> String {
    let lost = if point.complete {
        "0"
    } else {
        "see the summary"
    };
    format!(
        "| {} | {} | {} | {} | {lost} | {} | {} | {:.1} | {:.1} |",
        point.flood,
        point.size,
        point.events,
        point.counted,
        point.rows,
        point.folded,
        point.resident_kib as f64 / 1024.0,
        point.maps_kib as f64 / 1024.0,
    )
}

/// Memory over size, both logarithmic.
fn plot(points: &[Point]) -> String {
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 320.0;
    const MARGIN: f64 = 50.0;
    let x = |size: f64| MARGIN + (size.log10() - 3.0) / 3.0 * (WIDTH - 2.0 * MARGIN);
    let y = |mib: f64| HEIGHT - MARGIN - (mib.log10() / 3.0) * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut text = |x: f64, y: f64, anchor: &str, text: &str| {
        let _ = writeln!(
            svg,
            "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    };
    text(
        WIDTH / 2.0,
        20.0,
        "middle",
        "Memory of the recorder (line) and of its kernel maps (dashes), MiB",
    );
    text(WIDTH / 2.0, HEIGHT - 10.0, "middle", "distinct things done");
    for decade in 0..4 {
        let value = 10_f64.powi(decade);
        text(MARGIN - 6.0, y(value) + 4.0, "end", &format!("{value}"));
        text(
            x(value * 1000.0),
            HEIGHT - MARGIN + 18.0,
            "middle",
            &format!("{}", value * 1000.0),
        );
    }
    for (flood, color) in FLOODS
        .iter()
        .zip(["#1b6ca8", "#b3541e", "#3a7d44", "#7a3a8c"])
    {
        let own: Vec<&Point> = points
            .iter()
            .filter(|point| point.flood == *flood)
            .collect();
        for (dashes, kib) in [
            (
                "none",
                (|point: &Point| point.resident_kib) as fn(&Point) -> u64,
            ),
            ("5 4", |point: &Point| point.maps_kib),
        ] {
            let line: Vec<String> = own
                .iter()
                .map(|point| {
                    let mib = (kib(point) as f64 / 1024.0).max(1.0);
                    format!("{:.1},{:.1}", x(f64::from(point.size)), y(mib))
                })
                .collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\" points=\"{}\"/>",
                line.join(" ")
            );
        }
        if let Some(point) = own.last() {
            let at = y((point.resident_kib as f64 / 1024.0).max(1.0));
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{at:.0}\" fill=\"{color}\">{flood}</text>",
                x(f64::from(point.size)) + 4.0
            );
        }
    }
    svg + "</svg>\n"
}
