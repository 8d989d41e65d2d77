//! Speaking the neighbours' protocols from an agent: to this machine only.

use std::{io::Write, net::TcpListener, sync::Arc, time::Duration};

use anyhow::Result;
use ethogram_neighbours::{Feed, Served, guard::Guard};
use ethogram_store::{SqliteStore, Store};
use tokio::{runtime::Handle, sync::watch, task::JoinSet, time::timeout};

use super::Shared;
use crate::{
    config::Settings,
    neighbours::{
        Listening, export, open_lines, serve_log_service, serve_observability, write_lines,
    },
};

/// What is open for them, and nobody serves yet.
pub(super) struct Neighbours {
    observability: Option<TcpListener>,
    kubearmor: Option<TcpListener>,
    lines: Option<Box<dyn Write + Send>>,
}

impl Neighbours {
    /// Opens what the settings say.
    pub(super) fn open(settings: &Settings) -> Result<Self> {
        let listen = |address: Option<_>| address.map(super::listen).transpose();
        Ok(Self {
            observability: listen(settings.observability_listen)?,
            kubearmor: listen(settings.kubearmor_listen)?,
            lines: settings.events.as_deref().map(open_lines).transpose()?,
        })
    }

    /// Starts to answer.
    pub(super) fn serve(
        self,
        store: &Arc<SqliteStore>,
        shared: &Shared,
        runtime: &Handle,
    ) -> Result<Serving> {
        let _in_runtime = runtime.enter();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let settings = &shared.settings;
        let answering = Arc::clone(store) as Arc<dyn Store>;
        let served = Served::new(answering, settings.cluster.clone(), Guard::open());
        let feed = Feed::start(Arc::clone(store));
        if let Some(listener) = self.observability {
            let listening = Listening::new(listener, None)?;
            let (served, feed) = (served.clone(), Some(feed.clone()));
            serve_observability(&mut tasks, listening, served, feed, stopped.clone())?;
        }
        if let Some(listener) = self.kubearmor {
            let listening = Listening::new(listener, None)?;
            serve_log_service(&mut tasks, listening, served, feed.clone(), stopped.clone())?;
        }
        if let Some(out) = self.lines {
            let cluster = settings.cluster.clone();
            write_lines(&mut tasks, out, feed, cluster, stopped.clone());
        }
        if let Some(receiver) = settings.otlp.clone() {
            let cluster = settings.cluster.clone();
            let told = shared.exported.clone();
            let spool = Arc::clone(store);
            export(&mut tasks, spool, receiver, cluster, told, stopped)?;
        }
        Ok(Serving { stop, tasks })
    }
}

/// Services at work, which end with this.
pub(super) struct Serving {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Serving {
    /// Accepts no more, and waits for what is on its way, but not for long.
    pub(super) async fn stop(mut self, wait: Duration) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(wait, all).await.is_err() {
            tracing::warn!("some neighbours are not told what happened last");
        }
    }
}
