//! From a store to what a reader sees.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal, Write},
    net::IpAddr,
};

use anyhow::{Context, Result};
use ethogram_model::{BootId, Container, Facts, Kind, Observation, SummaryOptions};
use ethogram_store::Store;
use ethogram_view::{Document, Format, TextOptions, Zone};

use crate::{
    args::{LookArgs, StyleArgs, When},
    clock::now,
    pager,
};

pub(crate) use crate::question::Question;

/// Answers from a store.
pub(crate) fn document(store: &dyn Store, question: &Question) -> Result<Document> {
    let whole = question.whole();
    let kept = store.containers(&whole)?;
    let kept_since = kept.iter().filter_map(|kept| kept.history_since).max();
    let containers: Vec<_> = kept.into_iter().map(|kept| kept.container).collect();
    let observations = store.all_observations(&whole)?;
    // A cluster has thousands of addresses and runs; what was not met is not read.
    let met = addresses(&observations);
    let boots = boots(&containers);
    let facts = Facts {
        containers: &containers,
        observations: &observations,
        endpoints: &store.endpoints(Some(&met))?,
        resolutions: &store.resolutions(&whole)?,
        losses: &store.losses(&whole)?,
        runs: &store.runs_around(&boots)?,
        kept_since,
    };
    let options = SummaryOptions {
        selection: question.selection.clone(),
        fold: question.fold,
        group: question.group,
        cluster: question.cluster.clone(),
        sandboxes: question.sandboxes,
        empty: question.empty,
    };
    Ok(Document::from(&ethogram_model::summarize(
        &facts,
        &options,
        now(),
    )))
}

/// The boots that containers lived in, each once.
pub(crate) fn boots(containers: &[Container]) -> Vec<&BootId> {
    let boots: BTreeSet<&BootId> = containers.iter().map(|c| &c.key.boot).collect();
    boots.into_iter().collect()
}

/// The addresses of those who were talked to, each once.
fn addresses(observations: &[Observation]) -> Vec<IpAddr> {
    let is_met = |o: &&Observation| matches!(o.behaviour.kind, Kind::Ingress | Kind::Egress);
    let met = observations.iter().filter(is_met);
    let texts: BTreeSet<&str> = met.map(|o| o.behaviour.target.as_str()).collect();
    texts
        .into_iter()
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// Writes a document to standard output as the options ask.
pub(crate) fn print(document: &Document, look: &LookArgs) -> Result<()> {
    plain(document, look.format, &look.style)
}

/// Writes a document to standard output without a pager.
pub(crate) fn plain(document: &Document, format: Format, style: &StyleArgs) -> Result<()> {
    write(|out| render(document, format, style, out))
}

/// Shows a document as the options ask: through a pager on a terminal that wants one.
pub(crate) fn page(document: &Document, format: Format, style: &StyleArgs) -> Result<()> {
    let Some(pager) = pager::choose() else {
        return plain(document, format, style);
    };
    let mut text = Vec::new();
    render(document, format, style, &mut text)?;
    pager::show(&text, &pager).context("cannot print")
}

fn render(
    document: &Document,
    format: Format,
    style: &StyleArgs,
    out: &mut dyn Write,
) -> Result<()> {
    let options = TextOptions {
        width: terminal_width(),
        color: is_coloured(style.color),
        wide: style.wide,
        zone: if style.local_time {
            Zone::Local
        } else {
            Zone::Utc
        },
    };
    Ok(ethogram_view::render(document, format, &options, out)?)
}

/// Whether to use colours on standard output.
pub(crate) fn is_coloured(when: When) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            io::stdout().is_terminal() && !forbidden && !pager::is_dumb()
        }
    }
}

/// Has something written to standard output. A reader who stops reading has read enough.
pub(crate) fn write(what: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = what(&mut out).and_then(|()| out.flush().map_err(Into::into));
    match written {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other.context("cannot print"),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Columns of the terminal at standard output; `None` if there is none.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}
