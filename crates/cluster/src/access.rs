//! Who may do what: tokens with roles, and agents' certificates.

use crate::reload::Reloading;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use std::{fmt, path::Path};
use subtle::ConstantTimeEq;

/// The shortest token that is taken: 128 bits of randomness in hexadecimal.
const TOKEN_CHARACTERS_MIN: usize = 32;

/// The node of a token that may report for every node.
const ANY_NODE: &str = "*";

/// What a caller is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reports for its node, and reads nothing.
    Agent,
    /// Reads summaries: all, or those of its namespaces.
    Viewer,
    /// Reads everything, the state of agents included.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        })
    }
}

/// Somebody who has proven who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's name, or the certificate's, for people.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// An agent's nodes.
    nodes: Vec<String>,
    /// A viewer's namespaces; `None` for all.
    pub namespaces: Option<Vec<String>>,
}

impl Caller {
    /// Whether it may report for a node.
    #[must_use]
    pub fn reports_for(&self, node: &str) -> bool {
        self.role == Role::Agent && self.nodes.iter().any(|own| own == ANY_NODE || own == node)
    }

    /// Whether it may read what containers of a namespace did; `None` stands for all.
    #[must_use]
    pub fn reads(&self, namespace: Option<&str>) -> bool {
        match (&self.namespaces, namespace) {
            _ if self.role == Role::Agent => false,
            (None, _) => true,
            (Some(own), Some(namespace)) => own.iter().any(|own| own == namespace),
            (Some(_), None) => false,
        }
    }

    /// Anybody, where nobody has to prove anything.
    fn anybody(role: Role) -> Self {
        Self {
            name: "anybody".into(),
            role,
            nodes: vec![ANY_NODE.into()],
            namespaces: None,
        }
    }
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Neither token nor certificate.
    #[error(
        "no token and no certificate: send `authorization: Bearer TOKEN`, or a client certificate"
    )]
    Missing,
    /// A token that is not in the list.
    #[error("an unknown token: it may have been replaced or revoked")]
    UnknownToken,
    /// A certificate that names nobody.
    #[error("the certificate names no node: make one with `ethogram certs --node NAME`")]
    NamelessCertificate,
}

/// The tokens file: `[[token]]` tables.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    #[serde(default)]
    token: Vec<Token>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    /// Whose it is, for the audit log.
    name: String,
    secret: String,
    role: Role,
    /// Agents only: the node, or `*`.
    node: Option<String>,
    /// Viewers only.
    namespaces: Option<Vec<String>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token of {}", self.name)
    }
}

impl Token {
    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if self.secret.len() < TOKEN_CHARACTERS_MIN {
            return Err(format!(
                "the secret of {name:?} has fewer than {TOKEN_CHARACTERS_MIN} characters: take `openssl rand -hex 32`"
            ));
        }
        match (self.role, &self.node, &self.namespaces) {
            (Role::Agent, None, _) => Err(format!(
                "the agent's token {name:?} has no node: add `node = \"NAME\"`, or `node = \"*\"` to trust it for all"
            )),
            (Role::Viewer | Role::Admin, Some(_), _) => {
                Err(format!("{name:?} is no agent's token and can have no node"))
            }
            (Role::Agent | Role::Admin, _, Some(_)) => Err(format!(
                "{name:?} is no viewer's token and can have no namespaces"
            )),
            _ => Ok(()),
        }
    }

    fn caller(&self) -> Caller {
        Caller {
            name: self.name.clone(),
            role: self.role,
            nodes: self.node.iter().cloned().collect(),
            namespaces: self.namespaces.clone(),
        }
    }
}

/// Who is let in.
pub struct Access {
    tokens: Option<Reloading<Vec<Token>>>,
    certificates: bool,
}

impl Access {
    /// Lets in bearers of the tokens in a file, if there is one, and, if `certificates`,
    /// agents whose certificate the TLS layer has verified. With neither, everybody.
    ///
    /// # Errors
    /// If the file cannot be read or understood; the text says where and why.
    pub fn new(tokens: Option<&Path>, certificates: bool) -> Result<Self, String> {
        let read = |file: &Path| -> Result<Vec<Token>, String> {
            let told = |error: &dyn fmt::Display| format!("{}: {error}", file.display());
            let text = std::fs::read_to_string(file).map_err(|error| told(&error))?;
            // The parser's own message would print the secret of the line.
            let parsed: TokensFile =
                toml::from_str(&text).map_err(|error| told(&error.message()))?;
            for token in &parsed.token {
                token.check().map_err(|error| told(&error))?;
            }
            Ok(parsed.token)
        };
        let reloading = |file: &Path| {
            let path = file.to_owned();
            Reloading::new(vec![path.clone()], move || read(&path))
        };
        Ok(Self {
            tokens: tokens.map(reloading).transpose()?,
            certificates,
        })
    }

