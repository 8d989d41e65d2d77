//! An API server of a cluster that has none: it lists the objects it was given and tells
//! those who watch of each that comes. Enough for whoever only reads.

use anyhow::Result;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// The server; its threads end with the process.
#[derive(Clone, Debug, Default)]
pub struct ApiServer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// By path; an object's version is its place, counted from 1.
    objects: Mutex<Vec<(&'static str, Value)>>,
    more: Condvar,
}

impl ApiServer {
    /// Serves on a listener, in whatever network that was made.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn serve(&self, listener: TcpListener) -> Result<SocketAddr> {
        let address = listener.local_addr()?;
        let server = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // Whoever hangs up has heard enough.
                thread::spawn(move || server.answer(stream).ok());
            }
        });
        Ok(address)
    }

    /// A new object.
    pub fn put(&self, path: &'static str, mut object: Value) {
        let mut objects = self.lock();
        object["metadata"]["resourceVersion"] = json!((objects.len() + 1).to_string());
        objects.push((path, object));
        self.0.more.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, Value)>> {
        self.0
            .objects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, mut stream: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut first = String::new();
            reader.read_line(&mut first)?;
            let mut line = String::new();
            while reader.read_line(&mut line)? > 2 {
                line.clear();
            }
            let Some(target) = first.split(' ').nth(1) else {
                return Ok(());
            };
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            if query.split('&').any(|pair| pair == "watch=true") {
                return self.tell(&mut stream, path, query);
            }
            let objects = self.lock();
            let items: Vec<&Value> = objects
                .iter()
                .filter(|(at, _)| *at == path)
                .map(|(_, object)| object)
                .collect();
            let list = json!({
                "apiVersion": "v1", "kind": "List",
                "metadata": {"resourceVersion": objects.len().to_string()}, "items": items,
            });
            let body = list.to_string();
            drop(objects);
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
    }

    /// Tells of what comes after a version, until nobody listens.
    fn tell(&self, stream: &mut TcpStream, path: &str, query: &str) -> Result<()> {
        let version = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="));
        let mut told: usize = version
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        )?;
        loop {
            let objects = self.lock();
            let objects = self
                .0
                .more
                .wait_while(objects, |objects| objects.len() <= told);
            let objects = objects.unwrap_or_else(PoisonError::into_inner);
            let new: Vec<Value> = objects[told..]
                .iter()
                .filter(|(at, _)| *at == path)
                .map(|(_, object)| object.clone())
                .collect();
            told = objects.len();
            drop(objects);
            for object in new {
                writeln!(stream, "{}", json!({"type": "ADDED", "object": object}))?;
            }
        }
    }
}

/// A kubeconfig that leads to a server without asking who comes.
#[must_use]
pub fn kubeconfig(server: SocketAddr) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    })
    .to_string()
}
