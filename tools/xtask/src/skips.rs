//! What the tests skipped: a file that they append to, and the few reasons that are accepted.
//!
//! A line is a reason, a test and a detail with tabs between (`tests/harness/skip.rs`). It does not know how
//! the tests found out.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;

/// What a machine may lack.
const ACCEPTED: &[&str] = &["root", "toolchain", "registry"];

/// The file, which starts empty.
pub(crate) struct Skips {
    path: PathBuf,
}

impl Skips {
    /// Forgets what earlier runs skipped.
    pub(crate) fn start(root: &Path) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(root.join("Cargo.toml"))
            .no_deps()
            .other_options(["--offline".to_owned()])
            .exec()
            .context("ask cargo for its target directory")?;
        // What cargo calls CARGO_TARGET_TMPDIR.
        let path = metadata.target_directory.join("tmp/skipped.tsv").into_std_path_buf();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("empty the skips"),
            _ => Ok(Self { path }),
        }
    }

    /// Prints what was skipped, and fails if a reason is not one of those accepted.
    pub(crate) fn finish(self) -> Result<()> {
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.context("read the skips")?,
        };
        io::stdout().write_all(report(&text).as_bytes()).context("write to stdout")?;
        let refused = refused(&text);
        ensure!(
            refused.is_empty(),
            "tests may be skipped for want of root, a toolchain or a registry, but:\n{refused}"
        );
        Ok(())
    }
}

fn report(text: &str) -> String {
    match text.lines().count() {
        0 => "skipped: nothing\n".to_owned(),
        count => format!("skipped: {count}\n{text}"),
    }
}

/// The lines with any other reason.
fn refused(text: &str) -> String {
    let reason = |line: &&str| !line.split_once('\t').is_some_and(|(reason, _)| ACCEPTED.contains(&reason));
    text.lines().filter(reason).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_may_lack_root_a_toolchain_or_a_registry() {
        let text = "root\ta\tno loop device\ntoolchain\tb\tno mvn\nregistry\tc\taway\n";

        assert_eq!(refused(text), "");
        assert_eq!(report(text), format!("skipped: 3\n{text}"));
    }

    #[test]
    fn any_other_reason_is_refused() {
        assert_eq!(refused("root\ta\tb\nslow\tc\td\nroot\n"), "slow\tc\td\nroot");
    }

    #[test]
    fn a_run_that_skips_nothing_says_so() {
        assert_eq!(report(""), "skipped: nothing\n");
    }
}
