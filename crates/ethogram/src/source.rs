//! Where what was seen is read from: a running agent or collector, or a store's file.

use std::{io, os::unix::net::UnixStream, path::Path};

use anyhow::{Context, Result, bail};
use ethogram_model::Selection;
use ethogram_store::SqliteStore;
use ethogram_view::Document;

use crate::{
    args::SourceArgs,
    client::{self, Collector, Server},
    clock::now,
    config,
    inventory::Inventory,
    present,
    question::Question,
};

/// Something that answers questions.
pub(crate) enum Source {
    /// An agent or a collector.
    Server(Server),
    /// A file, read as it stands.
    Store(Box<SqliteStore>),
}

impl Source {
    /// What the options name; else the agent, or else what an agent left behind.
    pub(crate) fn choose(args: &SourceArgs) -> Result<Self> {
        match (&args.db, &args.server, &args.socket) {
            (Some(file), _, _) => Self::store(file),
            (None, Some(_), Some(_)) => {
                bail!("a collector (--server) and an agent (--socket) cannot both be asked")
            }
            (None, Some(url), None) => {
                Ok(Self::Server(Server::Collector(Collector::new(url, args)?)))
            }
            (None, None, Some(socket)) => match probe(socket) {
                Agent::Answers => Ok(Self::agent(socket)),
                Agent::Absent(why) => bail!(no_agent(socket, &why)),
            },
            (None, None, None) => Self::default_of(
                Path::new(config::SOCKET),
                &Path::new(config::DATA_DIR).join(config::STORE_FILE),
            ),
        }
    }

    fn default_of(socket: &Path, file: &Path) -> Result<Self> {
        let why = match probe(socket) {
            Agent::Answers => return Ok(Self::agent(socket)),
            Agent::Absent(why) => why,
        };
        if why.kind() == io::ErrorKind::PermissionDenied || !file.exists() {
            bail!(no_agent(socket, &why));
        }
        let store = Self::store(file)?;
        eprintln!(
            "ethogram: no agent answers at {}; this is what is kept in {}",
            socket.display(),
            file.display()
        );
        Ok(store)
    }

    fn agent(socket: &Path) -> Self {
        Self::Server(Server::Agent(socket.to_owned()))
    }

    fn store(file: &Path) -> Result<Self> {
        Ok(Self::Store(Box::new(SqliteStore::open_read_only(file)?)))
    }

    /// A summary.
    pub(crate) fn summary(&self, question: &Question) -> Result<Document> {
        match self {
            Self::Store(store) => present::document(store.as_ref(), question),
            Self::Server(server) => {
                let json = client::get(server, &path("/v1/summary", question))?;
                Document::from_json(&json).with_context(|| foreign_answer(server))
            }
        }
    }

    /// The containers that are known, of one namespace or of all.
    pub(crate) fn containers(&self, namespace: Option<&str>) -> Result<Inventory> {
        let selection = Selection {
            namespace: namespace.map(str::to_owned),
            ..Selection::default()
        };
        match self {
            Self::Store(store) => Inventory::of(store.as_ref(), &selection, now()),
            Self::Server(server) => {
                let question = Question {
                    selection,
                    ..Question::default()
                };
                let json = client::get(server, &path("/v1/containers", &question))?;
                Inventory::from_json(&json).with_context(|| foreign_answer(server))
            }
        }
    }
}

fn path(endpoint: &str, question: &Question) -> String {
    let query = question.to_query();
    if query.is_empty() {
        endpoint.to_owned()
    } else {
        format!("{endpoint}?{query}")
    }
}

fn foreign_answer(server: &Server) -> String {
    format!("cannot understand what {server} answers")
}

/// Whether somebody listens at a socket.
pub(crate) enum Agent {
    Answers,
    Absent(io::Error),
}

/// Connects and hangs up.
pub(crate) fn probe(socket: &Path) -> Agent {
    match UnixStream::connect(socket) {
        Ok(_) => Agent::Answers,
        Err(why) => Agent::Absent(why),
    }
}

fn no_agent(socket: &Path, why: &io::Error) -> String {
    let remedy = if why.kind() == io::ErrorKind::PermissionDenied {
        "become root, or a member of the group that the socket belongs to"
    } else {
        "start one with `ethogram agent`, read a recording with --db FILE, or watch one command with `ethogram record -- COMMAND`"
    };
    format!("no agent answers at {} ({why}): {remedy}", socket.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_an_agent_left_behind_is_read_when_none_answers() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, file) = (folder.path().join("sock"), folder.path().join("db"));
        let error = Source::default_of(&socket, &file)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("ethogram agent"), "{error}");
        drop(SqliteStore::open(&file).unwrap());
        assert!(matches!(
            Source::default_of(&socket, &file),
            Ok(Source::Store(_))
        ));
        let listener = UnixListener::bind(&socket).unwrap();
        let source = Source::default_of(&socket, &file);
        assert!(matches!(source, Ok(Source::Server(Server::Agent(asked))) if asked == socket));
        drop(listener);
        let source = Source::default_of(&socket, &file);
        assert!(
            matches!(source, Ok(Source::Store(_))),
            "a socket nobody listens at"
        );
    }

    #[test]
    fn a_query_follows_its_path() {
        let mut question = Question::default();
        assert_eq!(path("/v1/summary", &question), "/v1/summary");
        question.selection.namespace = Some("a b".to_owned());
        assert_eq!(path("/v1/summary", &question), "/v1/summary?namespace=a+b");
    }
}
