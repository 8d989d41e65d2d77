//! Where what was seen is read from: a running agent or collector, or a store's file.

use std::{io, os::unix::net::UnixStream, path::Path};

use anyhow::{Context, Result, bail};
use ethogram_kubernetes::has_kubeconfig;
use ethogram_model::Selection;
use ethogram_store::SqliteStore;
use ethogram_view::Document;

use crate::{
    args::SourceArgs,
    client::{self, Collector, ForwardedCollector, Server},
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
    /// What the options name; else the agent, or else what an agent left behind, or else the
    /// collector of the user's cluster.
    pub(crate) fn choose(args: &SourceArgs) -> Result<Self> {
        let by_kubeconfig =
            args.kubeconfig.is_some() || args.context.is_some() || args.service.is_some();
        match (&args.db, &args.server, &args.socket) {
            (Some(file), _, _) => Self::store(file),
            (None, Some(_), Some(_)) => {
                bail!("a collector (--server) and an agent (--socket) cannot both be asked")
            }
            (None, Some(_), None) if by_kubeconfig => bail!(
                "a collector is asked at its address (--server) or through an API server \
                 (--kubeconfig, --context, --service), not both"
            ),
            (None, None, Some(_)) if by_kubeconfig => bail!(
                "a collector (--kubeconfig, --context, --service) and an agent (--socket) cannot \
                 both be asked"
            ),
            (None, Some(url), None) => {
                Ok(Self::Server(Server::Collector(Collector::new(url, args)?)))
            }
            (None, None, Some(socket)) => match probe(socket) {
                Agent::Answers => Ok(Self::agent(socket)),
                Agent::Absent(why) => bail!(no_agent(socket, &why)),
            },
            (None, None, None) if by_kubeconfig => Ok(Self::Server(Server::Forwarded(
                ForwardedCollector::new(args),
            ))),
            (None, None, None) => Self::default_of(
                Path::new(config::SOCKET),
                &Path::new(config::DATA_DIR).join(config::STORE_FILE),
                has_kubeconfig().then(|| ForwardedCollector::new(args)),
            ),
        }
    }

    fn default_of(socket: &Path, file: &Path, cluster: Option<ForwardedCollector>) -> Result<Self> {
        let why = match probe(socket) {
            Agent::Answers => return Ok(Self::agent(socket)),
            Agent::Absent(why) => why,
        };
        let nobody = format!("no agent answers at {}", socket.display());
        match cluster {
            _ if why.kind() == io::ErrorKind::PermissionDenied => bail!(no_agent(socket, &why)),
            _ if file.exists() => {
                let store = Self::store(file)?;
                eprintln!(
                    "ethogram: {nobody}; this is what is kept in {}",
                    file.display()
                );
                Ok(store)
            }
            Some(collector) => {
                eprintln!("ethogram: {nobody}; asking {collector}");
                Ok(Self::Server(Server::Forwarded(collector)))
            }
            None => bail!(no_agent(socket, &why)),
        }
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
        "start one with `ethogram agent`, ask a collector with --server or --kubeconfig, read a \
         recording with --db FILE, or watch one command with `ethogram record -- COMMAND`"
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
        let error = Source::default_of(&socket, &file, None)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("ethogram agent"), "{error}");
        drop(SqliteStore::open(&file).unwrap());
        assert!(matches!(
            Source::default_of(&socket, &file, None),
            Ok(Source::Store(_))
        ));
        let listener = UnixListener::bind(&socket).unwrap();
        let source = Source::default_of(&socket, &file, None);
        assert!(matches!(source, Ok(Source::Server(Server::Agent(asked))) if asked == socket));
        drop(listener);
        let source = Source::default_of(&socket, &file, None);
        assert!(
            matches!(source, Ok(Source::Store(_))),
            "a socket nobody listens at"
        );
    }

    #[test]
    fn a_cluster_is_asked_where_nothing_else_is() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            from: SourceArgs,
        }
        let args = |options: &[&str]| {
            let line = std::iter::once(&"ethogram").chain(options);
            <Line as clap::Parser>::parse_from(line).from
        };
        let folder = tempfile::tempdir().unwrap();
        let (socket, file) = (folder.path().join("sock"), folder.path().join("db"));
        let cluster = ForwardedCollector::new(&args(&[]));
        let choose = || Source::default_of(&socket, &file, Some(cluster.clone()));
        assert!(matches!(
            choose(),
            Ok(Source::Server(Server::Forwarded(asked))) if asked == cluster
        ));
        drop(SqliteStore::open(&file).unwrap());
        assert!(matches!(choose(), Ok(Source::Store(_))));
        for options in [
            &["--context", "c"][..],
            &["--kubeconfig", "/k"],
            &["--service", "a/b"],
        ] {
            let asked = Source::choose(&args(options));
            assert!(matches!(asked, Ok(Source::Server(Server::Forwarded(_)))));
            for other in [["--server", "http://localhost:1"], ["--socket", "/s"]] {
                let both = Source::choose(&args(&[options, &other].concat()));
                let error = both.err().unwrap().to_string();
                assert!(error.contains("both"), "{error}");
            }
        }
    }

    #[test]
    fn a_query_follows_its_path() {
        let mut question = Question::default();
        assert_eq!(path("/v1/summary", &question), "/v1/summary");
        question.selection.namespace = Some("a b".to_owned());
        assert_eq!(path("/v1/summary", &question), "/v1/summary?namespace=a+b");
    }
}
