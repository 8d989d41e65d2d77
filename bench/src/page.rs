//! The page that results are written to: each has a place between two marks.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

/// `docs/benchmarks.md`, and the folder of its pictures beside it.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    file: PathBuf,
}

/// A result, as the page shows it.
#[derive(Debug, Default)]
pub(crate) struct Section {
    pub(crate) text: String,
    /// Pictures by file name.
    pub(crate) pictures: Vec<(String, String)>,
}

impl Page {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Puts a result into its place, and its pictures beside the page.
    pub(crate) fn write(&self, name: &str, section: &Section) -> Result<()> {
        let at = || self.file.display().to_string();
        let page = fs::read_to_string(&self.file).with_context(at)?;
        let folder = self.file.with_extension("");
        let mut text = format!("{}\n", section.text.trim_end());
        for (picture, svg) in &section.pictures {
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(picture), svg)?;
            let beside = folder.file_name().unwrap_or_default().to_string_lossy();
            text += &format!("\n![{picture}]({beside}/{picture})\n");
        }
        let page = replaced(&page, name, &text)
            .with_context(|| format!("{} has no place for {name}", self.file.display()))?;
        fs::write(&self.file, page).with_context(at)
    }
}

/// The page with what stands between the marks of a name replaced.
fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let from = page.find(&begin)? + begin.len();
    let to = from + page[from..].find(&end)?;
    Some(format!("{}\n{text}\n{}", &page[..from], &page[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_nothing_else() {
        let page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        let new = replaced(page, "x", "new\n").expect("the marks are there");
        assert_eq!(new, "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb\n");
        assert_eq!(replaced(&new, "x", "new\n").as_deref(), Some(&*new));
        assert_eq!(replaced(page, "y", ""), None);
    }
}
