//! `ethogram containers`: what is watched?

use std::process::ExitCode;

use anyhow::Result;
use ethogram_model::LossReason;

use crate::{
    args::{ContainersArgs, ListFormat},
    columns,
    inventory::{Entry, Inventory, State},
    present,
    source::Source,
};

/// How many digits of a container id runtimes show.
const ID_DIGITS: usize = 12;

/// Lists the containers.
pub(crate) fn run(args: &ContainersArgs) -> Result<ExitCode> {
    let source = Source::choose(&args.from)?;
    let mut inventory = source.containers(args.namespace.as_deref())?;
    let known = inventory.containers.len();
    inventory
        .containers
        .retain(|entry| args.all || (entry.state != State::Ended && !entry.sandbox));
    present::write(|out| {
        match args.output {
            ListFormat::Json => {
                serde_json::to_writer_pretty(&mut *out, &inventory)
                    .map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            ListFormat::Text => write!(out, "{}", text(&inventory, known))?,
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn text(inventory: &Inventory, known: usize) -> String {
    if inventory.containers.is_empty() {
        return match known {
            0 => "No container is known. `ethogram doctor` says whether one could be.\n".to_owned(),
            n => {
                format!("Nothing is watched now; --all lists {n} that ended or only hold a pod.\n")
            }
        };
    }
    let in_pods = inventory
        .containers
        .iter()
        .any(|entry| !entry.pod.is_empty());
    let mut rows = vec![row(in_pods, HEADER.map(str::to_owned))];
    rows.extend(
        inventory
            .containers
            .iter()
            .map(|entry| row(in_pods, cells(entry))),
    );
    columns::align(&rows)
}

const HEADER: [&str; 9] = [
    "NAMESPACE",
    "POD",
    "CONTAINER",
    "RUNTIME",
    "STATE",
    "WATCHED SINCE",
    "ROWS",
    "EVENTS",
    "LOST",
];

/// A row, without the columns that say nothing where there are no pods.
fn row(in_pods: bool, cells: [String; HEADER.len()]) -> Vec<String> {
    cells
        .into_iter()
        .skip(if in_pods { 0 } else { 2 })
        .collect()
}

fn cells(entry: &Entry) -> [String; HEADER.len()] {
    let lost = entry
        .losses
        .iter()
        .filter(|loss| loss.reason.as_str() != LossReason::Names.as_str())
        .fold(0u64, |sum, loss| sum.saturating_add(loss.count));
    [
        entry.namespace.to_string(),
        entry.pod.to_string(),
        name(entry),
        entry.runtime.to_string(),
        entry.state.as_str().to_owned(),
        entry.watched_since.strftime("%Y-%m-%d %H:%MZ").to_string(),
        entry.rows.to_string(),
        entry.events.to_string(),
        lost.to_string(),
    ]
}

/// The best that is known: its name, or its id, or its control group.
fn name(entry: &Entry) -> String {
    let names = [&entry.name, &entry.id, &entry.cgroup];
    let best = names.into_iter().find(|name| !name.is_empty());
    let best = best.map_or("?", ethogram_view::Printable::as_str);
    let is_hash = best.len() == 64 && best.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash { &best[..ID_DIGITS] } else { best }.to_owned()
}
