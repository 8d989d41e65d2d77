//! From a store to what a reader sees.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use ethogram_model::{Facts, Group, Selection, SummaryOptions};
use ethogram_store::Store;
use ethogram_view::{Document, TextOptions, Zone};

use crate::{
    args::{LookArgs, When},
    clock::now,
};

/// What is asked of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    pub(crate) selection: Selection,
    pub(crate) fold: ethogram_model::Fold,
    pub(crate) group: Group,
    pub(crate) cluster: String,
    pub(crate) sandboxes: bool,
    pub(crate) empty: bool,
}

/// Answers from a store.
pub(crate) fn document(store: &dyn Store, question: &Question) -> Result<Document> {
    let selection = &question.selection;
    // All rows of the selected containers: folding is decided over all of them.
    let whole = Selection {
        kinds: Vec::new(),
        statuses: ethogram_model::Status::ALL.to_vec(),
        source: None,
        since: None,
        until: None,
        ..selection.clone()
    };
    let kept = store.containers(&whole)?;
    let kept_since = kept.iter().filter_map(|kept| kept.history_since).max();
    let containers: Vec<_> = kept.into_iter().map(|kept| kept.container).collect();
    let observations = store.all_observations(&whole)?;
    let facts = Facts {
        containers: &containers,
        observations: &observations,
        endpoints: &store.endpoints(None)?,
        losses: &store.losses(&whole)?,
        runs: &store.runs()?,
        kept_since,
    };
    let options = SummaryOptions {
        selection: selection.clone(),
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

/// Writes a document to standard output as the options ask.
pub(crate) fn print(document: &Document, look: &LookArgs) -> Result<()> {
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let options = TextOptions {
        width: is_terminal.then(terminal_width).flatten(),
        color: match look.color {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        },
        wide: look.wide,
        zone: if look.local_time {
            Zone::Local
        } else {
            Zone::Utc
        },
    };
    let mut out = io::BufWriter::new(stdout.lock());
    let written = ethogram_view::render(document, look.format, &options, &mut out)
        .and_then(|()| out.flush().map_err(Into::into));
    match written {
        // Whoever reads has read enough.
        Err(ethogram_view::RenderError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(())
        }
        other => other.context("cannot print"),
    }
}

/// Columns of the terminal at standard output.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}
