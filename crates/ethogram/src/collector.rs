//! The collector of a cluster: a receiver for agents, and the API that an agent has, in
//! front of one store.

mod api;
mod audit;
mod metrics;
mod neighbours;
mod sources;
mod state;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use ethogram_clickhouse::ClickHouseStore;
use ethogram_cluster::{
    Agents, Limits,
    access::Access,
    listen::{ServerTls, ServerTlsFiles, incoming},
};
use ethogram_neighbours::{Exported, Receiver};
use ethogram_store::{Spool, SqliteStore, Store};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    args::{CollectorArgs, StoreAddress},
    clock::now,
    names::NamedStore,
    neighbours::otlp_receiver,
};
use audit::Audit;
use sources::Sources;

/// How often what is too old or too much is removed from the store.
const RETAIN_EVERY: Duration = Duration::from_secs(300);
/// How long streams and answers may take to end.
const END_WAIT: Duration = Duration::from_secs(5);
/// Writes at a time into ClickHouse, which gathers those of half a second into one.
const CLICKHOUSE_WRITES_MAX: usize = 256;

/// What those who answer questions know.
struct Shared {
    args: CollectorArgs,
    store: Arc<dyn Store>,
    /// The same, if it knows what changed in it.
    spool: Option<Arc<SqliteStore>>,
    /// The same store, where an API server gives names.
    names: Option<Arc<NamedStore>>,
    identity: String,
    agents: Arc<Agents>,
    access: Arc<Access>,
    audit: Option<Arc<Audit>>,
    sources: Sources,
    otlp: Option<Receiver>,
    exported: watch::Sender<Exported>,
}

/// Collects until a signal ends it.
pub(crate) fn run(args: CollectorArgs) -> Result<()> {
    let access = Access::new(args.tokens.as_deref(), args.client_ca.is_some());
    let access = access.map_err(|error| anyhow!("cannot use the tokens: {error}"))?;
    if access.is_open() {
        refuse_strangers(&args)?;
    }
    neighbours::refuse_strangers(&args)?;
    neighbours::refuse_what_no_store_tells(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let api_server = runtime.block_on(args.kubernetes.client())?;
    let Opened {
        store,
        spool,
        identity,
        writes_max,
    } = open(&args.store)?;
    let names = match &api_server {
        Some(_) => Some(Arc::new(NamedStore::new(Arc::clone(&store))?)),
        None => None,
    };
    let store = match &names {
        Some(named) => Arc::clone(named) as Arc<dyn Store>,
        None => store,
    };
    let sources = Sources::new(&args)?;
    let otlp = args.neighbours.otlp.as_deref();
    let otlp = otlp.map(|url| otlp_receiver(url, args.neighbours.otlp_ca.as_deref()));
    let otlp = otlp.transpose()?;
    let audit = args.audit_log.as_deref().map(Audit::open).transpose()?;
    let audit = audit.map(Arc::new);
    let (reports_tls, api_tls) = (
        tls(&args, &["h2"], true)?,
        tls(&args, &["http/1.1"], false)?,
    );
    let (stop, stopped) = watch::channel(false);
    let access = Arc::new(access);
    let limits = Limits {
        batch_rows_max: args.limits.batch_rows_max,
        batch_bytes_max: args.limits.batch_bytes_max,
        rows_per_second_max: args.limits.rows_per_second_max,
        containers_per_day_max: args.limits.containers_per_day_max,
        writes_max: writes_max.unwrap_or(Limits::default().writes_max),
        ..Limits::default()
    };
    let receiver = ethogram_cluster::Receiver::new(
        store.clone(),
        identity.clone(),
        limits,
        access.clone(),
        stopped.clone(),
    );
    let receiver = match audit.clone() {
        Some(audit) => receiver.audited(move |reporting| audit.write_reporting(&reporting)),
        None => receiver,
    };
    let shared = Arc::new(Shared {
        store,
        spool,
        names,
        identity,
        agents: receiver.agents(),
        access,
        audit,
        sources,
        otlp,
        exported: watch::Sender::default(),
        args,
    });
    let outcome = runtime.block_on(async {
        let reports = listen(shared.args.listen).await?;
        let questions = listen(shared.args.api_listen).await?;
        tracing::info!(
            listen = %reports.local_addr()?,
            api = %questions.local_addr()?,
            store = shared.identity,
            names = shared.names.is_some(),
            "ready"
        );
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let served = ethogram_cluster::serve(receiver, incoming(reports, reports_tls)).await;
            if let Err(error) = served {
                tracing::error!("cannot listen for agents any more: {error}");
            }
        });
        tasks.spawn(api::serve(
            shared.clone(),
            incoming(questions, api_tls),
            stopped.clone(),
        ));
        sources::listen(&mut tasks, &shared, &stopped);
        neighbours::serve(&mut tasks, &shared, stopped)?;
        // These owe nobody an answer: they end when this is dropped.
        let mut endless = tokio::task::JoinSet::new();
        endless.spawn(retain(Arc::downgrade(&shared)));
        if let (Some(names), Some(client)) = (&shared.names, api_server) {
            endless.spawn(Arc::clone(names).listen(client));
        }
        end_asked().await?;
        tracing::info!("ending");
        stop.send_replace(true);
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(END_WAIT, all).await.is_err() {
            tracing::warn!("some streams did not end in time");
        }
        Ok(())
    });
    runtime.shutdown_timeout(END_WAIT);
    outcome
}

