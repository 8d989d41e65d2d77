//! Making texts narrower.

use super::grid::width;
use unicode_width::UnicodeWidthChar;

/// The width that the widest columns must not exceed for all to fit into `room`; `None`
/// if they do as they are.
pub(super) fn limit(widths: &[usize], room: usize) -> Option<usize> {
    if widths.iter().sum::<usize>() <= room {
        return None;
    }
    let mut widths = widths.to_vec();
    widths.sort_unstable();
    // Narrow columns keep their width, and leave what they do not need to the others.
    let mut room = room;
    let mut left = widths.len();
    for width in widths {
        let share = room / left;
        if width > share {
            return Some(share);
        }
        room -= width;
        left -= 1;
    }
    None
}

/// Stands for what is left out; one column wide.
const ELLIPSIS: &str = "…";

/// Leaves out the middle: of a path whole components if its last one fits
/// (`/usr/lib/…/libc.so`), else characters.
pub(super) fn shorten(text: &str, width_max: usize) -> String {
    let room = width_max.saturating_sub(1);
    let name_at = text.trim_end_matches('/').rfind('/').unwrap_or(0);
    let (directories, name) = text.split_at(name_at);
    if name.starts_with('/') && width(name) < room {
        let head = narrow(directories.chars(), room - width(name));
        if let Some(slash) = directories[..head].rfind('/') {
            return format!("{}{ELLIPSIS}{name}", &directories[..=slash]);
        }
    }
    let tail = narrow(text.chars().rev(), room.div_ceil(2));
    let tail = &text[text.len() - tail..];
    let head = narrow(text.chars(), room - width(tail));
    format!("{}{ELLIPSIS}{tail}", &text[..head])
}

/// How many bytes of the first characters fit.
fn narrow(chars: impl Iterator<Item = char>, width_max: usize) -> usize {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width_max
        })
        .map(char::len_utf8)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_middle_is_left_out() {
        for (text, width_max, expected) in [
            (
                "/usr/lib/x86_64-linux-gnu/libc.so",
                18,
                "/usr/lib/…/libc.so",
            ),
            ("/usr/lib/x86_64-linux-gnu/libc.so", 17, "/usr/…/libc.so"),
            ("/usr/lib/x86_64-linux-gnu/libc.so", 10, "/…/libc.so"),
            ("/usr/lib/x86_64-linux-gnu/libc.so", 9, "/usr…c.so"),
            ("/var/www/html/uploads/", 12, "/…/uploads/"),
            ("app=web,tier=frontend", 11, "app=w…ntend"),
            ("/日本語/日本語/x", 11, "/日本語/…/x"),
            ("/日本語日本語", 8, "/日…本語"),
            ("abc", 1, "…"),
            ("abc", 0, "…"),
        ] {
            let expected_fits = width(expected) <= width_max.max(1);
            assert!(expected_fits, "{expected}");
            assert_eq!(shorten(text, width_max), expected, "{text} to {width_max}");
        }
    }

    #[test]
    fn wide_columns_shrink_first() {
        for (widths, room, expected) in [
            (&[10, 10][..], 20, None),
            (&[10, 50], 40, Some(30)),
            (&[50, 50], 40, Some(20)),
            (&[5, 50, 50], 45, Some(20)),
            (&[50], 0, Some(0)),
            (&[], 0, None),
        ] {
            assert_eq!(limit(widths, room), expected, "{widths:?} into {room}");
        }
    }

    proptest! {
        #[test]
        fn it_fits(text in "(/?[a-z日é\u{301}]{0,9}){0,9}/?", width_max in 1..60usize) {
            if width(&text) > width_max {
                prop_assert!(width(&shorten(&text, width_max)) <= width_max);
            }
        }
    }
}
