//! Telling a collector what the store learns.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use ethogram_cluster::{REPORT_EVERY, Sender, SenderOptions, SenderStatus, Trust};
use ethogram_model::Run;
use ethogram_store::{Spool, SqliteStore};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle, time::timeout};

use crate::config::Settings;

/// How long the rest may take when the agent ends; a little longer than the sender itself
/// gives it.
const STOP_WAIT: Duration = Duration::from_secs(12);

/// The sender at work.
pub(super) struct Reporter {
    status: watch::Receiver<SenderStatus>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Reporter {
    /// Starts to report, if the settings name a collector.
    pub(super) fn start(
        settings: &Settings,
        store: &Arc<SqliteStore>,
        run: &Run,
        runtime: &Handle,
    ) -> Result<Option<Self>> {
        let Some(collector) = settings.collector.clone() else {
            return Ok(None);
        };
        if run.node.is_empty() {
            bail!("this machine has no name to report under: set node");
        }
        let options = SenderOptions {
            collector: collector.url,
            trust: Trust {
                ca: collector.ca,
                identity: collector.identity,
                token: collector.token_file,
            },
            node: run.node.clone(),
            boot: run.boot.as_str().to_owned(),
            run: run.id.clone(),
            report_every: REPORT_EVERY,
        };
        let (stop, stopped) = watch::channel(false);
        let spool = Arc::clone(store) as Arc<dyn Spool>;
        let (sender, status) = Sender::new(spool, options, stopped);
        let task = runtime.spawn(sender.run());
        Ok(Some(Self { status, stop, task }))
    }

    /// Where to look how it goes.
    pub(super) fn status(&self) -> watch::Receiver<SenderStatus> {
        self.status.clone()
    }

    /// Tells what is left, but not for long: the next run tells the rest.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        if timeout(STOP_WAIT, self.task).await.is_err() {
            tracing::warn!("the collector is not told everything yet: the next run will do it");
        }
    }
}
