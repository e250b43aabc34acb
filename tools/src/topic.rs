//! `highwater topic`: ls, create, describe, rm.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Subcommand;
use highwater_client::{
    BrokerError, Client, CreateTopicsError, CreatedTopic, DeleteTopicsError, NewTopic, TopicInfo,
};
use highwater_record::TopicName;
use serde_json::{Value, json};

use crate::bootstrap::{Bootstrap, BootstrapArgs};
use crate::confirm::confirm;
use crate::failure::{self, Failure};
use crate::output::{OutputArgs, OutputFormat, Rows, note};
use crate::resolve::{self, Ends};

const EXAMPLES: &str = "\
Examples:
  highwater topic ls
  highwater topic create orders -p 3 -c segment.bytes=268435456
  highwater topic describe orders --output jsonl
  highwater topic rm orders --dry-run
";
const LS_EXAMPLES: &str = "\
Examples:
  highwater topic ls
  highwater topic ls --output json
";
const CREATE_EXAMPLES: &str = "\
Examples:
  highwater topic create orders
  highwater topic create payments refunds -p 3 -c segment.bytes=268435456
  highwater topic create clicks -c durability=os --dry-run
";
const DESCRIBE_EXAMPLES: &str = "\
Examples:
  highwater topic describe orders
  highwater topic describe orders payments --output jsonl
";
const RM_EXAMPLES: &str = "\
Examples:
  highwater topic rm orders --dry-run                 what would be deleted
  highwater topic rm orders payments --yes            without a question, for scripts
";

/// The arguments of `highwater topic`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// List the topics.
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Create topics.
    Create(CreateArgs),
    /// Show the partitions of topics: leaders and offsets.
    ///
    /// RECORDS counts the offsets from START to END, among them those of records that compaction removed or that are lost
    /// to damage.
    Describe(DescribeArgs),
    /// Delete topics and all their records.
    #[command(alias = "delete")]
    Rm(RmArgs),
}

#[derive(Debug, clap::Args)]
#[command(before_help = LS_EXAMPLES)]
struct LsArgs {
    /// List the broker's own topics too
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
}

#[derive(Debug, clap::Args)]
#[command(before_help = CREATE_EXAMPLES)]
struct CreateArgs {
    /// The topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How many partitions [default: the broker's]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How many replicas of each partition [default: the broker's]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i16).range(1..))]
    replicas: Option<i16>,
    /// A setting of the topic; may be given several times
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = parse_config)]
    config: Vec<(String, String)>,
    /// Only ask the broker whether it would create them
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
}

#[derive(Debug, clap::Args)]
#[command(before_help = DESCRIBE_EXAMPLES)]
struct DescribeArgs {
    /// The topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
}

