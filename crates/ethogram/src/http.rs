//! What every HTTP server here does: bounds on connections and answers, errors, formats.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Result;
use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
    serve::Listener,
};
use ethogram_view::Format;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use crate::question::Question;

/// How long a client may take to send its request's head.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long an answer may take to compute, the wait for its turn included.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long a connection may last, the slowest reader included.
const CONNECTION_WAIT: Duration = Duration::from_secs(120);
/// The largest head of a request, its query included. No request needs a body.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Connections to each socket at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// Says why an answer may lack what happened last.
pub(crate) const WARNING_HEADER: &str = "ethogram-warning";

/// Answers every connection of a listener until it is told to stop.
pub(crate) async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    mut stopped: watch::Receiver<()>,
) {
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
pub(crate) async fn bounded(request: Request, next: Next) -> Response {
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
pub(crate) async fn only_by_local_names(request: Request, next: Next) -> Response {
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
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    text: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { status, text }
    }

    pub(crate) fn bad_request(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{error:#}"))
    }

    pub(crate) fn internal(error: &anyhow::Error) -> Self {
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
pub(crate) struct Answer {
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) warning: Option<String>,
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

/// The type of metrics.
pub(crate) const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The type of JSON.
pub(crate) const JSON: &str = "application/json";

/// Takes `format=` out of a query; the rest is the question.
pub(crate) fn parse(query: &str, default: Format) -> Result<(Format, Question)> {
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

/// The type of a format.
pub(crate) fn content_type(format: Format) -> &'static str {
    match format {
        Format::Text => "text/plain; charset=utf-8",
        Format::Json => JSON,
        Format::Yaml => "application/yaml",
        Format::Csv => "text/csv; charset=utf-8",
        Format::Html => "text/html; charset=utf-8",
    }
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
