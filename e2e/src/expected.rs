//! Rows that a summary must have, and what a summary says of them.

use anyhow::{Result, ensure};
use ethogram_model::{Kind, Protocol, Status};
use ethogram_view::{Row, Subject};

/// One row that a summary must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its table.
    pub kind: Kind,
    /// The executable that acts, as the kernel resolves it: `/bin/sh` is `/usr/bin/dash`.
    pub source: String,
    /// The target, exactly; ending in `/`: any path below.
    pub target: String,
    /// Network kinds: the port, 0 where it means nothing.
    pub port: u16,
    /// Network kinds: the protocol.
    pub protocol: Protocol,
    /// How it ended.
    pub status: Status,
    /// How often.
    pub count: Count,
}

/// What is known of a row's count. Rows that differ only in access are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The scenario determines it.
    Exactly(u64),
    /// It is up to the programs' insides.
    AtLeast(u64),
}

impl Expected {
    /// A row of a table without network fields, allowed.
    #[must_use]
    pub fn new(kind: Kind, source: &str, target: &str, count: Count) -> Self {
        Self {
            kind,
            source: source.into(),
            target: target.into(),
            port: 0,
            protocol: Protocol::None,
            status: Status::Allow,
            count,
        }
    }

    /// A row of a network table, allowed.
    #[must_use]
    pub fn network(
        kind: Kind,
        source: &str,
        target: &str,
        port: u16,
        protocol: Protocol,
        count: Count,
    ) -> Self {
        Self {
            port,
            protocol,
            ..Self::new(kind, source, target, count)
        }
    }

    /// The same, refused.
    #[must_use]
    pub fn denied(self) -> Self {
        Self {
            status: Status::Deny,
            ..self
        }
    }

    /// How often a subject did it, as its summary says. What was there already when the
    /// watch began is not an event and not counted.
    #[must_use]
    pub fn counted(&self, subject: &Subject) -> u64 {
        let rows = subject.table(self.kind).iter();
        rows.filter(|row| self.is(row)).map(|row| row.count).sum()
    }

    fn is(&self, row: &Row) -> bool {
        let target = row.target.as_str();
        let same_target = match self.target.strip_suffix('/') {
            Some(dir) if !dir.is_empty() => target.starts_with(&self.target),
            _ => target == self.target,
        };
        same_target
            && row.source.as_str() == self.source
            && row.port.unwrap_or(0) == self.port
            && row.protocol.as_str() == self.protocol.as_str()
            && row.status.as_str() == self.status.as_str()
            && !is_at_start(row)
    }
}

/// Whether a row says that something was there already when the watch began.
#[must_use]
pub fn is_at_start(row: &Row) -> bool {
    row.marks.iter().any(|mark| mark.as_str() == "at-start")
}

/// Checks that a subject's summary has these rows with these counts.
///
/// # Errors
/// Every row that differs, with the rows of the same table and source.
pub fn check(subject: &Subject, truth: &[Expected]) -> Result<()> {
    let mut wrong = String::new();
    for expected in truth {
        let counted = expected.counted(subject);
        let good = match expected.count {
            Count::Exactly(count) => counted == count,
            Count::AtLeast(count) => counted >= count,
        };
        if !good {
            wrong += &format!(
                "\n{} {} -> {} port {} {} {}: {:?}, and the summary says {counted}",
                expected.kind,
                expected.source,
                expected.target,
                expected.port,
                expected.protocol,
                expected.status,
                expected.count
            );
            for row in subject
                .table(expected.kind)
                .iter()
                .filter(|r| r.source.as_str() == expected.source)
            {
                wrong += &format!(
                    "\n    {} {:?} {} {} {:?} {:?} {}",
                    row.target.as_str(),
                    row.port,
                    row.protocol.as_str(),
                    row.status.as_str(),
                    row.access,
                    row.marks,
                    row.count
                );
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "the summary differs from what was done:{wrong}"
    );
    Ok(())
}

/// Checks that nothing of a subject is known to be missing.
///
/// # Errors
/// What is missing.
pub fn check_complete(subject: &Subject) -> Result<()> {
    ensure!(
        subject.completeness.losses.is_empty(),
        "events were lost: {:?}",
        subject.completeness.losses
    );
    ensure!(
        subject.completeness.complete,
        "the summary is not complete: {:?}",
        subject.completeness
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_view::Document;

    fn subject() -> Subject {
        let row = |source: &str, target: &str, status: &str, count: u64| {
            serde_json::json!({
                "source": source, "target": target, "status": status, "count": count, "rows": 1,
                "first_seen": "2026-01-01T00:00:00Z", "last_seen": "2026-01-01T00:00:00Z",
            })
        };
        let mut present = row("/bin/cat", "/etc/hosts", "Allow", 50);
        present["marks"] = serde_json::json!(["at-start"]);
        let document = serde_json::json!({
            "schema": "ethogram.summary/v1", "generated": "2026-01-01T00:00:00Z", "fold": "none", "group": "container",
            "subjects": [{
                "cluster": "", "namespace": "", "pods": [], "containers": [], "labels": {}, "images": [], "nodes": [],
                "workload": {"kind": "", "name": ""}, "runtimes": [], "container_ids": [], "cgroup": "", "instances": 1,
                "completeness": {
                    "complete": false, "watched_since": "2026-01-01T00:00:00Z", "already_running": false,
                    "losses": [{"reason": "ring_full", "count": 3}], "gaps": [], "broken_off": [],
                },
                "tables": {"file": [
                    row("/bin/cat", "/etc/hosts", "Allow", 2),
                    row("/bin/cat", "/etc/hosts", "Deny", 10),
                    row("/bin/cat", "/etc/host", "Allow", 20),
                    row("/bin/ls", "/etc/hosts", "Allow", 30),
                    present,
                ]},
            }],
        });
        let document = Document::from_json(document.to_string().as_bytes()).unwrap();
        document.subjects[0].clone()
    }

    fn cat(target: &str, count: Count) -> Expected {
        Expected::new(Kind::File, "/bin/cat", target, count)
    }

    #[test]
    fn only_the_rows_meant_are_counted() {
        for (expected, count) in [
            (cat("/etc/hosts", Count::AtLeast(0)), 2),
            (cat("/etc/hosts", Count::AtLeast(0)).denied(), 10),
            (cat("/etc/", Count::AtLeast(0)), 22),
            (cat("/etc", Count::AtLeast(0)), 0),
            (cat("/", Count::AtLeast(0)), 0),
        ] {
            assert_eq!(expected.counted(&subject()), count, "{expected:?}");
        }
    }

    #[test]
    fn other_counts_fail() {
        let outcome = |count| check(&subject(), &[cat("/etc/hosts", count)]);
        assert!(outcome(Count::Exactly(2)).is_ok());
        assert!(outcome(Count::AtLeast(2)).is_ok());
        for wrong in [Count::Exactly(1), Count::Exactly(3), Count::AtLeast(3)] {
            let error = outcome(wrong).unwrap_err().to_string();
            assert!(error.contains("the summary says 2"), "{error}");
        }
    }

    #[test]
    fn losses_fail() {
        let error = check_complete(&subject()).unwrap_err().to_string();
        assert!(error.contains("ring_full"), "{error}");
    }
}
