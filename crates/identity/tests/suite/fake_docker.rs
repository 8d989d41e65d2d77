//! A Docker daemon that answers as the test tells it to.

use crate::agent::ID;
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    runtime::Runtime,
    sync::broadcast,
};

struct State {
    version: String,
    list: String,
    hangs: bool,
}

/// Ends when it is dropped.
pub(crate) struct FakeDocker {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<String>,
    runtime: Option<Runtime>,
}

impl FakeDocker {
    pub(crate) fn start(socket: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let state = Arc::new(Mutex::new(State {
            version: r#"{"Version":"0.0"}"#.into(),
            list: "[]".into(),
            hangs: false,
        }));
        let (events, _) = broadcast::channel(16);
        let _ = std::fs::remove_file(socket);
        let guard = runtime.enter();
        let listener = UnixListener::bind(socket).unwrap();
        drop(guard);
        let (shared, sender) = (Arc::clone(&state), events.clone());
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Who hangs up early has what it wanted.
                let answered = answer(stream, Arc::clone(&shared), sender.subscribe());
                tokio::spawn(async { answered.await.ok() });
            }
        });
        Self {
            state,
            events,
            runtime: Some(runtime),
        }
    }

    /// Sets the list of containers; `:"ID"` in it stands for the usual container's id.
    pub(crate) fn list(&self, json: &str) {
        self.state.lock().unwrap().list = with_id(json);
    }

    pub(crate) fn version(&self, json: &str) {
        self.state.lock().unwrap().version = json.into();
    }

    pub(crate) fn hangs(&self, hangs: bool) {
        self.state.lock().unwrap().hangs = hangs;
    }

    /// Sends one text to all who listen for events.
    pub(crate) fn event(&self, text: &str) {
        self.events.send(with_id(text)).unwrap();
    }
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn with_id(json: &str) -> String {
    json.replace(r#":"ID""#, &format!(r#":"{ID}""#))
}

async fn answer(
    mut stream: UnixStream,
    state: Arc<Mutex<State>>,
    mut events: broadcast::Receiver<String>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let (body, hangs) = {
        let state = state.lock().unwrap();
        let body = if request.starts_with("GET /version ") {
            Some(state.version.clone())
        } else if request.starts_with("GET /containers/json?all=1 ") {
            Some(state.list.clone())
        } else {
            assert!(request.starts_with("GET /events?"), "{request}");
            None
        };
        (body, state.hangs)
    };
    if hangs {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    if let Some(body) = body {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        return stream.write_all(body.as_bytes()).await;
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await?;
    while let Ok(event) = events.recv().await {
        stream
            .write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
            .await?;
    }
    Ok(())
}
