//! `ethogram summary`: what did they do?

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::{Context, Result};
use ethogram_model::{Fold, Selection};

use crate::{
    args::SummaryArgs,
    dns,
    inventory::Inventory,
    present,
    question::{GROUPS, Question, kinds_of, statuses_of},
    source::Source,
};

/// How many names of a kind a hint lists.
const HINT_NAMES_MAX: usize = 8;

/// Answers the question that the options ask.
pub(crate) fn run(args: &SummaryArgs) -> Result<ExitCode> {
    let question = question(args)?;
    let source = Source::choose(&args.from)?;
    let mut document = source.summary(&question)?;
    if document.subjects.is_empty() {
        // Beside the answer, not instead of it: a program gets its empty document.
        // A reader of one namespace may ask for no other's names.
        let known = source
            .containers(None)
            .or_else(|_| source.containers(question.selection.namespace.as_deref()));
        eprint!("{}", hint(&known?, &question));
    }
    if args.rev_dns_lookup {
        eprintln!("ethogram: {}", dns::add_names(&mut document));
    }
    let format = args.output.to_lowercase().parse()?;
    if args.no_pager {
        present::plain(&document, format, &args.style)?;
    } else {
        present::page(&document, format, &args.style)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn question(args: &SummaryArgs) -> Result<Question> {
    let group = GROUPS.iter().find(|(word, _)| *word == args.by);
    let (_, group) = group.context("the command line knows these words only")?;
    Ok(Question {
        selection: Selection {
            namespace: args.namespace.clone(),
            labels: args.labels.iter().cloned().collect(),
            pod: args.pod.clone(),
            container: args.container.clone(),
            workload: args.workload.clone(),
            node: args.node.clone(),
            kinds: kinds_of(&args.types)?,
            statuses: statuses_of(&args.status)?,
            source: args.source.clone(),
            since: args.since,
            until: args.until,
        },
        fold: if args.agg { Fold::KUBEARMOR } else { args.fold },
        group: *group,
        cluster: String::new(),
        sandboxes: args.all,
        empty: args.all,
    })
}

/// Why there is nothing to show, and what there would be.
fn hint(inventory: &Inventory, question: &Question) -> String {
    let containers = &inventory.containers;
    if containers.is_empty() {
        return "ethogram: nothing was watched yet\n".to_owned();
    }
    let selection = &question.selection;
    let names = |of: fn(&crate::inventory::Entry) -> &str| {
        let names: BTreeSet<_> = containers
            .iter()
            .map(of)
            .filter(|name| !name.is_empty())
            .collect();
        listed(names)
    };
    let mut hint = String::new();
    for (asked, what, names) in [
        (
            &selection.namespace,
            "namespaces",
            names(|c| c.namespace.as_str()),
        ),
        (&selection.pod, "pods", names(|c| c.pod.as_str())),
        (
            &selection.container,
            "containers",
            names(|c| c.name.as_str()),
        ),
        (
            &selection.workload,
            "workloads",
            names(|c| c.workload.as_str()),
        ),
        (&selection.node, "machines", names(|c| c.node.as_str())),
    ] {
        if asked.is_some() {
            hint += &format!("ethogram: {what} that are known: {names}\n");
        }
    }
    if hint.is_empty() {
        hint = format!(
            "ethogram: {} containers are known; without filters there may be more to see\n",
            containers.len()
        );
    }
    hint
}

fn listed(names: BTreeSet<&str>) -> String {
    let count = names.len();
    let first: Vec<_> = names.into_iter().take(HINT_NAMES_MAX).collect();
    match count {
        0 => "none".to_owned(),
        _ if count > HINT_NAMES_MAX => {
            format!("{} and {} more", first.join(", "), count - HINT_NAMES_MAX)
        }
        _ => first.join(", "),
    }
}
