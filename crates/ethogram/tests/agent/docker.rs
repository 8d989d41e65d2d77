//! A Docker daemon that knows one container, and can be stopped and started again.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Stops when dropped, and takes its socket along.
pub(crate) struct Docker {
    socket: PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Docker {
    /// Listens, and says that a container has a name.
    pub(crate) fn start(socket: &Path, id: &str, name: &str) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let containers = format!(
            r#"[{{"Id":"{id}","Names":["/{name}"],"Image":"i","Labels":{{}},"State":"running"}}]"#
        );
        let told = Arc::clone(&stopping);
        let serve = move || {
            // Streams of events stay open as long as the daemon runs, and say nothing.
            let mut events = Vec::new();
            for stream in listener.incoming() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                events.extend(answer(stream.unwrap(), &containers));
            }
        };
        Self {
            socket: socket.to_owned(),
            stopping,
            thread: Some(thread::spawn(serve)),
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        UnixStream::connect(&self.socket).unwrap();
        self.thread.take().unwrap().join().unwrap();
        fs::remove_file(&self.socket).unwrap();
    }
}

/// Returns the stream if it is one of events.
fn answer(mut stream: UnixStream, containers: &str) -> Option<UnixStream> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return None;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let body = if request.starts_with("GET /version ") {
        r#"{"Version":"0.0"}"#
    } else if request.starts_with("GET /containers/json") {
        containers
    } else {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        return stream.write_all(head.as_bytes()).is_ok().then_some(stream);
    };
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
    // Who hangs up early has what it wanted.
    write!(stream, "{head} {}\r\n\r\n{body}", body.len()).ok();
    None
}
