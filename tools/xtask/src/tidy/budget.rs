//! How large things may grow: functions, files, and folders below `src`.
//!
//! Test code is not counted. A function is measured from its `fn` to its closing brace, so documentation is free.

use syn::visit::{self, Visit};
use syn::{Block, Signature};

use super::Violation;
use super::source::SourceFile;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;
const FOLDERS_BELOW_SRC_MAX: usize = 2;

/// Checks one file.
pub(super) fn check(file: &SourceFile) -> Vec<Violation> {
    let mut measure = Measure { file, violations: Vec::new() };
    measure.visit_file(&file.syntax);
    let mut violations = measure.violations;
    violations.extend(check_file_lines(file));
    violations.extend(check_depth(file));
    violations
}

fn check_file_lines(file: &SourceFile) -> Option<Violation> {
    let lines = (1..=file.text.lines().count()).filter(|line| !file.is_test_line(*line)).count();
    let sentence = || format!("the file has {lines} lines besides its tests, {FILE_LINES_MAX} are allowed.");
    (lines > FILE_LINES_MAX).then(|| Violation::new(&file.path, 1, sentence()))
}

fn check_depth(file: &SourceFile) -> Option<Violation> {
    let (_, below) = file.path.split_once("/src/")?;
    let folders = below.matches('/').count();
    let sentence =
        || format!("the file is {folders} folders below src, {FOLDERS_BELOW_SRC_MAX} are allowed.");
    (folders > FOLDERS_BELOW_SRC_MAX).then(|| Violation::new(&file.path, 1, sentence()))
}

struct Measure<'a> {
    file: &'a SourceFile,
    violations: Vec<Violation>,
}

impl Measure<'_> {
    fn function(&mut self, signature: &Signature, body: &Block) {
        let first = signature.fn_token.span.start().line;
        let last = body.brace_token.span.close().end().line;
        let lines = last + 1 - first;
        if lines > FUNCTION_LINES_MAX && !self.file.is_test_line(first) {
            let name = &signature.ident;
            let sentence = format!("{name} has {lines} lines, {FUNCTION_LINES_MAX} are allowed.");
            self.violations.push(Violation::new(&self.file.path, first, sentence));
        }
    }
}

impl<'ast> Visit<'ast> for Measure<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.function(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_text(path: &str, text: &str, sentences: &[&str]) {
        let violations = check(&SourceFile::parse(path, text).unwrap());

        let found: Vec<_> = violations.iter().map(|v| v.sentence.as_str()).collect();
        assert_eq!(found, sentences);
    }

    /// A function of `lines` lines.
    fn function(lines: usize) -> String {
        format!("fn a() {{\n{}}}\n", "    b();\n".repeat(lines - 2))
    }

    #[test]
    fn a_function_may_have_seventy_lines_and_not_one_more() {
        check_text("a/src/b.rs", &function(70), &[]);
        check_text("a/src/b.rs", &function(71), &["a has 71 lines, 70 are allowed."]);
    }

    #[test]
    fn methods_and_default_methods_are_functions() {
        let sentence = "a has 71 lines, 70 are allowed.";

        check_text("a/src/b.rs", &format!("impl C {{\n{}}}", function(71)), &[sentence]);
        check_text("a/src/b.rs", &format!("trait C {{\n{}}}", function(71)), &[sentence]);
        check_text(
            "a/src/b.rs",
            &format!("fn c() {{\n{}}}", function(69)),
            &["c has 71 lines, 70 are allowed."],
        );
    }

    #[test]
    fn a_file_may_have_eight_hundred_lines_and_not_one_more() {
        check_text("a/src/b.rs", &"// b\n".repeat(800), &[]);
        let sentence = "the file has 801 lines besides its tests, 800 are allowed.";
        check_text("a/src/b.rs", &"// b\n".repeat(801), &[sentence]);
    }

    #[test]
    fn test_code_is_not_counted() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(800));

        check_text("a/src/b.rs", &tests, &[]);
        check_text("tests/src/b.rs", &function(900), &[]);
    }

    #[test]
    fn folders_below_src_are_two_deep_at_most() {
        check_text("a/src/b/c/d.rs", "", &[]);
        check_text("a/src/b/c/d/e.rs", "", &["the file is 3 folders below src, 2 are allowed."]);
    }
}
