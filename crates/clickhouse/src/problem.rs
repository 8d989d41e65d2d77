//! What goes wrong with a server, before it is said for which one.

use ethogram_store::StoreError;
use std::path::PathBuf;

/// Something went wrong. Cloned for every report of a batch that failed.
#[derive(Clone, Debug)]
pub(crate) enum Problem {
    /// No answer, or none in time.
    Unreachable(String),
    /// The server has no room.
    DiskFull,
    /// The server answered with an error.
    Refused(Refusal),
    /// Data that this program did not write, or that was damaged.
    Damaged(String),
    /// The tables are those of a newer version.
    NewerSchema { found: u32 },
}

/// What the server said, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}: {}", advice(*.code))]
pub(crate) struct Refusal {
    /// ClickHouse's number of the error; 0 if it gave none.
    pub(crate) code: u32,
    text: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Text(String);

/// The numbers are those of ClickHouse's `ErrorCodes.cpp`.
pub(crate) mod code {
    pub(crate) const LOGICAL_ERROR: u32 = 49;
    pub(crate) const UNKNOWN_TABLE: u32 = 60;
    pub(crate) const UNKNOWN_DATABASE: u32 = 81;
    pub(super) const TIMEOUT_EXCEEDED: u32 = 159;
    pub(super) const UNKNOWN_USER: u32 = 192;
    pub(super) const WRONG_PASSWORD: u32 = 193;
    pub(super) const SOCKET_TIMEOUT: u32 = 209;
    pub(super) const NETWORK_ERROR: u32 = 210;
    pub(super) const NO_ZOOKEEPER: u32 = 225;
    pub(super) const MEMORY_LIMIT_EXCEEDED: u32 = 241;
    pub(super) const TABLE_IS_READ_ONLY: u32 = 242;
    pub(super) const NOT_ENOUGH_SPACE: u32 = 243;
    pub(super) const TOO_MANY_PARTS: u32 = 252;
    pub(super) const ALL_CONNECTION_TRIES_FAILED: u32 = 279;
    pub(super) const ACCESS_DENIED: u32 = 497;
    pub(super) const AUTHENTICATION_FAILED: u32 = 516;
    pub(super) const KEEPER_EXCEPTION: u32 = 999;
}

fn advice(number: u32) -> &'static str {
    match number {
        code::UNKNOWN_TABLE | code::UNKNOWN_DATABASE => {
            "the tables are gone; restart the collector to make them anew"
        }
        code::UNKNOWN_USER | code::WRONG_PASSWORD | code::AUTHENTICATION_FAILED => {
            "see whether user and password in the store's address are right"
        }
        code::ACCESS_DENIED => {
            "grant the user SELECT, INSERT, ALTER, CREATE, OPTIMIZE and CLUSTER on the database, SELECT on system.*"
        }
        code::MEMORY_LIMIT_EXCEEDED => "raise max_memory_usage for the user, or select less",
        code::TOO_MANY_PARTS => {
            "merging does not keep up with inserts; raise batch_ms in the store's address"
        }
        code::NO_ZOOKEEPER => {
            "a store with cluster=NAME needs ZooKeeper or ClickHouse Keeper configured"
        }
        _ => "see the server's log",
    }
}

impl Problem {
    /// The refusal's number, if it is one.
    pub(crate) fn code(&self) -> Option<u32> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// The problem as the store's error.
    pub(crate) fn at(self, endpoint: &str) -> StoreError {
        let path = PathBuf::from(endpoint);
        match self {
            Self::Unreachable(text) => StoreError::Unreachable {
                endpoint: endpoint.into(),
                source: Box::new(Text(text)),
            },
            Self::DiskFull => StoreError::DiskFull { path },
            Self::Refused(refusal) => StoreError::Database {
                path,
                source: Box::new(refusal),
            },
            Self::Damaged(detail) => StoreError::Database {
                path,
                source: Box::new(Text(detail)),
            },
            Self::NewerSchema { found } => StoreError::NewerSchema {
                path,
                found,
                known: crate::SCHEMA_VERSION,
            },
        }
    }
}

impl From<clickhouse::error::Error> for Problem {
    fn from(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        match error {
            Error::Network(_) | Error::TimedOut => Self::Unreachable(chain(&error)),
            Error::BadResponse(text) => refused(&text),
            error => Self::Damaged(format!(
                "its answer is not understood ({}); see whether the address is that of a ClickHouse server's HTTP port",
                chain(&error)
            )),
        }
    }
}

/// The error with its causes, which hold the interesting part.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// Characters of a server's message that are kept; it may quote a whole query.
const TEXT_CHARS_MAX: usize = 500;

fn refused(text: &str) -> Problem {
    let code = code_of(text);
    let text: String = text.trim().chars().take(TEXT_CHARS_MAX).collect();
    match code {
        code::NOT_ENOUGH_SPACE => Problem::DiskFull,
        // A shard or the keeper is away: the same to the caller as the server being away.
        code::TIMEOUT_EXCEEDED
        | code::SOCKET_TIMEOUT
        | code::NETWORK_ERROR
        | code::TABLE_IS_READ_ONLY
        | code::ALL_CONNECTION_TRIES_FAILED
        | code::KEEPER_EXCEPTION => Problem::Unreachable(text),
        code => Problem::Refused(Refusal { code, text }),
    }
}

/// The number in `Code: 60, e.displayText() = …` or `Code: 60. DB::Exception: …`.
fn code_of(text: &str) -> u32 {
    text.split_once("Code: ")
        .map(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap_or("")
        })
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_number_decides() {
        let at = |text: &str| refused(text).at("clickhouse://h:1/d");
        assert!(matches!(
            at("Code: 243, e.displayText() = full"),
            StoreError::DiskFull { .. }
        ));
        assert!(matches!(
            at("Code: 279. DB::Exception: x"),
            StoreError::Unreachable { .. }
        ));
        for (text, says) in [
            (
                "Code: 193, e.displayText() = DB::Exception: Wrong password",
                "user and password",
            ),
            ("Code: 252. DB::Exception: Too many parts", "batch_ms"),
            ("no number at all", "log"),
        ] {
            let StoreError::Database { path, source } = at(text) else {
                panic!("{text}");
            };
            assert_eq!(path.to_str(), Some("clickhouse://h:1/d"));
            let said = source.to_string();
            assert!(said.contains(says) && said.contains(text), "{said}");
        }
    }
}
