//! Certificates for a cluster that has none: a certificate authority of its own, one
//! certificate for collectors, one for each agent.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The authority's name; that of its owner in every certificate it signs.
const CA_NAME: &str = "Ethogram CA";
const CA_YEARS: i32 = 10;
const LEAF_YEARS: i32 = 1;

/// The authority's certificate, in the folder; its key beside it is `ca.key`.
pub const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
/// The stem of the collectors' files.
pub const SERVER: &str = "collector";

/// Why no certificates were made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is half of an authority.
    #[error("{0} is missing beside its other half: put it back, or remove both to begin anew")]
    HalfAnAuthority(PathBuf),
    /// A name that is none, or a key that cannot be read.
    #[error("{what}: {source}")]
    Unfit {
        /// Of what.
        what: String,
        /// Why not.
        source: rcgen::Error,
    },
    /// A node's name that cannot be a file's.
    #[error("{0:?} is no node's name: letters, digits, dots, hyphens and underscores are")]
    NodeName(String),
}

/// Makes what is missing in a folder: the authority, the collectors' certificate (for the
/// given names and addresses), and one for each node. Certificates that are there already
/// are made anew, by the same authority, so that running it again renews them. Returns the
/// files written. Keys are readable by their owner only.
///
/// # Errors
/// [`CertsError`]; files written until then stay.
pub fn make(
    directory: &Path,
    server_names: &[String],
    nodes: &[String],
) -> Result<Vec<PathBuf>, CertsError> {
    for node in nodes {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let reserved = ["ca", SERVER].contains(&node.as_str());
        if node.is_empty() || node.starts_with('.') || !node.chars().all(fits) || reserved {
            return Err(CertsError::NodeName(node.clone()));
        }
    }
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| CertsError::Io {
            doing,
            path,
            source,
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(io("create", directory))?;
    let mut folder = Folder {
        directory,
        written: Vec::new(),
    };
    let authority = folder.authority()?;
    folder.leaf(
        &authority,
        SERVER,
        server_names,
        ExtendedKeyUsagePurpose::ServerAuth,
    )?;
    for node in nodes {
        let names = std::slice::from_ref(node);
        folder.leaf(&authority, node, names, ExtendedKeyUsagePurpose::ClientAuth)?;
    }
    Ok(folder.written)
}

struct Folder<'a> {
    directory: &'a Path,
    written: Vec<PathBuf>,
}

impl Folder<'_> {
    fn authority(&mut self) -> Result<Issuer<'static, KeyPair>, CertsError> {
        let certificate = self.directory.join(CA_CERTIFICATE);
        let key_file = self.directory.join(CA_KEY);
        let params = authority_params();
        match (certificate.exists(), key_file.exists()) {
            (true, true) => {
                let pem = fs::read_to_string(&key_file).map_err(|source| CertsError::Io {
                    doing: "read",
                    path: key_file.clone(),
                    source,
                })?;
                let unfit = |source| CertsError::Unfit {
                    what: key_file.display().to_string(),
                    source,
                };
                Ok(Issuer::new(params, KeyPair::from_pem(&pem).map_err(unfit)?))
            }
            (true, false) => Err(CertsError::HalfAnAuthority(key_file)),
            (false, true) => Err(CertsError::HalfAnAuthority(certificate)),
            (false, false) => {
                let unfit = |source| CertsError::Unfit {
                    what: CA_NAME.into(),
                    source,
                };
                let key = KeyPair::generate().map_err(unfit)?;
                let signed = params.self_signed(&key).map_err(unfit)?;
                self.write("ca", &key.serialize_pem(), &signed.pem())?;
                Ok(Issuer::new(params, key))
            }
        }
    }

    fn leaf(
        &mut self,
        authority: &Issuer<'_, KeyPair>,
        stem: &str,
        names: &[String],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<(), CertsError> {
        let unfit = |source| CertsError::Unfit {
            what: format!("the certificate of {stem}"),
            source,
        };
        let mut params = CertificateParams::new(names).map_err(unfit)?;
        params.distinguished_name = named(stem);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(LEAF_YEARS);
        let key = KeyPair::generate().map_err(unfit)?;
        let signed = params.signed_by(&key, authority).map_err(unfit)?;
        self.write(stem, &key.serialize_pem(), &signed.pem())
    }

    /// Writes both under other names first: whoever reads meanwhile reads whole files.
    fn write(&mut self, stem: &str, key: &str, certificate: &str) -> Result<(), CertsError> {
        for (suffix, mode, text) in [("key", 0o600, key), ("crt", 0o644, certificate)] {
            let path = self.directory.join(format!("{stem}.{suffix}"));
            let new = self.directory.join(format!(".{stem}.{suffix}.new"));
            let write = || -> io::Result<()> {
                if new.exists() {
                    fs::remove_file(&new)?;
                }
                let mut file = OpenOptions::new()
                    .create_new(true)
                    .write(true)
                    .mode(mode)
                    .open(&new)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&new, &path)
            };
            write().map_err(|source| CertsError::Io {
                doing: "write",
                path: path.clone(),
                source,
            })?;
            self.written.push(path);
        }
        Ok(())
    }
}

/// The same at every call but for the dates: an authority is its name and its key.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(CA_YEARS);
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// From yesterday, for machines whose clock is behind.
fn validity(years: i32) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = time::OffsetDateTime::now_utc();
    let days = i64::from(years) * 365;
    (
        now - time::Duration::days(1),
        now + time::Duration::days(days),
    )
}
