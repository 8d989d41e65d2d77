//! Clients for an API server: of a pod, of a kubeconfig, of a user.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use std::path::Path;

/// Where the kubelet puts a service account's token.
const SERVICE_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Names a user's kubeconfigs.
const KUBECONFIG: &str = "KUBECONFIG";
/// Where a user's kubeconfig is, below the home directory.
const HOME_KUBECONFIG: &str = ".kube/config";

/// Why no client for the API server can be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a service account nor a kubeconfig says where it is.
    #[error("no API server to ask: {0}; run in a pod with a service account, or name a kubeconfig")]
    NowhereToAsk(#[source] Box<kube::config::InferConfigError>),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {path} cannot be used: {why}")]
    Kubeconfig {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: Box<KubeconfigError>,
    },
    /// The pod's service account cannot be used.
    #[error("the service account cannot be used: {0}; run in a pod that has one mounted")]
    ServiceAccount(#[source] Box<kube::config::InClusterError>),
    /// Certificates or the address are wrong.
    #[error("no client for the API server {url}: {why}")]
    Client {
        /// Its address.
        url: String,
        /// What is wrong.
        why: Box<kube::Error>,
    },
}

/// A client by a kubeconfig, or, without one, by the pod's service account or the user's
/// kubeconfig. Nothing is sent yet.
///
/// # Errors
/// If none of them is there and right.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let config = match kubeconfig {
        Some(path) => from_file(path)
            .await
            .map_err(|why| ConnectError::Kubeconfig {
                path: path.display().to_string(),
                why: Box::new(why),
            })?,
        None => Config::infer()
            .await
            .map_err(|why| ConnectError::NowhereToAsk(Box::new(why)))?,
    };
    client(config)
}

/// Whether this runs in a pod that may have a service account.
#[must_use]
pub fn is_in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(SERVICE_TOKEN).exists()
}

/// A client by the pod's service account, whatever kubeconfig there is. Nothing is sent yet.
///
/// # Errors
/// If this is no pod with a service account.
pub fn connect_in_cluster() -> Result<Client, ConnectError> {
    client(Config::incluster().map_err(|why| ConnectError::ServiceAccount(Box::new(why)))?)
}

fn client(config: Config) -> Result<Client, ConnectError> {
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|why| ConnectError::Client {
        url,
        why: Box::new(why),
    })
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    let file = Kubeconfig::read_from(path)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await
}

/// Whether a user's kubeconfig is where `kubectl` looks for it.
#[must_use]
pub fn has_kubeconfig() -> bool {
    match std::env::var_os(KUBECONFIG) {
        Some(files) if !files.is_empty() => true,
        _ => std::env::home_dir().is_some_and(|home| home.join(HOME_KUBECONFIG).exists()),
    }
}

/// A client as `kubectl` would make one: by this kubeconfig or the user's, by this context
/// of it or the current one. Nothing is sent yet.
///
/// # Errors
/// If there is none, or it is not right.
pub async fn connect_as_user(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Client, ConnectError> {
    let read = || match kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let config = match read() {
        Ok(file) => Config::from_custom_kubeconfig(file, &options).await,
        Err(why) => Err(why),
    };
    let path = kubeconfig.map_or_else(|| "of this user".into(), |path| path.display().to_string());
    client(config.map_err(|why| ConnectError::Kubeconfig {
        path,
        why: Box::new(why),
    })?)
}
