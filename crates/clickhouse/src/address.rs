//! Where the server is: `clickhouse://user:password@host:port/database?cluster=NAME`.

use std::{fmt, str::FromStr, time::Duration};

/// ClickHouse's port for HTTP.
const PORT_DEFAULT: u16 = 8123;

/// The database that is used if none is named.
const DATABASE_DEFAULT: &str = "ethogram";

/// Batches begin at least this far apart, so that a collector makes a few parts a second
/// and merging keeps up. A lone report does not wait.
const BATCH_INTERVAL_MS_DEFAULT: u64 = 500;

/// The address of a store in ClickHouse.
///
/// `clickhouse://user:password@host:port/database?cluster=NAME&batch_ms=500`; all but the
/// host may be left out. User and password may be percent-encoded. With `cluster`, tables
/// are replicated and sharded over that cluster of the servers' configuration. Displayed
/// without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    user: String,
    password: String,
    database: String,
    cluster: Option<String>,
    batch_interval: Duration,
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme, or none.
    #[error("the address of a ClickHouse store begins with clickhouse://")]
    Scheme,
    /// No host.
    #[error("the address has no host: write clickhouse://host:8123/database")]
    Host,
    /// A port that is none.
    #[error("{0:?} is no port: ClickHouse's HTTP port is {PORT_DEFAULT} where not changed")]
    Port(String),
    /// A `%` that is not followed by two hexadecimal digits, or not UTF-8.
    #[error("user or password has a % that encodes nothing: write % as %25, @ as %40, / as %2F")]
    Escape,
    /// A database or cluster name that would have to be quoted.
    #[error("{0:?} cannot name a database or cluster: use letters, digits, _ and -")]
    Name(String),
    /// A parameter or a value of one that is not known.
    #[error("{0:?} is not understood: there are cluster=NAME, batch_ms=MILLISECONDS and secure=0")]
    Parameter(String),
    /// Encryption was asked for.
    #[error(
        "this version speaks plain HTTP to ClickHouse: reach the server over a trusted network or a local TLS tunnel, and leave secure=1 out"
    )]
    Secure,
}

impl Address {
    /// The URL for requests.
    pub(crate) fn http_url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// The database all tables are in.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The cluster over which tables are sharded and replicated.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    pub(crate) fn batch_interval(&self) -> Duration {
        self.batch_interval
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "clickhouse://{}:{}/{}",
            self.host, self.port, self.database
        )
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text
            .strip_prefix("clickhouse://")
            .ok_or(AddressError::Scheme)?;
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (host, port) = host_and_port(place)?;
        let user = match user {
            "" => "default".into(),
            user => decoded(user)?,
        };
        let database = match database {
            "" => DATABASE_DEFAULT,
            database => name(database)?,
        };
        let mut address = Self {
            host: host.into(),
            port,
            user,
            password: decoded(password)?,
            database: database.into(),
            cluster: None,
            batch_interval: Duration::from_millis(BATCH_INTERVAL_MS_DEFAULT),
        };
        for parameter in parameters.split('&').filter(|p| !p.is_empty()) {
            address.set(parameter)?;
        }
        Ok(address)
    }
}

impl Address {
    fn set(&mut self, parameter: &str) -> Result<(), AddressError> {
        let unknown = || AddressError::Parameter(parameter.into());
        match parameter.split_once('=').ok_or_else(unknown)? {
            ("cluster", cluster) => self.cluster = Some(name(cluster)?.into()),
            ("batch_ms", ms) => {
                self.batch_interval = Duration::from_millis(ms.parse().map_err(|_| unknown())?);
            }
            ("secure", "0") => {}
            ("secure", "1") => return Err(AddressError::Secure),
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

fn host_and_port(place: &str) -> Result<(&str, u16), AddressError> {
    // An IPv6 address keeps its brackets, which the URL needs too.
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    if host.is_empty() {
        return Err(AddressError::Host);
    }
    let port = match port {
        None => PORT_DEFAULT,
        Some(port) => port.parse().map_err(|_| AddressError::Port(port.into()))?,
    };
    Ok((host, port))
}

fn name(text: &str) -> Result<&str, AddressError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err(AddressError::Name(text.into()));
    }
    Ok(text)
}

fn decoded(text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2).ok_or(AddressError::Escape)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(AddressError::Escape);
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| AddressError::Escape)?);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| AddressError::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, String, String, Option<String>, u128), AddressError> {
        text.parse::<Address>().map(|a| {
            (
                a.to_string(),
                a.user,
                a.password,
                a.cluster,
                a.batch_interval.as_millis(),
            )
        })
    }

    #[test]
    fn addresses_are_understood() {
        for (text, shown, user, password, cluster, batch_ms) in [
            (
                "clickhouse://h",
                "clickhouse://h:8123/ethogram",
                "default",
                "",
                None,
                500,
            ),
            (
                "clickhouse://h:9/",
                "clickhouse://h:9/ethogram",
                "default",
                "",
                None,
                500,
            ),
            (
                "clickhouse://u:p%40%2f:x@[::1]:8124/db-1?cluster=two_x&secure=0&batch_ms=0",
                "clickhouse://[::1]:8124/db-1",
                "u",
                "p@/:x",
                Some("two_x"),
                0,
            ),
            (
                "clickhouse://[::1]/d",
                "clickhouse://[::1]:8123/d",
                "default",
                "",
                None,
                500,
            ),
        ] {
            let wanted = (
                shown.into(),
                user.into(),
                password.into(),
                cluster.map(str::to_owned),
                batch_ms,
            );
            assert_eq!(parsed(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_why() {
        for (text, error) in [
            ("http://h", AddressError::Scheme),
            ("clickhouse://", AddressError::Host),
            ("clickhouse://u@:1/", AddressError::Host),
            ("clickhouse://h:http", AddressError::Port("http".into())),
            ("clickhouse://u%4@h", AddressError::Escape),
            ("clickhouse://u%+1@h", AddressError::Escape),
            ("clickhouse://u%ff@h", AddressError::Escape),
            ("clickhouse://h/a.b", AddressError::Name("a.b".into())),
            (
                "clickhouse://h/a?cluster='x",
                AddressError::Name("'x".into()),
            ),
            (
                "clickhouse://h/a?cluster=",
                AddressError::Name(String::new()),
            ),
            (
                "clickhouse://h/a?x=1",
                AddressError::Parameter("x=1".into()),
            ),
            (
                "clickhouse://h/a?batch_ms=-1",
                AddressError::Parameter("batch_ms=-1".into()),
            ),
            ("clickhouse://h/a?secure=1", AddressError::Secure),
        ] {
            assert_eq!(parsed(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let address: Address = "clickhouse://u:secret@h/d".parse().unwrap();
        assert!(!format!("{address} {address:?}").contains("secret"));
    }
}
