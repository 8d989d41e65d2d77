//! Requests to the API server and what its answers say, without their meaning.

use crate::{
    objects::{Kind, Uid},
    reason::chain,
};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use kube::{
    api::{ListParams, WatchParams},
    client::Body,
    core::Request,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// The longest page that is taken: [`PAGE_OBJECTS`](super::PAGE_OBJECTS) objects of 128 KiB.
pub const PAGE_BYTES_MAX: usize = 64 << 20;
/// The longest event that is taken. An object has at most 1.5 MiB in the API server's store
/// and some times that as JSON.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// How much is read of an answer that only says what is wrong.
const STATUS_BYTES_MAX: usize = 64 << 10;
/// The longest pause that an API server may ask for.
const RETRY_AFTER_MAX_S: u64 = 300;

/// What went wrong.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The version asked for is too old: only a new list helps.
    Gone,
    /// All else: why, and the pause that the API server asks for.
    Failed { why: String, wait: Option<Duration> },
}

impl Trouble {
    pub(super) fn failed(why: String) -> Self {
        Self::Failed { why, wait: None }
    }
}

/// The requests of one kind.
#[derive(Clone)]
pub(super) struct Wire {
    client: kube::Client,
    kind: Kind,
    fields: Option<String>,
}

impl Wire {
    pub(super) fn new(client: kube::Client, kind: Kind, fields: Option<String>) -> Self {
        Self {
            client,
            kind,
            fields,
        }
    }

    /// One page of the list; the first without `next`.
    pub(super) async fn page(&self, next: Option<&str>) -> Result<PageBytes, Trouble> {
        let params = ListParams {
            limit: Some(super::PAGE_OBJECTS),
            continue_token: next.map(str::to_owned),
            field_selector: self.fields.clone(),
            ..ListParams::default()
        };
        let request = Request::new(self.kind.path());
        let request = if self.kind.is_metadata_only() {
            request.list_metadata(&params)
        } else {
            request.list(&params)
        };
        let body = self.send(request).await?;
        let collected = Limited::new(body, PAGE_BYTES_MAX).collect().await;
        let bytes = collected.map_err(|why| self.failed(format!("a page broke off: {why}")))?;
        Ok(PageBytes(bytes.to_bytes()))
    }

    /// The changes since a version.
    pub(super) async fn watch(&self, version: &str) -> Result<Lines, Trouble> {
        let params = WatchParams {
            timeout: Some(super::WATCH_S),
            bookmarks: true,
            field_selector: self.fields.clone(),
            ..WatchParams::default()
        };
        let request = Request::new(self.kind.path());
        let request = if self.kind.is_metadata_only() {
            request.watch_metadata(&params, version)
        } else {
            request.watch(&params, version)
        };
        let body = self.send(request).await?;
        Ok(Lines {
            body,
            read: BytesMut::new(),
            searched: 0,
        })
    }

    async fn send(
        &self,
        request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Body, Trouble> {
        let request = request.map_err(|why| self.failed(why.to_string()))?;
        let answer = self.client.send(request.map(Body::from)).await;
        let answer = answer.map_err(|why| self.failed(chain(&why)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        if status == StatusCode::GONE {
            return Err(Trouble::Gone);
        }
        let wait = retry_after(answer.headers());
        let body = Limited::new(answer.into_body(), STATUS_BYTES_MAX);
        let said = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let said = said.ok().and_then(|json| {
            let status: RawStatus = serde_json::from_slice(&json).ok()?;
            status.message
        });
        let mut why = format!("{}: {status}", self.kind.plural());
        if let Some(said) = said {
            why = format!("{why}: {said}");
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let kind = self.kind.plural();
            why = format!("{why} (its role must allow to list and watch {kind})");
        }
        Err(Trouble::Failed { why, wait })
    }

    fn failed(&self, why: String) -> Trouble {
        Trouble::failed(format!("{}: {why}", self.kind.plural()))
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_MAX_S)))
}

/// A page as it came.
pub(super) struct PageBytes(Bytes);

/// What a page says. Its objects are not taken apart, so that an odd one spoils no other.
pub(super) struct Page<'a> {
    pub(super) items: Vec<&'a str>,
    pub(super) version: String,
    /// How to ask for the next page; `None` on the last.
    pub(super) more: Option<String>,
}

