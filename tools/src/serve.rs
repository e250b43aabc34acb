//! `highwater serve`: the broker. It is not part of this build; the command says so.

use std::process::ExitCode;

use crate::failure::Failure;

/// Settings of a broker: none yet.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {}

/// Refuses to start.
pub(crate) fn run(_args: ServeArgs) -> anyhow::Result<ExitCode> {
    Err(Failure::failed("this build of highwater has no broker; the other commands work with any Kafka")
        .into())
}
