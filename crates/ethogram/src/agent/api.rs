//! The HTTP API, on a unix socket and, if asked for, on TCP. `docs/api.md` describes it.

use std::{
    net::{IpAddr, TcpListener},
    os::unix::net::UnixListener,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{RawQuery, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use ethogram_view::{Format, TextOptions};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::Serialize;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::{Shared, metrics, status::Status};
use crate::{clock::now, inventory::Inventory, present, question::Question};

/// How old an answer may be if the watch or the store does not keep up.
const FRESH_WAIT: Duration = Duration::from_secs(1);
/// How long an answer may take to compute, the wait for its turn included.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long a client may take to send its request's head.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long a connection may last, the slowest reader included.
const CONNECTION_WAIT: Duration = Duration::from_secs(120);
/// The largest head of a request, its query included. No request needs a body.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Connections to each socket at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// Answers computed at a time, because each may need much memory; more wait.
const ANSWERS_MAX: usize = 2;

/// Says why an answer may lack what happened last.
pub(crate) const WARNING_HEADER: &str = "ethogram-warning";

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

/// Answers every connection of a listener until it is told to stop.
async fn serve<L: Listener>(mut listener: L, router: Router, mut stopped: watch::Receiver<()>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await.0, place)
        };
        let (io, place) = tokio::select! {
            next = next => next,
            _ = stopped.changed() => break,
        };
        let router = router.clone();
        let stopped = stopped.clone();
        connections.spawn(async move {
            talk(TokioIo::new(io), router, stopped).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    while connections.join_next().await.is_some() {}
}

/// One connection, one request: an idle one never takes the place of another.
async fn talk<I>(io: I, router: Router, mut stopped: watch::Receiver<()>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let polite = async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    match timeout(CONNECTION_WAIT, polite).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("a connection broke off: {error}"),
        Err(_) => tracing::debug!("a connection took too long"),
    }
}

/// Bounds the time of an answer, and tells browsers to trust it with nothing.
async fn bounded(request: Request, next: Next) -> Response {
    let mut response = match timeout(ANSWER_WAIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "this takes too long: ask for less, or later",
        )
        .into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Refuses requests that a page elsewhere made a browser send here, by a name of its own
/// that it had resolved to this machine.
async fn only_by_local_names(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    if host.is_some_and(is_local_name) {
        next.run(request).await
    } else {
        Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "ask for localhost or a loopback address",
        )
        .into_response()
    }
}

fn is_local_name(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// An error, as its receiver sees it.
struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { status, text }
    }

    fn bad_request(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{error:#}"))
    }

    fn internal(error: &anyhow::Error) -> Self {
        tracing::error!("cannot answer: {error:#}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
        }
        (self.status, axum::Json(Body { error: self.text })).into_response()
    }
}

/// An answer with its type, and what may be missing from it.
struct Answer {
    content_type: &'static str,
    body: Vec<u8>,
    warning: Option<String>,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = ([(header::CONTENT_TYPE, self.content_type)], self.body).into_response();
        // Texts of errors may have line breaks, which no header can have.
        let warning = self.warning.map(|text| text.replace(char::is_control, " "));
        if let Some(warning) = warning.and_then(|text| HeaderValue::try_from(text).ok()) {
            let name = HeaderName::from_static(WARNING_HEADER);
            response.headers_mut().insert(name, warning);
        }
        response
    }
}

const JSON: &str = "application/json";

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

/// Takes `format=` out of a query; the rest is the question.
fn parse(query: &str, default: Format) -> Result<(Format, Question)> {
    let mut format = default;
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.strip_prefix("format=") {
            Some(word) => format = word.parse()?,
            None => rest.push(pair),
        }
    }
    Ok((format, Question::from_query(&rest.join("&"))?))
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Text => "text/plain; charset=utf-8",
        Format::Json => JSON,
        Format::Yaml => "application/yaml",
        Format::Csv => "text/csv; charset=utf-8",
        Format::Html => "text/html; charset=utf-8",
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
    api.answer(metrics::CONTENT_TYPE, |shared| {
        let overview = shared.store.overview()?;
        let text = metrics::text(shared, &shared.snapshot(), &shared.desk.health(), overview)?;
        Ok(text.into_bytes())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:8686",
            "127.0.0.1:1",
            "127.3.2.1",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(is_local_name(&HeaderValue::from_static(host)), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "192.168.0.1:80",
            "",
            "127.0.0.1.evil",
            "[::2]",
            "a@b@c",
        ] {
            assert!(!is_local_name(&HeaderValue::from_static(host)), "{host}");
        }
    }

    #[test]
    fn a_format_is_no_part_of_the_question() {
        let (format, question) = parse("pod=a&format=csv&fold=none", Format::Json).unwrap();
        assert_eq!(format, Format::Csv);
        assert_eq!(question, Question::from_query("pod=a&fold=none").unwrap());
        assert_eq!(
            parse("", Format::Html).unwrap(),
            (Format::Html, Question::default())
        );
        assert!(parse("format=pdf", Format::Json).is_err());
        assert!(parse("formats=csv", Format::Json).is_err());
    }
}