impl PageBytes {
    pub(super) fn read(&self) -> Result<Page<'_>, Trouble> {
        let raw: RawPage = serde_json::from_slice(&self.0)
            .map_err(|why| Trouble::failed(format!("a page of a list is no list: {why}")))?;
        let items = raw.items.unwrap_or_default();
        Ok(Page {
            items: items.into_iter().map(RawValue::get).collect(),
            version: raw.metadata.resource_version,
            more: raw.metadata.more.filter(|more| !more.is_empty()),
        })
    }
}

#[derive(Deserialize)]
struct RawPage<'a> {
    metadata: RawPageMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    more: Option<String>,
}

/// A watch: one event per line.
pub(super) struct Lines {
    body: Body,
    read: BytesMut,
    /// How much of `read` is known to hold no end of line.
    searched: usize,
}

impl Lines {
    /// The next line; `None` when the API server ended the watch. What it sent of a line
    /// before it broke off is dropped: it will be sent again.
    pub(super) async fn next(&mut self) -> Result<Option<LineBytes>, Trouble> {
        loop {
            let end = self.read[self.searched..].iter().position(|b| *b == b'\n');
            if let Some(end) = end {
                let line = self.read.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                return Ok(Some(LineBytes(line)));
            }
            self.searched = self.read.len();
            if self.searched > LINE_BYTES_MAX {
                return Err(Trouble::failed(format!(
                    "an event of a watch is longer than {LINE_BYTES_MAX} bytes"
                )));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(why)) => {
                    return Err(Trouble::failed(format!(
                        "a watch broke off: {}",
                        chain(&why)
                    )));
                }
            }
        }
    }
}

/// A line of a watch as it came.
pub(super) struct LineBytes(Bytes);

/// What a line of a watch says; objects are not taken apart.
pub(super) enum Change<'a> {
    /// An object, and the version it makes.
    Set(&'a str, Option<String>),
    /// The last state of an object that is no more, and the version its end makes.
    Removed(&'a str, Option<String>),
    /// Nothing happened up to this version.
    Bookmark(Option<String>),
    /// The watch is over.
    Error(Trouble),
}

impl LineBytes {
    /// What it says; why not, if it is not understood.
    pub(super) fn read(&self) -> Result<Change<'_>, String> {
        let raw: RawChange = serde_json::from_slice(&self.0)
            .map_err(|why| format!("a line of a watch is no event: {why}"))?;
        let json = raw.object.get();
        match raw.kind {
            "ADDED" | "MODIFIED" => Ok(Change::Set(json, version(json))),
            "DELETED" => Ok(Change::Removed(json, version(json))),
            "BOOKMARK" => Ok(Change::Bookmark(version(json))),
            "ERROR" => Ok(Change::Error(error(json))),
            other => Err(format!(
                "an event of a watch has the unknown type {other:?}"
            )),
        }
    }
}

#[derive(Deserialize)]
struct RawChange<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct RawStatus {
    code: Option<u16>,
    message: Option<String>,
}

fn error(json: &str) -> Trouble {
    match serde_json::from_str::<RawStatus>(json) {
        Ok(status) if status.code == Some(410) => Trouble::Gone,
        Ok(status) => {
            let code = status.code.unwrap_or_default();
            let said = status.message.unwrap_or_default();
            Trouble::failed(format!("the API server ended a watch: {code} {said}"))
        }
        Err(why) => Trouble::failed(format!("the API server ended a watch: {why}")),
    }
}

/// The version of an object, whatever else is wrong with it.
fn version(json: &str) -> Option<String> {
    let raw: RawIdentity = serde_json::from_str(json).ok()?;
    raw.metadata.resource_version
}

/// The uid of an object, whatever else is wrong with it.
pub(super) fn uid(json: &str) -> Option<Uid> {
    let raw: RawIdentity = serde_json::from_str(json).ok()?;
    raw.metadata.uid.map(Uid::from)
}

/// Hands over the objects in a page, or a line of a watch, that consists of these bytes.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8], mut take: impl FnMut(&str)) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(page) = PageBytes(bytes.clone()).read() {
        page.items.into_iter().for_each(&mut take);
    }
    if let Ok(Change::Set(json, _) | Change::Removed(json, _)) = LineBytes(bytes).read() {
        let _ = uid(json);
        take(json);
    }
}

#[derive(Deserialize)]
struct RawIdentity {
    metadata: RawIdentityMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIdentityMeta {
    uid: Option<String>,
    resource_version: Option<String>,
}
