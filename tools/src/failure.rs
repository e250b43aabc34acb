//! Errors that know their exit code, and how errors are said. Every other error is a failure of the operation: 1.

use std::io;
use std::process::ExitCode;

use anyhow::Error;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// The operation worked and what it looked at is not as it should be.
pub(crate) const PROBLEMS: u8 = 3;
const NOT_FOUND: u8 = 4;
/// What a shell expects of a command that SIGINT ended: 128 and the signal's number.
pub(crate) const INTERRUPTED: u8 = 130;

/// A sentence and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The operation failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    /// What was named does not exist.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { code: NOT_FOUND, message: message.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error.
pub(crate) fn exit_code(error: &Error) -> ExitCode {
    ExitCode::from(code(error))
}

fn code(error: &Error) -> u8 {
    error.downcast_ref::<Failure>().map_or(FAILED, |failure| failure.code)
}

/// An error and its causes. A cause that the error before it tells already is not told twice.
pub(crate) fn sentence(error: &Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

/// How a command about several things ends: with all errors, one per line, of which the first decides the exit code;
/// else as its rows were `printed`. That nobody read about the others is no reason to be silent about errors.
pub(crate) fn finish(printed: io::Result<()>, errors: &[Error]) -> anyhow::Result<ExitCode> {
    let Some(first) = errors.first() else {
        return printed.map(|()| ExitCode::SUCCESS).map_err(Error::from);
    };
    let mut sentences: Vec<String> = errors.iter().map(sentence).collect();
    // What is wrong with all of them is said once.
    sentences.dedup();
    Err(Failure { code: code(first), message: sentences.join("\nerror: ") }.into())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let told = anyhow!("refused").context("cannot connect to a:1: refused").context("ask a:1");

        assert_eq!(sentence(&told), "ask a:1: cannot connect to a:1: refused");
    }

    #[test]
    fn the_first_of_many_errors_decides_and_all_are_said() {
        let closed = || Err(io::Error::from(io::ErrorKind::BrokenPipe));

        let error = finish(closed(), &[Failure::not_found("no a").into(), anyhow!("no b"), anyhow!("no b")])
            .unwrap_err();

        assert_eq!((code(&error), sentence(&error).as_str()), (NOT_FOUND, "no a\nerror: no b"));
        assert!(finish(closed(), &[]).is_err());
        assert!(finish(Ok(()), &[]).is_ok());
    }
}
