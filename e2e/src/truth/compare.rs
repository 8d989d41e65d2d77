//! The comparison of a truth with what a summary shows.

use super::{Document, Ledger, Scope};
use ethogram_model::{Behaviour, Kind};
use std::{collections::BTreeMap, fmt};

/// How many differing rows of a kind are printed; the rest are only counted.
const SHOWN_ROWS_MAX: usize = 20;

/// A row that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which row.
    pub row: Behaviour,
    /// How often it happened; 0 for a row that nobody expected.
    pub expected: u64,
    /// How often it was seen; 0 for a row that is missing.
    pub seen: u64,
}

/// Truth and summary side by side.
#[derive(Clone, Debug)]
pub struct Comparison {
    truth: Ledger,
    seen: Ledger,
    losses: BTreeMap<String, u64>,
    differences: Vec<Difference>,
}

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every row is there with its count, and nothing was reported lost.
    Equal,
    /// Nothing differs, though the summary reports losses (of rows that are not compared).
    EqualWithLoss,
    /// Counts are missing, no more than the summary itself reports as lost.
    Explained,
    /// The summary is wrong.
    Wrong,
}

impl Comparison {
    /// Compares the rows of a document that the scope covers.
    #[must_use]
    pub fn new(truth: Ledger, document: &Document, scope: &Scope) -> Self {
        let seen = document.seen.within(scope);
        let differences = differences(&truth, &seen);
        Self {
            truth,
            seen,
            losses: document.losses.clone(),
            differences,
        }
    }

    /// The rows that differ, sorted.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// What it comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let overcounted = self.differences.iter().any(|d| d.seen > d.expected);
        let missing: u64 = self
            .differences
            .iter()
            .map(|d| d.expected.saturating_sub(d.seen))
            .sum();
        match (missing, self.losses.values().sum::<u64>()) {
            _ if overcounted => Verdict::Wrong,
            (0, 0) => Verdict::Equal,
            (0, _) => Verdict::EqualWithLoss,
            (missing, lost) if missing <= lost => Verdict::Explained,
            _ => Verdict::Wrong,
        }
    }
}

fn differences(truth: &Ledger, seen: &Ledger) -> Vec<Difference> {
    let mut rows = truth.rows();
    rows.extend(seen.rows());
    let compared = rows.into_keys().map(|row| Difference {
        row: row.clone(),
        expected: truth.count(row),
        seen: seen.count(row),
    });
    compared.filter(|d| d.expected != d.seen).collect()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:>13} {:>9} {:>15} {:>11} {:>8} {:>11} {:>8}",
            "KIND",
            "ROWS EXPECTED",
            "ROWS SEEN",
            "COUNTS EXPECTED",
            "COUNTS SEEN",
            "MISSING",
            "UNEXPECTED",
            "DIFFERS"
        )?;
        for &kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Capability) {
            self.write_line(f, kind.as_str(), |row| row.kind == kind)?;
        }
        self.write_line(f, "all", |_| true)?;
        writeln!(f, "reported lost: {}", self.losses.values().sum::<u64>())?;
        for (reason, count) in &self.losses {
            writeln!(f, "  {reason}: {count}")?;
        }
        for &kind in Kind::ALL {
            self.write_differences(f, kind)?;
        }
        Ok(())
    }
}

impl Comparison {
    fn write_line(
        &self,
        f: &mut fmt::Formatter<'_>,
        title: &str,
        chosen: impl Fn(&Behaviour) -> bool,
    ) -> fmt::Result {
        let size = |ledger: &Ledger| {
            let rows = ledger.rows();
            let counts = rows.iter().filter(|(row, _)| chosen(row));
            counts.fold((0, 0), |(rows, sum), (_, count)| (rows + 1, sum + count))
        };
        let (rows_expected, counts_expected) = size(&self.truth);
        let (rows_seen, counts_seen) = size(&self.seen);
        let differing = |which: fn(&Difference) -> bool| {
            let these = self.differences.iter().filter(|d| chosen(&d.row));
            these.filter(|d| which(d)).count()
        };
        writeln!(
            f,
            "{title:<10} {rows_expected:>13} {rows_seen:>9} {counts_expected:>15} {counts_seen:>11} {:>8} {:>11} {:>8}",
            differing(|d| d.seen == 0),
            differing(|d| d.expected == 0),
            differing(|d| d.seen != 0 && d.expected != 0),
        )
    }

