//! An API server of ours: lists in pages, watches from a version, and fails as asked.

use ethogram_kubernetes::Kind;
use hyper::{
    body::{Body, Bytes, Frame},
    http::request::Parts,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// How the fake answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Nothing is reached.
    Unreachable,
    /// Requests are taken and never answered.
    Hanging,
    /// Answers break off in the middle of a page.
    Breaking,
    /// Watches are answered and end at once.
    Ending,
    /// Every request is refused with this status.
    Refusing(u16),
}

/// How the fake says that a version is too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum GoneAs {
    #[default]
    Event,
    Status,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By path, then by uid.
    objects: HashMap<&'static str, BTreeMap<String, Value>>,
    /// All changes: path, version, type, object.
    history: Vec<(&'static str, u64, &'static str, Value)>,
    /// Changes up to this version are forgotten.
    compacted: u64,
    watches: Vec<Open>,
    requests: Vec<String>,
    mood: Mood,
    gone_as: GoneAs,
    /// Pages are not longer than this, whatever is asked.
    page_max: Option<usize>,
    retry_after_s: Option<u64>,
}

struct Open {
    path: &'static str,
    fields: Option<String>,
    metadata_only: bool,
    lines: mpsc::UnboundedSender<io::Result<Bytes>>,
}

/// The API server.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    /// With the recorded objects of a small cluster.
    pub(crate) fn recorded() -> Self {
        let fake = Self::default();
        fake.put_all(include_str!("fixtures/cluster.json"));
        fake
    }

    /// Adds the objects of a list, as `kubectl get -o json` writes it.
    pub(crate) fn put_all(&self, list: &str) {
        let list: Value = serde_json::from_str(list).unwrap();
        for object in list["items"].as_array().unwrap() {
            self.put(object.clone());
        }
    }

    /// Adds or replaces an object.
    pub(crate) fn put(&self, mut object: Value) {
        let mut state = self.state();
        let path = path_of(&object);
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let uid = object["metadata"]["uid"].to_string();
        let objects = state.objects.entry(path).or_default();
        let change = if objects.insert(uid, object.clone()).is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        state.tell(path, change, object);
    }

    /// Changes an object by its name.
    pub(crate) fn change(&self, kind: Kind, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(kind, name);
        change(&mut object);
        self.put(object);
    }

    /// Deletes an object by its name.
    pub(crate) fn delete(&self, kind: Kind, name: &str) {
        let mut object = self.get(kind, name);
        let mut state = self.state();
        let uid = object["metadata"]["uid"].to_string();
        state.objects.get_mut(kind.path()).unwrap().remove(&uid);
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.tell(kind.path(), "DELETED", object);
    }

    pub(crate) fn get(&self, kind: Kind, name: &str) -> Value {
        let state = self.state();
        let objects = state.objects[kind.path()].values();
        let mut named = objects.filter(|object| object["metadata"]["name"] == name);
        named.next().unwrap().clone()
    }

    /// Tells all watches the version.
    pub(crate) fn bookmark(&self) {
        let state = self.state();
        for open in &state.watches {
            let version = state.version.to_string();
            let object = json!({"kind": "X", "metadata": {"resourceVersion": version}});
            open.send(&json!({"type": "BOOKMARK", "object": object}));
        }
    }

    /// Sends a line as it is to the watches of a kind.
    pub(crate) fn send_raw(&self, kind: Kind, line: &str) {
        let state = self.state();
        for open in state.watches.iter().filter(|o| o.path == kind.path()) {
            let _dropped = open.lines.send(Ok(line.to_owned().into()));
        }
    }

    /// Ends all watches, as a server does that restarts or finds them old enough.
    pub(crate) fn end_watches(&self) {
        self.state().watches.clear();
    }

    /// Breaks all connections.
    pub(crate) fn break_watches(&self) {
        for open in self.state().watches.drain(..) {
            let _dropped = open.lines.send(Err(io::ErrorKind::ConnectionReset.into()));
        }
    }

    /// Forgets all changes so far.
    pub(crate) fn compact(&self, gone_as: GoneAs) {
        let mut state = self.state();
        state.version += 1;
        state.compacted = state.version;
        state.gone_as = gone_as;
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
        if mood != Mood::Well {
            self.break_watches();
        }
    }

    pub(crate) fn set_page_max(&self, objects: usize) {
        self.state().page_max = Some(objects);
    }

    pub(crate) fn set_retry_after_s(&self, seconds: u64) {
        self.state().retry_after_s = Some(seconds);
    }

    /// Requests since the last call: path and query, `metadata` in front if only that was
    /// asked for.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    pub(crate) fn open_watches(&self) -> usize {
        let mut state = self.state();
        state.watches.retain(|open| !open.lines.is_closed());
        state.watches.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) async fn answer(&self, request: Parts) -> io::Result<hyper::Response<Answer>> {
        let accept = request.headers.get("accept").map(|a| a.to_str().unwrap());
        let metadata_only = accept.is_some_and(|a| a.contains("as=PartialObjectMetadata"));
        let uri = request.uri.to_string();
        let mood = {
            let mut state = self.state();
            let prefix = if metadata_only { "metadata " } else { "" };
            state.requests.push(format!("{prefix}{uri}"));
            state.mood
        };
        match mood {
            Mood::Hanging => std::future::pending().await,
            Mood::Unreachable => Err(io::ErrorKind::ConnectionRefused.into()),
            Mood::Refusing(code) => Ok(self.refusal(code, "as asked")),
            Mood::Well | Mood::Breaking | Mood::Ending => Ok(self.serve(&uri, metadata_only)),
        }
    }

    fn refusal(&self, code: u16, message: &str) -> hyper::Response<Answer> {
        let mut response = hyper::Response::builder().status(code);
        if let Some(seconds) = self.state().retry_after_s {
            response = response.header("Retry-After", seconds.to_string());
        }
        let body = Answer::whole(&status(code, message));
        response.body(body).unwrap()
    }

    fn serve(&self, uri: &str, metadata_only: bool) -> hyper::Response<Answer> {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let query: HashMap<&str, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key, value.replace("%3D", "=").replace("%3A", ":")))
            .collect();
        let kinds = Kind::ALL.iter();
        let Some(kind) = kinds.copied().find(|kind| kind.path() == path) else {
            return self.refusal(404, "no such kind");
        };
        assert_eq!(metadata_only, kind.is_metadata_only(), "{uri}");
        if query.get("watch").map(String::as_str) == Some("true") {
            self.watch(kind, &query, metadata_only)
        } else {
            self.list(kind, &query, metadata_only)
        }
    }

    fn list(
        &self,
        kind: Kind,
        query: &HashMap<&str, String>,
        metadata_only: bool,
    ) -> hyper::Response<Answer> {
        let state = self.state();
        let asked: usize = query
            .get("limit")
            .map_or(usize::MAX, |l| l.parse().unwrap());
        let limit = asked.min(state.page_max.unwrap_or(asked));
        let (start, version) = match query.get("continue") {
            None => (0, state.version),
            Some(token) => {
                let (start, version) = token.split_once(':').unwrap();
                (start.parse().unwrap(), version.parse().unwrap())
            }
        };
        if version < state.compacted {
            drop(state);
            return self.refusal(410, "the provided continue parameter is too old");
        }
        let fields = query.get("fieldSelector").map(String::as_str);
        let objects = state.objects.get(kind.path());
        let selected: Vec<_> = objects
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|object| is_selected(object, fields))
            .collect();
        let page = selected.iter().skip(start).take(limit);
        let items: Vec<_> = page.map(|object| shown(object, metadata_only)).collect();
        let end = start + items.len();
        let more = (end < selected.len()).then(|| format!("{end}:{version}"));
        let list = json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": version.to_string(), "continue": more},
            "items": items,
        });
        let body = if state.mood == Mood::Breaking {
            Answer::broken(&list)
        } else {
            Answer::whole(&list)
        };
        hyper::Response::new(body)
    }

    fn watch(
        &self,
        kind: Kind,
        query: &HashMap<&str, String>,
        metadata_only: bool,
    ) -> hyper::Response<Answer> {
        assert_eq!(query["allowWatchBookmarks"], "true");
        let since: u64 = query["resourceVersion"].parse().unwrap();
        let mut state = self.state();
        if state.mood == Mood::Ending {
            return hyper::Response::new(Answer::of(Vec::new()));
        }
        if since < state.compacted {
            let gone_as = state.gone_as;
            drop(state);
            return match gone_as {
                GoneAs::Status => self.refusal(410, "too old resource version"),
                GoneAs::Event => {
                    let object = status(410, "too old resource version");
                    let mut line = json!({"type": "ERROR", "object": object}).to_string();
                    line.push('\n');
                    hyper::Response::new(Answer::of(vec![Ok(line.into())]))
                }
            };
        }
        let (lines, answer) = mpsc::unbounded_channel();
        let open = Open {
            path: kind.path(),
            fields: query.get("fieldSelector").cloned(),
            metadata_only,
            lines,
        };
        for (path, version, change, object) in &state.history {
            if *path == kind.path() && *version > since {
                open.tell(change, object);
            }
        }
        state.watches.push(open);
        hyper::Response::new(Answer(answer))
    }
}

