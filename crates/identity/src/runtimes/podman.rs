//! Podman without its service, from the files of its storage.
//!
//! They tell a container's name and image. Its labels and addresses are in Podman's own
//! database, so they are known only where its service runs (`systemctl start
//! podman.socket`). A container that is removed when it ends is named only if the files
//! are read before that.

use super::{ANSWER_BYTES_MAX, Failure, Line, Told};
use crate::facts::{Facts, Source, container_owner, printable};
use ethogram_model::Runtime;
use serde::Deserialize;
use std::{convert::Infallible, io, path::PathBuf};
use tokio::io::AsyncReadExt;

/// Where the storage folder lists its containers. The second is of containers that do not
/// outlive a boot.
const LISTS: [&str; 2] = [
    "overlay-containers/containers.json",
    "overlay-containers/volatile-containers.json",
];

pub(super) async fn serve(line: &mut Line) -> Result<Infallible, Failure> {
    loop {
        line.asking();
        let mut facts = Vec::new();
        for list in LISTS {
            let path = line.endpoint.path.join(list);
            if let Some(text) = read(&path).await? {
                facts.extend(parse(&text).map_err(|why| Failure::File {
                    path,
                    why: why.into(),
                })?);
            }
        }
        line.tell_all(Told {
            version: "podman, from its files".to_owned(),
            announces: false,
            facts,
        })
        .await?;
        line.wake(std::future::pending::<()>()).await?;
    }
}

/// The text of a file; `None` if there is none.
async fn read(path: &PathBuf) -> Result<Option<Vec<u8>>, Failure> {
    let failure = |why| Failure::File {
        path: path.clone(),
        why,
    };
    let file = match tokio::fs::File::open(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failure)?,
    };
    let mut text = Vec::new();
    let limit = ANSWER_BYTES_MAX as u64 + 1;
    file.take(limit)
        .read_to_end(&mut text)
        .await
        .map_err(failure)?;
    if text.len() > ANSWER_BYTES_MAX {
        return Err(Failure::TooLarge {
            question: "containers.json",
        });
    }
    Ok(Some(text))
}

#[derive(Deserialize)]
struct Stored {
    id: String,
    names: Option<Vec<String>>,
    /// JSON in a text.
    #[serde(default)]
    metadata: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Metadata {
    image_name: String,
    /// Only CRI-O, which shares the storage and is asked over CRI, has pods in it.
    pod_id: String,
}

fn parse(text: &[u8]) -> Result<Vec<Facts>, serde_json::Error> {
    let stored: Vec<Stored> = serde_json::from_slice(text)?;
    Ok(stored.iter().filter_map(Stored::facts).collect())
}

impl Stored {
    fn facts(&self) -> Option<Facts> {
        // Other tools put containers there too, with metadata of their own or none.
        let metadata: Metadata = serde_json::from_str(&self.metadata).unwrap_or_default();
        let name = self.names.iter().flatten().next()?;
        metadata.pod_id.is_empty().then(|| Facts {
            source: Source::PodmanFiles,
            id: self.id.clone(),
            runtime: Runtime::Podman,
            name: printable(name),
            image: printable(&metadata.image_name),
            workload: container_owner(name, |_| None),
            ..Facts::default()
        })
    }
}

/// What bytes say, taken for a list of containers.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8]) -> Vec<Facts> {
    parse(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_containers_are_understood() {
        let text = br#"[
            {"id":"a","names":["web\u001b[31m"],"metadata":"{\"image-name\":\"localhost/web:1\",\"name\":\"web\"}"},
            {"id":"b","names":["k8s_POD_x"],"metadata":"{\"pod-id\":\"b\",\"image-name\":\"pause\"}"},
            {"id":"c","names":["build"],"metadata":"not json"},
            {"id":"d"}]"#;
        let told = parse(text).unwrap();
        assert_eq!(told.len(), 2);
        assert_eq!(
            (told[0].name.as_str(), told[0].image.as_str()),
            (r"web\x1b[31m", "localhost/web:1")
        );
        assert_eq!(told[1].workload.to_string(), "container/build");
        assert!(parse(b"{").is_err());
    }
}
