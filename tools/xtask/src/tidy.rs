//! The house rules that the compiler does not know, as a test.
//!
//! One file per family of rules: what may depend on what (`layers`), what the text of a file may hold (`text`), what
//! its tokens may say (`tokens`), how large things may grow (`budget`). A rule takes a value and returns violations, so
//! that each is tested on planted ones; the walk over the tree is here.
//!
//! Not seen: code that only exists after macro expansion. The tokens inside macro calls are looked at, the length of
//! functions in them is not measured.

mod budget;
mod layers;
mod source;
mod text;
mod tokens;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use source::SourceFile;

/// One broken rule in one place.
#[derive(Debug, Eq, PartialEq)]
struct Violation {
    /// Relative to the workspace, with forward slashes.
    path: String,
    /// Counted from 1; 1 if the whole file is meant.
    line: usize,
    /// What is wrong and, where it is not plain, what to do.
    sentence: String,
}

impl Violation {
    fn new(path: &str, line: usize, sentence: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, sentence: sentence.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.sentence)
    }
}

/// Folders that hold nothing of ours: build output, data, and what test suites install.
const FOLDERS_SKIPPED: &[&str] = &["target", "highwater-data", "node_modules", "__pycache__"];
/// Files that are read as text besides Rust sources.
const TEXT_EXTENSIONS: &[&str] = &["md", "toml", "py", "sh", "java", "proto"];

/// Checks the workspace at `root`. Returns how many files were read; every violation is in the error.
pub(crate) fn check(root: &Path) -> Result<usize> {
    let mut violations = layers::check_workspace(root)?;
    let (mut sources, mut count) = (Vec::new(), 0);
    for path in files_below(root)? {
        let shown = relative(root, &path);
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let is_rust = extension == "rs";
        if !is_rust && !TEXT_EXTENSIONS.contains(&extension) {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {shown}"))?;
        if is_rust {
            sources.push(SourceFile::parse(&shown, &text).with_context(|| format!("parse {shown}"))?);
        } else {
            violations.extend(text::check_lines(&shown, &text, |_| false));
        }
    }
    source::mark_test_modules(&mut sources);
    for file in &sources {
        violations.extend(text::check(file));
        violations.extend(tokens::check(file));
        violations.extend(budget::check(file));
    }
    violations.extend(tokens::check_broker_is_named_once(&sources));
    report(violations)?;
    Ok(count)
}

fn report(mut violations: Vec<Violation>) -> Result<()> {
    if violations.is_empty() {
        return Ok(());
    }
    violations.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    let lines: Vec<_> = violations.iter().map(Violation::to_string).collect();
    bail!("the tree breaks {} house rules:\n{}", lines.len(), lines.join("\n"))
}

/// Every file below `root` that is ours, in a stable order. Dotfolders are configuration and caches.
fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", folder.display()))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let kind = entry.file_type().context("ask for a file type")?;
            if kind.is_dir() && !name.starts_with('.') && !FOLDERS_SKIPPED.contains(&name.as_ref()) {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let files = check(crate::workspace_root().unwrap()).unwrap();

        assert!(files > 20, "the walk found only {files} files");
    }

    #[test]
    fn a_report_names_file_line_and_sentence_in_order() {
        let violations = vec![Violation::new("b.rs", 2, "is late."), Violation::new("a.rs", 7, "is early.")];

        let report = report(violations).unwrap_err().to_string();

        assert_eq!(report, "the tree breaks 2 house rules:\na.rs:7: is early.\nb.rs:2: is late.");
    }
}
