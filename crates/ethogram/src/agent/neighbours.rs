//! Speaking the neighbours' protocols from an agent: to this machine only.

use std::{io::Write, net::TcpListener, sync::Arc};

use anyhow::Result;
use ethogram_neighbours::{Feed, Served, guard::Guard};
use ethogram_store::{SqliteStore, Store};
use tokio::{runtime::Handle, sync::watch, task::JoinSet};

use crate::{
    config::Settings,
    neighbours::{Listening, open_lines, serve_log_service, serve_observability, write_lines},
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
        settings: &Settings,
        runtime: &Handle,
    ) -> Result<Serving> {
        let _in_runtime = runtime.enter();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(store) as Arc<dyn Store>;
        let served = Served::new(shared, settings.cluster.clone(), Guard::open());
        if let Some(listener) = self.observability {
            let listening = Listening::new(listener, None)?;
            serve_observability(&mut tasks, listening, served.clone(), stopped.clone())?;
        }
        let feed = Feed::start(Arc::clone(store));
        if let Some(listener) = self.kubearmor {
            let listening = Listening::new(listener, None)?;
            serve_log_service(&mut tasks, listening, served, feed.clone(), stopped.clone())?;
        }
        if let Some(out) = self.lines {
            write_lines(&mut tasks, out, feed, settings.cluster.clone(), stopped);
        }
        Ok(Serving {
            stop,
            _tasks: tasks,
        })
    }
}

/// Services at work, which end with this.
pub(super) struct Serving {
    stop: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Serving {
    /// Accepts no more and breaks off what is being answered.
    pub(super) fn stop(self) {
        self.stop.send_replace(true);
    }
}
