//! A collector in a cluster, reached through the cluster's API server: by the kubeconfig that
//! `kubectl` uses, without an address, a certificate or a token of its own.

use std::{fmt, path::PathBuf, str::FromStr};

use anyhow::{Context, Result};
use ethogram_cluster::dial::{Authority, Duplex, secure};
use ethogram_kubernetes::{ServicePort, connect_as_user, forward, secret};

use super::{Reached, read_token};
use crate::args::SourceArgs;

/// The collector's service, as `deploy/kubernetes` names it.
const DEFAULT_SERVICE: &str = "ethogram/ethogram-collector";
/// The service's port for questions.
const PORT: &str = "api";
/// The secret with what a reader needs, beside the service; `deploy/kubernetes/README.md`.
const READER_SECRET: &str = "ethogram-reader";
/// In it, the authority that signed the collector's certificate.
const SECRET_CA: &str = "ca.crt";
/// In it, a viewer's token.
const SECRET_TOKEN: &str = "token";
/// What to try where it hangs up on somebody who knows no authority for it.
pub(super) const WITHOUT_TLS: &str = ": it was asked without TLS; if it has a certificate, give \
    --ca FILE, or keep ca.crt in the secret ethogram-reader beside it";

/// A collector's service, NAMESPACE/NAME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceName {
    namespace: String,
    name: String,
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // What Kubernetes allows in names, so that no path is made of it.
        let is_name = |name: &str| {
            let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !name.is_empty() && name.bytes().all(is_allowed)
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(format!("write NAMESPACE/NAME, such as {DEFAULT_SERVICE}")),
        }
    }
}

/// How to find it, and what to show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardedCollector {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    service: ServiceName,
    ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

impl fmt::Display for ForwardedCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServiceName { namespace, name } = &self.service;
        write!(f, "the collector svc/{name} in the namespace {namespace}")
    }
}

impl ForwardedCollector {
    /// What the options say of it.
    pub(crate) fn new(args: &SourceArgs) -> Self {
        let service = args.service.clone().unwrap_or_else(|| {
            let parsed = DEFAULT_SERVICE.parse();
            parsed.expect("the constant is a service's name")
        });
        Self {
            kubeconfig: args.kubeconfig.clone(),
            context: args.context.clone(),
            service,
            ca: args.ca.clone(),
            token_file: args.token_file.clone(),
        }
    }

    pub(super) async fn reach(&self) -> Result<Reached> {
        let ServiceName { namespace, name } = &self.service;
        let client = connect_as_user(self.kubeconfig.as_deref(), self.context.as_deref()).await?;
        let to = ServicePort {
            namespace: namespace.clone(),
            service: name.clone(),
            port: PORT.to_owned(),
        };
        let stream = forward(&client, &to).await?;
        let mut kept = match (&self.ca, &self.token_file) {
            (Some(_), Some(_)) => Default::default(),
            _ => secret(&client, namespace, READER_SECRET).await?,
        };
        let ca = match &self.ca {
            Some(file) => Some(Authority::of_file(file)?),
            None => authority(kept.get(SECRET_CA).map(Vec::as_slice))?,
        };
        let token = match &self.token_file {
            Some(file) => Some(read_token(file)?),
            None => kept.remove(SECRET_TOKEN).map(text).transpose()?,
        };
        let stream: Box<dyn Duplex> = match &ca {
            Some(ca) => secure(stream, &format!("{name}.{namespace}.svc"), ca).await?,
            // The API server has proven who it is, and passes it on.
            None => Box::new(stream),
        };
        Ok(Reached {
            stream,
            // Within the pod the connection comes from there.
            host: "localhost".to_owned(),
            token,
            is_secure: ca.is_some(),
        })
    }
}

fn authority(pem: Option<&[u8]>) -> Result<Option<Authority>> {
    let place = format!("{SECRET_CA} in the secret {READER_SECRET}");
    Ok(pem.map(|pem| Authority::of_pem(pem, &place)).transpose()?)
}

fn text(bytes: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(bytes).ok();
    text.with_context(|| format!("{SECRET_TOKEN} in the secret {READER_SECRET} is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_named_with_their_namespace() {
        let parsed = DEFAULT_SERVICE.parse::<ServiceName>().unwrap();
        assert_eq!(
            (&*parsed.namespace, &*parsed.name),
            ("ethogram", "ethogram-collector")
        );
        for text in ["", "a", "/a", "a/", "a/b/c", "a/..", "A/b"] {
            let error = text.parse::<ServiceName>().unwrap_err();
            assert!(error.contains("NAMESPACE/NAME"), "{text}");
        }
    }
}
