//! Podman's files.

use crate::agent::{Host, ID, OTHER};
use ethogram_identity::facts::Source;
use std::fs;

const STORAGE: &str = "storage";

#[test]
fn containers_are_named_by_the_files_of_the_storage() {
    let host = Host::new();
    let folder = host.path(STORAGE).join("overlay-containers");
    fs::create_dir_all(&folder).unwrap();
    let mut agent = host.agent(&[(Source::PodmanFiles, STORAGE)]);
    agent.until_answers();
    agent.appeared(7, &format!("/libpod_parent/libpod-{ID}"));
    agent.appeared(8, &format!("/machine.slice/libpod-{OTHER}.scope"));
    let metadata = r#"{\"image-name\":\"localhost/web:1\"}"#;
    let list = |id: &str, name: &str| {
        format!(r#"[{{"id":"{id}","names":["{name}"],"metadata":"{metadata}"}}]"#)
    };
    fs::write(folder.join("containers.json"), list(ID, "web")).unwrap();
    agent.until_named(7, "web");
    assert_eq!(agent.container(7).unwrap().image, "localhost/web:1");
    fs::write(folder.join("containers.json"), "{").unwrap();
    agent.until_fails("containers.json");
    fs::write(folder.join("containers.json"), "[]").unwrap();
    fs::write(
        folder.join("volatile-containers.json"),
        list(OTHER, "quick"),
    )
    .unwrap();
    agent.until_named(8, "quick");
}