#[derive(Debug, clap::Args)]
#[command(before_help = RM_EXAMPLES)]
struct RmArgs {
    /// The topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
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

/// Runs `highwater topic`.
pub(crate) async fn run(args: TopicArgs) -> Result<ExitCode> {
    match args.command {
        TopicCommand::Ls(args) => ls(args).await,
        TopicCommand::Create(args) => create(args).await,
        TopicCommand::Describe(args) => describe(args).await,
        TopicCommand::Rm(args) => rm(args).await,
    }
}

async fn ls(args: LsArgs) -> Result<ExitCode> {
    let bootstrap = args.bootstrap.resolve()?;
    let cluster = bootstrap.client().describe_all().await.map_err(|error| bootstrap.explain(&error))?;
    let mut rows = Rows::new(&["topic", "partitions", "replicas", "id"]);
    for topic in cluster.topics.values().filter_map(|topic| topic.as_ref().ok()) {
        if args.internal || !topic.is_internal && !topic.name.is_internal() {
            rows.push(vec![
                json!(topic.name.as_str()),
                json!(topic.partitions.len()),
                json!(topic.partitions.first().map(|partition| partition.replicas.len())),
                id_cell(topic),
            ]);
        }
    }
    if rows.is_empty() {
        note("there are no topics; make one with: highwater topic create NAME");
    }
    rows.print(args.output.output)?;
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> Result<ExitCode> {
    let bootstrap = args.bootstrap.resolve()?;
    let names = topic_names(&args.names)?;
    let new_topic = |name: &TopicName| NewTopic {
        name: name.clone(),
        partitions: args.partitions,
        replication: args.replicas,
        configs: args.config.clone(),
    };
    let topics: Vec<NewTopic> = names.iter().map(new_topic).collect();
    let created = bootstrap.client().create_topics(&topics, args.dry_run).await;
    let created = created.map_err(|error| match error {
        CreateTopicsError::Client(error) => bootstrap.explain(&error),
        CreateTopicsError::Call(_) => error.into(),
    })?;
    let mut rows = Rows::new(&["topic", "id", "partitions"]);
    let mut errors = Vec::new();
    for name in &names {
        match created.get(name) {
            Some(Ok(topic)) => rows.push(created_row(name, topic, args.partitions)),
            Some(Err(error)) => errors.push(anyhow!(creation_sentence(name, error))),
            None => errors.push(anyhow!("topic {name} is missing in the broker's answer")),
        }
    }
    let printed = rows.print(args.output.output);
    if args.dry_run {
        note("nothing was created: --dry-run");
    }
    failure::finish(printed, &errors)
}

fn created_row(name: &TopicName, topic: &CreatedTopic, asked: Option<i32>) -> Vec<Value> {
    vec![json!(name.as_str()), json!(topic.id.map(|id| id.to_string())), json!(topic.partitions.or(asked))]
}

fn creation_sentence(name: &TopicName, error: &BrokerError) -> String {
    let advice = match error.is_existing_topic() {
        true => format!("\n  look at it:  highwater topic describe {name}"),
        false => String::new(),
    };
    format!("topic {name} was not created: {error}{advice}")
}

async fn describe(args: DescribeArgs) -> Result<ExitCode> {
    let bootstrap = args.bootstrap.resolve()?;
    let client = bootstrap.client();
    let mut rows = Rows::new(&[
        "topic",
        "id",
        "partition",
        "leader",
        "epoch",
        "replicas",
        "in_sync",
        "start",
        "end",
        "records",
    ]);
    let mut missing = Vec::new();
    for name in topic_names(&args.names)? {
        match resolve::find_topic(&client, &bootstrap, &name).await {
            Ok(topic) => describe_topic(&client, &topic, &mut rows).await?,
            Err(error) => missing.push(error),
        }
    }
    failure::finish(rows.print(args.output.output), &missing)
}

async fn describe_topic(client: &Client, topic: &TopicInfo, rows: &mut Rows) -> Result<()> {
    let led: Vec<_> = topic.partitions.iter().filter(|p| p.leader.is_some()).map(|p| p.id).collect();
    let ends = resolve::ends(client, &topic.name, &led).await?;
    for partition in &topic.partitions {
        let of = |part: fn(&Ends) -> i64| json!(ends.get(&partition.id).map(part));
        rows.push(vec![
            json!(topic.name.as_str()),
            id_cell(topic),
            json!(partition.id.get()),
            json!(partition.leader),
            json!(partition.leader_epoch.map(|epoch| epoch.get())),
            json!(partition.replicas),
            json!(partition.in_sync),
            of(|ends| ends.start.get()),
            of(|ends| ends.end.get()),
            of(|ends| ends.end.get() - ends.start.get()),
        ]);
    }
    Ok(())
}

async fn rm(args: RmArgs) -> Result<ExitCode> {
    let bootstrap = args.bootstrap.resolve()?;
    let client = bootstrap.client();
    let topics = find_deletable(&client, &bootstrap, &topic_names(&args.names)?).await?;
    note("to be deleted, with all records:");
    for topic in &topics {
        note(format_args!("  {}", deletion_line(&client, topic).await));
    }
    if args.dry_run {
        note("nothing was deleted: --dry-run");
        let mut rows = Rows::new(DELETION_COLUMNS);
        topics.iter().for_each(|topic| rows.push(deletion_row(topic)));
        rows.print(args.output.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes {
        confirm("delete", "nothing was deleted")?;
    }
    delete(&client, &bootstrap, &topics, args.output.output).await
}

/// All the topics, or why nothing is deleted.
async fn find_deletable(
    client: &Client,
    bootstrap: &Bootstrap,
    names: &[TopicName],
) -> Result<Vec<TopicInfo>> {
    let (mut topics, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match resolve::find_topic(client, bootstrap, name).await {
            Ok(topic) if topic.is_internal => errors.push(
                Failure::failed(format!("topic {name} is the broker's own and cannot be deleted")).into(),
            ),
            Ok(topic) => topics.push(topic),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        note("nothing was deleted");
    }
    failure::finish(Ok(()), &errors)?;
    Ok(topics)
}

const DELETION_COLUMNS: &[&str] = &["topic", "id", "partitions"];

fn deletion_row(topic: &TopicInfo) -> Vec<Value> {
    vec![json!(topic.name.as_str()), id_cell(topic), json!(topic.partitions.len())]
}

async fn deletion_line(client: &Client, topic: &TopicInfo) -> String {
    let ids: Vec<_> = topic.partitions.iter().map(|partition| partition.id).collect();
    let size = match resolve::ends(client, &topic.name, &ids).await {
        Ok(ends) => {
            let records: u64 = ends.values().map(|ends| ends.end.since(ends.start)).sum();
            format!("{records} records")
        }
        Err(error) => format!("an unknown number of records ({error})"),
    };
    format!("{}: {} partitions, {size}", topic.name, topic.partitions.len())
}

/// Deletes the topics and prints those that are gone.
async fn delete(
    client: &Client,
    bootstrap: &Bootstrap,
    topics: &[TopicInfo],
    output: OutputFormat,
) -> Result<ExitCode> {
    let names: Vec<TopicName> = topics.iter().map(|topic| topic.name.clone()).collect();
    let deleted = client.delete_topics(&names).await.map_err(|error| match error {
        DeleteTopicsError::Client(error) => bootstrap.explain(&error),
        DeleteTopicsError::Call(_) => error.into(),
    })?;
    let mut rows = Rows::new(DELETION_COLUMNS);
    let mut errors = Vec::new();
    for topic in topics {
        let name = &topic.name;
        match deleted.get(name) {
            Some(Ok(())) => rows.push(deletion_row(topic)),
            Some(Err(error)) => errors.push(anyhow!("topic {name} was not deleted: {error}")),
            None => errors.push(anyhow!("topic {name} is missing in the broker's answer")),
        }
    }
    failure::finish(rows.print(output), &errors)
}

fn topic_names(texts: &[String]) -> Result<Vec<TopicName>, Failure> {
    resolve::distinct(texts).iter().map(|text| resolve::topic_name(text)).collect()
}

fn id_cell(topic: &TopicInfo) -> Value {
    json!(topic.id.map(|id| id.to_string()))
}

fn parse_config(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, for example segment.bytes=268435456".to_owned()),
    }
}
