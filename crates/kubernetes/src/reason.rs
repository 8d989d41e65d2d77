//! What went wrong, in words that may be kept and shown.

use ethogram_model::Name;

/// How much is kept of what the API server says is wrong.
const REASON_BYTES_MAX: usize = 1024;

/// A reason as it may be kept and shown: others chose parts of its words.
pub(crate) fn reason(text: &str) -> String {
    let short = &text[..text.floor_char_boundary(REASON_BYTES_MAX)];
    let cut = if short.len() < text.len() { "…" } else { "" };
    format!("{}{cut}", Name::from(short))
}

/// An error with its causes: kube's own text often leaves out the one that helps.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}
