//! A Rust file as the rules see it: its lines, its flat tokens, its syntax tree, and which lines are test code.
//!
//! Test code is what lies in the `tests` package, in a folder or file called `tests`, below `#[cfg(test)]`, or in a
//! function marked as a test. The rest is product code.

use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item};

/// One parsed file.
pub(super) struct SourceFile {
    /// Relative to the workspace, with forward slashes.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) tokens: Vec<Token>,
    pub(super) syntax: syn::File,
    test_lines: Vec<RangeInclusive<usize>>,
    /// Folder-like paths (no extension) of the modules that this file declares for tests only.
    test_modules: Vec<String>,
    all_test: bool,
}

/// A token with groups opened up, so that a rule is a pattern over neighbours.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) line: usize,
}

/// What rules need to know of a token.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum TokenKind {
    Word(String),
    Punctuation(char),
    Open(Delimiter),
    Close,
    Literal,
}

impl SourceFile {
    /// Reads `text` as the file at `path`.
    pub(super) fn parse(path: &str, text: &str) -> Result<Self> {
        let stream: TokenStream = text.parse().ok().context("split it into tokens")?;
        let mut tokens = Vec::new();
        flatten(stream.clone(), &mut tokens);
        let syntax: syn::File = syn::parse2(stream).context("read it as Rust")?;
        let mut finder = TestFinder { module_folder: module_folder(path), ..TestFinder::default() };
        finder.visit_file(&syntax);
        Ok(Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
            syntax,
            test_lines: finder.lines,
            test_modules: finder.modules,
            all_test: is_test_path(path),
        })
    }

    /// Whether line `line` is test code.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        self.all_test || self.test_lines.iter().any(|range| range.contains(&line))
    }

    /// Whether the file lies in `folder` or below.
    pub(super) fn is_in(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Marks the files of modules that another file declares under `#[cfg(test)]`.
pub(super) fn mark_test_modules(files: &mut [SourceFile]) {
    let modules: Vec<String> = files.iter().flat_map(|file| file.test_modules.clone()).collect();
    for file in files {
        let stem = file.path.trim_end_matches(".rs");
        file.all_test |= modules.iter().any(|module| stem == module || file.is_in(module));
    }
}

fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "tests.rs")) || path.ends_with("_tests.rs")
}

/// Where the modules that a file declares live.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

fn flatten(stream: TokenStream, into: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        let kind = match tree {
            TokenTree::Ident(word) => TokenKind::Word(word.to_string()),
            TokenTree::Punct(punctuation) => TokenKind::Punctuation(punctuation.as_char()),
            TokenTree::Literal(_) => TokenKind::Literal,
            TokenTree::Group(group) => {
                into.push(Token { kind: TokenKind::Open(group.delimiter()), line });
                flatten(group.stream(), into);
                let line = group.span_close().start().line;
                into.push(Token { kind: TokenKind::Close, line });
                continue;
            }
        };
        into.push(Token { kind, line });
    }
}

#[derive(Default)]
struct TestFinder {
    module_folder: String,
    lines: Vec<RangeInclusive<usize>>,
    modules: Vec<String>,
}

impl TestFinder {
    fn note(&mut self, attributes: &[Attribute], node: &dyn Spanned) -> bool {
        let is_test = attributes.iter().any(marks_a_test);
        if is_test {
            let span = node.span();
            self.lines.push(span.start().line..=span.end().line);
        }
        is_test
    }
}

impl<'ast> Visit<'ast> for TestFinder {
    fn visit_item(&mut self, item: &'ast Item) {
        if !self.note(attributes_of(item), item) {
            visit::visit_item(self, item);
        } else if let Item::Mod(module) = item
            && module.content.is_none()
        {
            self.modules.push(format!("{}/{}", self.module_folder, module.ident));
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.attrs, function);
    }
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[test]`, `#[tokio::test]`, `#[cfg(test)]`, `#[cfg(all(test, ..))]`; a negated or alternative one does not count.
fn marks_a_test(attribute: &Attribute) -> bool {
    if attribute.path().is_ident("cfg") {
        let Ok(condition) = attribute.parse_args::<TokenStream>() else { return false };
        let condition = condition.to_string().replace(char::is_whitespace, "");
        return condition == "test" || condition.starts_with("all(test,");
    }
    attribute.path().segments.last().is_some_and(|segment| segment.ident == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_lines(path: &str, text: &str) -> Vec<usize> {
        let file = SourceFile::parse(path, text).unwrap();
        (1..=text.lines().count()).filter(|line| file.is_test_line(*line)).collect()
    }

    #[test]
    fn lines_below_a_test_attribute_are_test_code() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n#[tokio::test]\nfn d() {}\n";

        assert_eq!(test_lines("broker/src/lib.rs", text), [2, 3, 4, 5, 7, 8]);
    }

    #[test]
    fn a_negated_condition_is_product_code() {
        assert!(test_lines("a/src/lib.rs", "#[cfg(not(test))]\nfn a() {}\n").is_empty());
        assert!(test_lines("a/src/lib.rs", "#[cfg(any(test, unix))]\nfn a() {}\n").is_empty());
    }

    #[test]
    fn everything_in_a_tests_folder_is_test_code() {
        assert_eq!(test_lines("tests/src/harness.rs", "fn a() {}\n"), [1]);
        assert_eq!(test_lines("broker/src/log/tests.rs", "fn a() {}\n"), [1]);
    }

    #[test]
    fn the_file_of_a_module_declared_for_tests_is_test_code() {
        let mut files = [
            SourceFile::parse("a/src/log.rs", "#[cfg(test)]\nmod model;\n").unwrap(),
            SourceFile::parse("a/src/log/model.rs", "fn a() {}\n").unwrap(),
            SourceFile::parse("a/src/log/roll.rs", "fn a() {}\n").unwrap(),
        ];

        mark_test_modules(&mut files);

        assert_eq!(files.map(|file| file.is_test_line(3)), [false, true, false]);
    }
}
