//! The HTTP API, on a unix socket and, if asked for, on TCP. `docs/api.md` describes it.

use std::{net::TcpListener, os::unix::net::UnixListener, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{RawQuery, State},
    http::StatusCode,
    middleware,
    routing::get,
};
use ethogram_view::{Format, TextOptions};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::{Shared, metrics, status::Status};
use crate::{
    clock::now,
    http::{
        Answer, JSON, METRICS, Problem, bounded, content_type, only_by_local_names, parse, serve,
    },
    inventory::Inventory,
    present,
    question::Question,
};

/// How old an answer may be if the watch or the store does not keep up.
const FRESH_WAIT: Duration = Duration::from_secs(1);
/// Answers computed at a time, because each may need much memory; more wait.
const ANSWERS_MAX: usize = 2;

/// What is computed once for all requests.
struct Api {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
}

/// The running servers.
pub(super) struct Servers {
    stop: watch::Sender<()>,
    tasks: JoinSet<()>,
}

impl Servers {
    /// Accepts no more, and waits for what is being answered, but not for long.
    pub(super) async fn stop(mut self, wait: Duration) {
        self.stop.send_replace(());
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(wait, all).await.is_err() {
            tracing::warn!("some questions are left without an answer");
        }
    }
}

/// Starts to answer.
pub(super) fn start(
    shared: &Arc<Shared>,
    unix: UnixListener,
    tcp: Option<TcpListener>,
    runtime: &Handle,
) -> Result<Servers> {
    let _in_runtime = runtime.enter();
    let api = Arc::new(Api {
        shared: Arc::clone(shared),
        turns: Arc::new(Semaphore::new(ANSWERS_MAX)),
    });
    let (stop, stopped) = watch::channel(());
    let mut tasks = JoinSet::new();
    let unix = tokio::net::UnixListener::from_std(unix).context("cannot use the socket")?;
    tasks.spawn_on(serve(unix, router(&api), stopped.clone()), runtime);
    if let Some(tcp) = tcp {
        let tcp = tokio::net::TcpListener::from_std(tcp).context("cannot use the TCP socket")?;
        let router = router(&api).layer(middleware::from_fn(only_by_local_names));
        tasks.spawn_on(serve(tcp, router, stopped), runtime);
    }
    Ok(Servers { stop, tasks })
}

fn router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/v1/summary", get(summary))
        .route("/v1/containers", get(containers))
        .route("/v1/status", get(status))
        .route("/v1/health", get(health))
        .route("/metrics", get(exposition))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here: see /v1/summary, /v1/containers, /v1/status, /v1/health, /metrics") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "everything here is read with GET")
        })
        .layer(middleware::from_fn(bounded))
        .with_state(Arc::clone(api))
}

impl Api {
    /// Waits until all that happened before is in the store; returns why it may not be.
    async fn refresh(&self) -> Option<String> {
        let (receipt, written) = oneshot::channel();
        let asked = self.shared.questions.send(receipt).is_ok();
        if asked && matches!(timeout(FRESH_WAIT, written).await, Ok(Ok(()))) {
            return None;
        }
        let why = match self.shared.desk.health().failure {
            Some(failure) => format!("the store cannot be written: {failure}"),
            None => "the agent is busy".to_owned(),
        };
        Some(format!("what happened last may be missing, {why}"))
    }

    /// Computes an answer from all that is known now, when it is its turn.
    async fn answer(
        &self,
        content_type: &'static str,
        compute: impl FnOnce(&Shared) -> Result<Vec<u8>> + Send + 'static,
    ) -> Result<Answer, Problem> {
        let warning = self.refresh().await;
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let shared = Arc::clone(&self.shared);
        let computed = tokio::task::spawn_blocking(move || {
            let body = compute(&shared);
            // Held until the memory is free, even if nobody waits for the answer any more.
            drop(turn);
            body
        });
        let body = computed
            .await
            .map_err(|error| Problem::internal(&error.into()))?
            .map_err(|error| Problem::internal(&error))?;
        Ok(Answer {
            content_type,
            body,
            warning,
        })
    }

    async fn document(&self, query: Option<String>, default: Format) -> Result<Answer, Problem> {
        let (format, question) =
            parse(query.as_deref().unwrap_or(""), default).map_err(Problem::bad_request)?;
        let question = Question {
            cluster: self.shared.settings.cluster.clone(),
            ..question
        };
        self.answer(content_type(format), move |shared| {
            let document = present::document(shared.store.as_ref(), &question)?;
            let mut body = Vec::new();
            ethogram_view::render(&document, format, &TextOptions::default(), &mut body)?;
            Ok(body)
        })
        .await
    }
}

type Asked = State<Arc<Api>>;

async fn page(State(api): Asked, RawQuery(query): RawQuery) -> Result<Answer, Problem> {
    api.document(query, Format::Html).await
}

async fn summary(State(api): Asked, RawQuery(query): RawQuery) -> Result<Answer, Problem> {
    api.document(query, Format::Json).await
}

async fn containers(State(api): Asked, RawQuery(query): RawQuery) -> Result<Answer, Problem> {
    let question =
        Question::from_query(query.as_deref().unwrap_or("")).map_err(Problem::bad_request)?;
    api.answer(JSON, move |shared| {
        let known = Inventory::of(shared.store.as_ref(), &question.whole(), now())?;
        Ok(serde_json::to_vec_pretty(&known)?)
    })
    .await
}

async fn status(State(api): Asked) -> Result<Answer, Problem> {
    api.answer(JSON, |shared| {
        let overview = shared.store.overview()?;
        let status = Status::new(shared, shared.snapshot(), shared.desk.health(), overview);
        Ok(serde_json::to_vec_pretty(&status)?)
    })
    .await
}

/// 200 while what happens is kept, 503 while it is not.
async fn health(State(api): Asked) -> Result<Answer, Problem> {
    match api.refresh().await {
        None => Ok(Answer {
            content_type: JSON,
            body: br#"{"status":"ok"}"#.to_vec(),
            warning: None,
        }),
        Some(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

async fn exposition(State(api): Asked) -> Result<Answer, Problem> {
    api.answer(METRICS, |shared| {
        let overview = shared.store.overview()?;
        let text = metrics::text(shared, &shared.snapshot(), &shared.desk.health(), overview)?;
        Ok(text.into_bytes())
    })
    .await
}
