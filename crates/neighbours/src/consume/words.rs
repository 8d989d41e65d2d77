//! The words in an event's data and resource.

const PATH: &str = "sun_path";

/// Every key that KubeArmor puts before a value that we look at, or that may follow one.
const KEYS: &[&str] = &[
    "syscall",
    "kprobe",
    "kfunc",
    "lsm",
    "domain",
    "type",
    "protocol",
    "remoteip",
    "remotehost",
    "port",
    "sa_family",
    "sin_port",
    "sin_addr",
    PATH,
    "daddr",
    "qtype",
    "fd",
    "flags",
    "mode",
    "hostname",
];

/// What `text` says for `key`: in `a=1 b=2`, or with commas as older versions have it, in
/// any order. Of all values only a socket's path may have spaces in it.
pub(super) fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let start = starts(text).find(|(_, found)| *found == key)?.0;
    let rest = &text[start + key.len() + 1..];
    if key != PATH {
        return rest.split([' ', ',']).next();
    }
    let end = starts(rest)
        .find(|(at, _)| *at > 0)
        .map_or(rest.len(), |(at, _)| at);
    Some(rest[..end].trim_end_matches([' ', ',']))
}

/// Where keys stand.
fn starts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices('=').filter_map(|(equals, _)| {
        let before = &text[..equals];
        let start = before.rfind([' ', ',']).map_or(0, |at| at + 1);
        let key = &before[start..];
        KEYS.contains(&key).then_some((start, key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_grammars_and_any_order() {
        for text in [
            "sa_family=AF_UNIX sun_path=/run/my socket",
            "sun_path=/run/my socket sa_family=AF_UNIX",
            "sun_path=/run/my socket,sa_family=AF_UNIX",
            "sa_family=AF_UNIX, sun_path=/run/my socket",
        ] {
            assert_eq!(value(text, "sun_path"), Some("/run/my socket"), "{text}");
            assert_eq!(value(text, "sa_family"), Some("AF_UNIX"), "{text}");
        }
        assert_eq!(value("xport=1 port=2", "port"), Some("2"));
        assert_eq!(
            value("syscall=SYS_PTRACE pid=1", "syscall"),
            Some("SYS_PTRACE")
        );
        assert_eq!(value("sun_path=/a=b c=d", "sun_path"), Some("/a=b c=d"));
        assert_eq!(value("sun_path=", "sun_path"), Some(""));
        assert_eq!(value("/plain path", "port"), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(\\PC|=| |,|port|fd){0,40}") {
            for key in KEYS {
                let _ = value(&text, key);
            }
        }
    }
}