impl State {
    fn tell(&mut self, path: &'static str, change: &'static str, object: Value) {
        for open in self.watches.iter().filter(|open| open.path == path) {
            open.tell(change, &object);
        }
        self.history.push((path, self.version, change, object));
    }
}

impl Open {
    fn tell(&self, change: &str, object: &Value) {
        if is_selected(object, self.fields.as_deref()) {
            let object = shown(object, self.metadata_only);
            self.send(&json!({"type": change, "object": object}));
        }
    }

    fn send(&self, event: &Value) {
        let _dropped = self.lines.send(Ok(format!("{event}\n").into()));
    }
}

/// The path of an object's kind.
fn path_of(object: &Value) -> &'static str {
    let kind = object["kind"].as_str().unwrap();
    let plural = format!("{}s", kind.to_ascii_lowercase());
    let mut kinds = Kind::ALL.iter();
    kinds.find(|k| k.plural() == plural).unwrap().path()
}

fn is_selected(object: &Value, fields: Option<&str>) -> bool {
    fields.is_none_or(|fields| {
        let node = fields.strip_prefix("spec.nodeName=").unwrap();
        object["spec"]["nodeName"] == node
    })
}

fn shown(object: &Value, metadata_only: bool) -> Value {
    if metadata_only {
        json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"],
        })
    } else {
        object.clone()
    }
}

fn status(code: u16, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "code": code,
    })
}

/// What the fake sends, piece by piece.
pub(crate) struct Answer(mpsc::UnboundedReceiver<io::Result<Bytes>>);

impl Answer {
    fn of(pieces: Vec<io::Result<Bytes>>) -> Self {
        let (sender, pieces_of) = mpsc::unbounded_channel();
        for piece in pieces {
            sender.send(piece).unwrap();
        }
        Self(pieces_of)
    }

    fn whole(json: &Value) -> Self {
        Self::of(vec![Ok(json.to_string().into())])
    }

    fn broken(json: &Value) -> Self {
        let text = json.to_string();
        let half = text[..text.len() / 2].to_owned();
        Self::of(vec![
            Ok(half.into()),
            Err(io::ErrorKind::ConnectionReset.into()),
        ])
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
    }
}
