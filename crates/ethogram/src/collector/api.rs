//! The collector's HTTP API: that of an agent, for many, to those who may.

use std::{io, sync::Arc};

use anyhow::Result;
use axum::{
    Extension, Router,
    extract::{RawQuery, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use ethogram_cluster::{
    access::{Caller, Role},
    listen::{Connection, Remote},
};
use ethogram_view::{Format, TextOptions};
use tokio::sync::{Semaphore, watch};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::{
    Shared,
    audit::Line,
    metrics,
    state::{AgentsDocument, Status},
};
use crate::{
    clock::now,
    http::{self, Answer, JSON, Problem, bounded, content_type, only_by_local_names, parse},
    inventory::Inventory,
    present,
    question::Question,
};

/// Answers computed at a time, because each may need much memory; more wait.
const ANSWERS_MAX: usize = 4;

struct Api {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
}

/// Connections whose handshake is done, as a server takes them.
struct Connections(ReceiverStream<io::Result<Connection>>);

impl Listener for Connections {
    type Io = Connection;
    type Addr = Remote;

    async fn accept(&mut self) -> (Connection, Remote) {
        loop {
            match self.0.next().await {
                Some(Ok(connection)) => {
                    let remote = connection.remote().clone();
                    return (connection, remote);
                }
                Some(Err(error)) => tracing::debug!("no connection: {error}"),
                // Nothing will come any more; whoever serves will be told to stop.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Remote> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Answers questions until it is told to stop.
pub(super) async fn serve(
    shared: Arc<Shared>,
    connections: ReceiverStream<io::Result<Connection>>,
    mut stopped: watch::Receiver<bool>,
) {
    let (stop, told) = watch::channel(());
    tokio::spawn(async move {
        // Being dropped stops as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        stop.send_replace(());
    });
    http::serve(Connections(connections), router(shared), told).await;
}

fn router(shared: Arc<Shared>) -> Router {
    let is_open = shared.access.is_open();
    let api = Arc::new(Api {
        shared,
        turns: Arc::new(Semaphore::new(ANSWERS_MAX)),
    });
    let router = Router::new()
        .route("/", get(page))
        .route("/v1/summary", get(summary))
        .route("/v1/containers", get(containers))
        .route("/v1/agents", get(agents))
        .route("/v1/status", get(status))
        .route("/metrics", get(exposition))
        .fallback(|| async {
            let paths =
                "see /v1/summary, /v1/containers, /v1/agents, /v1/status, /v1/health, /metrics";
            Problem::new(
                StatusCode::NOT_FOUND,
                format!("there is nothing here: {paths}"),
            )
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "everything here is read with GET",
            )
        })
        .layer(middleware::from_fn_with_state(api.clone(), admit))
        // Probes have no token, and learn nothing.
        .route("/v1/health", get(health))
        .layer(middleware::from_fn(bounded))
        .with_state(api);
    if is_open {
        router.layer(middleware::from_fn(only_by_local_names))
    } else {
        router
    }
}

/// Lets in whoever has a token, and writes down who asked for what.
async fn admit(State(api): Asked, mut request: Request, next: Next) -> Response {
    let what = request
        .uri()
        .path_and_query()
        .map_or("", |what| what.as_str())
        .to_owned();
    let header = request.headers().get(header::AUTHORIZATION);
    let header = header.map(|value| value.to_str().unwrap_or_default());
    let caller = api.shared.access.identify(header, &[], Role::Admin);
    let (who, role) = match &caller {
        Ok(caller) => (caller.name.clone(), caller.role.to_string()),
        Err(_) => Default::default(),
    };
    let response = match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(denied) => {
            let problem = Problem::new(StatusCode::UNAUTHORIZED, denied.to_string());
            ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
        }
    };
    if let Some(audit) = &api.shared.audit {
        audit.write(&Line {
            who: &who,
            role,
            what: &what,
            status: response.status().as_u16(),
        });
    }
    response
}

fn may_read(caller: &Caller, namespace: Option<&str>) -> Result<(), Problem> {
    if caller.reads(namespace) {
        return Ok(());
    }
    let name = &caller.name;
    let text = match (&caller.namespaces, caller.role) {
        (_, Role::Agent) => {
            format!("{name:?} is an agent's token: agents report, they read nothing")
        }
        (Some(own), _) => format!(
            "{name:?} may read the namespaces {} only: ask with namespace=NAME",
            own.join(", ")
        ),
        (None, role) => format!("{name:?} may not read this: its role is {role}"),
    };
    Err(Problem::new(StatusCode::FORBIDDEN, text))
}

type Asked = State<Arc<Api>>;
type Asking = Extension<Caller>;

impl Api {
    /// Computes an answer when it is its turn.
    async fn answer(
        &self,
        content_type: &'static str,
        compute: impl FnOnce(&Shared) -> Result<Vec<u8>> + Send + 'static,
    ) -> Result<Answer, Problem> {
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
            .map_err(|error| Problem::internal(&error.into()))?;
        Ok(Answer {
            content_type,
            body: body.map_err(|error| Problem::internal(&error))?,
            warning: None,
        })
    }

    async fn document(
        &self,
        caller: &Caller,
        query: Option<String>,
        default: Format,
    ) -> Result<Answer, Problem> {
        let (format, question) =
            parse(query.as_deref().unwrap_or(""), default).map_err(Problem::bad_request)?;
        may_read(caller, question.selection.namespace.as_deref())?;
        let question = Question {
            cluster: self.shared.args.cluster.clone(),
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

async fn page(
    State(api): Asked,
    Extension(caller): Asking,
    RawQuery(query): RawQuery,
) -> Result<Answer, Problem> {
    api.document(&caller, query, Format::Html).await
}

async fn summary(
    State(api): Asked,
    Extension(caller): Asking,
    RawQuery(query): RawQuery,
) -> Result<Answer, Problem> {
    api.document(&caller, query, Format::Json).await
}

async fn containers(
    State(api): Asked,
    Extension(caller): Asking,
    RawQuery(query): RawQuery,
) -> Result<Answer, Problem> {
    let question =
        Question::from_query(query.as_deref().unwrap_or("")).map_err(Problem::bad_request)?;
    may_read(&caller, question.selection.namespace.as_deref())?;
    api.answer(JSON, move |shared| {
        let known = Inventory::of(shared.store.as_ref(), &question.whole(), now())?;
        Ok(serde_json::to_vec_pretty(&known)?)
    })
    .await
}

async fn agents(State(api): Asked, Extension(caller): Asking) -> Result<Answer, Problem> {
    may_read(&caller, None)?;
    api.answer(JSON, |shared| {
        Ok(serde_json::to_vec_pretty(&AgentsDocument::new(
            shared,
            now(),
        ))?)
    })
    .await
}

async fn status(State(api): Asked, Extension(caller): Asking) -> Result<Answer, Problem> {
    may_read(&caller, None)?;
    api.answer(JSON, |shared| {
        let overview = shared.store.overview()?;
        Ok(serde_json::to_vec_pretty(&Status::new(shared, overview))?)
    })
    .await
}

/// 200 while the store can be read.
async fn health(State(api): Asked) -> Result<Answer, Problem> {
    api.answer(JSON, |shared| {
        shared.store.overview()?;
        Ok(br#"{"status":"ok"}"#.to_vec())
    })
    .await
}

async fn exposition(State(api): Asked, Extension(caller): Asking) -> Result<Answer, Problem> {
    may_read(&caller, None)?;
    api.answer(http::METRICS, |shared| {
        Ok(metrics::text(shared, shared.store.overview()?, now())?.into_bytes())
    })
    .await
}
