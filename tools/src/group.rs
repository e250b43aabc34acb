//! `highwater group`: ls, describe, seek, rm.
//!
//! What changes a group shows a table of it first, and asks on a terminal. Nothing here joins a group.

mod describe;
mod lag;
mod seek;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use highwater_client::{Client, GroupError, GroupInfo};
use serde_json::json;

use crate::bootstrap::{Bootstrap, BootstrapArgs};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output::{OutputArgs, Rows, note};
use crate::suggest;

const EXAMPLES: &str = "\
Examples:
  highwater group ls
  highwater group describe orders-job                 offsets, lag in records and seconds, members
  highwater group seek orders-job --to @-1h --dry-run what would change
  highwater group rm orders-job
";
const LS_EXAMPLES: &str = "\
Examples:
  highwater group ls
  highwater group ls --output json
";
const RM_EXAMPLES: &str = "\
Examples:
  highwater group rm orders-job --dry-run             what would be deleted
  highwater group rm orders-job clicks-job --yes      without a question, for scripts
";

/// The arguments of `highwater group`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// List the consumer groups.
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Show the offsets, the lag and the members of groups.
    Describe(describe::DescribeArgs),
    /// Set the committed offsets of a group that has no members.
    Seek(seek::SeekArgs),
    /// Delete groups and their committed offsets.
    #[command(alias = "delete")]
    Rm(RmArgs),
}

#[derive(Debug, clap::Args)]
#[command(before_help = LS_EXAMPLES)]
struct LsArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
}

#[derive(Debug, clap::Args)]
#[command(before_help = RM_EXAMPLES)]
struct RmArgs {
    /// The groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
}

/// Runs `highwater group`.
pub(crate) async fn run(args: GroupArgs) -> Result<ExitCode> {
    match args.command {
        GroupCommand::Ls(args) => ls(args).await,
        GroupCommand::Describe(args) => describe::run(args).await,
        GroupCommand::Seek(args) => seek::run(args).await,
        GroupCommand::Rm(args) => rm(args).await,
    }
}

async fn ls(args: LsArgs) -> Result<ExitCode> {
    let bootstrap = args.bootstrap.resolve()?;
    let groups = bootstrap.client().list_groups().await.map_err(|error| explain(&bootstrap, error))?;
    let mut rows = Rows::new(&["group", "state", "protocol_type"]);
    for group in groups.into_values() {
        rows.push(vec![json!(group.group), json!(group.state), json!(group.protocol_type)]);
    }
    if rows.is_empty() {
        note("there are no groups; a consumer with a group.id makes one");
    }
    rows.print(args.output.output)?;
    Ok(ExitCode::SUCCESS)
}

async fn rm(args: RmArgs) -> Result<ExitCode> {
    let bootstrap = args.bootstrap.resolve()?;
    let client = bootstrap.client();
    let mut rows = Rows::new(&["group", "state", "offsets"]);
    for name in &args.groups {
        let group = find(&client, &bootstrap, name).await?;
        refuse_if_in_use(&group, "be deleted")?;
        let offsets = client.committed_offsets(name).await.map_err(|error| explain(&bootstrap, error))?;
        rows.push(vec![json!(name), json!(group.state), json!(offsets.len())]);
    }
    rows.print(args.output.output)?;
    if args.dry_run {
        note("nothing was deleted: --dry-run");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes {
        confirm("delete these groups and their offsets", "nothing was deleted")?;
    }
    for name in &args.groups {
        client.delete_group(name).await.map_err(|error| explain(&bootstrap, error))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The group, or a sentence with the names that are near and exit code 4.
async fn find(client: &Client, bootstrap: &Bootstrap, name: &str) -> Result<GroupInfo> {
    if let Some(group) = client.describe_group(name).await.map_err(|error| explain(bootstrap, error))? {
        return Ok(group);
    }
    let all = client.list_groups().await.map_err(|error| explain(bootstrap, error))?;
    let suggestion = suggest::sentence(name, all.keys().map(String::as_str));
    Err(Failure::not_found(format!("group {name:?} does not exist{suggestion}")).into())
}

/// A group with members cannot `suffer` this: they would commit over it.
fn refuse_if_in_use(group: &GroupInfo, suffer: &str) -> Result<(), Failure> {
    if group.members.is_empty() {
        return Ok(());
    }
    let members: Vec<String> =
        group.members.iter().map(|member| format!("{} at {}", member.client_id, member.host)).collect();
    Err(Failure::failed(format!(
        "group {} has members ({}: {}) and cannot {suffer} while they are there\n  stop them, then run this again; \
         who they are:  highwater group describe {}",
        group.group,
        members.len(),
        members.join(", "),
        group.group
    )))
}

fn explain(bootstrap: &Bootstrap, error: GroupError) -> anyhow::Error {
    match error {
        GroupError::Client(error) => bootstrap.explain(&error),
        in_use if in_use.is_in_use() => {
            Failure::failed(format!("{in_use}; members joined meanwhile, stop them and run this again"))
                .into()
        }
        other => other.into(),
    }
}
