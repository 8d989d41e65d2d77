//! Reaching a server, with TLS or without.

use crate::listen::certificates;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use std::{io, path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects to a port of a host. With an authority's file by TLS, and only to a server whose
/// certificate it signed for this host.
///
/// # Errors
/// If nobody listens there, or whoever does is somebody else.
pub async fn dial(host: &str, port: u16, ca: Option<&Path>) -> io::Result<Box<dyn Duplex>> {
    // An IPv6 address stands in brackets where a port may follow.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let tls = ca.map(client_config).transpose()?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let Some(config) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Box::new(stream))
}

fn client_config(ca: &Path) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca).map_err(io::Error::other)? {
        let added = roots.add(certificate);
        added.map_err(|error| io::Error::other(format!("{}: {error}", ca.display())))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
