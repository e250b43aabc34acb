//! `highwater group`: ls, describe, seek, rm.
//!
//! What changes a group shows a table of it first, and asks on a terminal. Nothing here joins a group.

mod describe;
mod lag;
mod seek;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use highwater_client::{Client, GroupError, GroupInfo, GroupMember};
use serde_json::{Value, json};

use crate::bootstrap::{Bootstrap, BootstrapArgs};
use crate::confirm::confirm_shown;
use crate::failure::{self, Failure};
use crate::output::{self, OutputArgs, Rows, note};
use crate::{resolve, suggest};

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
    #[arg(required = true, value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
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
    let names = resolve::distinct(&args.groups);
    let mut rows = Rows::new(&["group", "state", "offsets"]);
    let mut errors = Vec::new();
    for name in &names {
        match deletion_row(&client, &bootstrap, name).await {
            Ok(row) => rows.push(row),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        note("nothing was deleted");
        return failure::finish(Ok(()), &errors);
    }
    let shown = rows.print(args.output.output);
    if args.dry_run {
        note("nothing was deleted: --dry-run");
        return failure::finish(shown, &[]);
    }
    if !args.yes {
        confirm_shown(&shown, "delete these groups and their offsets", "nothing was deleted")?;
    }
    for name in &names {
        let deleted = client.delete_group(name).await;
        errors.extend(deleted.err().map(|error| explain(&bootstrap, error)));
    }
    // Whether anybody reads the rows does not change what is done.
    failure::finish(shown, &errors)
}

/// What is shown of a group before it is deleted, or why it cannot be.
async fn deletion_row(client: &Client, bootstrap: &Bootstrap, name: &str) -> Result<Vec<Value>> {
    let group = find(client, bootstrap, name).await?;
    refuse_if_in_use(&group, "be deleted")?;
    let offsets = client.committed_offsets(name).await.map_err(|error| explain(bootstrap, error))?;
    Ok(vec![json!(name), json!(group.state), json!(offsets.len())])
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
    let member = |member: &GroupMember| {
        format!("{} at {}", output::printable(&member.client_id), output::printable(&member.host))
    };
    let members: Vec<String> = group.members.iter().map(member).collect();
    let name = output::printable(&group.group);
    let statics = match group.members.iter().any(|member| member.instance_id.is_some()) {
        true => {
            "\n  members with an instance id stay until their session times out, also after they are stopped"
        }
        false => "",
    };
    Err(Failure::failed(format!(
        "group {name} has members ({}: {}) and cannot {suffer} while they are there\n  stop them, then run this again; \
         who they are:  highwater group describe {name}{statics}",
        members.len(),
        members.join(", "),
    )))
}

fn explain(bootstrap: &Bootstrap, error: GroupError) -> anyhow::Error {
    match error {
        GroupError::Client(error) => bootstrap.explain(&error),
        in_use if in_use.is_in_use() => {
            Failure::failed(format!("{in_use}; members joined meanwhile, stop them and run this again"))
                .into()
        }
        unknown if unknown.is_unknown_group() => {
            Failure::not_found(format!("{unknown}; it was deleted meanwhile")).into()
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why a group with this one member is left alone.
    fn refusal(instance_id: Option<&str>) -> String {
        let member = GroupMember {
            id: "m".to_owned(),
            instance_id: instance_id.map(str::to_owned),
            client_id: "shop\u{1b}[2J".to_owned(),
            host: "10.0.0.7".to_owned(),
            assignment: Vec::new(),
        };
        let group = GroupInfo {
            group: "job".to_owned(),
            state: "Stable".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocol: "range".to_owned(),
            members: vec![member],
        };
        refuse_if_in_use(&group, "be moved").unwrap_err().to_string()
    }

    #[test]
    fn a_group_in_use_is_refused_with_its_members_names_and_nothing_that_a_terminal_obeys() {
        assert!(
            refusal(None).contains("job has members (1: shop\\u{1b}[2J at 10.0.0.7)"),
            "{}",
            refusal(None)
        );
    }

    #[test]
    fn only_static_members_are_said_to_stay_when_they_are_stopped() {
        assert!(refusal(Some("one")).contains("until their session times out"), "{}", refusal(Some("one")));
        assert!(!refusal(None).contains("session"), "{}", refusal(None));
    }
}
