//! Speaking the neighbours' protocols from a collector.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use ethogram_neighbours::{
    Feed, Served,
    guard::{Guard, Question},
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    Shared,
    audit::{Line, status_of},
    tls,
};
use crate::{
    args::{CollectorArgs, StoreAddress},
    neighbours::{
        Listening, export, open_lines, serve_log_service, serve_observability, write_lines,
    },
};

/// Of what changes in a ClickHouse store no collector knows all: there may be several.
pub(super) fn refuse_what_no_store_tells(args: &CollectorArgs) -> Result<()> {
    let asked = &args.neighbours;
    let needs_changes =
        asked.kubearmor_listen.is_some() || asked.events.is_some() || asked.otlp.is_some();
    match args.store {
        StoreAddress::ClickHouse(_) if needs_changes => bail!(
            "--kubearmor-listen, --events and --otlp need a SQLite store, which knows what \
             changed; with ClickHouse let the agents tell"
        ),
        _ => Ok(()),
    }
}

/// Neighbours' programs have no tokens, so on a loopback address they need none. Elsewhere
/// a token is needed; certificates are for agents, who read nothing.
pub(super) fn refuse_strangers(args: &CollectorArgs) -> Result<()> {
    let asked = [
        args.neighbours.observability_listen,
        args.neighbours.kubearmor_listen,
    ];
    let mut asked = asked.into_iter().flatten();
    match asked.find(|address| !address.ip().is_loopback()) {
        Some(address) if args.tokens.is_none() => bail!(
            "will not listen on {address}: without --tokens everybody could read; listen on \
             127.0.0.1, or say who may"
        ),
        _ => Ok(()),
    }
}

/// Starts to answer and to tell where the options say.
pub(super) fn serve(
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let asked = &shared.args.neighbours;
    let feed = shared.spool.clone().map(Feed::start);
    if let Some(address) = asked.observability_listen {
        let served = served(shared, address);
        let listening = listening(shared, address)?;
        serve_observability(tasks, listening, served, feed.clone(), stop.clone())?;
    }
    let (Some(spool), Some(feed)) = (shared.spool.clone(), feed) else {
        return Ok(());
    };
    let cluster = &shared.args.cluster;
    if let Some(receiver) = shared.otlp.clone() {
        let told = shared.exported.clone();
        export(tasks, spool, receiver, cluster.clone(), told, stop.clone())?;
    }
    if let Some(address) = asked.kubearmor_listen {
        let listening = listening(shared, address)?;
        let served = served(shared, address);
        serve_log_service(tasks, listening, served, feed.clone(), stop.clone())?;
    }
    if let Some(path) = &asked.events {
        write_lines(tasks, open_lines(path)?, feed, cluster.clone(), stop);
    }
    Ok(())
}

fn listening(shared: &Shared, address: SocketAddr) -> Result<Listening> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok::<_, std::io::Error>(listener)
    };
    let listener = listen().with_context(|| format!("cannot listen on {address}"))?;
    let tls = match address.ip().is_loopback() {
        true => None,
        false => tls(&shared.args, &["h2"], false)?,
    };
    Listening::new(listener, tls)
}

fn served(shared: &Arc<Shared>, address: SocketAddr) -> Arc<Served> {
    let guard = match address.ip().is_loopback() {
        true => Guard::open(),
        false => Guard::new(shared.access.clone()),
    };
    let auditor = Arc::downgrade(shared);
    let guard = guard.audited(move |question| {
        if let Some(shared) = auditor.upgrade() {
            write_down(&shared, &question);
        }
    });
    let store = Arc::clone(&shared.store);
    Served::new(store, shared.args.cluster.clone(), guard)
}

fn write_down(shared: &Shared, question: &Question) {
    if let Some(audit) = &shared.audit {
        audit.write(&Line {
            who: &question.who,
            role: question.role.clone(),
            what: &question.what,
            status: status_of(question.outcome),
        });
    }
}