/// Without tokens and certificates everybody may report and read: only this machine may.
fn refuse_strangers(args: &CollectorArgs) -> Result<()> {
    for address in [args.listen, args.api_listen] {
        if !address.ip().is_loopback() {
            bail!(
                "will not listen on {address}: without --tokens or --client-ca everybody could \
                 report and read; listen on 127.0.0.1, or say who may"
            );
        }
    }
    Ok(())
}

struct Opened {
    store: Arc<dyn Store>,
    spool: Option<Arc<SqliteStore>>,
    identity: String,
    /// How many writes it takes at a time.
    writes_max: Option<usize>,
}

fn open(address: &StoreAddress) -> Result<Opened> {
    match address {
        StoreAddress::Sqlite(path) => {
            let store = Arc::new(SqliteStore::open(path)?);
            Ok(Opened {
                identity: store.identity()?,
                spool: Some(store.clone()),
                store,
                writes_max: None,
            })
        }
        StoreAddress::ClickHouse(address) => Ok(Opened {
            store: Arc::new(ClickHouseStore::open(address)?),
            spool: None,
            identity: address.to_string(),
            writes_max: Some(CLICKHOUSE_WRITES_MAX),
        }),
    }
}

fn tls(
    args: &CollectorArgs,
    protocols: &'static [&'static str],
    for_agents: bool,
) -> Result<Option<Arc<ServerTls>>> {
    let (Some(certificate), Some(key)) = (args.tls_cert.clone(), args.tls_key.clone()) else {
        return Ok(None);
    };
    let files = ServerTlsFiles {
        certificate,
        key,
        client_ca: args.client_ca.clone().filter(|_| for_agents),
        // A token does as well.
        client_required: args.tokens.is_none(),
    };
    let tls = ServerTls::new(files, protocols);
    tls.map(|tls| Some(Arc::new(tls)))
        .map_err(|error| anyhow!("cannot use TLS: {error}"))
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}"))
}

async fn end_asked() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch signals")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Removes from time to time what may not be kept.
async fn retain(shared: std::sync::Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let limits = ethogram_store::Limits {
            age_max: Some(shared.args.retention_age),
            bytes_max: Some(shared.args.retention_size),
        };
        let work = move || shared.store.retain(&limits, now());
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(removed)) if removed == ethogram_store::Removed::default() => {}
            Ok(Ok(removed)) => tracing::info!(?removed, "removed what is too old or too much"),
            Ok(Err(error)) => tracing::error!("cannot remove what is too old: {error}"),
            Err(error) => tracing::error!("removing what is too old failed: {error}"),
        }
        sleep(RETAIN_EVERY).await;
    }
}
