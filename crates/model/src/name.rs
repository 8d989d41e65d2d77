//! Names that came from a workload: hostile until proven printable.

use std::{borrow::Borrow, fmt, sync::Arc};

/// A path, socket address or other name chosen by a workload, made safe to store and
/// to show.
///
/// Workloads choose their file names, arguments and socket names, and may put terminal
/// escapes, newlines or invalid UTF-8 into them. A `Name` is escaped once, where the
/// bytes leave the kernel, and is printable, valid UTF-8 ever after: every view may
/// print it as it stands (HTML still escapes its own `<`, `>` and `&`).
///
/// The escape is `\xNN` for each byte of a control character, an invisible or
/// direction-changing character, or invalid UTF-8, and `\\` for a backslash, so
/// [`Name::to_bytes`] gives back exactly what the kernel said.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Escapes raw bytes as the kernel or a runtime gave them.
    #[must_use]
    pub fn from_bytes(raw: &[u8]) -> Self {
        let plain = |text: &str| text.chars().all(|c| c != '\\' && is_printable(c));
        if let Ok(text) = std::str::from_utf8(raw)
            && plain(text)
        {
            return Self(text.into());
        }
        let mut escaped = String::with_capacity(raw.len() + 16);
        for chunk in raw.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => escaped.push_str("\\\\"),
                    c if is_printable(c) => escaped.push(c),
                    c => push_hex(&mut escaped, c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            push_hex(&mut escaped, chunk.invalid());
        }
        Self(escaped.into())
    }

    /// Takes text that is escaped already, as a store or a peer kept it.
    ///
    /// Text that no escape could have produced (a raw control character, a lone
    /// backslash) is escaped now, so a tampered store cannot smuggle an escape sequence in.
    #[must_use]
    pub fn from_escaped(text: &str) -> Self {
        if text.chars().all(is_printable) && unescape(text).is_some() {
            Self(text.into())
        } else {
            Self::from_bytes(text.as_bytes())
        }
    }

    /// The escaped, printable text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes the kernel said.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        unescape(&self.0).expect("a Name is always well-formed: both constructors see to it")
    }

    /// Whether nothing is known: an empty name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a character may be shown: not a control character, and none of those that
/// hide or reorder text (zero-width, bidirectional, line and paragraph separators, tags).
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    use fmt::Write;
    for byte in bytes {
        write!(out, "\\x{byte:02x}").expect("writing to a String cannot fail");
    }
}

/// The bytes behind an escaped text; `None` where the text is not well-formed.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('\\') {
            bytes.push(b'\\');
            rest = after;
        } else {
            let hex = rest.strip_prefix('x')?.get(..2)?;
            let digits = hex.bytes().all(|b| b.is_ascii_hexdigit());
            bytes.push(u8::from_str_radix(hex, 16).ok().filter(|_| digits)?);
            rest = &rest[3..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

impl From<&str> for Name {
    /// Escapes raw text; for text that is escaped already see [`Name::from_escaped`].
    fn from(raw: &str) -> Self {
        Self::from_bytes(raw.as_bytes())
    }
}

impl Default for Name {
    fn default() -> Self {
        Self("".into())
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Name;
    use proptest::prelude::*;

    #[test]
    fn hostile_bytes_become_printable() {
        for (raw, shown) in [
            (&b"/etc/passwd"[..], "/etc/passwd"),
            (b"/tmp/a b", "/tmp/a b"),
            ("/tmp/é".as_bytes(), "/tmp/é"),
            (b"/tmp/\x1b[31mred\n", "/tmp/\\x1b[31mred\\x0a"),
            (b"/tmp/\xff\xfe", "/tmp/\\xff\\xfe"),
            (b"C:\\x41", "C:\\\\x41"),
            ("/\u{202e}gpj".as_bytes(), "/\\xe2\\x80\\xaegpj"),
            ("/\u{9b}31m".as_bytes(), "/\\xc2\\x9b31m"),
        ] {
            assert_eq!(Name::from_bytes(raw).as_str(), shown);
        }
    }

    #[test]
    fn text_no_escape_could_have_made_is_escaped_again() {
        for tampered in ["\\", "\\x4", "\\y", "a\nb", "\\x+1", "\\xé"] {
            let name = Name::from_escaped(tampered);
            assert_eq!(name.to_bytes(), tampered.as_bytes(), "{tampered:?}");
            assert!(!name.as_str().contains('\n'));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            let name = Name::from_bytes(&raw);
            prop_assert!(!name.as_str().chars().any(char::is_control));
            prop_assert_eq!(&name.to_bytes(), &raw);
            prop_assert_eq!(Name::from_escaped(name.as_str()), name);
        }

        #[test]
        fn any_text_is_accepted_as_escaped(text in "\\PC*|(\\\\|x|[0-9a-g]|é){0,12}") {
            let name = Name::from_escaped(&text);
            prop_assert_eq!(Name::from_bytes(&name.to_bytes()).to_bytes(), name.to_bytes());
        }
    }
}