    /// Whether everybody is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.tokens.is_none() && !self.certificates
    }

    /// Who somebody is who shows this header and these certificates. Whoever shows nothing
    /// where nothing is needed is anybody in the role it asks for.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn identify(
        &self,
        authorization: Option<&str>,
        certificates: &[CertificateDer<'_>],
        wanted: Role,
    ) -> Result<Caller, Denied> {
        if self.is_open() {
            return Ok(Caller::anybody(wanted));
        }
        if let (Some(header), Some(tokens)) = (authorization, &self.tokens) {
            return find(&tokens.current(), header).ok_or(Denied::UnknownToken);
        }
        match certificates.first() {
            Some(certificate) if self.certificates => node_of(certificate),
            _ => Err(Denied::Missing),
        }
    }
}

/// Looks at all tokens, however early one fits, so that time tells nothing about them.
fn find(tokens: &[Token], header: &str) -> Option<Caller> {
    let (scheme, secret) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut found = None;
    for token in tokens {
        if bool::from(token.secret.as_bytes().ct_eq(secret.trim().as_bytes())) {
            found = Some(token.caller());
        }
    }
    found
}

/// The names in a certificate that the TLS layer has verified, as an agent.
fn node_of(certificate: &CertificateDer<'_>) -> Result<Caller, Denied> {
    let certificate =
        webpki::EndEntityCert::try_from(certificate).map_err(|_| Denied::NamelessCertificate)?;
    // A wildcard is for servers; it must not stand for all nodes.
    let nodes: Vec<String> = certificate
        .valid_dns_names()
        .filter(|name| !name.contains('*'))
        .map(str::to_owned)
        .collect();
    let name = nodes.first().ok_or(Denied::NamelessCertificate)?;
    Ok(Caller {
        name: name.clone(),
        role: Role::Agent,
        nodes,
        namespaces: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: [&str; 4] = [
        "11111111111111111111111111111111",
        "22222222222222222222222222222222",
        "33333333333333333333333333333333",
        "44444444444444444444444444444444",
    ];

    fn access(text: &str) -> Result<Access, String> {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("tokens.toml");
        std::fs::write(&file, text).unwrap();
        Access::new(Some(&file), false)
    }

    fn token(rest: &str) -> String {
        format!(
            "[[token]]\nname = \"n\"\nsecret = \"{}\"\n{rest}",
            SECRETS[0]
        )
    }

    #[test]
    fn each_role_may_do_its_own() {
        let [a, b, c, d] = SECRETS;
        let access = access(&format!(
            "[[token]]\nname = \"a\"\nsecret = \"{a}\"\nrole = \"agent\"\nnode = \"n1\"\n\
             [[token]]\nname = \"b\"\nsecret = \"{b}\"\nrole = \"viewer\"\nnamespaces = [\"shop\"]\n\
             [[token]]\nname = \"c\"\nsecret = \"{c}\"\nrole = \"admin\"\n\
             [[token]]\nname = \"d\"\nsecret = \"{d}\"\nrole = \"agent\"\nnode = \"*\"\n"
        ))
        .unwrap();
        let caller = |secret: &str| {
            access
                .identify(Some(&format!("Bearer {secret}")), &[], Role::Viewer)
                .unwrap()
        };
        let may = |secret| {
            let caller = caller(secret);
            (
                caller.reports_for("n1"),
                caller.reports_for("n2"),
                caller.reads(Some("shop")),
                caller.reads(Some("bank")),
                caller.reads(None),
            )
        };
        assert_eq!(may(a), (true, false, false, false, false));
        assert_eq!(may(b), (false, false, true, false, false));
        assert_eq!(may(c), (false, false, true, true, true));
        assert_eq!(may(d), (true, true, false, false, false));
    }

    #[test]
    fn whoever_proves_nothing_is_denied() {
        let access = access(&token("role = \"admin\"")).unwrap();
        let ask = |header| access.identify(header, &[], Role::Admin).unwrap_err();
        assert_eq!(ask(None), Denied::Missing);
        for header in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 1111",
            "Basic 11111111111111111111111111111111",
        ] {
            assert_eq!(ask(Some(header)), Denied::UnknownToken, "{header:?}");
        }
        // No tokens at all let nobody in either.
        let empty = super::tests::access("").unwrap();
        assert_eq!(
            empty.identify(None, &[], Role::Admin).unwrap_err(),
            Denied::Missing
        );
    }

    #[test]
    fn a_wrong_file_is_refused_without_telling_secrets() {
        for (rest, word) in [
            ("role = \"agent\"", "no node"),
            ("role = \"admin\"\nnode = \"x\"", "no agent's"),
            ("role = \"admin\"\nnamespaces = []", "no viewer's"),
            ("role = \"king\"", "king"),
            ("role = \"admin\"\nrole = \"admin\"", "duplicate"),
        ] {
            let error = access(&token(rest)).err().unwrap();
            assert!(
                error.contains(word) && !error.contains(SECRETS[0]),
                "{error}"
            );
        }
        let short = "[[token]]\nname = \"n\"\nsecret = \"short\"\nrole = \"admin\"";
        assert!(access(short).err().unwrap().contains("fewer"));
    }
}
