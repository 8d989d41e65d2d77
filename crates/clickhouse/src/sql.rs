//! Parts of queries.

use ethogram_model::ContainerKey;
use std::fmt::Write;

/// A text as an SQL literal.
pub(crate) fn quoted(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            literal.push('\\');
        }
        literal.push(c);
    }
    literal.push('\'');
    literal
}

/// Texts as a list for `IN`.
pub(crate) fn quoted_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    list(texts.into_iter().map(quoted))
}

/// Numbers or other literals as a list for `IN`.
pub(crate) fn list(items: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let mut list = String::from("(");
    for item in items {
        let comma = if list.len() > 1 { ", " } else { "" };
        write!(list, "{comma}{item}").expect("writing to a String cannot fail");
    }
    list.push(')');
    list
}

/// The columns that say which container.
pub(crate) const CONTAINER: &str = "boot, cgroup, incarnation";

/// The condition that a row is one of these containers'; there is at least one.
pub(crate) fn of_containers<'a>(keys: impl IntoIterator<Item = &'a ContainerKey>) -> String {
    let keys = keys.into_iter().map(|key| {
        let boot = quoted(key.boot.as_str());
        format!("({boot}, {}, {})", key.cgroup, key.incarnation)
    });
    format!("({CONTAINER}) IN {}", list(keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::BootId;

    #[test]
    fn literals_cannot_be_left() {
        for (text, literal) in [
            ("", "''"),
            ("a", "'a'"),
            ("a'b", r"'a\'b'"),
            (r"a\", r"'a\\'"),
            (r"\'; DROP TABLE x; --", r"'\\\'; DROP TABLE x; --'"),
        ] {
            assert_eq!(quoted(text), literal);
        }
    }

    #[test]
    fn containers_are_named_by_their_whole_key() {
        let key = |boot: &str, cgroup, incarnation| ContainerKey {
            boot: BootId::new(boot),
            cgroup,
            incarnation,
        };
        let keys = [key("b'", 1, 2), key("c", u64::MAX, 0)];
        assert_eq!(
            of_containers(&keys),
            r"(boot, cgroup, incarnation) IN (('b\'', 1, 2), ('c', 18446744073709551615, 0))"
        );
    }
}
