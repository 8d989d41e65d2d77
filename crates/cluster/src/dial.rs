//! Reaching a server, with TLS or without.

use crate::listen::certificates;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{io, path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Whose certificates of servers are believed.
pub struct Authority(Arc<ClientConfig>);

impl Authority {
    /// Those that the authority in a file signed.
    ///
    /// # Errors
    /// If the file cannot be read, or has no certificate in it.
    pub fn of_file(file: &Path) -> io::Result<Self> {
        let certificates = certificates(file).map_err(io::Error::other)?;
        Self::new(certificates, &file.display().to_string())
    }

    /// Those that the authority in a PEM text signed.
    ///
    /// # Errors
    /// If there is no certificate in it; `place` says where it is from.
    pub fn of_pem(pem: &[u8], place: &str) -> io::Result<Self> {
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        match certificates {
            Ok(some) if !some.is_empty() => Self::new(some, place),
            Ok(_) => Err(wrong(place, "no certificate in it")),
            Err(error) => Err(wrong(place, error)),
        }
    }

    fn new(certificates: Vec<CertificateDer<'static>>, place: &str) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| wrong(place, error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

fn wrong(place: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{place}: {error}"))
}

/// Connects to a port of a host. With an authority by TLS, and only to a server whose
/// certificate it signed for this host.
///
/// # Errors
/// If nobody listens there, or whoever does is somebody else.
pub async fn dial(host: &str, port: u16, ca: Option<&Authority>) -> io::Result<Box<dyn Duplex>> {
    // An IPv6 address stands in brackets where a port may follow.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    match ca {
        Some(ca) => secure(stream, host, ca).await,
        None => Ok(Box::new(stream)),
    }
}

/// Speaks TLS on a connection, if who is at its other end is this host.
///
/// # Errors
/// If it is somebody else, or speaks no TLS.
pub async fn secure(
    stream: impl Duplex + 'static,
    host: &str,
    ca: &Authority,
) -> io::Result<Box<dyn Duplex>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::clone(&ca.0)).connect(name, stream);
    Ok(Box::new(stream.await?))
}
