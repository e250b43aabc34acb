//! Rules over tokens: the one unsafe file, macros that must not stay, tests that must not sleep, who reads the clock,
//! and the one file that knows the broker.
//!
//! Comments and strings are not tokens, and the inside of macro calls is, so nothing hides in either.

use proc_macro2::Delimiter;

use super::Violation;
use super::source::{SourceFile, Token, TokenKind};

/// The only file that may say `unsafe`.
const UNSAFE_FILE: &str = "broker/storage/src/map.rs";
/// Macros that mark unfinished work.
const UNFINISHED: &[&str] = &["dbg", "todo", "unimplemented"];
/// Macros that write to the terminal.
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln"];
/// Where a terminal is the point.
const MAY_PRINT: &[&str] = &["tools", "benches", "tests"];
/// Where time is an argument.
const WITHOUT_CLOCK: &[&str] = &["broker/record", "broker/wire", "broker/protocol", "broker/storage"];
/// Functions that wait for time to pass.
const SLEEPS: &[&str] = &["sleep", "sleep_ms", "sleep_until"];

/// Checks one file.
pub(super) fn check(file: &SourceFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    for at in 0..file.tokens.len() {
        let line = file.tokens[at].line;
        let sentence = check_at(file, &file.tokens[at..], line);
        violations.extend(sentence.map(|sentence| Violation::new(&file.path, line, sentence)));
    }
    violations
}

fn check_at(file: &SourceFile, tokens: &[Token], line: usize) -> Option<String> {
    let is_test = file.is_test_line(line);
    let word = word(tokens.first()?)?;
    if word == "unsafe" && file.path != UNSAFE_FILE {
        return Some(format!("unsafe code lives in {UNSAFE_FILE} alone."));
    }
    if is_macro_call(tokens) && UNFINISHED.contains(&word) {
        return Some(format!("{word}! must not stay in the tree."));
    }
    let may_print = is_test || MAY_PRINT.iter().any(|folder| file.is_in(folder));
    if is_macro_call(tokens) && PRINTING.contains(&word) && !may_print {
        return Some(format!("{word}! is for {}; use tracing here.", MAY_PRINT.join(", ")));
    }
    if is_test && SLEEPS.contains(&word) && is_call(tokens) {
        return Some(format!("a test calls {word}; wait for a condition, or pass time in."));
    }
    let without_clock = !is_test && WITHOUT_CLOCK.iter().any(|folder| file.is_in(folder));
    if without_clock && word == "SystemTime" && is_path_to(tokens, "now") {
        return Some("this crate does not know the wall clock; take the time as an argument.".to_owned());
    }
    None
}

/// Only the command that starts a broker may name its crate; every other command is a client or works offline.
pub(super) fn check_broker_is_named_once(files: &[SourceFile]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let tools = files.iter().filter(|file| file.is_in("tools") && !file.is_in("tools/xtask"));
    for file in tools.filter(|file| !file.path.ends_with("/serve.rs")) {
        let named = file.tokens.iter().find(|token| word(token) == Some("highwater_broker"));
        violations.extend(named.map(|token| {
            Violation::new(&file.path, token.line, "of the tools, only serve.rs may name the broker.")
        }));
    }
    violations
}

fn word(token: &Token) -> Option<&str> {
    match &token.kind {
        TokenKind::Word(word) => Some(word),
        _ => None,
    }
}

/// `word!(..)` in any brackets; `word != x` is none.
fn is_macro_call(tokens: &[Token]) -> bool {
    matches!(tokens, [_, bang, open, ..]
        if bang.kind == TokenKind::Punctuation('!') && matches!(open.kind, TokenKind::Open(_)))
}

fn is_call(tokens: &[Token]) -> bool {
    matches!(tokens, [_, open, ..] if open.kind == TokenKind::Open(Delimiter::Parenthesis))
}

/// `word::name`.
fn is_path_to(tokens: &[Token], name: &str) -> bool {
    let colon = TokenKind::Punctuation(':');
    matches!(tokens, [_, a, b, end, ..] if a.kind == colon && b.kind == colon && word(end) == Some(name))
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
    fn every_form_of_unsafe_is_refused_outside_its_file() {
        let forms = [
            "fn a() {\n unsafe { b() }\n}",
            "\nunsafe fn a() {}",
            "\nunsafe impl Send for A {}",
            "\n#[unsafe(no_mangle)] fn a() {}",
            "macro_rules! a { () => {\n unsafe { b() }\n} }",
        ];
        for form in forms {
            check_file("broker/src/a.rs", form, &[(2, UNSAFE_FILE)]);
            check_file(UNSAFE_FILE, form, &[]);
        }
    }

    #[test]
    fn the_word_in_a_comment_a_string_or_a_lint_is_not_unsafe_code() {
        let text = "#![forbid(unsafe_code)]\n/// Not unsafe.\nconst A: &str = \"unsafe\"; // unsafe";

        check_file("broker/src/a.rs", text, &[]);
    }

    #[test]
    fn unfinished_work_is_refused_everywhere() {
        check_file("tools/src/a.rs", "fn a() {\n dbg!(1);\n}", &[(2, "dbg!")]);
        check_file("tests/src/a.rs", "fn a() {\n todo!()\n}", &[(2, "todo!")]);
        check_file("client/src/a.rs", "fn a() {\n b! { unimplemented!() }\n}", &[(2, "unimplemented!")]);
        check_file("client/src/a.rs", "fn a(todo: u8) -> bool { todo != (1) }", &[]);
    }

    #[test]
    fn only_programs_print() {
        let text = "fn a() {\n println!();\n}\n#[cfg(test)]\nmod tests {\n fn b() { eprintln!(); }\n}";

        check_file("broker/src/a.rs", text, &[(2, "println!")]);
        check_file("tools/src/a.rs", text, &[]);
        check_file("benches/src/a.rs", text, &[]);
    }

    #[test]
    fn tests_do_not_sleep() {
        let text =
            "async fn a() { tokio::time::sleep(B).await }\n#[test]\nfn c() {\n std::thread::sleep(B);\n}";

        check_file("broker/src/a.rs", text, &[(4, "sleep")]);
        check_file("tests/src/a.rs", text, &[(1, "sleep"), (4, "sleep")]);
    }

    #[test]
    fn the_bottom_of_the_house_has_no_clock() {
        let text = "fn a() {\n std::time::SystemTime::now();\n}";

        check_file("broker/storage/src/a.rs", text, &[(2, "wall clock")]);
        check_file("broker/src/a.rs", text, &[]);
    }

    #[test]
    fn only_serve_names_the_broker() {
        let parse = |path| SourceFile::parse(path, "use highwater_broker::Broker;\n").unwrap();

        let violations = check_broker_is_named_once(&[
            parse("tools/src/serve.rs"),
            parse("tools/src/topic.rs"),
            parse("tests/src/a.rs"),
        ]);

        let paths: Vec<_> = violations.iter().map(|v| v.path.as_str()).collect();
        assert_eq!(paths, ["tools/src/topic.rs"]);
    }
}
