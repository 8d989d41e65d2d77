//! Which API server names come from, if any.

use std::{convert::Infallible, path::PathBuf, str::FromStr};

use anyhow::Result;
use ethogram_kubernetes::{Client, connect, connect_in_cluster, is_in_cluster};
use serde::Deserialize;

/// Which API server to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) enum Reach {
    /// The cluster's own, where this runs in a pod with a service account.
    #[default]
    Auto,
    /// The cluster's own, or fail.
    InCluster,
    /// The one that this kubeconfig names.
    Kubeconfig(PathBuf),
    /// None.
    Off,
}

impl From<String> for Reach {
    fn from(text: String) -> Self {
        match &*text {
            "auto" => Self::Auto,
            "in-cluster" => Self::InCluster,
            "off" => Self::Off,
            _ => Self::Kubeconfig(text.into()),
        }
    }
}

impl FromStr for Reach {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.to_owned().into())
    }
}

impl Reach {
    /// A client for the API server; `None` if there is none to watch. Nothing is sent yet.
    pub(crate) async fn client(&self) -> Result<Option<Client>> {
        match self {
            Self::Off => Ok(None),
            Self::Auto if !is_in_cluster() => Ok(None),
            Self::Auto | Self::InCluster => Ok(Some(connect_in_cluster()?)),
            Self::Kubeconfig(file) => Ok(Some(connect(Some(file)).await?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_word_is_a_file() {
        for (text, reach) in [
            ("auto", Reach::Auto),
            ("in-cluster", Reach::InCluster),
            ("off", Reach::Off),
            (
                "/etc/kubeconfig",
                Reach::Kubeconfig("/etc/kubeconfig".into()),
            ),
        ] {
            assert_eq!(text.parse(), Ok(reach));
        }
    }
}
