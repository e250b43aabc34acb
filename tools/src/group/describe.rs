//! `highwater group describe`: one row per partition that is committed or assigned, and per idle member.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use highwater_client::{Client, GroupInfo, GroupMember};
use highwater_record::TopicPartition;
use serde_json::{Value, json};

use super::{explain, find, lag};
use crate::bootstrap::{Bootstrap, BootstrapArgs};
use crate::failure;
use crate::output::{OutputArgs, Rows, note, printable};
use crate::{resolve, time};

const EXAMPLES: &str = "\
Examples:
  highwater group describe orders-job
  highwater group describe orders-job clicks-job --output jsonl
";

#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct DescribeArgs {
    /// The groups
    #[arg(required = true, value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    groups: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
}

const COLUMNS: &[&str] = &[
    "group",
    "topic",
    "partition",
    "committed",
    "end",
    "lag",
    "lag_seconds",
    "member",
    "instance",
    "client",
    "host",
];

pub(super) async fn run(args: DescribeArgs) -> Result<ExitCode> {
    let bootstrap = args.bootstrap.resolve()?;
    let client = bootstrap.client();
    let mut rows = Rows::new(COLUMNS);
    let mut missing = Vec::new();
    for name in &resolve::distinct(&args.groups) {
        match find(&client, &bootstrap, name).await {
            Ok(group) => describe(&client, &bootstrap, &group, &mut rows).await?,
            Err(error) => missing.push(error),
        }
    }
    failure::finish(rows.print(args.output.output), &missing)
}

async fn describe(client: &Client, bootstrap: &Bootstrap, group: &GroupInfo, rows: &mut Rows) -> Result<()> {
    let committed =
        client.committed_offsets(&group.group).await.map_err(|error| explain(bootstrap, error))?;
    let owners: BTreeMap<&TopicPartition, &GroupMember> = group
        .members
        .iter()
        .flat_map(|member| member.assignment.iter().map(move |partition| (partition, member)))
        .collect();
    let partitions: BTreeSet<TopicPartition> =
        committed.keys().chain(owners.keys().copied()).cloned().collect();
    let ends = lag::ends(client, &partitions).await?;
    let behind = committed
        .iter()
        .filter(|(partition, at)| {
            ends.get(*partition).is_some_and(|ends| (ends.start..ends.end).contains(&at.offset))
        })
        .map(|(partition, committed)| (partition.clone(), committed.offset))
        .collect();
    let unread = lag::first_unread(client, &behind).await;
    let now = time::now();

    let (mut total, mut oldest) = (0, None);
    for partition in &partitions {
        let at = committed.get(partition).map(|committed| committed.offset);
        let end = ends.get(partition);
        let records = at.zip(end).map(|(at, ends)| lag::records(at, *ends));
        let seconds = match records {
            Some(0) => Some(0),
            _ => unread.get(partition).map(|then| lag::seconds(*then, now)),
        };
        total += records.unwrap_or(0);
        oldest = oldest.max(seconds);
        let mut row = vec![
            json!(group.group),
            json!(partition.topic.as_str()),
            json!(partition.partition.get()),
            json!(at.map(|offset| offset.get())),
            json!(end.map(|ends| ends.end.get())),
            json!(records),
            json!(seconds),
        ];
        row.extend(member_cells(owners.get(partition).copied()));
        rows.push(row);
    }
    for idle in group.members.iter().filter(|member| member.assignment.is_empty()) {
        let mut row = vec![json!(group.group)];
        row.resize(COLUMNS.len() - 4, Value::Null);
        row.extend(member_cells(Some(idle)));
        rows.push(row);
    }
    note(summary(group, total, oldest));
    Ok(())
}

fn member_cells(member: Option<&GroupMember>) -> [Value; 4] {
    match member {
        Some(member) => {
            [json!(member.id), json!(member.instance_id), json!(member.client_id), json!(member.host)]
        }
        None => [Value::Null, Value::Null, Value::Null, Value::Null],
    }
}

fn summary(group: &GroupInfo, lag: u64, oldest: Option<u64>) -> String {
    let members = group.members.len();
    let protocol = match &*group.protocol {
        "" => String::new(),
        protocol => format!(", {}", printable(protocol)),
    };
    let behind = match oldest {
        Some(seconds) if lag > 0 => format!(", {} behind", lag::words(seconds)),
        _ => String::new(),
    };
    let plural = if members == 1 { "member" } else { "members" };
    let name = printable(&group.group);
    format!("group {name}: {}, {members} {plural}{protocol}, lag {lag}{behind}", group.state)
}
