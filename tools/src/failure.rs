//! Errors that know their exit code. Every other error is a failure of the operation: 1.

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
    ExitCode::from(error.downcast_ref::<Failure>().map_or(FAILED, |failure| failure.code))
}
