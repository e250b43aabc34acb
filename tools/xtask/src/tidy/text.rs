//! Rules over the plain text of a file: how it opens, what its lines may hold.

use super::Violation;
use super::source::SourceFile;

/// Top folders that exist on somebody's machine and not on everybody's.
const MACHINE_FOLDERS: &[&str] = &["work", "home", "root", "Users"];
/// A folder that tests may name, since they may hand it to a program under test.
const TEMPORARY_FOLDER: &str = "tmp";

/// Checks one Rust file.
pub(super) fn check(file: &SourceFile) -> Vec<Violation> {
    let mut violations = check_lines(&file.path, &file.text, |line| file.is_test_line(line));
    violations.extend(check_header(file));
    violations.extend(check_tabs(file));
    violations.extend(check_handler_versions(file));
    violations
}

/// What holds for every text file: no path of one machine, no space at the end of a line.
pub(super) fn check_lines(path: &str, text: &str, is_test: impl Fn(usize) -> bool) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        if content.ends_with([' ', '\t']) {
            violations.push(Violation::new(path, line, "white space at the end of the line."));
        }
        let temporary = (!is_test(line)).then_some(&TEMPORARY_FOLDER);
        for folder in MACHINE_FOLDERS.iter().chain(temporary) {
            if names_folder(content, folder) {
                let sentence = format!("/{folder}/ is a path of one machine; take it as an argument.");
                violations.push(Violation::new(path, line, sentence));
            }
        }
    }
    violations
}

/// Whether `line` holds an absolute path that starts in `folder`. `a/work/b` is relative and none.
fn names_folder(line: &str, folder: &str) -> bool {
    let needle = format!("/{folder}/");
    line.match_indices(&needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-*/}>".contains(c))
    })
}

fn check_header(file: &SourceFile) -> Option<Violation> {
    let sentence = "the file must open with //! that says what it is and what it does not know.";
    let opens = file.text.starts_with("//! ");
    (!opens).then(|| Violation::new(&file.path, 1, sentence))
}

fn check_tabs(file: &SourceFile) -> Vec<Violation> {
    let tabbed = |(line, content): (usize, &str)| {
        content
            .contains('\t')
            .then(|| Violation::new(&file.path, line, "a tab; rustfmt indents with spaces."))
    };
    (1..).zip(file.text.lines()).filter_map(tabbed).collect()
}

/// `ls broker/src/handler` is the table of supported APIs, and each file says which versions.
fn check_handler_versions(file: &SourceFile) -> Option<Violation> {
    let name = file.path.strip_prefix("broker/src/handler/")?;
    if name == "mod.rs" || name.contains('/') {
        return None;
    }
    let header = file.text.lines().take_while(|line| line.starts_with("//!"));
    let names_versions = header.into_iter().any(|line| line.contains("Versions:"));
    let sentence = "a handler's //! header must name its versions in a line with \"Versions:\".";
    (!names_versions).then(|| Violation::new(&file.path, 1, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_file(path: &str, text: &str, lines_and_words: &[(usize, &str)]) {
        let violations = check(&SourceFile::parse(path, text).unwrap());

        let found: Vec<_> = violations.iter().map(|v| (v.line, v.sentence.as_str())).collect();
        assert_eq!(found.len(), lines_and_words.len(), "{found:?}");
        for ((line, sentence), (wanted_line, word)) in found.iter().zip(lines_and_words) {
            assert_eq!(line, wanted_line);
            assert!(sentence.contains(word), "{sentence} should speak of {word}");
        }
    }

    #[test]
    fn a_plain_file_passes() {
        check_file("broker/src/a.rs", "//! A thing.\n\nfn a() {}\n", &[]);
    }

    #[test]
    fn a_file_without_a_header_is_refused() {
        check_file("broker/src/a.rs", "fn a() {}\n", &[(1, "//!")]);
        check_file("broker/src/a.rs", "// A thing.\nfn a() {}\n", &[(1, "//!")]);
    }

    #[test]
    fn a_tab_and_a_trailing_space_are_refused() {
        check_file("broker/src/a.rs", "//! A thing.\nfn a() {} \n", &[(2, "end of the line")]);
        check_file("broker/src/a.rs", "//! A thing.\n\tfn a() {}\n", &[(2, "tab")]);
    }

    #[test]
    fn a_path_of_one_machine_is_refused() {
        let text = format!("//! A thing.\nconst A: &str = \"/{}/me\";\n", "home");

        check_file("broker/src/a.rs", &text, &[(2, "one machine")]);
    }

    #[test]
    fn a_temporary_path_is_for_tests_alone() {
        let text = format!("//! A thing.\nconst A: &str = \"/{}/x\";\n", TEMPORARY_FOLDER);

        check_file("broker/src/a.rs", &text, &[(2, "one machine")]);
        check_file("tests/src/a.rs", &text, &[]);
    }

    #[test]
    fn a_relative_path_is_no_machine_path() {
        check_file("broker/src/a.rs", "//! See `target/work/a` and `https://x.org/home/y`.\n", &[]);
    }

    #[test]
    fn a_handler_names_its_versions() {
        let path = "broker/src/handler/fetch.rs";

        check_file(path, "//! Fetch.\n", &[(1, "Versions:")]);
        check_file(path, "//! Fetch.\nconst A: &str = \"Versions:\";\n", &[(1, "Versions:")]);
        check_file(path, "//! Fetch.\n//!\n//! Versions: 4 to 17.\n", &[]);
        check_file("broker/src/handler.rs", "//! Dispatch.\n", &[]);
    }

    #[test]
    fn other_text_files_hold_no_machine_path_either() {
        let text = format!("run /{}/it\n", "work");

        assert_eq!(check_lines("README.md", &text, |_| false).len(), 1);
    }
}