    fn write_differences(&self, f: &mut fmt::Formatter<'_>, kind: Kind) -> fmt::Result {
        let of_kind = || self.differences.iter().filter(|d| d.row.kind == kind);
        for Difference {
            row,
            expected,
            seen,
        } in of_kind().take(SHOWN_ROWS_MAX)
        {
            writeln!(
                f,
                "{kind}: expected {expected}, seen {seen}: {} -> {} {} {} [{}] {}",
                row.source, row.target, row.protocol, row.port, row.access, row.status
            )?;
        }
        match of_kind().count().saturating_sub(SHOWN_ROWS_MAX) {
            0 => Ok(()),
            more => writeln!(f, "{kind}: and {more} more rows that differ"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::DocumentError;

    const TRUTH: &str = r#"{"kind":"file","source":"/d/bin/w","target":"/d/data/a\\x0a","protocol":"","port":0,"access":["read"],"status":"Allow","count":1000000}
{"kind":"egress","source":"/d/bin/w","target":"127.0.0.1","protocol":"TCP","port":20000,"access":[],"status":"Failed","count":7}
"#;

    fn document(file_count: u64, egress_count: u64, extra: &str, lost: &str) -> String {
        let subject = |file: &str, egress: &str, losses: &str| {
            format!(
                r#"{{"tables": {{"process": [], "file": [{file}], "ingress": [], "egress": [{egress}], "bind": [],
                "capability": [{{"source": "/d/bin/w", "target": "CAP_CHOWN", "status": "Allow", "count": 9}}],
                "syscall": []}}, "completeness": {{"complete": false, "losses": {losses}}}}}"#
            )
        };
        let loader = format!(
            r#"{{"source": "/d/bin/w", "target": "/lib/libc.so.6", "access": ["read"], "status": "Allow", "count": 12}}{extra}"#
        );
        let file = format!(
            r#"{{"source": "/d/bin/w", "target": "/d/data/a\\x0a", "access": ["read"], "marks": ["as-requested"],
            "status": "Allow", "count": {file_count}, "first": "2026-01-01T00:00:00Z"}}"#
        );
        let egress = format!(
            r#"{{"source": "/d/bin/w", "target": "127.0.0.1", "protocol": "TCP", "port": 20000,
            "status": "Failed", "count": {egress_count}}}"#
        );
        let (one, other) = (subject(&loader, "", lost), subject(&file, &egress, "[]"));
        format!(
            r#"{{"schema": "ethogram.summary/v1", "fold": "none", "subjects": [{one}, {other}]}}"#
        )
    }

    fn compare(document: &str) -> Comparison {
        let truth = Ledger::read(TRUTH.as_bytes()).unwrap();
        Comparison::new(truth, &Document::read(document).unwrap(), &Scope::new("/d"))
    }

    #[test]
    fn equal_is_equal() {
        let comparison = compare(&document(1_000_000, 7, "", "[]"));
        assert_eq!(comparison.verdict(), Verdict::Equal);
        assert!(comparison.differences().is_empty());
        let unrelated_loss = compare(&document(1_000_000, 7, "", r#"[{"reason":"x","count":3}]"#));
        assert_eq!(unrelated_loss.verdict(), Verdict::EqualWithLoss);
    }

    #[test]
    fn a_difference_of_one_is_found() {
        for (file, egress, expected, seen) in [
            (999_999, 7, 1_000_000, 999_999),
            (1_000_001, 7, 1_000_000, 1_000_001),
            (1_000_000, 6, 7, 6),
            (1_000_000, 8, 7, 8),
        ] {
            let comparison = compare(&document(file, egress, "", "[]"));
            assert_eq!(comparison.verdict(), Verdict::Wrong);
            let [difference] = comparison.differences() else {
                panic!("{:?}", comparison.differences());
            };
            assert_eq!((difference.expected, difference.seen), (expected, seen));
        }
    }

    #[test]
    fn a_missing_and_an_unexpected_row_are_found() {
        let other = document(1_000_000, 7, "", "[]")
            .replace(r#"["read"], "marks""#, r#"["write"], "marks""#);
        let comparison = compare(&other);
        assert_eq!(comparison.verdict(), Verdict::Wrong);
        assert_eq!(comparison.differences().len(), 2);
        let text = comparison.to_string();
        assert!(
            text.contains(r"expected 1000000, seen 0: /d/bin/w -> /d/data/a\x0a  0 [read] Allow"),
            "{text}"
        );
        assert!(text.contains("expected 0, seen 1000000: "), "{text}");
    }

    #[test]
    fn a_loss_explains_what_is_missing_and_nothing_else() {
        let lost = r#"[{"reason":"ring_full","count":2},{"reason":"store","count":1}]"#;
        for (file, egress, verdict) in [
            (999_999, 7, Verdict::Explained),
            (999_998, 6, Verdict::Explained),
            (999_997, 6, Verdict::Wrong),
            (1_000_001, 7, Verdict::Wrong),
            (999_999, 8, Verdict::Wrong),
        ] {
            assert_eq!(
                compare(&document(file, egress, "", lost)).verdict(),
                verdict,
                "{file} {egress}"
            );
        }
        let invented = r#", {"source": "/d/bin/w", "target": "/d/data/b", "access": [], "status": "Allow", "count": 1}"#;
        assert_eq!(
            compare(&document(999_999, 7, invented, lost)).verdict(),
            Verdict::Wrong
        );
    }

    #[test]
    fn a_document_accounts_for_what_it_counted_and_lost() {
        let whole = Document::read(&document(20, 7, "", "[]")).unwrap();
        let lost = r#"[{"reason":"ring_full","count":2},{"reason":"store","count":1}]"#;
        let lossy = Document::read(&document(18, 6, "", lost)).unwrap();
        assert_eq!(whole.events(), 12 + 2 * 9 + 20 + 7);
        assert_eq!(lossy.events(), whole.events());
    }

    #[test]
    fn a_document_of_another_shape_is_refused() {
        let good = document(1, 1, "", r#"[{"reason":"x","count":3}]"#);
        for (part, replacement, named) in [
            ("ethogram.summary/v1", "ethogram.summary/v9", "schema"),
            (r#""fold": "none""#, r#""fold": "auto""#, "fold"),
            ("subjects", "objects", "subjects"),
            (r#""bind": []"#, r#""bind": 3"#, "subjects[0].tables.bind"),
            (
                "CAP_CHOWN\", \"status\"",
                "CAP_CHOWN\", \"state\"",
                "subjects[0].tables.capability[0]",
            ),
            ("Failed", "Perhaps", "subjects[1].tables.egress[0]"),
            ("losses", "gains", "subjects[0].completeness.losses"),
            (
                r#""count":3"#,
                r#""count":-3"#,
                "subjects[0].completeness.losses[0]",
            ),
        ] {
            let text = &good.replace(part, replacement);
            assert_ne!(text, &good, "{part}");
            let error = Document::read(text).unwrap_err();
            assert!(
                matches!(&error, DocumentError::Shape { part, .. } if part == named),
                "{error}"
            );
        }
    }
}
