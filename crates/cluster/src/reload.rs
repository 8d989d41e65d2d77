//! Files that are read again when they change: certificates are renewed and tokens
//! revoked while a collector runs.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a file looks like from outside: when it was written, and its length. Kubernetes
/// swaps a mounted secret's files by a symbolic link, which this notices too.
type Look = Option<(SystemTime, u64)>;

/// Something made of files, and made again when they change.
pub(crate) struct Reloading<T> {
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    current: Arc<T>,
    looks: Vec<Look>,
    looked: Instant,
}

impl<T> Reloading<T> {
    /// Makes it for the first time, which must succeed.
    pub(crate) fn new(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        // Looked at first: what changes while it is read is read again.
        let looks = look(&files);
        let current = Arc::new(read()?);
        Ok(Self {
            files,
            read: Box::new(read),
            state: Mutex::new(State {
                current,
                looks,
                looked: Instant::now(),
            }),
        })
    }

    /// What the files say now. If they cannot be read any more, what they said last.
    pub(crate) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            self.refresh(&mut state);
        }
        state.current.clone()
    }

    fn refresh(&self, state: &mut State<T>) {
        let looks = look(&self.files);
        if looks == state.looks {
            return;
        }
        match (self.read)() {
            Ok(new) => {
                state.current = Arc::new(new);
                tracing::info!(files = ?self.files, "read again");
            }
            Err(error) => tracing::warn!(%error, "keeping what was read before"),
        }
        state.looks = looks;
    }
}

fn look(files: &[PathBuf]) -> Vec<Look> {
    let look = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_believed() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("number");
        std::fs::write(&file, "1").unwrap();
        let read = {
            let file = file.clone();
            move || -> Result<u32, String> {
                let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
                text.parse().map_err(|_| format!("{text:?} is no number"))
            }
        };
        let reloading = Reloading::new(vec![file.clone()], read).unwrap();
        let now = || {
            reloading.state.lock().unwrap().looked -= LOOK_EVERY;
            *reloading.current()
        };
        assert_eq!(now(), 1);
        for (text, number) in [("23", 23), ("broken", 23), ("456", 456)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(now(), number, "{text}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(now(), 456);
    }
}
